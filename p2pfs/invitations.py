"""Invitations: one line of text, or a QR code, by which people let others join their network.

An invitation says how to join: which servents to dial, each with its id, so that nobody else can
take its place; the key of a private network; until when it holds; and a check, so that a lost
character is told from a wrong one. All of it is one word of capital letters and digits behind
`p2pfs:join/`, which a QR code holds in its smallest mode.

Nothing here waits, or reads the time, a disk or a network.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from p2pfs.endpoints import Endpoint

SCHEMES: Final = ("p2pfs", "peerfs")
"""The second has no digit: some programs take a scheme with a digit for the name of a file."""

INVITATION_VERSION: Final = 1

MAX_SERVENTS: Final = 3
"""Servents in one invitation: the one that invites, and two in case it is away."""

MAX_ADDRESSES: Final = 4
"""Addresses of each (`messages.MAX_ADDRESSES`)."""

MAX_KEY_BYTES: Final = 255

MAX_TEXT: Final = 4_096
"""Characters of any line that is read; the longest invitation has some 1,500."""

ID_BYTES: Final = 20
CHECK_BYTES: Final = 4
"""A wrong character passes once in four thousand million."""

_HEAD: Final = struct.Struct(">BIB")  # version, end of its time, length of the key
LAST_END: Final = 2**32 - 1
"""The latest end that an invitation can have, in seconds since 1970: a day in 2106."""

_PORT: Final = struct.Struct(">H")
_IPV4, _IPV6, _NAME = range(3)
_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_CHECK_CONTEXT: Final = b"p2pfs invitation"


@dataclass(frozen=True)
class Invited:
    """A servent to join through."""

    id: str
    places: tuple[Endpoint, ...]


@dataclass(frozen=True)
class Invitation:
    """What an invitation says."""

    ends_at: int
    """In seconds since 1970; 0 is never."""
    servents: tuple[Invited, ...]
    key: bytes | None = None
    """The passphrase of a private network, or None for the open one."""

    def has_ended(self, now: float) -> bool:
        """Return whether it holds no more, at a time in seconds since 1970."""
        return 0 < self.ends_at <= now

    @property
    def end(self) -> str:
        """Until when it holds, for people."""
        if not self.ends_at:
            return "for ever"
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.ends_at))

    def __str__(self) -> str:
        """Return the line that people pass on."""
        return f"{SCHEMES[0]}:join/{_armoured(_packed(self))}"


def is_of_ours(text: str) -> bool:
    """Return whether a text is meant as an invitation."""
    return text.strip().partition(":")[0].lower() in SCHEMES


def parse_invitation(text: str) -> Invitation:
    """Read an invitation, as it was printed or as a QR code gives it.

    Raises:
        ValueError: it is none, or damaged; the text says what is wrong with it.
    """
    kind, word = _parts(text)
    if kind != "join":
        raise ValueError("that is not an invitation: one begins with p2pfs:join/")
    return _unpacked(_unarmoured(word.upper()))


def _parts(text: str) -> tuple[str, str]:
    """Return what kind of line it is, and what stands behind that."""
    text = "".join(text.split())  # a mail may have broken the line
    scheme, _, rest = text.partition(":")
    if scheme.lower() not in SCHEMES or len(text) > MAX_TEXT:
        return "", ""
    kind, _, word = rest.lstrip("/").partition("/")
    return kind.lower(), word


def _armoured(data: bytes) -> str:
    return base64.b32encode(data + _check(data)).decode().rstrip("=")


def _unarmoured(word: str) -> bytes:
    strange = next((one for one in word if one not in _DIGITS), None)
    if strange is not None:
        place = word.index(strange) + 1
        raise ValueError(f"this invitation is damaged: {strange!r} at place {place} is in none")
    try:
        data = base64.b32decode(word + "=" * (-len(word) % 8))
    except binascii.Error:
        raise ValueError("this invitation is not whole: a part of it is missing") from None
    body, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
    if len(data) <= CHECK_BYTES or _check(body) != check:
        raise ValueError("this invitation is damaged: a character is wrong, missing or too much")
    return body


def _check(data: bytes) -> bytes:
    return hashlib.sha256(_CHECK_CONTEXT + data).digest()[:CHECK_BYTES]


def _packed(invitation: Invitation) -> bytes:
    key = invitation.key or b""
    parts = [_HEAD.pack(INVITATION_VERSION, invitation.ends_at, len(key)), key]
    for servent in invitation.servents[:MAX_SERVENTS]:
        places = servent.places[:MAX_ADDRESSES]
        parts += [base64.b32decode(servent.id.upper()), bytes([len(places)])]
        parts += map(_packed_place, places)
    return b"".join(parts)


def _packed_place(place: Endpoint) -> bytes:
    port = _PORT.pack(place.port)
    try:
        address = ipaddress.ip_address(place.host)
    except ValueError:
        name = place.host.encode("ascii")
        return bytes([_NAME, len(name)]) + name + port
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed + port


def _unpacked(data: bytes) -> Invitation:
    if data[0] != INVITATION_VERSION:
        raise ValueError("this invitation is of another version of p2pfs: update this one")
    reader = _Unpacking(data)
    try:
        _, ends_at, key_length = reader.unpack(_HEAD)
        key = reader.take(key_length) or None
        servents = tuple(reader.servents())
    except (struct.error, ValueError, IndexError):
        raise ValueError("this invitation makes no sense: who made it?") from None
    if not servents or not all(one.places for one in servents):
        raise ValueError("this invitation names nobody to join through")
    return Invitation(ends_at, servents, key)


class _Unpacking:
    """Takes apart what was packed; ValueError where that ends too soon."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return the next bytes, or raise ValueError where they end."""
        part = self._data[self._at : self._at + count]
        if len(part) < count:
            raise ValueError
        self._at += count
        return part

    def unpack(self, form: struct.Struct) -> Sequence[int]:
        """Return the next numbers."""
        return form.unpack(self.take(form.size))

    def servents(self) -> Iterator[Invited]:
        """Yield the servents, to the end."""
        count = 0
        while self._at < len(self._data):
            count += 1
            servent_id = base64.b32encode(self.take(ID_BYTES)).decode().lower()
            places = self.take(1)[0]
            if count > MAX_SERVENTS or places > MAX_ADDRESSES:
                raise ValueError
            yield Invited(servent_id, tuple(self._place() for _ in range(places)))

    def _place(self) -> Endpoint:
        kind = self.take(1)[0]
        if kind == _NAME:
            host = self.take(self.take(1)[0]).decode("ascii")
            if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", host):
                raise ValueError
        elif kind in (_IPV4, _IPV6):
            host = str(ipaddress.ip_address(self.take(4 if kind == _IPV4 else 16)))
        else:
            raise ValueError
        (port,) = self.unpack(_PORT)
        if not port:
            raise ValueError
        return Endpoint(host, port)
