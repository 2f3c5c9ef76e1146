"""Ask a router in UPnP to pass a port on: SSDP, a description, SOAP.

Theory. UPnP finds an Internet Gateway Device by multicast. Anybody in the room may answer, and an
answer says where the device describes itself, which says where it is to be asked. We ask the router
through which this machine leaves, and nobody else: a port that another device passes on leads to
nobody, and who answers first could have us fetch anything from anywhere. So an answer must come
from the router's own address, and each URL must lead there. Who can forge that address in the
room can refuse us the mapping, and has us ask the router some questions that it could ask itself.

No library does this: miniupnpc takes descriptions without end (2.95 GB in 40 s), sends requests to
any machine that an answer names, and cannot be cancelled. Nothing that comes here is longer than
MAX_TOLD_BYTES. A document with a DOCTYPE is refused: entities that stand for entities are all that
makes a small one large.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn
from urllib.parse import urljoin, urlsplit
from xml.parsers import expat

import trio

from p2pfs.errors import UnreachableError
from p2pfs.journal import printable
from p2pfs.link import ask_by_stream, search_by_datagram
from p2pfs.protocol import Address
from p2pfs.reach.wishes import Mapping, NotMappedError, Wish, checked

SEARCH: Final = Address("239.255.255.250", 1900)
"""Where devices listen for searches (UPnP Device Architecture 1.1, section 1.3)."""

SEARCH_S: Final = 2.0
"""How long a router has to answer the search (UPnP's own default)."""

ASKED_S: Final = 2.0
"""How long the router has for one question over TCP: a lost SYN and its answer."""

UPNP_S: Final = 8.0
"""How long all of it may take: the search, and three questions over TCP."""

MAX_TOLD_BYTES: Final = 64 * 1024
"""Of one answer: descriptions of routers have three to twenty KiB."""

MAX_SERVICES: Final = 4
"""Services of one device that are asked: a router has one for each of its ways out."""

MAX_PATH_LENGTH: Final = 512
"""Of a URL: those of routers have some thirty characters."""

MAX_FAULT_LENGTH: Final = 80
"""Of what a router says of a fault, for people."""

_DEVICE: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:"
_SERVICE: Final = "urn:schemas-upnp-org:service:"

_WANTED: Final = (f"{_DEVICE}1", f"{_DEVICE}2", f"{_SERVICE}WANIPConnection:1")
_ASKED: Final = re.compile(rf"{_SERVICE}WAN(IP|PPP)Connection:[12]")

_SEEK: Final = (
    f"M-SEARCH * HTTP/1.1\r\nHOST: {SEARCH}\r\n"
    'MAN: "ssdp:discover"\r\nMX: 1\r\nST: {wanted}\r\n\r\n'
)
_QUESTION: Final = "{what} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n"
_SOAP: Final = (
    '<?xml version="1.0"?>\r\n'
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
    's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
    '<u:{action} xmlns:u="{service}">{arguments}</u:{action}></s:Body></s:Envelope>\r\n'
)

_LOCATION: Final = re.compile(rb"\r\nlocation:[ \t]*([!-~]+)", re.IGNORECASE)
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,6})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_PATH: Final = re.compile(r"/[!-~]*")


async def by_upnp(wish: Wish) -> Mapping:
    """Ask in UPnP, which takes some seconds."""
    with trio.move_on_after(UPNP_S):
        try:
            return checked(await _by_search(wish), wish)
        except UnreachableError as error:
            raise NotMappedError(f"{error} (UPnP)") from error
    raise NotMappedError("the router takes too long (UPnP)")


async def _by_search(wish: Wish) -> Mapping:
    """Ask each device that answers, until one grants the wish."""
    questions = [_SEEK.format(wanted=wanted).encode() for wanted in _WANTED]
    told = await search_by_datagram(wish.own.host, SEARCH, wish.router, questions, SEARCH_S)
    reason = NotMappedError("no router answers to UPnP")
    for url in dict.fromkeys(map(location_of, told)):
        try:
            return await _by_description(url, wish)
        except (NotMappedError, UnreachableError) as error:
            reason = NotMappedError(str(error))
    raise reason


def location_of(told: bytes) -> str:
    """Return where a device that answers a search describes itself; empty if it does not say."""
    found = _LOCATION.search(told)
    return found[1].decode() if found else ""


async def _by_description(url: str, wish: Wish) -> Mapping:
    where, path = place_of(url, wish.router)
    description = await _asked(where, f"GET {path}", "", b"")
    services = list(services_of(description, url, wish.router))[:MAX_SERVICES]
    reason = NotMappedError("the router passes no ports on (UPnP)")
    for service, control in services:
        try:
            return await _by_service(service, control, wish)
        except NotMappedError as error:
            reason = error
    raise reason


