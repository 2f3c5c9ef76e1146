"""Where each content is claimed to be, by its id, and by whom.

Most contents are in one place. An id may be in a hundred thousand all the same: that of the empty
file, or one that a liar announces under as many names. So nothing here takes longer for it, but
`versions`.

Not locked: it belongs to the tree of claims.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from p2pfs.namespace.nodes import Content
from p2pfs.namespace.places import Claims, Place, Sole
from p2pfs.protocol import FileId, ServentId

COMMON: Final = 8
"""With more versions than these at all its places, an id has its claims counted."""

_SHARDS: Final = 64
"""One table of a million contents takes 24 ms to grow, and all threads wait; each of 64 takes 0.4
ms."""

_Places = dict[FileId, Place | dict[Place, None]]
"""Nearly all contents are in one place."""

_BySize = dict[int, Counter[ServentId]]
"""For each announced size of a content, at how many places a servent claims it."""


class Claimed:
    """The places of all contents."""

    def __init__(self) -> None:
        self._places: Sequence[_Places] = tuple({} for _ in range(_SHARDS))
        """In shards by the last byte of the id."""
        self._common: dict[FileId, _BySize] = {}

    def versions(self, file_id: FileId) -> Iterator[tuple[Place, Content, Claims | Sole]]:
        """Yield all claims to a content, of whatever size it is said to be."""
        for place in self._places_of(file_id):
            for content, claims in place.versions():
                if content.file_id == file_id:
                    yield place, content, claims

    def by_size(self, file_id: FileId) -> Mapping[int, Collection[ServentId]]:
        """Return the servents that claim a content, by the size that they announce."""
        common = self._common.get(file_id)
        return self._count(file_id) if common is None else common

    def sizes(self, file_id: FileId) -> Collection[int]:
        """Return the sizes that a content is said to have."""
        common = self._common.get(file_id)
        if common is None:
            return {content.size for _, content, _ in self.versions(file_id)}
        return common.keys()

    def add(self, place: Place, content: Content, source: ServentId) -> None:
        """Note a claim of a servent, which is at the place already, and was not before."""
        self._came(place, content.file_id)
        common = self._common.get(content.file_id)
        if common is not None:
            common.setdefault(content.size, Counter())[source] += 1
        elif sum(1 for _ in itertools.islice(self.versions(content.file_id), COMMON + 1)) > COMMON:
            self._common[content.file_id] = self._count(content.file_id)

    def remove(self, place: Place, content: Content, source: ServentId) -> None:
        """Note that a claim of a servent is gone from a place."""
        common = self._common.get(content.file_id)
        if common is not None:
            _take_one(common, content.size, source)
            if not common:
                del self._common[content.file_id]
        if all(other.file_id != content.file_id for other in place.contents()):
            self._left(place, content.file_id)

    def _count(self, file_id: FileId) -> _BySize:
        found: _BySize = {}
        for _, content, claims in self.versions(file_id):
            found.setdefault(content.size, Counter()).update(dict.fromkeys(claims.by, 1))
        return found

    def _places_of(self, file_id: FileId) -> Iterable[Place]:
        places = self._shard(file_id).get(file_id, ())
        return (places,) if isinstance(places, Place) else places

    def _shard(self, file_id: FileId) -> _Places:
        return self._places[file_id[-1] % _SHARDS]

    def _came(self, place: Place, file_id: FileId) -> None:
        places = self._shard(file_id)
        known = places.setdefault(file_id, place)
        if isinstance(known, dict):
            known[place] = None
        elif known is not place:
            places[file_id] = {known: None, place: None}

    def _left(self, place: Place, file_id: FileId) -> None:
        places = self._shard(file_id)
        known = places[file_id]
        if isinstance(known, dict):
            del known[place]
        if known is place or not known:
            del places[file_id]


def _take_one(common: _BySize, size: int, source: ServentId) -> None:
    by = common[size]
    by[source] -= 1
    if not by[source]:
        del by[source]
    if not by:
        del common[size]
