from __future__ import annotations

import os
import socket
import stat

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import TooManyFilesError, UnreachableError, UsageError
from p2pfs.link import sockets, unixsockets
from p2pfs.link.sockets import Network, PortTakenError, TcpNetwork
from p2pfs.link.unixsockets import dial_unix, listen_unix
from p2pfs.protocol.messages import Address
from tests.helpers.limits import no_file_left
from tests.helpers.memnet import MemoryNetwork
from tests.suites.network_suite import NetworkSuite, close, join


class TestTcpNetwork(NetworkSuite):
    @pytest.fixture
    def here(self) -> Network:
        return TcpNetwork()

    @pytest.fixture
    def there(self) -> Network:
        return TcpNetwork()

    @pytest.fixture
    def own_host(self) -> str:
        return "127.0.0.1"


class TestMemoryNetwork(NetworkSuite):
    @pytest.fixture(params=[0.0, 0.001], ids=["at once", "with latency"])
    def net(self, request: pytest.FixtureRequest) -> MemoryNetwork:
        return MemoryNetwork(latency_s=request.param)

    @pytest.fixture
    def here(self, net: MemoryNetwork) -> Network:
        return net.host("here")

    @pytest.fixture
    def there(self, net: MemoryNetwork) -> Network:
        return net.host("there")

    @pytest.fixture
    def own_host(self) -> str:
        return "there"


class TestOwnPort:
    async def test_nobody_else_has_a_port_from_which_was_dialled(self) -> None:
        ours, other = [await TcpNetwork().listen("127.0.0.1", 0) for _ in range(2)]
        dialled = await ours.dial(other.address)
        with pytest.raises(UsageError, match="in use"):
            await TcpNetwork().listen("127.0.0.1", ours.address.port)

        await close(dialled, await other.accept())
        await ours.aclose()
        await other.aclose()

    async def test_a_second_connection_to_one_address_is_not_made(self) -> None:
        ours, other = [await TcpNetwork().listen("127.0.0.1", 0) for _ in range(2)]
        dialled = await ours.dial(other.address)
        with pytest.raises(PortTakenError):
            await ours.dial(other.address)

        await close(dialled, await other.accept())
        await ours.aclose()
        await other.aclose()

    async def test_who_listens_everywhere_dials_ipv4_from_there_too(self) -> None:
        ours, other = await TcpNetwork().listen(None, 0), await TcpNetwork().listen("127.0.0.1", 0)
        dialled = await ours.dial(other.address)

        assert dialled.local == Address("127.0.0.1", ours.address.port)
        await close(dialled, await other.accept())
        await ours.aclose()
        await other.aclose()

    async def test_who_refuses_is_told(self) -> None:
        ours, other = [await TcpNetwork().listen("127.0.0.1", 0) for _ in range(2)]
        await other.aclose()
        with pytest.raises(UnreachableError, match="connection refused"):
            await ours.dial(other.address)
        await ours.aclose()

    async def test_no_router_is_on_the_way_to_this_machine(self) -> None:
        ours = await TcpNetwork().listen("127.0.0.1", 0)

        assert not ours.is_hidden_from("127.0.0.1")
        assert not ours.is_hidden_from("a.name.example")
        await ours.aclose()


