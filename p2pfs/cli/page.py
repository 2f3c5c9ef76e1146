"""The page of `top`: as much as the terminal has room for, and a sign where more exists."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from p2pfs.cli.layout import GAP, Glyphs, Table, cut, cutting_sheet, list_of, number_of, table
from p2pfs.wording import Record, shown, shown_bytes

TRANSFERS: Final = ("path", "done_bytes", "size", "rate_bytes_s", "state", "peers")
PEERS: Final = ("name", "download_bytes_s", "upload_bytes_s", "address", "connected_s", "rtt_ms")

MANY_LINES: Final = 16
"""On a screen with fewer lines, the blank lines and the join commands are left out."""

_NO_RATES: Final[Mapping[str, object]] = {"download_bytes_s": 0, "upload_bytes_s": 0}


@dataclass(frozen=True)
class Snapshot:
    """The answers of a servent to `status`, `transfers` and `peers` at one moment."""

    status: Record
    transfers: Sequence[Record]
    peers: Sequence[Record]
    down_bytes_s: float
    up_bytes_s: float


def page(look: Snapshot, width: int, height: int, glyphs: Glyphs) -> list[Text]:
    """Return at most `height` lines: everything, or of each part as much as fits."""
    sheet = cutting_sheet(width, glyphs)
    transfers = [_with_rates(row) for row in look.transfers]
    uploads = [row for row in transfers if row.get("direction") == "upload"]
    downloads = [row for row in transfers if row not in uploads]
    above = [Text()] if height >= MANY_LINES else []
    parts = [
        _Part("downloads", table(downloads, TRANSFERS, sheet), above),
        _Part("uploads", table(uploads, TRANSFERS, sheet), above),
        _Part("peers", table(all_peers(look), PEERS, sheet), above),
    ]
    head = [cut(line, width, glyphs) for line in _head(look)]
    if height >= MANY_LINES:
        head += [cut(Text(line), width, glyphs) for line in _ways_in(look.status, width)]
    lines = [*head, *_in_turn(parts, height - len(head), glyphs)]
    return lines if len(lines) <= height else [*lines[: height - 1], Text(glyphs.cut)]


def all_peers(look: Snapshot) -> list[Record]:
    """Return the neighbours and all others that something is moved with, the busiest first."""
    neighbours = {peer["id"] for peer in look.peers}
    others: dict[object, dict[str, object]] = {}
    for transfer in look.transfers:
        rate = f"{transfer.get('direction')}_bytes_s"
        for peer in list_of(transfer, "peers"):
            if peer["id"] not in neighbours:
                row = others.setdefault(peer["id"], {**dict.fromkeys(PEERS), **_NO_RATES, **peer})
                row[rate] = number_of(row, rate) + number_of(peer, "rate_bytes_s")
    return sorted([*look.peers, *others.values()], key=lambda row: (-_moved(row), str(row["name"])))


def _moved(row: Record) -> int:
    return number_of(row, "download_bytes_s") + number_of(row, "upload_bytes_s")


def _with_rates(transfer: Record) -> Record:
    """Return a transfer with the rate beside each peer's name, if several share in it."""
    peers = list_of(transfer, "peers")
    names = [shown("name", peer["name"]) for peer in peers]
    if len(peers) > 1:
        rates = [shown("rate_bytes_s", peer["rate_bytes_s"]) for peer in peers]
        names = [f"{name} {rate}" for name, rate in zip(names, rates, strict=True)]
    return {**transfer, "peers": ", ".join(names)}


def _head(look: Snapshot) -> Iterable[Text]:
    told = {key: shown(key, value) for key, value in look.status.items()}
    yield Text(f"{told['name']} (q ends)", "bold")
    if not look.status["sharing"]:
        yield Text("paused: `p2pfs resume` shares again", "bold yellow")
    yield Text(f"{shown_bytes(look.down_bytes_s)}/s down, {shown_bytes(look.up_bytes_s)}/s up")
    files = "1 file" if look.status["shared_files"] == 1 else f"{told['shared_files']} files"
    yield Text(f"{files} shared, {told['cache_bytes']} of {told['cache_limit_bytes']} cached")
    yield from _sight(look.status)


def _sight(status: Record) -> Iterable[Text]:
    """Yield the size of the horizon and the time of the last listing of `network/`, if known."""
    horizon, look_s = status.get("horizon"), status.get("look_s")
    if horizon is not None and look_s is not None:
        servents = "1 servent" if horizon == 1 else f"{horizon:,} servents"
        yield Text(f"{servents} within the horizon, a look takes {look_s:.1f} s")
    yield from _filters(status)
    if status.get("partial"):
        yield Text(f"network/ is not whole: {shown('partial', status['partial'])}", "yellow")


def _filters(status: Record) -> Iterable[Text]:
    """Yield how many neighbours have said what they share, and how old and full that is."""
    if status.get("filters"):
        told = {key: shown(key, status[key]) for key in ("neighbours", "filters")}
        age, fill = (shown(key, status.get(key)) for key in ("filter_age_s", "filter_percent"))
        line = f"filters of {told['filters']} of {told['neighbours']} neighbours"
        yield Text(f"{line}: at most {age} old and {fill} full")


def _ways_in(status: Record, width: int) -> Iterable[str]:
    commands = list_of(status, "join_commands")
    if commands:
        more = f" (`p2pfs status` has {len(commands) - 1} more)" if len(commands) > 1 else ""
        yield f"to join:{more}"
        command = shown("", commands[0])
        yield from textwrap.wrap(
            command, width, initial_indent=GAP, subsequent_indent=GAP, break_on_hyphens=False
        )


@dataclass(frozen=True)
class _Part:
    """A part of the page: its title, and as many of its records as have room."""

    title: str
    table: Table
    above: Sequence[Text]

    @property
    def size(self) -> int:
        """How many records there are."""
        return len(self.table.rows)

    def lines(self, count: int, glyphs: Glyphs) -> list[Text]:
        """Return it with its first records, and how many there are beside them."""
        if not self.size:
            return [*self.above, Text(f"no {self.title}")]
        title = [*self.above, Text(f"{self.title}: {self.size}", "bold underline")]
        if not count:
            return title
        rest = [Text(f"{GAP}{glyphs.cut} and {self.size - count} more")]
        rows = itertools.chain(*self.table.rows[:count])
        return [*title, *self.table.head, *rows, *(rest if count < self.size else ())]


def _in_turn(parts: Sequence[_Part], height: int, glyphs: Glyphs) -> list[Text]:
    """Return the parts with one record more of each in turn, for as long as there is room."""
    counts = [0] * len(parts)
    growing = [number for number, part in enumerate(parts) if part.size]

    def lines() -> list[Text]:
        pairs = zip(parts, counts, strict=True)
        return [line for part, count in pairs for line in part.lines(count, glyphs)]

    while growing:
        number = growing.pop(0)
        counts[number] += 1
        if len(lines()) > height:
            counts[number] -= 1
        elif counts[number] < parts[number].size:
            growing.append(number)
    return lines()
