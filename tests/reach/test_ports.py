"""The router passes our port on: asked, renewed, given back; and what it says when it does not."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from p2pfs.protocol import Address
from p2pfs.reach.changes import SETTLE_S
from p2pfs.reach.ports import ROUTER_RETRY_S, PortMapping
from p2pfs.reach.routers import (
    ask_router,
    nat_pmp_answer,
    nat_pmp_outside,
    pcp_answer,
    pcp_question,
)
from p2pfs.reach.wishes import LEASE_S, Mapping, NotMappedError, Wish
from tests.helpers.hosts import Host, open_wires
from tests.helpers.memnet import MemoryHost
from tests.helpers.mounted import until
from tests.helpers.watched import watched_machine

NONCE = b"twelve bytes"
OWN = Address("192.168.1.2", 4774)
WISH = Wish("192.168.1.1", OWN, NONCE)
OUTSIDE = bytes(10) + b"\xff\xff" + bytes((11, 99, 0, 11))


def pcp(result=0, nonce=NONCE, inside=4774, host=OUTSIDE, version=2) -> bytes:
    head = struct.pack("!BBxBII12x", version, 0x81, result, 1200, 7)
    return head + struct.pack("!12sB3xHH16s", nonce, 6, inside, 4800, host)


# What is said, and what it means.


def test_a_question_in_pcp_is_that_of_rfc_6887():
    told = pcp_question(WISH)

    assert len(told) == 60
    assert told[:8] == b"\x02\x01\0\0" + struct.pack("!I", LEASE_S)
    assert told[8:24] == bytes(10) + b"\xff\xff" + bytes((192, 168, 1, 2))
    assert told[24:36] == NONCE
    assert told[36:44] == b"\x06\0\0\0" + struct.pack("!HH", 4774, 4774)


def test_what_a_router_grants_is_taken():
    assert pcp_answer(pcp(), WISH) == Mapping(Address("11.99.0.11", 4800), "PCP", 1200)
    told = struct.pack("!BBHIHHI", 0, 130, 0, 7, 4774, 4800, 1200)
    assert nat_pmp_outside(struct.pack("!BBHI4B", 0, 128, 0, 7, 11, 99, 0, 11)) == "11.99.0.11"
    assert nat_pmp_answer(told, "11.99.0.11", WISH) == Mapping(
        Address("11.99.0.11", 4800), "NAT-PMP", 1200
    )


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (pcp(result=2), "does not allow it"),
        (pcp(version=0), "does not know PCP"),
        (pcp(nonce=b"another nonc"), "another question"),
        (pcp(inside=22), "another question"),
        (pcp(host=bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 1))), "behind another one"),
        (b"", "does not know PCP"),
    ],
)
def test_what_a_router_does_not_grant_is_told(told, why):
    with pytest.raises(NotMappedError, match=why):
        pcp_answer(told, WISH)


@given(st.binary(max_size=80))
def test_whatever_a_router_says_is_taken_or_refused(told):
    for judge in (
        lambda: pcp_answer(told, WISH),
        lambda: nat_pmp_outside(told),
        lambda: nat_pmp_answer(told, "11.99.0.11", WISH),
    ):
        with contextlib.suppress(NotMappedError):
            judge()


async def test_one_way_after_the_other_is_tried_and_each_reason_told_once():
    async def silent(_wish):
        raise NotMappedError("no answer")

    async def full(_wish):
        raise NotMappedError("it is full")

    with pytest.raises(NotMappedError, match=r"^no answer; it is full$"):
        await ask_router(WISH, (silent, silent, full))


# When the router is asked.


class Router:
    """A router that grants what it is asked for, or says why not."""

    def __init__(self) -> None:
        self.asked: list[Wish] = []
        self.refuses = ""

    async def ask(self, wish):
        return await self.way(wish), self.way

    async def way(self, wish):
        self.asked.append(wish)
        if self.refuses:
            raise NotMappedError(self.refuses)
        return Mapping(Address("11.99.0.11", wish.own.port), "PCP", wish.lease_s)


class Told:
    """Notes what is told of the mapping, beside the cable of the machine."""

    def __init__(self) -> None:
        self.outside: Address | None = None
        self.text = ""
        self.cable: MemoryHost

    def mapped(self, outside, text):
        self.outside, self.text = outside, text


@contextlib.asynccontextmanager
async def mapping(router: Router, hosts: list[Address]):
    told = Told()
    cable, changes = watched_machine()
    told.cable = cable
    keeper = PortMapping(lambda: hosts, told, changes, router=lambda: "192.168.1.1", ask=router.ask)
    async with trio.open_nursery() as nursery:
        await nursery.start(changes.run)
        nursery.start_soon(keeper.run)
        yield told
        nursery.cancel_scope.cancel()


async def test_a_mapping_is_renewed_at_half_its_lease_and_given_back(autojump_clock: MockClock):
    router = Router()
    async with mapping(router, [OWN]) as told:
        await trio.sleep(LEASE_S + 10)
        assert told.outside == Address("11.99.0.11", 4774)
        assert told.text == "mapped 11.99.0.11:4774 by PCP"
        assert len(router.asked) == 3
        assert len({wish.nonce for wish in router.asked}) == 1

    assert [wish.lease_s for wish in router.asked][-2:] == [LEASE_S, 0]
    assert told.outside is None


async def test_another_address_of_ours_is_mapped_at_once(autojump_clock: MockClock):
    router, hosts = Router(), [OWN]
    async with mapping(router, hosts) as told:
        await trio.sleep(1)
        hosts[:] = [Address("192.168.1.9", 4774)]
        told.cable.tell_of_change()
        await trio.sleep(2 * SETTLE_S)

        assert [(wish.own.host, wish.lease_s) for wish in router.asked] == [
            ("192.168.1.2", LEASE_S), ("192.168.1.2", 0), ("192.168.1.9", LEASE_S),
        ]  # fmt: skip


async def test_a_router_that_refuses_is_asked_again_later(autojump_clock: MockClock):
    router = Router()
    router.refuses = "it has no more ports"
    async with mapping(router, [OWN]) as told:
        await trio.sleep(ROUTER_RETRY_S - 10)
        assert (told.outside, told.text) == (None, "not mapped: it has no more ports")
        assert len(router.asked) == 1
        router.refuses = ""
        await trio.sleep(20)
        assert told.text == "mapped 11.99.0.11:4774 by PCP"


@pytest.mark.parametrize("host", ["11.0.0.5", "127.0.0.1", "fd00::1"])
async def test_nothing_is_asked_where_no_router_is_in_the_way(autojump_clock: MockClock, host):
    router = Router()
    async with mapping(router, [Address(host, 4774)]):
        await trio.sleep(ROUTER_RETRY_S)

    assert router.asked == []


# A real router.

CONFIG = """
ext_ifname=out
listening_ip=in
enable_natpmp={pcp}
enable_upnp={upnp}
ext_ip=11.99.0.11
uuid=1f1987de-cefa-4b38-8ab3-c957699f32a8
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
allow 1024-65535 192.168.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""

