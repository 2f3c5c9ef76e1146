"""A servent that the others see at the far end of a line; all else is what users run.

    python -m benchmarks.far serve --state STATE ...

It says that it listens where the line begins, whose port the file `line` in its state names, and
leaves its own port in the file `port` beside it. It calls nobody back: that would go beside the
line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from p2pfs import servent
from p2pfs.cli import commands
from p2pfs.errors import UnreachableError
from p2pfs.link.sockets import Channel, TcpListener, TcpNetwork
from p2pfs.protocol import Address

LINE = "line"
PORT = "port"


class FarNetwork(TcpNetwork):
    """The network as it is at the far end of a line."""

    async def listen(self, host: str | None, port: int) -> TcpListener:
        """Listen, and say that it is where the line begins."""
        state = Path(sys.argv[sys.argv.index("--state") + 1])
        listener = await super().listen(host, port)
        (state / PORT).write_text(str(listener.address.port))
        listener.address = Address(listener.address.host, int((state / LINE).read_text()))
        return listener

    async def dial(self, address: Address) -> Channel:
        """Reach nobody."""
        raise UnreachableError(f"no line leads to {address}")


if __name__ == "__main__":
    vars(servent)["TcpNetwork"] = FarNetwork
    commands.main()
