from __future__ import annotations

import logging
import threading
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.journal import MAX_EVENTS, MAX_TEXT_LENGTH, Event, EventLog, Severity, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 😀", "plain äöü 😀"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("not utf-8 \udcff", "not utf-8 \\udcff"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_what_could_fool_a_terminal_is_escaped(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_no_control_or_invisible_character_gets_through(text):
    categories = {unicodedata.category(c) for c in printable(text)}

    assert categories.isdisjoint({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def test_events_are_kept_in_order_with_their_time(caplog):
    events = EventLog(now=iter([1.0, 2.0]).__next__)
    with caplog.at_level(logging.INFO):
        events.add(Severity.INFO, "joined")
        events.add(Severity.INFO, "peer said \x1b[0m", "films/\u202ex")

    assert events.latest() == [
        Event(1.0, Severity.INFO, "joined", ""),
        Event(2.0, Severity.INFO, "peer said \\x1b[0m", "films/\\u202ex"),
    ]
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.INFO]


def test_old_events_and_long_texts_are_cut():
    events = EventLog()
    for number in range(MAX_EVENTS + 1):
        events.add(Severity.INFO, f"{number} " + "x" * 2 * MAX_TEXT_LENGTH)

    latest = events.latest()

    assert len(latest) == MAX_EVENTS
    assert latest[0].text.startswith("1 ")
    assert len(latest[0].text) == MAX_TEXT_LENGTH


def test_threads_may_add_at_once():
    events = EventLog()
    threads = [
        threading.Thread(target=lambda: [events.add(Severity.INFO, "x") for _ in range(100)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(events.latest()) == 400
