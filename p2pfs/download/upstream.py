"""Below a swarm: searches for sources, the pool of links, and blame.

A swarm knows nothing but its `Upstream`, so tests give it another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import trio

from p2pfs.journal import Journal
from p2pfs.latest import Latest
from p2pfs.link import Deliver, TransferLinks
from p2pfs.namespace import Catalogue
from p2pfs.overlay import Searches
from p2pfs.protocol import FileId, PeerInfo, QueryHit, QueryKind, ServentId
from p2pfs.protocol.flood import Urgency

SOURCES_TIMEOUT_S: Final = 2.0
"""How long any search for sources may take before the swarm goes on without: a flood is over by
then."""

GIVING_S: Final = 5.0
"""How long a source counts as giving after something came from it. At 16 KiB a second, the slowest
limit that can be set, a message of the largest size takes four seconds."""

HEARD_APART_S: Final = 0.1
"""Parts of blocks that come within so much of one another count as one sign of life: a quick
source sends thousands a second, and what follows from one takes 10 us, half of it to move a
deadline."""

MAX_GIVERS: Final = 1_000
"""Sources of which it is remembered when they last gave something."""


class Upstream(Protocol):
    """The network, as far as a swarm calls it.

    `own_id` is our own servent id, by which other readers of the content know us.

    The `fetch_` functions raise LinkError, RejectedError, RemoteProtocolError or StalledError,
    and leave nothing behind when they are cancelled.
    """

    own_id: ServentId

    async def find_sources(
        self, file_id: FileId, size: int, urgency: Urgency
    ) -> Sequence[PeerInfo]:
        """Search for peers that have this content, and say so of this size; maybe nobody.

        It takes `SOURCES_TIMEOUT_S` at most.

        Raises NotAskedError if that may not be now.
        """
        ...

    async def fetch_manifest(self, source: PeerInfo, file_id: FileId) -> bytes:
        """Return what `source` sent as the manifest; not verified."""
        ...

    async def fetch_blocks(
        self,
        source: PeerInfo,
        file_id: FileId,
        wanted: Mapping[int, int],
        deliver: Callable[[bytes], object],
        heard: Callable[[], object],
    ) -> None:
        """Deliver what `source` sends as each of these blocks, in order; not verified.

        `heard` is called whenever a part of a block comes. `wanted` gives the length that each
        should have, by index. An error is about the first block that was not delivered.
        """
        ...

    def proved(self, file_id: FileId, size: int) -> None:
        """Note the size that the manifest of a content gives."""
        ...

    def bad_block(self, source: PeerInfo, file_id: FileId) -> None:
        """Note that `source` sent a wrong block or manifest: certain, and its own doing."""
        ...


class NetworkUpstream:
    """The network below all swarms."""

    def __init__(
        self,
        catalogue: Catalogue,
        searches: Searches,
        links: TransferLinks,
        journal: Journal,
        *,
        ttl: int,
        own_id: ServentId,
        on_bad_block: Callable[[ServentId], None],
    ) -> None:
        self._catalogue = catalogue
        self._searches = searches
        self._links = links
        self._journal = journal
        self._ttl = ttl
        self.own_id = own_id
        self._on_bad_block = on_bad_block
        self._gave_at: Latest[ServentId, float] = Latest(MAX_GIVERS)
        self.received_bytes = 0
        """File data that has come in blocks, right or wrong."""

    async def find_sources(
        self, file_id: FileId, size: int, urgency: Urgency
    ) -> Sequence[PeerInfo]:
        """Return the servents that have a content: those found now, and those known already.

        Raises NotAskedError if that may not be now.
        """
        found = [hit.provider for hit in await self.search(file_id, size, urgency)]
        return tuple(dict.fromkeys((*found, *self._catalogue.offers.sources_of(file_id, size))))

    async def search(
        self,
        file_id: FileId,
        size: int,
        urgency: Urgency,
        found: Callable[[Sequence[QueryHit]], object] = lambda _hits: None,
    ) -> Sequence[QueryHit]:
        """Search for a content; a servent that announces another size of it is no source.

        `found` gets each hit, once, as soon as it has come.
        """
        told: dict[ServentId, QueryHit | None] = {}

        def tell(hits: Sequence[QueryHit]) -> bool:
            new = {
                hit.provider.id: self._sifted(hit, size)
                for hit in hits
                if hit.provider.id not in told
            }
            told.update(new)
            if any(new.values()):
                found([hit for hit in new.values() if hit is not None])
            return False

        outcome = await self._searches.run(
            QueryKind.ID,
            file_id.hex(),
            rings=range(1, self._ttl + 1),
            timeout_s=SOURCES_TIMEOUT_S,
            is_enough=tell,
            urgency=urgency,
        )
        tell(outcome.hits)
        return [hit for hit in told.values() if hit is not None]

    def _sifted(self, hit: QueryHit, size: int) -> QueryHit | None:
        """Return a hit if it is one of this size, having noted where its provider is."""
        self._links.located(hit.provider)
        entries = self._catalogue.offers.sift(hit.provider, hit.entries)
        is_right = entries and all(entry.size == size for entry in entries)
        return hit if is_right else None

    def proved(self, file_id: FileId, size: int) -> None:
        """Note the size that the manifest of a content gives."""
        self._catalogue.offers.prove(file_id, size)

    async def fetch_manifest(self, source: PeerInfo, file_id: FileId) -> bytes:
        """Return a manifest as sent; see `TransferLinks.fetch_manifest`."""
        data = await self._links.fetch_manifest(source, file_id)
        self._gave_at[source.id] = trio.current_time()
        return data

    async def fetch_blocks(
        self,
        source: PeerInfo,
        file_id: FileId,
        wanted: Mapping[int, int],
        deliver: Deliver,
        heard: Callable[[], object],
    ) -> None:
        """Deliver blocks as sent; see `TransferLinks.fetch_blocks`."""

        def counted(block: bytes) -> None:
            self.received_bytes += len(block)
            deliver(block)

        heard_at = -math.inf

        def noted() -> None:
            nonlocal heard_at
            now = trio.current_time()
            if now - heard_at >= HEARD_APART_S:
                heard_at = now
                self._gave_at[source.id] = now
                heard()

        await self._links.fetch_blocks(source, file_id, wanted, counted, noted)

    def is_giving(self, source: PeerInfo) -> bool:
        """Return whether something of any content came from a source within `GIVING_S`."""
        return trio.current_time() - self._gave_at.get(source.id, -math.inf) < GIVING_S

    def bad_block(self, source: PeerInfo, file_id: FileId) -> None:
        """Note that a source sent a wrong block."""
        self._journal.warning(f"{source.name} sent a wrong block of {file_id.hex()[:8]}")
        self._on_bad_block(source.id)
