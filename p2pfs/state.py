"""The state directory of a servent: made, held against other servents, and unmade."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from p2pfs.config import Config
from p2pfs.errors import UsageError

LOCK: Final = "lock"

OUTPUT: Final = "output"
"""What a servent in the background prints."""


@contextlib.contextmanager
def lock_state(config: Config) -> Iterator[None]:
    """Create the state directory, for its owner alone, and hold it against other servents.

    There is a share in it afterwards, empty at first.

    The kernel drops the lock when the process ends, however it ends.

    Raises:
        UsageError: another servent runs there, or the directory cannot be used.
    """
    try:
        config.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        config.shared_directory.mkdir(exist_ok=True)
    except OSError as error:
        raise _unusable(config.state_directory, error) from error
    with lock_directory(config.state_directory):
        yield


@contextlib.contextmanager
def lock_directory(state: Path) -> Iterator[None]:
    """Hold a state directory against all servents.

    Raises:
        UsageError: a servent runs there, or the directory cannot be used.
    """
    try:
        descriptor = os.open(state / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
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
    """Remove the state directory at the end, if it was made meanwhile and nothing is in it.

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
    state, share = config.state_directory, config.shared_directory
    with contextlib.suppress(OSError, UsageError), lock_directory(state):
        made = set(os.listdir(state)) - {share.name}
        if made <= {LOCK, OUTPUT, config.log_path.name}:
            with contextlib.suppress(FileNotFoundError):
                share.rmdir()  # first: somebody may have put a file there
            for name in made:
                (state / name).unlink()
            state.rmdir()


def _unusable(state: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot use the state directory {state}: {error.strerror}")


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
