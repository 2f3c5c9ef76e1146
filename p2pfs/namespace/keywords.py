"""What keyword searches have found: the folders below `search/`, and those that are kept.

A search is made when a program lists its folder. Its results stay in memory, so that listing,
`stat` and opening answer at once; when they are old, the next listing shows them and searches again
in the background. Kept searches are remembered over a restart, their results are not.

Paths are relative to `search/`: the text of a search, and below it one name for each content.
Functions that are not async may be called from any thread and never wait for the network.
"""

from __future__ import annotations

import errno
import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio
from msgspec.structs import replace

from p2pfs.errors import NotFoundError
from p2pfs.namespace.ages import FIRST_LISTING_S, Renewals
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.disputes import Disputes
from p2pfs.namespace.gathering import MAX_FILES, Gatherer, Gathering
from p2pfs.namespace.nodes import (
    Content,
    Knowledge,
    Node,
    RemoteDirectory,
    RemoteFile,
    assign,
    file_version,
)
from p2pfs.namespace.places import Held
from p2pfs.namespace.query import KeywordQuery, QueryError, parse_query
from p2pfs.namespace.view import View
from p2pfs.protocol import name_of, names
from p2pfs.protocol.flood import Urgency
from p2pfs.state import replace_file
from p2pfs.tasks import Flight, SingleFlight, Tasks

log = logging.getLogger(__name__)

SEARCH_AGAIN_S: Final = 10.0
"""Results older than this are shown, and asked for again in the background."""

MAX_SEARCHES: Final = 200
"""Searches whose results are remembered; those not listed for longest go first."""

MAX_KEPT: Final = 1_000
"""Searches that are kept: each is a name in a folder, and a line in a file."""


@dataclass(slots=True)
class _Search:
    """A search whose results are remembered."""

    query: KeywordQuery
    files: dict[Content, RemoteFile] = field(default_factory=dict)
    """In the order in which they became known, with the paths at which they are published."""
    shown: dict[str, RemoteFile] = field(default_factory=dict)
    """By the name below the folder of the search."""
    held: dict[str, Held] = field(default_factory=dict)
    """Such names that must keep their content."""
    known: set[Content] = field(default_factory=set)
    was_whole: set[Content] = field(default_factory=set)
    """Contents that were whole in the cache when they were found: they are named first."""
    shown_at_ns: int = 0
    partial: str | None = None
    """Why these may not be all results, for people."""
    asked_at: float | None = None
    """None: there was no answer yet."""


