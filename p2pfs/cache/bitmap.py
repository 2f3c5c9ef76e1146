"""Which blocks of one content are there: missing, claimed by an earlier run, or verified.

A block has one byte in memory and one bit on the disk. The bit says claimed or verified: after a
restart both are claims. One byte is read and written in one step, so any thread may look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

_MISSING: Final = 0
_CLAIMED: Final = 1
_VERIFIED: Final = 2

_IS_MISSING: Final = bytes([_MISSING])
_IS_CLAIMED: Final = bytes([_CLAIMED])
_IS_VERIFIED: Final = bytes([_VERIFIED])

_DIGIT_OF_STATE: Final = bytes.maketrans(bytes([_MISSING, _CLAIMED, _VERIFIED]), b"011")
_STATE_OF_DIGIT: Final = bytes.maketrans(b"01", bytes([_MISSING, _CLAIMED]))


class Bitmap:
    """The states of so many blocks, all missing at first."""

    def __init__(self, count: int) -> None:
        self._states = bytearray(count)
        self.byte_count = -(-count // 8)
        """Bytes that it takes on the disk."""

    def __len__(self) -> int:
        """Return how many blocks there are, missing ones included."""
        return len(self._states)

    def is_verified(self, index: int) -> bool:
        """Return whether a block is there and verified; any index may be asked for."""
        return self._states[index : index + 1] == _IS_VERIFIED

    def is_claimed(self, index: int) -> bool:
        """Return whether an earlier run says that a block is there; any index may be asked for."""
        return self._states[index : index + 1] == _IS_CLAIMED

    def missing(self, indexes: Iterable[int]) -> Iterator[int]:
        """Yield those blocks that are neither verified nor claimed; any index may be asked for."""
        states = self._states
        return (index for index in indexes if states[index : index + 1] == _IS_MISSING)

    def is_present(self, index: int) -> bool:
        """Return whether a block is verified or claimed."""
        return self._states[index] != _MISSING

    def are_verified(self, first: int, end: int) -> bool:
        """Return whether all blocks from `first` up to `end` are verified."""
        return self._states.count(_VERIFIED, first, end) == end - first

    @property
    def present_count(self) -> int:
        """How many blocks are verified or claimed."""
        return len(self._states) - self._states.count(_MISSING)

    def present(self) -> Iterator[int]:
        """Yield the blocks that are verified or claimed."""
        return (index for index, state in enumerate(self._states) if state != _MISSING)

    def set_verified(self, index: int) -> None:
        """Note that a block is there and verified."""
        self._states[index] = _VERIFIED

    def set_missing(self, index: int) -> None:
        """Note that a block is not there."""
        self._states[index] = _MISSING

    def clear(self) -> None:
        """Note that no block is there."""
        self._states[:] = bytes(len(self._states))

    def states(self) -> bytes:
        """Return the states for `restore`, which hold as long as nobody touches the file."""
        return bytes(self._states)

    def restore(self, states: bytes) -> None:
        """Take over the states that `states` gave."""
        self._states[:] = states

    # As bits, through an integer in base two: the largest map has 16,384 bits, and a loop over
    # them in Python takes 1.5 ms. The first block is the lowest bit, so the digits are reversed.

    def claim(self, stored: bytes) -> None:
        """Take every block for claimed whose bit is set in what `to_bytes` once gave."""
        count = len(self._states)
        digits = f"{int.from_bytes(stored, 'little'):0{count}b}"[::-1]
        self._states[:] = digits.encode()[:count].translate(_STATE_OF_DIGIT)

    def to_bytes(self) -> bytes:
        """Return one bit for each block: whether it is there."""
        digits = self._states[::-1].translate(_DIGIT_OF_STATE)
        return int(b"0" + digits, 2).to_bytes(self.byte_count, "little")
