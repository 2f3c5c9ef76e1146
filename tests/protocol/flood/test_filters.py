"""Filters never hide what is there, cost little, and give a liar nothing."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from p2pfs.errors import RemoteProtocolError
from p2pfs.protocol.flood.budgets import Charge
from p2pfs.protocol.flood.decisions import Ban, Drop, DropReason, Finished, LinkId, Send
from p2pfs.protocol.flood.filters import (
    BEYOND,
    FILTER_BURST,
    MAX_ADDED,
    NARROWED_APART_S,
    OWN,
    PASSED_ON_APART_S,
    SETTLED_S,
    SILENT_S,
    Bits,
    FilterTable,
    Keys,
    pack,
    pack_added,
    positions_in,
    unpack,
    unpack_added,
    with_positions,
)
from p2pfs.protocol.flood.routing import Router
from p2pfs.protocol.matching import Wanted
from p2pfs.protocol.messages import Done, Filter, FilterForm, Query, QueryKind
from tests.helpers.floodnet import guid_of, query_of
from tests.helpers.strategies import paths

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "filters.json").read_text())
A, B, C = LinkId(1), LinkId(2), LinkId(3)
KEYS = Keys(bytes(16))
WHALE, FILMS = "films/Blue Whale.mkv", "films"


def filter_of(*offered: str, keys: Keys = KEYS) -> int:
    """Return the filter of a share of these files."""
    bits = 0
    for path in offered:
        bits = with_positions(bits, keys.of_shares([(path, False)]))
        for above in range(1, path.count("/") + 1):
            directory = "/".join(path.split("/")[:above])
            bits = with_positions(bits, keys.of_shares([(directory, True)]))
    return bits


def whole(bits: int, layer: int = OWN) -> Filter:
    return Filter(layer, FilterForm.WHOLE, pack(bits, KEYS.bits))


def asked(kind: QueryKind, text: str, ttl: int = 1) -> Query:
    return Query(guid_of(1), ttl, 0, kind, text, 50, 5_000)


def may_match(bits: int, kind: QueryKind, text: str, keys: Keys = KEYS) -> bool:
    wanted = with_positions(0, keys.of_query(asked(kind, text)))
    return wanted & ~bits == 0


class TestKeys:
    @given(paths, st.data())
    def test_whoever_has_an_answer_is_asked(self, path: str, data: st.DataObject) -> None:
        bits = filter_of(path)
        assert may_match(bits, QueryKind.PATH, path)
        labels = path.split("/")
        for depth in range(len(labels)):
            assert may_match(bits, QueryKind.DIRECTORY, "/".join(labels[:depth]))
            assert may_match(bits, QueryKind.PATH, "/".join(labels[: depth + 1]))
        begin = data.draw(st.integers(0, len(path)))
        words = path[begin : data.draw(st.integers(begin, len(path)))]
        assume(Wanted(words).accepts(path, 1))
        assert may_match(bits, QueryKind.WORDS, words)

    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            (QueryKind.WORDS, "green whale"),
            (QueryKind.WORDS, "blue wx"),
            (QueryKind.WORDS, "青い鯨"),
            (QueryKind.WORDS, "blue whaxe"),
            (QueryKind.PATH, "films/Green Whale.mkv"),
            (QueryKind.PATH, "music/Blue Whale.mkv"),
            (QueryKind.DIRECTORY, "films/old"),
        ],
    )
    def test_who_has_not_is_left_out(self, kind: QueryKind, text: str) -> None:
        assert not may_match(filter_of(WHALE), kind, text)

    def test_any_part_of_a_name_without_spaces_is_asked_for(self) -> None:
        bits = filter_of("映画/青い鯨の歌.mkv")
        for text in ("鯨", "鯨の", "青い 鯨", "い鯨の歌", "映"):
            assert may_match(bits, QueryKind.WORDS, text)

    def test_whoever_shares_nothing_is_left_out_of_what_asks_everybody(self) -> None:
        assert not may_match(0, QueryKind.DIRECTORY, "")
        assert not may_match(0, QueryKind.WORDS, "a")
        assert not may_match(0, QueryKind.WORDS, "")
        assert may_match(filter_of("x"), QueryKind.WORDS, "")

    def test_an_id_is_asked_of_everybody(self) -> None:
        assert KEYS.of_query(asked(QueryKind.ID, "ab" * 32)) == ()

    def test_those_of_another_network_do_not_fit(self) -> None:
        assert not may_match(filter_of(WHALE), QueryKind.PATH, WHALE, Keys(b"another network!"))

    @pytest.mark.parametrize("vector", VECTORS["keys"])
    def test_a_key_has_the_positions_of_its_vector(self, vector: dict[str, Any]) -> None:
        keys = Keys(bytes.fromhex(vector["network_id"]))
        assert keys.positions(vector["domain"], vector["text"]) == tuple(vector["positions"])

    @pytest.mark.parametrize("vector", VECTORS["offered"])
    def test_what_is_offered_has_the_positions_of_its_vector(self, vector: dict[str, Any]) -> None:
        bits = with_positions(0, KEYS.of_shares([(vector["path"], vector["is_directory"])]))
        assert positions_in(bits, KEYS.bits) == vector["positions"]

    @pytest.mark.parametrize("vector", VECTORS["queries"])
    def test_a_query_has_the_positions_of_its_vector(self, vector: dict[str, Any]) -> None:
        wanted = KEYS.of_query(asked(QueryKind(vector["kind"]), vector["text"]))
        assert sorted(set(wanted)) == vector["positions"]


class TestPacking:
    @given(st.sets(st.integers(0, KEYS.bits - 1), max_size=300))
    def test_what_is_packed_is_unpacked(self, positions: set[int]) -> None:
        bits = with_positions(0, positions)
        assert positions_in(bits, KEYS.bits) == sorted(positions)
        assert unpack(pack(bits, KEYS.bits), KEYS.bits) == bits
        assert unpack_added(pack_added(sorted(positions)), KEYS.bits) == sorted(positions)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"garbage",
            zlib.compress(bytes(100)),
            zlib.compress(bytes(2**28)),
            zlib.compress(bytes(KEYS.bits // 8))[:-1],
            zlib.compress(bytes(KEYS.bits // 8)) + b"more",
        ],
    )
    def test_what_is_no_filter_is_a_breach(self, body: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            unpack(body, KEYS.bits)

    @pytest.mark.parametrize("body", ["80", "ffffffff01", "80808080", "ff" * 100, "808010"])
    def test_an_addition_out_of_range_is_a_breach(self, body: str) -> None:
        with pytest.raises(RemoteProtocolError):
            unpack_added(bytes.fromhex(body), KEYS.bits)

    @given(st.binary(max_size=64))
    def test_any_addition_is_read_or_refused(self, body: bytes) -> None:
        try:
            positions = unpack_added(body, KEYS.bits)
        except RemoteProtocolError:
            return
        assert all(0 <= position < KEYS.bits for position in positions)


def table_with(*links: LinkId, own: Bits = 0) -> FilterTable:
    table = FilterTable(KEYS)
    table.set_own(own)
    for link in links:
        table.link_opened(link, 0.0)
    return table


def told(table: FilterTable, now: float, layer: int) -> dict[LinkId, Filter]:
    """Return what each neighbour is told now."""
    said = [(link, message) for link, message in table.messages(now) if message.layer == layer]
    assert len({link for link, _ in said}) == len(said)
    assert list(table.messages(now)) == []
    return dict(said)


class TestTelling:
    def test_a_new_neighbour_is_told_what_we_share_and_later_what_others_do(self) -> None:
        table = table_with(A, B, own=filter_of(WHALE))
        assert told(table, 0.0, OWN) == {A: whole(filter_of(WHALE)), B: whole(filter_of(WHALE))}
        table.got_filter(B, whole(filter_of("b")), 0.1)
        assert told(table, SETTLED_S - 1, BEYOND) == {}
        assert told(table, SETTLED_S, BEYOND) == {A: whole(filter_of("b"), BEYOND)}

    def test_what_is_added_is_told_at_once_and_what_is_gone_a_minute_later(self) -> None:
        table = table_with(A, own=filter_of("a"))
        told(table, 0.0, OWN)
        table.set_own(filter_of("b"))
        said = told(table, 1.0, OWN)[A]
        new = positions_in(filter_of("b") & ~filter_of("a"), KEYS.bits)
        assert said == Filter(OWN, FilterForm.ADDED, pack_added(new))
        assert told(table, NARROWED_APART_S - 1, OWN) == {}
        assert table.next_due(NARROWED_APART_S - 1) == NARROWED_APART_S
        assert told(table, NARROWED_APART_S, OWN) == {A: whole(filter_of("b"))}

    def test_what_changes_all_the_time_becomes_everything_and_goes_on_when_it_is_quiet(
        self,
    ) -> None:
        table = table_with(A)
        said: list[Filter] = []
        for number in range(200):
            table.set_own(filter_of(*map(str, range(number))))
            said += told(table, number * 0.2, OWN).values()
        assert len(said) < FILTER_BURST + 20
        assert said[-1].form is FilterForm.ALL
        assert told(table, 120.0, OWN) == {A: whole(filter_of(*map(str, range(199))))}

    def test_much_at_once_is_told_as_a_whole(self) -> None:
        table = table_with(A)
        told(table, 0.0, OWN)
        many = with_positions(0, range(0, 10 * MAX_ADDED, 5))
        table.set_own(many)
        assert told(table, 1.0, OWN) == {A: whole(many)}

    def test_what_one_neighbour_shares_is_told_to_the_others_alone(self) -> None:
        table = table_with(A, B, C)
        for number, link in enumerate((A, B, C)):
            table.got_filter(link, whole(filter_of(str(number))), 0.0)
        assert told(table, SETTLED_S, BEYOND) == {
            A: whole(filter_of("1", "2"), BEYOND),
            B: whole(filter_of("0", "2"), BEYOND),
            C: whole(filter_of("0", "1"), BEYOND),
        }

    def test_what_a_neighbour_adds_is_passed_on_within_a_second(self) -> None:
        table = table_with(A, B)
        table.got_filter(B, whole(0), 0.0)
        told(table, SETTLED_S, BEYOND)
        for number in range(3):
            table.got_filter(B, whole(filter_of(*map(str, range(number + 1)))), SETTLED_S + 1)
        assert table.next_due(SETTLED_S + 1) <= SETTLED_S + 1
        assert set(told(table, SETTLED_S + 1, BEYOND)) == {A}
        table.got_filter(B, whole(filter_of("0", "1", "2", "3")), SETTLED_S + 1.1)
        assert told(table, SETTLED_S + 1.2, BEYOND) == {}
        assert set(told(table, SETTLED_S + 1 + PASSED_ON_APART_S, BEYOND)) == {A}

    def test_without_neighbours_nothing_is_ever_due(self) -> None:
        table = table_with(A, own=filter_of("a"))
        table.link_lost(A)
        assert told(table, 1.0, OWN) == {}
        assert table.next_due(1.0) == math.inf

    def test_when_all_is_told_nothing_is_due_until_a_link_is_older(self) -> None:
        table = table_with(A, own=filter_of("a"))
        table.got_filter(A, whole(0), 0.0)
        told(table, 1.0, OWN)
        assert table.next_due(1.0) == SETTLED_S
        told(table, SETTLED_S, BEYOND)
        assert table.next_due(SETTLED_S) == math.inf

    def test_a_neighbour_without_filters_makes_what_lies_beyond_unknown(self) -> None:
        table = table_with(A, B)
        assert told(table, SETTLED_S, BEYOND) == {}
        assert table.admits(B, 1, KEYS.of_query(asked(QueryKind.PATH, WHALE)))

    def test_one_that_has_just_come_does_not(self) -> None:
        table = table_with(A, B)
        for link in (A, B):
            table.got_filter(link, whole(0), 0.0)
        told(table, SETTLED_S, BEYOND)
        table.link_opened(C, 100.0)
        assert told(table, 100.0, BEYOND) == {}
        silent = told(table, 100.0 + SILENT_S, BEYOND)
        assert silent == {link: Filter(BEYOND, FilterForm.ALL, b"") for link in (A, B)}
        table.link_lost(C)
        assert set(told(table, 200.0, BEYOND)) == {A, B}


class TestLiars:
    @pytest.mark.parametrize("count", [KEYS.bits, KEYS.bits // 2 + 1])
    def test_a_full_filter_is_none(self, count: int) -> None:
        bits = 2**count - 1
        table = table_with(A, B)
        table.got_filter(A, whole(bits), 0.0)
        table.got_filter(B, whole(0), 0.0)
        assert table.admits(A, 1, (0, 1))
        assert B not in told(table, SETTLED_S, BEYOND)

    def test_an_empty_one_hides_what_is_behind_its_link_alone(self) -> None:
        table = table_with(A, B)
        for layer in (OWN, BEYOND):
            table.got_filter(A, whole(0, layer), 0.0)
        assert not table.admits(A, 2, (0, 1))
        assert table.admits(A, 3, (0, 1))
        assert table.admits(B, 2, (0, 1))

    def test_what_changes_each_second_is_taken_for_full_and_costs_others_little(self) -> None:
        router = Router(keys=KEYS)
        router.filters.set_own(0)
        for link in (A, B):
            router.link_opened(link, 0.0)
        router.got_filter(B, whole(0), 0.0)
        said = 0
        for second in range(600):
            lie = whole(filter_of(f"x{second}"))
            assert set(router.got_filter(A, lie, second)) <= {Drop(A, DropReason.OVER_BUDGET)}
            said += sum(send.link == B for send in router.tell_filters(second))
        assert said < 600 / 2 + FILTER_BURST
        assert router.filters.admits(A, 1, (0, 1))

    def test_it_is_known_when_a_neighbour_last_spoke_of_its_share_and_how_full_it_is(self) -> None:
        table = table_with(A, B)
        assert table.heard(A) is None
        table.got_filter(A, whole(1 << 7 | 1 << 9), 3.0)
        table.got_filter(A, whole(filter_of("a"), BEYOND), 4.0)
        assert table.heard(A) == (3.0, 2 / KEYS.bits)
        table.got_filter(A, Filter(OWN, FilterForm.ADDED, pack_added([11])), 5.0)
        assert table.heard(A) == (5.0, 3 / KEYS.bits)
        table.got_filter(A, Filter(OWN, FilterForm.ALL, b""), 6.0)
        assert table.heard(A) == (6.0, 1.0)
        table.link_lost(A)
        assert table.heard(A) is None

    def test_far_more_than_that_is_a_ban(self) -> None:
        router = Router(keys=KEYS)
        router.link_opened(A, 0.0)
        said = [d for n in range(300) for d in router.got_filter(A, whole(0), n / 10)]
        assert [type(one) for one in said].count(Ban) == 1

    def test_an_addition_to_what_is_not_known_changes_nothing(self) -> None:
        table = table_with(A)
        added = Filter(OWN, FilterForm.ADDED, pack_added([7]))
        assert table.got_filter(A, added, 0.0) is Charge.WITHIN
        assert table.admits(A, 1, (0, 1))


class TestRouting:
    def router(self) -> Router:
        router = Router(keys=KEYS)
        for link in (A, B, C):
            router.link_opened(link, 0.0)
        for layer in (OWN, BEYOND):
            router.got_filter(B, whole(0, layer), 0.0)
        router.got_filter(C, whole(filter_of(WHALE), BEYOND), 0.0)
        router.got_filter(C, whole(0), 0.0)
        return router

    @pytest.mark.parametrize(("ttl", "links"), [(1, [A]), (2, [A, C]), (3, [A, B, C])])
    def test_a_copy_goes_where_something_may_be(self, ttl: int, links: list[LinkId]) -> None:
        router = self.router()
        sends = router.originate(asked(QueryKind.PATH, WHALE, ttl), 1.0)
        assert [send.link for send in sends if isinstance(send, Send)] == links

    def test_the_end_of_a_wave_tells_over_how_many_links_it_did_not_go(self) -> None:
        router = self.router()
        router.originate(asked(QueryKind.PATH, "nowhere", 2), 1.0)
        done = Done(guid_of(1), 2, 1, 0, True, skipped=3)
        assert router.got_done(A, done) == [
            Finished(guid_of(1), 2, 1, 0, is_complete=True, skipped=5)
        ]

    def test_a_wave_that_goes_nowhere_is_over_and_complete(self) -> None:
        router = self.router()
        router.link_lost(A)
        assert router.originate(asked(QueryKind.PATH, "nowhere", 2), 1.0) == [
            Finished(guid_of(1), 2, 0, 0, is_complete=True, skipped=2)
        ]

    def test_a_neighbour_that_earlier_rings_passed_by_may_refuse_a_later_one(self) -> None:
        router = Router(keys=KEYS)
        router.link_opened(B, 0.0)
        for layer in (OWN, BEYOND):
            router.got_filter(B, whole(0, layer), 0.0)
        for ttl in (1, 2, 3):
            router.originate(asked(QueryKind.PATH, "nowhere", ttl), 1.0)
        refused = Done(guid_of(1), 3, 0, 0, is_complete=False, skipped=0)
        assert router.got_done(B, refused) == [
            Finished(guid_of(1), 3, 0, 0, is_complete=False, refusals=1)
        ]

    def test_who_does_not_count_may_have_left_some_out(self) -> None:
        router = Router(keys=KEYS)
        router.link_opened(A, 0.0)
        router.originate(query_of(ttl=2), 0.0)
        assert router.got_done(A, Done(guid_of(1), 2, 0, 0, is_complete=True)) == [
            Finished(guid_of(1), 2, 0, 0, is_complete=True, skipped=1)
        ]
