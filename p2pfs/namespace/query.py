"""The language of keyword searches, from a text to the query that others get. Pure.

    blue whale          all words in the path; the last may be the beginning of one
    blue-whale r&b 東京   what stands between spaces is one word: all of it side by side
    "exact phrase"      these words side by side, in this order
    -word -"a phrase"   not these
    ext:pdf             names that end in `.pdf`
    size:>10M size:<1G  larger, or smaller

All of it travels, so that others cut their answers after the last term. Others find files by
their words, so the words of phrases and extensions are among the words as well. A text that only
excludes is not enough to ask for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from p2pfs.config import parse_size
from p2pfs.protocol import (
    MAX_FILE_BYTES,
    MAX_LABEL_BYTES,
    MAX_QUERY_TEXT_BYTES,
    MAX_TERMS,
    Phrase,
    Terms,
    Wanted,
    distinct,
    fits_query,
    fold,
    phrases_of,
    question_of,
    tokens_of,
)

_TERM: Final = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')
"""Perhaps `-`; then a phrase, whose last quote may be missing, or what has no space in it."""

_ANYTHING: Final = Terms()


class QueryError(ValueError):
    """A text from which no query can be made. The message says why, for people."""


@dataclass(frozen=True, slots=True)
class KeywordQuery:
    """The query that a text stands for."""

    words: str
    """The words that travel; the last may be the beginning of one. Empty if terms are all."""
    terms: Terms | None
    """Further conditions on the files."""
    wanted: Wanted
    """Tells which files answer it."""


def parse_query(text: str) -> KeywordQuery:
    """Return the query that a text stands for.

    Raises:
        QueryError: it asks for nothing that is wanted, is too long to be asked, or holds a size
            that is none.
    """
    parts = _Parts()
    for minus, phrase, bare in _TERM.findall(text):
        if tokens_of(phrase or bare):
            parts.take(phrase or bare, is_wanted=not minus, is_phrase=bool(phrase))
    words = parts.words()
    terms = parts.terms()
    if not words and (terms.at_least, terms.at_most, terms.endings) == (0, MAX_FILE_BYTES, ()):
        raise QueryError("search for at least one word of two letters or a digit, or a size")
    travelling = None if terms == _ANYTHING else terms
    if not fits_query(words, travelling):
        raise QueryError(f"search for at most {MAX_QUERY_TEXT_BYTES} bytes of text")
    return KeywordQuery(words, travelling, Wanted(words, travelling))


@dataclass
class _Parts:
    """The terms of a text, sorted."""

    whole: list[Phrase] = field(default_factory=list)
    """Words that must be whole, each as its tokens."""
    loose: list[str] = field(default_factory=list)
    at_least: int = 0
    at_most: int = MAX_FILE_BYTES
    phrases: list[str] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    no_phrases: list[str] = field(default_factory=list)
    no_endings: list[str] = field(default_factory=list)

    def take(self, term: str, *, is_wanted: bool, is_phrase: bool) -> None:
        """Add a term; QueryError if it makes no sense."""
        kind, colon, value = ("", "", "") if is_phrase else term.partition(":")
        kind = kind.casefold()
        if kind == "size" and colon:
            self._take_size(value, is_wanted=is_wanted)
        elif kind == "ext" and colon:
            if not value.strip("."):
                raise QueryError("ext: what extension? As in ext:pdf")
            (self.endings if is_wanted else self.no_endings).append(fold(value.lstrip(".")))
            self.whole += _words_of_ending(value) if is_wanted else ()
        elif not is_wanted:
            self.no_phrases.append(question_of([tokens_of(term)]))
        elif is_phrase:
            self.phrases.append(question_of([tokens_of(term)]))
            self.whole.append(tuple(tokens_of(term)))
        else:
            self.loose.append(term)

    def _take_size(self, value: str, *, is_wanted: bool) -> None:
        try:
            bound = parse_size(value[1:])
        except ValueError as error:
            raise QueryError(f"size:{value}: {error}") from error
        if value[0] not in "<>":
            raise QueryError(f"size:{value} is neither size:>10M nor size:<10M")
        is_least = (value[0] == ">") == is_wanted
        if is_least:
            self.at_least = max(self.at_least, bound + is_wanted)
        else:
            self.at_most = min(self.at_most, bound - is_wanted)

    def words(self) -> str:
        """Return the words as they travel, each once; the last loose one comes last."""
        loose = [phrase for term in self.loose for phrase in phrases_of(term)]
        return question_of(distinct([*self.whole, *loose]))

    def terms(self) -> Terms:
        """Return them as they travel; QueryError if that is not possible."""
        if not 0 <= self.at_least <= self.at_most:
            raise QueryError("no file has such a size")
        lists = (self.phrases, self.endings, self.no_phrases, self.no_endings)
        if any(len(one) > MAX_TERMS for one in lists):
            raise QueryError(f"search for at most {MAX_TERMS} phrases or extensions")
        if any(len(term) > MAX_LABEL_BYTES for one in lists for term in one):
            raise QueryError(f"no name has more than {MAX_LABEL_BYTES} characters")
        return Terms(self.at_least, self.at_most, *map(tuple, lists))


def _words_of_ending(extension: str) -> list[Phrase]:
    """Return the words that a name with this ending has.

    Single letters may have become one with others: `b.c` is an abbreviation.
    """
    return [phrase for phrase in phrases_of(extension) if min(map(len, phrase)) > 1]