WAYS = {"PCP": {"pcp": "yes", "upnp": "no"}, "UPnP": {"pcp": "no", "upnp": "yes"}}

RULES = """
table inet filter {
 chain forward { type filter hook forward priority 0; policy drop;
  ct state established,related accept; iifname "in" accept; jump miniupnpd
 }
 chain miniupnpd { }
 chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
 chain prerouting_miniupnpd { }
 chain postrouting { type nat hook postrouting priority 100;
  jump postrouting_miniupnpd; oifname "out" masquerade
 }
 chain postrouting_miniupnpd { }
}
"""


@contextlib.contextmanager
def home(tmp_path: Path, way: str) -> Iterator[tuple[Host, Host, Host]]:
    """Give a host behind a router that passes ports on, that router, and a host outside."""
    program = shutil.which("miniupnpd", path="/usr/sbin:/usr/bin")
    if program is None or shutil.which("nft") is None:
        pytest.skip("not installed: miniupnpd, nft")
    with open_wires() as wires:
        inside, street = wires.switch(), wires.switch()
        router = wires.host(inside, "192.168.1.1")
        router.run("ip link set eth0 down; ip link set eth0 name in; ip link set in up")
        wires.plug(router, street, "11.99.0.11", "out")
        router.run("echo 1 >/proc/sys/net/ipv4/ip_forward")
        (tmp_path / "rules").write_text(RULES)
        router.run(f"nft -f {tmp_path}/rules")
        (tmp_path / "config").write_text(CONFIG.format(**WAYS[way]))
        host = wires.host(inside, "192.168.1.2", router="192.168.1.1")
        friend = wires.host(street, "11.99.0.7")
        command = [*router.inside, program, "-d", "-f", str(tmp_path / "config"), "-P",
                   str(tmp_path / "pid")]  # fmt: skip
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as daemon:
            try:
                yield host, router, friend
            finally:
                daemon.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_router_lets_a_friend_in_and_shuts_the_door_again(tmp_path: Path, way: str):
    def p2pfs(host: Host, *arguments: str) -> str:
        program = f"env -u P2PFS_ALONE {sys.executable} -m p2pfs"
        return host.run(f"cd {tmp_path}; {program} {' '.join(arguments)}")

    def status() -> dict[str, Any]:
        return json.loads(p2pfs(host, "status --json -m home"))

    def doors() -> list[str]:
        return re.findall("dnat .*4774", router.run("nft list ruleset"))

    with home(tmp_path, way) as (host, router, friend):
        p2pfs(host, "serve --no-lan --listen 4774 --state home")
        try:
            until(lambda: status()["reachable"] == f"mapped 11.99.0.11:4774 by {way}")
            assert "p2pfs mount ~/p2p --join 11.99.0.11:4774" in status()["join_commands"]
            assert len(doors()) == 1
            p2pfs(friend, "serve --no-lan --no-port-mapping --join 11.99.0.11:4774 --state friend")
            until(lambda: status()["neighbours"] == 1)
            p2pfs(friend, "unmount friend")
        finally:
            p2pfs(host, "unmount home")
        assert doors() == []
