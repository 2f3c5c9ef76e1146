"""Who made the call that is being answered, from libfuse and /proc."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import Final

from p2pfs.mount.mountpoint import load_fuse

_MKDIR_SYSCALLS: Final[Mapping[str, frozenset[int]]] = {
    "x86_64": frozenset({83, 258}),
    "aarch64": frozenset({34}),
    "riscv64": frozenset({34}),
}
"""The numbers of mkdir and mkdirat, by machine."""


class KernelCaller:
    """The thread whose call is answered on this thread; see `p2pfs.filesystem.caller.Caller`."""

    def __init__(self, thread_id: Callable[[], int] | None = None) -> None:
        self._thread_id = thread_id or _from_libfuse
        self._mkdir_syscalls = _MKDIR_SYSCALLS.get(platform.machine(), frozenset())

    def program(self) -> str:
        """Return the name of its program, or what the thread calls itself; empty if not known."""
        return self._read("comm").rstrip("\n")

    def command(self) -> str:
        """Return the words with which its process was started."""
        return self._read("cmdline").rstrip("\0").replace("\0", " ")

    def makes_directory(self) -> bool:
        """Return whether it is in mkdir(2), or a program of that name if we may not see that."""
        number = self._read("syscall").partition(" ")[0]
        if number.isdigit() and self._mkdir_syscalls:
            return int(number) in self._mkdir_syscalls
        return self.program() == "mkdir"

    def _read(self, name: str) -> str:
        try:
            with open(f"/proc/{self._thread_id()}/{name}", encoding="utf-8", errors="replace") as f:
                return f.read()
        except OSError:  # it has ended, it is in another namespace, or we may not look
            return ""


def _from_libfuse() -> int:
    _user, _group, thread_id = load_fuse().fuse_get_context()
    return int(thread_id)
