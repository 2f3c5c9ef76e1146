"""Who of several readers fetches which block."""

from __future__ import annotations

from collections import Counter

from p2pfs.download.rendezvous import Rendezvous
from tests.helpers.upstream import peer

READERS = [peer(number).id for number in range(10)]


def assigned_as_seen_by(own_id: str, blocks: int = 1000) -> list[str]:
    readers = Rendezvous(own_id)
    readers.update(other for other in READERS if other != own_id)
    return [readers.reader_of(index) or own_id for index in range(blocks)]


def test_readers_that_know_each_other_agree_without_asking() -> None:
    assert len({tuple(assigned_as_seen_by(reader)) for reader in READERS}) == 1


def test_each_reader_gets_about_the_same_share() -> None:
    shares = Counter(assigned_as_seen_by(READERS[0]))

    assert set(shares) == set(READERS)
    assert max(shares.values()) < 1.5 * min(shares.values())


def test_when_one_goes_only_its_blocks_change_hands() -> None:
    readers = Rendezvous(READERS[0])
    readers.update(READERS[1:])
    before = [readers.reader_of(index) for index in range(1000)]

    readers.update(READERS[1:-1])

    for index, reader in enumerate(before):
        assert reader == READERS[-1] or readers.reader_of(index) == reader


def test_who_is_alone_fetches_everything() -> None:
    readers = Rendezvous(READERS[0])

    assert not readers
    assert {readers.reader_of(index) for index in range(100)} == {None}
