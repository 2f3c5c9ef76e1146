"""A live link: a stream, a Connection, and the tasks that move bytes between them.

One task reads, one writes, one watches for silence; all three live inside `Link.run`, whose
caller owns them. A frame is sealed when it is put into the outbox, so the order there is the
order of the cipher's nonces. What is posted never waits: it ends the link of a reader who does
not read. Block data waits for room, and so does what others have us pass on.

Measured with two processes on loopback and 256 KiB blocks, eight of them asked for ahead:
300 MB/s on two cores that had other work too, and 1.4 s of processor time a GiB at each end.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import trio

from p2pfs.errors import LinkClosedError, RemoteProtocolError, StalledError
from p2pfs.link.allowance import Allowance
from p2pfs.link.outbox import Outbox
from p2pfs.link.pulse import DEAD_AFTER_S, Pulse
from p2pfs.link.requests import Asked, Requests, Take, TakePage
from p2pfs.link.sockets import Channel
from p2pfs.protocol import (
    ANSWER_TYPES,
    MAX_ADDRESSES,
    MAX_DATA_BYTES,
    MIN_PORT,
    NEED_DATA,
    Address,
    Bye,
    ByeCode,
    Cancel,
    Connection,
    Data,
    Hello,
    LinkKind,
    List,
    Listing,
    Message,
    PeerInfo,
    Ping,
    Pong,
    Prepared,
    Received,
    Reject,
    RejectCode,
    ServentId,
    Unknown,
    dialable,
)
from p2pfs.protocol.flood import LinkId

log = logging.getLogger(__name__)

FLUSH_S: Final = 1.0
"""How long an orderly end waits for the outbox to leave and for the peer to hang up."""

RECEIVE_BYTES: Final = 512 * 1024
"""What one receive takes at most: eight full frames."""

SEALED_BYTES: Final = 4 * MAX_DATA_BYTES
"""Data sealed at once: four full frames, 0.1 ms, which is what one send takes."""

WAITING_BYTES: Final = 1024 * 1024
"""What may wait for room to be passed on. Over 1 Mbit/s it takes eight seconds: whoever asked waits
no longer than MAX_DEADLINE_MS."""

SENDS_APART_S: Final = 0.005
"""Between two sends to a neighbour. What is said meanwhile goes together, and wakes it once; the
first thing after a pause goes at once. Most of what a message costs is the waking."""

BLOCKED_S: Final = 0.25
"""How long data may find no room before the peer counts as one that takes nothing: a slow line
needs longer for one piece, and so does a reader who wants to hold others up."""

EVENTS_PER_TURN: Final = 32
"""Events handled before other tasks get their turn: 2 ms of full frames."""

BYE_TEXTS: Final[Mapping[ByeCode, str]] = {
    ByeCode.LEAVING: "left the network",
    ByeCode.FULL: "full",
    ByeCode.FLOOD: "says that we sent too much",
    ByeCode.PROTOCOL: "says that we broke the protocol",
    ByeCode.DUPLICATE: "linked already",
    ByeCode.BANNED: "has banned us for a while",
    ByeCode.IDLE: "not needed any more",
}
"""What a BYE of the peer means, for people."""

OnMessage = Callable[["Link", Message, int], None]
"""Takes in (link, message, request id); never waits. A RemoteProtocolError ends the link."""

OnSilent = Callable[["Link"], None]
"""Is told that a peer owes an answer and is silent, whatever it is asked; never waits."""

_ids = itertools.count(1)


@dataclass(frozen=True)
class LinkStatistics:
    """What went over a link so far. Bytes are those on the wire, after the greeting."""

    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    protocol_errors: int
    """1 if the peer broke the protocol, which ended the link."""


class Link:
    """A greeted link to one peer.

    `run` must be called once, whatever happens: it owns the stream. All other methods may be
    called before, during and after it. `ended` is set once, and from then on nothing is sent
    but what waits in the outbox.
    """

    def __init__(
        self,
        channel: Channel,
        connection: Connection,
        direction: Literal["in", "out"],
        peer_id: ServentId,
        hello: Hello,
    ) -> None:
        self.id = LinkId(next(_ids))
        self.kind = hello.kind
        self.direction: Literal["in", "out"] = direction
        self.remote = channel.remote
        self.local = channel.local
        self.hello = hello
        self.peer = PeerInfo(peer_id, hello.name, _addresses(channel.remote, direction, hello))
        self.opened_at = trio.current_time()
        self.rtt_s: float | None = None
        """The time between the last PING and its PONG."""
        self.ended: str | None = None
        """Why the link is over, for people; None while it lives."""
        self.bye: Bye | None = None
        """The BYE of the peer, if it sent one."""

        self.on_silent: OnSilent = _never_mind
        """Called every SILENT_AFTER_S in which an answer is owed and nothing comes."""
        self.is_run = False
        """Whether somebody has called `run`."""

        self._is_over = trio.Event()
        self._stream = channel.stream
        self._connection = connection
        self._scope = trio.CancelScope()
        self._outbox = Outbox()
        self._waiting: deque[Prepared] = deque()
        """What is to be passed on when there is room."""
        self._waiting_bytes = 0
        self._sent_at = -math.inf
        self._sending_since = math.inf
        """When the send that is under way began."""
        self._requests = Requests()
        self._pulse = Pulse(self.opened_at, is_reading=self.kind is LinkKind.TRANSFER)
        self._pulse_changed = trio.Event()
        self._look_at = self.opened_at
        self._allowance = Allowance()
        self._pinged_at = self.opened_at
        self._ping_id = 0
        self._messages_in = self._messages_out = self._bytes_in = self._bytes_out = 0
        self._protocol_errors = 0

    def __repr__(self) -> str:
        """Return who is linked, and how."""
        return f"<Link {self.id} {self.direction} {self.kind.name} {self.remote} {self.ended}>"

    @property
    def awaits_answers(self) -> bool:
        """Whether the peer owes us an answer."""
        return bool(self._requests)

    @property
    def is_busy(self) -> bool:
        """Whether an answer is awaited or something waits to be sent."""
        return bool(self._requests or self._outbox)

    def statistics(self) -> LinkStatistics:
        """Return what went over this link so far."""
        return LinkStatistics(
            self._messages_in,
            self._messages_out,
            self._bytes_in,
            self._bytes_out,
            self._protocol_errors,
        )

    @property
    def is_silent(self) -> bool:
        """Whether an answer is owed, and the peer says nothing though it was asked."""
        return self._pulse.is_silent(trio.current_time())

    async def run(self, on_message: OnMessage) -> None:
        """Carry messages until the link ends, for whatever reason; `ended` then says which.

        `on_message` is called by the reader for each message that does not answer a request
        of ours. PING is answered here; CANCEL is passed on. No fault of the peer comes out of
        here. Cancelling it ends the link at once, without a BYE.
        """
        self.is_run = True
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, on_message)
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._keep_alive)
        finally:
            self._abort("closed by us")
            log.info("link ended peer=%s remote=%s: %s", self.peer.id, self.remote, self.ended)
            await trio.aclose_forcefully(self._stream)
            self._is_over.set()

    async def wait_over(self) -> None:
        """Return when `run`, which somebody else has called, is over."""
        await self._is_over.wait()

    def post(self, message: Message, request_id: int = 0) -> None:
        """Queue a message, without waiting; on a link that has ended it is dropped.

        A peer that lets OUTBOX_BYTES pile up loses the link: "slow reader".

        Raises:
            LocalProtocolError: the message does not belong on this link.
        """
        if self.ended is not None:
            return
        frame = self._connection.send(message, request_id)
        if not self._outbox.has_room(len(frame)):
            self._abort("slow reader")
            return
        self._messages_out += 1
        self._outbox.put(frame)

    @property
    def may_pass_on(self) -> bool:
        """Whether there is room for what others have us pass on."""
        return self._waiting_bytes < WAITING_BYTES

    def pass_on(self, message: Message) -> None:
        """Queue a message behind those passed on before, until there is room for it.

        Its sender is not who reads this link, so it never ends the link: whoever calls this for
        what is long or much asks `may_pass_on` before.
        """
        if self.ended is not None:
            return
        prepared = self._connection.prepare(message)
        self._waiting.append(prepared)
        self._waiting_bytes += len(prepared.plaintext)
        self._seal_waiting()

    async def request(self, message: Message, *, timeout_s: float) -> Message:
        """Ask and return the one message that answers, by the table `protocol.ANSWERS`.

        Cancelling it tells the peer so, and ignores what still comes.

        Raises:
            RejectedError: the peer said no.
            StalledError: nothing came within `timeout_s`.
            LinkClosedError: the link ended before.
        """
        self._check_open()
        asked = self._requests.open(message)
        with trio.move_on_after(timeout_s):
            await self._ask(message, asked)
        if asked.answer is None:
            raise StalledError(f"no answer from {self.remote} within {timeout_s:g} s")
        return asked.answer

    async def list_pages(self, message: List, *, silence_s: float, take: TakePage) -> None:
        """Ask for pages of a directory, hand on each as it comes, and return after the last.

        Raises:
            RejectedError: the peer said no, maybe after some pages.
            StalledError: nothing came for `silence_s`.
            LinkClosedError: the link ended before.
        """
        self._check_open()

        def took(page: Listing) -> None:
            patience.deadline = trio.current_time() + silence_s
            take(page)

        with trio.move_on_after(silence_s) as patience:
            await self._ask(message, self._requests.open(message, take_page=took))
        if patience.cancelled_caught:
            raise StalledError(f"no page from {self.remote} for {silence_s:g} s")

    async def fetch(self, message: Message, *, size_limit: int) -> bytes:
        """Ask for data and return all of it; otherwise as `stream`."""
        parts: list[memoryview] = []
        await self.stream(message, size_limit=size_limit, take=parts.append)
        return b"".join(parts)  # once: a buffer that grows with each costs twice that

    async def stream(self, message: Message, *, size_limit: int, take: Take) -> None:
        """Ask for data, hand on each part as it comes, and return when that was all.

        The deadline is the caller's. A peer that sends more than `size_limit` bytes breaks the
        protocol and loses the link. Cancelling it tells the peer so, and ignores what still
        comes.

        Raises:
            RejectedError: the peer said no, maybe in the middle.
            LinkClosedError: the link ended before.
        """
        self._check_open()
        await self._ask(message, self._requests.open(message, size_limit, take))

    async def send(self, message: Message, request_id: int) -> None:
        """Queue a large message when there is room, which a reader makes and a flooder does not.

        Raises:
            LinkClosedError: the link ended before.
        """
        await trio.lowlevel.checkpoint()
        await self.wait_room()
        self.post(message, request_id)

    async def send_data(
        self,
        request_id: int,
        data: bytes | bytearray | memoryview,
        *,
        is_last: bool = True,
        blocked: Callable[[], object] = lambda: None,
    ) -> None:
        """Answer a request with data, or with the next part of it, waiting for room.

        The data of other answers may go between. `blocked` is called when there was no room
        for BLOCKED_S. All upload data passes here. If this is cancelled, a REJECT ends the
        answer: the peer never takes half of it for the whole.

        Raises:
            LinkClosedError: the link ended before all was queued.
        """
        rest = memoryview(data)
        try:
            is_over = False
            while not is_over:
                await self.wait_room(blocked)
                part, rest = rest[:SEALED_BYTES], rest[SEALED_BYTES:]
                is_over = not rest
                is_end = is_over and is_last
                frame = self._connection.send_data(request_id, part, is_last=is_end)
                self._outbox.put(frame)
        except trio.Cancelled:
            self.post(Reject(RejectCode.FAILED, "interrupted"), request_id)
            raise

    async def wait_room(self, blocked: Callable[[], object] = lambda: None) -> None:
        """Wait until data may be queued; `blocked` is called once that has taken BLOCKED_S.

        Raises:
            LinkClosedError: the link ended before.
        """
        with trio.move_on_after(BLOCKED_S) as patience:
            await self._wait_room()
        if patience.cancelled_caught:
            blocked()
            await self._wait_room()

    async def _wait_room(self) -> None:
        while self.ended is None and not self._outbox.has_room_for_data:
            await self._outbox.wait_change()
        self._check_open()

    def close(self, bye: Bye | None = None) -> None:
        """End the link in an orderly way: what is queued and a BYE leave first, FLUSH_S at most.

        Returns at once; `run` returns when it is done. Whoever waits for an answer gets
        LinkClosedError now.
        """
        bye = bye or Bye(ByeCode.IDLE, "not needed any more")
        self._close(bye, f"closed by us: {bye.text}")

    def lose(self, reason: str) -> None:
        """End the link at once, because nothing can reach the peer on it any more."""
        self._abort(reason)

    @property
    def heard_at(self) -> float:
        """When the peer said something last."""
        return self._pulse.heard_at

    def ping(self) -> None:
        """Ask the peer whether it is there; `heard_at` will tell."""
        self._ping()

    def prove(self, within_s: float) -> None:
        """Ask the peer whether it is there, and lose the link unless something comes in time."""
        self._ping()
        self._pulse.must_prove(trio.current_time() + within_s)
        self._look_again()

    async def refuse(self, bye: Bye) -> None:
        """Close a link that nobody runs, and return when it is gone."""
        self.close(bye)
        await self.run(_ignore)

    # The end

    def _check_open(self) -> None:
        if self.ended is not None:
            raise self._closed_error()

    def _closed_error(self) -> LinkClosedError:
        return LinkClosedError(f"link to {self.remote} ended: {self.ended}")

    def _close(self, bye: Bye, reason: str) -> None:
        """End with a BYE; the reader goes on until the peer hangs up."""
        if self.ended is None:
            self._outbox.put(self._connection.send(bye))
            self._end(reason)
            self._scope.deadline = trio.current_time() + FLUSH_S

    def _abort(self, reason: str) -> None:
        """End at once."""
        self._end(reason)
        self._scope.cancel()

    def _end(self, reason: str) -> None:
        if self.ended is None:
            self.ended = reason
            self._requests.drop_all(self._closed_error())
            self._outbox.wake()

    # Sending

    async def _write(self) -> None:
        # A broken stream ends the writer alone: the reader sees it too, maybe after a BYE.
        with contextlib.suppress(trio.BrokenResourceError):
            while self.ended is None or self._outbox:
                await self._outbox.wait_filled()
                if self.kind is LinkKind.NEIGHBOUR:
                    await self._pause()
                batch = self._outbox.take()
                self._seal_waiting()
                self._sending_since = trio.current_time()
                await self._stream.send_all(batch)
                self._sent_at, self._sending_since = trio.current_time(), math.inf
                self._bytes_out += len(batch)
            await self._stream.send_eof()

    async def _pause(self) -> None:
        """Let what is said within a moment go together."""
        if trio.current_time() < self._sent_at + SENDS_APART_S:
            await trio.sleep_until(self._sent_at + SENDS_APART_S)

    def _seal_waiting(self) -> None:
        """Queue what waits to be passed on, as far as there is room."""
        while self._waiting and self._outbox.has_room_for_data and self.ended is None:
            prepared = self._waiting.popleft()
            self._waiting_bytes -= len(prepared.plaintext)
            self._messages_out += 1
            self._outbox.put(self._connection.seal(prepared))

    # Receiving

    async def _read(self, on_message: OnMessage) -> None:
        try:
            await self._receive(on_message)
            while await self._stream.receive_some(RECEIVE_BYTES):
                pass  # we said BYE: closing now, with bytes unread, could destroy it on its way
        except trio.BrokenResourceError:
            self._end("connection lost")
        self._scope.cancel()

    async def _receive(self, on_message: OnMessage) -> None:
        """Handle what arrives until the link has ended."""
        while True:
            try:
                await self._handle_events(on_message)
            except RemoteProtocolError as error:
                self._protocol_errors += 1
                bye = Bye(ByeCode.PROTOCOL, str(error)[:200])
                self._close(bye, f"broke the protocol: {error}")
            if self.ended is not None:
                return
            data = await self._stream.receive_some(RECEIVE_BYTES)
            if not data:
                # Not for the connection to judge: a peer that is killed in the middle of a
                # frame has broken no protocol.
                self._abort("closed by peer")
                return
            self._bytes_in += len(data)
            self._pulse.got_bytes(trio.current_time())
            self._connection.receive_data(data)

    async def _handle_events(self, on_message: OnMessage) -> None:
        for number in itertools.count(1):
            event = self._connection.next_event()
            if event is NEED_DATA:
                return
            self._heard(event)
            if isinstance(event, Data):
                self._requests.got_data(event)
            elif isinstance(event, Received):
                self._got(event.message, event.request_id, on_message)
            if self.ended is not None:
                return
            if isinstance(event, Received | Unknown):
                await self._rest(event.message if isinstance(event, Received) else event)
            if number % EVENTS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()

    def _heard(self, event: object) -> None:
        is_pong = isinstance(event, Received) and isinstance(event.message, Pong)
        self._pulse.heard(trio.current_time(), is_pong=is_pong)

    async def _rest(self, message: Message | Unknown) -> None:
        """Read nothing for a while if the peer sends more than anybody should."""
        wait_s = self._allowance.wait_s(message, trio.current_time())
        if wait_s:
            await trio.sleep(wait_s)

    def _got(self, message: Message, request_id: int, on_message: OnMessage) -> None:
        self._messages_in += 1
        if isinstance(message, Bye):
            self.bye = message
            self._abort(BYE_TEXTS[message.code])
        elif isinstance(message, Ping):
            self.post(Pong(), request_id)
        elif isinstance(message, Pong) and request_id == self._ping_id:
            self.rtt_s = trio.current_time() - self._pinged_at
        elif isinstance(message, ANSWER_TYPES) and request_id:
            self._requests.got_message(message, request_id, str(self.remote))
        else:
            on_message(self, message, request_id)

    # Asking

    async def _ask(self, message: Message, asked: Asked) -> None:
        """Send a request and wait until it is over, one way or another."""
        try:
            self.post(message, asked.request_id)
            self._owed()
            await asked.is_over.wait()
        finally:
            if self._requests.drop(asked) and self.kind is LinkKind.TRANSFER:
                self.post(Cancel(), asked.request_id)
            self._owed()
        if asked.error is not None:
            raise asked.error

    def _owed(self) -> None:
        """Note whether an answer is owed, and let `_keep_alive` look again if it is now."""
        self._pulse.owes(trio.current_time(), is_owed=bool(self._requests))
        self._look_again()

    def _look_again(self) -> None:
        """Wake `_keep_alive` if it sleeps for too long now."""
        if self._pulse.next_look_at() < self._look_at:
            self._pulse_changed.set()

    async def _keep_alive(self) -> None:
        self._ping()  # the first tells the round-trip time
        while True:
            now = trio.current_time()
            # A send that begins meanwhile is seen at the next look, long before it is stuck.
            stuck_at = self._sending_since + DEAD_AFTER_S
            if self._pulse.dead_at() <= now:
                self._abort(f"no answer for {now - self._pulse.heard_at:.0f} s")
            elif stuck_at <= now:
                self._abort(f"took nothing for {DEAD_AFTER_S:.0f} s")
            elif self._pulse.ping_at() <= now:
                self._ping()
            elif self._pulse.silent_at() <= now:
                self._pulse.told_silent(now)
                self.on_silent(self)
            self._pulse_changed = trio.Event()
            self._look_at = min(stuck_at, self._pulse.next_look_at())
            with trio.move_on_at(self._look_at):
                await self._pulse_changed.wait()

    def _ping(self) -> None:
        self._ping_id = self._requests.new_id()
        self._pinged_at = trio.current_time()
        self._pulse.pinged(self._pinged_at)
        self.post(Ping(), self._ping_id)


def _ignore(_link: Link, _message: Message, _request_id: int) -> None:
    """Drop a message."""


def _never_mind(_link: Link) -> None:
    """Let a peer be silent."""


def _addresses(remote: Address, direction: str, hello: Hello) -> tuple[Address, ...]:
    """Return where the peer may be dialled, what we saw ourselves first.

    What it says of itself is worth no more than what others say: it could name anybody.
    """
    said = dialable(hello.addresses, remote)
    if direction == "out":
        said = (remote, *said)
    elif hello.listen_port >= MIN_PORT:
        said = (Address(remote.host, hello.listen_port), *said)
    return tuple(dict.fromkeys(said))[:MAX_ADDRESSES]
