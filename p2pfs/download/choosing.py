"""Which source to ask for one block, and whether to ask a further one.

A block is asked of one source. A further one is asked when all others are stuck, when it has more
to show than they, or when it gains more than a block costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from p2pfs.download.known import KnownSources
from p2pfs.download.outstanding import Outstanding
from p2pfs.download.source import UNPROVEN_BYTES_PER_S, Source
from p2pfs.download.standing import Standing
from p2pfs.protocol import block_count_for

ENDGAME_BLOCKS: Final = 16
"""The last blocks of a content: asked of a second source when that one is quicker."""

ENDGAME_GAIN_S: Final = 0.1
"""Seconds that a second request must gain to be worth a block."""


class Choice:
    """The choice of a source for a block. It asks nobody, and changes nothing."""

    def __init__(self, size: int, sources: KnownSources, outstanding: Outstanding) -> None:
        """Choose for a content of `size` bytes, by the requests on their way."""
        self._last_blocks = block_count_for(size) - ENDGAME_BLOCKS
        self._sources = sources
        self._outstanding = outstanding

    def best(
        self,
        index: int,
        length: int,
        sources: Iterable[Source],
        now: float,
        *,
        is_demanded: bool,
    ) -> Source | None:
        """Return the source to ask for a block now, or None if that is worth while of none."""
        source = self._quickest(index, length, sources, now, is_demanded)
        if source is None or not self._is_worth_while(source, index, length, now, is_demanded):
            return None
        return source

    def _quickest(
        self, index: int, length: int, sources: Iterable[Source], now: float, is_demanded: bool
    ) -> Source | None:
        """Return which source would give a block first, of those that were not asked for it."""
        asked = {request.source.id for request in self._outstanding.asked_for(index)}
        able = (
            source
            for source in sources
            if source.peer.id not in asked
            and source.may_have(index, now)
            and source.has_room(length, now)
        )
        # An unproven source is tried with read-ahead, which can wait. The order in which the
        # sources are known settles the rest, so that a small file needs one link alone.
        unproven_s = length / UNPROVEN_BYTES_PER_S if is_demanded else 0.0
        return min(
            able,
            key=lambda s: (
                unproven_s if s.rate(now) is None else s.eta_s(length),
                s.standing is not Standing.PROVEN,
            ),
            default=None,
        )

    def _is_worth_while(
        self, source: Source, index: int, length: int, now: float, is_demanded: bool
    ) -> bool:
        """Return whether to ask `source` too, if others have been asked already."""
        if self.are_stuck(index, now):
            return True
        holders = self.holders(index)
        if self.has_more_to_show(source, holders, now, is_demanded=is_demanded):
            return True
        if is_demanded and all(now >= holder.doubtful_at() for holder in holders):
            return True
        if len(holders) > 1 or not (is_demanded or self.is_last(index)):
            return False
        if source.requests or source.rate(now) is None or holders[0].meter.rate is None:
            return False
        left_s = holders[0].eta_of_s(index) - (now - holders[0].progress_at)
        return left_s > 2 * source.eta_s(length) + ENDGAME_GAIN_S

    def is_last(self, index: int) -> bool:
        """Return whether a block is one of the last, for which a second source may be asked."""
        return index >= self._last_blocks

    def holders(self, index: int) -> list[Source]:
        """Return the sources that were asked for a block and have not answered."""
        return self._sources.holders(self._outstanding.asked_for(index))

    def are_stuck(self, index: int, now: float) -> bool:
        """Return whether all that were asked for a block are; so if none was."""
        return all(now >= holder.stuck_at() for holder in self.holders(index))

    def has_more_to_show(
        self, source: Source, holders: Sequence[Source], now: float, *, is_demanded: bool
    ) -> bool:
        """Return whether a block was asked of those alone who have given less than `source`.

        For read-ahead they must be in doubt.
        """
        if source.standing is not Standing.PROVEN or any(holder.given for holder in holders):
            return False
        if not source.given and any(one.standing is Standing.PROVEN for one in holders):
            return False
        return is_demanded or all(now >= holder.doubtful_at() for holder in holders)
