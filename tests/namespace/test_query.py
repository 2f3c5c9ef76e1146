"""The language of keyword searches: what travels, and what answers it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.namespace.query import QueryError, parse_query
from p2pfs.overlay.search import is_answer
from p2pfs.protocol import MAX_QUERY_TEXT_BYTES, MAX_TERMS, Entry, QueryKind, Terms, fits_query

MIB = 1024**2


def accepts(text: str, path: str, size: int = 0) -> bool:
    return parse_query(text).wanted.accepts(path, size)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("blue whale", "blue whale"),
        ("  Blue--WHALE ", "blue-whale"),
        ('"exact phrase"', "exact-phrase"),
        ('say "plan b" now', "plan-b say now"),
        ('wha "of the sea"', "of-the-sea wha"),  # the last is the one that may go on
        ("report ext:pdf", "pdf report"),
        ("ext:tar.gz", "tar-gz"),
        ("EXT:PDF Size:>1", "pdf"),
        ("東京 R.E.M. c#", "東京 rem c#"),
        ("ext:c main", "main"),
        ("whale -blue", "whale"),
        ('whale -"blue sky"', "whale"),
        ("whale size:>10M -size:>1G", "whale"),
        ('"never closed', "never-closed"),
        ('whale "" - -& & "&"', "whale"),
        ("whale time:now", "whale time-now"),
        ("whale blue whale", "blue whale"),
    ],
)
def test_the_wanted_words_travel(text, words) -> None:
    assert parse_query(text).words == words


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("blue whale", None),
        ("size:>10M", Terms(at_least=10 * MIB + 1)),
        ("whale -size:>10M size:>1M size:>2M", Terms(2 * MIB + 1, 10 * MIB)),
        ("whale size:<10M -size:<1M", Terms(MIB, 10 * MIB - 1)),
        ('"Blue  Whale" -"a b" -c', Terms(phrases=("blue-whale",), no_phrases=("a-b", "c"))),
        ("ext:.MKV -ext:part", Terms(endings=("mkv",), no_endings=("part",))),
        ("ext:c", Terms(endings=("c",))),
        ("whale time:now", None),
    ],
)
def test_all_terms_travel(text, terms) -> None:
    assert parse_query(text).terms == terms


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("blue whale", "Whales/The blue one, a whale.mkv"),
        ("wha", "films/whale.mkv"),
        ("blue wha", "films/blue/whales.mkv"),
        ('"blue whale"', "films/The Blue-Whale.mkv"),
        ('"plan b"', "work/plan b.txt"),
        ("whale -blue", "films/whale.mkv"),
        ("whale -blue", "films/whale blues.mkv"),
        ('whale -"blue whale"', "films/whale, blue.mkv"),
        ("report ext:pdf", "work/Report.PDF"),
        ("ext:tar.gz", "code/p2pfs.tar.gz"),
        ("report -ext:pdf", "work/report.txt"),
    ],
)
def test_what_is_wanted_is_accepted(text, path) -> None:
    assert accepts(text, path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("blu whale", "films/blue whale.mkv"),  # only the last may be a beginning
        ("blue whale", "films/whale.mkv"),
        ('"blue whale"', "films/blue and whale.mkv"),
        ('"blue whale"', "films/blue whales.mkv"),
        ("whale -blue", "films/Blue/whale.mkv"),
        ("whale -blue-sky", "films/whale, blue sky.mkv"),
        ("report ext:pdf", "work/report.pdf.txt"),
        ("report ext:pdf", "work/pdf/report"),
        ("report -ext:pdf", "work/report.pdf"),
    ],
)
def test_what_is_not_wanted_is_not_accepted(text, path) -> None:
    assert not accepts(text, path)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("x1 size:>10M", {10 * MIB + 1}),
        ("x1 size:<10M", {0, 10 * MIB - 1}),
        ("x1 size:>1M size:<10MiB", {10 * MIB - 1}),
        ("x1 -size:<10M", {10 * MIB, 10 * MIB + 1}),
    ],
)
def test_sizes_are_compared(text, sizes) -> None:
    asked = (0, 10 * MIB - 1, 10 * MIB, 10 * MIB + 1)

    assert {size for size in asked if accepts(text, "x1", size)} == sizes


@pytest.mark.parametrize(
    "text",
    ["", " ", "a", "-", "-whale", "&&", "ext:", "ext:. whale", "whale size:", "-ext:c",
     "whale size:10M", "whale size:>", "whale size:>big", "whale size:=1M", "size:<0",
     "size:>1T", "size:>2M size:<1M", "w" * (MAX_QUERY_TEXT_BYTES + 1),
     "whale " + "-wal " * (MAX_TERMS + 1), "whale -" + "w" * 256, "w" * 470 + " size:>1M"],
)  # fmt: skip
def test_what_asks_for_nothing_is_refused(text) -> None:
    with pytest.raises(QueryError):
        parse_query(text)


@given(st.text(max_size=100))
def test_any_text_is_understood_or_refused(text) -> None:
    try:
        query = parse_query(text)
    except QueryError:
        return
    assert fits_query(query.words, query.terms)
    assert query.words or query.terms
    query.wanted.accepts(text, 0)


@given(st.lists(st.sampled_from(["blue", "whale", "wh", "10", "of"]), min_size=1, max_size=5))
def test_plain_words_ask_for_what_others_answer(words) -> None:
    text = " ".join(words)
    for path in ("blue whale of 10", "whale/10.of", "of blue", "wh 10"):
        entry = Entry(path, 1, 1, bytes(32))
        assert accepts(text, path, 1) == is_answer(QueryKind.WORDS, text, entry)
