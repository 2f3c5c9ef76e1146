"""The patterns of `.gitignore`, compared in a time that no pattern and no name makes long.

Each is translated to one regular expression for each label of a path. A star takes as little as it
can and gives nothing back, so what `*a*a*a*b` finds in a long name costs one look at each letter.
Patterns and names are compared in normal form C, as others see the names.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from p2pfs.protocol import MAX_LABEL_BYTES

_SLASH: Final = "/"
_STARS: Final = ("*", "**")
_BYTE_ORDER_MARK: Final = "\ufeff"

_CLASSES: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t\n\v\f\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}

_TOKEN: Final = re.compile(
    r"""  (?P<stars>\*+)
      | (?P<one>\?)
      | (?P<slash>\\?/)
      | \\(?P<escaped>.)
      | \[(?P<sign>[!^]?+)(?P<set>(?>\\.|\[:[^]]*:]|[^\\])(?>\\.|\[:[^]]*:]|[^]\\])*+)]
      | (?P<plain>[^\\[])
    """,
    re.VERBOSE | re.DOTALL,
)

_MEMBER: Final = re.compile(
    r"""  \[:(?P<class>[^]]*):]
      | \\?+(?P<first>.)-\\?+(?P<last>.)
      | \\?+(?P<alone>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_Label: TypeAlias = "str | re.Pattern[str] | None"
"""What one label must be; None stands for `**`, any number of them."""


class _Rule(NamedTuple):
    is_ignoring: bool
    is_for_directories: bool
    is_anywhere: bool
    """Whether the pattern has a name alone, which may be in any directory."""
    labels: Sequence[_Label]

    def matches(self, labels: Sequence[str]) -> bool:
        """Return whether a path, as labels, is what the pattern means."""
        if self.is_anywhere:
            return _is(labels[-1], self.labels[-1])
        states = self._reached({0})
        for label in labels:
            states = self._reached({after for at in states for after in self._after(at, label)})
        return len(self.labels) in states

    def _after(self, at: int, label: str) -> Iterator[int]:
        if at < len(self.labels):
            wanted = self.labels[at]
            if wanted is None:
                yield at
            elif _is(label, wanted):
                yield at + 1

    def _reached(self, states: set[int]) -> set[int]:
        """Return these places in the pattern, and those behind a `**` that stands for nothing."""
        return states | {at + 1 for at in states if self.labels[at : at + 1] == [None]}


class Patterns:
    """The lines of one file, of which the last that matches a path decides."""

    def __init__(self, text: str) -> None:
        """Take the text of the file. Lines that no path can match are left out, as git does."""
        lines = unicodedata.normalize("NFC", text.removeprefix(_BYTE_ORDER_MARK)).split("\n")
        rules = (_rule(line.removesuffix("\r")) for line in lines)
        self._rules = [rule for rule in rules if rule is not None]
        self._named: dict[str, list[int]] = {}
        """The rules whose last label is plain, by that: a long list of names costs little."""
        self._others: list[int] = []
        for number, rule in enumerate(self._rules):
            name = rule.labels[-1]
            place = self._named.setdefault(name, []) if isinstance(name, str) else self._others
            place.append(number)

    def verdict(self, path: str, *, is_directory: bool) -> bool | None:
        """Return whether a path below the file's directory is ignored; None if nothing is said."""
        labels = unicodedata.normalize("NFC", path).split("/")
        last = -1
        for numbers in (self._named.get(labels[-1], ()), self._others):
            for number in reversed(numbers):
                rule = self._rules[number]
                if number < last:
                    break
                if (is_directory or not rule.is_for_directories) and rule.matches(labels):
                    last = number
                    break
        return self._rules[last].is_ignoring if last >= 0 else None


def _is(label: str, wanted: _Label) -> bool:
    if wanted is None or isinstance(wanted, str):
        return wanted is None or label == wanted
    return wanted.fullmatch(label) is not None


def _rule(line: str) -> _Rule | None:
    """Return the rule of a line, None if it matches nothing."""
    line = _trimmed(line)
    if line.startswith("#"):
        return None
    is_ignoring = not line.startswith("!")
    pattern = line if is_ignoring else line[1:]
    is_for_directories = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    is_anywhere = "/" not in pattern
    labels = _labels(pattern.removeprefix("/"))
    if labels is None:
        return None
    if labels[-1] is None and not is_anywhere:
        labels.append(_label("*"))  # all that is in it, and not itself
    few = [a for a, b in itertools.pairwise(labels) if a is not None or b is not None]
    return _Rule(is_ignoring, is_for_directories, is_anywhere, [*few, labels[-1]])


def _trimmed(line: str) -> str:
    """Return a line without the spaces at its end; one behind a backslash stays."""
    bare = line.rstrip(" ")
    slashes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if slashes % 2 and len(bare) < len(line) else bare


def _labels(pattern: str) -> list[_Label] | None:
    """Return what each label must be, None if no path has such labels."""
    tokens = _tokens(pattern)
    if tokens is None:
        return None
    labels: list[list[str]] = [[]]
    for token in tokens:
        if token == _SLASH:
            labels.append([])
        else:
            labels[-1].append(token)
    if not all(0 < len(label) <= MAX_LABEL_BYTES for label in labels):
        return None
    return [_label(label) for label in labels]


def _label(tokens: Sequence[str]) -> _Label:
    if tokens == ["**"]:
        return None
    if all(token == re.escape(token[-1]) for token in tokens):
        return "".join(token[-1] for token in tokens)
    head, *pieces = _pieces(tokens)
    if not pieces:
        return re.compile(head, re.DOTALL)
    passed = "".join(f"(?>.*?{piece})" for piece in pieces[:-1])
    return re.compile(f"{head}{passed}.*{pieces[-1]}", re.DOTALL)


def _pieces(tokens: Sequence[str]) -> list[str]:
    """Return what stands before, between and behind the stars."""
    pieces = [""]
    for token in tokens:
        if token in _STARS:
            pieces.append("")
        else:
            pieces[-1] += token
    return pieces


def _tokens(pattern: str) -> list[str] | None:
    """Return a regular expression for each character; None if a bracket or an escape lacks its end.

    Stars and slashes stand for themselves.
    """
    tokens: list[str] = []
    at = 0
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        token = None if found is None else _token(found)
        if found is None or token is None:
            return None
        tokens.append(token)
        at = found.end()
    return tokens


def _token(found: re.Match[str]) -> str | None:
    match found.lastgroup:
        case "stars":
            return found["stars"][:2]
        case "one":
            return "."
        case "slash":
            return _SLASH
        case "set":
            return _set(found["set"], "^" if found["sign"] else "")
        case kind:
            return re.escape(found[kind or ""])


def _set(text: str, sign: str) -> str | None:
    """Return the regular expression of a bracket; None if it names a class that is none."""
    members = []
    for found in _MEMBER.finditer(text):
        if found.lastgroup == "class":
            if found["class"] not in _CLASSES:
                return None
            members.append(_CLASSES[found["class"]])
        elif found.lastgroup == "last" and found["first"] <= found["last"]:
            members.append(f"{re.escape(found['first'])}-{re.escape(found['last'])}")
        else:
            members.append(re.escape(found["first"] or found["alone"]))
    return f"[{sign}{''.join(members)}]"
