"""Which blocks the readers of one content will need next.

Readers are told apart by place alone, so that a read needs no more than its offset. Like the
picker it learns from its caller what happened, and at what time; it fetches nothing itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import KIB, MIB, block_bytes_for, block_count_for

MIN_AHEAD_BYTES: Final = 1 * MIB
MAX_AHEAD_BYTES: Final = 16 * MIB
"""The window ahead of a reader: doubled with each block read in sequence."""

SEQUENCE_BYTES: Final = 64 * KIB
"""Read-ahead starts after more than this in sequence, over at least two reads. File managers probe
4 to 16 KiB of a file for its type, of which the kernel makes 48 in two reads. A program that reads
on makes the kernel ask for 128 KiB at a time: that takes two reads, or three that begin small."""

SCATTERED_READS: Final = 32
SCATTERED_AHEAD_BYTES: Final = 8 * MIB
"""After so many reads all over the place each gets so much read-ahead: a program that reads at
random often reads most of it. Only from quick sources, or others would wait behind it. Of 4,096
random reads in 256 MiB, 4,600 were made in a second with 1 MiB after 64 reads, and 7,200 with
this."""

MAX_STREAMS: Final = 16
"""Places at which a content is being read in sequence, the latest ones."""

STREAM_IDLE_S: Final = 5.0
"""A place where nobody reads for so long gets no more read-ahead: the reader sought away."""

MAX_PROMISED: Final = 32
"""Blocks fetched for other readers before ours comes near them. Each is ours to fetch at some time,
as long as the file is being read; this bounds what others can make us fetch ahead. In all it is no
more than our own readers have read, and so many or one window: the asker may be no reader."""

TRIPWIRES: Final = 4
"""Parts of a window; its reader is noticed behind each, though it reads from the cache. Each
time costs 0.1 ms, most of it for the hop into trio."""


@dataclass(eq=False, slots=True)
class _Stream:
    """One place at which the content is read, maybe only once."""

    position: int  # the block after the last one read
    window_bytes: int  # 0 until more than one read is known
    read_at: float
    run: tuple[int, int]  # while there is no window: first and last byte + 1 read in sequence

    def goes_on(self, offset: int, end: int) -> bool:
        """Note a read; return whether with it enough has been read in sequence.

        Two reads that the kernel makes at once may come in either order.
        """
        start, stop = before = self.run
        if offset > stop or end < start:
            self.run = (offset, end)
            return False
        self.run = start, stop = min(start, offset), max(stop, end)
        return self.run != before and offset != before[0] and stop - start > SEQUENCE_BYTES


class ReadAhead:
    """Where the readers of one content are, and which blocks they will need next.

    Readers are told apart by place alone: a read that begins in or just ahead of a stream
    belongs to it, any other begins one. The first read of a stream wants nothing ahead, for
    many programs read only the beginning of a file; the window begins with a read that goes on.
    So a seek begins with a small window again, and two readers at different places both get theirs.
    """

    def __init__(self, size: int) -> None:
        """Start without streams, for a content of `size` bytes."""
        self._block_bytes = block_bytes_for(size)
        self._block_count = block_count_for(size)
        self._streams: Latest[int, _Stream] = Latest(MAX_STREAMS)  # by number; latest last
        self._numbers = 0
        self._strays = 0
        self._strayed_at = float("-inf")
        self._promised: set[int] = set()
        window = max(1, MAX_AHEAD_BYTES // self._block_bytes)
        self._may_promise = min(window, MAX_PROMISED)  # more blocks for other readers
        self.is_quick = False
        """Whether sources are so quick that the surroundings of random reads are worth while."""
        self.tripwires: frozenset[int] = frozenset()
        """Blocks whose reads from the cache are to be reported to `advance`."""

    def advance(self, offset: int, length: int, now: float) -> None:
        """Note a read of at least one byte."""
        end = offset + length
        number = self._find(offset // self._block_bytes)
        if number is None:
            self._stray(now)
            position = self._block_after(end)
            self._may_promise += 1
            self._begin(_Stream(position, self._first_window(), now, (offset, end)))
        else:
            self._streams.move_to_end(number)
            self._follow(self._streams[number], offset, end, now)
        self.tripwires = frozenset(self._tripwires())

    def promise(self, index: int) -> bool:
        """Want a block for another reader; return whether that is not asked too much."""
        is_new = index not in self._promised
        if is_new and len(self._promised) < MAX_PROMISED and self._may_promise > 0:
            self._promised.add(index)
            self._may_promise -= 1
        return index in self._promised

    def arrived(self, index: int) -> None:
        """Note that a block is here: what was promised is kept."""
        self._promised.discard(index)

    def clear(self) -> None:
        """Forget all readers: nothing is wanted ahead."""
        self._streams.clear()
        self._promised.clear()
        self.tripwires = frozenset()

    def wants(self, index: int, now: float) -> bool:
        """Return whether a block is one of those to have ready."""
        return index in self._promised or any(index in window for window in self._windows(now))

    def wanted(self, now: float) -> Iterator[int]:
        """Yield the blocks to have ready: those promised, then the nearest of each stream."""
        in_turn = itertools.zip_longest(*self._windows(now))
        nearest = (index for some in in_turn for index in some if index is not None)
        return itertools.chain(tuple(self._promised), nearest)

    def _stray(self, now: float) -> None:
        if now - self._strayed_at > STREAM_IDLE_S:
            self._strays = 0
        self._strays, self._strayed_at = self._strays + 1, now

    def _first_window(self) -> int:
        is_scattered = self.is_quick and self._strays > SCATTERED_READS
        return SCATTERED_AHEAD_BYTES if is_scattered else 0

    def _windows(self, now: float) -> list[range]:
        return [
            self._window(stream)
            for stream in reversed(self._streams.values())
            if now - stream.read_at <= STREAM_IDLE_S
        ]

    def _find(self, first: int) -> int | None:
        for number, stream in reversed(self._streams.items()):
            if stream.position - 1 <= first <= self._window(stream).stop:
                return number
        return None

    def _begin(self, stream: _Stream) -> None:
        self._numbers += 1
        self._streams[self._numbers] = stream

    def _follow(self, stream: _Stream, offset: int, end: int, now: float) -> None:
        stream.read_at = now
        position = self._block_after(end)
        is_next_block = position > stream.position
        if stream.window_bytes:
            if is_next_block:
                stream.window_bytes = min(2 * stream.window_bytes, MAX_AHEAD_BYTES)
        elif stream.goes_on(offset, end) or is_next_block:
            stream.window_bytes = MIN_AHEAD_BYTES
        self._may_promise += max(0, position - stream.position)
        stream.position = max(stream.position, position)

    def _block_after(self, end: int) -> int:
        return (end - 1) // self._block_bytes + 1

    def _window(self, stream: _Stream) -> range:
        blocks = -(-stream.window_bytes // self._block_bytes)
        end = min(stream.position + blocks, self._block_count)
        return range(stream.position, max(end, stream.position))

    def _tripwires(self) -> Iterator[int]:
        for stream in self._streams.values():
            if not stream.window_bytes:  # the next read decides, wherever it is answered
                yield from (stream.position - 1, stream.position)
            window = self._window(stream)
            step = max(1, len(window) // TRIPWIRES)
            yield from window[step - 1 :: step]
