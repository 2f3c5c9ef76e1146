"""What servents that have ended must not leave behind."""

from __future__ import annotations

import os
from pathlib import Path


def left_below(directory: Path) -> list[str]:
    """Return the mounts, sockets and temporary files below a directory, and who uses it."""
    return [*mounts_below(directory), *processes_below(directory), *files_below(directory)]


def mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if f" {directory}/" in line and " fuse" in line]


def processes_below(directory: Path) -> list[str]:
    """Return the processes, but for this one, that were started with a word of the directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if f"{directory}/".encode() in words:
            found.append(f"{process.name}: {words.decode(errors='replace')}")
    return found


def files_below(directory: Path) -> list[str]:
    """Return the sockets and what looks like a temporary file."""
    return [
        str(path)
        for path in directory.rglob("*")
        if path.is_socket() or path.suffix in (".new", ".tmp", ".gone", "-wal", "-journal")
    ]
