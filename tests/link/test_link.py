from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pfs.errors import (
    HandshakeError,
    LinkClosedError,
    LocalProtocolError,
    RejectedError,
    RemoteProtocolError,
    StalledError,
    UnreachableError,
)
from p2pfs.link import Link, RefusedError, answer_link
from p2pfs.link.greeting import HANDSHAKE_S, PREFACE_S
from p2pfs.link.live import FAREWELL_S
from p2pfs.link.outbox import DATA_BYTES, OUTBOX_BYTES
from p2pfs.link.outgoing import SENDS_APART_S, WAITING_BYTES
from p2pfs.link.pulse import DEAD_AFTER_S, PING_AFTER_S
from p2pfs.link.sockets import Listener, Network, TcpNetwork
from p2pfs.protocol import (
    MAX_DATA_BYTES,
    Address,
    Bye,
    ByeCode,
    Cancel,
    Changed,
    Done,
    Entry,
    GetBlocks,
    GetManifest,
    GetPeers,
    Guid,
    Hello,
    Identity,
    LinkKind,
    List,
    Listing,
    Message,
    NetworkKey,
    PeerInfo,
    Peers,
    Ping,
    QueryHit,
    Reject,
    RejectCode,
    ServentId,
)
from p2pfs.protocol.codec import encode
from tests.helpers import rogues
from tests.helpers.dialling import dial_link
from tests.helpers.memnet import MemoryNetwork
from tests.helpers.rogues import RawPeer

BLOCK = GetBlocks(bytes(32), (0,))
NEIGHBOUR, TRANSFER = LinkKind.NEIGHBOUR, LinkKind.TRANSFER
LEAVING = Bye(ByeCode.LEAVING, "bye")


class Local:
    """A servent, as far as its links are concerned."""

    def __init__(self, name: str = "local", network_key: NetworkKey | None = None) -> None:
        self.name = name
        self.identity = Identity.generate()
        self.network_key = network_key or NetworkKey.open()

    def hello(self, kind: LinkKind, observed: Address) -> Hello:
        return Hello(kind, self.name, 4000, observed, (Address("10.9.9.9", 7007),), "p2pfs test")


class End:
    """A running link and what arrived on it."""

    def __init__(self, link: Link, answer: Callable[[Link, Message, int], None] | None) -> None:
        self.link = link
        self.got: list[tuple[Message, int]] = []
        self.is_over = trio.Event()
        self._answer = answer

    async def run(self) -> None:
        await self.link.run(self._on_message)
        self.is_over.set()

    def _on_message(self, link: Link, message: Message, request_id: int) -> None:
        self.got.append((message, request_id))
        if self._answer is not None:
            self._answer(link, message, request_id)


HITS_OF = Guid(bytes(16))
TEXT = "t" * 900


def hit_of(number: int) -> QueryHit:
    """Return a long query hit; nobody looks at its signature."""
    provider = PeerInfo(ServentId("a" * 32), "somebody", ())
    entries = tuple(Entry(f"{TEXT}{number}-{i}", 1, 1, bytes(32)) for i in range(50))
    return QueryHit(HITS_OF, 3, provider, entries, 50, bytes(32), bytes(64))


HIT_BYTES = encode(hit_of(0))


def counted_sends(link: Link) -> list[int]:
    """Return the lengths of all that a link sends from now on."""
    lengths: list[int] = []
    send_all = link._stream.send_all

    async def counted(data: bytes) -> None:
        lengths.append(len(data))
        await send_all(data)

    link._stream.send_all = counted
    return lengths


def accept(_peer: ServentId, _hello: Hello, _remote: Address) -> None:
    return None


@pytest.fixture
def net() -> MemoryNetwork:
    return MemoryNetwork()


@asynccontextmanager
async def linked(
    net: MemoryNetwork,
    kind: LinkKind = TRANSFER,
    answer: Callable[[Link, Message, int], None] | None = None,
) -> AsyncIterator[tuple[End, End]]:
    """Give both ends of a running link, from a to b; `answer` is b's."""
    async with trio.open_nursery() as nursery:
        ours, theirs = await greet(net.host("a"), net.host("b"), kind)
        ends = End(ours, None), End(theirs, answer)
        for end in ends:
            nursery.start_soon(end.run)
        await wait_all_tasks_blocked()
        yield ends
        nursery.cancel_scope.cancel()


async def greet(here: Network, there: Network, kind: LinkKind) -> tuple[Link, Link]:
    links: dict[str, Link] = {}

    async def dial(address: Address) -> None:
        links["out"] = await dial_link(here, address, Local("a"), kind)

    listener = await there.listen(None, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial, listener.address)
        links["in"] = await answer_link(await listener.accept(), Local("b"), accept)
    await listener.aclose()
    return links["out"], links["in"]


