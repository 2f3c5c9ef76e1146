"""Where each content is claimed to be, by its id, and by whom.

Most contents are in one place. An id may be in a hundred thousand all the same: that of the empty
file, or one that a liar announces under as many names. So nothing here takes longer for it, but
`versions`.

Not locked: it belongs to the tree of claims.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from p2pfs.namespace.nodes import Content
from p2pfs.namespace.places import Claims, Place, Sole
from p2pfs.protocol import FileId, ServentId

COMMON: Final = 8
"""With more versions than these at all its places, an id has its claims counted."""

_SHARDS: Final = 64
"""One table of a million contents takes 24 ms to grow, and all threads wait; each of 64 takes 0.4
ms."""

_Sizes = int | dict[int, None]
"""The size that a content is said to have at a place, or several."""

_Places = dict[FileId, Place | dict[Place, _Sizes]]
"""Nearly all contents are in one place, and nothing else is there."""

_NOWHERE: Final[Mapping[Place, _Sizes]] = MappingProxyType({})

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
        for place, sizes in self._places_of(file_id).items():
            for size in sizes if isinstance(sizes, dict) else (sizes,):
                content = Content(file_id, size)
                yield place, content, place.claims_to(content)

    def by_size(self, file_id: FileId) -> Mapping[int, Collection[ServentId]]:
        """Return the servents that claim a content, by the size that they announce."""
        common = self._common.get(file_id)
        return self._count(file_id) if common is None else common

    def sizes(self, file_id: FileId) -> Collection[int]:
        """Return the sizes that a content is said to have."""
        place = self._shard(file_id).get(file_id)
        if isinstance(place, Place) and place.sole is not None:
            return (place.sole.size,)
        common = self._common.get(file_id)
        if common is not None:
            return common.keys()
        places = self._shard(file_id).get(file_id)
        if isinstance(places, Place) and places.sole is not None:  # nearly all: see `_Places`
            return (places.sole.size,)
        return {content.size for _, content, _ in self.versions(file_id)}

    def add(self, place: Place, content: Content, source: ServentId) -> None:
        """Note a claim of a servent, which is at the place already, and was not before."""
        self._came(place, content)
        common = self._common.get(content.file_id)
        if common is not None:
            common.setdefault(content.size, Counter())[source] += 1
        elif self._is_common(content.file_id):
            self._common[content.file_id] = self._count(content.file_id)

    def fill(self, places: Iterable[Place]) -> None:
        """Note the only claim at each of some places, none of which was there before."""
        for place in places:
            sole = place.sole
            assert sole is not None, "there is a claim"
            shard = self._places[sole.file_id[-1] % _SHARDS]
            if shard.setdefault(sole.file_id, place) is not place:  # it is elsewhere as well
                self.add(place, sole.content, sole.source)

    def remove(self, place: Place, content: Content, source: ServentId) -> None:
        """Note that a claim of a servent is gone from a place."""
        common = self._common.get(content.file_id)
        if common is not None:
            _take_one(common, content.size, source)
            if not common:
                del self._common[content.file_id]
        if not place.has(content):
            self._left(place, content)

    def not_alone(self, place: Place, content: Content) -> None:
        """Note that something else is said to be at the place of a content as well."""
        places = self._shard(content.file_id)
        if places[content.file_id] is place:
            places[content.file_id] = {place: content.size}

    def _is_common(self, file_id: FileId) -> bool:
        places = self._places_of(file_id)
        if len(places) > COMMON:
            return True
        several = (len(sizes) if isinstance(sizes, dict) else 1 for sizes in places.values())
        return sum(several) > COMMON

    def _count(self, file_id: FileId) -> _BySize:
        found: _BySize = {}
        for _, content, claims in self.versions(file_id):
            found.setdefault(content.size, Counter()).update(dict.fromkeys(claims.by, 1))
        return found

    def _places_of(self, file_id: FileId) -> Mapping[Place, _Sizes]:
        places = self._shard(file_id).get(file_id, _NOWHERE)
        if isinstance(places, Place):
            assert places.sole is not None, "nothing else is there"
            return {places: places.sole.size}
        return places

    def _shard(self, file_id: FileId) -> _Places:
        return self._places[file_id[-1] % _SHARDS]

    def _came(self, place: Place, content: Content) -> None:
        shard, file_id = self._shard(content.file_id), content.file_id
        if file_id not in shard and place.sole is not None:
            shard[file_id] = place
            return
        places = shard.get(file_id)
        if not isinstance(places, dict):
            places = shard[file_id] = dict(self._places_of(file_id))
        sizes = places.setdefault(place, content.size)
        if isinstance(sizes, dict):
            sizes[content.size] = None
        elif sizes != content.size:
            places[place] = {sizes: None, content.size: None}

    def _left(self, place: Place, content: Content) -> None:
        shard, file_id = self._shard(content.file_id), content.file_id
        places = shard[file_id]
        if isinstance(places, Place):
            del shard[file_id]
            return
        sizes = places[place]
        if isinstance(sizes, dict):
            del sizes[content.size]
        if not isinstance(sizes, dict) or not sizes:
            del places[place]
        if not places:
            del shard[file_id]


def _take_one(common: _BySize, size: int, source: ServentId) -> None:
    by = common[size]
    by[source] -= 1
    if not by[source]:
        del by[source]
    if not by:
        del common[size]
