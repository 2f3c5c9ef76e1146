"""The state directory of a servent: made, held against other servents, and unmade.

Also how small and precious files in it are written: `replace_file`. A power cut leaves the old
content or the new one, and the new one once the call has returned.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from p2pfs.config import LOCK, Config
from p2pfs.errors import UsageError

log = logging.getLogger(__name__)

OUTPUT: Final = "output"
"""The file for the output of a servent in the background."""


_PREPARED: Final = frozenset({"config.toml", "shared", "lost+found"})
"""What may be in a state directory before its first servent starts: what the user prepared, and
what a file system of its own begins with."""

_EVERYBODY_ELSE: Final = 0o077
_OWNER_ALONE: Final = 0o600


@contextlib.contextmanager
def lock_state(config: Config) -> Iterator[None]:
    """Create the state directory, for its owner alone, and hold it against other servents.

    There is a share in it afterwards, empty at first.

    The kernel drops the lock when the process ends, however it ends.

    Raises:
        UsageError: another servent runs there, or the directory cannot be used.
    """
    make_state(config)
    with lock_directory(config.state_directory):
        try:
            config.shared_directory.mkdir(exist_ok=True)
        except OSError as error:
            raise _unusable(config.state_directory, error) from error
        yield


def make_state(config: Config) -> None:
    """Create the state directory, or see to it that the one that is there is a servent's alone.

    A servent's own that others can enter, as one from a backup, is closed to them. Any other
    directory is the user's, and stays as it is.

    Raises:
        UsageError: it cannot be used; the text says what to do.
    """
    state = config.state_directory
    try:
        make_directory(state)
        names = set(os.listdir(state))
        mode = stat.S_IMODE(state.stat().st_mode)
        is_own = _is_own(names, config)
        if is_own and mode & _EVERYBODY_ELSE:
            state.chmod(mode & ~_EVERYBODY_ELSE)
            mode = stat.S_IMODE(state.stat().st_mode)
    except OSError as error:
        raise _unusable(state, error) from error
    if not is_own:
        _refuse_what_is_not_ours(names, config)
    if mode & _EVERYBODY_ELSE:
        _refuse_what_others_can_enter(state, is_own=is_own)


def make_directory(path: Path) -> None:
    """Create a directory, for its owner alone, and return when its name is on the disk.

    Missing directories above it are created as by `mkdir -p`. One that exists stays as it is.
    """
    missing = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for place in missing:
        with contextlib.suppress(PermissionError):  # one that may be entered, but not read
            sync_directory(place.parent)


def _is_own(names: set[str], config: Config) -> bool:
    """Return whether these are the names in a servent's state directory, or in a new one."""
    return config.identity_path.name in names or names <= _PREPARED


def _refuse_what_is_not_ours(names: set[str], config: Config) -> None:
    """Raise UsageError if a servent would take somebody else's files for its own."""
    ours = (
        config.index_path, config.peers_path, config.pins_path, config.searches_path,
        config.shares_path, config.set_path, config.history_path, config.confided_path,
        config.cache_directory,
        config.leftovers_directory,
    )  # fmt: skip
    for path in ours:
        if path.name in names:
            raise UsageError(
                f"{config.state_directory} is no servent's, and {path.name} in it would be taken "
                "for one's own: give another directory with --state DIR"
            )


def _refuse_what_others_can_enter(state: Path, *, is_own: bool) -> None:
    if is_own:
        raise UsageError(
            f"others can enter {state}, and its file system cannot keep them out: "
            "keep the secrets elsewhere, with --state DIR"
        )
    raise UsageError(
        f"others can enter {state}, where the secrets of this servent would lie: "
        f"close it with `chmod 700 {state}`, or give another directory with --state DIR"
    )


