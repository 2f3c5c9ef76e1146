"""Whether and where this machine can mount: checks before, and cleaning up after a crash.

A mounted directory is looked up in /proc and not touched, unless it may be a dead one's:
whoever asks a live mount waits for an answer.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Final, cast

from p2pfs.errors import UsageError

FSTYPE: Final = "fuse.p2pfs"
"""What the kernel's table of mounts calls ours."""

FUSERMOUNT_TIMEOUT_S: Final = 10.0
"""fusermount is done in milliseconds; on a machine that is busy beyond reason it may not be."""

_MOUNTINFO: Final = "/proc/self/mountinfo"


def check_fuse() -> None:
    """Raise `UsageError` if this machine cannot mount, with what to do about it."""
    if not os.path.exists("/dev/fuse"):
        raise UsageError("/dev/fuse is missing: load the kernel module with `modprobe fuse`")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise UsageError("no permission to use /dev/fuse: ask the administrator for it")
    fusermount()
    load_fuse()


def check_mountpoint(path: str) -> str:
    """Make `path` ready to be mounted on and return it absolute, without symbolic links.

    It is created if missing. What a crashed p2pfs left mounted there is unmounted. Blocks
    on the disk, so not for trio's thread. Raises `UsageError` with one clear line.
    """
    path = os.path.realpath(path)
    mounted = _mount_at(path)
    if mounted is not None and mounted.fstype == FSTYPE:
        if not _is_stale(path):
            raise UsageError(f"{path} is already mounted by a running p2pfs")
        detach(path)
    try:
        os.makedirs(path, exist_ok=True)
        is_empty = not os.listdir(path)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{path} is not a directory") from None
    except OSError as error:
        raise UsageError(f"cannot mount on {path}: {error.strerror}") from None
    if not is_empty:
        raise UsageError(f"{path} is not empty")
    return path


def detach(mountpoint: str) -> None:
    """Unmount `mountpoint` now, whoever uses it. Blocks; does nothing if it is not mounted."""
    command = [fusermount(), "-u", "-z", mountpoint]
    subprocess.run(command, capture_output=True, check=False, timeout=FUSERMOUNT_TIMEOUT_S)


def stale_mounts(served: Collection[str | None]) -> list[str]:
    """Return the mounts that crashed servents left behind.

    Those in `served`, which running servents claim, are not touched: one could be stuck.
    """
    with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as lines:
        places = [_unescaped(line.split()[4]) for line in lines if f" - {FSTYPE} " in line]
    return [place for place in places if place not in served and _is_stale(place)]


def fusermount() -> str:
    program = shutil.which("fusermount") or shutil.which("fusermount3")
    if program is None:
        raise UsageError("fusermount is missing: install the package fuse3 (or fuse)")
    return program


def load_fuse() -> ModuleType:
    """Return fusepy, which looks for libfuse when it is imported."""
    try:
        import fuse  # noqa: PLC0415 - only who mounts needs libfuse
    except OSError:
        raise UsageError(
            "libfuse 2 is missing: install libfuse2 (Debian, Ubuntu), fuse-libs (Fedora) "
            "or fuse2 (Arch)"
        ) from None
    return cast("ModuleType", fuse)


@dataclass(frozen=True, slots=True)
class _Mounted:
    fstype: str
    device_minor: str
    """Also the name of the connection below `_CONNECTIONS`."""


def _mount_at(path: str) -> _Mounted | None:
    """Return what is mounted on `path`, last first, without touching it."""
    found = None
    with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            place, _, kind = line.partition(" - ")
            fields = place.split()
            if _unescaped(fields[4]) == path:
                found = _Mounted(kind.split()[0], fields[2].partition(":")[2])
    return found


def _unescaped(field_text: str) -> str:
    """Undo the octal escapes that mountinfo has for blanks and backslashes (proc(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field_text)


def _is_stale(path: str) -> bool:
    try:
        # The kernel would answer `stat` from its cache for a while after the crash.
        os.statvfs(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False
