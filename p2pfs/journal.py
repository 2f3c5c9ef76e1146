"""The events of a servent, for people: the lines of `p2pfs events`.

Peers' text never reaches a terminal raw: `printable` is the one way there.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

MAX_EVENTS: Final = 1_000
"""Events kept; a megabyte at most. The log file holds the older ones."""

MAX_TEXT_LENGTH: Final = 500
"""The most characters of one text; longer ones come from peers."""


class Severity(enum.StrEnum):
    """The severity of an event."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """One line, fit for a terminal."""

    time: float
    """Seconds since 1970."""
    severity: Severity
    text: str
    path: str
    """The file it is about, below `network/` or `shared/`; empty if none."""
    is_done: bool = False
    """Whether something is done for which the user waited."""


class Journal:
    """The latest events. Every method may be called from any thread and never waits.

    Texts and paths may hold bytes that peers sent. Each event is a line in the log file too, at
    level info: an error of a read is seldom an error of this program.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._events: deque[JournalEvent] = deque(maxlen=MAX_EVENTS)
        self._listeners: tuple[Callable[[JournalEvent], None], ...] = ()

    def info(self, text: str, path: str = "") -> None:
        """Note an event that may interest the user."""
        self._add(Severity.INFO, text, path)

    def done(self, text: str, path: str) -> None:
        """Note that something is done for which the user waited: the desktop shows it."""
        self._add(Severity.INFO, text, path, is_done=True)

    def warning(self, text: str, path: str = "") -> None:
        """Note a problem that was dealt with."""
        self._add(Severity.WARNING, text, path)

    def error(self, text: str, path: str = "") -> None:
        """Note a failure of something that the user asked for."""
        self._add(Severity.ERROR, text, path)

    def events(self) -> list[JournalEvent]:
        """Return the kept events, oldest first."""
        with self._lock:
            return list(self._events)

    @contextlib.contextmanager
    def heard_by(self, listener: Callable[[JournalEvent], None]) -> Iterator[None]:
        """Call a listener with each event in the meantime, on the thread of the event."""
        self._listeners += (listener,)
        try:
            yield
        finally:
            self._listeners = tuple(one for one in self._listeners if one is not listener)

    def _add(self, severity: Severity, text: str, path: str, *, is_done: bool = False) -> None:
        event = JournalEvent(self._now(), severity, _shown(text), _shown(path), is_done)
        with self._lock:
            self._events.append(event)
        for listener in self._listeners:
            listener(event)
        log.info("event severity=%s path=%r text=%s", severity, event.path, event.text)


def printable(text: str) -> str:
    r"""Return `text` with everything that could fool a terminal or its reader escaped.

    Control characters become `\x1b`, bidi and invisible ones `\u202e`, bytes that are not
    UTF-8 (as the file system hands them out) `\udcff`. The rest stays as it is, a joiner too
    where its script or an emoji needs it.
    """
    if text.isprintable():  # nearly always: a tenth of what a link costs that comes and goes
        return text
    return "".join(
        c if _is_shown(text, index) else c.encode("unicode_escape").decode()
        for index, c in enumerate(text)
    )


def _is_shown(text: str, index: int) -> bool:
    if text[index].isprintable() or text[index] not in "\u200c\u200d":
        return text[index].isprintable()
    from p2pfs.protocol import is_joiner_in_place  # noqa: PLC0415 - few names have one

    return is_joiner_in_place(text, index)


def _shown(text: str) -> str:
    return printable(text[:MAX_TEXT_LENGTH])
