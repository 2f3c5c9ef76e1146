"""A slow line delays what others have it carry, and never costs anybody a link."""

from __future__ import annotations

from collections.abc import Sequence

from trio.testing import MockClock

from p2pfs.protocol.messages import Entry, Query, QueryKind
from tests.helpers.world import World, host, open_world

HOLDERS = 24
NAMES = 50
LABELS = "/".join(letter * 150 for letter in "abc")
"""So long a path that the hits of all holders are more than may wait for one who does not read."""


def share_much(world: World, number: int) -> None:
    """Let a servent say that it has fifty files in one deep directory."""
    entries = [Entry(f"{LABELS}/{number}-{i}-{'x' * 240}", 1, 1, bytes(32)) for i in range(NAMES)]

    async def answer(query: Query, _spent: object) -> tuple[Sequence[Entry], int]:
        is_asked = query.kind is QueryKind.DIRECTORY and query.text == LABELS
        return (entries, len(entries)) if is_asked else ((), 0)

    world[number].offer.answer = answer


async def test_hits_wait_for_a_slow_line_and_all_come(autojump_clock: MockClock):
    async with open_world(latency_s=0.02) as world:
        await world.start()
        await world.start(joins=[0], max_neighbours=1)
        await world.linked(1, 1)
        for number in range(2, 2 + HOLDERS):
            await world.start(joins=[0], max_neighbours=1)
            share_much(world, number)
        await world.until(lambda: len(world[0].overlay.neighbours) == HOLDERS + 1, within_s=60)
        (link,) = (one for one in world[0].overlay.neighbours if one.remote.host == host(1))
        for number in range(2 + HOLDERS):
            world.net.set_upload_rate(host(number), 1_250_000)

        names = await world.names(1, LABELS)

        assert link.ended is None
        assert len(names) == HOLDERS * NAMES
        assert world[1].browser.partial(LABELS) is None
