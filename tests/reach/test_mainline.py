"""The directory by libtorrent, on a host with an address for each servent.

On loopback alone no table forms as it does elsewhere, so the host is a namespace of the kernel.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from p2pfs.link import courier
from p2pfs.protocol import SALT_BYTES, Address, NetworkKey, Seal
from p2pfs.reach import Mainline, is_installed, mainline, open_mainline
from p2pfs.threads import lane
from tests.helpers.hosts import Host, open_wires
from tests.suites.directory_suite import SOON_S, Directories, DirectorySuite, found, key_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_installed(), reason="libtorrent is an extra: p2pfs[dht]"),
]

COUNT = 6

MOST_ANSWERED = 60
"""Datagrams of one address that the engine answers before it hears it no more for some minutes."""

PORT = 4774


@pytest.fixture
def host() -> Iterator[Host]:
    """Be on a host with the addresses 10.78.0.1 to 10.78.0.COUNT."""
    with open_wires() as wires:
        host = wires.host(wires.switch(), "10.78.0.1")
        for number in range(2, COUNT + 1):
            host.run(f"ip address add 10.78.0.{number}/24 dev eth0")
        with host.entered():
            yield host


class Street:
    """Opens directories at addresses of the host, until the end of the test."""

    def __init__(self, nursery: trio.Nursery, states: Path) -> None:
        self._nursery = nursery
        self._states = states

    async def open(self, number: int, key: NetworkKey | None) -> tuple[Mainline, Address]:
        host = f"10.78.0.{number}"
        address, state = Address(host, PORT), str(self._states / host)
        return await self._nursery.start(_keep, address, state, key), address


async def _keep(
    address: Address, state: str, key: NetworkKey | None, *, task_status: trio.TaskStatus[Mainline]
) -> None:
    async with open_mainline(address, lambda: PORT, state, lane(1), key) as mainline:
        task_status.started(mainline)
        await trio.sleep_forever()


@pytest.fixture
async def street(host: Host, nursery: trio.Nursery, tmp_path: Path) -> Street:
    return Street(nursery, tmp_path)


@pytest.fixture
async def directories(street: Street) -> Directories:
    opened = [await street.open(number, NetworkKey.open()) for number in range(1, COUNT + 1)]
    for (one, _), (_, next_address) in zip(opened, opened[1:] + opened[:1], strict=True):
        one.add_node(next_address)
    return opened


class TestMainline(DirectorySuite):
    pass


async def test_networks_do_not_hear_each_other(street: Street):
    one, _ = await street.open(1, NetworkKey(b"1" * 32))
    another, there = await street.open(2, NetworkKey(b"2" * 32))
    third, of_third = await street.open(3, NetworkKey(b"1" * 32))
    one.add_node(there)
    one.add_node(of_third)
    another.announce(key_of("film"))
    third.announce(key_of("film"))

    assert await found(one, key_of("film")) == {of_third}
    assert another.nodes == 0
    assert another.dropped > 0


async def test_among_servents_nothing_goes_to_anybody_who_was_not_named(
    street: Street, monkeypatch: pytest.MonkeyPatch
):
    sent: list[tuple[str, int]] = []
    send = courier._send

    def noting(sock: socket.socket, datagram: bytes, address: tuple[str, int]):
        sent.append(address)
        send(sock, datagram, address)

    monkeypatch.setattr(courier, "_send", noting)
    one, _ = await street.open(1, NetworkKey.open())
    one.announce(key_of("film"))
    await one.find(key_of("film"))
    assert sent == []

    one.add_node(Address("10.78.0.2", PORT))
    with trio.fail_after(SOON_S):
        while not sent:
            await trio.sleep(0.1)
    assert set(sent) == {("10.78.0.2", PORT)}


async def test_in_public_it_enters_by_those_who_are_known_to_all(
    street: Street, host: Host, monkeypatch: pytest.MonkeyPatch
):
    host.run("ip address add 81.1.0.1/32 dev eth0")
    monkeypatch.setitem(mainline._IN_PUBLIC, "dht_bootstrap_nodes", f"81.1.0.1:{PORT}")
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as known:
        await known.bind(("81.1.0.1", PORT))
        await street.open(1, None)

        with trio.fail_after(SOON_S):
            datagram, sender = await known.recvfrom(2_000)

    assert datagram.startswith(b"d1:ad")
    assert sender == ("10.78.0.1", PORT)


async def test_the_table_is_there_again_after_a_restart(street: Street, tmp_path: Path):
    one, here = await street.open(1, NetworkKey.open())
    one.announce(key_of("film"))
    async with open_mainline(
        Address("10.78.0.2", PORT), lambda: PORT, str(tmp_path / "kept"), lane(1), NetworkKey.open()
    ) as another:
        another.add_node(here)
        await found(another, key_of("film"))
    async with open_mainline(
        Address("10.78.0.2", PORT), lambda: PORT, str(tmp_path / "kept"), lane(1), NetworkKey.open()
    ) as again:
        assert await found(again, key_of("film")) == {here}


async def test_a_damaged_table_is_an_empty_one(street: Street, tmp_path: Path, expect_log):
    expect_log("directory not read")
    (tmp_path / "10.78.0.1").write_bytes(b"d3:\xffgarbage")

    one, _ = await street.open(1, NetworkKey.open())

    assert one.nodes == 0


async def test_who_sends_again_what_was_recorded_gets_few_answers_and_no_place(street: Street):
    one, here = await street.open(1, NetworkKey.open())
    find = b"d1:ad2:id20:abcdefghij01234567896:target20:abcdefghij0123456789e1:q9:find_node"
    recorded = Seal(NetworkKey.open()).close(find + b"1:t2:aa1:y1:qe", bytes(SALT_BYTES))
    answers: list[bytes] = []
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as eavesdropper:
        await eavesdropper.bind(("10.78.0.2", 0))
        for _ in range(10 * MOST_ANSWERED):
            await eavesdropper.sendto(recorded, (here.host, here.port))
        with trio.move_on_after(2):
            while True:
                answers.append(await eavesdropper.recv(2_000))

    assert 0 < len(answers) <= MOST_ANSWERED
    assert all(answer[:1] == recorded[:1] for answer in answers)
    assert one.nodes == 0


async def test_a_strangers_datagram_is_dropped_at_the_engines_own_port_too(street: Street):
    one, _ = await street.open(1, NetworkKey.open())
    ping = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as stranger:
        await stranger.bind(("10.78.0.2", 0))
        for address in (("10.78.0.1", PORT), ("10.78.0.1", one.engine_port)):
            await stranger.sendto(ping, address)
            with trio.move_on_after(1):
                raise AssertionError(f"{address} answered {await stranger.recv(2_000)!r}")