class TestTcpAddresses:
    async def test_every_interface_takes_ipv4_and_ipv6_on_one_port(self) -> None:
        listener = await TcpNetwork().listen(None, 0)

        for host in ("127.0.0.1", "::1") if listener.address.host == "::" else ("127.0.0.1",):
            dialled = await TcpNetwork().dial(Address(host, listener.address.port))
            accepted = await listener.accept()
            assert accepted.local.host == host
            assert accepted.remote == dialled.local
            await close(dialled, accepted)
        await listener.aclose()

    async def test_names_are_resolved(self) -> None:
        listener = await TcpNetwork().listen("localhost", 0)
        dialled = await TcpNetwork().dial(Address("localhost", listener.address.port))

        assert dialled.remote == listener.address
        await close(dialled, await listener.accept())
        await listener.aclose()

    async def test_who_hangs_up_before_accept_is_passed_over_or_seen_to_end(self) -> None:
        listener = await TcpNetwork().listen("127.0.0.1", 0)
        quitter = await TcpNetwork().dial(listener.address)
        reset_on_close(quitter.stream)
        await quitter.stream.aclose()
        dialled = await TcpNetwork().dial(listener.address)

        accepted = await listener.accept()
        if accepted.remote != dialled.local:
            with pytest.raises(trio.BrokenResourceError):
                await accepted.stream.receive_some(1)
            accepted = await listener.accept()

        assert accepted.remote == dialled.local
        await close(dialled, accepted)
        await listener.aclose()

    async def test_silence_is_said_after_ten_seconds(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sockets.trio, "open_tcp_stream", never)

        with pytest.raises(
            UnreachableError, match=r"no answer from 192.0.2.1:9 within 10 s; a firewall"
        ):
            await TcpNetwork().dial(Address("192.0.2.1", 9))

        assert trio.current_time() == sockets.CONNECT_S

    async def test_a_foreign_address_cannot_be_listened_on(self) -> None:
        with pytest.raises(UsageError, match=r"cannot listen on 192.0.2.1:0: "):
            await TcpNetwork().listen("192.0.2.1", 0)


