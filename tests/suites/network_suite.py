"""What every `Network` must do. Subclass `NetworkSuite` and give it two ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import check_half_closeable_stream

from p2pfs.errors import UnreachableError, UsageError
from p2pfs.link.sockets import Channel, Listener, Network
from p2pfs.protocol.fields import Address

MORE_THAN_ANY_BUFFER = bytes(1024 * 1024)


class NetworkSuite:
    """The contract of `p2pfs.link.Network`."""

    @pytest.fixture
    def here(self) -> Network:
        """The side that dials."""
        raise NotImplementedError

    @pytest.fixture
    def there(self) -> Network:
        """The side that listens."""
        raise NotImplementedError

    @pytest.fixture
    def own_host(self) -> str:
        """A host name by which `there` can listen and be dialled."""
        raise NotImplementedError

    @pytest.fixture
    async def listener(self, there: Network, own_host: str) -> AsyncIterator[Listener]:
        listener = await there.listen(own_host, 0)
        yield listener
        await listener.aclose()

    async def test_a_stream_keeps_trios_contract(self, here: Network, listener: Listener) -> None:
        async def connected() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            dialled, accepted = await join(here, listener)
            return dialled.stream, accepted.stream

        async def clogged() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            both = await connected()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    for stream in both:
                        nursery.start_soon(send_for_ever, stream)
                    nursery.start_soon(cancel_when_clogged, scope)
            return both

        await check_half_closeable_stream(connected, clogged)

    async def test_it_dials_from_the_port_at_which_it_listens(
        self, here: Network, there: Network, own_host: str, listener: Listener
    ) -> None:
        second = await there.listen(own_host, 0)
        dialled = await second.dial(listener.address)
        accepted = await listener.accept()

        assert accepted.remote == dialled.local == second.address
        await close(dialled, accepted)
        await second.aclose()

    async def test_both_ends_know_the_addresses(self, here: Network, listener: Listener) -> None:
        dialled, accepted = await join(here, listener)

        assert dialled.remote == accepted.local == listener.address
        assert dialled.local == accepted.remote
        await close(dialled, accepted)

    async def test_port_zero_becomes_a_real_port(self, listener: Listener) -> None:
        assert listener.address.port > 0

    async def test_a_listener_takes_many(self, here: Network, listener: Listener) -> None:
        pairs = [await join(here, listener) for _ in range(20)]

        for number, (dialled, accepted) in enumerate(pairs):
            await dialled.stream.send_all(bytes([number]))
            assert await accepted.stream.receive_some(10) == bytes([number])
            await close(dialled, accepted)

    async def test_a_port_is_taken_once(
        self, there: Network, listener: Listener, own_host: str
    ) -> None:
        with pytest.raises(UsageError, match="cannot listen on"):
            await there.listen(own_host, listener.address.port)

    async def test_a_closed_port_refuses(self, here: Network, listener: Listener) -> None:
        await listener.aclose()

        with pytest.raises(UnreachableError, match=f"connection refused by {listener.address}"):
            await here.dial(listener.address)

    async def test_a_closed_port_is_free_again(
        self, here: Network, there: Network, listener: Listener, own_host: str
    ) -> None:
        await listener.aclose()
        again = await there.listen(own_host, listener.address.port)

        await close(*await join(here, again))
        await again.aclose()

    async def test_closing_a_listener_ends_accept(self, listener: Listener) -> None:
        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            await listener.aclose()

        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async def test_connections_outlive_their_listener(
        self, here: Network, listener: Listener
    ) -> None:
        dialled, accepted = await join(here, listener)
        await listener.aclose()

        await accepted.stream.send_all(b"still here")
        assert await dialled.stream.receive_some(100) == b"still here"
        await close(dialled, accepted)

    async def test_a_name_that_does_not_resolve_is_said(self, here: Network) -> None:
        for name in ("no..such..name", "a\0b", "x" * 70 + ".invalid"):
            with pytest.raises(UnreachableError, match="cannot resolve name"):
                await here.dial(Address(name, 1))

    async def test_a_reader_that_does_not_read_is_felt(
        self, here: Network, listener: Listener
    ) -> None:
        dialled, accepted = await join(here, listener)

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_for_ever, dialled.stream)
                nursery.start_soon(cancel_when_clogged, scope)

        assert scope.cancelled_caught
        await close(dialled, accepted)


async def join(here: Network, listener: Listener) -> tuple[Channel, Channel]:
    """Return both ends of a new connection."""
    dialled = await here.dial(listener.address)
    return dialled, await listener.accept()


async def close(*channels: Channel) -> None:
    for channel in channels:
        await channel.stream.aclose()


async def send_for_ever(stream: trio.abc.HalfCloseableStream) -> None:
    while True:
        await stream.send_all(MORE_THAN_ANY_BUFFER)


async def cancel_when_clogged(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked(0.02)
    scope.cancel()
