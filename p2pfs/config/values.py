"""Values of knobs as people write them, and back: sizes, rates, hosts, names.

Each `parse_` function takes a value of TOML or of the command line, and raises ValueError with a
text for people if it refuses it.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import os
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final, TypeVar
from unicodedata import normalize

from p2pfs.attempts import DISK_ANSWERS_S, Attempt
from p2pfs.config.knobs import (
    DEFAULT_PORT,
    GIB,
    INVITATION_BOUNDS_S,
    KERNEL_FLAGS,
    MAX_CACHE_BYTES,
    MAX_LIMIT_BYTES_PER_S,
    MAX_NAME_LENGTH,
    MIN_CACHE_BYTES,
    MIN_LIMIT_BYTES_PER_S,
    SOURCE,
    STALL_TIMEOUT_BOUNDS_S,
    SharedDirectory,
)
from p2pfs.config.timetable import MAX_CHANGES, Limit, Timetable
from p2pfs.endpoints import Endpoint
from p2pfs.invitations import Invitation, is_of_ours, parse_invitation

E = TypeVar("E", bound=enum.StrEnum)

OFF: Final = "off"
"""The word for no limit, in place of a rate."""

_MAX_HOST_LENGTH: Final = 253
"""The longest name that DNS can hold."""

_UNITS: Final = {
    "": 1, "k": 1024, "m": 1024**2, "g": GIB, "t": 1024**4,
    "b": 1, "kib": 1024, "mib": 1024**2, "gib": GIB, "tib": 1024**4,
    "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
}  # fmt: skip
# As in coreutils: 10G and 10GiB are powers of two, 10GB is ten thousand million.
_WRITTEN: Final = ("t", "g", "m", "k", "tb", "gb", "mb", "kb")
"""The units in which sizes are told; of two that are as short the first."""
_TIME_UNITS: Final = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_BIT_UNITS: Final = {"k": 1000, "m": 1000**2, "g": 1000**3}
# As on every line's contract: powers of ten.


def parse_name(value: object) -> str:
    """Return a servent's name. It becomes a folder name below `peers/` elsewhere.

    Raises:
        ValueError: it cannot be one.
    """
    text = _text(value)
    if not 0 < len(text) <= MAX_NAME_LENGTH or len(text.encode()) > 255:
        raise ValueError(f"a name has 1 to {MAX_NAME_LENGTH} characters")
    if not text.isprintable() or "/" in text or text.startswith(".") or text != text.strip():
        raise ValueError("a name is printable, without `/`, leading dot or outer spaces")
    return text


def parse_size(value: object) -> int:
    """Return a number of bytes from 4096, "10G", "1.5 GiB" (powers of two) or "20MB".

    Raises:
        ValueError: it is none.
    """
    count = _bytes(_text(value), _UNITS)
    if count is None:
        raise ValueError(f"{quoted(value)} is not a size such as 500M or 10G")
    return count


def parse_cache_size(value: object) -> int:
    """Return a size that a cache can have.

    Raises:
        ValueError: it is none.
    """
    size = parse_size(value)
    if not MIN_CACHE_BYTES <= size <= MAX_CACHE_BYTES:
        raise ValueError(f"{quoted(value)} is not a size of 64M or more")
    return size


def parse_rate(value: object) -> int | None:
    """Return bytes per second from a size or from "8Mbit", with or without "/s".

    0 is no limit: None.

    Raises:
        ValueError: it is none, or too small for anything to arrive.
    """
    text = re.sub(r"/s$", "", _text(value))
    rate = _bytes(text, _UNITS)
    if rate is None and (bits := _bytes(re.sub(r"bits?$", "", text), _BIT_UNITS)) is not None:
        rate = bits // 8
    if rate is None:
        raise ValueError(f"{quoted(value)} is not a rate such as 500K, 20MB/s or 8Mbit")
    if rate and not MIN_LIMIT_BYTES_PER_S <= rate <= MAX_LIMIT_BYTES_PER_S:
        raise ValueError(f"{quoted(value)} is not a rate of 16K a second or more, nor 0: no limit")
    return rate or None


def parse_limit(value: object) -> Limit:
    """Return a limit from a rate, "off", or a timetable such as "08:00 512KiB, 23:00 off".

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not re.match(r"\s*\d+:", value):
        return _rate_or_off(value)
    changes = [_change(text) for text in value.split(",")]
    if len({start for start, _ in changes}) < len(changes):
        raise ValueError(f"{quoted(value)} has two rates for one time")
    if len(changes) > MAX_CHANGES:
        raise ValueError(f"a timetable has {MAX_CHANGES} changes a day at most")
    return Timetable(tuple(sorted(changes, key=lambda change: change[0])))


def _change(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"\s*(\d{1,2}):(\d{2})\s+(\S.*?)\s*", text, re.ASCII)
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise ValueError(f"{quoted(text.strip())} is not a time and a rate such as 08:00 512KiB")
    return 60 * int(match[1]) + int(match[2]), _rate_or_off(match[3])


