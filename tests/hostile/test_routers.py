"""Who answers in place of the router gets nothing fetched; one that lies is a router less."""

from __future__ import annotations

import struct
from typing import Self

import pytest
import trio

from p2pfs.link import datagrams
from p2pfs.link.datagrams import MAX_ANSWERS, ask_by_datagram
from p2pfs.protocol import Address
from p2pfs.reach import upnp
from p2pfs.reach.routers import nat_pmp_answer, pcp_answer
from p2pfs.reach.upnp import MAX_TOLD_BYTES, by_upnp
from p2pfs.reach.wishes import LEASE_S, Mapping, NotMappedError
from tests.helpers.gateways import LIAR, OUTSIDE, ROUTER, WISH, Room, described, http

PATIENT_S = 20.0
"""Long enough for a test that would else wait for ever."""

GRANTED = Mapping(Address(OUTSIDE, WISH.own.port), "UPnP", LEASE_S)


@pytest.fixture
async def room(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Room:
    room = Room(nursery)
    await room.open(monkeypatch)
    room.router.grants()
    return room


async def test_who_answers_a_search_before_the_router_is_not_heard(room: Room):
    room.liar.grants("11.66.6.6")
    nowhere = [f"http://{ROUTER}:1/{number}" for number in range(2 * MAX_ANSWERS)]
    room.liar.locations = [room.liar.url, *nowhere]

    assert await by_upnp(WISH) == GRANTED

    assert room.liar.asked == []


ELSEWHERE = {
    "another host": "http://{liar}/root",
    "a user whose name is that of the router": "http://127.0.0.1@{liar}/root",
    "a scheme without a host": "file:///etc/hostname",
    "another scheme": "https://127.0.0.1:1/root",
    "no port": "http://127.0.0.1:99999/root",
    "no URL": "http://[127.0.0.1/root",
    "a path without end": "http://127.0.0.1:1/" + "a" * 1_000,
}


@pytest.mark.parametrize("url", ELSEWHERE.values(), ids=ELSEWHERE)
async def test_a_search_leads_nowhere_but_to_the_router(room: Room, url: str):
    lie = url.format(liar=f"{LIAR}:{room.liar.port}")
    room.router.locations.insert(0, lie)

    assert await by_upnp(WISH) == GRANTED

    assert room.liar.asked == []
    with pytest.raises(NotMappedError, match="elsewhere than to the router"):
        upnp.place_of(lie, ROUTER)


@pytest.mark.parametrize("way", ["control", "base", "redirect"])
async def test_a_description_leads_nowhere_but_to_the_router(room: Room, way: str):
    there = f"http://{LIAR}:{room.liar.port}"
    room.router.says["GET /root"] = {
        "control": described(f"{there}/ctl"),
        "base": described("ctl", f"{there}/"),
        "redirect": http("", f"Location: {there}/root\r\n", "302 Found"),
    }[way]

    if way == "base":
        assert await by_upnp(WISH) == GRANTED
    else:
        with pytest.raises(NotMappedError):
            await by_upnp(WISH)

    assert room.liar.asked == []


async def test_an_answer_without_end_is_read_to_its_bound(room: Room):
    room.router.says["GET /root"] = b"HTTP/1.1 200 OK\r\n\r\n" + bytes(4 * MAX_TOLD_BYTES)

    with pytest.raises(NotMappedError, match="does not come to an end"):
        await by_upnp(WISH)


BOMB = (
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcd", "bcde", strict=True))
    + "]><root>&e;</root>"
)


async def test_a_document_that_grows_is_not_read(room: Room):
    room.router.says["GET /root"] = http(BOMB)

    with pytest.raises(NotMappedError, match="declares what it is made of"):
        await by_upnp(WISH)


async def test_a_device_that_says_nothing_is_left_for_the_next(
    room: Room, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(upnp, "ASKED_S", 0.2)
    room.router.locations.insert(0, f"http://{ROUTER}:{room.router.port}/silent")

    with trio.fail_after(PATIENT_S):
        assert await by_upnp(WISH) == GRANTED


async def test_all_of_it_takes_a_bounded_time(room: Room, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upnp, "UPNP_S", 0.2)
    monkeypatch.setattr(upnp, "ASKED_S", 10 * PATIENT_S)
    room.router.says = {}

    with trio.fail_after(PATIENT_S), pytest.raises(NotMappedError, match="takes too long"):
        await by_upnp(WISH)


async def test_whoever_sends_without_end_while_a_router_is_sought_is_heard_for_a_while(
    room: Room, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
):
    heard, patience = 0, PATIENT_S

    class Storm:
        """A socket at which datagrams of another one come without end."""

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_error: object) -> None:
            pass

        async def bind(self, _here: object) -> None:
            await trio.lowlevel.checkpoint()

        async def sendto(self, _what: object, _there: object) -> None:
            await trio.lowlevel.checkpoint()

        def setsockopt(self, *_option: object) -> None:
            pass

        async def recvfrom(self, _count: int) -> tuple[bytes, tuple[str, int]]:
            nonlocal heard
            heard += 1
            await trio.lowlevel.checkpoint()
            return b"x", (LIAR, 9)

    monkeypatch.setattr(trio.socket, "socket", lambda *_kind: Storm())
    with trio.fail_after(PATIENT_S):
        found = await datagrams.search_by_datagram(
            ROUTER, Address("239.255.255.250", 1900), ROUTER, [b"?"], 10 * patience
        )

    assert found == []
    assert heard == datagrams.MAX_HEARD


async def test_an_external_address_that_is_none_is_no_mapping(room: Room):
    for lie in ("\u202eevil.example", "192.168.1.1", "127.0.0.1", "fd00::1", "", "224.0.0.1"):
        room.router.grants(lie)
        with pytest.raises(NotMappedError) as told:
            await by_upnp(WISH)
        assert str(told.value).isprintable()


def pcp(lease_s: int, port: int, host: bytes) -> bytes:
    head = struct.pack("!BBxBII12x", 2, 0x81, 0, lease_s, 7)
    return head + struct.pack("!12sB3xHH16s", WISH.nonce, 6, WISH.own.port, port, host)


def nat_pmp(lease_s: int, port: int) -> bytes:
    return struct.pack("!BBHIHHI", 0, 130, 0, 7, WISH.own.port, port, lease_s)


WORLD = bytes(10) + b"\xff\xff" + bytes((11, 99, 0, 11))
SITE = bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 1))
IPV6 = bytes.fromhex("20010db8" + "00" * 11 + "01")

