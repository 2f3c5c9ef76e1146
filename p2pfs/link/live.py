"""A live link: a stream, a Connection, and the tasks that move bytes between them.

One task reads (`Incoming`), one writes (`Outgoing`), one watches for silence (`KeepAlive`). All
three live inside `Link.run`, whose caller owns them. Messages that are posted never wait: they
end the link of a peer that does not read.

Measured with two processes on loopback and 256 KiB blocks, eight of them asked for ahead:
300 MB/s on two cores that had other work too, and 1.4 s of processor time a GiB at each end.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import trio

from p2pfs.errors import RemoteProtocolError
from p2pfs.link.allowance import AddressAllowance
from p2pfs.link.asking import Asking
from p2pfs.link.incoming import Incoming
from p2pfs.link.keepalive import KeepAlive
from p2pfs.link.outgoing import SENDS_APART_S, Outgoing
from p2pfs.link.requests import Requests
from p2pfs.link.sockets import Channel, bound_unsent
from p2pfs.protocol import (
    ANSWER_TYPES,
    MAX_ADDRESSES,
    MAX_REASON_LENGTH,
    MIN_PORT,
    Address,
    Bye,
    ByeCode,
    Connection,
    Data,
    Hello,
    LinkKind,
    Message,
    PeerInfo,
    Piece,
    Ping,
    Pong,
    Received,
    ServentId,
    dialable,
)
from p2pfs.protocol.flood import LinkId

log = logging.getLogger(__name__)

FAREWELL_S: Final = 1.0
"""How long an orderly end waits for the outbox to leave and for the peer to hang up."""

LAST_WORDS_S: Final = 5.0
"""How long a peer that has hung up is read. A BYE, or blocks, may be on their way; a peer that is
read slowly, since it sends far too much, would keep its place for hours."""

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

_OUR_REASONS: Final = frozenset({ByeCode.LEAVING, ByeCode.FULL, ByeCode.IDLE})
"""Those of a BYE of ours to a peer that has done nothing to earn it."""

OnMessage = Callable[["Link", Message, int], None]
"""Takes in (link, message, request id); never waits. A RemoteProtocolError ends the link."""

OnSilent = Callable[["Link"], None]
"""Called when a peer owes an answer and does not even answer PING; never waits."""

_ids = itertools.count(1)


@dataclass(frozen=True)
class LinkStatistics:
    """The numbers of messages that a link has carried so far, its greeting not counted."""

    messages_in: int
    messages_out: int


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
        requests: Requests | None = None,
    ) -> None:
        """Begin with the `requests` that were made before the peer's HELLO, if any."""
        self.id = LinkId(next(_ids))
        self.kind = hello.kind
        self.direction: Literal["in", "out"] = direction
        self.remote = channel.remote
        self.local = channel.local
        self.hello = hello
        self.peer = PeerInfo(peer_id, hello.name, _addresses(channel.remote, direction, hello))
        self.opened_at = trio.current_time()
        self.ended: str | None = None
        """Why the link is over, for people; None while it lives."""
        self.is_peers_doing = False
        """Whether it is over because of the peer, which hung up, came again or broke a rule."""
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
        is_neighbour = hello.kind is LinkKind.NEIGHBOUR
        self._out = Outgoing(
            channel.stream,
            connection,
            SENDS_APART_S if is_neighbour else 0.0,
            bound=None if is_neighbour else functools.partial(bound_unsent, channel.stream),
        )
        self._alive = KeepAlive(
            direction=direction,
            is_reading=hello.kind is LinkKind.TRANSFER,
            send_ping=self._send_ping,
            sending_since=lambda: self._out.sending_since,
            lose=self.lose,
            on_silent=lambda: self.on_silent(self),
        )
        self.ask = Asking(
            self.post,
            self._out,
            self._alive,
            str(self.remote),
            takes_back=hello.kind is LinkKind.TRANSFER,
            requests=requests,
        )
        """What we ask of the peer, and what it answers."""
        self._in = Incoming(channel.stream, connection, self._alive)
        self._messages_in = 0

    @property
    def seen_at(self) -> tuple[Address, ...]:
        """Where the peer may be dialled, as far as we see its host; others it may have made up."""
        return tuple(one for one in self.peer.addresses if one.host == self.remote.host)

    def __repr__(self) -> str:
        """Return the far end, and how the link stands."""
        return f"<Link {self.id} {self.direction} {self.kind.name} {self.remote} {self.ended}>"

    @property
    def awaits_answers(self) -> bool:
        """Whether the peer owes us an answer."""
        return bool(self.ask)

    @property
    def is_busy(self) -> bool:
        """Whether an answer is awaited or something waits to be sent."""
        return bool(self.ask or self._out)

    def statistics(self) -> LinkStatistics:
        """Return how many messages this link has carried so far."""
        return LinkStatistics(self._messages_in, self._out.messages)

    @property
    def is_silent(self) -> bool:
        """Whether an answer is owed, and the peer says nothing though it was asked."""
        return self._alive.is_silent

    @property
    def rtt_s(self) -> float | None:
        """The time between the last PING and its PONG; None before the first."""
        return self._alive.rtt_s

    async def run(self, on_message: OnMessage) -> None:
        """Carry messages until the link ends, for whatever reason; `ended` then says which.

        `on_message` is called by the reader for each message that does not answer a request
        of ours. PING is answered here; CANCEL is passed on. No fault of the peer comes out of
        here. Cancelling it ends the link at once, without a BYE.
        """
        self.is_run = True
        self.ask.start()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, on_message)
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._alive.run)
        finally:
            self.lose("closed by us")
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
        if not self._out.post(message, request_id):
            self._abort("slow reader")

    @property
    def may_pass_on(self) -> bool:
        """Whether there is room for messages that others have us pass on."""
        return self._out.may_pass_on

    def pass_on(self, message: Message) -> None:
        """Queue a message behind those passed on before, until there is room for it.

        Its sender is not the one that reads this link, so it never ends the link. A caller with
        long or many messages asks `may_pass_on` before.
        """
        if self.ended is None:
            self._out.pass_on(message)

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
        *pieces: Piece,
        is_last: bool = True,
        blocked: Callable[[], object] = lambda: None,
    ) -> None:
        """Answer a request with data, or with the next pieces of it, waiting for room.

        The data of other answers may go between. `blocked` is called when there was no room
        for BLOCKED_S. All upload data passes here. If this is cancelled, a REJECT ends the
        answer: the peer never takes half of it for the whole.

        Raises:
            LinkClosedError: the link ended before all was queued.
        """
        await self._out.send_data(request_id, *pieces, is_last=is_last, blocked=blocked)

    @property
    def sealed_bytes(self) -> int:
        """How much data is sealed at once: more on a link that takes much, up to SEALED_BYTES."""
        return self._out.sealed_bytes

    @property
    def has_room(self) -> bool:
        """Whether `send_data` takes data now, without waiting."""
        return self._out.has_room

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Let more wait on a transfer link for the length of the block than on others.

        The caller has room in memory for that, and ends the block with `wait_little`.
        """
        self._out.reserved += 1
        try:
            yield
        finally:
            self._out.reserved -= 1

    async def wait_little(self, blocked: Callable[[], object]) -> None:
        """Wait until as little waits as may without `reserved`, if nobody else has reserved more.

        `blocked` is called once that has taken BLOCKED_S.

        Raises:
            LinkClosedError: the link ended before.
        """
        if self._out.reserved == 1:
            await self._out.wait_little(blocked)

    async def wait_room(self, blocked: Callable[[], object] = lambda: None) -> None:
        """Wait until data may be queued; `blocked` is called once that has taken BLOCKED_S.

        Raises:
            LinkClosedError: the link ended before.
        """
        await self._out.wait_room(blocked)

    def read_later(self, rest_s: float) -> None:
        """Read nothing more of the peer for a while, for it asks more than anybody should."""
        self._in.read_later(rest_s)

    def count_with(self, allowance: AddressAllowance) -> None:
        """Count what the peer sends for its address too, with what others there send."""
        self._in.count_with(allowance)

    def close(self, bye: Bye | None = None) -> None:
        """End the link in order: queued messages and a BYE leave first, for FAREWELL_S at most.

        Returns at once; `run` returns when it is done. A task that waits for an answer gets
        LinkClosedError now.
        """
        bye = bye or Bye(ByeCode.IDLE, "not needed any more")
        self._close(bye, f"closed by us: {bye.text}")

    def lose(self, reason: str) -> None:
        """End the link at once, because nothing can reach the peer on it any more."""
        self._end(reason, is_ours=True)
        self._scope.cancel()

    @property
    def heard_at(self) -> float:
        """When the peer said something last."""
        return self._alive.heard_at

    def ping(self) -> None:
        """Ask the peer whether it is there; `heard_at` changes when it answers."""
        self._alive.ping()

    def prove(self, within_s: float) -> None:
        """Ask the peer whether it is there, and lose the link unless something comes in time."""
        self._alive.prove(within_s)

    async def refuse(self, bye: Bye) -> None:
        """Close a link that nobody runs, and return when it is gone."""
        self.close(bye)
        await self.run(_ignore)

    # The end

    def _close(self, bye: Bye, reason: str) -> None:
        """End with a BYE; the reader goes on until the peer hangs up."""
        if self.ended is None:
            self._out.say_last(bye)
            self._end(reason, is_ours=bye.code in _OUR_REASONS)
            self._scope.deadline = trio.current_time() + FAREWELL_S

    def _abort(self, reason: str) -> None:
        """End at once."""
        self._end(reason)
        self._scope.cancel()

    def _end(self, reason: str, *, is_ours: bool = False) -> None:
        if self.ended is None:
            self.ended, self.is_peers_doing = reason, not is_ours
            why = f"link to {self.remote} ended: {reason}"
            self.ask.end(why)
            self._out.end(why)

    async def _write(self) -> None:
        """Send the queue; once nothing can be sent, read on for a while."""
        if not await self._out.run():
            await trio.sleep(LAST_WORDS_S)
            self._abort("connection lost")

    # Receiving

    async def _read(self, on_message: OnMessage) -> None:
        def take(event: Received | Data) -> None:
            if isinstance(event, Data):
                self.ask.got_data(event)
            else:
                self._got(event.message, event.request_id, on_message)

        try:
            try:
                await self._in.run(take, lambda: self.ended is not None)
            except RemoteProtocolError as error:
                bye = Bye(ByeCode.PROTOCOL, str(error)[:MAX_REASON_LENGTH])
                self._close(bye, f"broke the protocol: {error}")
            if self.ended is None:
                self._abort("closed by peer")
            await self._in.drain()
        except trio.BrokenResourceError:
            self._end("connection lost")
        self._scope.cancel()

    def _got(self, message: Message, request_id: int, on_message: OnMessage) -> None:
        self._messages_in += 1
        if isinstance(message, Bye):
            self.bye = message
            self._abort(BYE_TEXTS[message.code])
        elif isinstance(message, Ping):
            self.post(Pong(), request_id)
        elif isinstance(message, Pong) and self._alive.got_pong(request_id):
            pass
        elif isinstance(message, ANSWER_TYPES) and request_id:
            self.ask.got_message(message, request_id)
        else:
            on_message(self, message, request_id)

    def _send_ping(self) -> int:
        number = self.ask.new_id()
        self.post(Ping(), number)
        return number


def _ignore(_link: Link, _message: Message, _request_id: int) -> None:
    """Drop a message."""


def _never_mind(_link: Link) -> None:
    """Do nothing about a silent peer."""


def _addresses(remote: Address, direction: str, hello: Hello) -> tuple[Address, ...]:
    """Return where the peer may be dialled, the address that we saw ourselves first.

    Its own word is worth no more than that of others: it could name anybody.
    """
    said = dialable(hello.addresses, remote)
    if direction == "out":
        said = (remote, *said)
    elif hello.listen_port >= MIN_PORT:
        said = (Address(remote.host, hello.listen_port), *said)
    return tuple(dict.fromkeys(said))[:MAX_ADDRESSES]
