"""Words: what people write meets what others named, whatever the script."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.protocol.matching import Wanted
from p2pfs.protocol.messages import Terms
from p2pfs.protocol.words import fold, phrases_of, question_of, tokens_of

TEXTS = st.text() | st.text("aé #+.-_/ 1東かがｶﾞ서กิا\u0301\u3099\u093f\u200d", max_size=12)
"""Anything, and more often what the rules are about."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Blue_Whale (1999).mkv", ["blue", "whale", "1999", "mkv"]),
        ("Ｃａｆé CAFÉ", ["cafe"]),
        ("e\u0301tude", ["etude"]),
        ("Straße STRASSE", ["strasse"]),
        ("Łódź Ærø İzmir ılık", ["lodz", "aero", "izmir", "ilik"]),
        ("Ёлка й", ["елка", "и"]),
        ("שָׁלוֹם", ["שלום"]),
        ("हिन्दी", ["हिन्दी"]),
        ("a 7 b", ["a", "7", "b"]),
        ("An ox", ["an", "ox"]),
        ("\u0646\u0627\u0645\u0647\u200c\u0647\u0627", ["\u0646\u0627\u0645\u0647\u0647\u0627"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("ガ ｶﾞ か", ["ガ", "か"]),
        ("서울", ["서", "울"]),
        ("สวัสดี", ["ส", "วั", "ดี"]),
        ("R.E.M. J.R.R.Tolkien main.c", ["rem", "jrr", "tolkien", "main", "c"]),
        ("C# F# C++", ["c", "#", "f", "++"]),
        ("blue+whale #1", ["blue", "whale", "1"]),
        ("", []),
        ("...", []),
    ],
)
def test_words_meet_whatever_their_case_and_form(text, words):
    assert list(dict.fromkeys(tokens_of(text))) == words


@given(TEXTS)
def test_what_is_folded_stays_as_it_is(text):
    assert fold(fold(text)) == fold(text)


@given(TEXTS)
def test_a_name_is_found_by_each_of_its_words(text):
    for word in phrases_of(text):
        assert Wanted(question_of([word])).accepts(text.replace("/", "-"), 0)


@given(TEXTS)
def test_a_question_asks_for_what_was_asked(text):
    assert phrases_of(question_of(phrases_of(text))) == phrases_of(text)


@given(TEXTS)
def test_the_tokens_of_all_words_are_those_of_the_text(text):
    apart = [token for word in text.split() for token in tokens_of(word)]
    assert apart == tokens_of(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("京", "東京タワー.jpg"),
        ("京タ", "東京タワー.jpg"),
        ("タワー 東京", "東京タワー.jpg"),
        ("ﾀﾜｰ", "東京タワー.jpg"),
        ("울역", "서울역에서.txt"),
        ("tower東", "Tower東京"),
        ("cafe", "Café.txt"),
        ("café", "CAFE.txt"),
        ("lodz", "Łódź"),
        ("r.e.m.", "R.E.M. - Green.ogg"),
        ("rem", "R.E.M. - Green.ogg"),
        ("r.e.m.", "REM/Green.ogg"),
        ("c#", "C# in Depth.pdf"),
        ("c++", "The C++ Language.pdf"),
        ("c", "The C++ Language.pdf"),
        ("r&b", "R&B/song.ogg"),
        ("don't st", "Don't Stop.ogg"),
        ("blue-whal", "Blue_Whale.mkv"),
        ("a blue", "blue.mkv"),
    ],
)
def test_a_question_finds_a_name(text, path):
    assert Wanted(text).accepts(path, 0)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("京東", "東京タワー.jpg"),
        ("c#", "C/main.c"),
        ("c++", "C# in Depth.pdf"),
        ("r&b", "B&R.ogg"),
        ("blue-whale", "blue sperm whale"),
        ("whal blue", "blue whale"),
        ("か", "が"),
    ],
)
def test_a_question_does_not_find_another_name(text, path):
    assert not Wanted(text).accepts(path, 0)


def test_endings_meet_whatever_their_case_and_accents():
    assert Wanted("", Terms(endings=("CAFÉ",))).accepts("menu.Cafe", 0)
    assert not Wanted("", Terms(no_endings=("cafe",))).accepts("menu.CAFÉ", 0)