@asynccontextmanager
async def linked_to_rogue(
    net: MemoryNetwork, kind: LinkKind = TRANSFER
) -> AsyncIterator[tuple[End, RawPeer]]:
    """Give a running link of host a, and the rogue at its other end."""
    listener = await net.host("a").listen(None, 0)
    made: list[RawPeer] = []

    async def dial() -> None:
        made.append(await RawPeer.dial(net.host("b"), listener.address, kind))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        link = await answer_link(await listener.accept(), Local(), accept)
        end = End(link, None)
        nursery.start_soon(end.run)
        await wait_all_tasks_blocked()
        async with made[0].channel.stream:
            yield end, made[0]
            nursery.cancel_scope.cancel()
    await listener.aclose()


def answering(local: Local) -> rogues.Behaviour:
    """Return the behaviour of an honest servent, up to the end of its first link."""

    async def behaviour(channel: rogues.Channel) -> None:
        with contextlib.suppress(HandshakeError):
            link = await answer_link(channel, local, accept)
            await End(link, None).run()

    return behaviour


def replying(message: Message) -> Callable[[Link, Message, int], None]:
    """Return what answers every request with `message`."""
    return lambda link, _, request_id: link.post(message, request_id)


class Server:
    """Answers GET_BLOCKS with data, LIST with a rejection, and stops at CANCEL."""

    def __init__(self, nursery: trio.Nursery, data: bytes) -> None:
        self._nursery = nursery
        self._data = data
        self._uploads: dict[int, trio.CancelScope] = {}

    def answer(self, link: Link, message: Message, request_id: int) -> None:
        if isinstance(message, GetBlocks):
            self._nursery.start_soon(self._upload, link, request_id)
        elif isinstance(message, List):
            link.post(Reject(RejectCode.NOT_FOUND, "no such directory"), request_id)
        elif isinstance(message, Cancel) and request_id in self._uploads:
            self._uploads[request_id].cancel()

    async def _upload(self, link: Link, request_id: int) -> None:
        with trio.CancelScope() as scope, contextlib.suppress(LinkClosedError):
            self._uploads[request_id] = scope
            await link.send_data(request_id, self._data)
        del self._uploads[request_id]


@asynccontextmanager
async def serving_data(net: MemoryNetwork, data: bytes) -> AsyncIterator[Link]:
    """Give a's link to b, which answers GET_BLOCKS with `data`."""
    async with trio.open_nursery() as nursery:
        server = Server(nursery, data)
        async with linked(net, answer=server.answer) as (ours, _):
            yield ours.link
        nursery.cancel_scope.cancel()


async def fetch_quietly(link: Link, size: int) -> None:
    with contextlib.suppress(LinkClosedError):
        await link.ask.fetch(BLOCK, size_limit=size)


async def send_data_quietly(link: Link) -> None:
    with contextlib.suppress(LinkClosedError):
        await link.send_data(1, bytes(10**6))


async def part(*links: Link) -> None:
    """Close both ends of a link that nobody runs."""
    async with trio.open_nursery() as nursery:
        for link in links:
            nursery.start_soon(link.refuse, LEAVING)


async def drained(stream: trio.abc.Stream) -> bool:
    """Read what is left and return whether the peer has closed."""
    while await stream.receive_some(65_536):
        pass
    return True


class Loopback(TcpNetwork):
    """TCP that listens on loopback alone."""

    async def listen(self, host: str | None, port: int) -> Listener:
        return await super().listen("127.0.0.1", port)


