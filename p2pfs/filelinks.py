"""Links to files: one line of text that leads other people to a content.

    p2pfs:file/ID?name=blue%20whale.mkv&size=734003200&net=3fa2&via=SERVENT@ADDRESS:PORT

ID is the file id, in hexadecimal. It alone says which content is meant; anything else may be
missing or wrong. `name` and `size` are what people read, `net` tells a private network from others,
and each `via` names an address of a servent that had the file when the link was made.

Nothing here waits, or reads a disk or a network.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final
from urllib.parse import parse_qsl, quote

from p2pfs.endpoints import Endpoint
from p2pfs.invitations import SCHEMES, Invited

FILE_ID_DIGITS: Final = 64
"""Hexadecimal digits of a file id (`messages.FILE_ID_BYTES`)."""

MAX_LINK: Final = 4_096
"""Characters of any link that is read; one of ours has some 1,500 at most."""

MAX_HINTS: Final = 3
"""Addresses in a link: when one servent is away, another may be there."""

MIN_HINT_PORT: Final = 1_024
"""As of any address that a stranger tells (`addresses.MIN_PORT`): below it are other services."""

_HINT: Final = re.compile(
    r"([a-z2-7]{32})@(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]{1,253})):(\d{1,5})"
)


@dataclass(frozen=True)
class FileLink:
    """What a link says."""

    digits: str
    """The file id in hexadecimal."""
    name: str = ""
    """What the file is called; empty if the link does not say."""
    size: int | None = None
    network: str = ""
    """The tag of a private network; empty for the open one."""
    holders: tuple[Invited, ...] = ()
    """Who had it, and where they were: hints."""

    def text(self, scheme: str = SCHEMES[0]) -> str:
        """Return the line that people pass on."""
        fields = [("name", self.name), ("size", "" if self.size is None else str(self.size))]
        fields += [("net", self.network), *(("via", hint) for hint in _hints(self.holders))]
        query = "&".join(f"{key}={quote(value, safe='@:[]')}" for key, value in fields if value)
        return f"{scheme}:file/{self.digits}" + (f"?{query}" if query else "")


def parse_file_link(text: str) -> FileLink:
    """Read a link to a file.

    Raises:
        ValueError: it is none, or damaged; the text says what is wrong with it.
    """
    text = "".join(text.split())  # a mail may have broken the line
    scheme, _, rest = text.partition(":")
    if scheme.lower() not in SCHEMES:
        raise ValueError("that is no link to a file: one begins with p2pfs:file/")
    if len(text) > MAX_LINK:
        raise ValueError(f"this link is too long: {MAX_LINK} characters are the most")
    kind, _, rest = rest.lstrip("/").partition("/")
    if kind.lower() == "join":
        raise ValueError("that is an invitation, not a link to a file: `p2pfs join` takes it")
    if kind.lower() != "file":
        raise ValueError("this link is of another version of p2pfs: update this one")
    word, _, query = rest.partition("?")
    fields = parse_qsl(query, errors="surrogateescape")
    return FileLink(
        _digits_in(word),
        name=_name_in(fields),
        size=_size_in(fields),
        network=_last(fields, "net"),
        holders=tuple(_holders_in(fields)),
    )


def _digits_in(word: str) -> str:
    digits = word.rstrip("/").lower()
    strange = next((one for one in digits if one not in "0123456789abcdef"), None)
    if strange is not None:
        place = digits.index(strange) + 1
        raise ValueError(f"this link is damaged: {strange!r} at place {place} is in no file id")
    if len(digits) != FILE_ID_DIGITS:
        what = "not whole" if len(digits) < FILE_ID_DIGITS else "damaged"
        counts = f"{len(digits)} digits, and not {FILE_ID_DIGITS}"
        raise ValueError(f"this link is {what}: its file id has {counts}")
    return digits


Fields = Sequence[tuple[str, str]]


def _last(fields: Fields, key: str) -> str:
    return next((value for name, value in reversed(fields) if name == key), "")


def _name_in(fields: Fields) -> str:
    name = _last(fields, "name")
    if not name.isprintable() or "/" in name:
        raise ValueError("this link is damaged: its name cannot be the name of a file")
    return name


def _size_in(fields: Fields) -> int | None:
    size = _last(fields, "size")
    if size and not re.fullmatch(r"\d{1,16}", size, re.ASCII):
        raise ValueError("this link is damaged: its size is no number")
    return int(size) if size else None


def _holders_in(fields: Fields) -> Iterator[Invited]:
    hints = [_hint(value) for name, value in fields if name == "via"][:MAX_HINTS]
    for servent_id, ours in groupby(hints, key=lambda hint: hint[0]):
        yield Invited(servent_id, tuple(place for _, place in ours))


def _hint(text: str) -> tuple[str, Endpoint]:
    match = _HINT.fullmatch(text)
    if match is None or int(match[4]) > 65_535 or not _is_address(match[2] or match[3]):
        raise ValueError("this link is damaged: where the file was is no SERVENT@ADDRESS:PORT")
    if int(match[4]) < MIN_HINT_PORT:
        raise ValueError(f"this link leads to port {match[4]}, where no servent is")
    return match[1], Endpoint(match[2] or match[3], int(match[4]))


def _is_address(host: str) -> bool:
    """Return whether it is an IP address: no name is looked up for a stranger's link."""
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _hints(holders: Iterable[Invited]) -> Iterator[str]:
    pairs = [(one.id, place) for one in holders for place in one.places]
    for servent_id, place in pairs[:MAX_HINTS]:
        yield f"{servent_id}@{place}"
