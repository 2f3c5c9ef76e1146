"""Which directories lie behind `shared/`: its own, and those that the user shares where they lie.

Each of the latter has a name, and appears as `shared/NAME`. A disk may be pulled out from under
it. So nothing in it is held open, it counts as there only while the same file system is mounted,
and every way into it checks the device: nothing is ever written to a directory below a mount.
"""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from p2pfs.attempts import DISK_ANSWERS_S, Attempt
from p2pfs.audiences import Audiences
from p2pfs.config import SHARED, Config, SharedDirectory, state_around
from p2pfs.errors import NotFoundError, UsageError
from p2pfs.groups import Groups, GroupsFile
from p2pfs.mounts import Mount, is_within, mount_of
from p2pfs.state import replace_file

log = logging.getLogger(__name__)

STEP_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags that open a directory and refuse a link."""

IS_STATE: Final = "it is the state directory of a servent"

_UNSEEN: Final = "it has not been looked at yet"
_FOR_SOME: Final = ", for some alone, is in"

MAX_ROOTS: Final = 1000
"""Each costs one `stat` a second."""

LEAST_ANSWER_S: Final = 0.2
"""How long a look waits for each directory, when others have used up the time of all."""

_SILENT: Final = "its disk does not answer"


class Root(NamedTuple):
    """One directory behind `shared/`, and how it is at this moment."""

    shared: SharedDirectory
    is_from_config: bool
    away: str = ""
    """Why nothing of it is offered; empty while it is there."""
    identity: tuple[int, int] = (0, 0)
    """Device and inode, while it is there."""

    @property
    def name(self) -> str:
        """Its name in `shared/`."""
        return self.shared.name


class _Seen(NamedTuple):
    """The outcome of a look at a directory."""

    away: str
    identity: tuple[int, int] = (0, 0)


class Roots:
    """All directories behind `shared/`. For any thread; some methods say that they wait."""

    def __init__(
        self,
        directory: str | Path,
        *,
        fixed: Sequence[SharedDirectory] = (),
        file: str | Path | None = None,
        state: str | None = None,
        mountpoint: str | None = None,
        groups: Groups | None = None,
        changed_groups: Callable[[], Groups | None] = lambda: None,
    ) -> None:
        """Take the directory of `shared/`, those of config.toml (`fixed`), and those in `file`.

        The file keeps the directories that verbs have shared. One that lies in the state
        directory is not shared, nor one that holds the mountpoint: a walk through it never ends.
        `changed_groups` returns the groups if they have changed since the last call.
        """
        self.directory: Final = os.fspath(directory)
        self._file = file
        self._state, self._mountpoint = state, mountpoint
        self.audiences: Final = Audiences(groups or {}, changed_groups)
        """Who may know of the share under each name."""
        self._lock = threading.Lock()
        """Held while the table is changed; to read it takes no lock."""
        self._roots: Mapping[str, Root] = {}
        self._places: dict[str, str] = {}
        """Where the file system was mounted that each directory is on, when it was last seen."""
        self._silent: dict[str, Attempt[_Seen]] = {}
        """The looks at directories that have not come to an end. Under the lock."""
        shares = [Root(one, is_from_config=True, away=_UNSEEN) for one in fixed]
        shares += [Root(one, is_from_config=False, away=_UNSEEN) for one in self._load()]
        self._roots = {root.name: root for root in reversed(shares)}  # the first of a name
        for root in self:
            self.audiences.limit(root.shared)

    def __iter__(self) -> Iterator[Root]:
        """Yield the directories that are shared where they lie, there or not."""
        return iter(self._roots.values())

    def __bool__(self) -> bool:
        """Return whether anything is shared where it lies."""
        return bool(self._roots)

    # The way in.

    def of(self, path: str) -> Root | None:
        """Return the root that a local path leads into, None for the directory of `shared/`."""
        return self._roots.get(path.partition("/")[0]) if self._roots else None

    def listed(self, names: Sequence[str]) -> list[str]:
        """Return the names that `shared/` shows, given those in its own directory."""
        roots = self._roots
        own = [name for name in names if name not in roots]
        return own + [name for name, root in roots.items() if not root.away]

    def is_away(self, path: str) -> bool:
        """Return whether a local path leads into a root that is not there now."""
        root = self.of(path)
        return root is not None and bool(root.away)

    def is_elsewhere(self, path: str, device: int) -> bool:
        """Return whether a local path on this device lies on another file system than its root."""
        root = self.of(path)
        return root is not None and root.identity[0] != device

    def places(self) -> list[tuple[str, str]]:
        """Return each directory, and the local path of its root."""
        named = [(root.shared.directory, name) for name, root in self._roots.items()]
        return [(self.directory, ""), *named]

    @contextmanager
    def opened(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the directory that a path leads into; yields the descriptor and the rest.

        Raises:
            OSError: it is not there.
        """
        root = self.of(path)
        if root is None:
            descriptor = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            descriptor = _opened(root, path)
        try:
            yield descriptor, path if root is None else path.partition("/")[2]
        finally:
            os.close(descriptor)

    def locate(self, path: str) -> tuple[str, str]:
        """Return the directory that a path leads into, and the rest.

        Raises:
            OSError: it is not there.
        """
        root = self.of(path)
        if root is None:
            return self.directory, path
        os.close(_opened(root, path))
        return root.shared.directory, path.partition("/")[2]

    def check_writable(self, path: str) -> None:
        """Raise EROFS if a local path is in a root that is shared to be read only."""
        root = self.of(path)
        if root is not None and root.shared.is_read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def forget(self, names: frozenset[str]) -> None:
        """End the limits of names of which nothing is known any more, unless shared again."""
        if names:
            with self._lock:
                self.audiences.forget(names, shared=frozenset(self._roots))

    # Changes.

    def look(self) -> list[str]:
        """Find out which roots are there; return those that came, went or changed. May block.

        One whose disk is silent counts as away until it answers, and is touched by nobody.
        """
        with self._lock:
            self.audiences.take_groups(root.shared for root in self)
            before, until = self._roots, time.monotonic() + DISK_ANSWERS_S
            now = {name: self._looked_at(root, until) for name, root in before.items()}
            changed = [name for name, root in now.items() if root != before[name]]
            if changed:
                self._roots = now
                with suppress(OSError):  # it is written again with the next change
                    self._save()
            return changed

    def add(self, shared: SharedDirectory) -> Root:
        """Share a directory where it lies; waits for the disk.

        Raises:
            UsageError: it cannot be shared, or not under this name.
            OSError: it could not be noted for the next start: nothing is shared.
        """
        with self._lock:
            self.audiences.take_groups(root.shared for root in self)
            self._check(shared)
            self.audiences.check(shared)
            until = time.monotonic() + DISK_ANSWERS_S
            root = self._looked_at(Root(shared, is_from_config=False), until)
            if root.away:
                raise UsageError(f"{shared.directory} cannot be shared: {root.away}")
            former, self._roots = self._roots, {**self._roots, shared.name: root}
            self.audiences.limit(shared)  # before any of it is read
            try:
                self._save()
            except BaseException:
                self._roots = former
                raise
            return root

    def remove(self, name: str) -> Root:
        """Stop sharing a directory; nothing in it is touched. Waits for the disk.

        Raises:
            NotFoundError: nothing is shared under this name.
            UsageError: config.toml says that it is.
            OSError: the next start would share it again; it is shared no more until then.
        """
        with self._lock:
            root = self._roots.get(name)
            if root is None:
                raise NotFoundError(f"no directory is shared as {name}")
            if root.is_from_config:
                raise UsageError(f"{name} is shared by config.toml: take it out there")
            self._roots = {one: other for one, other in self._roots.items() if one != name}
            self._places.pop(root.shared.directory, None)
            self._save()
            return root

    def _check(self, shared: SharedDirectory) -> None:
        name, directory = shared.name, shared.directory
        twin = next((one for one in self if one.shared.directory == directory), None)
        if twin is not None:
            raise UsageError(f"{directory} is shared already, as {twin.name}")
        if name in self._roots or os.path.lexists(os.path.join(self.directory, name)):
            raise UsageError(f"there is a {name} in shared/ already: give another name with --as")
        for other in self:
            for outer, inner in ((shared, other.shared), (other.shared, shared)):
                if _shows_too_much(outer, inner):
                    raise UsageError(
                        f"{inner.directory}{_FOR_SOME} {outer.directory}, which others see"
                    )
        if len(self._roots) >= MAX_ROOTS:
            raise UsageError(f"{MAX_ROOTS} directories are shared already")
        if is_within(directory, os.path.realpath(self.directory)):
            raise UsageError(f"{directory} is in shared/ already")

    def _looked_at(self, root: Root, until: float) -> Root:
        directory = root.shared.directory
        if self._state is not None and is_within(directory, self._state):
            return root._replace(away=f"it is in the state directory {self._state}")
        for other in self:  # config.toml may say so, or a verb before it did
            if other.name != root.name and _shows_too_much(root.shared, other.shared):
                return root._replace(
                    away=f"{other.shared.directory}{_FOR_SOME} it", identity=(0, 0)
                )
        mount = mount_of(directory)
        away = self._why_away(directory, mount)
        seen = _Seen(away) if away else self._seen(root, until)
        if mount is not None and not seen.away:
            self._places[directory] = mount.place
        return root._replace(away=seen.away, identity=seen.identity)

    def _why_away(self, directory: str, mount: Mount | None) -> str:
        """Return why nothing of a directory is offered, as far as the table of mounts tells."""
        if mount is None:
            return "it is on no file system"
        if mount.is_ours:
            return "it is in a mount of p2pfs"
        if mount.is_of_the_kernel:
            return f"the kernel makes up what is in it ({mount.kind})"
        if self._mountpoint is not None and is_within(self._mountpoint, directory):
            return f"the mountpoint {self._mountpoint} is in it"
        expected = self._places.get(directory, "/")
        return "" if is_within(mount.place, expected) else f"nothing is mounted at {expected}"

    def _seen(self, root: Root, until: float) -> _Seen:
        """Look at a directory, in a thread that can be left behind: its disk may be silent."""
        directory, wait_s = root.shared.directory, 0.0
        look = self._silent.pop(directory, None)
        if look is None:
            look = Attempt(functools.partial(_look_at, directory, root.identity))
            wait_s = max(until - time.monotonic(), LEAST_ANSWER_S)
        seen = look.result(wait_s)
        if seen is None:
            self._silent[directory] = look
        return seen or _Seen(_SILENT)

    # The file that keeps them.

    def _load(self) -> list[SharedDirectory]:
        if self._file is None:
            return []
        try:
            kept = json.loads(Path(self._file).read_bytes())
            self._places = {str(one): str(place) for one, place in kept["places"].items()}
            return [_read(row) for row in kept["shares"]]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("what is shared where it lies is not known any more reason=%r", error)
            return []

    def _save(self) -> None:
        if self._file is None:
            return
        rows = [_written(root.shared) for root in self if not root.is_from_config]
        kept = {"shares": rows, "places": self._places}
        replace_file(self._file, json.dumps(kept, indent=1).encode("utf-8", "surrogateescape"))


