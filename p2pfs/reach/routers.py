"""How a router is asked to pass a port on: PCP, NAT-PMP, UPnP.

Theory. The three are tried from the best to the most widespread. PCP (RFC 6887) and NAT-PMP
(RFC 6886) are one datagram and its answer, and a router that knows only the older one answers a
question in the newer with its own version. `upnp` is the third. All of them ask the router through
which this machine leaves and hear nobody else. Its answer is checked as a stranger's is: it must
repeat our nonce and port, and what it grants must lead to us (`wishes`).
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

import trio

from p2pfs.errors import UnreachableError
from p2pfs.link import ask_by_datagram
from p2pfs.protocol import Address
from p2pfs.reach.upnp import by_upnp
from p2pfs.reach.wishes import Mapping, NotMappedError, Way, Wish, checked

PORT: Final = 5351
"""Where routers are asked, in PCP and NAT-PMP."""

WAITS_S: Final = (0.25, 0.5, 1.0)
"""A question is repeated after each; the RFCs go on for a minute, but our user waits."""

PCP_NONCE_BYTES: Final = 12
_TCP: Final = 6
_PCP_ASK: Final = struct.Struct("!BBHI16s12sB3xHH16s")
_PCP_TOLD: Final = struct.Struct("!BBxBII12x12sB3xHH16s")
_PCP: Final = 2
_MAP: Final = 1
_TOLD: Final = 0x80
_PMP_ASK: Final = struct.Struct("!BBHHHI")
_PMP_TOLD: Final = struct.Struct("!BBHIHHI")
_PMP_OUTSIDE: Final = struct.Struct("!BBHI4s")
_PMP: Final = 0
_PMP_TCP: Final = 2

PCP_RESULTS: Final = {2: "it does not allow it", 8: "it has no more ports", 11: "it may not"}
"""The result codes in words for people (RFC 6887, section 7.4)."""


async def by_pcp(wish: Wish) -> Mapping:
    """Ask in PCP."""
    told = await _ask(wish.router, pcp_question(wish))
    return pcp_answer(told, wish)


def pcp_question(wish: Wish) -> bytes:
    """Return a MAP request (RFC 6887, sections 7.1 and 11.1)."""
    port = wish.own.port
    return _PCP_ASK.pack(
        _PCP, _MAP, 0, wish.lease_s, _mapped(wish.own.host), wish.nonce, _TCP, port, port,
        _mapped("0.0.0.0"),  # noqa: S104 - any address outside
    )  # fmt: skip


def pcp_answer(told: bytes, wish: Wish) -> Mapping:
    """Return the mapping that a MAP response grants."""
    if len(told) < _PCP_TOLD.size or told[0] != _PCP:
        raise NotMappedError("the router does not know PCP")
    version, kind, result, lease_s, _, nonce, _, inside, port, host = _PCP_TOLD.unpack_from(told)
    if (version, kind, nonce, inside) != (_PCP, _MAP | _TOLD, wish.nonce, wish.own.port):
        raise NotMappedError("the router's answer is to another question")
    if result:
        reason = PCP_RESULTS.get(result, f"result {result}")
        raise NotMappedError(f"the router refuses: {reason} (PCP)")
    outside = ipaddress.IPv6Address(host)
    granted = Address(str(outside.ipv4_mapped or outside), port)
    return checked(Mapping(granted, "PCP", lease_s), wish)


async def by_nat_pmp(wish: Wish) -> Mapping:
    """Ask in NAT-PMP: for our address outside, and then for the port."""
    host = nat_pmp_outside(await _ask(wish.router, bytes((_PMP, 0))))
    question = _PMP_ASK.pack(
        _PMP, _PMP_TCP, 0, wish.own.port, wish.own.port if wish.lease_s else 0, wish.lease_s
    )
    return nat_pmp_answer(await _ask(wish.router, question), host, wish)


def nat_pmp_outside(told: bytes) -> str:
    """Return the address that the router has outside (RFC 6886, section 3.2)."""
    if len(told) < _PMP_OUTSIDE.size:
        raise NotMappedError("the router does not know NAT-PMP")
    version, kind, result, _, host = _PMP_OUTSIDE.unpack_from(told)
    if (version, kind, result) != (_PMP, _TOLD, 0):
        raise NotMappedError(f"the router refuses: result {result} (NAT-PMP)")
    return str(ipaddress.IPv4Address(host))


def nat_pmp_answer(told: bytes, host: str, wish: Wish) -> Mapping:
    """Return the mapping that the answer to a request grants (RFC 6886, section 3.3)."""
    if len(told) < _PMP_TOLD.size:
        raise NotMappedError("the router does not know NAT-PMP")
    version, kind, result, _, inside, port, lease_s = _PMP_TOLD.unpack_from(told)
    if (version, kind, inside) != (_PMP, _PMP_TCP | _TOLD, wish.own.port):
        raise NotMappedError("the router's answer is to another question")
    if result:
        raise NotMappedError(f"the router refuses: result {result} (NAT-PMP)")
    return checked(Mapping(Address(host, port), "NAT-PMP", lease_s), wish)


WAYS: Final[tuple[Way, ...]] = (by_pcp, by_nat_pmp, by_upnp)
"""In the order in which they are tried."""


async def _ask(router: str, question: bytes) -> bytes:
    try:
        return await ask_by_datagram(Address(router, PORT), question, WAITS_S)
    except UnreachableError as error:
        raise NotMappedError("the router answers neither PCP nor NAT-PMP") from error


def _mapped(host: str) -> bytes:
    return ipaddress.IPv6Address(f"::ffff:{host}").packed


async def ask_router(wish: Wish, ways: tuple[Way, ...] = WAYS) -> tuple[Mapping, Way]:
    """Return the mapping that the first way grants which succeeds, and that way.

    Raises:
        NotMappedError: none does; the text has the reason of each, once.
    """
    reasons: dict[str, None] = {}
    for way in ways:
        await trio.lowlevel.checkpoint()
        try:
            return await way(wish), way
        except NotMappedError as error:
            reasons[str(error)] = None
    raise NotMappedError("; ".join(reasons))
