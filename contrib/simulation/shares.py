"""What the servents share, and what people look for.

Measured networks have it so: most people share nothing, few share very much, and words are as
frequent as in any language (Zipf). What is looked for follows the same words.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from p2pfs.protocol import Query, QueryKind, Wanted, phrases_of, tokens_of

SHARE_NOTHING: Final = 0.7
"""The part of all servents (Saroiu et al., 2002; Adar and Huberman, 2000)."""

WORDS: Final = 20_000
WORDS_IN_A_NAME: Final = 4

MOST_FILES: Final = 100
"""Of one servent here: shares are smaller, as filters are."""


@dataclass(frozen=True)
class Question:
    """What somebody looks for."""

    kind: QueryKind
    text: str
    holders: AbstractSet[int]
    """Who has it."""
    wants_all: bool
    """Whether the first answer is not enough."""


class Shares:
    """Who shares what."""

    def __init__(self, servents: int, rng: random.Random) -> None:
        self._rng = rng
        self._servents = servents
        self._numbers = itertools.count()
        weights = (1 / rank for rank in range(1, WORDS + 1))
        self._weights = list(itertools.accumulate(weights))
        self._by_path: dict[str, set[int]] = defaultdict(set)
        self._by_directory: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._by_word: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        self.paths: defaultdict[int, list[str]] = defaultdict(list)
        """What each servent shares."""
        for servent in range(servents):
            if rng.random() >= SHARE_NOTHING:
                self._fill(servent)
        self._paths = list(self._by_path)

    def _fill(self, servent: int) -> None:
        for _ in range(min(MOST_FILES, int(self._rng.paretovariate(0.8) * 3))):
            self.put(servent, f"d{servent} {self.word()}/{self.name()}")

    def word(self) -> str:
        """Return a word, the frequent ones more often."""
        words = range(WORDS)
        return f"w{self._rng.choices(words, cum_weights=self._weights)[0]}"

    def name(self) -> str:
        """Return the name of a file."""
        return " ".join(self.word() for _ in range(WORDS_IN_A_NAME))

    def put(self, servent: int, path: str) -> None:
        """Let a servent share a file."""
        self.paths[servent].append(path)
        self._by_path[path].add(servent)
        self._by_directory[path.rpartition("/")[0]][servent].append(path)
        for token in set(tokens_of(path)):
            self._by_word[token][servent].append(path)

    def answers(self, servent: int, query: Query) -> list[str]:
        """Return the paths that a servent has for a query."""
        if query.kind is QueryKind.PATH:
            return [query.text] if servent in self._by_path.get(query.text, ()) else []
        if query.kind is QueryKind.DIRECTORY:
            return self._by_directory.get(query.text, {}).get(servent, [])
        words = [token for phrase in phrases_of(query.text) for token in phrase]
        some = min((self._of(word, servent) for word in words), key=len)
        wanted = Wanted(query.text)
        return [path for path in some if wanted.accepts(path, 1)]

    def _of(self, word: str, servent: int) -> list[str]:
        return self._by_word.get(word, {}).get(servent, [])

    # Questions.

    def copies(self, count: int) -> Question:
        """Return a question for a new file of which there are so many copies."""
        path = f"rare {next(self._numbers)}/only{next(self._numbers)}"
        holders = set(self._rng.sample(range(self._servents), count))
        for holder in holders:
            self.put(holder, path)
        return Question(QueryKind.PATH, path, holders, wants_all=not count)

    def directory(self) -> Question:
        """Return a question for a directory that one servent has."""
        copy = self.copies(1)
        return Question(QueryKind.DIRECTORY, copy.text.rpartition("/")[0], copy.holders, True)

    def words(self) -> Question:
        """Return a question for two words of a name that somebody shares."""
        path = self._rng.choice(self._paths)
        text = " ".join(self._rng.sample(path.rpartition("/")[2].split(), 2))
        query = Query(bytes(16), 1, 0, QueryKind.WORDS, text, 50, 0)
        return Question(QueryKind.WORDS, text, self._holders(query), wants_all=True)

    def _holders(self, query: Query) -> set[int]:
        words: Iterable[str] = query.text.split()
        some = min((self._by_word.get(word, {}) for word in words), key=len)
        return {servent for servent in list(some) if self.answers(servent, query)}