class TestUnixSocket:
    async def test_it_carries_bytes_and_is_the_owners_alone(self, tmp_path: os.PathLike) -> None:
        path = f"{tmp_path}/control"
        listener = await listen_unix(path)
        dialled = await dial_unix(path)
        accepted = await listener.accept()

        await dialled.send_all(b"status")

        assert await accepted.receive_some(100) == b"status"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        for resource in (dialled, accepted, listener):
            await resource.aclose()
        assert not os.path.exists(path)

    async def test_a_path_longer_than_a_socket_address_works(self, tmp_path: os.PathLike) -> None:
        directory = f"{tmp_path}/{'d' * 200}"
        os.mkdir(directory)
        listener = await listen_unix(f"{directory}/control")

        stream = await dial_unix(f"{directory}/control")

        await stream.aclose()
        await listener.aclose()
        assert os.listdir(directory) == []

    async def test_the_file_of_a_dead_servent_is_replaced(self, tmp_path: os.PathLike) -> None:
        path = f"{tmp_path}/control"
        killed = await listen_unix(path)
        killed._socket.close()

        listener = await listen_unix(path)

        await (await dial_unix(path)).aclose()
        await listener.aclose()

    async def test_a_live_servent_is_not_replaced(self, tmp_path: os.PathLike) -> None:
        path = f"{tmp_path}/control"
        listener = await listen_unix(path)

        with pytest.raises(UsageError, match="running already"):
            await listen_unix(path)

        await (await dial_unix(path)).aclose()
        await listener.aclose()

    async def test_a_file_in_the_way_is_left_alone(self, tmp_path: os.PathLike) -> None:
        path = f"{tmp_path}/control"
        with open(path, "w") as file:
            file.write("precious")

        with pytest.raises(UsageError, match="in the way"):
            await listen_unix(path)

        assert os.path.getsize(path) == len("precious")

    async def test_nobody_there_is_said(self, tmp_path: os.PathLike) -> None:
        for path in (f"{tmp_path}/nothing", f"{tmp_path}/no/directory"):
            with pytest.raises(UnreachableError, match="nobody listens on"):
                await dial_unix(path)

    async def test_another_user_is_hung_up_on(
        self, tmp_path: os.PathLike, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uids = iter([12_345, os.geteuid()])
        monkeypatch.setattr(unixsockets, "_peer_uid", lambda _: next(uids))
        listener = await listen_unix(f"{tmp_path}/control")
        stranger = await dial_unix(f"{tmp_path}/control")
        owner = await dial_unix(f"{tmp_path}/control")

        accepted = await listener.accept()

        assert await stranger.receive_some(1) == b""
        await owner.send_all(b"x")
        assert await accepted.receive_some(1) == b"x"
        for resource in (stranger, owner, accepted, listener):
            await resource.aclose()


@pytest.fixture
def net() -> MemoryNetwork:
    return MemoryNetwork()


async def pair(net: MemoryNetwork) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    listener = await net.host("b").listen(None, 4000)
    dialled, accepted = await join(net.host("a"), listener)
    return dialled.stream, accepted.stream


class TestMemoryNetworksTroubles:
    async def test_latency_passes_before_bytes_arrive(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        net.set_latency("a", "b", 0.25)
        ours, theirs = await pair(net)
        start = trio.current_time()

        await ours.send_all(b"x")
        sent = trio.current_time() - start
        await theirs.receive_some(1)

        assert (sent, trio.current_time() - start) == (0, 0.25)

    async def test_an_upload_rate_is_shared_by_all_connections(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        net.set_upload_rate("a", 1_000_000)
        listener = await net.host("b").listen(None, 0)
        pairs = [await join(net.host("a"), listener) for _ in range(2)]
        start = trio.current_time()

        async with trio.open_nursery() as nursery:
            for dialled, accepted in pairs:
                nursery.start_soon(dialled.stream.send_all, bytes(500_000))
                nursery.start_soon(receive, accepted.stream, 500_000)

        assert trio.current_time() - start == pytest.approx(1.0)

    async def test_a_cut_breaks_both_ends_and_later_dials_work(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        ours, theirs = await pair(net)

        net.cut("a", "b")

        for stream in (ours, theirs):
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some(1)
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")
        await (await net.host("a").dial(Address("b", 4000))).stream.aclose()

    async def test_a_frozen_host_neither_sends_nor_closes_until_it_thaws(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        ours, theirs = await pair(net)
        net.freeze("a")

        await ours.send_all(b"late")
        with trio.move_on_after(1_000) as waited:
            await theirs.receive_some(1)
        net.thaw("a")

        assert waited.cancelled_caught
        assert await theirs.receive_some(10) == b"late"

    async def test_dialling_a_frozen_host_gets_no_answer(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        await net.host("b").listen(None, 4000)
        net.freeze("b")

        with pytest.raises(UnreachableError, match=r"no answer from b:4000 within 10 s"):
            await net.host("a").dial(Address("b", 4000))

    async def test_a_partition_stops_what_crosses_it_only(
        self, net: MemoryNetwork, autojump_clock: MockClock
    ) -> None:
        ours, theirs = await pair(net)
        net.partition({"a"})
        await ours.send_all(b"x")
        with trio.move_on_after(1_000) as across:
            await theirs.receive_some(1)

        net.partition({"a", "b"})
        await net.host("c").listen(None, 1)

        assert across.cancelled_caught
        assert await theirs.receive_some(1) == b"x"
        with pytest.raises(UnreachableError, match="no answer"):
            await net.host("a").dial(Address("c", 1))
        net.heal()
        await (await net.host("a").dial(Address("c", 1))).stream.aclose()


async def never(*_: object) -> None:
    await trio.sleep_forever()


async def receive(stream: trio.abc.Stream, length: int) -> None:
    while length:
        length -= len(await stream.receive_some(length))


def reset_on_close(stream: trio.abc.Stream) -> None:
    assert isinstance(stream, trio.SocketStream)
    linger = (1).to_bytes(4, "little") + bytes(4)
    stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)


async def test_that_no_descriptor_is_left_is_told_as_that() -> None:
    network = TcpNetwork()
    listener = await network.listen("127.0.0.1", 0)
    for dialler in (network, listener):
        with no_file_left(), pytest.raises(TooManyFilesError, match="Too many open files"):
            await dialler.dial(listener.address)
    channel = await network.dial(listener.address)
    await channel.stream.aclose()
    await listener.aclose()


async def test_the_kernel_gives_up_what_is_not_acknowledged_within_half_a_minute() -> None:
    listener = await TcpNetwork().listen("127.0.0.1", 0)
    dialled = await TcpNetwork().dial(listener.address)
    accepted = await listener.accept()
    for channel in (dialled, accepted):
        assert isinstance(channel.stream, trio.SocketStream)
        sock = channel.stream.socket
        patience_ms = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert 0 < patience_ms <= 30_000

    await close(dialled, accepted)
    await listener.aclose()
