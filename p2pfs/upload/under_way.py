"""Which content each peer is being sent, how far and how fast: for people to look at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.latest import Latest
from p2pfs.protocol import FileId, PeerInfo, ServentId
from p2pfs.rates import Flow

LINGER_S: Final = 2.0
"""How long an upload is shown while nothing of it is asked for: a reader asks again when it
needs more, and an upload that comes and goes cannot be watched."""

MAX_LINGERING: Final = 100
"""Uploads that are shown though nothing is asked of them; the oldest are forgotten first."""


_Key = tuple[ServentId, FileId]


@dataclass(frozen=True, slots=True)
class UploadStatistics:
    """One peer's upload of one content, at one instant."""

    peer: PeerInfo
    file_id: FileId
    size: int
    sent_bytes: int
    """Of this content, to this peer, in this upload; no more than its size."""
    rate_bytes_s: float
    """What was sent lately; 0 when nothing was for a while."""
    state: str
    """`sending`, or `waiting` for a slot."""


@dataclass(eq=False, slots=True)
class Upload:
    """One peer's upload of one content."""

    peer: PeerInfo
    file_id: FileId
    size: int
    is_waiting: bool = True
    """Whether the answer that began last waits for a slot."""
    answers: int = 0
    """Answers under way."""
    ended_at: float = 0.0
    """When the last of them ended."""
    _sent_bytes: int = 0
    _flow: Flow = field(default_factory=Flow)

    def sent(self, count: int) -> None:
        """Note bytes that were put on their way."""
        self.is_waiting = False
        self._sent_bytes += count
        self._flow.add(count, trio.current_time())

    def statistics(self, now: float) -> UploadStatistics:
        """Return how it stands. Any thread."""
        sent_bytes = min(self._sent_bytes, self.size)
        state = "waiting" if self.is_waiting else "sending"
        rate = self._flow.rate(now)
        return UploadStatistics(self.peer, self.file_id, self.size, sent_bytes, rate, state)


class UnderWay:
    """The uploads under way, and those that have just ended."""

    def __init__(self) -> None:
        self._answered: dict[_Key, Upload] = {}
        self._ended: Latest[_Key, Upload] = Latest(MAX_LINGERING)  # oldest first

    @contextlib.contextmanager
    def answering(self, peer: PeerInfo, file_id: FileId, size: int) -> Iterator[Upload]:
        """Count an answer with blocks of a content for the upload that it belongs to."""
        key = ServentId(peer.id), file_id
        self._forget(trio.current_time())
        upload = (
            self._answered.get(key) or self._ended.pop(key, None) or Upload(peer, file_id, size)
        )
        self._answered[key] = upload
        upload.answers += 1
        upload.is_waiting = True
        try:
            yield upload
        finally:
            upload.answers -= 1
            if not upload.answers:
                upload.ended_at = trio.current_time()
                self._ended[key] = self._answered.pop(key)

    def gave(self, peer: PeerInfo, file_id: FileId, size: int) -> None:
        """Count a small content that was sent whole."""
        with self.answering(peer, file_id, size) as upload:
            upload.sent(size)

    def _forget(self, now: float) -> None:
        """Forget the uploads that ended some time ago."""
        self._ended.forget_while(lambda upload: now - upload.ended_at > LINGER_S)

    def statistics(self, now: float) -> list[UploadStatistics]:
        """Return each upload at this instant of trio's clock, the largest first. Any thread."""
        lingering = [one for one in list(self._ended.values()) if now - one.ended_at <= LINGER_S]
        uploads = [*self._answered.copy().values(), *lingering]
        return sorted(
            (upload.statistics(now) for upload in uploads),
            key=lambda upload: (-upload.size, upload.peer.name),
        )
