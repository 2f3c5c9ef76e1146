"""How files are cut, named and verified."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.errors import BadBlockError, RemoteProtocolError
from p2pfs.protocol.manifest import (
    EMPTY_FILE_ID,
    GIB,
    MAX_BLOCKS,
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    MIN_BLOCK_BYTES,
    FileId,
    Manifest,
    block_bytes_for,
    block_count_for,
    block_range,
    block_span,
    digest,
    manifest_bytes_for,
)

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "manifests.json").read_text())
SIZES = st.integers(0, MAX_FILE_BYTES) | st.integers(0, 3 * MIN_BLOCK_BYTES)


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def manifest_of(data: bytes) -> Manifest:
    return Manifest.of(len(data), lambda offset, length: data[offset : offset + length])


def name(data: bytes) -> FileId:
    return FileId(blake3(b"p2pfs file id 1\n" + data).digest())


@pytest.mark.parametrize("vector", VECTORS["contents"], ids=lambda v: v["comment"])
def test_contents_have_the_manifests_and_ids_of_the_vectors(vector):
    manifest = manifest_of(content(vector["size"]))
    assert manifest.to_bytes().hex() == vector["manifest"]
    assert manifest.file_id.hex() == vector["file_id"]
    assert Manifest.from_bytes(manifest.to_bytes(), manifest.file_id) == manifest


def test_the_empty_file_has_one_id():
    assert (
        Manifest(0, b"").file_id
        == EMPTY_FILE_ID
        == bytes.fromhex(VECTORS["contents"][0]["file_id"])
    )


@pytest.mark.parametrize("vector", VECTORS["sizes"], ids=lambda v: str(v["size"]))
def test_sizes_are_cut_as_in_the_vectors(vector):
    assert block_bytes_for(vector["size"]) == vector["block_bytes"]
    assert block_count_for(vector["size"]) == vector["blocks"]


@given(SIZES)
def test_blocks_cover_a_file_once_and_are_few_enough(size):
    count = block_count_for(size)
    assert count <= MAX_BLOCKS
    assert manifest_bytes_for(size) <= MAX_MANIFEST_BYTES
    ends = [sum(block_span(size, index)) for index in range(count)]
    starts = [block_span(size, index)[0] for index in range(count)]
    assert [*starts, size] == [0, *ends]


@given(SIZES, st.integers(0, MAX_FILE_BYTES), st.integers(0, 100 * MIN_BLOCK_BYTES))
def test_a_range_of_blocks_holds_the_bytes_and_no_block_more(size, offset, length):
    blocks = block_range(size, offset, length)
    if offset >= size or not length:
        assert not blocks
        return
    first, last = block_span(size, blocks[0]), block_span(size, blocks[-1])
    assert first[0] <= offset < sum(first)
    assert last[0] < min(offset + length, size) <= sum(last)


def test_a_block_is_verified_by_content_length_and_place():
    data = content(2 * MIN_BLOCK_BYTES + 5)
    manifest = manifest_of(data)
    blocks = [data[o : o + n] for o, n in (block_span(len(data), i) for i in range(3))]
    for index, block in enumerate(blocks):
        manifest.verify(index, memoryview(block))
    wrong = {
        0: blocks[1],
        1: bytes([blocks[1][0] ^ 1]) + blocks[1][1:],
        2: blocks[2] + b"\0",
    }
    for index, block in wrong.items():
        with pytest.raises(BadBlockError):
            manifest.verify(index, block)
    with pytest.raises(BadBlockError):
        manifest.verify(2, b"")


HEADER = struct.Struct(">QI")
BAD = {
    "nothing": b"",
    "cut in the header": bytes(11),
    "a digest too few": HEADER.pack(1, MIN_BLOCK_BYTES),
    "a digest too many": HEADER.pack(0, MIN_BLOCK_BYTES) + bytes(32),
    "half a digest": HEADER.pack(1, MIN_BLOCK_BYTES) + bytes(16),
    "another block size": HEADER.pack(1, 2 * MIN_BLOCK_BYTES) + bytes(32),
    "block size 0": HEADER.pack(1, 0) + bytes(32),
    "a file too large": HEADER.pack(MAX_FILE_BYTES + 1, 64 * 1024 * 1024) + bytes(32),
    "the largest number": HEADER.pack(2**64 - 1, 2**32 - 1) + bytes(32),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_manifest_that_cannot_be_is_refused_though_its_name_is_right(data):
    with pytest.raises(RemoteProtocolError):
        Manifest.from_bytes(data, name(data))


@given(st.binary(max_size=200))
def test_bytes_under_another_name_are_refused(data):
    with pytest.raises(RemoteProtocolError, match="does not match"):
        Manifest.from_bytes(data, FileId(bytes(32)))


def test_no_content_can_pose_as_a_manifest():
    manifest = manifest_of(b"something")
    assert digest(manifest.to_bytes()) != manifest.file_id


def test_the_largest_file_needs_the_largest_manifest():
    assert manifest_bytes_for(MAX_FILE_BYTES) == MAX_MANIFEST_BYTES
    assert MAX_FILE_BYTES == 1024 * GIB
