"""The findings of one hop of the worker, until they are filed and offered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from p2pfs.library.agenda import Look
from p2pfs.library.index import Record
from p2pfs.library.status import StatKey
from p2pfs.protocol import MIB, FileId

BATCH_FILES: Final = 64
"""Files in one hop: 64 small ones take about 10 ms."""

BATCH_BYTES: Final = 8 * MIB
"""Bytes hashed in one hop before it ends; the last file may exceed it."""


class Known(NamedTuple):
    """The content of a file, known without reading it."""

    file_id: FileId
    key: StatKey
    """The state in which its bytes were these."""
    is_sure: bool
    """Whether its ctime is the same, or the reason is known why it is not."""
    is_filed: bool
    """Whether the index has it under its path."""
    is_current: bool = False
    """Whether the index has it in its present state."""


@dataclass(slots=True)
class Findings:
    """The findings of one hop."""

    looks: list[Look] = field(default_factory=list)
    hashed_bytes: int = 0
    known: list[tuple[Look, StatKey, Known]] = field(default_factory=list)
    """Files that the index has under their paths, maybe in another state of the same bytes."""
    found: list[tuple[Look, StatKey, Record, bool]] = field(default_factory=list)
    """Files that the index has to take in before they are offered, and whether that is sure."""

    def has_room(self) -> bool:
        """Return whether another look belongs to this hop."""
        return len(self.looks) < BATCH_FILES and self.hashed_bytes < BATCH_BYTES
