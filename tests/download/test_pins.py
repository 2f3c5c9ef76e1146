"""What is pinned, when it is let go in the same moment in which it is put right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import trio
from trio.testing import MockClock

from p2pfs.cache import BlockCache, CachedFile
from p2pfs.download.pins import PIN_RETRY_S, Pins, load_pins
from p2pfs.journal import Journal
from p2pfs.protocol import Entry
from tests.helpers.contents import Content
from tests.helpers.threads import run_directly

CONTENT = Content.of(1000)
ENTRY = Entry("film.mkv", CONTENT.size, 0, CONTENT.file_id)
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


async def test_what_the_disk_does_not_take_is_fetched_again_and_not_told_to_be_here(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    place = tmp_path / "cache"
    cache, journal = BlockCache(str(place), 1 << 30, run_directly), Journal()
    fetches: list[bool] = []

    class Reader:
        """Has a small content taken, which is written a moment later."""

        has_heard, is_in_line = True, False

        async def locate(self, _offset: int, _length: int) -> None:
            await trio.lowlevel.checkpoint()
            file = cache.open_file(CONTENT.file_id, CONTENT.size)
            fetches.append(file.take(CONTENT.data))
            nursery.start_soon(self.write, file)

        async def write(self, file: CachedFile) -> None:
            await trio.sleep(1)
            await cache.write_taken([file])

        def close(self) -> None:
            pass

    pins = Pins(
        str(tmp_path / "pins.json"), [ENTRY], cache,
        SimpleNamespace(
            offers=SimpleNamespace(size_of=lambda _: None, sources_of=lambda _id, _size: ()),
            kept=SimpleNamespace(put=lambda _: None, drop=lambda _: None),
        ),
        journal, open_reader=lambda _: Reader(), has_neighbours=lambda: True,
        run_in_thread=run_directly,
    )  # fmt: skip
    place.rmdir()
    async with trio.open_nursery() as nursery:
        await nursery.start(pins.run)
        await trio.sleep(PIN_RETRY_S[0])
        assert [event.is_done for event in journal.events()] == [False]
        place.mkdir()
        await trio.sleep(PIN_RETRY_S[1])
        nursery.cancel_scope.cancel()

    assert fetches == [True, True]
    assert [event.text for event in journal.events()] == [
        "pinned, and the disk does not take it", "pinned: all of it is here",
    ]  # fmt: skip
    assert cache.percent(CONTENT.file_id) == 100
