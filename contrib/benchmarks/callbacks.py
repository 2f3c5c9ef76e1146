"""What a look at a name that is known costs: `stat` and an extended attribute, in the call-back.

PYTHONPATH=.:contrib .venv/bin/python -m benchmarks.callbacks [PROFILE]
"""

from __future__ import annotations

import cProfile
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import trio
from blake3 import blake3

from p2pfs.filesystem import Reader
from p2pfs.filesystem.network import NetworkTree
from p2pfs.journal import Journal
from p2pfs.namespace import Here, Namespace, RemoteFile
from p2pfs.overlay import Searches
from p2pfs.protocol import (
    Address,
    Entry,
    FileId,
    Guid,
    Identity,
    Listing,
    PeerInfo,
    Query,
    QueryKind,
    sign_hit,
)
from p2pfs.protocol.flood import Finished, Urgency

NAMES: Final = 10_000
NEIGHBOURS: Final = 12
DIRECTORY: Final = "films"
WORDS: Final = "film"


class Contents:
    """Contents of which nothing is here."""

    def open(self, file: RemoteFile) -> Reader:
        """Open nothing."""
        raise NotImplementedError

    def fetch_ahead(self, files: Sequence[RemoteFile]) -> None:
        """Fetch nothing."""

    def last_error(self, _path: str) -> str | None:
        """Return that none failed."""
        return None

    def cached_percent(self, _file_id: FileId) -> int:
        """Return that nothing is here."""
        return 0


def provider(identity: Identity, number: int) -> PeerInfo:
    """Return a servent."""
    return PeerInfo(identity.id, f"servent {number}", (Address(f"10.0.0.{number}", 4774),))


def entry(path: str) -> Entry:
    """Return a file of its own content."""
    return Entry(path, 1_000_000, 1_700_000_000_000_000_000, blake3(path.encode()).digest())


async def main(arguments: list[str]) -> None:
    """Measure, and print it."""
    identities = [Identity.generate() for _ in range(NEIGHBOURS)]
    peers = [provider(identity, number) for number, identity in enumerate(identities)]
    entries = [entry(f"{DIRECTORY}/film number {i:05}.mkv") for i in range(NAMES)]
    guids = iter(range(1, 2**32))

    def flood(query: Query, _urgency: Urgency) -> bool:
        if query.kind is QueryKind.WORDS and query.ttl == 1:
            for number, peer in enumerate(identities):
                some = tuple(entries[number * 50 : number * 50 + 50])
                hit = sign_hit(peer, query.guid, query.ttl, peers[number], some, len(some))
                searches.got_hit(hit, peers[number].addresses[0])
        searches.got_finished(Finished(query.guid, query.ttl, 0, 0, is_complete=True))
        return True

    searches = Searches(flood, lambda: Guid(next(guids).to_bytes(16, "big")))
    links = _Links()
    namespace = Namespace(
        Here(chosen=lambda: {peer.id: ("10.0.0.0/24", str(peer.id)) for peer in peers[:6]}),
        searches,
        links,  # type: ignore[arg-type]
        Journal(),
        neighbours=lambda: peers,
        path_of=lambda _id: None,
        ttl=4,
        clock=trio.current_time,
        wall_clock=time.time,
        kept_path="/nonexistent",
    )
    catalogue = namespace.catalogue
    async with trio.open_nursery() as nursery:
        await nursery.start(namespace.run)
        folder = (await namespace.shares.list(""))[0].path
        found = await namespace.results.list(WORDS)
        for peer in peers[:2]:
            catalogue.learn(peer, entries)
        for path in ("", DIRECTORY):
            catalogue.holders.mark_listed(path, trio.current_time())
            catalogue.holders.mark_listed_by(peers[0].id, path, trio.current_time())
        trees = {
            "network": (namespace.browser, [each.path for each in entries]),
            "search": (namespace.results, [node.path for node in found]),
            "peers": (namespace.shares, [f"{folder}/{each.path}" for each in entries]),
        }
        for label, (view, paths) in trees.items():
            tree = NetworkTree(view, Contents(), label)
            attributes = measured(tree.getattr, paths, arguments)
            xattr = measured(lambda path: tree.getxattr(path, "user.p2pfs.id"), paths, arguments)  # noqa: B023
            names = measured(lambda _path: tree.readdir(paths[0].rpartition("/")[0]), [""], [])  # noqa: B023
            per_name = names / len(paths)
            print(
                f"{label}/ ({len(paths):,} names): stat {attributes:.1f} us,"
                f" an attribute {xattr:.1f} us, a name of `ls` {per_name:.1f} us"
            )
        nursery.cancel_scope.cancel()


class _Links:
    """Links over which nothing comes."""

    async def list_pages(self, *_: object) -> None:
        """Tell nothing."""

    async def match_page(self, *_: object) -> Listing:
        """Tell nothing."""
        return Listing((), has_more=False)

    async def fetch_manifest(self, *_: object) -> bytes:
        """Tell nothing."""
        return b""


def measured(
    call: Callable[[str], object], paths: Sequence[str], arguments: Sequence[str]
) -> float:
    """Return what a call takes, in microseconds of processor; the best of five rounds."""
    profile = cProfile.Profile()
    best = float("inf")
    for _ in range(5):
        began_at = time.process_time()
        for path in paths:
            call(path)
        best = min(best, time.process_time() - began_at)
    if arguments:
        with profile:
            for path in paths:
                call(path)
        profile.print_stats("tottime")
    return best / len(paths) * 1e6


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
