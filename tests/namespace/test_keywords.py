"""What keyword searches find, how it is named, what is remembered, and what it costs."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from p2pfs.errors import NotAskedError, ShutdownError, UnreachableError
from p2pfs.namespace import keywords as results_module
from p2pfs.namespace.ages import FIRST_LISTING_S
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.disputes import Disputes
from p2pfs.namespace.gathering import MAX_FILES, SEARCH_TIMEOUT_S, Gatherer
from p2pfs.namespace.keywords import (
    MAX_SEARCHES,
    SEARCH_AGAIN_S,
    Results,
)
from p2pfs.namespace.nodes import Knowledge, RemoteDirectory, RemoteFile
from p2pfs.namespace.query import QueryError, parse_query
from p2pfs.namespace.showing import Here
from p2pfs.overlay.search import Hits, Outcome
from p2pfs.protocol import (
    Address,
    Entry,
    FileId,
    Guid,
    Identity,
    Listing,
    Manifest,
    Match,
    PeerInfo,
    QueryHit,
    QueryKind,
    ServentId,
    Terms,
    Wanted,
    sign_hit,
)
from p2pfs.protocol.flood.budgets import Urgency


def file_id(number: int) -> FileId:
    return FileId(number.to_bytes(32, "little"))


class Holder:
    """A servent with files by path: the size and a number for the content."""

    def __init__(self, name: str, files: dict[str, tuple[int, int | FileId]]) -> None:
        self.identity = Identity.generate()
        self.info = PeerInfo(self.identity.id, name, (Address("10.0.0.2", 4774),))
        self.files = files
        self.link = name
        """Over which link its hits come."""
        self.cut = 10_000
        """How many files fit into a hit, or on a page."""

    def matches(self, text: str, terms: Terms | None, after: str = "") -> list[Entry]:
        entries = (
            Entry(path, size, 1, number if isinstance(number, bytes) else file_id(number))
            for path, (size, number) in sorted(self.files.items())
        )
        wanted = Wanted(text, terms)
        return [e for e in entries if e.path > after and wanted.accepts(e.path, e.size)]

    def hit(self, text: str, terms: Terms | None) -> QueryHit | None:
        good = self.matches(text, terms)
        sent = tuple(good[: self.cut])
        hit = (self.identity, Guid(bytes(16)), 1, self.info, sent, len(good))
        return sign_hit(*hit) if good else None


class Horizon:
    """What a search reaches: `near` answers at once, `far` after a while."""

    def __init__(self, directory: Path) -> None:
        self.near: list[Holder] = []
        self.far: list[Holder] = []
        self.far_after_s = 0.0
        self.is_alone = False
        self.is_over_budget = False
        self.is_cut_short = False
        self.asked: list[str] = []
        self.pages: list[str] = []
        """After which path each further page was asked for."""
        self.urgencies: list[Urgency] = []
        self.chosen: dict[ServentId, tuple[str, str]] = {}
        self.catalogue = Catalogue(Here(chosen=lambda: self.chosen))
        self.disputes = Disputes(self.catalogue, self.fetch_manifest, trio.current_time)
        self.manifests: dict[FileId, bytes] = {}
        self.gatherer = Gatherer(self.catalogue, self.flood, self.match_page, ttl=4)
        self.kept_path = directory / "searches"
        self.results = self.new_results()

    def new_results(self) -> Results:
        return Results(
            self.catalogue, self.gatherer, self.disputes, clock=trio.current_time,
            wall_clock=lambda: 1e9, kept_path=os.fspath(self.kept_path),
        )  # fmt: skip

    def add(self, name: str, is_far: bool = False, **files: tuple[int, int]) -> Holder:
        holder = Holder(name, {path.replace("_", " "): told for path, told in files.items()})
        (self.far if is_far else self.near).append(holder)
        return holder

    async def fetch_manifest(self, _peer: PeerInfo, file_id: FileId) -> bytes:
        await trio.lowlevel.checkpoint()
        if file_id not in self.manifests:
            raise UnreachableError("nobody answers")
        return self.manifests[file_id]

    async def match_page(self, peer: PeerInfo, wanted: Match) -> Listing:
        await trio.lowlevel.checkpoint()
        self.pages.append(wanted.after)
        holder = next(one for one in (*self.near, *self.far) if one.info.id == peer.id)
        return self.answer_page(holder, wanted)

    def answer_page(self, holder: Holder, wanted: Match) -> Listing:
        found = holder.matches(wanted.text, wanted.terms, wanted.after)
        sent = tuple(found[: min(wanted.limit, holder.cut)])
        return Listing(sent, has_more=len(sent) < len(found))

    async def flood(self, kind, text, *, rings, timeout_s, is_enough, urgency, terms) -> Outcome:
        assert (kind, timeout_s, list(rings)) == (QueryKind.WORDS, SEARCH_TIMEOUT_S, [1, 2, 3, 4])
        if self.is_over_budget:
            raise NotAskedError("too many searches: try again in 3 s", 3.0)
        self.asked.append(text)
        self.urgencies.append(urgency)
        if self.is_alone:
            return Outcome((), 0, is_complete=False)
        hits = self._hits(self.near, text, terms)
        arrived = self._hits(self.near[:-1], text, terms)
        if is_enough(arrived) or is_enough(hits):
            return Outcome(hits, len(self.near), is_complete=False)
        with trio.move_on_after(timeout_s) as scope:
            await trio.sleep(self.far_after_s)
            hits = self._hits([*self.near, *self.far], text, terms)
            is_enough(hits)
        is_complete = not (self.is_cut_short or scope.cancelled_caught)
        return Outcome(hits, len(self.near + self.far), is_complete=is_complete)

    def _hits(self, holders: Iterable[Holder], text: str, terms: Terms | None) -> Hits:
        by_link: dict[str, list[QueryHit]] = {}
        for holder in holders:
            if hit := holder.hit(text, terms):
                by_link.setdefault(holder.link, []).append(hit)
        return Hits.of(list(by_link.values()))

    # What a user does.

    async def ls(self, text: str) -> list[str]:
        known = self.results.known_children(text)
        nodes = await self.results.list(text) if isinstance(known, Knowledge) else known
        assert all(node.path.startswith(f"{text}/") for node in nodes)
        return [node.path.removeprefix(f"{text}/") for node in nodes]

    async def stat(self, path: str):
        known = self.results.known(path)
        return await self.results.find(path) if known is Knowledge.UNKNOWN else known


@asynccontextmanager
async def open_horizon(directory: Path) -> AsyncIterator[Horizon]:
    horizon = Horizon(directory)
    async with trio.open_nursery() as nursery:
        await nursery.start(horizon.results.run)
        yield horizon
        nursery.cancel_scope.cancel()


# Searching.


async def test_a_search_shows_what_everybody_has(tmp_path, autojump_clock: MockClock):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("near", whale_one=(1, 1), shark=(1, 2))
        horizon.add("far", is_far=True, whale_two=(2, 3), whale_one=(1, 1))

        assert await horizon.ls("whale") == ["whale one", "whale two"]

        one = await horizon.stat("whale/whale one")
        assert (one.size, one.file_id, len(one.sources)) == (1, file_id(1), 2)
        assert len(horizon.catalogue.offers.sources_of(file_id(1), 1)) == 2
        assert horizon.asked == ["whale"]


async def test_who_answers_cuts_after_all_terms(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        near = horizon.add("near", big_whale=(2000, 1), blue_whale=(2000, 3), a_whale=(1, 2))
        near.cut = 1

        assert await horizon.ls("whale size:>1K -blue") == ["big whale"]
        assert await horizon.ls("size:>1K -blue") == ["big whale"]
        assert horizon.asked == ["whale", ""]
        assert horizon.pages == []


async def test_what_a_liar_answers_is_sifted_here(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        liar = horizon.add("liar", big_whale=(2000, 1), small_whale=(1, 2))
        liar.matches = lambda text, terms, after="": Holder.matches(liar, "", None, after)

        assert await horizon.ls("whale size:>1K") == ["big whale"]


# More than a hit has room for.


def many(count: int) -> dict[str, tuple[int, int]]:
    return {f"whale_{number:05}": (1, number) for number in range(1, count + 1)}


async def test_more_than_a_hit_has_room_for_is_asked_for_page_by_page(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        for name in ("one", "two"):
            horizon.add(name, **many(61)).cut = 25

        assert len(await horizon.ls("whale")) == 61
        assert sorted(horizon.pages) == ["whale 00025"] * 2 + ["whale 00050"] * 2
        assert horizon.results.partial("whale") is None


async def test_what_is_left_out_is_counted(tmp_path, autojump_clock: MockClock):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("near", **many(MAX_FILES + 1_500)).cut = 50

        assert len(await horizon.ls("whale")) == MAX_FILES
        partial = horizon.results.partial("whale")
        assert partial == "1,000 of 2,500 results: more words find others"


async def test_one_that_has_many_does_not_crowd_out_others(tmp_path, autojump_clock: MockClock):
    async with open_horizon(tmp_path) as horizon:
        for name, first in (("one", 0), ("two", 10_000)):
            files = {f"whale_{name}_{n:05}": (1, first + n) for n in range(1, 5_001)}
            horizon.add(name, **files).cut = 50
        found = horizon.gatherer.begin(parse_query("whale"))
        await found.run()

        names = Counter(row.path.split()[1] for row in found.rows())
        assert set(names) == {"one", "two"}
        assert min(names.values()) >= MAX_FILES // 2
        assert found.partial(len(found.rows())) == (
            f"{len(found.rows()):,} of 10,000 results: more words find others"
        )


@pytest.mark.parametrize("has_more", [True, False])
async def test_a_page_that_does_not_go_on_is_the_end(tmp_path, has_more):
    async with open_horizon(tmp_path) as horizon:
        liar = horizon.add("liar", **many(61))
        liar.cut = 25
        horizon.answer_page = lambda holder, wanted: Listing(
            tuple(holder.matches("whale", None)[:25]), has_more
        )

        assert len(await horizon.ls("whale")) == 25
        assert horizon.pages == ["whale 00025"]


async def test_who_does_not_answer_for_more_is_counted(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("near", **many(61)).cut = 50

        def unreachable(holder, wanted):
            raise UnreachableError("nobody answers")

        horizon.answer_page = unreachable
        assert len(await horizon.ls("whale")) == 50
        assert horizon.results.partial("whale") == "50 of 61 results: more words find others"


async def test_who_is_alone_is_told_that_nobody_has_answered(autojump_clock, tmp_path):
    async with open_horizon(tmp_path) as horizon:
        found = horizon.gatherer.begin(parse_query("whale"))
        horizon.is_alone = True
        await found.run()
        assert found.partial(0) == "nobody has answered"
        horizon.is_alone, horizon.is_cut_short = False, True
        horizon.add("one", other=(1, 1))
        await found.run()
        assert found.partial(0) == "not everybody has answered in time"


async def test_a_total_that_nobody_can_have_is_bounded(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        liar = horizon.add("liar", whale=(1, 1))
        hit = liar.hit("whale", None)
        liar.hit = lambda text, terms: replace(hit, total=2**32 - 1)
        horizon.answer_page = lambda holder, wanted: Listing((), has_more=True)

        assert await horizon.ls("whale") == ["whale"]
        assert horizon.results.partial("whale") is None


async def test_a_name_costs_nothing_until_it_is_listed(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        assert isinstance(horizon.results.known("whale"), RemoteDirectory)
        for name in ("folder.jpg", "HEAD", "desktop.ini", ".git", ".hidden", "a", "-", "new\nline"):
            assert horizon.results.known(name) is Knowledge.ABSENT
            assert horizon.results.known(f"{name}/x") is Knowledge.ABSENT
            assert await horizon.ls(name) == []

        assert horizon.asked == []


async def test_a_result_that_was_never_listed_is_searched_for(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("near", whale=(1, 1))

        assert isinstance(await horizon.stat("wha/whale"), RemoteFile)
        assert await horizon.stat("wha/other") is Knowledge.ABSENT
        assert await horizon.stat("wha/whale/below") is Knowledge.ABSENT
        assert horizon.asked == ["wha"]


async def test_who_asks_the_same_at_once_shares_one_search(tmp_path, autojump_clock: MockClock):
    async with open_horizon(tmp_path) as horizon:
        horizon.far_after_s = 1
        horizon.add("far", is_far=True, whale=(1, 1))
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(horizon.ls, "whale")
                nursery.start_soon(horizon.stat, "whale/whale")

        assert horizon.asked == ["whale"]


async def test_the_first_look_shows_what_has_come_and_a_later_one_the_rest(
    tmp_path, autojump_clock: MockClock
):
    async with open_horizon(tmp_path) as horizon:
        horizon.far_after_s = 3
        horizon.add("near", whale_one=(1, 1))
        horizon.add("far", is_far=True, whale_two=(1, 2))

        assert await horizon.ls("whale") == ["whale one"]
        assert trio.current_time() == FIRST_LISTING_S
        assert isinstance(horizon.results.known("whale/whale one"), RemoteFile)
        assert trio.current_time() == FIRST_LISTING_S
        await trio.sleep(2)
        assert await horizon.ls("whale") == ["whale one", "whale two"]
        assert horizon.asked == ["whale"]


async def test_a_search_ends_when_it_has_found_enough(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        files = {f"whale_{number}": (1, number) for number in range(MAX_FILES)}
        horizon.add("near", **files)
        horizon.add("as near", **{f"other_{path}": told for path, told in files.items()})
        horizon.add("far", is_far=True, last_whale=(1, 1))

        found = await horizon.ls("whale")

        assert len(found) == MAX_FILES
        assert "last whale" not in found


@pytest.mark.parametrize("is_far", [False, True])
@pytest.mark.parametrize("looks", [1, 2])
async def test_one_link_can_neither_end_a_search_nor_fill_the_folder(
    tmp_path, autojump_clock: MockClock, is_far: bool, looks: int
):
    async with open_horizon(tmp_path) as horizon:
        for liar in range(25):
            fakes = {f"whale_{liar:02}_{n:02}": (1, 100 + 50 * liar + n) for n in range(50)}
            horizon.add(f"liar {liar}", **fakes).link = "one neighbour"
        if looks == 2:
            assert len(await horizon.ls("whale")) == MAX_FILES
            await trio.sleep(SEARCH_AGAIN_S + 1)
        horizon.add("honest", is_far=is_far, the_whale=(1, 1))
        await horizon.ls("whale")
        await trio.sleep(1)

        found = await horizon.ls("whale")

        assert len(found) == MAX_FILES
        assert "the whale" in found


async def test_old_results_are_shown_and_asked_for_again_behind(
    tmp_path, autojump_clock: MockClock
):
    async with open_horizon(tmp_path) as horizon:
        near = horizon.add("near", whale_one=(1, 1), whale_two=(1, 2))
        await horizon.ls("whale")
        near.files = {"whale three": (1, 3)}
        await trio.sleep(SEARCH_AGAIN_S - 1)
        assert await horizon.ls("whale") == ["whale one", "whale two"]
        await trio.sleep(2)
        assert horizon.asked == ["whale"]  # nobody has looked

        assert await horizon.ls("whale") == ["whale one", "whale two"]
        await trio.sleep(0.1)
        assert await horizon.ls("whale") == ["whale three"]
        assert horizon.asked == ["whale"] * 2


async def test_what_was_not_heard_again_stays_unless_everybody_has_answered(
    tmp_path, autojump_clock: MockClock
):
    async with open_horizon(tmp_path) as horizon:
        near = horizon.add("near", whale_one=(1, 1))
        await horizon.ls("whale")
        near.files = {"whale two": (1, 2)}
        horizon.is_cut_short = True
        await trio.sleep(SEARCH_AGAIN_S + 1)
        await horizon.ls("whale")
        await trio.sleep(0.1)

        assert await horizon.ls("whale") == ["whale one", "whale two"]


async def test_with_nobody_to_ask_what_is_known_stays(tmp_path, autojump_clock: MockClock):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("near", whale=(1, 1))
        await horizon.ls("whale")
        horizon.is_alone = True
        await trio.sleep(10 * SEARCH_AGAIN_S)

        assert await horizon.ls("whale") == ["whale"]
        await trio.sleep(1)
        assert await horizon.ls("whale") == ["whale"]
        assert await horizon.ls("shark") == []
        horizon.is_alone = False
        horizon.near[0].files["shark"] = (1, 2)
        assert await horizon.ls("shark") == ["shark"]  # that nobody answered was no answer


async def test_who_looks_waits_for_the_first_search_and_no_other(
    tmp_path, autojump_clock: MockClock
):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("near", whale=(1, 1))
        await horizon.ls("whale")
        await trio.sleep(2 * SEARCH_AGAIN_S)

        await horizon.ls("whale")
        await trio.sleep(0.1)

        assert horizon.urgencies == [Urgency.PERSON, Urgency.REFRESH]


async def test_who_has_left_the_network_knows_no_results(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("near", whale=(1, 1))
        horizon.results.keep("whale")
        await horizon.ls("whale")

        horizon.results.all_left()
        horizon.is_alone = True

        assert await horizon.ls("whale") == []
        assert horizon.results.kept() == ["whale"]


async def test_too_many_searches_at_once_are_said_to_be(tmp_path, autojump_clock: MockClock):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("near", whale=(1, 1))
        await horizon.ls("whale")
        horizon.is_over_budget = True

        with pytest.raises(NotAskedError, match="try again in 3 s"):
            await horizon.ls("shark")
        await trio.sleep(2 * SEARCH_AGAIN_S)
        assert await horizon.ls("whale") == ["whale"]
        await trio.sleep(1)
        assert await horizon.ls("whale") == ["whale"]


async def test_searches_not_looked_at_are_forgotten(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("near", whale=(1, 1))
        await horizon.ls("whale")
        for number in range(MAX_SEARCHES):
            await horizon.ls(f"whale -{number}")

        assert horizon.results.known_children("whale") is Knowledge.UNKNOWN
        assert len(horizon.results._searches) == MAX_SEARCHES


async def test_who_waits_while_the_servent_ends_is_told_so(tmp_path, autojump_clock: MockClock):
    horizon = Horizon(tmp_path)
    horizon.far_after_s = 1
    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        await nursery.start(horizon.results.run)

        async def wait() -> None:
            with pytest.raises(ShutdownError):
                await horizon.results.list("whale")

        outer.start_soon(wait)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    with pytest.raises(ShutdownError):
        await horizon.results.list("whale")


# Names and sizes.


async def test_of_two_contents_of_one_name_the_one_known_first_has_it(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        for number, name in enumerate(("first", "second", "third"), 1):
            horizon.add(name, whale=(1, number))
        horizon.add("fourth", whale=(1, 3))

        assert await horizon.ls("whale") == ["whale", "whale~02000000", "whale~03000000"]
        assert (await horizon.stat("whale/whale")).file_id == file_id(1)


async def test_a_name_is_that_of_a_servent_that_we_chose(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("stranger", whale=(1, 1))
        friend = horizon.add("friend", whale=(1, 2))
        horizon.chosen[friend.info.id] = ("10.0.0.0/24", "10.0.0.2/32")

        assert await horizon.ls("whale") == ["whale", "whale~01000000"]
        assert (await horizon.stat("whale/whale")).file_id == file_id(2)


async def test_a_name_stays_though_its_content_is_found_later_the_next_time(
    tmp_path, autojump_clock: MockClock
):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("one", whale=(1, 1))
        horizon.add("two", whale=(1, 2))
        await horizon.ls("whale")
        horizon.near.reverse()
        await trio.sleep(SEARCH_AGAIN_S + 1)
        await horizon.ls("whale")
        await trio.sleep(0.1)

        assert horizon.asked == ["whale"] * 2
        assert (await horizon.stat("whale/whale")).file_id == file_id(1)


async def test_the_name_of_an_open_file_is_no_other_ones(tmp_path, autojump_clock: MockClock):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("one", whale=(1, 1))
        await horizon.ls("whale")
        release = horizon.results.hold(await horizon.stat("whale/whale"))
        friend = horizon.add("friend", whale=(1, 2))
        horizon.chosen[friend.info.id] = ("10.0.0.0/24", "10.0.0.2/32")

        async def again() -> FileId:
            await trio.sleep(SEARCH_AGAIN_S + 1)
            await horizon.ls("whale")
            await trio.sleep(0.1)
            return (await horizon.stat("whale/whale")).file_id

        assert await again() == file_id(1)
        release()
        assert await again() == file_id(2)


async def test_one_content_under_many_paths_is_one_file_as_the_first_describes_it(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("one", whale_b=(1, 1))
        horizon.add("two", whale_a=(1, 1))
        horizon.add("three", whale_a=(1, 1))

        assert await horizon.ls("whale") == ["whale b"]
        assert len((await horizon.stat("whale/whale b")).sources) == 3


async def test_a_false_size_is_found_out_before_a_file_is_shown(tmp_path):
    manifest = Manifest(1, bytes(32))
    async with open_horizon(tmp_path) as horizon:
        horizon.add("liar").files["whale"] = (99, manifest.file_id)
        horizon.add("honest").files["whale"] = (1, manifest.file_id)
        horizon.manifests[manifest.file_id] = manifest.to_bytes()
        await horizon.ls("whale")

        assert (await horizon.stat("whale/whale")).size == 1
        assert await horizon.ls("whale") == ["whale"]


async def test_sizes_that_nobody_can_settle_are_two_files(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        horizon.add("one", whale=(99, 1))
        horizon.add("two", whale=(1, 1))
        await horizon.ls("whale")

        assert (await horizon.stat("whale/whale")).size == 99
        assert (await horizon.stat("whale/whale~01000000")).size == 1


# What is kept.


async def test_kept_searches_survive_a_restart_and_their_results_do_not(tmp_path):
    async with open_horizon(tmp_path) as horizon:
        horizon.results.keep('"blue whale" -ext:txt')
        horizon.results.keep("shark")
        horizon.results.keep("Haie ö")
        horizon.results.drop("shark")

        again = horizon.new_results()
        assert again.kept() == ['"blue whale" -ext:txt', "Haie ö"]
        assert horizon.kept_path.stat().st_mode & 0o777 == 0o600


def test_what_is_no_search_is_not_kept(tmp_path):
    results = Horizon(tmp_path).results
    for text in ("", "a", "folder.jpg", ".hidden", "size:1M", "a b\nc d", "w" * 256):
        with pytest.raises(QueryError):
            results.keep(text)
    with pytest.raises(KeyError):
        results.drop("whale")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"whale\n\n.hidden\na\nsize:1M\n"])
def test_a_damaged_file_of_kept_searches_is_no_failure(tmp_path, content, expect_log):
    expect_log("kept searches not read")
    (tmp_path / "searches").write_bytes(content)

    assert list(Horizon(tmp_path).results.kept()) in ([], ["whale"])


def test_no_more_than_a_folder_full_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(results_module, "MAX_KEPT", 2)
    results = Horizon(tmp_path).results
    results.keep("one")
    results.keep("two")

    with pytest.raises(OSError, match="too many") as caught:
        results.keep("three")
    assert caught.value.errno == errno.ENOSPC
