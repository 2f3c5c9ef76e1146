"""Which error a read gets when its holder shows several faces, one after the other.

Rows of file-system.md, "When a read fails", by what the holder did last. The stall time ends at
many moments: in a pause, while the holder is asked again, as a search finds it again.
"""

from __future__ import annotations

import errno
import math

import pytest
import trio
from trio.testing import MockClock

from p2pfs.download.source import MANIFEST
from p2pfs.errors import (
    LinkClosedError,
    P2pfsError,
    RejectedError,
    TransferError,
    UnreachableError,
)
from p2pfs.filesystem.answers import as_os_error
from p2pfs.protocol import RejectCode
from tests.helpers.contents import Content
from tests.helpers.memorycache import MemoryCachedFile
from tests.helpers.sizes import BLOCK
from tests.helpers.upstream import FakeSource, FakeUpstream, running_swarm

CONTENT = Content.of(40 * BLOCK)

ANSWERS_IN_S = 0.3
DIALLED_IN_S = 3.5
"""How long a dial takes that leads nowhere: `reach.ways.REACH_S`."""

CHANGES_AFTER_S = 8.0
AT_ONCE_S = 0.35
"""Before the search has ended that begins when nobody has it any more."""

STALLS_S = (22.0, 22.4, 23.0, 23.7, 24.5, 25.6, 26.9, 28.3)

GONE = UnreachableError("refused")
ERRORS = {
    "gone": GONE,
    "swallowed": GONE,
    "hanging up": LinkClosedError("the link ended"),
    "unpublished": RejectedError("changed", RejectCode.STALE),
    "without it": RejectedError("no such content", RejectCode.NOT_FOUND),
    "paused": RejectedError("paused", RejectCode.PAUSED),
    "about to have it": RejectedError("not yet", RejectCode.NOT_FOUND, retry_after_s=0.2),
}

ERRNO = {
    "gone": "EHOSTUNREACH",
    "swallowed": "EHOSTUNREACH",
    "hanging up": "EHOSTUNREACH",
    "unpublished": "ESTALE",
    "without it": "ESTALE",
    "paused": "EBUSY",
    "about to have it": "EBUSY",
    "silent": "ETIMEDOUT",
    "lying": "EIO",
}
"""Of a holder that has done one thing alone, and of one that did it last."""

AT_ONCE = ("unpublished", "without it", "lying")
"""What ends reads long before the stall time is over."""


class Holder(FakeSource):
    """Have the manifest of what it does not have yet, as those have who fetch it themselves."""

    def refusal(self, index: int) -> P2pfsError | None:
        is_here = index == MANIFEST and self.error is ERRORS["about to have it"]
        return None if is_here else super().refusal(index)


def be(source: FakeSource, mood: str) -> None:
    """Let a source behave so to all that it is asked from now on; who waits for it hears so."""
    source.lies_about = range(MANIFEST, 40) if mood == "lying" else ()
    source.latency_s = {"swallowed": DIALLED_IN_S, "silent": math.inf}.get(mood, ANSWERS_IN_S)
    if mood == "silent":
        source.stop()
    if mood in ("gone", "swallowed", "hanging up"):
        source.vanish(ERRORS[mood])
    else:
        source.error = ERRORS.get(mood)


async def errno_of(
    moods: tuple[str, ...], stall_s: float, *, gave: bool, change_s: float = CHANGES_AFTER_S
) -> str:
    """Return how a read ends whose only holder is found again by each search."""
    source = Holder(CONTENT, latency_s=ANSWERS_IN_S)
    upstream = FakeUpstream([source])
    upstream.found = upstream.peers
    cached = MemoryCachedFile(CONTENT)
    async with running_swarm(cached, upstream, stall_s=stall_s) as swarm, trio.open_nursery() as n:
        if gave:
            await swarm.read(0, 100)

        be(source, moods[0])

        @n.start_soon
        async def behave() -> None:
            for mood in moods[1:]:
                await trio.sleep(change_s)
                be(source, mood)

        try:
            with trio.fail_after(2 * stall_s):
                await swarm.read(30 * BLOCK, 100)
        except TransferError as error:
            n.cancel_scope.cancel()
            return errno.errorcode[as_os_error(error, "path").errno or 0]
        n.cancel_scope.cancel()
    return "read"


@pytest.mark.parametrize("gave", [True, False], ids=["gave", "gave nothing"])
@pytest.mark.parametrize("mood", ERRNO)
async def test_what_a_holder_does_all_the_time(mood: str, gave: bool, autojump_clock: MockClock):
    found = {await errno_of((mood,), stall_s, gave=gave) for stall_s in STALLS_S}

    assert found == {ERRNO[mood]}


@pytest.mark.parametrize("last", ERRNO)
@pytest.mark.parametrize("first", [mood for mood in ERRNO if mood not in AT_ONCE])
async def test_what_a_holder_does_last(first: str, last: str, autojump_clock: MockClock):
    found = {await errno_of((first, last), stall_s, gave=True) for stall_s in STALLS_S}

    # What was asked before it fell silent is answered never, whatever becomes of it.
    was_silent = first == "silent" and ERRNO[last] != "EHOSTUNREACH"
    assert found == {"ETIMEDOUT" if was_silent else ERRNO[last]}


@pytest.mark.parametrize("last", [mood for mood in ERRNO if mood not in AT_ONCE])
@pytest.mark.parametrize("first", ["unpublished", "without it"])
async def test_who_had_it_no_more_and_is_found_again(
    first: str, last: str, autojump_clock: MockClock
):
    """It may have it again, as far as anybody knows: what it does then counts."""
    found = {
        await errno_of((first, last), stall_s, gave=True, change_s=AT_ONCE_S)
        for stall_s in STALLS_S
    }

    assert found == {ERRNO[last]}
