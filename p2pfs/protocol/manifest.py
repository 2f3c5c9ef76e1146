"""How a file is cut into blocks, named and verified (PROTOCOL.md, "Content").

A manifest is (size, block size, BLAKE3 of every block). The file id is the BLAKE3 of the
manifest under a prefix of its own, so that no file's content can pose as a manifest. The
block size follows from the size alone: same content, same manifest, same id, anywhere, and
a block can be asked for before the manifest has arrived.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NewType

from blake3 import blake3

from p2pfs.errors import BadBlockError, RemoteProtocolError

FileId = NewType("FileId", bytes)
"""32 bytes that name a content."""

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

MIN_BLOCK_BYTES: Final = 256 * KIB
"""Small enough to be one quick exchange, large enough that its digest costs nothing."""

MAX_BLOCKS: Final = 16_384
"""Bounds the digests of a manifest at 512 KiB; the block size doubles to keep to it."""

MAX_FILE_BYTES: Final = 1024 * GIB
"""At this size a block is 64 MiB, the most that is held in memory for one transfer."""

DIGEST_BYTES: Final = 32
FILE_ID_BYTES: Final = 32

_FILE_ID_PREFIX: Final = b"p2pfs file id 1\n"
_MANIFEST_HEADER: Final = struct.Struct(">QI")

MAX_MANIFEST_BYTES: Final = _MANIFEST_HEADER.size + MAX_BLOCKS * DIGEST_BYTES
"""The longest manifest that a servent takes."""


def block_bytes_for(size: int) -> int:
    """Return the block size of a file of `size` bytes: a power of two from 256 KiB up."""
    block_bytes = MIN_BLOCK_BYTES
    while block_bytes * MAX_BLOCKS < size:
        block_bytes *= 2
    return block_bytes


def block_count_for(size: int) -> int:
    """Return how many blocks a file of `size` bytes has; none for an empty file."""
    return -(-size // block_bytes_for(size))


def manifest_bytes_for(size: int) -> int:
    """Return the length of the manifest of a file of `size` bytes."""
    return _MANIFEST_HEADER.size + block_count_for(size) * DIGEST_BYTES


def block_span(size: int, index: int) -> tuple[int, int]:
    """Return (offset, length) of block `index` in a file of `size` bytes."""
    block_bytes = block_bytes_for(size)
    offset = index * block_bytes
    return offset, min(block_bytes, size - offset)


def block_range(size: int, offset: int, length: int) -> range:
    """Return the indexes of the blocks that hold `length` bytes at `offset`, up to the end."""
    end = min(offset + length, size)
    if offset >= end:
        return range(0)
    block_bytes = block_bytes_for(size)
    return range(offset // block_bytes, (end - 1) // block_bytes + 1)


@dataclass(frozen=True)
class Manifest:
    """One content: its size and the digest of each of its blocks."""

    size: int
    digests: bytes
    """The BLAKE3 digests of all blocks, joined."""

    @classmethod
    def of(cls, size: int, read: Callable[[int, int], bytes]) -> Manifest:
        """Hash a content; `read(offset, length)` must return exactly that many bytes."""
        spans = (block_span(size, index) for index in range(block_count_for(size)))
        return cls(size, b"".join(digest(read(offset, length)) for offset, length in spans))

    @classmethod
    def from_bytes(cls, data: bytes, file_id: FileId) -> Manifest:
        """Parse a manifest and check that it is the one that `file_id` names.

        Raises:
            RemoteProtocolError: it is not, or its shape is not that of any manifest.
        """
        if _name(data) != file_id:
            raise RemoteProtocolError("manifest does not match its file id")
        if len(data) < _MANIFEST_HEADER.size:
            raise RemoteProtocolError("manifest is cut short")
        size, block_bytes = _MANIFEST_HEADER.unpack_from(data)
        manifest = cls(size, data[_MANIFEST_HEADER.size :])
        if size > MAX_FILE_BYTES or block_bytes != block_bytes_for(size):
            raise RemoteProtocolError("manifest has an impossible size")
        if len(manifest.digests) != manifest.block_count * DIGEST_BYTES:
            raise RemoteProtocolError("manifest has the wrong number of digests")
        return manifest

    def to_bytes(self) -> bytes:
        """Return the one encoding of this manifest."""
        return _MANIFEST_HEADER.pack(self.size, block_bytes_for(self.size)) + self.digests

    @cached_property
    def file_id(self) -> FileId:
        """The name of this content."""
        return _name(self.to_bytes())

    @property
    def block_count(self) -> int:
        """How many blocks there are."""
        return block_count_for(self.size)

    def verify(self, index: int, data: bytes | bytearray | memoryview) -> None:
        """Check that `data` is block `index`, whole.

        Releases the GIL while it hashes; a block of more than a megabyte belongs in a thread.

        Raises:
            BadBlockError: it is not.
        """
        if len(data) != block_span(self.size, index)[1]:
            raise BadBlockError(f"block {index} has the wrong length")
        start = index * DIGEST_BYTES
        if digest(data) != self.digests[start : start + DIGEST_BYTES]:
            raise BadBlockError(f"block {index} does not match its digest")


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return the BLAKE3 of one block."""
    return blake3(data).digest()


def _name(manifest: bytes) -> FileId:
    return FileId(blake3(_FILE_ID_PREFIX + manifest).digest())


EMPTY_FILE_ID: Final = Manifest(0, b"").file_id
"""The one id of the empty file. It goes with size 0, and size 0 goes with no other."""
