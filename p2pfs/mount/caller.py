"""The program that made the call which is being answered, from libfuse and /proc."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping
from typing import Final

from p2pfs.mount.mountpoint import load_fuse

_MKDIR_SYSCALLS: Final[Mapping[str, frozenset[int]]] = {
    "x86_64": frozenset({83, 258}),
    "aarch64": frozenset({34}),
    "riscv64": frozenset({34}),
}
"""The numbers of mkdir and mkdirat, by machine."""


_SIGNAL_MASKS: Final = re.compile(r"^(SigPnd|ShdPnd|SigBlk|SigIgn):\s*([0-9a-f]+)$", re.MULTILINE)
"""The lines of /proc/PID/status that say which signals wait for a thread, and which never do."""


class KernelCaller:
    """The thread whose call is answered on this thread; see `p2pfs.filesystem.caller.Caller`."""

    def __init__(self, thread_id: Callable[[], int] | None = None) -> None:
        self._thread_id = thread_id or _thread_from_libfuse
        self._mkdir_syscalls = _MKDIR_SYSCALLS.get(platform.machine(), frozenset())

    def program(self) -> str:
        """Return the name of its program, or what the thread calls itself; empty if not known."""
        return self._read("comm").rstrip("\n")

    def command(self) -> str:
        """Return the words with which its process was started."""
        return self._read("cmdline").rstrip("\0").replace("\0", " ")

    def user(self) -> int:
        """Return the user whose call it is."""
        return int(load_fuse().fuse_get_context()[0])

    def makes_directory(self) -> bool:
        """Return whether it is in mkdir(2), or a program of that name if we may not see that."""
        number = self._read("syscall").partition(" ")[0]
        if number.isdigit() and self._mkdir_syscalls:
            return int(number) in self._mkdir_syscalls
        return self.program() == "mkdir"

    def is_leaving(self) -> bool:
        """Return whether it has a signal to take and cannot, or was killed."""
        status = self._read("status")
        if not status:
            return self._is_gone()
        masks = {key: int(mask, 16) for key, mask in _SIGNAL_MASKS.findall(status)}
        pending = masks.get("SigPnd", 0) | masks.get("ShdPnd", 0)
        return bool(pending & ~masks.get("SigBlk", 0) & ~masks.get("SigIgn", 0))

    def _is_gone(self) -> bool:
        """Return whether there is no such thread, rather than one that we may not inspect."""
        thread_id = self._thread_id()
        try:
            if thread_id:  # 0: it is in another namespace
                os.kill(thread_id, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    def _read(self, name: str) -> str:
        try:
            with open(f"/proc/{self._thread_id()}/{name}", encoding="utf-8", errors="replace") as f:
                return f.read()
        except OSError:  # it has ended, it is in another namespace, or we may not look
            return ""


def _thread_from_libfuse() -> int:
    _user, _group, thread_id = load_fuse().fuse_get_context()
    return int(thread_id)
