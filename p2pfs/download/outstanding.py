"""What sources were asked for and is not kept yet: by block, and bounded in bytes.

A request is with its source until an answer comes, and then with the verifier, which keeps the
block. Both count against the same bounds, since both take memory.
"""

from __future__ import annotations

from typing import Final

from p2pfs.download.source import MANIFEST, REFILL_BLOCKS, Request
from p2pfs.protocol import MIB, block_bytes_for, block_span, manifest_bytes_for
from p2pfs.rates import LOOK_AGAIN_S, RateLimit

MAX_IN_FLIGHT_BYTES: Final = 16 * MIB
"""Bytes asked for and not yet kept, in all: enough for a fast link, and bounded memory."""

MAX_AHEAD_IN_FLIGHT_BYTES: Final = 12 * MIB
"""Of these, what read-ahead may take: a reader that seeks always finds room."""


class Outstanding:
    """The requests for one content that are not over."""

    def __init__(self, size: int, limit: RateLimit | None) -> None:
        """Start with none; nothing is to be asked for while `limit` is not open."""
        self._size = size
        self._limit = limit or RateLimit()
        self._block_bytes = block_bytes_for(size)
        self._asked: dict[int, list[Request]] = {}
        self._arrived: dict[int, list[Request]] = {}
        self._bytes = 0

    def asked_for(self, index: int) -> tuple[Request, ...]:
        """Return the requests for a block that no source has answered."""
        return tuple(self._asked.get(index, ()))

    def is_asked_for(self, index: int) -> bool:
        """Return whether a source was asked for a block and has not answered."""
        return index in self._asked

    def is_with_source(self, request: Request) -> bool:
        """Return whether a request was not answered."""
        return request in self._asked.get(request.index, ())

    def has_arrived(self, index: int) -> bool:
        """Return whether a block is being verified and kept."""
        return index in self._arrived

    def length_of(self, index: int) -> int:
        """Return how many bytes a block has, or the manifest at most."""
        if index == MANIFEST:
            return manifest_bytes_for(self._size)
        return block_span(self._size, index)[1]

    # Bounds

    def has_room(self, length: int, *, is_demanded: bool) -> bool:
        """Return whether a further block of `length` may be asked for."""
        most = MAX_IN_FLIGHT_BYTES if is_demanded else MAX_AHEAD_IN_FLIGHT_BYTES
        return not self._bytes or self._bytes + length <= most

    @property
    def is_low(self) -> bool:
        """Whether so much read-ahead may be asked for that choosing it is worth its time."""
        refill_bytes = min(REFILL_BLOCKS * self._block_bytes, MAX_AHEAD_IN_FLIGHT_BYTES)
        return self._bytes + refill_bytes <= MAX_AHEAD_IN_FLIGHT_BYTES

    @property
    def is_full_of_read_ahead(self) -> bool:
        """Whether no further read-ahead may be asked for."""
        return self._bytes >= MAX_AHEAD_IN_FLIGHT_BYTES

    def open_at(self, now: float) -> float:
        """Return when the limit may let something be asked for; it may be changed meanwhile."""
        return now + min(self._limit.wait_s(now), LOOK_AGAIN_S)

    def is_held_back(self, now: float) -> bool:
        """Return whether the limit lets nothing be asked for."""
        return self._limit.wait_s(now) > 0

    # What happens to a request

    def add(self, request: Request, now: float) -> None:
        """Note that a source is asked for a block now."""
        self._asked.setdefault(request.index, []).append(request)
        self._bytes += request.length
        self._limit.charge(request.length, now)

    def arrived(self, request: Request) -> None:
        """Note that a source gave a block; it counts until `kept`."""
        _remove(self._asked, request)
        self._arrived.setdefault(request.index, []).append(request)

    def kept(self, request: Request) -> bool:
        """Let a request be over whose block has arrived; return whether it was such a one."""
        if request not in self._arrived.get(request.index, ()):
            return False
        _remove(self._arrived, request)
        self._bytes -= request.length
        return True

    def withdraw(self, request: Request) -> None:
        """Let a request be over that its source has not answered."""
        _remove(self._asked, request)
        self._bytes -= request.length

    def refund(self, request: Request) -> None:
        """Give the bytes of a refused request back to the limit."""
        self._limit.refund(request.length)


def _remove(requests: dict[int, list[Request]], request: Request) -> None:
    requests[request.index].remove(request)
    if not requests[request.index]:
        del requests[request.index]
