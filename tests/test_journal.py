from __future__ import annotations

import logging
import threading
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.journal import MAX_EVENTS, MAX_TEXT_LENGTH, Journal, JournalEvent, Severity, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 😀", "plain äöü 😀"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("pay\u200dpal \x1b\u200d", "pay\\u200dpal \\x1b\\u200d"),
        (
            "\u0646\u0627\u0645\u0647\u200c\u0647\u0627",
            "\u0646\u0627\u0645\u0647\u200c\u0647\u0627",
        ),
        ("not utf-8 \udcff", "not utf-8 \\udcff"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_what_could_fool_a_terminal_is_escaped(text, shown):
    assert printable(text) == shown


@given(st.text() | st.text(alphabet="\x1b\u0646\u0915\u094d\u200c\u200d\U0001f468\u0378"))
def test_no_control_or_invisible_character_gets_through(text):
    shown = printable(text)
    categories = {unicodedata.category(c) for c in shown if c not in "\u200c\u200d"}

    assert categories.isdisjoint({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def test_events_are_kept_in_order_with_their_time(caplog):
    journal = Journal(now=iter([1.0, 2.0, 3.0]).__next__)
    with caplog.at_level(logging.INFO):
        journal.info("joined")
        journal.warning("a peer sent \x1b[0m")
        journal.error("no source", "films/\u202ex")

    assert journal.events() == [
        JournalEvent(1.0, Severity.INFO, "joined", ""),
        JournalEvent(2.0, Severity.WARNING, "a peer sent \\x1b[0m", ""),
        JournalEvent(3.0, Severity.ERROR, "no source", "films/\\u202ex"),
    ]
    assert "no source" in caplog.text
    assert "\x1b" not in caplog.text


def test_old_events_and_long_texts_are_cut():
    journal = Journal()
    for number in range(MAX_EVENTS + 1):
        journal.info(f"{number} " + "x" * 2 * MAX_TEXT_LENGTH)

    events = journal.events()

    assert len(events) == MAX_EVENTS
    assert events[0].text.startswith("1 ")
    assert len(events[0].text) == MAX_TEXT_LENGTH


def test_threads_may_add_at_once():
    journal = Journal()
    threads = [
        threading.Thread(target=lambda: [journal.info("x") for _ in range(100)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(journal.events()) == 400
