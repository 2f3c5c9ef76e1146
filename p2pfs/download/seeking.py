"""The search for sources of a content when its readers wait and no known source gives it.

See `scout` for the search that only makes a download quicker.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from p2pfs.download.source import BACK_OFF_S
from p2pfs.download.upstream import Upstream
from p2pfs.errors import NotAskedError
from p2pfs.protocol import FileId, PeerInfo
from p2pfs.protocol.flood import Urgency


class Seeking:
    """The searches for sources of a content that no known one gives, one at a time."""

    def __init__(self, upstream: Upstream, file_id: FileId, size: int) -> None:
        """Start without having searched."""
        self._upstream = upstream
        self._content = file_id, size
        self.count = 0
        """Searches since something came last."""
        self.next_at = 0.0
        """When the next may begin."""
        self.is_under_way = False

    def progressed(self) -> None:
        """Note that a block came: if no more come, the next search is a first one again."""
        self.count = 0

    def begin_anew(self, now: float) -> None:
        """Let the next search be the first, and due."""
        self.count, self.next_at = 0, now

    def is_due(self, now: float) -> bool:
        """Return whether a search may begin."""
        return not self.is_under_way and now >= self.next_at

    async def search(self) -> tuple[Sequence[PeerInfo], NotAskedError | None]:
        """Return which sources were found, and why nobody was asked, if so."""
        found: Sequence[PeerInfo] = ()
        refusal = None
        pause_s = BACK_OFF_S[min(self.count, len(BACK_OFF_S) - 1)]
        # A reader waits for the first; the next only find sources that have come since.
        urgency = Urgency.SOURCES if self.count else Urgency.PERSON
        try:
            found = await self._upstream.find_sources(*self._content, urgency)
            self.count += 1
        except NotAskedError as error:
            pause_s = max(pause_s, error.wait_s)
            refusal = error
        self.is_under_way = False
        self.next_at = trio.current_time() + pause_s
        return found, refusal
