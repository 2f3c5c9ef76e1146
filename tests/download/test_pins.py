"""What is pinned, when it is let go in the same moment in which it is put right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import trio
from trio.testing import MockClock

from p2pfs.cache import BlockCache
from p2pfs.download.pins import PIN_RETRY_S, Pins, load_pins
from p2pfs.protocol import Entry
from tests.helpers.contents import Content
from tests.helpers.threads import run_directly

CONTENT = Content.of(1000)
WRONG = Entry("film.mkv", 10, 0, CONTENT.file_id)


async def test_a_pin_that_is_let_go_as_it_is_put_right_does_not_come_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    saved = str(tmp_path / "pins.json")
    told: list[int] = []
    shown: dict[str, Entry] = {}

    async def save_and_hear_of_its_size(call: Callable[..., object], *args: object) -> object:
        told.append(CONTENT.size)
        pins.neighbour_came()  # the fetch goes on, behind what is done here without a pause
        return call(*args)

    pins = Pins(
        saved,
        [WRONG],
        BlockCache(str(tmp_path), 1 << 30, run_directly),
        SimpleNamespace(
            offers=SimpleNamespace(size_of=lambda _: told[0] if told else None),
            kept=SimpleNamespace(
                put=lambda entry: shown.update({entry.path: entry}), drop=shown.pop
            ),
            shown=SimpleNamespace(published=lambda path: path),
        ),
        SimpleNamespace(),
        open_reader=lambda _: None,
        has_neighbours=lambda: False,
        run_in_thread=save_and_hear_of_its_size,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(pins.run)
        await trio.sleep(PIN_RETRY_S[0] + PIN_RETRY_S[1] - 1)  # the second try has failed too

        assert await pins.remove("film.mkv") == ["film.mkv"]
        await trio.sleep(100)
        nursery.cancel_scope.cancel()

    assert (list(pins.entries()), list(load_pins(saved)), shown) == ([], [], {})