class TestGreeting:
    async def test_both_ends_know_each_other(self, net: MemoryNetwork) -> None:
        ours, theirs = await greet(net.host("a"), net.host("b"), NEIGHBOUR)

        assert (ours.direction, theirs.direction) == ("out", "in")
        assert (ours.peer.name, theirs.peer.name) == ("b", "a")
        assert ours.kind is theirs.kind is NEIGHBOUR
        assert ours.hello.observed.host == "a"
        assert ours.peer.addresses == (ours.remote, Address("10.9.9.9", 7007))
        assert theirs.peer.addresses == (Address("a", 4000), Address("10.9.9.9", 7007))
        await part(ours, theirs)

    async def test_every_link_has_an_id_of_its_own(self, net: MemoryNetwork) -> None:
        links = await greet(net.host("a"), net.host("b"), NEIGHBOUR)

        assert len({link.id for link in links}) == 2
        await part(*links)

    async def test_a_judge_refuses_with_alternatives(self, net: MemoryNetwork) -> None:
        other = PeerInfo("a" * 32, "other", (Address("c", 1),))
        full = Bye(ByeCode.FULL, "full", (other,))

        async def refuse(channel: rogues.Channel) -> None:
            with pytest.raises(RefusedError, match="we refused a:"):
                await answer_link(channel, Local(), lambda *_: full)

        async with rogues.serving(net.host("b"), refuse) as address:
            with pytest.raises(RefusedError, match=f"{address} refused: full") as caught:
                await dial_link(net.host("a"), address, Local(), NEIGHBOUR)

        assert caught.value.bye.code == ByeCode.FULL
        assert caught.value.bye.alternatives == (other,)

    async def test_oneself_is_recognised(self, net: MemoryNetwork) -> None:
        local = Local()

        async with rogues.serving(net.host("a"), answering(local)) as address:
            with pytest.raises(HandshakeError, match=f"{address}: that is this servent itself"):
                await dial_link(net.host("a"), address, local, NEIGHBOUR)

    async def test_another_servent_than_expected_is_refused(self, net: MemoryNetwork) -> None:
        async with rogues.serving(net.host("b"), answering(Local())) as address:
            with pytest.raises(HandshakeError, match="not the servent"):
                await dial_link(net.host("a"), address, Local(), NEIGHBOUR, Identity.generate().id)

    async def test_another_network_key_is_said(self, net: MemoryNetwork) -> None:
        theirs = Local(network_key=NetworkKey.from_passphrase(b"secret"))

        async with rogues.serving(net.host("b"), answering(theirs)) as address:
            with pytest.raises(HandshakeError, match=f"{address}: .*network"):
                await dial_link(net.host("a"), address, Local(), NEIGHBOUR)

    async def test_a_private_network_links_its_own(self, net: MemoryNetwork) -> None:
        key = NetworkKey.from_passphrase(b"secret")

        async with rogues.serving(net.host("b"), answering(Local(network_key=key))) as address:
            link = await dial_link(net.host("a"), address, Local(network_key=key), NEIGHBOUR)

        assert link.ended is None
        await link.refuse(LEAVING)

    async def test_http_is_recognised(self, net: MemoryNetwork) -> None:
        async with rogues.serving(net.host("b"), rogues.speak_http) as address:
            with pytest.raises(HandshakeError, match=f"{address}: .*HTTP"):
                await dial_link(net.host("a"), address, Local(), NEIGHBOUR)

    async def test_noise_is_no_servent(self, net: MemoryNetwork) -> None:
        async with rogues.serving(net.host("b"), rogues.shout_noise) as address:
            with pytest.raises(HandshakeError, match=f"{address}: "):
                await dial_link(net.host("a"), address, Local(), NEIGHBOUR)

    async def test_silence_ends_after_the_preface_time(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with rogues.serving(net.host("b"), rogues.never_answer) as address:
            with pytest.raises(UnreachableError, match=f"no answer from {address} within 5 s"):
                await dial_link(net.host("a"), address, Local(), NEIGHBOUR)

        assert trio.current_time() == pytest.approx(PREFACE_S)

    async def test_trickling_ends_after_the_handshake_time(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        trickle = rogues.trickle(Identity.generate(), every_s=1.0)

        async with rogues.serving(net.host("b"), trickle) as address:
            with pytest.raises(HandshakeError, match="did not finish the handshake within 10 s"):
                await dial_link(net.host("a"), address, Local(), NEIGHBOUR)

        assert trio.current_time() == pytest.approx(HANDSHAKE_S)

    @pytest.mark.parametrize("length", [0, 1, 20, 30, 100])
    async def test_hanging_up_on_the_way_is_said(self, net: MemoryNetwork, length: int) -> None:
        quitter = rogues.hang_up_after(Identity.generate(), length)

        async with rogues.serving(net.host("b"), quitter) as address:
            with pytest.raises(HandshakeError, match=f"{address}: "):
                await dial_link(net.host("a"), address, Local(), NEIGHBOUR)

    async def test_who_dials_and_says_nothing_is_dropped(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        listener = await net.host("b").listen(None, 0)
        silent = await net.host("a").dial(listener.address)

        with pytest.raises(UnreachableError, match="no answer from a:"):
            await answer_link(await listener.accept(), Local(), accept)

        assert await drained(silent.stream)

    async def test_a_first_message_that_is_no_hello_is_refused(self, net: MemoryNetwork) -> None:
        async def ask_at_once(channel: rogues.Channel) -> None:
            with pytest.raises(HandshakeError, match=r"broke the protocol"):
                await answer_link(channel, Local(), accept)

        async with rogues.serving(net.host("b"), ask_at_once) as address:
            peer = await RawPeer.dial(net.host("a"), address, NEIGHBOUR, hello=False)
            await peer.send_out_of_place(Ping())
            await peer.wait_hung_up()

    async def test_cancelling_a_dial_closes_the_connection(self, net: MemoryNetwork) -> None:
        listener = await net.host("b").listen(None, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial_link, net.host("a"), listener.address, Local(), NEIGHBOUR)
            channel = await listener.accept()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        assert await drained(channel.stream)


class TestMessages:
    async def test_messages_arrive_in_order_with_their_ids(self, net: MemoryNetwork) -> None:
        async with linked(net) as (ours, theirs):
            for number in range(1, 100):
                ours.link.post(BLOCK, number)
            await wait_all_tasks_blocked()

        assert theirs.got == [(BLOCK, number) for number in range(1, 100)]

    async def test_what_is_posted_before_run_is_sent(self, net: MemoryNetwork) -> None:
        ours, theirs = await greet(net.host("a"), net.host("b"), NEIGHBOUR)
        ours.post(Changed())
        end = End(theirs, None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(End(ours, None).run)
            nursery.start_soon(end.run)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        assert end.got == [(Changed(), 0)]

    async def test_bulk_does_not_belong_on_a_neighbour_link(self, net: MemoryNetwork) -> None:
        async with linked(net, NEIGHBOUR) as (ours, _):
            with pytest.raises(LocalProtocolError):
                ours.link.post(BLOCK, 1)

    async def test_an_unasked_answer_without_id_is_passed_on(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked(net, NEIGHBOUR) as (ours, theirs):
            theirs.link.post(Peers(()))
            await trio.sleep(1)

        assert ours.got == [(Peers(()), 0)]

    async def test_the_round_trip_time_is_known_at_once(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        net.set_latency("a", "b", 0.25)

        async with linked(net) as (ours, _):
            await trio.sleep(1)
            assert ours.link.rtt_s == pytest.approx(0.5)

    async def test_statistics_count_both_ways(self, net: MemoryNetwork) -> None:
        async with linked(net) as (ours, theirs):
            before, carried_bytes = theirs.link.statistics(), net.carried_bytes
            ours.link.post(BLOCK, 1)
            await wait_all_tasks_blocked()
            after = theirs.link.statistics()
            assert net.carried_bytes == carried_bytes + 5 + 2 + 16 + 2 + len(bytes(32)) + 3

        assert after.messages_in == before.messages_in + 1
        assert after.messages_out == before.messages_out
        assert ours.link.statistics().messages_out == after.messages_in


class TestRequests:
    async def test_a_message_answers(self, net: MemoryNetwork) -> None:
        page = Listing((), has_more=False)

        async with linked(net, answer=replying(page)) as (ours, _):
            assert await ours.link.ask.request(List("", ""), timeout_s=1) == page
            assert not ours.link.is_busy

    async def test_pages_are_handed_on_as_they_come(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        pages = [Listing((), has_more=True, is_last=number == 2) for number in range(3)]
        came: list[float] = []

        async def answer(link: Link, number: int) -> None:
            for page in pages:
                await trio.sleep(4)
                link.post(page, number)

        async with linked(net) as (ours, theirs), trio.open_nursery() as nursery:

            async def ask() -> None:
                await ours.link.ask.list_pages(
                    List("", "", 3), silence_s=5, take=lambda _: came.append(trio.current_time())
                )

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            await answer(theirs.link, theirs.got[0][1])

        assert came == pytest.approx([4, 8, 12], abs=0.1)

    async def test_silence_between_pages_is_a_stall_and_a_cancel(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        one = Listing((), has_more=True, is_last=False)
        came: list[Listing] = []

        async with linked(net, answer=replying(one)) as (ours, theirs):
            with pytest.raises(StalledError, match="for 5 s"):
                await ours.link.ask.list_pages(List("", "", 3), silence_s=5, take=came.append)
            await wait_all_tasks_blocked()

        assert came == [one]
        assert theirs.got[-1][0] == Cancel()

    async def test_neighbours_are_asked_for_peers(self, net: MemoryNetwork) -> None:
        async with linked(net, NEIGHBOUR, answer=replying(Peers(()))) as (ours, _):
            assert await ours.link.ask.request(GetPeers(), timeout_s=1) == Peers(())

    async def test_a_rejection_is_raised(self, net: MemoryNetwork) -> None:
        no = Reject(RejectCode.BUSY, "later\x1b[2J", 1_500)

        async with linked(net, answer=replying(no)) as (ours, _):
            with pytest.raises(RejectedError, match=r"later\\x1b") as caught:
                await ours.link.ask.request(List("", ""), timeout_s=1)
            with pytest.raises(RejectedError):
                await ours.link.ask.fetch(BLOCK, size_limit=1)

        assert (caught.value.code, caught.value.retry_after_s) == (RejectCode.BUSY, 1.5)

    async def test_no_answer_is_a_stall_and_a_cancel(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked(net) as (ours, theirs):
            with pytest.raises(StalledError, match="within 2 s"):
                await ours.link.ask.request(List("", ""), timeout_s=2)
            await wait_all_tasks_blocked()

        (_, asked), (last, cancelled) = theirs.got
        assert (last, cancelled) == (Cancel(), asked)

    async def test_a_late_answer_is_ignored(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked(net) as (ours, theirs):
            with trio.move_on_after(1):
                await ours.link.ask.fetch(BLOCK, size_limit=10)
            with trio.move_on_after(1):
                await ours.link.ask.request(List("", ""), timeout_s=10)
            asked = [number for message, number in theirs.got if not isinstance(message, Cancel)]
            await theirs.link.send_data(asked[0], b"too late")
            theirs.link.post(Listing((), has_more=False), asked[1])
            await wait_all_tasks_blocked()
            assert ours.link.ended is None

    async def test_the_end_of_the_link_is_the_end_of_waiting(self, net: MemoryNetwork) -> None:
        async def ask(link: Link) -> None:
            with pytest.raises(LinkClosedError, match="left the network"):
                await link.ask.fetch(BLOCK, size_limit=1)

        async with linked(net) as (ours, theirs), trio.open_nursery() as nursery:
            nursery.start_soon(ask, ours.link)
            await wait_all_tasks_blocked()
            theirs.link.close(LEAVING)

    async def test_an_ended_link_takes_no_requests(self, net: MemoryNetwork) -> None:
        async with linked(net) as (ours, _):
            ours.link.close()
            with pytest.raises(LinkClosedError):
                await ours.link.ask.fetch(BLOCK, size_limit=1)
            with pytest.raises(LinkClosedError):
                await ours.link.ask.request(List("", ""), timeout_s=1)
            with pytest.raises(LinkClosedError):
                await ours.link.send_data(1, b"x")
            ours.link.post(BLOCK, 1)


SIZES = [0, 1, MAX_DATA_BYTES - 1, MAX_DATA_BYTES, MAX_DATA_BYTES + 1, 262_144, 1_000_000]


class TestData:
    @pytest.mark.parametrize("size", SIZES)
    async def test_data_arrives_whole(self, net: MemoryNetwork, size: int) -> None:
        data = bytes(range(251)) * (size // 251 + 1)
        data = data[:size]

        async with serving_data(net, data) as link:
            assert await link.ask.fetch(BLOCK, size_limit=size) == data

    async def test_answers_go_whole_in_the_order_asked(self, net: MemoryNetwork) -> None:
        done: list[int] = []

        async def fetch(link: Link, number: int) -> None:
            await link.ask.fetch(BLOCK, size_limit=300_000)
            done.append(number)

        async with serving_data(net, bytes(300_000)) as link, trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(fetch, link, number)
                await wait_all_tasks_blocked()

        assert sorted(done) == list(range(8))

    async def test_messages_pass_while_data_waits(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        net.set_upload_rate("b", 100_000)

        async with serving_data(net, bytes(10**6)) as link, trio.open_nursery() as nursery:
            nursery.start_soon(fetch_quietly, link, 10**6)
            await trio.sleep(1)
            start = trio.current_time()
            with pytest.raises(RejectedError):
                await link.ask.request(List("", ""), timeout_s=60)

            # Behind what was queued before it, but not behind the whole block.
            assert trio.current_time() - start < (OUTBOX_BYTES + DATA_BYTES) / 100_000

    async def test_cancelling_a_fetch_tells_the_sender(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        net.set_upload_rate("b", 100_000)

        async with serving_data(net, bytes(10**6)) as link:
            with trio.move_on_after(1):
                await link.ask.fetch(BLOCK, size_limit=10**6)
            assert not link.ask
            with pytest.raises(RejectedError):  # the link is as good as before
                await link.ask.request(List("", ""), timeout_s=60)

    async def test_a_cancelled_upload_ends_in_a_rejection(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async def ask(link: Link) -> None:
            with pytest.raises(RejectedError, match="interrupted"):
                await link.ask.fetch(BLOCK, size_limit=10**7)

        net.set_upload_rate("b", 100_000)
        async with linked(net) as (ours, theirs), trio.open_nursery() as nursery:
            nursery.start_soon(ask, ours.link)
            await trio.sleep(1)
            with trio.move_on_after(1):
                await theirs.link.send_data(theirs.got[0][1], bytes(10**7))

    async def test_a_cancelled_upload_lets_the_next_one_go(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async def ask(link: Link) -> None:
            with contextlib.suppress(RejectedError):
                await link.ask.fetch(BLOCK, size_limit=10**7)

        async with linked(net) as (ours, theirs), trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ask, ours.link)
            await trio.sleep(1)
            (_, first), (_, second) = theirs.got
            net.freeze("a")
            with trio.move_on_after(1):
                await theirs.link.send_data(first, bytes(10**7))
            net.thaw("a")
            with trio.fail_after(1):
                await theirs.link.send_data(second, b"next")

    @pytest.mark.parametrize("extra", [1, 10**6])
    async def test_more_than_was_asked_for_breaks_the_protocol(
        self, net: MemoryNetwork, extra: int
    ) -> None:
        async with serving_data(net, bytes(1_000 + extra)) as link:
            with pytest.raises(LinkClosedError, match="more DATA than was asked for"):
                await link.ask.fetch(BLOCK, size_limit=1_000)

        assert link.ended.startswith("broke the protocol: more DATA")

    async def test_the_outbox_of_data_is_bounded(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked(net) as (_, theirs):
            net.freeze("a")
            with trio.move_on_after(DEAD_AFTER_S / 2):
                await theirs.link.send_data(1, bytes(10**7))

            assert theirs.link._out._outbox._size <= DATA_BYTES + 2 * 65_537
            assert theirs.link.ended is None


class TestTheEnd:
    async def test_a_bye_says_why(self, net: MemoryNetwork) -> None:
        async with linked(net) as (ours, theirs):
            theirs.link.close(LEAVING)
            await wait_all_tasks_blocked()

        assert ours.link.ended == "left the network"
        assert ours.link.bye == LEAVING
        assert theirs.link.ended == "closed by us: bye"

    async def test_what_was_posted_before_close_arrives(self, net: MemoryNetwork) -> None:
        async with linked(net) as (ours, theirs):
            for number in range(1, 50):
                ours.link.post(BLOCK, number)
            ours.link.close()
            await wait_all_tasks_blocked()

        assert len(theirs.got) == 49
        assert theirs.link.ended == "not needed any more"

    async def test_closing_towards_one_who_never_hangs_up_takes_a_second(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked_to_rogue(net) as (end, _):
            start = trio.current_time()
            end.link.close(LEAVING)
            await end.is_over.wait()

        assert trio.current_time() - start == pytest.approx(FAREWELL_S)

    async def test_both_may_close_at_once(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked(net) as ends:
            start = trio.current_time()
            for end in ends:
                end.link.close(LEAVING)
            for end in ends:
                await end.is_over.wait()

        assert trio.current_time() == start
        assert [end.link.ended for end in ends] == ["closed by us: bye"] * 2

    async def test_closing_twice_is_closing_once(self, net: MemoryNetwork) -> None:
        async with linked(net) as (ours, theirs):
            ours.link.close(LEAVING)
            ours.link.close(Bye(ByeCode.FLOOD, "second thoughts"))
            await wait_all_tasks_blocked()

        assert theirs.link.bye == LEAVING

    async def test_cancelling_run_is_seen_by_the_peer(self, net: MemoryNetwork) -> None:
        ours, theirs = await greet(net.host("a"), net.host("b"), NEIGHBOUR)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(End(theirs, None).run)
            with trio.CancelScope() as scope:
                scope.cancel()
                await End(ours, None).run()

        assert (ours.ended, theirs.ended) == ("closed by us", "closed by peer")

    async def test_a_cut_is_a_lost_connection(self, net: MemoryNetwork) -> None:
        async with linked(net) as ends:
            net.cut("a")
            await wait_all_tasks_blocked()

        assert [end.link.ended for end in ends] == ["connection lost"] * 2

    async def test_a_frozen_peer_is_dead_after_90_seconds(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked(net) as (ours, _):
            heard = trio.current_time()
            net.freeze("b")
            await ours.is_over.wait()

            assert ours.link.ended == "no answer for 90 s"
            assert trio.current_time() - heard == pytest.approx(DEAD_AFTER_S)

    async def test_idle_links_live(self, net: MemoryNetwork, autojump_clock: MockClock) -> None:
        async with linked(net) as (ours, theirs):
            await trio.sleep(3_600)

            assert ours.link.ended is theirs.link.ended is None
            sent = [end.link.statistics().messages_out for end in (ours, theirs)]
            assert sum(sent) <= 2 * 3_600 / PING_AFTER_S + 10
            assert sent[0] == pytest.approx(sent[1], abs=4)

    async def test_a_bug_of_ours_is_loud(self, net: MemoryNetwork) -> None:
        def stumble(_link: Link, _message: Message, _request_id: int) -> None:
            raise ZeroDivisionError

        with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError), flatten_subgroups=True):
            async with linked(net, answer=stumble) as (ours, _):
                ours.link.post(BLOCK, 1)
                await wait_all_tasks_blocked()


class TestPassingOn:
    """What others have us send: hits, and the DONE that covers them."""

    async def test_it_waits_for_room_in_its_order_and_does_not_end_the_link(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked(net, NEIGHBOUR) as (ours, theirs):
            hits = [hit_of(number) for number in range(WAITING_BYTES // len(HIT_BYTES) + 100)]
            net.freeze("b")
            passed = [
                hit for hit in hits if ours.link.may_pass_on and ours.link.pass_on(hit) is None
            ]
            done = Done(HITS_OF, 3, 1, len(passed), is_complete=False)
            ours.link.pass_on(done)
            assert OUTBOX_BYTES < len(passed) * len(HIT_BYTES) < len(hits) * len(HIT_BYTES)
            await trio.sleep(10)
            net.thaw("b")
            await trio.sleep(10)

            assert ours.link.ended is None
            assert [m for m, _ in theirs.got if isinstance(m, QueryHit | Done)] == [*passed, done]

    async def test_what_is_posted_goes_before_what_waits(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked(net, NEIGHBOUR) as (ours, theirs):
            net.freeze("b")
            while ours.link.may_pass_on:
                ours.link.pass_on(hit_of(1))
            ours.link.post(Changed())
            net.thaw("b")
            await trio.sleep(10)

            said = [type(message) for message, _ in theirs.got]
            assert said.index(Changed) < said.count(QueryHit) - 1

    async def test_what_is_said_within_a_moment_goes_together(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked(net, NEIGHBOUR) as (ours, theirs):
            sends = counted_sends(ours.link)
            for _moment in range(100):
                ours.link.post(Changed())
                await trio.sleep(SENDS_APART_S / 50)
            await trio.sleep(1)

            assert len(theirs.got) == 100
            assert len(sends) <= 4


class TestRogues:
    async def test_one_that_does_not_read_is_a_slow_reader(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked_to_rogue(net) as (end, _):
            posted = 0
            while end.link.ended is None:
                end.link.post(BLOCK, 1)
                posted += 61
                await trio.lowlevel.checkpoint()

        assert end.link.ended == "slow reader"
        assert posted < 3 * OUTBOX_BYTES

    async def test_one_that_takes_nothing_is_dropped_though_it_talks(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked_to_rogue(net) as (end, rogue), trio.open_nursery() as nursery:
            nursery.start_soon(send_data_quietly, end.link)
            for _ in range(20):
                with contextlib.suppress(trio.BrokenResourceError):
                    await rogue.send(BLOCK, 1)
                await trio.sleep(10)

            assert end.link.ended == "took nothing for 90 s"

    async def test_one_that_never_answers_a_ping_is_dead(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked_to_rogue(net) as (end, rogue):
            await rogue.wait_hung_up()

        assert end.link.ended == "no answer for 90 s"

    async def test_one_that_trickles_a_frame_is_dead_in_time(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        async with linked_to_rogue(net) as (end, rogue):
            frame = rogue.connection.send(BLOCK, 1)
            for byte in frame[:10]:
                await rogue.channel.stream.send_all(bytes([byte]))
                await trio.sleep(PING_AFTER_S / 3)

            assert end.link.ended == "no answer for 90 s"

    async def test_one_that_hangs_up_mid_frame_is_gone(self, net: MemoryNetwork) -> None:
        async with linked_to_rogue(net) as (end, rogue):
            await rogue.hang_up_mid_frame(BLOCK)
            await wait_all_tasks_blocked()

        assert end.got == []
        assert end.link.ended == "closed by peer"

    async def test_one_that_shouts_leaves_time_for_others(self, net: MemoryNetwork) -> None:
        async with linked_to_rogue(net) as (end, rogue), trio.open_nursery() as nursery:
            nursery.start_soon(rogue.shout, BLOCK)
            turns = 0
            while len(end.got) < 2_000:
                await trio.lowlevel.checkpoint()
                turns += 1
            nursery.cancel_scope.cancel()

        assert turns > 2_000 / 64

    async def test_one_that_sends_garbage_is_told_so(self, net: MemoryNetwork) -> None:
        async with linked_to_rogue(net) as (end, rogue):
            await rogue.channel.stream.send_all(b"\0\x20" + bytes(32))
            bye, _ = await rogue.receive_a(Bye)

        assert bye.code is ByeCode.PROTOCOL
        assert end.link.ended.startswith("broke the protocol: ")

    @pytest.mark.parametrize("message", [Listing((), has_more=False), Reject(RejectCode.BUSY, "")])
    async def test_an_answer_to_nothing_breaks_the_protocol(
        self, net: MemoryNetwork, message: Message
    ) -> None:
        async with linked_to_rogue(net) as (end, rogue):
            await rogue.send(message, 1_000)
            await rogue.receive_a(Bye)

        assert end.link.ended == "broke the protocol: answers what was never asked"

    @pytest.mark.parametrize("has_more", [True, False])
    async def test_more_pages_than_were_asked_for_break_the_protocol(
        self, net: MemoryNetwork, has_more: bool
    ) -> None:
        async def ask(link: Link) -> None:
            with pytest.raises(LinkClosedError, match="more pages"):
                await link.ask.list_pages(List("", "", 2), silence_s=5, take=bool)

        async with linked_to_rogue(net) as (end, rogue), trio.open_nursery() as nursery:
            nursery.start_soon(ask, end.link)
            _, request_id = await rogue.receive_a(List)
            for _ in range(2 if has_more else 1):
                await rogue.send(Listing((), has_more, is_last=False), request_id)
            await rogue.receive_a(Bye)

    async def test_data_for_nothing_breaks_the_protocol(self, net: MemoryNetwork) -> None:
        async with linked_to_rogue(net) as (end, rogue):
            await rogue.send_data(1_000, b"surprise", is_last=True)
            await rogue.receive_a(Bye)

        assert end.link.ended == "broke the protocol: answers what was never asked"

    async def test_the_wrong_kind_of_answer_breaks_the_protocol(self, net: MemoryNetwork) -> None:
        async def ask(link: Link) -> None:
            with pytest.raises(LinkClosedError, match="answers another request"):
                await link.ask.fetch(GetManifest(bytes(32)), size_limit=100)

        async with linked_to_rogue(net) as (end, rogue), trio.open_nursery() as nursery:
            nursery.start_soon(ask, end.link)
            _, request_id = await rogue.receive_a(GetManifest)
            await rogue.send(Listing((), has_more=False), request_id)

    async def test_what_the_owner_objects_to_breaks_the_protocol(self, net: MemoryNetwork) -> None:
        def object_to(_link: Link, _message: Message, _request_id: int) -> None:
            raise RemoteProtocolError("a bad signature")

        async with linked(net, answer=object_to) as (ours, theirs):
            ours.link.post(BLOCK, 1)
            await wait_all_tasks_blocked()

        assert theirs.link.ended == "broke the protocol: a bad signature"
        assert ours.link.bye.code is ByeCode.PROTOCOL
        assert ours.link.ended == "says that we broke the protocol"


class TestOverTcp:
    async def test_blocks_cross_real_sockets(self) -> None:
        data = bytes(range(256)) * 4096
        ours, theirs = await greet(TcpNetwork(), Loopback(), TRANSFER)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(End(theirs, Server(nursery, data).answer).run)
            nursery.start_soon(End(ours, None).run)

            for _ in range(4):
                assert await ours.ask.fetch(BLOCK, size_limit=len(data)) == data
            ours.close(LEAVING)

        assert theirs.ended == "left the network"

    async def test_a_killed_peer_is_noticed_at_once(self) -> None:
        ours, theirs = await greet(TcpNetwork(), Loopback(), NEIGHBOUR)
        await trio.aclose_forcefully(theirs._stream)

        await End(ours, None).run()

        assert ours.ended in ("closed by peer", "connection lost")

    async def test_nobody_there_is_said(self) -> None:
        listener = await TcpNetwork().listen("127.0.0.1", 0)
        await listener.aclose()

        with pytest.raises(UnreachableError, match=f"connection refused by {listener.address}"):
            await dial_link(TcpNetwork(), listener.address, Local(), NEIGHBOUR)
