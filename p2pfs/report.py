"""What the verbs and `.p2pfs/` show: JSON objects with the keys of commands.md, and text."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import tomli_w

from p2pfs import __version__
from p2pfs.config import Config, to_options
from p2pfs.download import Pins, Swarms, SwarmStatistics
from p2pfs.journal import Journal, JournalEvent, printable
from p2pfs.link import Link
from p2pfs.namespace import Gathering, Namespace, parse_query
from p2pfs.ondisk import OnDisk
from p2pfs.overlay import MessageRouter
from p2pfs.peering import Peering
from p2pfs.protocol import Address, FileId, PeerInfo
from p2pfs.protocol.flood import FilterState
from p2pfs.reach import Beyond
from p2pfs.roots import Root
from p2pfs.upload import UploadStatistics
from p2pfs.wording import EVENT_COLUMNS, field_lines, row_line

Record = dict[str, object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A servent as the verbs and `.p2pfs/` show it. All methods that are not async: any thread."""

    clock: Callable[[], float]
    started_at: float
    journal: Journal
    disk: OnDisk
    peering: Peering
    message_router: MessageRouter
    namespace: Namespace
    swarms: Swarms
    pins: Pins
    beyond: Beyond

    @property
    def config(self) -> Config:
        """The settings, as they are now."""
        return self.disk.settings.config

    async def search(self, words: str) -> Record:
        """Search within the horizon: a row for each path and content; see `of_search`.

        Raises:
            QueryError: the text asks for nothing that could be searched.
            NotAskedError: too many searches have begun lately.
        """
        found = self.namespace.gatherer.begin(parse_query(words))
        await found.run()
        return of_search(found)

    def status(self) -> Record:
        """Describe the servent."""
        shared = self.disk.library.statistics()
        links = [link.statistics() for link in self.peering.overlay.neighbours]
        addresses, key = self.peering.whereabouts.addresses(), self.config.network_key_file
        sight = self.namespace.browser.sight()
        return {
            "id": self.peering.whereabouts.identity.id,
            "name": self.config.name,
            "version": __version__,
            "pid": os.getpid(),
            "mountpoint": self.config.mountpoint and os.fspath(self.config.mountpoint),
            "listen": str(self.peering.whereabouts.listen_address),
            "addresses": [str(address) for address in addresses],
            "join_commands": [join_command(one, key) for one in addresses],
            "reachable": self.peering.whereabouts.reachable,
            "directory_nodes": self.beyond.nodes,
            "directory_keys": self.beyond.keys,
            "uptime_s": round(self.clock() - self.started_at, 1),
            "sharing": not self.disk.library.is_paused,
            "neighbours": len(self.peering.overlay.neighbours),
            "horizon": sight.horizon,
            "look_s": None if sight.look_s is None else round(sight.look_s, 3),
            "partial": sight.partial,
            **of_filters(self._filters().values(), self.clock()),
            "shared_files": shared.files,
            "shared_bytes": shared.bytes,
            "cache_bytes": self.disk.cache.used_bytes,
            "cache_limit_bytes": self.config.cache_limit_bytes,
            "upload_limit_bytes_s": self.peering.uploads.limit.limit_bytes_s,
            "download_limit_bytes_s": self.swarms.limit.limit_bytes_s,
            "transfers": len(self.swarms.statistics()),
            "uploads": len(self.peering.uploads.under_way.statistics(self.clock())),
            "downloaded_bytes": self.swarms.received_bytes,
            "uploaded_bytes": self.peering.uploads.sent_bytes,
            "relays": self.config.relay,
            "circuits": self.peering.ways.relays.circuits,
            "relayed_bytes": self.peering.ways.relays.passed_bytes,
            "messages_in": sum(link.messages_in for link in links),
            "messages_out": sum(link.messages_out for link in links),
            "queries_seen": self.message_router.queries_seen,
            "messages_dropped": sum(self.message_router.drops.values()),
            "partial_directories": len(self.namespace.browser.partial_directories()),
            "names_left_out": self.namespace.catalogue.left_out,
            "bad_blocks": self.peering.bans.lies,
            "bad_hits": self.message_router.searches.bad_hits,
        }

    def peers(self) -> Sequence[Record]:
        """Describe the neighbours."""
        now, filters = self.clock(), self._filters()
        rows = of_neighbours(self.peering.overlay.neighbours, now, self.transfers())
        return [{**row, **of_filter(filters.get(row["id"]), now)} for row in rows]

    def _filters(self) -> Mapping[object, FilterState | None]:
        """Return the state of each neighbour's filter, by its id."""
        links = self.peering.overlay.neighbours
        return {link.peer.id: self.message_router.filter_of(link) for link in links}

    def transfers(self) -> Sequence[Record]:
        """Describe the downloads and the uploads."""
        downloads = [of_download(*download) for download in self.swarms.statistics()]
        uploads = self.peering.uploads.under_way.statistics(self.clock())
        return downloads + [of_upload(self._path_of(one.file_id), one) for one in uploads]

    def _path_of(self, file_id: FileId) -> str:
        """Return where a content that is being sent is shared, or else was read."""
        shared = self.disk.library.find_id(file_id)
        return shared.path if shared else self.swarms.path_of(file_id) or file_id.hex()

    async def shared_directories(self) -> Sequence[Record]:
        """Describe the directories that are shared where they lie."""
        return [
            of_root(root, await self.disk.library.totals(root.name)) for root in self.disk.roots
        ]

    async def cached(self) -> Record:
        """Describe the cache: its bounds, and the contents in it or pinned."""
        files = await self.pins.cached_files(self.swarms.path_of)
        return {
            "limit_bytes": self.disk.cache.limit_bytes,
            "used_bytes": self.disk.cache.used_bytes,
            "files": [dataclasses.asdict(file) for file in files],
        }

    def render(self, name: str) -> bytes:
        """Return one of the texts below `.p2pfs/`.

        Raises:
            KeyError: there is no such text.
        """
        texts: dict[str, Callable[[], str]] = {
            "status": lambda: as_fields([self.status()]),
            "peers": lambda: as_fields(self.peers()),
            "transfers": lambda: as_fields(self.transfers()),
            "events": lambda: as_events(self.journal.events()),
            "config": lambda: as_config(self.config),
        }
        return texts[name]().encode("utf-8", "backslashreplace")


