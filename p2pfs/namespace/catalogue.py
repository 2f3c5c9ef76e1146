"""What `network/` is known to hold: names, sizes, times and the servents that have them.

Searches, listings and neighbours tell the catalogue; the tree asks it. It is memory alone,
so `ls`, `stat` and extended attributes of known names never wait for the network. It asks no
servent for anything: the browser decides which name is worth a search.

Each entry that a servent tells of is a claim. The catalogue takes claims in and forgets them. Its
parts answer questions about the same claims: `shown` by shown paths, `offers` by contents,
`holders` by servents; `kept` adds what the user keeps. Paths are as published, but for those that
`shown` takes: its `published` leads from the ones to the others.

Everything here may be called from any thread. One lock guards this and the parts that it is made
of. It is held for two milliseconds at most, with a million names: longer work is done in parts.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from p2pfs.namespace.asked import Finds, Misses, Repeats, WholeListings
from p2pfs.namespace.claims import ClaimTree
from p2pfs.namespace.fading import Fading
from p2pfs.namespace.holders import Holders
from p2pfs.namespace.kept import Kept
from p2pfs.namespace.offers import OthersOffers
from p2pfs.namespace.places import Place
from p2pfs.namespace.showing import HERE, NOTHING, Here, Showing
from p2pfs.namespace.shown import ShownTree
from p2pfs.namespace.sources import Sources
from p2pfs.namespace.tellers import GroupsOf
from p2pfs.protocol import Entry, PeerInfo, ServentId, join_path, name_of

NAMES_SIFTED_AT_ONCE: Final = 2_000
"""Names of a listing that are compared without a break: two milliseconds if all are gone."""


class Catalogue:
    """The union of what other servents offer."""

    def __init__(
        self,
        here: Here = NOTHING,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._here = here
        self._now_ns = now_ns
        self._lock = threading.RLock()
        self._tree = ClaimTree(here.is_whole, here.groups_of, clock)
        self._clock = clock
        self._sources = Sources(clock)
        self._showing = Showing(self._tree, here, self._sources)
        self.offers = OthersOffers(self._tree, here, self._sources, self._lock)
        """The claims by their contents."""
        self._absences = Misses()
        self.kept = Kept(self._tree, self.offers, self._absences, self._lock, now_ns)
        """What the user keeps."""
        self._listed = WholeListings()
        self.holders = Holders(self._tree, self._showing, self._sources, self._listed, self._lock)
        """The claims by the servents that make them."""
        self.shown = ShownTree(self._tree, self._showing, self._absences, self._lock)
        """What follows from the claims, by the paths under which it is shown."""
        self._repeats = Repeats()
        self._finds = Finds()
        self._dropped = 0
        self._fading = Fading(self._tree)
        self.on_fading: Callable[[], object] = lambda: None
        """Is called when there is something for `fade` to do."""

    @property
    def groups_of(self) -> GroupsOf:
        """Tell which network and address answer for the claims of a servent."""
        return self._here.groups_of

    @property
    def dropped(self) -> int:
        """Entries and servents that the bounds turned away."""
        return self._dropped + self._tree.dropped

    @property
    def evicted(self) -> int:
        """Entries that made room for others."""
        return self._tree.evicted

    @property
    def left_out(self) -> int:
        """Entries and servents that the bounds turned away, or that made room for others."""
        return self.dropped + self.evicted

    # Claims of others.

    def learn(self, source: PeerInfo, entries: Iterable[Entry]) -> Sequence[Entry]:
        """Note that `source` has these entries, and the directories above them.

        Returns those that are believed. An entry that a manifest contradicts is not believed, and
        its source has lied. A time in the future becomes now, once: at each further announcement of
        the same content it stays what it became. If it moved with the clock, `rsync` and `make`
        would do their work forever.
        """
        good = self.offers.sift(source, entries)
        with self._lock:
            if self._here.is_refused(source.id) or not self._has_place(source):
                return good
            return self._learn_all(source.id, good)

    def learn_found(self, source: PeerInfo, entries: Iterable[Entry]) -> None:
        """Note entries that were found by their paths: no listing begun before removes them."""
        now = self._clock()
        with self._lock:
            for entry in self.learn(source, entries):
                self._finds.put(source.id, entry.path, now)

    def learn_listing(
        self, source: PeerInfo, directory: str, entries: Sequence[Entry], since: float = math.inf
    ) -> None:
        """Note the whole listing of `directory` by `source`: names that it lacks are forgotten.

        Those that were found by their paths since the listing began stay.
        """
        told = hash(tuple(entries))
        if self._is_told_again(source, directory, told):
            return
        good = self.learn(source, entries)
        self.keep_names(source, directory, {name_of(e.path) for e in good}, since)
        with self._lock:
            if len(good) == len(entries):
                version = self._tree.version_of(source.id)
                self._repeats.put(source.id, directory, told, version)

    def _is_told_again(self, source: PeerInfo, directory: str, told: int) -> bool:
        """Return whether a servent gave the same listing before, and has the same claims still."""
        with self._lock:
            version = self._tree.version_of(source.id)
            is_same = self._repeats.has(source.id, directory, told, version)
            may_be_heard = source.id not in self._fading and not self._here.is_refused(source.id)
            return is_same and may_be_heard and self._has_place(source)

    def keep_names(
        self, source: PeerInfo, directory: str, names: Collection[str], since: float = math.inf
    ) -> None:
        """Note that `source` has `directory`, and in it these names alone.

        Those that were found by their paths since the listing began stay.
        """
        for _ in self.keeping_names(source, directory, names, since):
            pass

    def keeping_names(
        self, source: PeerInfo, directory: str, names: Collection[str], since: float = math.inf
    ) -> Iterator[None]:
        """Do the same in parts of a millisecond, for long listings.

        Their pages were learned one by one before: 20,000 entries at once took 0.3 s, in which
        every thread waited.
        """
        with self._lock:
            if self._here.is_refused(source.id) or not self._has_place(source):
                return
            self._learn_one(source.id, Entry(directory, 0, 0, b""))
            place = self._tree.place(directory)
            known = self._tree.names_of(source.id, place) if place is not None else ()
            if len(known) == len(names) > NAMES_SIFTED_AT_ONCE:
                return  # as many names as are known, and each page was learned: none is gone
            known = list(known)
        for first in range(0, len(known), NAMES_SIFTED_AT_ONCE):
            with self._lock:
                part = known[first : first + NAMES_SIFTED_AT_ONCE]
                gone = self._gone(source.id, directory, part, names, since)
                assert place is not None, "it has names"
                self._fade(source.id, self._tree.places_of(source.id, place, gone))
            yield

    def _gone(
        self,
        source: ServentId,
        directory: str,
        known: Iterable[str],
        names: Collection[str],
        since: float,
    ) -> list[str]:
        """Return the known names that a servent has no more, since it listed only `names`."""
        lacking = (name for name in known if name not in names)
        return [n for n in lacking if not self._finds.has(source, join_path(directory, n), since)]

    def keep_only(
        self, directory: str, sources: Iterable[ServentId], since: float = math.inf
    ) -> None:
        """Forget `directory` and all below it at every servent that is not among `sources`.

        A servent at which it was found since the search began stays; for the root, any servent from
        which a message came since then.
        """
        with self._lock:
            place = self._tree.place(directory)
            if place is None:
                return
            kept = frozenset((*sources, *self._found_since(directory, since), HERE))
            if place is self._tree.root:
                gone = set(self._tree.sources()) - kept
                self._sources.keep(kept)
            else:
                gone = {source for claims in place.claims() for source in claims.by} - kept
            for source in gone:
                self._fading.put(source, (place,))
            self._begin_to_fade()
            self._listed.keep_only(directory, kept)

    def _found_since(self, directory: str, since: float) -> Iterator[ServentId]:
        if directory:
            return self._finds.since(directory, since)
        return self._sources.heard_since(since)

    def forget(self, source: ServentId) -> None:
        """Forget all that one servent offers."""
        with self._lock:
            self._fade(source, (self._tree.root,))
            self._sources.forget(source)
            self._listed.forget(source, "")

    def forget_path(self, source: ServentId, path: str) -> None:
        """Forget what one servent offers at `path` and below."""
        with self._lock:
            self._listed.forget(source, path)
            place = self._tree.place(path)
            if place is not None:
                self._fade(source, (place,))

    def _fade(self, source: ServentId, places: Iterable[Place]) -> None:
        """Forget what a servent has at some places and below: some at once, the rest by `fade`."""
        self._fading.put(source, places)
        self._begin_to_fade()

    def _begin_to_fade(self) -> None:
        if self._fading.go_on():
            self.on_fading()

    def fade(self) -> bool:
        """Forget some claims that are to be forgotten; return whether there are more."""
        with self._lock:
            return self._fading.go_on()

    def remember_absent(self, path: str, until: float) -> None:
        """Note that nobody has `path`, to be believed until a time."""
        with self._lock:
            self._absences.put(path, until)

    def forget_absences(self, directories: Collection[str] | None = None) -> None:
        """Hold no name for absent, in these directories or any: it may just have been published."""
        with self._lock:
            self._absences.clear(directories)

    def expire(self, now: float) -> None:
        """Believe no listing that was begun before, and no absence: the next look asks again."""
        with self._lock:
            self.holders.expire(now)
            self._absences.clear()

    # How it is kept.

    def _learn_all(self, source: ServentId, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Learn entries; those of a page at once, where most are new, or told again."""
        is_page = len(entries) > 1 and source not in self._fading
        if is_page and (
            self._tree.has_all(source, entries) or self._tree.fill(source, entries, self._now_ns())
        ):
            self._absences.drop_all(entry.path for entry in entries)
            return entries
        return [self._learn_one(source, entry) for entry in entries]

    def _learn_one(self, source: ServentId, entry: Entry) -> Entry:
        if source in self._fading:
            self._fading.end(source, entry.path)
        if entry.path:
            entry = self._tree.put(source, entry, self._now_ns())
            self._absences.drop(entry.path)
        return entry

    def _has_place(self, source: PeerInfo) -> bool:
        """Note a servent; return whether there is room for it."""
        has_place = self._sources.put(source, self._tree.sources)
        self._dropped += not has_place
        return has_place
