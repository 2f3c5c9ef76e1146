"""Which files a keyword query finds (PROTOCOL.md, "Words and terms")."""

from __future__ import annotations

from collections.abc import Iterable

from p2pfs.protocol.fields import Terms
from p2pfs.protocol.words import fold, phrases_of, tokens_of


class Wanted:
    """The conditions of a keyword query, made ready for many files."""

    def __init__(self, text: str, terms: Terms | None = None) -> None:
        """Take the words, of which the last may be the beginning of one, and further terms."""
        terms = terms or Terms()
        *whole, last = map(_spaced, phrases_of(text) or [()])
        self._must_have = [*whole, last.rstrip(" ")]
        self._must_have += [_spaced(tokens_of(phrase)) for phrase in terms.phrases]
        self._must_lack = [_spaced(tokens_of(phrase)) for phrase in terms.no_phrases]
        self._endings = tuple(_ending(one) for one in terms.endings)
        self._no_endings = tuple(_ending(one) for one in terms.no_endings)
        self._sizes = range(terms.at_least, terms.at_most + 1)

    def accepts(self, path: str, size: int) -> bool:
        """Return whether a file meets them."""
        if size not in self._sizes or not self._is_ending_right(path.rpartition("/")[2]):
            return False
        text = _spaced(tokens_of(path))
        has_all = all(needle in text for needle in self._must_have)
        return has_all and not any(needle in text for needle in self._must_lack)

    def _is_ending_right(self, name: str) -> bool:
        if not self._endings and not self._no_endings:
            return True
        folded = fold(name)
        has_all = all(map(folded.endswith, self._endings))
        return has_all and not folded.endswith(self._no_endings)


def _ending(extension: str) -> str:
    return "." + fold(extension.lstrip("."))


def _spaced(tokens: Iterable[str]) -> str:
    """Return tokens with a space before and after each."""
    return f" {' '.join(tokens)} "
