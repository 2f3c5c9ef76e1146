"""Who of several readers fetches which block."""

from __future__ import annotations

from collections import Counter

from p2pfs.download.rendezvous import Fellows
from tests.helpers.upstream import peer

READERS = [peer(number).id for number in range(10)]


def keepers_as_seen_by(own_id: str, blocks: int = 1000) -> list[str]:
    fellows = Fellows(own_id)
    fellows.update(other for other in READERS if other != own_id)
    return [fellows.keeper_of(index) or own_id for index in range(blocks)]


def test_readers_that_know_each_other_agree_without_asking() -> None:
    assert len({tuple(keepers_as_seen_by(reader)) for reader in READERS}) == 1


def test_each_reader_gets_about_the_same_share() -> None:
    shares = Counter(keepers_as_seen_by(READERS[0]))

    assert set(shares) == set(READERS)
    assert max(shares.values()) < 1.5 * min(shares.values())


def test_when_one_goes_only_its_blocks_change_hands() -> None:
    fellows = Fellows(READERS[0])
    fellows.update(READERS[1:])
    before = [fellows.keeper_of(index) for index in range(1000)]

    fellows.update(READERS[1:-1])

    for index, keeper in enumerate(before):
        assert keeper == READERS[-1] or fellows.keeper_of(index) == keeper


def test_who_is_alone_fetches_everything() -> None:
    fellows = Fellows(READERS[0])

    assert not fellows
    assert {fellows.keeper_of(index) for index in range(100)} == {None}
