"""Tables, bars and the page of `top` on terminals of every size."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from p2pfs.cli.layout import (
    DRAWN,
    TYPED,
    bar,
    cut,
    glyphs_of,
    progress_line,
    table,
    wrapping_sheet,
)
from p2pfs.cli.page import Snapshot, all_peers, page
from p2pfs.wording import EVENT_COLUMNS, PEER_COLUMNS, TRANSFER_COLUMNS, Estimate

MIB = 2**20
WIDTHS = (20, 40, 80, 200)

STATUS = {
    "name": "ann@desk", "sharing": True, "shared_files": 12, "cache_bytes": MIB,
    "cache_limit_bytes": 10 * MIB, "join_commands": ["p2pfs mount ~/p2p --join 192.168.1.5:4774"],
}  # fmt: skip


def neighbour(name: str, down: int = 0, up: int = 0) -> dict[str, object]:
    return {
        "id": name * 8, "name": name, "address": "192.168.1.7:4774", "direction": "in",
        "connected_s": 192.0, "rtt_ms": 0.4, "download_bytes_s": down, "upload_bytes_s": up,
    }  # fmt: skip


def transfer(direction: str, path: str, *peers: tuple[str, int]) -> dict[str, object]:
    givers = [
        {"id": name * 8, "name": name, "address": None, "rate_bytes_s": rate}
        for name, rate in peers
    ]
    return {
        "direction": direction, "path": path, "id": "ab" * 32, "size": 9 * MIB,
        "done_bytes": 3 * MIB, "rate_bytes_s": sum(rate for _, rate in peers),
        "sources": len(peers), "state": "reading", "peers": givers,
    }  # fmt: skip


def look(downloads: int = 1, uploads: int = 1, peers: int = 2, **status: object) -> Snapshot:
    transfers = [
        *(transfer("download", f"films/down {n}.mkv", ("bob", MIB)) for n in range(downloads)),
        *(transfer("upload", f"films/up {n}.mkv", ("cleo", 2 * MIB)) for n in range(uploads)),
    ]
    neighbours = [neighbour(f"peer {n}") for n in range(peers)]
    return Snapshot({**STATUS, **status}, transfers, neighbours, MIB, 2 * MIB)


def shown(lines: list[Text]) -> str:
    return "\n".join(line.plain for line in lines)


def console(width: int, **options: object) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, **options)


# Bars.


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 60))
def test_a_bar_is_full_when_all_is_done_and_not_before(done: int, size: int, width: int):
    text = bar(done, size, width, DRAWN).plain

    assert len(text) == width
    assert (text == "━" * width) == (done >= size)
    if size:
        assert abs(text.count("━") - width * min(done, size) / size) <= 1


@pytest.mark.parametrize("colours", ["standard", "256", "truecolor", None])
def test_a_bar_is_read_without_colours_and_none_is_the_same_as_another(colours):
    """With eight colours a full bar was as grey as an empty one."""
    screens = []
    for done in (0, 50, 100):
        terminal = console(40, color_system=colours)
        terminal.print(bar(done, 100, 10, DRAWN))
        screens.append(terminal.file.getvalue())

    assert len(set(screens)) == 3
    assert "\x1b[9" not in "".join(screens)  # colours that terminals with eight do not have
    assert "━" * 10 not in screens[0]
    assert "━" * 10 in screens[2]


def test_a_terminal_without_such_characters_gets_others():
    terminal = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), force_terminal=True)

    assert glyphs_of(terminal) is TYPED
    assert glyphs_of(console(80)) is DRAWN
    for glyphs in (TYPED, DRAWN):
        assert len({*glyphs}) == 3
    assert bar(1, 2, 4, TYPED).plain == "##--"
    assert shown(page(look(downloads=99), 40, 10, TYPED)).isascii()


# What is too long.


@given(st.text(st.characters(exclude_categories=("C",))), st.integers(1, 30))
def test_what_is_cut_fits_and_says_so(text: str, width: int):
    told = cut(Text(text), width, DRAWN)

    assert told.cell_len <= width
    assert told.plain == text or told.plain.endswith("…")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([transfer("upload", "music/" + "long " * 30, ("ann", 5), ("bob", 7))], TRANSFER_COLUMNS),
        ([neighbour("ann"), neighbour("日本" * 20)], PEER_COLUMNS),
        ([{"time": 0.0, "severity": "error", "text": "no source " * 20, "path": "x" * 300}],
         EVENT_COLUMNS),
    ],
)  # fmt: skip
def test_a_listing_fits_every_width_and_loses_nothing(width, rows, columns):
    whole = shown(table(rows, columns, wrapping_sheet(console(5000))).lines)
    lines = table(rows, columns, wrapping_sheet(console(width))).lines

    assert all(line.cell_len <= width for line in lines)
    letters = sorted(c for c in shown(lines) if c.isalnum())
    if len(lines) == len(whole.splitlines()):
        assert letters == sorted(c for c in whole if c.isalnum())
    assert "…" not in shown(lines)
    for row in rows:
        for column in ("path", "text", "name"):
            told = "".join(str(row.get(column, "")).split())
            columns_apart = set(told) <= set("".join(shown(lines).split()))
            assert columns_apart


def test_a_wide_terminal_has_a_table_and_a_narrow_one_a_list():
    rows = [neighbour("ann"), neighbour("bob")]

    wide = table(rows, PEER_COLUMNS, wrapping_sheet(console(80)))
    narrow = table(rows, PEER_COLUMNS, wrapping_sheet(console(40)))

    assert shown(wide.head).split() == ["name", "address", "direction", "connected", "rtt", "id"]
    assert [len(lines) for lines in wide.rows] == [1, 1]
    assert not narrow.head
    assert shown(narrow.lines).splitlines()[:2] == [
        "ann",
        "  192.168.1.7:4774  in  0:03:12  0.4 ms",
    ]


def test_a_number_alone_says_what_it_counts():
    rows = [transfer("download", "x" * 40, *peers) for peers in ([("a", 1)], [("a", 1), ("b", 2)])]

    text = shown(table(rows, TRANSFER_COLUMNS, wrapping_sheet(console(40))).lines)

    assert "1 source\n" in text or "1 source " in text
    assert "2 sources" in text


def test_nothing_is_a_table_of_nothing():
    assert table([], PEER_COLUMNS, wrapping_sheet(console(80))).lines == []


# The page of `top`.


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("height", [1, 3, 8, 12, 24, 50])
@pytest.mark.parametrize("count", [0, 1, 3, 60])
def test_a_page_fits_every_terminal_and_tells_of_all_that_it_leaves_out(width, height, count):
    lines = page(look(count, count, count, sharing=False), width, height, DRAWN)

    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    text = shown(lines)
    if height < 8:
        assert text.endswith("…")
        return
    for title in ("downloads", "uploads", "peers"):
        here = count + 2 * bool(count) if title == "peers" else count
        assert (f"{title}: {here}" if here else f"no {title}") in text
    words = text.split()
    for word, told in (("down", count), ("up", count)):
        rows = sum(one.startswith(f"films/{word}") for one in words)
        assert rows == told or f"and {told - rows} more" in text or not rows


def test_a_page_has_all_when_there_is_room():
    text = shown(page(look(3, 2, 4), 120, 40, DRAWN))

    assert text.count("films/down") == 3
    assert text.count("films/up") == 2
    assert text.count("peer ") == 4
    assert "more" not in text
    assert "ann@desk (q ends)" in text
    assert "1.0 MiB/s down, 2.0 MiB/s up" in text
    assert "12 files shared, 1.0 MiB of 10.0 MiB cached" in text
    assert "to join:\n  p2pfs mount ~/p2p --join 192.168.1.5:4774\n" in text
    assert "paused" not in text


def test_each_part_gets_its_share_of_a_short_terminal():
    text = shown(page(look(50, 1, 50), 120, 20, DRAWN))

    assert 2 <= text.count("films/down") < 50
    assert text.count("films/up") == 1
    assert "\nbob " in text
    assert text.count(" more") == 2


def test_one_file_is_one_and_a_pause_is_told():
    text = shown(page(look(shared_files=1, sharing=False), 80, 24, DRAWN))

    assert "1 file shared" in text
    assert "paused: `p2pfs resume` shares again" in text


def test_how_far_a_look_reaches_is_told_once_there_was_one():
    text = shown(page(look(horizon=1312, look_s=0.25, partial=None), 80, 24, DRAWN))
    assert "1,312 servents within the horizon, a look takes 0.2 s" in text
    assert "not whole" not in text

    text = shown(page(look(horizon=None, look_s=None, partial="bob is slow"), 80, 24, DRAWN))
    assert "horizon" not in text
    assert "network/ is not whole: bob is slow" in text


def test_what_neighbours_have_said_of_their_shares_is_told_once_there_is_something():
    filters = {"neighbours": 12, "filters": 11, "filter_age_s": 75.4, "filter_percent": 12.5}
    text = shown(page(look(**filters), 80, 24, DRAWN))
    assert "filters of 11 of 12 neighbours: at most 0:01:15 old and 12.5 % full" in text

    text = shown(page(look(filters=0, filter_age_s=None, filter_percent=None), 80, 24, DRAWN))
    assert "filters" not in text


def test_more_ways_to_join_are_told_of():
    text = shown(page(look(join_commands=["p2pfs mount a", "b", "c"]), 80, 24, DRAWN))

    assert "to join: (`p2pfs status` has 2 more)\n  p2pfs mount a\n" in text
    assert "to join" not in shown(page(look(join_commands=[]), 80, 24, DRAWN))


def test_a_command_that_is_too_long_goes_on_in_the_next_line():
    text = shown(page(look(0, 0, 0), 40, 24, DRAWN))

    assert "  p2pfs mount ~/p2p --join\n  192.168.1.5:4774\n" in text


def test_who_shares_in_a_transfer_is_told_with_a_rate_each():
    alone = transfer("download", "x", ("bob", MIB))
    shared = transfer("upload", "y", ("bob", MIB), ("zoe", 2 * MIB))

    text = shown(page(Snapshot(STATUS, [alone, shared], [], 0, 0), 120, 40, DRAWN))

    assert "bob 1.0 MiB/s, zoe 2.0 MiB/s" in text


def test_peers_are_told_by_what_they_move_whether_neighbours_or_not():
    transfers = [
        transfer("download", "x", ("far", 5), ("near", 7)),
        transfer("upload", "y", ("far", 2)),
        transfer("upload", "z", ("far", 2)),
    ]
    neighbours = [neighbour("idle"), neighbour("near", 7)]

    rows = all_peers(Snapshot(STATUS, transfers, neighbours, 0, 0))

    assert [(row["name"], row["download_bytes_s"], row["upload_bytes_s"]) for row in rows] == [
        ("far", 5, 4), ("near", 7, 0), ("idle", 0, 0),
    ]  # fmt: skip
    assert rows[0]["rtt_ms"] is None


def test_a_servent_of_an_older_version_has_a_page_too():
    old = {key: STATUS[key] for key in STATUS if key != "join_commands"}
    download = {"path": "films/x", "size": 2, "done_bytes": 1, "rate_bytes_s": 1, "state": "idle"}
    peer = {"id": "p", "name": "ann", "address": None, "connected_s": 1, "rtt_ms": None}

    text = shown(page(Snapshot(old, [download], [peer], 0, 0), 80, 24, DRAWN))

    assert "downloads: 1" in text
    assert "films/x" in text
    assert "ann" in text


# How something goes on.


def estimate(done: int, size: int) -> Estimate:
    made = Estimate()
    made.reached(done, size)
    return made


@pytest.mark.parametrize(
    ("width", "parts"),
    [
        (20, [" 50 %"]),
        (40, ["━━━━────", " 50 %"]),
        (60, ["━━━━────", " 50 %", "/s", " left"]),
        (80, ["━━━━────", " 50 %", "/s", " left", "3.0 MiB of 6.0 MiB"]),
        (200, ["━" * 20 + "─" * 20, " 50 %", "/s", " left", "3.0 MiB of 6.0 MiB"]),
    ],
)
def test_progress_shows_what_has_room_and_the_most_worth_first(width: int, parts: list[str]):
    line = progress_line("films/holiday in the alps.mkv", estimate(3 * MIB, 6 * MIB), width, DRAWN)

    assert line.cell_len <= width
    assert line.plain.startswith("films/holid")
    for part in parts:
        assert part in line.plain
    assert ("films/holiday in the alps.mkv" in line.plain) == (width == 200)


@given(st.text(min_size=1), st.integers(0, 2**50), st.integers(0, 2**50), st.integers(16, 250))
def test_progress_is_never_wider_than_the_terminal(title: str, done: int, size: int, width: int):
    printable = "".join(c for c in title if c.isprintable())

    line = progress_line(printable, estimate(min(done, size), size), width, DRAWN)

    assert line.cell_len <= width
    percent = 100 if not size else math.floor(100 * min(done, size) / size)
    assert "%" in line.plain or width < 20
    assert percent <= 100
