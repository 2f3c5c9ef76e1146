"""The command, but for the line before it.

    python -m tests.helpers.farservent mount DIR --state STATE ...

It says that it listens where the line of `tests.helpers.delayproxy` begins, whose port the
file `line` in the state directory names, and leaves its own port in the file `port` beside it.
All else is what users run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from p2pfs import servent
from p2pfs.cli import commands as cli
from p2pfs.errors import UnreachableError
from p2pfs.link.sockets import Channel, TcpListener, TcpNetwork
from p2pfs.protocol.fields import Address
from tests.helpers.delayproxy import LINE, PORT

STATE = Path(sys.argv[sys.argv.index("--state") + 1])


class FarNetwork(TcpNetwork):
    """The Internet, of which the others see us at the far end of a line."""

    async def listen(self, host: str | None, port: int) -> TcpListener:
        listener = await super().listen(host, port)
        (STATE / PORT).write_text(str(listener.address.port))
        listener.address = Address(listener.address.host, int((STATE / LINE).read_text()))
        return listener

    async def dial(self, address: Address) -> Channel:
        """Reach nobody: the line leads one way, and a call back would go beside it."""
        raise UnreachableError(f"no line leads to {address}")


if __name__ == "__main__":
    servent.TcpNetwork = FarNetwork
    cli.main()