class Results(View):
    """All searches of this servent's user."""

    def __init__(
        self,
        catalogue: Catalogue,
        gatherer: Gatherer,
        disputes: Disputes,
        *,
        clock: Callable[[], float],
        kept_path: str,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalogue = catalogue
        self._gatherer = gatherer
        self._disputes = disputes
        self._clock = clock
        self._wall_clock = wall_clock
        self._kept = _Kept(kept_path)
        self._began_ns = self._now_ns()
        self._lock = threading.Lock()
        self._searches: OrderedDict[str, _Search] = OrderedDict()
        self._tasks = Tasks()
        self._flights: SingleFlight[str] = SingleFlight(self._tasks)
        self._renewals: Renewals[str] = Renewals(self._tasks, clock, self._refresh)
        self._under_way: dict[str, Gathering] = {}
        """What the searches under way have found so far."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the searches under way, until cancelled."""
        await self._tasks.run(task_status=task_status)

    # Searches that are kept.

    def kept(self) -> Sequence[str]:
        """Return the searches that are kept, sorted."""
        return sorted(self._kept.texts)

    def keep(self, text: str) -> None:
        """Keep a search.

        Raises:
            QueryError: the text asks for nothing that could be searched.
            OSError: it cannot be written down; ENOSPC if too many are kept.
        """
        if not _may_be_search(text):
            raise QueryError("this name asks for nothing that could be searched")
        self._kept.add(text)

    def drop(self, text: str) -> None:
        """Keep a search no longer; KeyError if it was not."""
        self._kept.remove(text)

    def all_left(self) -> None:
        """Forget the results of all searches: we have left the network. Kept searches stay kept."""
        with self._lock:
            self._searches.clear()

    # From memory.

    def known(self, path: str) -> Node | Knowledge:
        """Return the node at a path; any text that can be searched is a folder."""
        text, slash, name = path.partition("/")
        if not slash:
            return self._folder(text) or Knowledge.ABSENT
        search = self._look_at(text)
        # In this order: an answer may come in between, and what it brought is not absent.
        is_answered = search is not None and search.asked_at is not None
        file = search.shown.get(name) if search is not None else None
        if search is not None and file is not None and not self._catalogue.offers.believes(file):
            self._show(text, search)
            file = search.shown.get(name)
        if file is not None:
            return Knowledge.UNKNOWN if self._disputes.concern(file) else file
        is_absent = is_answered or names.is_probe(name) or not self._folder(text)
        return Knowledge.ABSENT if is_absent else Knowledge.UNKNOWN

    def known_children(self, path: str) -> Sequence[Node] | Knowledge:
        """Return the results of a search; if they are old, search again in the background."""
        search = self._look_at(path)
        if search is None or search.asked_at is None:
            return Knowledge.UNKNOWN
        return self._shown(path, search)

    def settled(self, nodes: Sequence[Node]) -> Sequence[Node]:
        """Return some results without those of disputed size."""
        return self._disputes.left_out(nodes)

    def _shown(self, text: str, search: _Search) -> Sequence[Node]:
        if not all(self._catalogue.offers.believes(file) for file in search.shown.values()):
            self._show(text, search)
        return list(search.shown.values())

    def partial(self, path: str) -> str | None:
        """Return what keeps the results of a search from being all there are."""
        search = self._searches.get(path)
        return None if search is None else search.partial

    def hold(self, file: RemoteFile) -> Callable[[], None]:
        """Let the name of a result stay with its content; return a function that ends that."""
        text, _, name = file.path.partition("/")
        content = Content(file.file_id, file.size)
        with self._lock:
            search = self._searches.get(text)
            published = search.files.get(content) if search is not None else None
            if search is None or published is None:
                return lambda: None
            search.held.setdefault(name, Held((name_of(published.path), content))).count += 1

        def release() -> None:
            with self._lock:
                search.held[name].count -= 1
                if not search.held[name].count:
                    del search.held[name]

        return release

    def _folder(self, text: str) -> RemoteDirectory | None:
        search = self._searches.get(text)
        if search is None and not _may_be_search(text):
            return None
        return RemoteDirectory(text, search.shown_at_ns if search else self._began_ns, ())

    def _look_at(self, text: str) -> _Search | None:
        """Return a search as remembered; if it is old, search again in the background."""
        with self._lock:
            search = self._searches.get(text)
            if search is None:
                return None
            self._searches.move_to_end(text)
        if search.asked_at is not None:
            self._renewals.look(text, self._clock() - search.asked_at, SEARCH_AGAIN_S)
        return search

    # From the network, on the trio thread.

    async def find(self, path: str) -> Node | None:
        """Return the node at a path, searching first if that was not done.

        Raises as `list` does.
        """
        text, slash, _ = path.partition("/")
        if not slash:
            return self._folder(text)
        node = next((node for node in await self.list(text) if node.path == path), None)
        if isinstance(node, RemoteFile) and self._disputes.concern(node):
            await self._disputes.settle(node.file_id)
            known = self.known(path)
            return None if isinstance(known, Knowledge) else known
        return node

    def published_path(self, path: str) -> str:
        """Return the path in `network/` of a result that is known, or raise NotFoundError."""
        text, _, name = path.partition("/")
        search = self._look_at(text)
        file = search.shown.get(name) if search is not None else None
        if search is None or file is None:
            raise NotFoundError(f"{path} is no result of a search")
        return search.files[Content(file.file_id, file.size)].path

    async def list(self, path: str) -> Sequence[Node]:
        """Return the results of a search; after FIRST_LISTING_S what has come by then.

        The top lists the searches that are kept.

        Raises:
            NotAskedError: it may not be asked for now.
            ShutdownError: we end.
        """
        if not path:
            return [folder for text in self.kept() if (folder := self._folder(text))]
        if not _may_be_search(path) and path not in self._searches:
            return ()
        flight = self._start(path)
        with trio.move_on_after(FIRST_LISTING_S):
            await flight.wait()
        self._tasks.check()
        if path in self._under_way:
            self._take_in(path, self._under_way[path], is_all=False)
        return self._shown(path, self._searches[path])

    def _refresh(self, text: str) -> None:
        if text in self._searches:
            self._start(text, Urgency.REFRESH)

    def _start(self, text: str, urgency: Urgency = Urgency.PERSON) -> Flight:
        """Start a search of our own, or join the one under way."""
        return self._flights.start(text, self._run_search, text, urgency)

    async def _run_search(self, text: str, urgency: Urgency) -> None:
        began_at = self._clock()
        found = self._gatherer.begin(self._remember(text).query)
        self._under_way[text] = found
        try:
            await found.run(urgency, is_bounded=True)
            self._take_in(text, found, is_all=found.is_complete)
            search = self._remember(text)
            if found.has_asked or search.files:  # else there was nobody to ask
                search.asked_at = began_at
                search.partial = found.partial(len(search.files))
        finally:
            del self._under_way[text]

    def _remember(self, text: str) -> _Search:
        with self._lock:
            search = self._searches.get(text)
            if search is None:
                search = self._searches[text] = _Search(parse_query(text))
                search.shown_at_ns = self._now_ns()
            self._searches.move_to_end(text)
            idle = (other for other in self._searches if other not in self._flights)
            if len(self._searches) > MAX_SEARCHES:
                self._searches.pop(next(idle, text))
            return search

    def _take_in(self, text: str, found: Gathering, *, is_all: bool) -> None:
        """Show the files found; if everybody has answered, in place of the earlier results."""
        search = self._remember(text)
        fresh = found.files()
        known = search.files if not is_all else [one for one in search.files if one in fresh]
        files = {content: fresh.get(content) or search.files[content] for content in known} | fresh
        if len(files) > MAX_FILES:
            first = set(itertools.islice(fresh | files, MAX_FILES))
            files = {content: one for content, one in files.items() if content in first}
        search.files = files
        self._show(text, search)

    def _show(self, text: str, search: _Search) -> None:
        """Give the results names anew, without those that a manifest contradicts."""
        believes = self._catalogue.offers.believes
        search.files = {content: one for content, one in search.files.items() if believes(one)}
        shown = self._named(text, search)
        if shown != search.shown:
            search.shown_at_ns = self._now_ns()
            search.shown = shown

    def _named(self, text: str, search: _Search) -> dict[str, RemoteFile]:
        """Return the results by their names in the folder, sorted."""
        is_whole = self._catalogue.offers.is_whole
        search.was_whole |= {one for one in search.files if is_whole(one.file_id)} - search.known
        search.known = set(search.files)
        versions = []
        for number, (content, file) in enumerate(search.files.items()):
            has_name = search.shown.get(name_of(file.path), file).file_id == content.file_id
            may_count = has_name or content in search.was_whole
            rank = self._catalogue.offers.rank(
                content, file.sources, number, is_whole=may_count and is_whole(content.file_id)
            )
            versions.append(file_version(name_of(file.path), content, rank))
        with self._lock:
            held = {name: one.holder for name, one in search.held.items()}
        names = assign(versions, held)
        shown = {}
        for name, version in sorted(names.items()):
            assert isinstance(version.key, Content)
            shown[name] = replace(search.files[version.key], path=f"{text}/{name}")
        return shown

    def _now_ns(self) -> int:
        return int(self._wall_clock() * 1e9)


def _may_be_search(text: str) -> bool:
    """Return whether a name can be a search, and is not one that programs look up anywhere."""
    if names.check_label(text) is not None or names.is_probe(text):
        return False
    try:
        parse_query(text)
    except QueryError:
        return False
    return True


class _Kept:
    """The searches that are kept, in memory and in a file with one a line."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.texts: frozenset[str] = frozenset(self._read())

    def add(self, text: str) -> None:
        """Keep a search; OSError if it cannot be written, or too many are kept."""
        with self._lock:
            if len(self.texts) >= MAX_KEPT:
                raise OSError(errno.ENOSPC, "too many searches are kept")
            self._write(self.texts | {text})

    def remove(self, text: str) -> None:
        """Keep a search no longer; KeyError if it is not kept."""
        with self._lock:
            if text not in self.texts:
                raise KeyError(text)
            self._write(self.texts - {text})

    def _read(self) -> list[str]:
        try:
            with open(self._path, encoding="utf-8") as file:
                lines = [line.rstrip("\n") for line in itertools.islice(file, MAX_KEPT)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            log.warning("kept searches not read reason=%s", error)
            return []
        return [line for line in lines if _may_be_search(line)]

    def _write(self, texts: frozenset[str]) -> None:
        lines = "".join(f"{text}\n" for text in sorted(texts))
        replace_file(self._path, lines.encode())
        self.texts = texts