def open_roots(config: Config) -> Roots:
    """Return the roots of a servent."""
    return Roots(
        config.shared_directory,
        fixed=config.shares,
        file=config.shares_path,
        state=os.fspath(config.state_directory),
        mountpoint=None if config.mountpoint is None else os.fspath(config.mountpoint),
        groups=config.groups,
        changed_groups=GroupsFile(config).changed,
    )


def _opened(root: Root, path: str) -> int:
    """Open the directory of a root; ENOENT if another file system is there now."""
    if not root.away:
        descriptor = os.open(root.shared.directory, STEP_FLAGS)
        if os.fstat(descriptor).st_dev == root.identity[0]:
            return descriptor
        os.close(descriptor)
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _look_at(directory: str, former: tuple[int, int]) -> _Seen:
    """Return whether a directory may be offered; `former` is the identity of one that might."""
    try:
        status = os.lstat(directory)
    except OSError as error:
        return _Seen(os.strerror(error.errno or errno.EIO))
    if not stat.S_ISDIR(status.st_mode):
        return _Seen("it is no directory")
    identity = status.st_dev, status.st_ino
    away = _why_private(Path(directory)) if identity != former else ""
    return _Seen(away, (0, 0) if away else identity)


def _shows_too_much(outer: SharedDirectory, inner: SharedDirectory) -> bool:
    """Return whether one directory lies in another, and not all who see that may see it."""
    is_inside = is_within(inner.directory, outer.directory)
    return bool(is_inside and inner.to and set(outer.to) != set(inner.to))


