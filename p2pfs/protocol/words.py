"""What a word is: one rule for indexes, questions and results (PROTOCOL.md, "Words and terms").

A text is folded, so that `Ｃａｆé`, `CAFE` and `café` are one, and cut into tokens. Scripts that
are written without spaces have a token for each character, so that any part of a name is found:
it is tokens side by side. A word of a question is what stands between two spaces, one token or
several side by side; the last token of all may be the beginning of one.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from p2pfs.protocol.names import JOINERS

Phrase = tuple[str, ...]
"""Tokens side by side."""

_PLAIN: Final = str.maketrans(
    {
        "ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i",
        "æ": "ae", "œ": "oe", "þ": "th",
    }
)  # fmt: skip
"""Letters that Unicode does not take apart; people without such a key write others."""

_POINTS: Final = range(10, 37)
"""Combining classes of Hebrew, Arabic and Syriac points, which few people write."""

_ACCENTS: Final = range(200, 241)
"""Combining classes of accents. Those below are parts of letters: the marks of Indic scripts and
of Thai, the voicing of Japanese."""

_UNSPACED: Final = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u1100-\u11ff\uac00-\ud7ff"  # Hangul: spaces stand between phrases, particles do not
    "\u3005-\u3007\u3040-\u31ff"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "]"
)
"""Scripts that are written without spaces."""

_ABBREVIATION: Final = re.compile(r"(?<![^\W_])[^\W\d_](?:\.[^\W\d_])+(?![^\W_])")
"""Single letters with dots between: `r.e.m.` is `rem`."""

_TOKEN: Final = re.compile("um*|[ad][adm]*|(?<=a)s+(?![adsu])")
"""Over kinds of characters, see `_kind`. Symbols tell `c#` and `c++` from `c`; `blue+whale` is two
tokens."""

_ASCII_TOKEN: Final = re.compile(r"[a-z0-9]+|(?<=[a-z])[#+]+(?![#+a-z0-9])")
"""The same over the characters themselves, for most names are plain."""


def fold(text: str) -> str:
    """Return a text without what people leave out or write in several ways.

    That is case, accents, points, joiners, and the forms that are compatible by Unicode.
    """
    if text.isascii():
        return text.lower()
    bare = _without_accents(_without_accents(text).casefold())
    return unicodedata.normalize("NFKC", bare.translate(_PLAIN))


def _without_accents(text: str) -> str:
    return unicodedata.normalize("NFKD", text).translate(_LEFT_OUT)


class _LeftOut(dict[int, int | None]):
    """Tell of a code point whether it is left out: accents, points, and joiners."""

    def __missing__(self, code: int) -> int | None:
        combining_class = unicodedata.combining(chr(code))
        is_accent = combining_class in _ACCENTS or combining_class in _POINTS
        # Not every keyboard has the joiners.
        kept = None if is_accent or chr(code) in JOINERS else code
        if code < _COMMON:
            self[code] = kept
        return kept


_LEFT_OUT: Final = _LeftOut()

_COMMON: Final = 0x10000
"""Code points below it are remembered: names in one script need few of them."""


def tokens_of(text: str) -> list[str]:
    """Return the tokens of a text, in order, with repeats."""
    return [token for label in text.split("/") for token in _tokens_of(label)]


@functools.lru_cache(maxsize=1024)  # a directory of a path is that of the next one too
def _tokens_of(text: str) -> list[str]:
    folded = fold(text)
    if "." in folded:
        folded = _ABBREVIATION.sub(lambda match: match[0].replace(".", ""), folded)
    if folded.isascii():
        return _ASCII_TOKEN.findall(folded)
    kinds = "".join(map(_kind, folded))
    return [folded[match.start() : match.end()] for match in _TOKEN.finditer(kinds)]


@functools.lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """Return `u` for unspaced, `a` for other letters, `d` digit, `m` mark, `s` symbol."""
    if unicodedata.category(character).startswith("M"):
        return "m"
    if character in "#+":
        return "s"
    if not character.isalnum():
        return " "
    if _UNSPACED.match(character):
        return "u"
    return "a" if character.isalpha() else "d"


def phrases_of(text: str) -> list[Phrase]:
    """Return the words of a question, each as its tokens and once; the last stays the last.

    A word that is a single letter not worth asking for is left out.
    """
    phrases = (tuple(tokens_of(word)) for word in fold(text).split())
    return distinct([one for one in phrases if len(one) > 1 or any(map(_is_worth_asking, one))])


def distinct(phrases: Sequence[Phrase]) -> list[Phrase]:
    """Return each phrase once, in order; the last, which may be a beginning, stays the last."""
    last = phrases[-1:]
    return [*dict.fromkeys(one for one in phrases if one not in last), *last]


def _is_worth_asking(token: str) -> bool:
    """Return whether it is no single letter, unless its script is written without spaces."""
    return len(token) > 1 or not token.isalpha() or _UNSPACED.match(token) is not None


def question_of(phrases: Iterable[Sequence[str]]) -> str:
    """Return a text of which `phrases_of` makes these phrases again."""
    return " ".join(map(_word_of, phrases))


def _word_of(phrase: Sequence[str]) -> str:
    between = (_between(*pair) for pair in itertools.pairwise(phrase))
    return "".join(itertools.chain.from_iterable(zip(phrase, (*between, ""), strict=True)))


def _between(one: str, other: str) -> str:
    """Return the separator that two tokens side by side need."""
    is_cut = _UNSPACED.match(other) or (_UNSPACED.match(one) and other[0].isalnum())
    return "" if (is_cut and one[0] not in "#+") or other[0] in "#+" else "-"
