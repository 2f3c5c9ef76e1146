"""Contents made from a seed, with their manifests."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from functools import cached_property

from p2pfs.protocol.manifest import FileId, Manifest, block_span


@dataclass(frozen=True)
class Content:
    """One content and what follows from it."""

    data: bytes

    @classmethod
    def of(cls, size: int, seed: int = 0) -> Content:
        return cls(random.Random(seed).randbytes(size))

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest.of(self.size, self.part)

    @property
    def file_id(self) -> FileId:
        return self.manifest.file_id

    @property
    def size(self) -> int:
        return len(self.data)

    def part(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def block(self, index: int) -> bytes:
        return self.part(*block_span(self.size, index))


def in_a_file(data: bytes) -> int:
    """Return the descriptor of a file in memory that holds `data`; the caller closes it."""
    descriptor = os.memfd_create("content", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    return descriptor
