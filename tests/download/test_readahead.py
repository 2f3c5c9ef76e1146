"""Read-ahead: what the readers of a content will want next."""

from __future__ import annotations

from itertools import pairwise

import pytest

from p2pfs.download.readahead import (
    MAX_AHEAD_BYTES,
    MAX_PROMISED,
    MAX_STREAMS,
    MIN_AHEAD_BYTES,
    SCATTERED_AHEAD_BYTES,
    SCATTERED_READS,
    SEQUENCE_BYTES,
    STREAM_IDLE_S,
    ReadAhead,
)
from p2pfs.protocol.manifest import GIB, KIB
from tests.helpers.sizes import BLOCK

SIZE = 1000 * BLOCK
SMALL = MIN_AHEAD_BYTES // BLOCK
LARGE = MAX_AHEAD_BYTES // BLOCK
KERNEL_BYTES = 128 * KIB
"""What the kernel asks for at a time when it reads ahead itself."""


def read_blocks(ahead: ReadAhead, blocks: range, now: float = 0.0) -> None:
    for index in blocks:
        for offset in range(index * BLOCK, (index + 1) * BLOCK, KERNEL_BYTES):
            ahead.advance(offset, KERNEL_BYTES, now)


def read_runs(ahead: ReadAhead, offset: int, *lengths: int) -> int:
    """Read in sequence from `offset`; return where that ends."""
    for length in lengths:
        ahead.advance(offset, length, 0.0)
        offset += length
    return offset


@pytest.mark.parametrize("length", [512, KERNEL_BYTES, 3 * BLOCK])
@pytest.mark.parametrize("offset", [0, 7, 500 * BLOCK, 501 * BLOCK - 7])
def test_a_first_read_wants_nothing_more(offset: int, length: int) -> None:
    ahead = ReadAhead(SIZE)

    ahead.advance(offset, length, 0.0)

    assert list(ahead.wanted(0.0)) == []


@pytest.mark.parametrize("block", [0, 500])
def test_a_second_read_that_goes_on_begins_a_small_window(block: int) -> None:
    ahead = ReadAhead(SIZE)

    read_runs(ahead, block * BLOCK, KERNEL_BYTES, KERNEL_BYTES)

    assert list(ahead.wanted(0.0)) == list(range(block + 1, block + 1 + SMALL))


def test_two_reads_that_the_kernel_makes_at_once_are_a_sequence_in_either_order() -> None:
    ahead = ReadAhead(SIZE)

    ahead.advance(KERNEL_BYTES, KERNEL_BYTES, 0.0)
    ahead.advance(0, KERNEL_BYTES, 0.0)

    assert list(ahead.wanted(0.0)) == list(range(1, 1 + SMALL))


def test_another_look_at_the_same_place_is_no_sequence() -> None:
    ahead = ReadAhead(SIZE)

    ahead.advance(0, 16 * KIB, 0.0)
    ahead.advance(0, KERNEL_BYTES, 0.0)

    assert list(ahead.wanted(0.0)) == []


def test_a_second_read_is_noticed_though_it_comes_from_the_cache() -> None:
    ahead = ReadAhead(SIZE)

    ahead.advance(500 * BLOCK, 4096, 0.0)

    assert {500, 501} <= ahead.tripwires


def test_what_the_kernel_asks_for_a_look_at_the_type_is_no_sequence() -> None:
    ahead = ReadAhead(SIZE)

    read_runs(ahead, 0, 16 * KIB, 32 * KIB)  # for a program that reads 16 KiB

    assert list(ahead.wanted(0.0)) == []