def place_of(url: str, router: str) -> tuple[Address, str]:
    """Return the address and the path of a URL.

    Raises:
        NotMappedError: it leads to another host than the router, or is none of HTTP.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_path = _PATH.fullmatch(path) and len(path) <= MAX_PATH_LENGTH
    if parts.scheme != "http" or host != router or not is_path:
        raise NotMappedError("what answers to UPnP leads elsewhere than to the router")
    return Address(router, port), path


def services_of(description: bytes, url: str, router: str) -> Iterator[tuple[str, str]]:
    """Return the services of a device that pass ports on, and the URL where each is asked."""
    base, service, control = url, "", ""
    for tag, text in elements_of(description):
        if tag == "URLBase" and _leads_to(text, router):
            base = text
        elif tag == "serviceType":
            service = text
        elif tag == "controlURL":
            control = text
        elif tag == "service" and _ASKED.fullmatch(service):
            yield service, _joined(base, control)


def _joined(base: str, rest: str) -> str:
    try:
        return urljoin(base, rest)
    except ValueError:
        return ""


def _leads_to(url: str, router: str) -> bool:
    try:
        place_of(url, router)
    except NotMappedError:
        return False
    return True


def elements_of(document: bytes) -> Sequence[tuple[str, str]]:
    """Return the elements of an XML document as they end, each with the text right before that.

    Raises:
        NotMappedError: it is no such document, or declares what it is made of.
    """
    found: list[tuple[str, str]] = []
    text: list[str] = []

    def ended(tag: str) -> None:
        found.append((tag.rpartition(":")[2], "".join(text).strip()))
        text.clear()

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse
    parser.StartElementHandler = lambda _tag, _attributes: text.clear()
    parser.CharacterDataHandler = text.append
    parser.EndElementHandler = ended
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise NotMappedError("the router says what is no XML (UPnP)") from error
    return found


def _refuse(*_declared: object) -> NoReturn:
    raise NotMappedError("the router's XML declares what it is made of (UPnP)")


async def _by_service(service: str, control: str, wish: Wish) -> Mapping:
    port = wish.own.port
    named = {"NewRemoteHost": "", "NewExternalPort": port, "NewProtocol": "TCP"}
    if not wish.lease_s:
        await _call(service, control, wish, "DeletePortMapping", named)
        return Mapping(Address("", port), "UPnP", 0)
    rest = {
        "NewInternalPort": port, "NewInternalClient": wish.own.host, "NewEnabled": 1,
        "NewPortMappingDescription": "p2pfs", "NewLeaseDuration": wish.lease_s,
    }  # fmt: skip
    told = await _call(service, control, wish, "GetExternalIPAddress", {})
    outside = Address(_ipv4(told.get("NewExternalIPAddress", "")), port)
    await _call(service, control, wish, "AddPortMapping", named | rest)
    return Mapping(outside, "UPnP", wish.lease_s)


def _ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise NotMappedError("the router does not know its own address (UPnP)") from None


async def _call(
    service: str, control: str, wish: Wish, action: str, arguments: dict[str, object]
) -> dict[str, str]:
    """Have a service do something, and return what it says, by name."""
    where, path = place_of(control, wish.router)
    words = "".join(f"<{name}>{value}</{name}>" for name, value in arguments.items())
    body = _SOAP.format(action=action, service=service, arguments=words).encode()
    more = (
        f'Content-Type: text/xml; charset="utf-8"\r\nSOAPAction: "{service}#{action}"\r\n'
        f"Content-Length: {len(body)}\r\n"
    )
    return dict(elements_of(await _asked(where, f"POST {path}", more, body)))


async def _asked(where: Address, what: str, more: str, body: bytes) -> bytes:
    """Return what is answered over HTTP; NotMappedError if it is a fault or leads elsewhere."""
    question = _QUESTION.format(what=what, host=where, more=more).encode() + body
    told = b""
    with trio.move_on_after(ASKED_S) as scope:
        told = await ask_by_stream(where, question, MAX_TOLD_BYTES, _is_whole)
    if scope.cancelled_caught:
        raise NotMappedError("the router takes too long (UPnP)")
    status = _STATUS.match(told)
    if status is None or int(status[1]) != 200:
        raise NotMappedError(f"the router refuses: {_fault_of(told)} (UPnP)")
    return body_of(told)


def _fault_of(told: bytes) -> str:
    """Return what a router says of a fault, for people."""
    try:
        said = dict(elements_of(body_of(told)))
    except NotMappedError:
        said = {}
    text = said.get("errorDescription") or said.get("errorCode") or "it does not say why"
    return printable(text[:MAX_FAULT_LENGTH])


def _is_whole(told: bytes | bytearray) -> bool:
    head, found, body = told.partition(b"\r\n\r\n")
    if not found:
        return False
    length = _LENGTH.search(head + b"\r\n")
    if length:
        return len(body) >= int(length[1])
    return bool(_CHUNKED.search(head)) and body.endswith(b"0\r\n\r\n")


def body_of(told: bytes) -> bytes:
    """Return what follows the head of an answer over HTTP, its chunks put together."""
    head, _, body = told.partition(b"\r\n\r\n")
    return b"".join(_chunks(body)) if _CHUNKED.search(head) else body


def _chunks(body: bytes) -> Iterator[bytes]:
    at = 0
    while (end := body.find(b"\r\n", at)) >= 0:
        digits = body[at:end].partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,6}", digits):
            raise NotMappedError("the router says what is no HTTP (UPnP)")
        size, at = int(digits, 16), end + 2
        if not size:
            return
        yield body[at : at + size]
        at += size + 2
