"""Bytes that lie in pieces, cut anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pfs.protocol.pieces import cut


@given(st.lists(st.binary(max_size=40)), st.integers(1, 50))
def test_pieces_are_cut_to_length_and_lose_nothing(pieces: list[bytes], length: int) -> None:
    loads = list(cut(pieces, length))

    assert b"".join(piece for load, _ in loads for piece in load) == b"".join(pieces)
    assert all(sum(map(len, load)) == length for load, _ in loads[:-1])
    assert sum(map(len, loads[-1][0])) <= length
    assert [is_last for _, is_last in loads] == [False] * (len(loads) - 1) + [True]


def test_of_nothing_one_load_is_the_last() -> None:
    assert list(cut([], 5)) == [([], True)]


def test_nothing_is_copied() -> None:
    data = b"some bytes"
    assert all(piece.obj is data for load, _ in cut([data, data], 4) for piece in load)
