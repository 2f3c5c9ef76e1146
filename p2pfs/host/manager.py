"""Report the state of the servent to the service manager, as sd_notify(3) does.

systemd gives a service of `Type=notify` the address of a datagram socket in NOTIFY_SOCKET.
It takes the service for started when READY=1 comes there, and shows STATUS to people.
Without that variable nothing is sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import Final

from p2pfs.config import socket_name
from p2pfs.journal import printable

log = logging.getLogger(__name__)

_NOTIFY_VARIABLE: Final = "NOTIFY_SOCKET"


class Manager:
    """The service manager that started this process, if one did.

    No method waits or raises: a manager that is gone or busy must not disturb the servent.
    """

    def __init__(self) -> None:
        # Taken out: fusermount, and whatever else we start, must not speak for us.
        self._address = os.environ.pop(_NOTIFY_VARIABLE, "")
        self._state = ""

    @property
    def is_listening(self) -> bool:
        """Whether there is one."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """Report that the servent is up, with a status text; later calls replace the text."""
        self._tell("READY=1", status)

    def stopping(self, status: str) -> None:
        """Report that the servent has begun to end, and why; systemd shows that afterwards."""
        self._tell("STOPPING=1", status)

    def _tell(self, assignment: str, status: str) -> None:
        state = f"{assignment}\nSTATUS={printable(status)}"
        if not self._address or state == self._state:
            return
        try:
            with _receiver(self._address) as address, _datagrams() as sender:
                sender.sendto(state.encode("utf-8", "replace"), address)
        except OSError as error:
            log.info("the service manager was not told reason=%s", error)
        else:
            self._state = state


def _datagrams() -> socket.socket:
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.setblocking(False)  # trio's own thread sends
    return sender


def _receiver(address: str) -> contextlib.AbstractContextManager[str]:
    if address.startswith("@"):  # how unix(7)'s abstract names are written
        return contextlib.nullcontext("\0" + address[1:])
    return socket_name(address)
