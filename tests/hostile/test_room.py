"""A storm of announcements in the room is heard at a rate, and loses nobody who was found."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock
from zeroconf import Zeroconf

from p2pfs.protocol import Address, NetworkKey
from p2pfs.reach.hearing import (
    DROPPED_WEIGHT,
    HEARD_BURST,
    HEARD_PER_S,
    OF_ONE_BURST,
    OF_ONE_PER_S,
    PART_BYTES,
    Hearing,
)
from p2pfs.reach.lan import LEFT_S, MAX_NAMES, RESOLVE_BURST, RESOLVES_PER_S, SERVICE, Lan, _Ear
from tests.helpers.watched import watched_machine

STORM_S = 60
STORM_PER_S = 5_000
SMALL = PART_BYTES // 2
HERE = Address("192.168.1.2", 4774)


class Clock:
    """The time, which passes when the listener rests."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rested_s = 0.0

    def __call__(self) -> float:
        return self.now

    def rest(self, seconds: float) -> None:
        self.now += seconds
        self.rested_s += seconds


def heard_of_storm(hearing: Hearing, clock: Clock, hosts: list[str], size: int) -> tuple[int, int]:
    """Return how many datagrams of a storm are read, and how many are heard."""
    read = heard = 0
    while clock.now < STORM_S:
        heard += hearing.hears(hosts[read % len(hosts)], size)
        read += 1
        clock.now += 1 / STORM_PER_S
    return read, heard


@pytest.mark.parametrize(("size", "parts"), [(SMALL, 1), (8_900, 1 + 8_900 // PART_BYTES)])
def test_a_storm_of_many_addresses_is_read_later(size: int, parts: int):
    clock = Clock()
    hearing = Hearing(clock, clock.rest)

    _, heard = heard_of_storm(hearing, clock, [f"10.0.0.{one}" for one in range(250)], size)

    assert heard * parts <= HEARD_BURST + HEARD_PER_S * STORM_S + 2 * parts
    assert clock.rested_s > STORM_S / 2


def test_a_storm_of_one_address_leaves_others_to_be_heard():
    clock = Clock()
    hearing = Hearing(clock, clock.rest)

    read, heard = heard_of_storm(hearing, clock, ["10.0.0.66"], SMALL)

    assert heard <= OF_ONE_BURST + OF_ONE_PER_S * STORM_S + 1
    assert read <= heard + (HEARD_BURST + HEARD_PER_S * STORM_S) / DROPPED_WEIGHT
    assert hearing.hears("10.0.0.7", SMALL)


def test_names_without_addresses_hold_up_nobody(monkeypatch: pytest.MonkeyPatch):
    clock, asked = Clock(), []

    class Unknown:
        """A name of which nobody says the address."""

        def __init__(self, *_name: str) -> None:
            pass

        def load_from_cache(self, _room: object) -> bool:
            return False

        def request(self, *_how: object) -> bool:
            asked.append(clock.now)
            return False

    monkeypatch.setattr("p2pfs.reach.lan.ServiceInfo", Unknown)
    monkeypatch.setattr("p2pfs.reach.lan.time.monotonic", clock)
    ear = _Ear(f"own.{SERVICE}", NetworkKey.open(), (HERE,), lambda _one: None)
    for number in range(STORM_S * 10):
        ear.add_service(None, SERVICE, f"{number}.{SERVICE}")
        clock.now += 0.1

    assert len(asked) <= RESOLVE_BURST + RESOLVES_PER_S * STORM_S + 1


def test_what_the_sockets_of_a_room_hear_is_rationed():
    room = Zeroconf(["127.0.0.1"])
    try:
        Hearing().attend(room)
        protocols = [reader.transport.get_protocol() for reader in room.engine.readers]
        assert protocols
        assert {type(one).__name__ for one in protocols} == {"_Rationed"}
    finally:
        room.close()


async def test_a_room_with_names_without_end_is_left_and_entered_anew(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    entered: list[float] = []

    class Loud:
        """A room in which names are told without end."""

        engine = type("Engine", (), {"readers": ()})

        def __init__(self, *_options: object, **_more: object) -> None:
            entered.append(trio.from_thread.run_sync(trio.current_time))

        def register_service(self, *_what: object, **_more: object) -> None:
            pass

        def close(self) -> None:
            pass

    def browse(_room: object, _type: str, ear: _Ear) -> None:
        monkeypatch.setattr(ear, "update_service", lambda *_name: None)
        for number in range(MAX_NAMES + 10):
            ear.add_service(None, SERVICE, f"{number}.{SERVICE}")

    monkeypatch.setattr("p2pfs.reach.lan.Zeroconf", Loud)
    monkeypatch.setattr("p2pfs.reach.lan.ServiceBrowser", browse)
    _, changes = watched_machine()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Lan(NetworkKey.open(), lambda: [HERE], changes).run, None)
        for _ in range(10_000):  # some in threads, for which virtual time does not wait
            if len(entered) == 3:
                break
            await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert len(entered) == 3
    assert all(later - one >= LEFT_S for one, later in itertools.pairwise(entered))