def _why_private(directory: Path) -> str:
    """Return why nothing of a directory may be published, or nothing."""
    state = state_around(directory)
    if state is None or directory.is_relative_to(state / SHARED):
        return ""
    return f"it is in the state directory {state}" if directory != state else IS_STATE


def _read(row: Mapping[str, object]) -> SharedDirectory:
    name, directory = str(row["name"]), str(row["directory"])
    to = row.get("to", [])
    if not isinstance(to, list) or not all(isinstance(one, str) for one in to):
        raise ValueError("no list of those who may see it")
    is_read_only = row.get("read_only") is True
    return SharedDirectory(name, directory, is_read_only=is_read_only, to=tuple(to))


def _written(shared: SharedDirectory) -> Mapping[str, object]:
    return {
        "name": shared.name,
        "directory": shared.directory,
        "read_only": shared.is_read_only,
        "to": list(shared.to),
    }


@contextmanager
def stepped(directory: int, labels: Sequence[str]) -> Iterator[int]:
    """Yield a descriptor of what lies below an open directory, for the length of the block.

    It is reached label by label, so no link is followed and no path is too long. Raises OSError.
    """
    descriptor = directory
    try:
        for label in labels:
            below = os.open(label, STEP_FLAGS, dir_fd=descriptor)
            if descriptor != directory:
                os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        if descriptor != directory:
            os.close(descriptor)
