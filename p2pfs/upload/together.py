"""Small contents that one link asks for one behind the other, read in one hop to a thread.

A hop costs as much as such a content. A peer that copies a directory of small files asks for dozens
before the first is answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from p2pfs.protocol import KIB, MIN_BLOCK_BYTES, FileId, GetBlocks, Message

TOGETHER: Final = 16
TOGETHER_BYTES: Final = 160 * KIB
"""Contents read at once, and their bytes: so much is held in memory for each link at most."""


class SmallShare(Protocol):
    """The contents that are served, as far as small ones go."""

    def size_of(self, file_id: FileId) -> int | None:
        """Return the size of a content, from memory; None if it is not here."""

    async def read_small(self, file_ids: Sequence[FileId]) -> list[bytes | None]:
        """Return contents of one block, verified; None for each that is to be read alone."""


@dataclass(eq=False, slots=True)
class Together:
    """What was read for requests of one link that still wait."""

    _read: dict[int, tuple[Message, bytes]] = field(default_factory=dict)

    def take(self, number: int, wanted: GetBlocks) -> bytes | None:
        """Return what was read for a request, if anything was; call it once for each."""
        message, data = self._read.pop(number, (None, None))
        return data if message is wanted else None

    def forget(self, number: int) -> None:
        """Let go of what was read for a request that is taken back."""
        self._read.pop(number, None)

    def forget_all(self) -> None:
        """Let go of all that was read: the link takes nothing now."""
        self._read.clear()

    async def read(
        self, share: SmallShare, number: int, wanted: GetBlocks, waiting: dict[int, Message]
    ) -> bytes | None:
        """Read a small content with those that wait behind it; None if it is to be read alone."""
        asked = _small_ones(share, number, wanted, waiting)
        if len(asked) < 2:
            return None
        file_ids = [FileId(message.file_id) for message in asked.values()]
        found = await share.read_small(file_ids)
        for (other, message), data in zip(asked.items(), found, strict=True):
            if data is not None and (other == number or waiting.get(other) is message):
                self._read[other] = message, data
        return self.take(number, wanted)


def _small_ones(
    share: SmallShare, number: int, wanted: GetBlocks, waiting: dict[int, Message]
) -> dict[int, GetBlocks]:
    """Return the requests that are answered together with the first of them."""
    asked: dict[int, GetBlocks] = {}
    room = TOGETHER_BYTES
    for other, message in ((number, wanted), *waiting.items()):
        if not isinstance(message, GetBlocks) or message.indexes != (0,):
            break
        room -= share.size_of(FileId(message.file_id)) or TOGETHER_BYTES + 1
        if room < 0 or len(asked) == TOGETHER:
            break
        asked[other] = message
    return asked


def take_together(share: SmallShare, left: deque[FileId]) -> dict[FileId, int]:
    """Take the first contents that may be read at once, at least one, each with its size.

    The size is 0 of each that is to be asked for alone: it is large, or not known from memory.
    """
    some: dict[FileId, int] = {}
    room = TOGETHER_BYTES
    while left:
        size = share.size_of(left[0]) or 0
        if size > MIN_BLOCK_BYTES:
            size = 0
        room -= size
        if some and (room < 0 or len(some) == TOGETHER or left[0] in some):
            break
        some[left.popleft()] = size
    return some


async def read_together(
    share: SmallShare, some: Mapping[FileId, int]
) -> dict[FileId, bytes | None]:
    """Return these contents; None for each that is to be asked for alone."""
    wanted = [file_id for file_id, size in some.items() if size]
    found = dict(zip(wanted, await share.read_small(wanted), strict=True)) if wanted else {}
    return {file_id: found.get(file_id) for file_id in some}