def _rate_or_off(value: object) -> int | None:
    return None if value == OFF else parse_rate(value)


def limit_option(limit: Limit) -> str:
    """Return a limit as people write it; no limit is "off"."""
    if isinstance(limit, Timetable):
        return ", ".join(
            f"{start // 60:02}:{start % 60:02} {limit_option(rate)}"
            for start, rate in limit.changes
        )
    return OFF if limit is None else size_option(limit)


def parse_endpoint(value: object, *, min_port: int = 1) -> Endpoint:
    """Return the endpoint from "host:4774", "[::1]:4774" or "host" (the default port).

    Raises:
        ValueError: it is none.
    """
    text = _text(value)
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]+))(?::(\d{1,5}))?", text, re.ASCII)
    if match is None:
        raise ValueError(f"{quoted(text)} is not HOST:PORT (IPv6 as [::1]:{DEFAULT_PORT})")
    host = match[2] or _ipv6(match[1])
    if len(host) > _MAX_HOST_LENGTH or not host.isprintable() or re.search(r"[\s/@]", host):
        raise ValueError(f"{quoted(host)} is not a host name or address")
    return Endpoint(host, _port(match[3] or DEFAULT_PORT, min_port))


def parse_join(value: object) -> Endpoint | Invitation:
    """Return the endpoint or the invitation that a text means.

    Raises:
        ValueError: it is neither; the text says what is wrong with it.
    """
    text = _text(value)
    return parse_invitation(text) if is_of_ours(text) else parse_endpoint(text)


def parse_duration(value: object) -> int:
    """Return the seconds in "90m", "12h", "7d" or "4w".

    Raises:
        ValueError: it is none, or shorter or longer than an invitation may hold.
    """
    text = _text(value)
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip().lower(), re.ASCII)
    if match is None:
        raise ValueError(f"{quoted(text)} is no time such as 90m, 12h, 7d or 4w")
    seconds = int(match[1]) * _TIME_UNITS[match[2]]
    shortest, longest = INVITATION_BOUNDS_S
    if not shortest <= seconds <= longest:
        raise ValueError("an invitation holds for a minute at least, and a year at most")
    return seconds


def parse_listen(value: object) -> tuple[str | None, tuple[int, ...]]:
    """Return the host, None for every interface, and the port from "[HOST:]PORT".

    Raises:
        ValueError: it is neither.
    """
    text = _text(value)
    if re.fullmatch(r":?\d{1,5}", text, re.ASCII):
        return None, (_port(text.removeprefix(":"), 0),)
    if ":" not in text:
        raise ValueError(f"{quoted(text)} is not [HOST:]PORT")
    endpoint = parse_endpoint(text, min_port=0)
    return endpoint.host, (endpoint.port,)


def size_option(count: int) -> str:
    """Return 10737418240 as "10G" and 2000000 as "2MB": the shortest that is exact."""
    exact = (name for name in _WRITTEN if count and count % _UNITS[name] == 0)
    texts = [f"{count // _UNITS[name]}{name.upper()}" for name in exact]
    return min(texts, key=len, default=f"{count}B")


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Path):
        raise ValueError(f"{quoted(value)} is not a text")
    return str(value)


def quoted(value: object) -> str:
    """Return a value as a complaint shows it; a text is not shown whole if it is long."""
    return reprlib.repr(value)


def _bytes(text: str, units: Mapping[str, int]) -> int | None:
    """Return the product of a number and its unit, or None if the text is not of this form."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([a-z]*)", text.lower(), re.ASCII)
    if match is None:
        return None
    number, suffix = match.groups()
    unit = units.get(suffix)
    if unit is None or (unit == 1 and "." in number):
        return None
    return int(Fraction(number) * unit)


def parse_flag(value: object) -> bool:
    """Return the value of a flag in config.toml; ValueError if it is no boolean."""
    if not isinstance(value, bool):
        raise ValueError(f"{quoted(value)} is neither true nor false")
    return value


def flag_from(text: str) -> bool:
    """Return the value of a flag from a word such as `on` or `false`.

    Raises:
        ValueError: it is neither true nor false.
    """
    words = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
    if text.lower() not in words:
        raise ValueError(f"{quoted(text)} is neither true nor false")
    return words[text.lower()]


def one_of(kind: type[E]) -> Callable[[object], E]:
    """Return a parser of the words of an enum."""

    def parse(value: object) -> E:
        try:
            return kind(_text(value))
        except ValueError:
            raise ValueError(f"{quoted(value)} is none of {', '.join(kind)}") from None

    return parse


def integer(low: int, high: int) -> Callable[[object], int]:
    """Return a parser of whole numbers from `low` to `high`."""

    def parse(value: object) -> int:
        text = _text(value)
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(f"{quoted(value)} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def parse_stall_timeout(value: object) -> float:
    """Return a number of seconds within STALL_TIMEOUT_BOUNDS_S, or raise ValueError."""
    low, high = STALL_TIMEOUT_BOUNDS_S
    text = str(value)
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text, re.ASCII) or not low <= float(text) <= high:
        raise ValueError(f"{quoted(value)} is not a number of seconds from {low:g} to {high:g}")
    return float(text)


def file_in(state_directory: Path) -> Callable[[object], Path]:
    """Return a parser of paths that start at the state directory unless they are whole."""
    # In config.toml a relative path starts at that file; the command line gives whole ones.
    return lambda value: state_directory / Path(_text(value)).expanduser()


def parse_joins(value: object) -> tuple[Endpoint | Invitation, ...]:
    """Return one address or invitation, or each of a list; ValueError names one that is neither."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(parse_join(one) for one in values)