FALSE_GRANTS = {
    "no time": (0, 4800, WORLD),
    "no time, and an address of a site": (0, 4800, SITE),
    "a port of a service": (1200, 22, WORLD),
    "no port": (1200, 0, WORLD),
    "another version of IP": (1200, 4800, IPV6),
}


@pytest.mark.parametrize("grant", FALSE_GRANTS.values(), ids=FALSE_GRANTS)
def test_what_leads_nowhere_is_no_mapping(grant: tuple[int, int, bytes]):
    lease_s, port, host = grant
    with pytest.raises(NotMappedError):
        pcp_answer(pcp(lease_s, port, host), WISH)
    if host is not IPV6:
        with pytest.raises(NotMappedError):
            nat_pmp_answer(
                nat_pmp(lease_s, port), "11.99.0.11" if host is WORLD else "10.0.0.1", WISH
            )


def test_a_lease_of_a_hundred_years_is_renewed_as_the_one_that_was_asked_for():
    longest = 2**32 - 1

    assert pcp_answer(pcp(longest, 4800, WORLD), WISH).lease_s == LEASE_S
    assert nat_pmp_answer(nat_pmp(longest, 4800), "11.99.0.11", WISH).lease_s == LEASE_S


async def test_an_answer_from_another_host_than_was_asked_is_not_heard(nursery: trio.Nursery):
    with (
        trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as router,
        trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as liar,
    ):
        await router.bind((ROUTER, 0))
        await liar.bind((LIAR, 0))

        async def answer() -> None:
            _, asker = await router.recvfrom(2_000)
            await liar.sendto(b"lie", asker)
            await router.sendto(b"truth", asker)

        nursery.start_soon(answer)
        there = Address(*router.getsockname())
        assert await ask_by_datagram(there, b"?", [PATIENT_S]) == b"truth"
