"""The language of keyword searches, from a text to what a file must be like. Pure.

    blue whale          all words in the path; the last may be the beginning of one
    "exact phrase"      these words side by side, in this order
    -word -"a phrase"   not these
    ext:pdf             names that end in `.pdf`
    size:>10M size:<1G  larger, or smaller

Only words travel: others answer with what has all of them, and the rest is sifted here. So
a search needs at least one word that is wanted; an extension is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2pfs.config import parse_size
from p2pfs.protocol import MAX_QUERY_TEXT_BYTES, tokens_of, words_of

_TERM: Final = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')
"""Perhaps `-`; then a phrase, whose last quote may be missing, or what has no space in it."""


class QueryError(ValueError):
    """A text that asks for nothing that could be searched. It says why, for people."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file that may be what is wanted."""

    name: str
    size: int
    text: str
    """All tokens of the path, with a space before and after each."""


_Test = Callable[[_Candidate], bool]


@dataclass(frozen=True, slots=True)
class KeywordQuery:
    """What a text asks for."""

    words: str
    """What to ask others: they take the last word for the beginning of one."""
    _tests: tuple[_Test, ...]

    def accepts(self, path: str, size: int) -> bool:
        """Return whether a file is what was asked for."""
        name = path.rpartition("/")[2].casefold()
        candidate = _Candidate(name, size, _spaced(path))
        return all(test(candidate) for test in self._tests)


def parse_query(text: str) -> KeywordQuery:
    """Return what a text asks for.

    Raises:
        QueryError: it asks for no word, is too long to be asked, or holds a size that is none.
    """
    whole: list[str] = []
    loose: list[str] = []
    tests: list[_Test] = []
    for minus, phrase, bare in _TERM.findall(text):
        if not tokens_of(phrase or bare):
            continue
        if bare and not minus and not bare.startswith(("ext:", "size:")):
            loose.append(bare)
            continue
        test, words = _extended(bare) if bare else (_has_phrase(phrase), phrase)
        tests.append(_not(test) if minus else test)
        if not minus:
            whole.append(words)
    words = " ".join(words_of(" ".join((*whole, *loose))))
    if not words:
        raise QueryError("search for at least one word of two letters or a digit")
    if len(words.encode()) > MAX_QUERY_TEXT_BYTES:
        raise QueryError(f"search for at most {MAX_QUERY_TEXT_BYTES} bytes of text")
    return KeywordQuery(words, (_has_words(words), *tests))


def _extended(term: str) -> tuple[_Test, str]:
    """Return the test for a term without spaces, and the words in it that travel."""
    kind, colon, value = term.partition(":")
    if kind == "ext" and colon:
        return _has_extension(value), value
    if kind == "size" and colon:
        return _has_size(value), ""
    return _has_phrase(term), term


def _has_words(words: str) -> _Test:
    *whole, last = words.split()
    return lambda file: f" {last}" in file.text and all(f" {word} " in file.text for word in whole)


def _has_phrase(phrase: str) -> _Test:
    wanted = _spaced(phrase)
    return lambda file: wanted in file.text


def _has_extension(value: str) -> _Test:
    if not value.strip("."):
        raise QueryError("ext: what extension? As in ext:pdf")
    ending = "." + value.lstrip(".").casefold()
    return lambda file: file.name.endswith(ending)


def _has_size(value: str) -> _Test:
    try:
        bound = parse_size(value[1:])
    except ValueError as error:
        raise QueryError(f"size:{value}: {error}") from error
    if value[0] == ">":
        return lambda file: file.size > bound
    if value[0] == "<":
        return lambda file: file.size < bound
    raise QueryError(f"size:{value} is neither size:>10M nor size:<10M")


def _not(test: _Test) -> _Test:
    return lambda file: not test(file)


def _spaced(text: str) -> str:
    return f" {' '.join(tokens_of(text))} "
