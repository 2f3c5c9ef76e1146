"""The race of all ways, and the links that are served on both ends, as the servent ends."""

from __future__ import annotations

import pytest
import trio

from p2pfs.errors import ShutdownError, UnreachableError
from p2pfs.link import Link
from p2pfs.protocol import PeerInfo
from p2pfs.reach.shared import SharedLinks
from p2pfs.reach.ways import _Way, _WaysTried

PEER = PeerInfo("b" * 32, "peer", ())


class FakeLink:
    """Is greeted, and is to be run once."""

    def __init__(self) -> None:
        self.peer = PEER
        self.is_run = False
        self.reason: str | None = None

    def lose(self, reason: str) -> None:
        self.reason = reason

    async def run(self, _on_message: object) -> None:
        self.is_run = True


async def serve_nobody(_link: Link) -> None:
    raise AssertionError


async def dies() -> Link:
    raise ShutdownError("we end")


async def fails() -> Link:
    raise UnreachableError("no answer")


async def test_a_way_that_ends_with_the_servent_is_one_that_does_not_lead_there():
    """It came out of the race as a group, which was logged as a bug."""
    race = _WaysTried()

    assert await race.run([_Way("dial", 0.0, fails), _Way("punch", 0.0, dies)]) is None

    assert str(race.verdict(PEER, is_known_to_live=False)) == "no answer; we end"


async def test_a_link_that_nobody_serves_any_more_is_closed():
    link = FakeLink()
    shared = SharedLinks(serve_nobody, lambda *_: None)

    with pytest.raises(ShutdownError):
        await shared.put(link)

    assert (link.is_run, link.reason) == (True, "the servent is shutting down")


async def test_a_link_whose_serving_fails_at_once_is_closed_and_not_waited_for(expect_log):
    link = FakeLink()

    async def serve(_link: Link) -> None:
        raise AssertionError("a bug of ours")

    shared = SharedLinks(serve, lambda *_: None)
    expect_log("a bug of ours ended one task")
    async with trio.open_nursery() as nursery:
        await nursery.start(shared.run)
        with trio.fail_after(1):
            await shared.put(link)
        nursery.cancel_scope.cancel()

    assert link.is_run
    assert shared.to(PEER.id) is None
