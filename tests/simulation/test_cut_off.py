"""A verb whose user goes away is done whole or not at all: what is noted is what holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pfs.config import read_set, shared_directory
from p2pfs.servent import Servent
from tests.helpers.world import open_world

STEPS = range(1, 8)
"""At which step of its task a verb is cut off; each of these verbs has fewer."""


class _After(trio.abc.Instrument):
    """Cancels a scope before the n-th step of a task."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, steps: int) -> None:
        self._task = task
        self._scope = scope
        self._left = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


@contextmanager
def cut_off(steps: int) -> Iterator[trio.CancelScope]:
    """Cut the block off before a step of its task."""
    with trio.CancelScope() as scope:
        instrument = _After(trio.lowlevel.current_task(), scope, steps)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(instrument)


async def _share(servent: Servent, directory: Path) -> None:
    await servent.library.share(shared_directory(directory))


async def _unshare(servent: Servent, directory: Path) -> None:
    await servent.library.unshare(directory.name)


async def _pause(servent: Servent, _directory: Path) -> None:
    await servent.pause()


async def _resume(servent: Servent, _directory: Path) -> None:
    await servent.resume()


async def _keep_to_ourselves(servent: Servent, _directory: Path) -> None:
    await servent.settings.set("no-reshare", "yes")


VERBS: dict[str, list[Callable[[Servent, Path], Awaitable[None]]]] = {
    "share": [_share],
    "unshare": [_share, _unshare],
    "pause": [_pause],
    "resume": [_pause, _resume],
    "set": [_keep_to_ourselves],
}


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("verb", VERBS)
async def test_what_is_noted_is_what_holds(
    verb: str, steps: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    directory = tmp_path / "Music"
    directory.mkdir()
    (directory / "song").write_bytes(b"la")
    *before, last = VERBS[verb]
    async with open_world() as world:
        await world.start()
        servent = world[0]
        for act in before:
            await act(servent, directory)
        await servent.library.wait_idle()
        with cut_off(steps):
            await last(servent, directory)
        await servent.library.wait_idle()

        is_shared = "Music" in [root.name for root in servent.roots]
        assert is_shared == (servent.library.file_state("Music/song").file_id is not None)
        assert servent.library.is_paused == servent.config.paused_path.exists()
        is_kept = bool(read_set(servent.config).get("no-reshare"))
        assert servent.offer.reshare == servent.config.reshare == (not is_kept)