def parse_groups(value: object) -> Mapping[str, tuple[str, ...]]:
    """Return groups of servents, by name, from a table of lists of ids.

    Raises:
        ValueError: it is no such table.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{quoted(value)} is no table of groups")
    return {_group_name(name): _ids_in(ids) for name, ids in value.items()}


def _group_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]{0,63}", name) or is_servent_id(name):
        raise ValueError(f"{quoted(name)} is no name for a group")
    return name


def _ids_in(values: object) -> tuple[str, ...]:
    ids = tuple(map(_text, values if isinstance(values, list) else [values]))
    wrong = next((one for one in ids if not is_servent_id(one)), None)
    if wrong is not None:
        raise ValueError(f"{quoted(wrong)} is no servent id: `p2pfs peers` shows them")
    return ids


def is_servent_id(text: str) -> bool:
    """Return whether a text is the id of a servent."""
    return re.fullmatch(r"[a-z2-7]{32}", text) is not None


def parse_to(values: Sequence[object]) -> tuple[str, ...]:
    """Return the ids and groups to which a share is limited, each once.

    Raises:
        ValueError: one of them is neither an id nor a possible name.
    """
    to = tuple(dict.fromkeys(_text(one) for one in values))
    return tuple(one if is_servent_id(one) else _group_name(one) for one in to)


def shares_in(state_directory: Path) -> Callable[[object], tuple[SharedDirectory, ...]]:
    """Return a parser of the table of directories that are shared where they lie."""

    def parse(value: object) -> tuple[SharedDirectory, ...]:
        rows = value if isinstance(value, list) else [value]
        shares = tuple(_shared_directory(row, state_directory) for row in rows)
        for kind in ("name", "directory"):
            if len({getattr(shared, kind) for shared in shares}) < len(shares):
                raise ValueError(f"two of them have one {kind}")
        return shares

    return parse


def _shared_directory(row: object, state_directory: Path) -> SharedDirectory:
    if not isinstance(row, dict) or not row.keys() <= {"directory", "as", "read-only", "to"}:
        raise ValueError(f"{quoted(row)} is no table of directory, as, read-only and to")
    if not row.get("directory"):
        raise ValueError(f"{quoted(row)} names no directory")
    path = file_in(state_directory)(row["directory"])
    to = row.get("to", ())
    if "to" in row and not to:
        raise ValueError("to names nobody: leave it out to share with everybody")
    return shared_directory(
        path,
        row.get("as"),
        is_read_only=parse_flag(row.get("read-only", False)),
        to=to if isinstance(to, list | tuple) else [to],
    )


def shared_directory(
    directory: Path,
    name: object = None,
    *,
    is_read_only: bool = False,
    to: Sequence[object] = (),
) -> SharedDirectory:
    """Return the share of a directory, under its own name unless another is given.

    Raises:
        ValueError: it cannot have this name, or cannot be limited to these.
    """
    # Links are looked for, but by no start or verb for ever: its disk may be silent.
    followed = Attempt(functools.partial(os.path.realpath, directory)).result(DISK_ANSWERS_S)
    place = followed or os.path.abspath(directory)
    label = normalize("NFC", _text(os.path.basename(place) if name is None else name))
    if not label or "/" in label or label.startswith("."):
        what = f"{quoted(label)} is no name" if label else "there is no name"
        raise ValueError(f"{what} for a directory in shared/; give one with --as")
    return SharedDirectory(label, place, is_read_only=is_read_only, to=parse_to(to))


def parse_kernel_options(value: object) -> tuple[str, ...]:
    """Return one option of the kernel, or each of a list; ValueError for one we do not pass."""
    options = tuple(map(_text, value if isinstance(value, list | tuple) else [value]))
    for option in options:
        if option not in KERNEL_FLAGS and not option.startswith(f"{SOURCE}="):
            raise ValueError(f"{option!r} is none of {', '.join(sorted(KERNEL_FLAGS))}")
    return options


def _port(value: str | int, low: int) -> int:
    port = int(value)
    if not low <= port <= 65_535:
        raise ValueError(f"{port} is not a port from {low} to 65535")
    return port


def _ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError(f"{quoted(text)} is not an IPv6 address") from None