def test_many_small_reads_in_sequence_are_one() -> None:
    ahead = ReadAhead(SIZE)

    read_runs(ahead, 5 * BLOCK, *[4 * KIB] * (SEQUENCE_BYTES // (4 * KIB)))
    assert list(ahead.wanted(0.0)) == []

    ahead.advance(5 * BLOCK + SEQUENCE_BYTES, 4 * KIB, 0.0)
    assert list(ahead.wanted(0.0)) == list(range(6, 6 + SMALL))


def test_reads_in_a_block_that_leave_something_out_are_no_sequence() -> None:
    ahead = ReadAhead(SIZE)

    for offset in range(0, BLOCK, 64 * KIB):
        ahead.advance(offset, 60 * KIB, 0.0)

    assert list(ahead.wanted(0.0)) == []


def test_a_read_of_the_next_block_begins_a_window_though_one_between_was_not_noted() -> None:
    ahead = ReadAhead(SIZE)

    ahead.advance(0, KERNEL_BYTES, 0.0)
    ahead.advance(BLOCK, KERNEL_BYTES, 0.0)

    assert list(ahead.wanted(0.0)) == list(range(2, 2 + SMALL))


def test_two_who_read_the_same_at_once_are_in_sequence() -> None:
    ahead = ReadAhead(SIZE)

    for offset in (0, 0, 64 * KIB, 64 * KIB):
        ahead.advance(offset, 64 * KIB, 0.0)

    assert list(ahead.wanted(0.0)) == list(range(1, 1 + SMALL))


def test_a_window_doubles_with_each_block_up_to_its_limit() -> None:
    ahead = ReadAhead(SIZE)
    sizes = []
    for index in range(100, 110):
        read_blocks(ahead, range(index, index + 1))
        sizes.append(len(list(ahead.wanted(0.0))))

    assert sizes[:5] == [SMALL, 2 * SMALL, 4 * SMALL, 8 * SMALL, 16 * SMALL]
    assert sizes[-1] == LARGE
    assert all(before <= after for before, after in pairwise(sizes))


def test_a_seek_begins_small_again() -> None:
    ahead = ReadAhead(SIZE)
    read_blocks(ahead, range(20))

    read_runs(ahead, 700 * BLOCK, KERNEL_BYTES, KERNEL_BYTES)

    assert [index for index in ahead.wanted(0.0) if index >= 700] == list(range(701, 701 + SMALL))


def test_the_place_that_was_left_is_wanted_no_more_after_a_while() -> None:
    ahead = ReadAhead(SIZE)
    read_blocks(ahead, range(20))

    read_blocks(ahead, range(700, 701), STREAM_IDLE_S + 1)

    assert list(ahead.wanted(STREAM_IDLE_S + 1)) == list(range(701, 701 + SMALL))


def test_two_readers_take_turns() -> None:
    ahead = ReadAhead(SIZE)
    read_blocks(ahead, range(10))
    read_blocks(ahead, range(500, 510))

    assert list(ahead.wanted(0.0))[:4] == [510, 10, 511, 11]


def test_a_window_ends_with_the_content() -> None:
    ahead = ReadAhead(10 * BLOCK)
    read_blocks(ahead, range(8))
    assert list(ahead.wanted(0.0)) == [8, 9]

    read_blocks(ahead, range(8, 10))
    assert list(ahead.wanted(0.0)) == []


def test_a_reader_is_noticed_in_each_quarter_of_its_window() -> None:
    ahead = ReadAhead(SIZE)
    read_blocks(ahead, range(20))
    window = list(ahead.wanted(0.0))

    places = [window.index(tripwire) for tripwire in sorted(ahead.tripwires)]
    assert places == [LARGE // 4 - 1, LARGE // 2 - 1, 3 * LARGE // 4 - 1, LARGE - 1]


def test_a_reader_is_noticed_at_each_block_of_a_small_window() -> None:
    ahead = ReadAhead(SIZE)
    read_blocks(ahead, range(1))

    assert sorted(ahead.tripwires) == list(ahead.wanted(0.0)) != []


def test_a_read_anywhere_in_the_window_goes_on_with_the_stream() -> None:
    ahead = ReadAhead(SIZE)
    read_blocks(ahead, range(20))

    ahead.advance(50 * BLOCK, 4096, 0.0)

    assert next(ahead.wanted(0.0)) == 51
    assert len(list(ahead.wanted(0.0))) == LARGE


def test_random_reads_do_not_push_out_a_reader_in_sequence() -> None:
    ahead = ReadAhead(SIZE)
    for index in range(30):
        read_blocks(ahead, range(index, index + 1))
        ahead.advance((900 - 20 * index) * BLOCK, 4096, 0.0)

    assert len(list(ahead.wanted(0.0))) >= LARGE


def scatter(ahead: ReadAhead, count: int, now: float = 0.0) -> list[int]:
    """Read a little at places that have nothing to do with each other; return them."""
    places = [(37 * number) % 990 for number in range(0, 5 * count, 5)]
    for place in places:
        ahead.advance(place * BLOCK + 5, 4096, now)
    return places


def test_random_reads_want_their_surroundings_when_there_are_many_and_sources_are_quick() -> None:
    ahead = ReadAhead(SIZE)
    ahead.is_quick = True

    scatter(ahead, SCATTERED_READS)
    assert list(ahead.wanted(0.0)) == []

    *_, last = scatter(ahead, SCATTERED_READS + 1)
    end = min(last + 1 + SCATTERED_AHEAD_BYTES // BLOCK, SIZE // BLOCK)
    assert set(range(last + 1, end)) <= set(ahead.wanted(0.0))


def test_random_reads_from_slow_sources_want_nothing_more() -> None:
    ahead = ReadAhead(SIZE)

    scatter(ahead, 2 * SCATTERED_READS)

    assert list(ahead.wanted(0.0)) == []


def test_random_reads_long_ago_do_not_count() -> None:
    ahead = ReadAhead(SIZE)
    ahead.is_quick = True
    scatter(ahead, SCATTERED_READS)

    ahead.advance(995 * BLOCK + 5, 4096, STREAM_IDLE_S + 1)

    assert list(ahead.wanted(STREAM_IDLE_S + 1)) == []


def test_places_are_remembered_up_to_a_limit() -> None:
    ahead = ReadAhead(SIZE)
    for place in range(3 * MAX_STREAMS):
        read_blocks(ahead, range(place * 20, place * 20 + 1))

    assert len(list(ahead.wanted(0.0))) == MAX_STREAMS * SMALL


def test_a_large_block_counts_as_a_window() -> None:
    ahead = ReadAhead(1024 * GIB)

    read_runs(ahead, 0, KERNEL_BYTES, KERNEL_BYTES)

    assert list(ahead.wanted(0.0)) == [1]


def test_cleared_it_wants_nothing() -> None:
    ahead = ReadAhead(SIZE)
    read_blocks(ahead, range(20))

    ahead.clear()

    assert list(ahead.wanted(0.0)) == []
    assert ahead.tripwires == frozenset()


def test_what_is_promised_to_others_is_wanted_first_until_it_is_here_and_in_bounds() -> None:
    ahead = ReadAhead(SIZE)
    ahead.advance(0, KERNEL_BYTES, 0.0)
    ahead.advance(KERNEL_BYTES, KERNEL_BYTES, 0.0)
    own = list(ahead.wanted(0.0))

    assert [ahead.promise(100 + number) for number in range(MAX_PROMISED)] == [True] * MAX_PROMISED
    assert ahead.promise(100)
    assert not ahead.promise(99)
    ahead.arrived(100)
    wanted = list(ahead.wanted(0.0))

    assert set(wanted[: MAX_PROMISED - 1]) == set(range(101, 100 + MAX_PROMISED))
    assert wanted[MAX_PROMISED - 1 :] == own
    ahead.clear()
    assert list(ahead.wanted(0.0)) == []
