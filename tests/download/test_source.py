"""How a source stands: the table, row by row, and what each step does to it."""

from __future__ import annotations

import pytest

from p2pfs.download.source import MANIFEST, Request, Source
from p2pfs.download.standing import STANDINGS, SourceEvent, Standing, Trouble
from tests.helpers.sizes import BLOCK
from tests.helpers.upstream import peer

N, P, F, O, L = (  # noqa: E741 - as the rows below are read
    Standing.NEW,
    Standing.PROVEN,
    Standing.FAILING,
    Standing.OUTDATED,
    Standing.LIAR,
)

ROWS = {
    # from: gave, failed, outdated, lied, forgiven
    N: (P, F, O, L, N),
    P: (P, F, O, L, P),
    F: (P, F, O, L, N),
    O: (P, F, O, L, N),
    L: (L, L, L, L, L),
}


def in_standing(standing: Standing) -> Source:
    """Return a source that has come to stand so."""
    source = Source(peer(0))
    for event, reached in (
        (SourceEvent.GAVE, P),
        (SourceEvent.FAILED, F),
        (SourceEvent.OUTDATED, O),
        (SourceEvent.LIED, L),
    ):
        if standing is reached:
            do(source, event)
    assert source.standing is standing
    return source


def do(source: Source, event: SourceEvent) -> None:
    """Let an event happen as the picker tells of it."""
    match event:
        case SourceEvent.GAVE:
            source.gave(Request(source.peer, 1, BLOCK), now=1.0)
        case SourceEvent.FAILED:
            source.pause(Trouble.SILENT, now=1.0)
        case SourceEvent.OUTDATED:
            source.pause(Trouble.STALE, now=1.0)
        case SourceEvent.LIED:
            source.happened(SourceEvent.LIED)
        case SourceEvent.FORGIVEN:
            source.forgive()


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (before, event, after)
        for before, row in ROWS.items()
        for event, after in zip(SourceEvent, row, strict=True)
    ],
)
def test_each_event_leads_where_the_table_says(
    before: Standing, event: SourceEvent, after: Standing
):
    assert STANDINGS[before][event] is after

    source = in_standing(before)
    do(source, event)

    assert source.standing is after
    assert source.is_dropped == (after in (O, L))
    assert source.has_nothing_to_show == (after in (F, O, L))
    assert (source.trouble is None) == (after in (N, P))


def test_every_step_is_in_the_table():
    assert set(STANDINGS) == set(Standing)
    assert all(set(row) == set(SourceEvent) for row in STANDINGS.values())


def test_a_liar_stays_one_whatever_happens():
    source = in_standing(L)
    for event in SourceEvent:
        do(source, event)

    assert source.trouble is Trouble.CORRUPT
    assert not source.is_available(1e9)


@pytest.mark.parametrize("trouble", [Trouble.CLOSED, Trouble.UNREACHABLE])
def test_who_gave_and_is_gone_is_not_silent_because_it_is_found_again(trouble):
    source = Source(peer(0))
    source.gave(Request(source.peer, 0, BLOCK), now=0.5)
    source.pause(trouble, 1.0)

    source.found_again()

    assert not source.is_out_of_reach
    assert source.trouble_with([1], 2.0) is trouble


def test_who_is_found_again_is_still_out_of_reach_until_a_reader_comes_anew():
    source = Source(peer(0))
    source.pause(Trouble.UNREACHABLE, now=1.0)
    source.found_again()
    assert source.is_out_of_reach
    assert source.is_available(1.0)
    assert source.trouble_with([0], 2.0) is Trouble.UNREACHABLE

    source.forgive()
    assert not source.is_out_of_reach


def test_who_gave_something_or_was_reached_is_not_out_of_reach():
    source = Source(peer(0))
    source.pause(Trouble.UNREACHABLE, now=1.0)
    source.pause(Trouble.CLOSED, now=5.0)

    assert not source.is_out_of_reach


def test_who_answers_is_not_out_of_reach_any_more_though_it_gave_no_block():
    source = Source(peer(0))
    source.pause(Trouble.UNREACHABLE, now=1.0)
    source.found_again()
    source.gave(Request(source.peer, MANIFEST, 100), now=2.0)
    source.happened(SourceEvent.LIED)
    assert source.trouble_with([0], 2.0) is Trouble.CORRUPT
