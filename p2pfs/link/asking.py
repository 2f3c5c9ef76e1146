"""What we ask over one link: each request is sent, and its answer waited for.

`requests` says which answers fit. When a task that waits is cancelled, its request is taken back:
on a transfer link the peer gets CANCEL, and the rest of its answer is ignored.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from p2pfs.errors import LinkClosedError, StalledError
from p2pfs.link.keepalive import KeepAlive
from p2pfs.link.outgoing import Outgoing
from p2pfs.link.requests import Asked, Requests, TakePage, TakePieces
from p2pfs.protocol import Cancel, Data, List, Listing, Message


class Asking:
    """Our requests on one link, and the tasks that wait for their answers."""

    def __init__(
        self,
        post: Callable[[Message, int], None],
        out: Outgoing,
        alive: KeepAlive,
        peer: str,
        *,
        takes_back: bool,
        requests: Requests | None,
    ) -> None:
        """Ask by `post`, as long as `out` is open; `alive` learns whether an answer is owed.

        The `requests`, if any, were sent before the peer's HELLO came.

        `peer` names the far end in errors, for people. With `takes_back` it gets CANCEL for each
        request whose task is cancelled.
        """
        self._post = post
        self._out = out
        self._alive = alive
        self._peer = peer
        self._takes_back = takes_back
        self._requests = requests or Requests()
        self.new_id = self._requests.new_id

    def __bool__(self) -> bool:
        """Return whether the peer owes an answer."""
        return bool(self._requests)

    async def request(self, message: Message, *, timeout_s: float) -> Message:
        """Ask and return the one message that answers, by the table `protocol.ANSWERS`.

        Cancelling it takes the request back; answers that still come are ignored.

        Raises:
            RejectedError: the peer said no.
            StalledError: nothing came within `timeout_s`.
            LinkClosedError: the link ended before.
        """
        return await self.answer(Asked(message), timeout_s=timeout_s)

    async def answer(self, asked: Asked, *, timeout_s: float) -> Message:
        """Return the one message that answers, as `request`; it may have been sent already."""
        with trio.move_on_after(timeout_s):
            await self.finish(asked)
        if asked.answer is None:
            raise StalledError(f"no answer from {self._peer} within {timeout_s:g} s")
        return asked.answer

    async def list_pages(self, message: List, *, silence_s: float, take: TakePage) -> None:
        """Ask for pages of a directory, hand on each as it comes, and return after the last.

        Raises:
            RejectedError: the peer said no, maybe after some pages.
            StalledError: nothing came for `silence_s`.
            LinkClosedError: the link ended before.
        """
        await self.pages(Asked(message, take_page=take), silence_s=silence_s)

    async def pages(self, asked: Asked, *, silence_s: float) -> None:
        """Return after the last page, as `list_pages`; it may have been sent already."""
        take = asked.take_page

        def took(page: Listing) -> None:
            patience.deadline = trio.current_time() + silence_s
            take(page)

        with trio.move_on_after(silence_s) as patience:
            asked.take_page = took
            await self.finish(asked)
        if patience.cancelled_caught:
            raise StalledError(f"no page from {self._peer} for {silence_s:g} s")

    async def fetch(self, message: Message, *, size_limit: int) -> bytes:
        """Ask for data and return all of it; otherwise as `stream`."""
        pieces: list[memoryview] = []
        await self.stream(message, size_limit=size_limit, take=pieces.extend)
        return b"".join(pieces)  # once: a buffer that grows with each costs twice that

    async def stream(self, message: Message, *, size_limit: int, take: TakePieces) -> None:
        """Ask for data, hand on its pieces as they come, and return when that was all.

        The deadline is the caller's. A peer that sends more than `size_limit` bytes breaks the
        protocol and loses the link. Cancelling it takes the request back; data that still comes
        is ignored.

        Raises:
            RejectedError: the peer said no, maybe in the middle.
            LinkClosedError: the link ended before.
        """
        await self.finish(Asked(message, size_limit, take))

    async def finish(self, asked: Asked) -> None:
        """Send a request, unless it was sent as the link was opened, and wait until it is over.

        Raises:
            RejectedError, LinkClosedError: as `stream`.
        """
        if asked.by is not self._requests:
            self._out.check_open()
            self._requests.open(asked)
            self._post(asked.message, asked.request_id)
        self._alive.owes(is_owed=bool(self._requests))
        try:
            await asked.is_over.wait()
        finally:
            self._give_up(asked)
        if asked.error is not None:
            raise asked.error

    def start(self) -> None:
        """Look at what was sent before the link was there: some may be given up already."""
        for asked in self._requests.given_up():
            self._give_up(asked)
        self._alive.owes(is_owed=bool(self._requests))

    def _give_up(self, asked: Asked) -> None:
        """Tell the peer that nobody waits for an answer, if it was still awaited."""
        if self._requests.drop(asked) and self._takes_back:
            self._post(Cancel(), asked.request_id)
        self._alive.owes(is_owed=bool(self._requests))

    def got_message(self, message: Message, request_id: int) -> None:
        """Take in a message that answers; RemoteProtocolError if it does not fit."""
        self._requests.got_message(message, request_id, self._peer)

    def got_data(self, data: Data) -> None:
        """Take in a part of an answer; RemoteProtocolError if it does not fit."""
        self._requests.got_data(data)

    def end(self, why: str) -> None:
        """Fail every request with LinkClosedError: the link has ended."""
        self._requests.drop_all(LinkClosedError(why))
