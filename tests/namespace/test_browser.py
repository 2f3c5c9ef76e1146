"""What `network/` shows: what costs a query, what a listing, what nothing; and who may lie."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pfs.errors import (
    NoSourceError,
    NotAskedError,
    RejectedError,
    ShutdownError,
    StalledError,
    UnreachableError,
)
from p2pfs.journal import Journal
from p2pfs.namespace import claims as claims_module
from p2pfs.namespace import listing as listing_module
from p2pfs.namespace import sources as sources_module
from p2pfs.namespace.ages import (
    FIND_TIMEOUT_S,
    FIRST_LISTING_S,
    LEAST_LOOK_S,
    MAX_TIMES,
    REFRESH_AFTER_S,
    TRUST_S,
)
from p2pfs.namespace.belief import REFRESH_EACH_S
from p2pfs.namespace.browser import Browser
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.comings import LEAVING_S, OVERTAKEN_S
from p2pfs.namespace.disputes import Disputes
from p2pfs.namespace.finder import ABSENT_S, AGAIN_AFTER_S
from p2pfs.namespace.lister import REFRESH_SHARE
from p2pfs.namespace.listing import CUT_AGAIN_S, SLOW_AFTER_S
from p2pfs.namespace.news import MUTED_S
from p2pfs.namespace.nodes import Knowledge, Node, RemoteDirectory, RemoteFile
from p2pfs.namespace.refused import REFUSED_BURST, REFUSED_PER_S
from p2pfs.namespace.showing import Here
from p2pfs.namespace.survey import LONGEST_S, MAX_DIRECT
from p2pfs.namespace.tellers import Tellers
from p2pfs.overlay import search as search_module
from p2pfs.overlay.search import Searches
from p2pfs.protocol import (
    GUID_BYTES,
    MAX_PAGES_ASKED,
    MAX_RESULTS,
    MIN_LISTING,
    Address,
    Entry,
    FileId,
    Guid,
    Identity,
    Listing,
    PeerInfo,
    Query,
    QueryKind,
    RejectCode,
    ServentId,
    sign_hit,
)
from p2pfs.protocol.flood.budgets import SENDING_SHARE, SearchBudget, Urgency
from p2pfs.protocol.flood.decisions import Finished, Refused
from p2pfs.protocol.flood.spreading import SEARCH_BURST, SEARCHES_PER_S

ID = bytes(range(32))
TTL = 4
PAGE = 500
Take = Callable[[Listing], object]
PATH, DIRECTORY = QueryKind.PATH, QueryKind.DIRECTORY


class Holder:
    """A servent with a share."""

    def __init__(self, name: str, paths: Iterable[str]) -> None:
        self.identity = Identity.generate()
        self.info = PeerInfo(self.identity.id, name, (Address("10.0.0.2", 4774),))
        self.paths = set(paths)
        self.list: Callable[[str, str], Listing] = self.page
        """What it answers to a LIST of a directory, after a name."""
        self.listed: tuple[str, list[Entry]] = ("", [])
        self.wait_s = 0.0
        """How long it takes for that."""

    @property
    def id(self):
        return self.info.id

    def entries(self, directory: str) -> list[Entry]:
        prefix = f"{directory}/" if directory else ""
        found = {}
        for path in self.paths:
            if path.startswith(prefix):
                name, slash, _ = path.removeprefix(prefix).partition("/")
                found[name] = Entry(prefix + name, 0 if slash else 1, 1, b"" if slash else ID)
        return [found[name] for name in sorted(found)]

    def has_directory(self, path: str) -> bool:
        return not path or any(p.startswith(f"{path}/") for p in self.paths)

    def page(self, directory: str, after: str) -> Listing:
        if not self.has_directory(directory):
            raise RejectedError("no such directory", RejectCode.NOT_FOUND)
        if self.listed[0] != directory or not after:
            self.listed = directory, self.entries(directory)
        rest = [e for e in self.listed[1] if e.path.rpartition("/")[2] > after]
        return Listing(tuple(rest[:PAGE]), has_more=len(rest) > PAGE)

    def answer(self, query: Query) -> tuple[list[Entry], int]:
        if query.kind is DIRECTORY:
            entries = self.entries(query.text)
            return entries[:MAX_RESULTS], len(entries)
        parent = query.text.rpartition("/")[0]
        entries = [entry for entry in self.entries(parent) if entry.path == query.text]
        return entries, len(entries)


class Horizon:
    """A browser and all that it can see. The first holders are neighbours, the rest far away."""

    def __init__(self) -> None:
        self.holders: list[Holder] = []
        self.neighbours: list[Holder] = []
        self.queries: list[tuple[QueryKind, str]] = []
        self.journal = Journal()
        self.asked: list[ServentId] = []
        """Who is being asked for pages now."""
        self.most_asked = 0
        self.lists: list[tuple[str, str]] = []
        """The name of who was asked, and the directory; once for each listing."""
        self.is_unfinished = False
        """Whether the DONE of some neighbour never comes."""
        self.is_refused = False
        """Whether neighbours pass nothing on, as their budgets are spent."""
        self.is_dead = False
        """Whether queries get no answer and no DONE."""
        self.manifests: dict[FileId, bytes] = {}
        self._last_guid = b""
        self.tellers = Tellers()
        here = Here(groups_of=self.tellers.groups_of)
        self.catalogue = Catalogue(here, clock=trio.current_time)
        self.budget = SearchBudget(
            SEARCHES_PER_S * SENDING_SHARE, int(SEARCH_BURST * SENDING_SHARE)
        )
        self._guids = 0
        self.searches = Searches(self._flood, self._new_guid)
        self.browser = Browser(
            self.catalogue,
            self.searches,
            self._list_pages,
            Disputes(self.catalogue, self._fetch_manifest, trio.current_time),
            self.journal,
            neighbours=lambda: [holder.info for holder in self.neighbours],
            ttl=TTL,
            clock=trio.current_time,
        )

    async def _fetch_manifest(self, holder: PeerInfo, file_id: FileId) -> bytes:
        await trio.lowlevel.checkpoint()
        if file_id not in self.manifests:
            raise UnreachableError("nobody answers")
        return self.manifests[file_id]

    def add(self, name: str, *paths: str, is_far: bool = False) -> Holder:
        holder = Holder(name, paths)
        self.holders.append(holder)
        if not is_far:
            self.neighbours.append(holder)
        return holder

    def leave(self, holder: Holder) -> None:
        self.holders.remove(holder)
        if holder in self.neighbours:
            self.neighbours.remove(holder)

    def publish(self, holder: Holder, *paths: str) -> None:
        holder.paths.update(paths)
        self.browser.comings.changed(holder.id)

    def _new_guid(self) -> Guid:
        self._guids += 1
        return Guid(self._guids.to_bytes(GUID_BYTES, "big"))

    def spend(self, urgency: Urgency) -> None:
        """Begin as many searches of this urgency as may begin now."""
        while not self.budget.take(urgency, trio.current_time()):
            pass

    def _flood(self, query: Query, urgency: Urgency) -> bool:
        if not self.neighbours:
            return False
        if query.guid != self._last_guid:
            wait_s = self.budget.take(urgency, trio.current_time())
            if wait_s > 0:
                self.searches.got_refused(Refused(query.guid, wait_s))
                return True
        if query.guid != self._last_guid:  # not just one more ring
            self.queries.append((query.kind, query.text))
            self._last_guid = query.guid
        if self.is_dead:
            return True
        goes_far = query.ttl == TTL and not self.is_refused
        near = self.holders if goes_far else self.neighbours
        for holder in near:
            entries, total = holder.answer(query)
            if entries or (query.kind is DIRECTORY and holder.has_directory(query.text)):
                hit = sign_hit(holder.identity, query.guid, query.ttl, holder.info, entries, total)
                self.searches.got_hit(hit, Address("10.0.0.9", 1))
        if not self.is_unfinished:
            refusals = int(self.is_refused and query.ttl > 1)
            counts = (len(near), 0, not refusals, 0, refusals)
            self.searches.got_finished(Finished(query.guid, query.ttl, *counts))
        return True

    async def _list_pages(self, peer: PeerInfo, path: str, after: str, take: Take) -> None:
        if not after:
            self.lists.append((peer.name, path))
        holder = next((h for h in self.holders if h.id == peer.id), None)
        if holder is None:
            raise UnreachableError("it is gone")
        self.most_asked = max(self.most_asked, len(self.asked))
        self.asked.append(peer.id)
        try:
            for _ in range(MAX_PAGES_ASKED):
                await trio.sleep(holder.wait_s)
                page = holder.list(path, after)
                take(page)
                if not page.has_more:
                    return
                after = page.entries[-1].path.rpartition("/")[2]
        finally:
            self.asked.remove(peer.id)

    # What a user does.

    async def ls(self, path: str = "") -> list[str]:
        known = self.browser.known_children(path)
        nodes = await self.browser.list(path) if isinstance(known, Knowledge) else known
        return [node.path for node in nodes]

    async def stat(self, path: str) -> Node | None:
        known = self.browser.known(path)
        if known is Knowledge.UNKNOWN:
            return await self.browser.find(path)
        return None if isinstance(known, Knowledge) else known

    async def walk(self, path: str = "") -> list[str]:
        """Do what `find` does."""
        found = []
        for child in await self.ls(path):
            found.append(child)
            node = await self.stat(child)
            if node is not None and not isinstance(node, RemoteFile):
                found += await self.walk(child)
        return found

    def spent(self) -> tuple[int, int]:
        """Return how many queries and listings it took since the last call."""
        counts = len(self.queries), len(self.lists)
        self.queries.clear()
        self.lists.clear()
        return counts


@asynccontextmanager
async def open_horizon() -> AsyncIterator[Horizon]:
    horizon = Horizon()
    async with trio.open_nursery() as nursery:
        await nursery.start(horizon.browser.run)
        yield horizon
        nursery.cancel_scope.cancel()


# What costs what.


async def test_a_first_listing_costs_one_query_and_the_next_nothing(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        horizon.add("near", "a/x", "b")
        horizon.add("far", "c", is_far=True)

        assert await horizon.ls() == ["a", "b", "c"]
        assert horizon.spent() == (1, 0)
        assert await horizon.ls() == ["a", "b", "c"]
        assert isinstance(await horizon.stat("b"), RemoteFile)
        assert await horizon.stat("d") is None  # it would have been listed
        assert horizon.spent() == (0, 0)


async def test_it_is_known_how_far_a_look_reaches_and_how_long_it_takes(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        sight = horizon.browser.sight
        assert (sight().horizon, sight().look_s, sight().partial) == (None, None, None)
        horizon.add("near", "a/x").wait_s = 0.25
        horizon.add("far", "b", is_far=True)

        await horizon.ls()
        assert (sight().horizon, sight().look_s, sight().partial) == (2, 0.0, None)
        await horizon.ls("a")
        assert (sight().horizon, sight().look_s) == (2, 0.25)

        horizon.is_unfinished = True
        horizon.browser.comings.joined(horizon.holders[-1].id)
        await horizon.ls()
        assert sight().horizon == 2
        assert sight().look_s == pytest.approx(LEAST_LOOK_S)
        assert sight().partial == "not everybody has answered yet"
        await trio.sleep(FIRST_LISTING_S)
        assert sight().partial == "not everybody has answered in time"


async def test_a_large_network_is_not_asked_anew_whenever_a_neighbour_comes(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        near = horizon.add("near", "a")
        await horizon.ls()
        horizon.browser._survey.horizon = 300
        await trio.sleep(1)
        assert horizon.browser.known("b") is Knowledge.ABSENT
        near.paths.add("b")
        horizon.browser.comings.joined(near.id)
        horizon.spent()

        assert await horizon.ls() == ["a"]
        assert horizon.spent() == (0, 0)
        assert horizon.browser.known("b") is Knowledge.UNKNOWN  # nobody behind it was asked
        assert isinstance(await horizon.stat("b"), RemoteFile)
        await trio.sleep(300 * REFRESH_EACH_S)
        horizon.browser.comings.joined(near.id)
        horizon.spent()
        await horizon.ls()
        assert horizon.spent() == (1, 0)


@pytest.mark.parametrize(
    ("heard_s_ago", "told_s_ago", "is_shown"),
    [
        (30, 0, False),
        (30, 20, False),
        (30, -LEAVING_S, False),
        (0, OVERTAKEN_S, False),
        (10, 10 + OVERTAKEN_S + 1, True),
        (200, LEAVING_S + 1, True),
        (200, -LEAVING_S - 1, True),
    ],
)
async def test_who_says_that_it_leaves_is_forgotten_unless_that_is_old(
    heard_s_ago: float, told_s_ago: float, is_shown: bool, autojump_clock: MockClock
):
    """Anybody may have kept such news, and tell them again when their servent is back."""
    async with open_horizon() as horizon:
        horizon.add("near", "b")
        far = horizon.add("far", "a", is_far=True)
        await horizon.ls()
        await trio.sleep(heard_s_ago)
        horizon.browser.comings.got_leaving(far.id, told_s_ago)
        await trio.sleep(0.1)
        shown = horizon.browser._catalogue.shown.children("")
        assert [node.path for node in shown] == [*["a"] * is_shown, "b"]


async def test_a_neighbour_leaves_only_by_its_own_link(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        near = horizon.add("near", "a")
        await horizon.ls()
        horizon.browser.comings.got_leaving(near.id, 0.0)
        assert await horizon.ls() == ["a"]


async def test_a_walk_through_two_hundred_directories_costs_one_query(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        tree = [f"top/d{number}/file" for number in range(200)]
        for name in ("one", "other"):
            horizon.add(name, *tree)

        assert len(await horizon.walk()) == 1 + 200 + 200

        assert horizon.spent() == (1, 2 * (1 + 200))


async def test_a_path_never_listed_costs_one_query_and_its_second_look_nothing(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "a/b/c")

        assert isinstance(await horizon.stat("a/b/c"), RemoteFile)
        assert horizon.queries == [(PATH, "a/b/c")]


@pytest.mark.parametrize("path", ["caf\udce9.mp3", "a/\x1b", ".git/x", "x/" * 16 + "x"])
async def test_nobody_is_asked_for_a_name_that_nobody_can_publish(
    autojump_clock: MockClock, path: str
):
    async with open_horizon() as horizon:
        horizon.add("near", "a/b")

        assert await horizon.browser.find(path) is None
        assert horizon.spent() == (0, 0)


async def test_an_absent_name_costs_one_query_and_is_remembered_for_ten_seconds(
    autojump_clock: MockClock,
):
    assert ABSENT_S == 10
    async with open_horizon() as horizon:
        horizon.add("near")

        assert await horizon.stat("a") is None
        assert horizon.spent() == (1, 0)
        await trio.sleep(ABSENT_S - 0.1)
        assert await horizon.stat("a") is None
        assert horizon.spent() == (0, 0)
        await trio.sleep(0.2)
        assert await horizon.stat("a") is None
        assert horizon.spent() == (1, 0)


async def test_a_name_is_not_remembered_as_absent_while_not_all_have_answered(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        near = horizon.add("near")
        horizon.is_unfinished = True

        assert await horizon.stat("a") is None
        assert trio.current_time() == FIND_TIMEOUT_S
        near.paths.add("a")  # as if it had not answered before
        await trio.sleep(0.1)
        assert isinstance(await horizon.stat("a"), RemoteFile)


async def test_a_thousand_absent_names_cost_seconds_though_somebody_is_silent(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "there")
        horizon.is_unfinished = True

        for number in range(1_000):
            assert await horizon.stat(f"absent {number}") is None

        assert trio.current_time() <= 2 * FIND_TIMEOUT_S
        assert horizon.spent() <= (3, 0)


async def test_what_was_not_found_because_budgets_are_spent_is_not_absent(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near")
        horizon.add("far", "a", is_far=True)
        horizon.is_refused = True

        with pytest.raises(NotAskedError, match="not everybody could be asked"):
            await horizon.stat("a")
        assert trio.current_time() == AGAIN_AFTER_S
        horizon.is_refused = False
        assert isinstance(await horizon.stat("a"), RemoteFile)


async def test_a_name_is_asked_for_once_more_when_budgets_were_spent_for_a_moment(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon, trio.open_nursery() as nursery:
        horizon.add("near")
        horizon.add("far", "a", is_far=True)
        horizon.is_refused = True

        async def go_on() -> None:
            await trio.sleep(AGAIN_AFTER_S / 2)
            horizon.is_refused = False

        nursery.start_soon(go_on)
        assert isinstance(await horizon.stat("a"), RemoteFile)


async def test_a_listing_that_did_not_go_everywhere_says_so_and_nothing_is_absent_by_it(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "d/there", "b")
        horizon.add("far", "d/a", "c", is_far=True)
        horizon.is_refused = True

        assert await horizon.ls() == ["b", "d"]
        assert horizon.browser.partial("") == "not everybody was asked: too many searches go on"
        horizon.is_refused = False
        assert isinstance(await horizon.stat("d/a"), RemoteFile)
        assert isinstance(await horizon.stat("c"), RemoteFile)


async def test_who_says_of_every_search_that_budgets_are_spent_is_taken_for_silent(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "there")
        horizon.is_refused = True
        failed = 0

        for number in range(300):
            try:
                assert await horizon.stat(f"absent {number}") is None
            except NotAskedError:
                failed += 1
            await trio.sleep(1)

        assert 0 < failed <= REFUSED_BURST + REFUSED_PER_S * trio.current_time()


async def test_a_thousand_absent_names_in_one_directory_cost_two_queries(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "there")

        for number in range(1_000):
            assert await horizon.stat(f"absent {number}") is None

        assert horizon.queries == [(PATH, "absent 0"), (DIRECTORY, "")]


@pytest.mark.parametrize("name", ["HEAD", "cover.jpg", "Folder.jpg", "autorun.inf"])
async def test_a_name_that_programs_look_up_anywhere_costs_one_listing_of_a_directory_that_is_there(
    autojump_clock: MockClock, name: str
):
    async with open_horizon() as horizon:
        near = horizon.add("near", "d/x", f"e/{name}")

        assert isinstance(await horizon.stat("d"), RemoteDirectory)
        assert await horizon.stat(f"d/{name}") is None
        assert isinstance(await horizon.stat("e"), RemoteDirectory)
        assert isinstance(await horizon.stat(f"e/{name}"), RemoteFile)
        assert (PATH, f"d/{name}") not in horizon.queries
        await trio.sleep(1)  # until what is refreshed behind has come
        horizon.spent()

        await trio.sleep(1)
        assert await horizon.stat(f"d/{name}") is None
        assert horizon.spent() == (0, 0)

        horizon.publish(near, f"d/{name}")
        assert isinstance(await horizon.stat(f"d/{name}"), RemoteFile)
        assert horizon.spent() == (0, 1)


async def test_a_name_that_programs_look_up_anywhere_costs_nothing_where_no_directory_is_known(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "d/cover.jpg")

        assert await horizon.stat("d/cover.jpg") is None
        assert horizon.spent() == (0, 0)
        assert isinstance(await horizon.browser.find("d/cover.jpg"), RemoteFile)  # a verb names it
        assert horizon.spent() == (1, 0)


async def test_a_name_that_programs_look_up_anywhere_is_found_where_it_came_far_away(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near")
        far = horizon.add("far", "d/x", is_far=True)
        await horizon.ls()
        assert await horizon.stat("d/HEAD") is None
        far.paths.add("d/HEAD")

        await trio.sleep(TRUST_S + 1)
        await horizon.stat("d/HEAD")  # is answered from memory, and refreshed behind
        await trio.sleep(0.1)

        assert isinstance(await horizon.stat("d/HEAD"), RemoteFile)


async def test_a_name_is_not_absent_while_a_known_holder_of_its_directory_has_not_answered(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "d/x", "d/Folder.jpg")
        assert isinstance(await horizon.stat("d"), RemoteDirectory)
        horizon.is_dead = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(horizon.ls, "d")
            await trio.sleep(0.5)
            with pytest.raises(NotAskedError):
                await horizon.stat("d/Folder.jpg")
        assert horizon.browser.partial("d") is not None

        horizon.is_dead = False
        assert isinstance(await horizon.stat("d/Folder.jpg"), RemoteFile)


async def test_what_a_slow_servent_has_published_is_not_absent(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        near = horizon.add("near", "d/x")
        assert await horizon.ls() == ["d"]
        assert await horizon.ls("d") == ["d/x"]
        await trio.sleep(1)
        near.wait_s = 5
        horizon.publish(near, "d/y", "d/Folder.jpg")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(horizon.ls, "d")
            await trio.sleep(FIRST_LISTING_S - 0.5)
            with pytest.raises(NotAskedError):
                await horizon.stat("d/Folder.jpg")
            assert isinstance(await horizon.stat("d/y"), RemoteFile)

        await trio.sleep(5)  # it has told meanwhile
        assert isinstance(await horizon.stat("d/Folder.jpg"), RemoteFile)


async def test_a_listing_that_began_before_the_news_does_not_answer_them(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        near = horizon.add("near", "d/x")
        assert await horizon.ls() == ["d"]
        assert await horizon.ls("d") == ["d/x"]
        await trio.sleep(1)
        old = near.page("d", "")
        near.wait_s = 0.5

        async with trio.open_nursery() as nursery:
            near.list = lambda _directory, _after: old
            horizon.browser.comings.changed(near.id)
            nursery.start_soon(horizon.ls, "d")
            await trio.sleep(0.1)
            near.paths.add("d/Folder.jpg")
            horizon.browser.comings.changed(near.id)
            nursery.start_soon(_soon, 0.5, lambda: setattr(near, "list", near.page))
            assert isinstance(await horizon.stat("d/Folder.jpg"), RemoteFile)


async def test_a_listing_under_way_when_the_news_came_does_not_answer_them(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        near = horizon.add("near", "x")
        assert await horizon.ls() == ["x"]
        await trio.sleep(1)
        old = near.page("", "")
        near.list, near.wait_s = lambda _directory, _after: old, 0.1
        horizon.browser.ask_one(near.info, "")
        await trio.sleep(0.02)
        horizon.publish(near, "y")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_soon, 0.1, lambda: setattr(near, "list", near.page))
            assert await horizon.ls() == ["x", "y"]


async def test_pages_asked_for_before_a_name_was_found_do_not_end_it(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        near = horizon.add("near", "x")
        await horizon.ls()
        await trio.sleep(REFRESH_AFTER_S + 1)
        old = near.page("", "")
        near.list, near.wait_s = lambda _directory, _after: old, 1
        telling = horizon.browser.ask_one(near.info, "")
        near.paths.add("d/Folder.jpg")

        assert isinstance(await horizon.stat("d"), RemoteDirectory)
        assert await telling.heard_out()

        assert isinstance(horizon.browser.known("d"), RemoteDirectory)


async def test_a_flood_begun_before_a_name_was_found_does_not_end_it(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        near = horizon.add("near", "x")
        await horizon.ls()
        await trio.sleep(1)
        horizon.is_dead = True
        horizon.browser.comings.joined(horizon.holders[-1].id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(horizon.ls)
            await trio.sleep(0.1)
            guid, old, horizon.is_dead = Guid(horizon._last_guid), near.entries(""), False
            near.paths.add("d/Folder.jpg")
            assert isinstance(await horizon.stat("d"), RemoteDirectory)
            hit = sign_hit(near.identity, guid, TTL, near.info, old, len(old))
            horizon.searches.got_hit(hit, Address("10.0.0.9", 1))
            horizon.searches.got_finished(Finished(guid, TTL, 1, 0, True))

        assert isinstance(horizon.browser.known("d"), RemoteDirectory)


async def test_a_flood_begun_before_a_servent_was_found_does_not_end_it(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "x")
        far = horizon.add("far", is_far=True)
        horizon.is_dead = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(horizon.ls)
            await trio.sleep(0.1)
            guid, horizon.is_dead = Guid(horizon._last_guid), False
            far.paths.add("d/Folder.jpg")
            assert isinstance(await horizon.stat("d"), RemoteDirectory)
            horizon.searches.got_finished(Finished(guid, TTL, 2, 0, True))

        assert isinstance(horizon.browser.known("d"), RemoteDirectory)


async def _soon(after_s: float, call: Callable[[], object]) -> None:
    await trio.sleep(after_s)
    call()


async def test_who_asks_the_same_at_once_shares_one_query(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        horizon.add("near", "a/b").wait_s = 0.1
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(horizon.stat, "a/b")
                nursery.start_soon(horizon.ls)

        assert sorted(horizon.queries) == [(PATH, "a/b"), (DIRECTORY, "")]


async def test_one_who_is_cancelled_disturbs_no_other(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        near = horizon.add("near", "d/x")
        await horizon.ls()
        near.wait_s = 1
        got = []

        async def ls() -> None:
            got.append(await horizon.ls("d"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ls)
            with trio.move_on_after(0.5):
                await horizon.ls("d")

        assert got == [["d/x"]]


async def test_with_more_holders_than_can_be_asked_one_by_one_a_query_is_sent(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        for number in range(MAX_DIRECT + 1):
            horizon.add(f"holder {number}", f"d/{number:02}")
        assert await horizon.ls() == ["d"]

        assert len(await horizon.ls("d")) == MAX_DIRECT + 1
        assert horizon.queries == [(DIRECTORY, ""), (DIRECTORY, "d")]
        assert horizon.lists == []


async def test_without_neighbours_nothing_is_asked_and_what_is_known_stays(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        near = horizon.add("near", "a")
        await horizon.ls()
        horizon.spent()
        horizon.neighbours.remove(near)
        horizon.browser.comings.lost(near.id)
        await trio.sleep(2 * TRUST_S)

        assert horizon.browser.known("b") is Knowledge.ABSENT
        assert await horizon.ls() == ["a"]
        assert isinstance(await horizon.stat("a"), RemoteFile)
        assert [node.path for node in await horizon.browser.list("")] == ["a"]
        assert horizon.spent() == (0, 0)


@pytest.mark.parametrize("name", ["cover.jpg", "b"])
async def test_a_listing_that_ends_while_a_name_is_looked_up_makes_it_known(
    name: str, autojump_clock: MockClock
):
    """The kernel's threads look names up while listings end on another."""

    async with open_horizon() as horizon:
        near = horizon.add("near", f"album/{name}")
        await horizon.ls()
        await trio.sleep(TRUST_S)

        class ListedMeanwhile(list[Holder]):
            def __iter__(self):
                horizon.neighbours = self[:]
                horizon.catalogue.learn_listing(near.info, "album", near.entries("album"))
                horizon.catalogue.holders.mark_listed("album", trio.current_time())
                return super().__iter__()

        horizon.neighbours = ListedMeanwhile(horizon.neighbours)
        node = horizon.browser.known(f"album/{name}")
        assert isinstance(node, RemoteFile)