@contextlib.contextmanager
def lock_directory(state: Path) -> Iterator[None]:
    """Hold a state directory against all servents.

    Raises:
        UsageError: a servent runs there, or the directory cannot be used.
    """
    try:
        descriptor = open_private(os.fspath(state / LOCK), os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise _unusable(state, error) from error
    try:
        if not _try_lock(descriptor):
            raise UsageError(
                f"another servent is running with the state directory {state}; "
                "give this one its own with --state DIR"
            )
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_state_undone(config: Config) -> Iterator[Callable[[], None]]:
    """Remove the state directory at the end, if it was made meanwhile for a servent that failed.

    Yields what to call when the servent is up: from then on it stays, whatever happens.
    """
    state = config.state_directory
    is_new, is_up = not state.exists(), False

    def keep() -> None:
        nonlocal is_up
        is_up = True

    try:
        yield keep
    finally:
        if is_new and not is_up:
            _remove_unused(config)


def _remove_unused(config: Config) -> None:
    """Remove what each start makes, unless there is more than that, or a servent."""
    state = config.state_directory
    with contextlib.suppress(OSError, UsageError), lock_directory(state):
        files, directories = _made_by_a_start(config)
        made = set(os.listdir(state))
        if made <= {path.name for path in (*files, *directories)}:
            for directory in directories:  # first: somebody may have put a file there
                with contextlib.suppress(FileNotFoundError):
                    directory.rmdir()
            for name in made - {path.name for path in directories}:
                (state / name).unlink()
            state.rmdir()


def _made_by_a_start(config: Config) -> tuple[Sequence[Path], Sequence[Path]]:
    """Return the files, and the directories, that are there when a servent is up."""
    index = config.index_path
    files = [
        config.state_directory / LOCK,
        config.state_directory / OUTPUT,
        config.log_path,
        config.identity_path,
        config.peers_path,
        index,
        index.with_name(f"{index.name}-wal"),
        index.with_name(f"{index.name}-shm"),
    ]
    return files, [config.shared_directory, config.cache_directory, config.leftovers_directory]


# Small and precious files.


def replace_file(path: str | Path, data: bytes) -> None:
    """Give a file this content, and return when that is on the disk. Mode 0600.

    A power cut leaves the old content or the new one, never a part or nothing. Blocks for as
    long as the disk needs. Two calls at once for one path are for the caller to keep apart.

    Raises:
        OSError: the old content is there, unless it was the last sync that failed.
    """
    temporary = f"{path}.new"
    try:
        with open(temporary, "wb", opener=open_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:  # a full disk is the fuller for the rest of it
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(Path(path).parent)


def open_private(path: str, flags: int) -> int:
    """Open a file for its owner alone, whatever the umask; an `opener` for `open`.

    One that is there is closed to everybody else.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, _OWNER_ALONE)
    try:
        os.fchmod(descriptor, _OWNER_ALONE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def remove_file(path: str | Path) -> None:
    """Remove a file if it is there, and return when the disk has it no more."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        sync_directory(Path(path).parent)


def sync_directory(path: str | Path) -> None:
    """Return when the names in a directory are on the disk.

    Without it a power cut may undo a rename, however well the file itself was synced: fsync(2).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what file systems say that sync no directories
            raise
    finally:
        os.close(descriptor)


# Files of ours outside of it.


class Leftovers:
    """Files of ours among the user's, which the next start removes if we are killed.

    Each is noted by its path and its inode, so that nothing is ever removed for its name
    alone: a backup that the user has put there may hold files that are called as ours are.
    Notes are not synced. What a power cut takes of them stays in the user's directory: that
    is untidy, and harmless. Every method may be called from any thread.
    """

    def __init__(self, directory: str | Path) -> None:
        """Keep the notes in this directory, which is made when it is needed."""
        self._directory = os.fspath(directory)

    def note(self, path: str, inode: int) -> None:
        """Note that the file at this absolute path is ours to remove; OSError if that fails."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        with open(self._note_of(path, inode), "wb", opener=open_private) as file:
            file.write(os.fsencode(path))

    def forget(self, path: str, inode: int) -> None:
        """Note that the file is gone, or that it is the user's."""
        with contextlib.suppress(OSError):
            os.unlink(self._note_of(path, inode))

    def remove(self) -> None:
        """Remove the noted files, and the notes. For the time before anything is noted."""
        try:
            notes = list(os.scandir(self._directory))
        except OSError:
            return
        for note in notes:
            with contextlib.suppress(OSError, ValueError):
                _remove_noted(note)
            with contextlib.suppress(OSError):
                os.unlink(note.path)

    def _note_of(self, path: str, inode: int) -> str:
        tag = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
        return f"{self._directory}/{inode}-{tag}"


def _remove_noted(note: os.DirEntry[str]) -> None:
    path = os.fsdecode(Path(note.path).read_bytes())
    status = os.lstat(path)
    if stat.S_ISREG(status.st_mode) and status.st_ino == int(note.name.partition("-")[0]):
        log.info("removing what was left behind path=%r", path)
        os.unlink(path)


def _unusable(state: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot use the state directory {state}: {error.strerror}")


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
