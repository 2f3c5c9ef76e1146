"""The places of a user's state directories and control sockets on this machine."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from p2pfs.errors import UsageError


def default_state_directory() -> Path:
    """Return the default state directory, in the XDG data home."""
    from platformdirs import user_data_path  # noqa: PLC0415 - verbs that need it are few

    return user_data_path("p2pfs", appauthor=False)


def runtime_directory() -> Path:
    """Return the directory of control sockets, created for its owner alone.

    Raises:
        UsageError: somebody else owns it.
    """
    places = (os.environ.get("XDG_RUNTIME_DIR"), _of_the_login())
    base = next((place for place in places if place and _is_private(place)), None)
    path = Path(base, "p2pfs") if base else _without_login()
    path.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(path):
        raise UsageError(f"{path} is not a directory of yours alone: remove it")
    return path


def runtime_directories() -> list[Path]:
    """Return the directories that may hold control sockets of this user's servents.

    A servent that was started before its user logged in, from fstab say, found no directory
    of the login. If XDG_RUNTIME_DIR names another place, that is the only one.

    Raises:
        UsageError: somebody else owns the first of them.
    """
    places = [runtime_directory()]
    if os.environ.get("XDG_RUNTIME_DIR", _of_the_login()) == _of_the_login():
        others = (Path(_of_the_login(), "p2pfs"), _without_login())
        places += [place for place in others if place not in places and _is_private(place)]
    return places


def _of_the_login() -> str:
    return f"/run/user/{os.geteuid()}"


def _without_login() -> Path:
    return Path(tempfile.gettempdir(), f"p2pfs-{os.geteuid()}")


@contextlib.contextmanager
def socket_name(path: str) -> Iterator[str]:
    """Give a name for `path` that fits the 107 bytes of a Unix socket's address."""
    directory, name = os.path.split(os.path.abspath(path))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def _is_private(path: str | Path) -> bool:
    """Return whether a directory is the user's own and closed to everybody else."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    mode = stat.S_IMODE(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not mode & 0o077
