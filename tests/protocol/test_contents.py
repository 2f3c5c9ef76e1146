"""Several small contents in one answer, in whatever pieces it comes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.errors import RemoteProtocolError
from p2pfs.protocol import MAX_CONTENT_BYTES, MIN_BLOCK_BYTES, ContentsCutter, pack_contents

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "contents.json").read_text())


def cut(answer: bytes, count: int, piece: int) -> list[bytes | None]:
    taken: list[bytes | None] = []
    cutter = ContentsCutter(count, taken.append)
    for begin in range(0, len(answer), piece):
        cutter.receive([memoryview(answer[begin : begin + piece])])
    return taken


@pytest.mark.parametrize("vector", VECTORS["answers"], ids=lambda v: v["comment"])
def test_an_answer_is_what_its_vector_says(vector) -> None:
    contents = [None if one is None else bytes.fromhex(one) for one in vector["contents"]]

    assert pack_contents(contents).hex() == vector["hex"]
    assert cut(bytes.fromhex(vector["hex"]), len(contents), 1) == contents


@pytest.mark.parametrize("vector", VECTORS["breaches"], ids=lambda v: v["comment"])
def test_more_than_was_asked_for_is_a_breach(vector) -> None:
    with pytest.raises(RemoteProtocolError):
        cut(bytes.fromhex(vector["hex"]), vector["asked"], 1)


@given(st.lists(st.none() | st.binary(max_size=30), max_size=16), st.integers(1, 100))
def test_contents_come_out_as_they_went_in(contents, piece) -> None:
    assert cut(pack_contents(contents), len(contents), piece) == contents


def test_a_content_of_a_whole_block_is_taken() -> None:
    data = bytes(MIN_BLOCK_BYTES)

    answer = pack_contents([data])

    assert len(answer) == MAX_CONTENT_BYTES
    assert cut(answer, 1, 65_000) == [data]
