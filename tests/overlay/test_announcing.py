"""The filter of our own share has all that is offered, and is not made further than it is told."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from p2pfs.overlay.announcing import OwnFilter
from p2pfs.protocol import Entry
from p2pfs.protocol.flood import ALL, Keys, with_positions

pytestmark = pytest.mark.usefixtures("autojump_clock")

KEYS = Keys(bytes(16), bits=2**10)
FILLING = 1_000
"""Names that fill such a filter."""


@dataclass
class Listing:
    entries: list[Entry]
    has_more: bool


@dataclass
class Changes:
    is_all: bool
    has_lost = False
    added = directories = ()


@dataclass
class Share:
    """One directory with so many files."""

    count: int
    is_paused: bool = False
    asked: list[int] = field(default_factory=list)
    version = 0

    async def wait_changed(self, version):
        raise NotImplementedError

    def take_changes(self):
        raise NotImplementedError

    def list_page(self, path, after, limit):
        start = int(after) + 1 if after else 0
        numbers = range(start, min(start + limit, self.count))
        self.asked += numbers
        return Listing([file(number) for number in numbers], numbers.stop < self.count)


def file(number: int) -> Entry:
    return Entry(f"{number:06}", 1, 0, b"i" * 32)


def filter_of(count: int) -> int:
    bits = 0
    for number in range(count):
        bits = with_positions(bits, KEYS.of_shares([(file(number).path, False)]))
    return bits


async def test_what_is_offered_is_in_it():
    share = Share(count=50)
    own = OwnFilter(share, KEYS)

    await own.renew()
    assert own.bits == filter_of(50)

    await own.take_in([file(number) for number in range(50, 60)])
    assert own.bits == filter_of(60)


async def test_what_fills_it_is_not_looked_at_any_further():
    share = Share(count=20 * FILLING)
    own = OwnFilter(share, KEYS)

    await own.renew()
    await own.take_in([file(-1)])

    assert own.bits is ALL
    assert len(share.asked) <= FILLING


async def test_a_share_that_has_become_small_has_a_filter_again():
    share = Share(count=20 * FILLING)
    own = OwnFilter(share, KEYS)
    await own.renew()

    share.count = 50
    own.note(Changes(is_all=True))
    await own.renew()

    assert own.bits == filter_of(50)
