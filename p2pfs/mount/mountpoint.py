"""Whether and where this machine can mount: checks before, and cleaning up after a crash.

A mounted directory is looked up in /proc and not touched, unless it may be a dead one's:
a call to a live mount waits for an answer.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Collection, Iterator
from types import ModuleType
from typing import Final, cast

from p2pfs.attempts import Attempt
from p2pfs.errors import UsageError
from p2pfs.mounts import is_ours_on, mount_on, read_mounts

FUSERMOUNT_TIMEOUT_S: Final = 10.0
"""fusermount is done in milliseconds; on a machine that is busy beyond reason it may not be."""

ANSWER_S: Final = 2.0
"""A live mount answers in milliseconds, a dead one at once. One that is silent for this long
is alive and stuck."""

_DEVICE: Final = "/dev/fuse"

_DEVICE_NUMBER: Final = os.makedev(10, 229)
"""Its number, the same on every Linux (admin-guide/devices.txt)."""

_FUSE_CONF: Final = "/etc/fuse.conf"
"""The file in which the administrator says what other users than root may ask of fusermount."""

_MTAB: Final = "/etc/mtab"
"""Where fusermount finds whose mounts are. A system that was never booted may lack it."""


def check_fuse(*, allow_other: bool = False) -> None:
    """Raise `UsageError` if this machine cannot mount, with what to do about it."""
    _check_device()
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        raise UsageError(
            "no permission to use /dev/fuse: ask the administrator for `chmod 666 /dev/fuse`, "
            "or for the group that owns it"
        )
    fusermount()
    load_fuse()
    if os.geteuid() != 0 and not os.path.exists(_MTAB):
        raise UsageError(
            f"{_MTAB} is missing, and without it fusermount unmounts nothing: "
            f"ask the administrator for `ln -s /proc/self/mounts {_MTAB}`"
        )
    if allow_other and not _may_allow_other():
        raise UsageError(f"--allow-other needs a line `user_allow_other` in {_FUSE_CONF}")


def _check_device() -> None:
    try:
        status = os.stat(_DEVICE)
    except OSError:
        raise UsageError(
            f"{_DEVICE} is missing: load the kernel module with `modprobe fuse`"
        ) from None
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _DEVICE_NUMBER:
        raise UsageError(
            f"{_DEVICE} is not the device of FUSE: remove it, and make it anew with "
            f"`mknod -m 666 {_DEVICE} c {os.major(_DEVICE_NUMBER)} {os.minor(_DEVICE_NUMBER)}`"
        )


def check_mountpoint(path: str) -> str:
    """Make `path` ready to be mounted on and return it absolute, without symbolic links.

    It is created if missing. What a crashed p2pfs left mounted there is unmounted. Blocks
    on the disk, so not for trio's thread. Raises `UsageError` with one clear line.
    """
    path = _without_links(path)
    if is_ours_on(path):
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
        raise UsageError(f"{path} is not empty: name an empty directory, or a new one")
    return path


@contextlib.contextmanager
def new_mountpoint_undone(path: str) -> Iterator[Callable[[], None]]:
    """Remove at the end the directories that were made meanwhile for a mount that failed.

    Yields what to call when it is mounted: from then on they stay, whatever happens. One that
    holds anything stays too.
    """
    new = [] if is_ours_on(_without_links(path)) else _missing(path)

    try:
        yield new.clear
    finally:
        for place in new:
            with contextlib.suppress(OSError):
                os.rmdir(place)


def _missing(path: str) -> list[str]:
    """Return which directories are to be made for a path, the innermost first."""
    missing, place = [], os.path.abspath(path)
    while not os.path.lexists(place):
        missing.append(place)
        place = os.path.dirname(place)
    return missing


def detach(mountpoint: str) -> None:
    """Unmount `mountpoint` now, also while it is in use. Blocks; does nothing if it is not mounted.

    Raises `UsageError` if it stays mounted, with fusermount's own words.
    """
    command = [fusermount(), "-u", "-z", mountpoint]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=FUSERMOUNT_TIMEOUT_S,
    )
    if is_ours_on(mountpoint):
        words = "; ".join(done.stderr.split("\n")).strip("; ")
        raise UsageError(f"cannot unmount {mountpoint}: {words or 'fusermount does not say why'}")


def stale_mounts(served: Collection[str | None], among: Collection[str] | None = None) -> list[str]:
    """Return the mounts that crashed servents left behind, or those of them in `among`.

    Those in `served`, which running servents claim, are not touched: one could be stuck. A process
    that asks a stuck mount cannot even end before it answers, so ask no more mounts than are meant.
    """
    places = {mount.place for mount in read_mounts() if mount.is_ours}
    asked = places.intersection(places if among is None else among).difference(served)
    return sorted(filter(_is_stale, asked))


def is_stuck(mountpoint: str) -> bool:
    """Return whether a mount that is there gives no answer. Blocks for 2 s if so."""
    return _answer_of(mountpoint) is None


def fusermount() -> str:
    """Return the program that unmounts, and that mounts for ordinary users.

    For these libfuse 2 runs `fusermount`, under that name alone. For root it mounts by itself.
    """
    program = shutil.which("fusermount")
    if program is None and os.geteuid() == 0:
        program = shutil.which("fusermount3")
    if program is None:
        raise UsageError(
            "fusermount is missing: install the package fuse3 (Debian, Ubuntu), "
            "fuse (Fedora) or fuse2 (Arch)"
        )
    return program


def load_fuse() -> ModuleType:
    """Return fusepy, which looks for libfuse when it is imported."""
    try:
        import fuse  # noqa: PLC0415 - only a mount needs libfuse
    except OSError:
        raise UsageError(
            "libfuse 2 is missing: install libfuse2t64 (Debian from 13 on, Ubuntu from 24.04 on; "
            "libfuse2 before), fuse-libs (Fedora) or fuse2 (Arch)"
        ) from None
    return cast("ModuleType", fuse)


def _without_links(path: str) -> str:
    """Return `path` absolute and without symbolic links; a mount there is not asked."""
    parent, name = os.path.split(os.path.abspath(path))
    place = os.path.join(os.path.realpath(parent), name)
    return place if mount_on(place) else os.path.realpath(place)


def _may_allow_other() -> bool:
    if os.geteuid() == 0:
        return True
    try:
        with open(_FUSE_CONF, encoding="utf-8", errors="replace") as lines:
            return any(line.strip() == "user_allow_other" for line in lines)
    except OSError:
        return False


def _is_stale(path: str) -> bool:
    """Return whether a mount is dead. One that is stuck is not."""
    return _answer_of(path) in (errno.ENOTCONN, errno.ECONNABORTED)


def _answer_of(path: str) -> int | None:
    """Return the errno that a mount answers with, 0 for none, None if it says nothing in time."""
    return Attempt(functools.partial(_error_of, path)).result(ANSWER_S)


def _error_of(path: str) -> int:
    try:
        # The kernel would answer `stat` from its cache for a while after the crash.
        os.statvfs(path)
    except OSError as error:
        return error.errno or errno.EIO
    return 0