# As JSON objects.


def of_peer(peer: PeerInfo) -> Record:
    """Describe a peer."""
    address = str(peer.addresses[0]) if peer.addresses else None
    return {"id": peer.id, "name": peer.name, "address": address}


def of_neighbours(
    links: Iterable[Link], now: float, transfers: Iterable[Record]
) -> Sequence[Record]:
    """Describe the neighbours by the links to them, and by what `transfers` move now."""
    rates: Counter[tuple[object, object]] = Counter()
    for transfer in transfers:
        for peer in cast("Sequence[Record]", transfer["peers"]):
            rates[transfer["direction"], peer["id"]] += cast("int", peer["rate_bytes_s"])
    return [
        {
            **of_peer(link.peer),
            "direction": link.direction,
            "connected_s": round(now - link.opened_at, 1),
            "rtt_ms": None if link.rtt_s is None else round(link.rtt_s * 1000, 1),
            "download_bytes_s": rates["download", link.peer.id],
            "upload_bytes_s": rates["upload", link.peer.id],
        }
        for link in links
    ]


def of_filter(known: FilterState | None, now: float) -> Record:
    """Describe the filter of a neighbour: its age, and how full it is."""
    if known is None:
        return {"filter_age_s": None, "filter_percent": None}
    return {
        "filter_age_s": round(now - known.heard_at, 1),
        "filter_percent": round(100 * known.fill, 3),
    }


def of_filters(filters: Iterable[FilterState | None], now: float) -> Record:
    """Describe those of all neighbours: how many, and the worst age and fill of any."""
    known = [one for one in filters if one is not None]
    heard_at = min((one.heard_at for one in known), default=now)
    fill = max((one.fill for one in known), default=0.0)
    worst = FilterState(heard_at, fill) if known else None
    return {"filters": len(known), **of_filter(worst, now)}


def join_command(address: Address, network_key_file: Path | None) -> str:
    """Return what others type in a shell to join through an address of ours."""
    words = ["--join", str(address)]
    if network_key_file is not None:
        words += ["--network-key-file", network_key_file.name]
    return f"p2pfs mount ~/p2p {shlex.join(words)}"


def of_download(path: str, file_id: FileId, swarm: SwarmStatistics) -> Record:
    """Describe a download, with the peers that something of it is asked of."""
    return {
        "direction": "download",
        "path": path,
        "id": file_id.hex(),
        "size": swarm.size,
        "done_bytes": swarm.done_bytes,
        "rate_bytes_s": round(swarm.rate_bytes_s),
        "sources": swarm.sources,
        "state": swarm.state,
        "peers": [_giving(peer, rate) for peer, rate in swarm.givers],
    }


def of_upload(path: str, upload: UploadStatistics) -> Record:
    """Describe an upload as the same transfer on the other side: we are the one source."""
    return {
        "direction": "upload",
        "path": path,
        "id": upload.file_id.hex(),
        "size": upload.size,
        "done_bytes": upload.sent_bytes,
        "rate_bytes_s": round(upload.rate_bytes_s),
        "sources": 1,
        "state": upload.state,
        "peers": [_giving(upload.peer, upload.rate_bytes_s)],
    }


def _giving(peer: PeerInfo, rate_bytes_s: float) -> Record:
    return {**of_peer(peer), "rate_bytes_s": round(rate_bytes_s)}


def of_search(found: Gathering) -> Record:
    """Describe what a search found: each content at each path, and why that may not be all."""
    rows = [
        {
            "path": file.path,
            "size": file.size,
            "id": file.file_id.hex(),
            "peers": [of_peer(peer) for peer in file.sources],
        }
        for file in found.rows()
    ]
    return {"files": rows, "partial": found.partial(len(rows))}


# As text, for people: the files below `.p2pfs/`.


def as_fields(records: Sequence[Mapping[str, object]]) -> str:
    """Return records as lines of `name: value`, an empty line between two."""
    blocks = (
        "".join(f"{line}\n" for key, value in record.items() for line in field_lines(key, value))
        for record in records
    )
    return "\n".join(blocks)


def as_events(events: Iterable[JournalEvent]) -> str:
    """Return events as `p2pfs events` lists them: a line for each, with tabs."""
    rows = (dataclasses.asdict(event) for event in events)
    return "".join(f"{row_line(row, EVENT_COLUMNS)}\n" for row in rows)


def of_root(root: Root, totals: tuple[int, int]) -> Record:
    """Describe a directory that is shared where it lies, with the files and bytes known in it."""
    files, size = totals
    return {
        "name": root.name,
        "directory": root.shared.directory,
        "files": files,
        "size": size,
        "read_only": root.shared.is_read_only,
        "to": list(root.shared.to),
        "in_config": root.is_from_config,
        "away": root.away,
    }


def as_config(config: Config) -> str:
    """Return the settings as a config.toml that means the same."""
    where = [f"state directory: {config.state_directory}"]
    if config.mountpoint is not None:
        where.append(f"mountpoint: {config.mountpoint}")
    comments = "".join(f"# {printable(line)}\n" for line in where)
    return comments + tomli_w.dumps(to_options(config))
