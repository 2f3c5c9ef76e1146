"""Check whether p2pfs can work on this machine, and advise where it cannot."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from p2pfs.config import Config, load_config, runtime_directory
from p2pfs.control import VerbError
from p2pfs.control.client import ask, running_servents
from p2pfs.errors import UsageError

MIN_FREE_BYTES: Final = 1024**3
"""With less free space, downloads soon end with ENOSPC."""


_WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_watches")


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    is_good: bool
    text: str
    """The finding, or the advice."""


def examine(state_directory: str | None) -> Iterator[Finding]:
    """Run all checks, one after the other; nothing is changed, nothing raised.

    The state directory must be there if the user has named it. Where its settings are wrong, what
    depends on them is not looked at.
    """
    yield Finding("python", True, f"{platform.python_version()} at {sys.executable}")
    yield _checked("FUSE", _fuse)
    yield _checked("control sockets", lambda: str(runtime_directory()))
    try:
        config = load_config({}, state_directory=state_directory)
    except (UsageError, OSError) as error:
        yield Finding("settings", False, str(error))
    else:
        yield from _of_state(config, must_be_there=state_directory is not None)
    yield _checked("servents", _servents)
    yield _checked("reach", _reach)
    yield _checked("dead mounts", _dead_mounts)


def _of_state(config: Config, *, must_be_there: bool) -> Iterator[Finding]:
    yield _checked("state directory", lambda: _state(config, must_be_there=must_be_there))
    yield _checked("network key", lambda: _network_key(config))
    yield _checked("free disk", lambda: _free_disk(config))
    yield _checked("file watches", lambda: _watches(config))


def _checked(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except (UsageError, OSError) as error:
        return Finding(name, False, str(error))


def _fuse() -> str:
    from p2pfs.mount import check_fuse  # noqa: PLC0415 - heavy, and needed here alone

    check_fuse()
    return "libfuse 2, fusermount and /dev/fuse are there"


def _state(config: Config, *, must_be_there: bool) -> str:
    place = config.state_directory
    if must_be_there and not place.exists():
        raise UsageError(f"{place} is not there: no servent was started with it yet")
    existing = next(one for one in (place, *place.parents) if one.exists())
    if not existing.is_dir():
        raise UsageError(f"{existing} is no directory: choose another with --state DIR")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"{existing} cannot be written: choose another with --state DIR")
    return str(place) if place.exists() else f"{place}, which the first start makes"


def _network_key(config: Config) -> str:
    from p2pfs.keys import weaknesses_of  # noqa: PLC0415 - heavy, and needed here alone

    path = config.network_key_file
    if path is None:
        return "none: the open network"
    weaknesses = weaknesses_of(path)
    if weaknesses:
        raise UsageError("; ".join(weaknesses))
    return str(path)


def _free_disk(config: Config) -> str:
    place = config.state_directory
    existing = next(one for one in (place, *place.parents) if one.exists())
    free = shutil.disk_usage(existing).free
    if free < MIN_FREE_BYTES:
        raise UsageError(f"{free // 1024**2} MiB: less than 1 GiB, downloads may fail")
    return f"{free // 1024**3} GiB"


def _watches(config: Config) -> str:
    """Compare the number of shared directories with the kernel's limit of watches for one user."""
    limit = int(_WATCHES.read_text())
    from p2pfs.roots import open_roots  # noqa: PLC0415 - needed here alone

    places = [place for place, _name in open_roots(config).places()]
    directories = sum(1 for place in places for _ in os.walk(place))
    if directories > limit:
        raise UsageError(
            f"{directories} directories are shared, {limit} may be watched, changes past the mount "
            f"are noticed late: sysctl fs.inotify.max_user_watches={2 * directories}"
        )
    return f"{limit} directories may be watched"


def _servents() -> str:
    from p2pfs.mount import is_stuck  # noqa: PLC0415 - heavy, and needed here alone

    running = running_servents()
    for one in running:
        if not os.path.isdir(one.state_directory):
            raise UsageError(
                f"{one.state_directory} was removed under a running servent: "
                f"p2pfs unmount {one.mountpoint or one.state_directory}, and mount again"
            )
        if one.mountpoint and is_stuck(one.mountpoint):
            raise UsageError(
                f"{one.mountpoint} gives no answer: kill -9 {one.pid}, then p2pfs unmount "
                f"{one.mountpoint}, and mount again"
            )
    return f"{len(running)} running"


def _reach() -> str:
    """Report how others reach the running servents, and what these relay for others."""
    told = []
    for one in running_servents():
        try:
            status = cast("dict[str, object]", ask(one, "status"))
        except VerbError as error:
            raise UsageError(f"{one.mountpoint or one.state_directory}: {error}") from error
        # One of an older version, which an update has left running, says less.
        router = status.get("reachable") or "no router was asked to pass the port on"
        relays = f"relays for neighbours: {status.get('circuits', 0)} now"
        beyond = _beyond(status)
        told.append(
            f"{status['name']}: {router}; {relays if status.get('relays') else 'relays nothing'}; "
            f"{beyond}"
        )
    return ". ".join(told) or "no servent runs here; a running one is told of"


def _beyond(status: dict[str, object]) -> str:
    """Report whether others are found beyond the horizon."""
    nodes = status.get("directory_nodes")
    if nodes is not None:
        return f"beyond the horizon it asks {nodes} others"
    from p2pfs.reach import MISSING, is_installed  # noqa: PLC0415 - heavy, and needed here alone

    why = "" if is_installed() else f" ({MISSING})"
    return f"it asks nobody beyond the horizon{why}"


def _dead_mounts() -> str:
    from p2pfs.mount import stale_mounts  # noqa: PLC0415 - heavy, and needed here alone

    dead = stale_mounts(served={one.mountpoint for one in running_servents()})
    if dead:
        raise UsageError("; ".join(f"remove it with: p2pfs unmount {one}" for one in dead))
    return "none"
