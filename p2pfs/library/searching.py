"""Keyword queries: the index finds files, and those that are offered are returned."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final

from p2pfs.errors import NotFoundError
from p2pfs.library.answers import Answers
from p2pfs.library.index import DamagedIndexError, Index
from p2pfs.library.offers import SharedFile
from p2pfs.protocol import MAX_TOTAL, Entry, Terms, Wanted

FILES_AT_ONCE: Final = 64
"""Files that a search looks at in one step: the first is enough for almost every question."""


class Searching:
    """Answers keyword queries. For threads, since the index waits for the disk."""

    def __init__(
        self, index: Index, answers: Answers, index_failed: Callable[[Exception], object]
    ) -> None:
        self._index = index
        self._answers = answers
        self._index_failed = index_failed

    def match(
        self,
        text: str,
        limit: int,
        terms: Terms,
        after: str,
        may_see: Callable[[str], bool] | None = None,
    ) -> tuple[list[Entry], int, float]:
        """Return the files that `Library.match_words` finds, how many, and the seconds it took."""
        began_at = time.thread_time()
        try:
            is_known = not after or may_see is None or may_see(after)
            number = self._index.number(after) if after and is_known else 0
            if number is None or not is_known:
                raise NotFoundError(f"{after} is not shared any more")
            if may_see is None:
                found = self._find(text, limit, terms, number)
            else:
                found = self._find_among(text, limit, terms, number, may_see)
        except (DamagedIndexError, sqlite3.Error) as error:
            self._index_failed(error)
            found = [], 0
        files, total = found
        return [file.entry for file in files], total, time.thread_time() - began_at

    def _find(
        self, text: str, limit: int, terms: Terms, after: int
    ) -> tuple[list[SharedFile], int]:
        """Look at files one after the other until there are enough."""
        wanted = Wanted(text, terms)
        found: list[SharedFile] = []
        while numbers := self._index.match(text, terms, after=after, limit=MAX_TOTAL):
            for start in range(0, len(numbers), FILES_AT_ONCE):
                some = numbers[start : start + FILES_AT_ONCE]
                offered = self._answers.offered(self._index.files(some))
                found += (one for one in offered if wanted.accepts(one.path, one.size))
                if len(found) > limit:
                    left = len(numbers) - start - len(some)
                    return found[:limit], min(len(found) + left, MAX_TOTAL)
            after = numbers[-1]
        return found, len(found)

    def _find_among(
        self, text: str, limit: int, terms: Terms, after: int, may_see: Callable[[str], bool]
    ) -> tuple[list[SharedFile], int]:
        """Look at all files, so that those which the asker may not see are not counted either."""
        wanted = Wanted(text, terms)
        found: list[SharedFile] = []
        while numbers := self._index.match(text, terms, after=after, limit=MAX_TOTAL):
            for start in range(0, len(numbers), FILES_AT_ONCE):
                some = self._index.files(numbers[start : start + FILES_AT_ONCE])
                offered = self._answers.offered([one for one in some if may_see(one[0])])
                found += (one for one in offered if wanted.accepts(one.path, one.size))
                if len(found) >= MAX_TOTAL:
                    return found[:limit], MAX_TOTAL
            after = numbers[-1]
        return found[:limit], len(found)