async def test_a_first_listing_shows_what_has_come_though_somebody_is_silent(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "a", "d/b")
        horizon.is_unfinished = True

        assert await horizon.ls() == ["a", "d"]
        assert await horizon.ls("d") == ["d/b"]
        assert trio.current_time() <= 2 * FIRST_LISTING_S


# Budgets.


async def test_a_path_that_was_not_asked_for_is_neither_absent_nor_listed(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "a", "d/b")
        horizon.spend(Urgency.PERSON)

        for path in ("a", "d/b", "d/HEAD", "nowhere"):
            if horizon.browser.known(path) is Knowledge.UNKNOWN:
                with pytest.raises(NotAskedError, match="try again in"):
                    await horizon.browser.find(path)
        with pytest.raises(NotAskedError):
            await horizon.ls()
        assert horizon.spent() == (0, 0)
        assert math.isinf(horizon.browser.age(""))
        assert horizon.browser.known("a") is Knowledge.UNKNOWN

        await trio.sleep(60)
        assert isinstance(await horizon.stat("a"), RemoteFile)
        assert await horizon.ls() == ["a", "d"]


async def test_what_is_known_is_shown_whatever_the_budget(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        horizon.add("near", "a", "d/b")
        await horizon.walk()
        horizon.spend(Urgency.PERSON)

        assert isinstance(await horizon.stat("d/b"), RemoteFile)
        await trio.sleep(REFRESH_AFTER_S + 0.1)
        assert await horizon.ls("d") == ["d/b"]
        assert await horizon.ls() == ["a", "d"]
        await trio.sleep(0.1)
        assert await horizon.ls() == ["a", "d"]


async def test_over_the_budget_holders_that_are_known_are_still_asked(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        near = horizon.add("near", "a")
        await horizon.ls()
        await trio.sleep(1)
        horizon.spend(Urgency.PERSON)
        near.paths.add("b")
        horizon.browser.comings.joined(horizon.holders[-1].id)  # so that the listing is old
        horizon.spent()

        assert await horizon.ls() == ["a", "b"]
        assert horizon.spent() == (0, 1)


async def test_refreshing_behind_leaves_queries_for_those_who_wait(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        for number in range(MAX_DIRECT + 1):
            horizon.add(f"holder {number}", *[f"d{d:02}/{number}" for d in range(40)])
        for directory in range(25):
            await horizon.ls(f"d{directory:02}")
            await trio.sleep(1 / SEARCHES_PER_S)
        await trio.sleep(60)
        horizon.spent()

        for directory in range(25):
            await horizon.ls(f"d{directory:02}")  # from memory, and refreshed behind
        await trio.sleep(0.1)

        assert 0 < len(horizon.queries) < 25
        assert await horizon.stat("d39/1") is not None


# News.


async def test_what_a_neighbour_publishes_is_shown_at_the_next_look_and_costs_no_query(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        near = horizon.add("near", "a")
        await horizon.ls()
        horizon.spent()

        await trio.sleep(1)
        horizon.publish(near, "b", "d/c")

        assert isinstance(await horizon.stat("b"), RemoteFile)
        assert await horizon.ls() == ["a", "b", "d"]
        assert horizon.spent() == (0, 1)


async def test_what_a_neighbour_adds_to_the_directory_of_another_is_shown(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        near = horizon.add("near", "a")
        horizon.add("other", "d/x")
        await horizon.ls()
        await trio.sleep(1)
        horizon.publish(near, "d/y")

        assert await horizon.ls("d") == ["d/x", "d/y"]


async def test_news_end_what_was_held_for_absent(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        near = horizon.add("near")
        assert await horizon.stat("a") is None
        await trio.sleep(1)

        horizon.publish(near, "a")

        assert isinstance(await horizon.stat("a"), RemoteFile)


async def test_news_behind_a_question_are_not_overlooked_by_its_answer(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        near = horizon.add("near")
        horizon.is_dead = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(horizon.stat, "a")
            await trio.sleep(0.1)
            horizon.publish(near, "a")
            horizon.is_dead = False
            query = Guid((1).to_bytes(GUID_BYTES, "big"))
            horizon.searches.got_finished(Finished(query, 1, 0, 0, True))

        assert isinstance(await horizon.stat("a"), RemoteFile)


async def test_what_a_neighbour_unpublishes_vanishes_at_the_next_look(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        near = horizon.add("near", "a", "d/b")
        await horizon.walk()
        await trio.sleep(1)
        near.paths.clear()
        horizon.browser.comings.changed(near.id)

        assert await horizon.stat("a") is None
        assert await horizon.stat("d/b") is None
        assert await horizon.ls() == []


async def test_a_neighbour_that_has_always_news_does_not_hide_those_of_others(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        busy = horizon.add("busy", "a")
        far = horizon.add("far", "b", is_far=True)
        await horizon.ls()
        far.paths.add("c")

        for _ in range(10):
            horizon.browser.comings.changed(busy.id)
            await horizon.ls()
            await trio.sleep(0.5)

        assert await horizon.ls() == ["a", "b", "c"]


async def test_a_neighbour_that_cries_news_and_is_silent_delays_one_listing(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        liar = horizon.add("liar", "a")
        await horizon.ls()
        liar.wait_s = 1_000
        await trio.sleep(1)
        horizon.browser.comings.changed(liar.id)
        with trio.fail_after(LEAST_LOOK_S + 0.01):
            await horizon.ls()
        assert horizon.browser.partial("") == "not everybody has answered yet"

        before = trio.current_time()
        for _ in range(5):
            horizon.browser.comings.changed(liar.id)
            assert await horizon.ls() == ["a"]
        assert trio.current_time() == before

        await trio.sleep(FIRST_LISTING_S + MUTED_S)
        liar.wait_s = 0
        horizon.publish(liar, "b")
        assert await horizon.ls() == ["a", "b"]


async def test_many_neighbours_that_cry_news_and_are_silent_hide_those_of_nobody(
    autojump_clock: MockClock,
):
    rounds = 4
    async with open_horizon() as horizon:
        honest = horizon.add("honest", "b")
        liars = [horizon.add(f"liar{n}", f"a{n}") for n in range((rounds - 1) * MAX_DIRECT)]
        await horizon.ls()
        await trio.sleep(1)
        horizon.publish(honest, "c")
        for liar in liars:
            liar.wait_s = 1_000
            horizon.browser.comings.changed(liar.id)

        for _ in range(rounds):  # each asks some, in any order
            assert "c" in await horizon.ls() or horizon.browser.partial("")
            await trio.sleep(FIRST_LISTING_S)

        assert "c" in await horizon.ls()


async def test_a_neighbour_that_needs_longer_is_waited_for_as_long(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        near = horizon.add("near", "a")
        await horizon.ls()
        near.wait_s = 2 * LEAST_LOOK_S
        await trio.sleep(1)
        horizon.publish(near, "b")
        assert await horizon.ls() == ["a"]
        await trio.sleep(1)

        horizon.publish(near, "c")

        assert await horizon.ls() == ["a", "b", "c"]


async def test_a_neighbour_that_left_is_forgotten_with_its_news(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        near, other = horizon.add("near", "a"), horizon.add("other", "b")
        await horizon.ls()
        await trio.sleep(1)
        horizon.browser.comings.changed(near.id)
        horizon.leave(near)
        horizon.browser.comings.left(near.id)

        assert await horizon.ls() == ["b"]
        assert horizon.browser._belief.board._changed.keys() <= {other.id}


# Refreshing behind.


async def test_a_listing_is_refreshed_behind_after_three_seconds(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        far = horizon.add("far", "a", is_far=True)
        horizon.add("near")
        await horizon.ls()
        far.paths = {"b"}
        await trio.sleep(REFRESH_AFTER_S + 0.1)

        assert await horizon.ls() == ["a"]
        await trio.sleep(0.1)
        assert await horizon.ls() == ["b"]


class TestAHolderThatWouldHaveSaidThatItChanged:
    @staticmethod
    async def listings(horizon: Horizon, *seconds: float) -> list[int]:
        """Return how often a directory is listed after each of these times."""
        counts = []
        for wait_s in seconds:
            await trio.sleep(wait_s)
            horizon.lists.clear()
            await horizon.ls("d")
            await trio.sleep(0.1)
            counts.append(horizon.lists.count(("near", "d")))
        return counts

    @pytest.fixture
    async def horizon(self, autojump_clock: MockClock) -> AsyncIterator[Horizon]:
        async with open_horizon() as horizon:
            near = horizon.add("near", "d/a")
            horizon.browser.comings.joined(near.id)
            await trio.sleep(1)
            assert await horizon.walk() == ["d", "d/a"]
            yield horizon

    async def test_it_is_not_asked_again_as_long_as_holders_are_taken_for_all(self, horizon):
        assert await self.listings(horizon, REFRESH_AFTER_S + 1, 20) == [0, 0]
        assert await self.listings(horizon, TRUST_S - 10) == [1]

    async def test_what_it_changes_is_asked_for_at_once(self, horizon):
        horizon.publish(horizon.holders[0], "d/b")

        assert await horizon.ls("d") == ["d/a", "d/b"]

    async def test_it_is_asked_again_if_its_link_is_not_so_old(self, horizon):
        near = horizon.holders[0]
        horizon.browser.comings.lost(near.id, is_there=True)
        assert await self.listings(horizon, REFRESH_AFTER_S + 1) == [1]

    async def test_it_is_asked_again_if_what_it_says_is_ignored(self, horizon):
        horizon.browser._belief.board._muted["near", "near"] = trio.current_time() + 60
        horizon.browser._belief.board._groups_of = lambda _peer: ("near", "near")
        assert await self.listings(horizon, REFRESH_AFTER_S + 1) == [1]

    async def test_others_that_have_the_directory_are_asked_again(self, horizon):
        horizon.add("far", "d/c", is_far=True)
        await trio.sleep(TRUST_S + 1)
        await horizon.walk()
        await trio.sleep(0.5)
        await horizon.walk()
        horizon.holders[1].paths = {"d/e"}
        await trio.sleep(REFRESH_AFTER_S + 1)
        await horizon.ls("d")
        await trio.sleep(0.1)
        assert await horizon.ls("d") == ["d/a", "d/e"]


async def test_what_vanished_far_away_vanishes_for_one_who_only_looks_it_up(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        far = horizon.add("far", "top/d/a", is_far=True)
        horizon.add("near")
        await horizon.walk()
        far.paths = {"top/d/b"}
        await trio.sleep(TRUST_S - 1)
        assert isinstance(await horizon.stat("top/d/a"), RemoteFile)
        await trio.sleep(2)
        horizon.spent()

        assert isinstance(await horizon.stat("top/d/a"), RemoteFile)  # from memory
        await trio.sleep(0.1)

        assert await horizon.stat("top/d/a") is None
        assert horizon.spent() == (1, 2)  # the root by a query, top and d of their holder


async def test_what_was_found_by_its_path_alone_vanishes_too(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        far = horizon.add("far", "d/a", is_far=True)
        horizon.add("near")
        await horizon.stat("d/a")
        far.paths = set()
        await trio.sleep(TRUST_S)

        await horizon.stat("d/a")
        await trio.sleep(0.1)

        assert await horizon.stat("d/a") is None


async def test_many_looks_at_an_old_directory_refresh_it_once(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        horizon.add("near", *[f"file {number}" for number in range(50)])
        await horizon.ls()
        await trio.sleep(TRUST_S + 1)
        horizon.spent()

        for number in range(50):
            await horizon.stat(f"file {number}")
        await trio.sleep(1)

        assert horizon.spent() == (1, 0)


# Silence.


async def test_a_dead_network_delays_an_unknown_name_two_seconds_at_most(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "a")
        horizon.is_dead = True

        with trio.fail_after(FIND_TIMEOUT_S + 0.01):
            assert await horizon.stat("a") is None


async def test_a_dead_network_delays_a_first_listing_a_second_and_a_half_and_no_other(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "a")
        horizon.is_dead = True

        with trio.fail_after(FIRST_LISTING_S + 0.01):
            assert await horizon.ls() == []
        before = trio.current_time()
        await horizon.ls()
        assert trio.current_time() == before


async def test_a_holder_that_does_not_answer_does_not_keep_back_what_others_have(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        slow = horizon.add("slow", "d/slow")
        horizon.add("quick", "d/quick")
        await horizon.ls()
        slow.wait_s = 5

        with trio.fail_after(FIRST_LISTING_S + 0.01):
            assert await horizon.ls("d") == ["d/quick"]
        await trio.sleep(5)
        assert await horizon.ls("d") == ["d/quick", "d/slow"]


# Whole or not.


async def test_a_long_listing_from_far_away_is_whole_at_the_first_look(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        names = [f"d/{number:05}" for number in range(20_000)]
        horizon.add("far", *names).wait_s = 0.1
        await horizon.ls()

        assert await horizon.ls("d") == names
        assert trio.current_time() >= 20_000 / PAGE * 0.1
        assert Counter(horizon.lists)["far", "d"] == 1
        assert horizon.browser.partial("d") is None


async def test_who_joins_the_look_at_a_long_listing_waits_for_all_of_it(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("far", *[f"d/{number:05}" for number in range(10_000)]).wait_s = 0.2
        await horizon.ls()
        with trio.move_on_after(1):
            await horizon.ls("d")

        assert len(await horizon.ls("d")) == 10_000
        assert Counter(horizon.lists)["far", "d"] == 1


async def test_all_who_have_more_than_a_hit_holds_are_asked_some_at_a_time(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        count = 3 * MAX_DIRECT + 1
        for number in range(count):
            names = [f"s{number:02} {name:02}" for name in range(60)]
            horizon.add(f"holder {number}", *names, is_far=number > 0).wait_s = 0.3

        assert len(await horizon.ls()) == 60 * count
        assert horizon.most_asked < MAX_DIRECT
        assert horizon.spent() == (1, count)
        assert isinstance(await horizon.stat(f"s{count - 1} 59"), RemoteFile)
        assert horizon.browser.partial("") is None
        assert horizon.journal.events() == []


async def test_when_a_flood_is_refused_all_who_surely_have_a_directory_are_asked(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        for number in range(2 * MAX_DIRECT):
            horizon.add(f"holder {number}", f"d/{number:02}")
        await horizon.ls()
        horizon.spend(Urgency.PERSON)
        horizon.spent()

        assert len(await horizon.ls("d")) == 2 * MAX_DIRECT
        assert horizon.spent() == (0, 2 * MAX_DIRECT)
        assert horizon.browser.partial("d") is None


async def test_when_a_flood_is_refused_and_others_may_have_it_that_is_said(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("near", "d/x")
        await horizon.stat("d/x")
        horizon.add("far", "d/y", is_far=True)
        await trio.sleep(1)
        horizon.spend(Urgency.PERSON)

        assert await horizon.ls("d") == ["d/x"]
        assert horizon.browser.partial("d") == "not everybody has answered in time"
        await trio.sleep(60)
        assert await horizon.ls("d") == ["d/x", "d/y"]
        assert horizon.browser.partial("d") is None


async def test_a_servent_that_breaks_off_fails_the_first_look_and_is_said_to_have_more(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        names = [f"d/{number:04}" for number in range(3_000)]
        far = horizon.add("far", *names)
        horizon.add("near", "d/x")
        await horizon.ls()

        def breaks_off(path: str, after: str) -> Listing:
            if after:
                raise UnreachableError("it is gone")
            return far.page(path, after)

        far.list = breaks_off
        with pytest.raises(NoSourceError):
            await horizon.ls("d")

        told = [*names[:PAGE], "d/x"]
        assert await horizon.ls("d") == told
        assert horizon.browser.partial("d") == "not all was told by 'far'"
        assert horizon.browser.partial_directories() == ["d"]
        (event,) = horizon.journal.events()
        assert event.text == "the listing of d is not whole: not all was told by 'far'"

        await trio.sleep(1)
        horizon.browser.comings.joined(horizon.holders[-1].id)  # so that the listing is old
        assert await horizon.ls("d") == told  # it has failed once
        assert len(horizon.journal.events()) == 1

        far.list = far.page
        await trio.sleep(1)
        horizon.browser.comings.joined(horizon.holders[-1].id)
        assert await horizon.ls("d") == [*names, "d/x"]
        assert horizon.browser.partial_directories() == []


async def test_a_directory_whose_only_holder_is_gone_is_not_first_shown_empty(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        far = horizon.add("far", "d/x")
        horizon.add("near", "x")
        assert await horizon.ls() == ["d", "x"]

        def is_gone(_path: str, _after: str) -> Listing:
            raise UnreachableError("nobody answers")

        far.list = is_gone
        with pytest.raises(NoSourceError):
            await horizon.ls("d")

        assert await horizon.ls("d") == []
        assert horizon.browser.partial("d") == "not all was told by 'far'"


async def test_what_one_told_only_behind_makes_the_listing_whole(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        horizon.add("slow", "d/slow").wait_s = 5
        horizon.add("quick", "d/quick")
        horizon.holders[0].wait_s = 5
        await horizon.ls()
        assert await horizon.ls("d") == ["d/quick"]
        assert horizon.browser.partial("d") == "not all was told by 'slow'"

        await trio.sleep(5)

        assert horizon.browser.partial("d") is None
        assert await horizon.ls("d") == ["d/quick", "d/slow"]


async def test_no_absence_is_concluded_from_a_listing_that_is_not_whole(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        horizon.add("silent", "d/there", "d/HEAD").wait_s = 1_000
        horizon.add("near", "d/x")
        await horizon.ls()
        assert await horizon.ls("d") == ["d/x"]
        horizon.spent()

        assert horizon.browser.known("d/there") is Knowledge.UNKNOWN
        assert isinstance(await horizon.stat("d/there"), RemoteFile)
        assert horizon.queries == [(PATH, "d/there")]
        assert await horizon.stat("d/absent") is None
        assert horizon.queries == [(PATH, "d/there"), (PATH, "d/absent")]
        assert await horizon.stat("d/absent") is None  # it was asked for
        with pytest.raises(NotAskedError):
            await horizon.stat("d/HEAD")  # which is never searched for
        assert len(horizon.queries) == 2


async def test_what_is_held_of_a_listing_is_bounded_and_what_is_cut_is_said(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claims_module, "MAX_ENTRIES_PER_SOURCE", 1_200)
    async with open_horizon() as horizon:
        horizon.add("large", *[f"d/{number:05}" for number in range(20_000)])
        await horizon.ls()
        horizon.spent()

        shown = await horizon.ls("d")

        assert 1_100 <= len(shown) <= 1_200
        assert horizon.browser.partial("d") == "there are more names than are held"
        assert [event.text for event in horizon.journal.events()] == [
            "the listing of d is not whole: there are more names than are held"
        ]
        assert horizon.browser.known("d/19999") is Knowledge.UNKNOWN
        assert isinstance(await horizon.stat("d/00000"), RemoteFile)


async def test_more_servents_than_are_kept_of_a_search_make_it_a_part(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(search_module, "MAX_HITS", 20)
    async with open_horizon() as horizon:
        for number in range(30):
            horizon.add(f"holder {number}", f"file {number:02}", is_far=number > 0)

        assert len(await horizon.ls()) == 20
        assert "there are more names than are held" in horizon.browser.partial("")


async def test_a_walk_that_takes_minutes_costs_a_query_now_and_then(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        tree = [f"top/d{number:03}/file" for number in range(300)]
        for name in ("one", "other"):
            horizon.add(name, *tree).wait_s = 0.5

        assert len(await horizon.walk()) == 1 + 300 + 300

        assert trio.current_time() > 2 * TRUST_S
        assert len(horizon.queries) <= 1 + trio.current_time() / TRUST_S
        assert {kind for kind, _ in horizon.queries} == {DIRECTORY}


async def test_a_listing_that_takes_long_is_refreshed_less_often(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        horizon.add("far", *[f"d/{number:05}" for number in range(4 * PAGE)]).wait_s = 0.5
        await horizon.ls()
        await horizon.ls("d")
        horizon.spent()

        for _ in range(120):
            await horizon.ls("d")
            await trio.sleep(1)

        listings = sum(path == "d" for _, path in horizon.lists)
        assert 2 <= listings <= 120 / (2 / REFRESH_SHARE) + 2


async def test_who_asks_when_it_ends_is_told_so(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        horizon.add("near", "a")
        horizon.is_dead = True
        async with trio.open_nursery() as nursery:

            async def ls() -> None:
                with pytest.raises(ShutdownError):
                    await horizon.ls()

            nursery.start_soon(ls)
            await trio.sleep(0.1)
            horizon.browser._tasks._nursery.cancel_scope.cancel()
        with pytest.raises(ShutdownError):
            await horizon.browser.find("b")


# Lies.


async def test_names_outside_the_directory_are_not_taken_in(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        liar = horizon.add("liar", "d/x")
        horizon.add("honest", "other/file")
        await horizon.ls()
        bad = ("other/file", "d", "d/x/y", "d/../up", "d/.hidden", "d/\u202egnp.exe", "")
        liar.list = lambda path, _after: Listing(
            tuple(Entry(p, 6, 6, ID) for p in (*bad, f"{path}/good")), has_more=False
        )

        assert await horizon.ls("d") == ["d/good"]
        node = await horizon.stat("other/file")
        assert isinstance(node, RemoteFile)
        assert [source.name for source in node.sources] == ["honest"]


def endless(holder: Holder, asked: list[float], count: int = MIN_LISTING, begin: str = "") -> None:
    """Let a servent tell without end, so many names a page, all with one beginning."""

    def page(path: str, after: str) -> Listing:
        first = int(after.removeprefix(begin) or 0) + 1
        asked.append(trio.current_time())
        prefix = f"{path}/{begin}" if path else begin
        names = (f"{prefix}{number:09}" for number in range(first, first + count))
        return Listing(tuple(Entry(name, 1, 1, ID) for name in names), has_more=True)

    holder.list = page


async def test_a_listing_without_end_is_cut(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listing_module, "MAX_NAMES", 5_000)
    async with open_horizon() as horizon:
        liar, asked = horizon.add("liar", "d/x"), []
        await horizon.ls()
        endless(liar, asked)

        await horizon.ls("d")

        assert 100 <= len(asked) <= 100 + 3 * MAX_PAGES_ASKED
        assert horizon.browser.partial("d") == "there are more names than are held"


async def test_a_listing_without_end_is_not_begun_again_by_each_look(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listing_module, "MAX_NAMES", 5_000)
    async with open_horizon() as horizon:
        liar, asked = horizon.add("liar", "d/x"), []
        honest = horizon.add("honest", "d/y")
        await horizon.ls()
        endless(liar, asked)
        await horizon.ls("d")
        asked.clear()
        await trio.sleep(1)

        for number in range(10):
            horizon.publish(honest, f"d/new {number}")
            horizon.browser.comings.changed(liar.id)
            await trio.sleep(TRUST_S / 4)
            await horizon.ls("d")  # may show what was there before, and asks behind
            await trio.sleep(1)
            assert f"d/new {number}" in await horizon.ls("d")
            assert horizon.browser.partial("d") == "there are more names than are held"
        assert not asked

        await trio.sleep(CUT_AGAIN_S)
        await horizon.ls("d")
        await trio.sleep(1)
        assert asked, "it may have become smaller"


async def test_who_trickles_is_not_waited_for(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        liar, asked = horizon.add("liar", "d/x"), []
        horizon.add("honest", "d/y")
        await horizon.ls()
        endless(liar, asked)
        liar.wait_s = 1

        with pytest.raises(StalledError), trio.fail_after(SLOW_AFTER_S + 5):
            await horizon.ls("d")
        with trio.fail_after(0):
            assert "d/y" in await horizon.ls("d")


async def test_many_who_tell_without_end_hold_nobody_up_for_ever(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listing_module, "MIN_NAMES_PER_S", 10)
    async with open_horizon() as horizon:
        horizon.add("honest", "honest")
        for number in range(100):
            liar = horizon.add(f"liar {number}", *[f"{number:03} {n}" for n in range(60)])
            endless(liar, [])
            liar.wait_s = 1
        with pytest.raises(StalledError):
            await horizon.ls()
        assert trio.current_time() == pytest.approx(LONGEST_S)
        assert "honest" in await horizon.ls()
        assert trio.current_time() == pytest.approx(LONGEST_S)
        assert "95 more" in horizon.browser.partial("")


async def test_a_long_share_whose_servent_has_left_is_forgotten_behind(
    autojump_clock: MockClock,
):
    async with open_horizon() as horizon:
        far = horizon.add("far", *[f"d/{number:05}" for number in range(3_000)])
        horizon.add("near", "d/x")
        await horizon.ls()
        assert len(await horizon.ls("d")) == 3_001
        horizon.leave(far)

        horizon.browser.comings.left(far.id)
        await wait_all_tasks_blocked()

        assert horizon.catalogue.shown.children("d")[0].path == "d/x"


async def test_who_tells_hardly_anything_on_a_page_is_not_heard_out(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        liar, asked = horizon.add("liar", "d/x"), []
        await horizon.ls()
        endless(liar, asked, count=MIN_LISTING - 1)

        assert await horizon.ls("d") == []
        assert len(asked) == 1
        assert horizon.browser.partial("d") == "not all was told by 'liar'"


@pytest.mark.parametrize("step", [0, -1])
async def test_a_listing_that_goes_round_in_circles_is_given_up(
    autojump_clock: MockClock, step: int
):
    async with open_horizon() as horizon:
        liar = horizon.add("liar", "d/x")
        await horizon.ls()
        asked = []

        def circle(path: str, after: str) -> Listing:
            first = MIN_LISTING + (step if asked else 0)
            asked.append(after)
            names = (f"{path}/{number:03}" for number in range(first, first + MIN_LISTING))
            return Listing(tuple(Entry(name, 1, 1, ID) for name in names), has_more=True)

        liar.list = circle

        with pytest.raises(NoSourceError):
            await horizon.ls("d")
        assert len(await horizon.ls("d")) == MIN_LISTING
        assert len(asked) == 2


async def test_pages_that_are_empty_and_promise_more_are_the_end(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        liar = horizon.add("liar", "d/x")
        await horizon.ls()
        liar.list = lambda _path, _after: Listing((), has_more=True)

        assert await horizon.ls("d") == []
        assert horizon.browser.partial("d") == "not all was told by 'liar'"


@pytest.mark.parametrize(
    "error", [UnreachableError("gone"), StalledError("silent"), RejectedError("no", 4)]
)
async def test_what_a_holder_does_not_tell_now_is_kept_as_known(
    autojump_clock: MockClock, error: Exception
):
    async with open_horizon() as horizon:
        holder = horizon.add("holder", "d/x")
        await horizon.walk()

        def fail(_path: str, _after: str) -> Listing:
            raise error

        holder.list = fail
        await trio.sleep(1)
        horizon.browser.comings.changed(holder.id)

        assert await horizon.ls("d") == ["d/x"]


# Bounds.


async def test_what_is_remembered_of_directories_is_bounded(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        horizon.add("near")
        for number in range(MAX_TIMES + 10):
            with contextlib.suppress(NotAskedError):
                await horizon.stat(f"{number}/x")

        assert len(horizon.browser._finder._looked_at._at) == MAX_TIMES


async def test_no_more_servents_are_held_than_there_may_be(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sources_module, "MAX_SERVENTS_HELD", 2)
    async with open_horizon() as horizon:
        horizon.add("empty")
        horizon.add("one", "a")
        horizon.add("two", "b")
        horizon.add("three", "c")

        assert await horizon.ls() == ["a", "b"]
        assert len(horizon.catalogue.holders.all()) == 2
        assert horizon.catalogue.dropped > 0


def test_the_numbers_are_those_of_the_design():
    assert FIND_TIMEOUT_S == 2.0
    assert FIRST_LISTING_S == 1.5
    assert REFRESH_AFTER_S + FIRST_LISTING_S < 5
