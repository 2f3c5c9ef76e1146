"""Our requests on one link that are not answered yet, and which answers fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.errors import LinkClosedError, RejectedError, RemoteProtocolError
from p2pfs.latest import Latest
from p2pfs.protocol import ANSWERS, MAX_REQUEST_ID, Data, List, Listing, Message, Reject

MAX_LATE: Final = 1_024
"""Cancelled requests whose answer may still come; more than a peer lets wait."""

TakePieces = Callable[[Sequence[memoryview]], object]
"""Is handed the pieces of an answer as they come, by the reader of the link: it never waits."""

TakePage = Callable[[Listing], object]
"""Is handed each page of a listing, likewise."""


@dataclass(eq=False)
class Asked:
    """A request of ours. When `is_over`, it has its whole answer, or an error.

    `take` is handed the DATA that answers it, `take_page` all pages of a listing.
    """

    message: Message
    size_limit: int = 0
    take: TakePieces = len
    take_page: TakePage = bool
    request_id: int = 0
    """On the link where it is asked."""
    pages_left: int = 0
    """Pages that may still come."""
    by: Requests | None = None
    """Where it is asked, once it is."""
    is_given_up: bool = False
    """Whether nobody waits for the answer any more."""
    answer: Message | None = None
    size: int = 0
    """Bytes of DATA so far."""
    error: LinkClosedError | RejectedError | None = None
    is_over: trio.Event = field(default_factory=trio.Event)

    @property
    def answer_type(self) -> type[Message | Data]:
        """What answers it."""
        return ANSWERS[type(self.message)]


class Requests:
    """Our requests on one link, by id.

    An entry is there for as long as its answer is not whole. An entry is
    removed either by the answer, which sets `is_over`, or by the waiting task itself. Requests
    that were cancelled are kept beside them: no more may come late than was asked for.
    """

    def __init__(self) -> None:
        self._open: dict[int, Asked] = {}
        self._late: Latest[int, Asked] = Latest(MAX_LATE)  # cancelled; what comes is ignored
        self._last_id = 0

    def __bool__(self) -> bool:
        """Return whether an answer is awaited."""
        return bool(self._open)

    def new_id(self) -> int:
        """Return an id that was not used for long: a late answer cannot pass for another one.

        They start anew after 1 PiB of blocks.
        """
        self._last_id = self._last_id % MAX_REQUEST_ID + 1
        return self._last_id

    def open(self, asked: Asked) -> None:
        """Note a request that is about to be sent."""
        asked.by = self
        asked.request_id = self.new_id()
        asked.pages_left = asked.message.pages if isinstance(asked.message, List) else 0
        self._open[asked.request_id] = asked

    def given_up(self) -> list[Asked]:
        """Return those for whose answer nobody waits any more."""
        return [asked for asked in self._open.values() if asked.is_given_up]

    def drop(self, asked: Asked) -> bool:
        """Forget a request; return whether its answer was still awaited."""
        if self._open.pop(asked.request_id, None) is None:
            return False
        asked.take, asked.take_page = len, bool
        self._late[asked.request_id] = asked
        return True

    def drop_all(self, error: LinkClosedError) -> None:
        """End every request with `error`."""
        for asked in list(self._open.values()):
            asked.error = error
            self._finish(asked)

    def got_message(self, message: Message, request_id: int, sender: str) -> None:
        """Take in a message that answers; RemoteProtocolError if it does not fit."""
        asked = self._find(request_id)
        if asked is None:
            if isinstance(message, Listing):
                raise RemoteProtocolError("LISTING answers what was answered already")
            return
        if isinstance(message, Reject):
            text = f"{sender} refused: {message.text!r}"
            asked.error = RejectedError(text, message.code, message.retry_after_ms / 1000)
        elif type(message) is not asked.answer_type:
            raise RemoteProtocolError(f"{type(message).__name__} answers another request")
        elif isinstance(message, Listing) and not self._is_last_page(message, asked):
            return
        else:
            asked.answer = message
        self._finish(asked)

    def _is_last_page(self, page: Listing, asked: Asked) -> bool:
        """Hand on a page; return whether no other answers the same request."""
        if not page.is_last and (asked.pages_left <= 1 or not page.has_more):
            raise RemoteProtocolError("more pages than there are, or were asked for")
        asked.pages_left -= 1
        asked.take_page(page)
        return page.is_last

    def got_data(self, data: Data) -> None:
        """Take in a part of an answer; RemoteProtocolError if it does not fit."""
        asked = self._find(data.request_id)
        if asked is None:
            raise RemoteProtocolError("DATA answers what was answered already")
        if asked.answer_type is not Data:
            raise RemoteProtocolError("DATA answers another request")
        asked.size += data.size
        if asked.size > asked.size_limit:
            raise RemoteProtocolError("more DATA than was asked for")
        asked.take(data.pieces)
        if data.is_last:
            self._finish(asked)

    def _find(self, request_id: int) -> Asked | None:
        """Return the request, also one that was cancelled, or None if it is answered whole."""
        if not 0 < request_id <= self._last_id:
            raise RemoteProtocolError("answers what was never asked")
        return self._open.get(request_id) or self._late.get(request_id)

    def _finish(self, asked: Asked) -> None:
        self._open.pop(asked.request_id, None)
        self._late.pop(asked.request_id, None)
        asked.is_over.set()
