"""What the verbs and `.p2pfs/` tell, as records: JSON objects with the keys of DESIGN 2.3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from p2pfs.download import SwarmStatistics
from p2pfs.journal import printable
from p2pfs.link import Link
from p2pfs.namespace import KeywordQuery
from p2pfs.protocol import FileId, PeerInfo, QueryHit

Record = dict[str, object]


def of_peer(peer: PeerInfo) -> Record:
    """Describe a peer."""
    address = str(peer.addresses[0]) if peer.addresses else None
    return {"id": peer.id, "name": peer.name, "address": address}


def of_link(link: Link, now: float) -> Record:
    """Describe a neighbour by the link to it."""
    return {
        **of_peer(link.peer),
        "direction": link.direction,
        "connected_s": round(now - link.opened_at, 1),
        "rtt_ms": None if link.rtt_s is None else round(link.rtt_s * 1000, 1),
    }


def of_transfer(path: str, file_id: FileId, swarm: SwarmStatistics) -> Record:
    """Describe a download."""
    return {
        "path": path,
        "id": file_id.hex(),
        "size": swarm.size,
        "done_bytes": swarm.done_bytes,
        "rate_bytes_s": round(swarm.rate_bytes_s),
        "sources": swarm.sources,
        "state": swarm.state,
    }


def of_hits(hits: Iterable[QueryHit], query: KeywordQuery) -> Sequence[Record]:
    """Describe what was found for a query: one record for each path and content, by path."""
    rows: dict[tuple[str, bytes], tuple[int, list[PeerInfo]]] = {}
    for hit in hits:
        for entry in (e for e in hit.entries if query.accepts(e.path, e.size)):
            row = rows.setdefault((entry.path, entry.file_id), (entry.size, []))
            row[1].append(hit.provider)
    return [
        {"path": path, "size": size, "id": file_id.hex(), "peers": [of_peer(p) for p in peers]}
        for (path, file_id), (size, peers) in sorted(rows.items())
    ]


def as_text(records: Sequence[Mapping[str, object]]) -> bytes:
    """Return records as lines of `key: value`, an empty line between two."""
    blocks = (
        "".join(f"{key}: {printable(str(value))}\n" for key, value in record.items())
        for record in records
    )
    return "\n".join(blocks).encode()
