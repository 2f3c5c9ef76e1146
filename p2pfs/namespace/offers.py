"""Contents by their ids: the servents that offer them, their sizes, and who announced a false one.

The size of a content follows from its id, and its manifest proves it. A claim that a manifest
contradicts is dropped, and counted against the servent that made it.

Any thread. The lock is the catalogue's, whose tree of claims this is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from p2pfs.latest import Latest
from p2pfs.namespace.claims import ClaimTree
from p2pfs.namespace.nodes import Chosen, Content, Rank, RemoteFile
from p2pfs.namespace.showing import HERE, Here, rank_of
from p2pfs.namespace.sources import Sources
from p2pfs.protocol import Entry, FileId, PeerInfo, ServentId

MAX_PROVED: Final = 10_000
"""Contents whose size is remembered though their manifest is not here any more: 2 MB."""


class OthersOffers:
    """All claims to contents, under whatever names."""

    def __init__(
        self,
        tree: ClaimTree,
        here: Here,
        sources: Sources,
        lock: AbstractContextManager[object],
    ) -> None:
        self._tree = tree
        self._here = here
        self._sources = sources
        self._lock = lock
        self._proved: Latest[FileId, int] = Latest(MAX_PROVED)

    # Sizes.

    def size_of(self, file_id: FileId) -> int | None:
        """Return the size of a content if a manifest was seen that gives it."""
        proved = self._proved.get(file_id)
        return self._here.size_of(file_id) if proved is None else proved

    def believes(self, file: RemoteFile) -> bool:
        """Return whether no manifest contradicts the size of a file."""
        return self.size_of(file.file_id) in (None, file.size)

    def believes_entry(self, entry: Entry) -> bool:
        """Return whether no manifest contradicts the size in an entry."""
        file_id = FileId(entry.file_id)
        return not file_id or self.size_of(file_id) in (None, entry.size)

    def is_disputed(self, file_id: FileId) -> bool:
        """Return whether a content is said to have several sizes, of which one at most is right."""
        with self._lock:
            return len(self._tree.claimed.sizes(file_id)) > 1

    def disputed(self, file_ids: Iterable[FileId]) -> Sequence[FileId]:
        """Return which of some contents are."""
        with self._lock:
            return [file_id for file_id in file_ids if len(self._tree.claimed.sizes(file_id)) > 1]

    def prove(self, file_id: FileId, size: int) -> None:
        """Note the size that a manifest gives a content: claims to another size are false."""
        with self._lock:
            self._proved[file_id] = size
            liars = self._drop_false(file_id)
        self._blame(liars)

    def sift(self, source: PeerInfo, entries: Iterable[Entry]) -> Sequence[Entry]:
        """Return the entries that no manifest contradicts; for any other, `source` has lied."""
        if self._here.is_refused(source.id):
            return ()
        told = list(entries)
        with self._lock:
            wrong = [entry for entry in told if not self.believes_entry(entry)]
            liars = {liar for entry in wrong for liar in self._drop_false(FileId(entry.file_id))}
        self._blame(liars | {source.id for _ in wrong})
        return [entry for entry in told if entry not in wrong] if wrong else told

    def _drop_false(self, file_id: FileId) -> set[ServentId]:
        """Drop claims that a manifest contradicts; return the servents that made them."""
        size = self.size_of(file_id)
        if set(self._tree.claimed.sizes(file_id)) <= {size}:
            return set()
        return {
            source
            for place, content, _ in list(self._tree.claimed.versions(file_id))
            if content.size != size
            for source in self._tree.forget_content(place, content)
        }

    def _blame(self, liars: set[ServentId]) -> None:
        for liar in liars - {HERE}:
            self._here.on_lie(liar)

    # Sources.

    def sources_of(self, file_id: FileId, size: int) -> tuple[PeerInfo, ...]:
        """Return the servents that are known to offer this content, at any path."""
        with self._lock:
            return self._sources.infos(self._tree.claimed.by_size(file_id).get(size, ()))

    def claimants_of(self, file_id: FileId) -> Sequence[Sequence[PeerInfo]]:
        """Return the servents that offer a content, in one group for each size that they announce.

        Groups with a neighbour of our own choice come first, then those known first.
        """
        chosen = self._here.chosen()
        with self._lock:
            by_size = self._tree.claimed.by_size(file_id)
            ranked = sorted(by_size.values(), key=lambda by: chosen.keys().isdisjoint(by))
            return [self._sources.infos(by) for by in ranked]

    # Rank among versions.

    def chosen(self) -> Chosen:
        """Return the neighbours that we chose ourselves, each with where it is."""
        return self._here.chosen()

    def is_whole(self, file_id: FileId) -> bool:
        """Return whether all of a content is in the cache."""
        return self._here.is_whole(file_id)

    def rank(
        self, content: Content, sources: Iterable[PeerInfo], known_at: int, *, is_whole: bool
    ) -> Rank:
        """Return how a content ranks that these sources have, known from a claim or not."""
        with self._lock:
            claimed = self._tree.claimed.by_size(content.file_id)
            is_pinned = HERE in claimed.get(content.size, ())
        by = {source.id for source in sources} | ({HERE} if is_pinned else set())
        return rank_of(by, known_at, self._here.chosen(), is_whole=is_whole)
