"""What `peers/` shows: who is there, under which name, and what each of them has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from p2pfs.errors import NoSourceError, ShutdownError, StalledError, UnreachableError
from p2pfs.namespace.ages import FIRST_LISTING_S, REFRESH_AFTER_S
from p2pfs.namespace.browser import Browser
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.confided import Confided
from p2pfs.namespace.listing import Listings, Telling
from p2pfs.namespace.nodes import Knowledge, Node, RemoteDirectory, RemoteFile
from p2pfs.namespace.peers import (
    MAX_RESERVED,
    RESERVED_S,
    SIGHTED_S,
    UNLISTABLE_S,
    Folders,
    Shares,
)
from p2pfs.protocol import Address, Entry, Listing, PeerInfo, ServentId, names
from p2pfs.tasks import Tasks

ID = bytes(range(32))


def peer(name: str, letter: str = "a") -> PeerInfo:
    return PeerInfo(ServentId(letter * 32), name, (Address("10.0.0.2", 4774),))


class Peers:
    """Those within reach, as a `Horizon`: who is there answers at once."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.files: dict[PeerInfo, dict[str, bytes]] = {}
        self.neighbours: list[PeerInfo] = []
        self.unreachable: set[PeerInfo] = set()
        self.limited: dict[PeerInfo, set[str]] = {}
        """Names in the root of each that no search finds."""
        self.slow_s = 0.0
        self.silent_s = 0.0
        """How long it takes after each page that is not the last."""
        self.changed: dict[ServentId, float] = {}
        self.floods = 0
        self.lists: list[tuple[str, str]] = []
        self.looked_at: float | None = None
        self.tasks = Tasks()
        self.confided = Confided(self.catalogue)
        self.listings = Listings(
            self.catalogue, self._list_pages, self.tasks, trio.current_time, self.confided
        )
        self.shares = Shares(
            self.catalogue,
            self,
            neighbours=lambda: self.neighbours,
            clock=trio.current_time,
            confided=self.confided,
        )

    def add(self, info: PeerInfo, *paths: str, is_far: bool = False) -> PeerInfo:
        self.files[info] = dict.fromkeys(paths, ID)
        if not is_far:
            self.neighbours.append(info)
        return info

    def leave(self, info: PeerInfo) -> None:
        del self.files[info]
        if info in self.neighbours:
            self.neighbours.remove(info)

    # The horizon.

    def may_show(self, path: str) -> bool:
        assert path == ""
        return not self.neighbours or self.looked_at is not None

    async def list(self, path: str) -> Sequence[Node]:
        assert path == ""
        self.floods += 1
        await trio.lowlevel.checkpoint()
        self.looked_at = trio.current_time()
        for info in self.files:
            if self._is_found(info):
                self.catalogue.learn(info, ())
        self.catalogue.keep_only("", [info.id for info in self.files if self._is_found(info)])
        return ()

    def _is_found(self, info: PeerInfo) -> bool:
        names = {path.partition("/")[0] for path in self.files[info]}
        return info not in self.unreachable and bool(names - self.limited.get(info, set()))

    def age(self, path: str) -> float:
        return float("inf") if self.looked_at is None else trio.current_time() - self.looked_at

    def changed_at(self, info: ServentId) -> float:
        return self.changed.get(info, float("-inf"))

    def ask_one(self, holder: PeerInfo, path: str, *, is_for_all: bool) -> Telling:
        return self.listings.start(holder, path, is_for_all=is_for_all)

    async def _list_pages(self, holder: PeerInfo, path: str, after: str, take) -> None:
        self.lists.append((holder.name, path))
        await trio.sleep(self.slow_s)
        if holder in self.unreachable:
            raise UnreachableError("nobody answers")
        entries = [e for e in self._entries(holder, path) if e.path.rpartition("/")[2] > after]
        take(
            Listing(
                tuple(entries[:PAGE]),
                has_more=len(entries) > PAGE,
                limited=tuple(self.limited.get(holder, ())),
            )
        )
        if len(entries) > PAGE:
            await trio.sleep(self.silent_s)

    def _entries(self, holder: PeerInfo, directory: str) -> list[Entry]:
        prefix = f"{directory}/" if directory else ""
        found = {}
        for path, file_id in self.files[holder].items():
            if path.startswith(prefix):
                name, slash, _ = path.removeprefix(prefix).partition("/")
                found[prefix + name] = Entry(
                    prefix + name, 0 if slash else 1, 1, b"" if slash else file_id
                )
        return [found[path] for path in sorted(found)]

    # What a user does.

    async def ls(self, path: str = "") -> list[str]:
        known = self.shares.known_children(path)
        nodes = await self.shares.list(path) if isinstance(known, Knowledge) else known
        return [node.path for node in nodes]

    async def stat(self, path: str) -> Node | None:
        known = self.shares.known(path)
        if known is Knowledge.UNKNOWN:
            return await self.shares.find(path)
        return None if isinstance(known, Knowledge) else known


@asynccontextmanager
async def open_peers() -> AsyncIterator[Peers]:
    peers = Peers()
    async with trio.open_nursery() as nursery:
        await nursery.start(peers.tasks.run)
        await nursery.start(peers.shares.run)
        yield peers
        nursery.cancel_scope.cancel()


PAGE = 500
ANNA, BEN = peer("anna"), peer("ben", "b")


# Who is there.


async def test_everybody_known_has_a_folder():
    async with open_peers() as peers:
        peers.add(ANNA)  # who shares nothing, but is a neighbour
        peers.add(BEN, "x", is_far=True)

        assert await peers.ls() == ["anna", "ben"]
        assert isinstance(await peers.stat("anna"), RemoteDirectory)
        assert await peers.stat("nobody") is None
        assert peers.floods == 1


async def test_a_look_at_a_name_of_nobody_names_nobody_again(monkeypatch: pytest.MonkeyPatch):
    """Programs look up names everywhere, and there may be thousands of peers."""
    async with open_peers() as peers:
        peers.add(ANNA)
        assert await peers.ls() == ["anna"]
        named = []
        of = Folders.of
        monkeypatch.setattr(Folders, "of", lambda *args: named.append(1) or of(*args))

        for number in range(9):
            assert peers.shares.known(f"nobody {number}") is Knowledge.ABSENT
        assert not named
        peers.add(BEN)
        assert isinstance(peers.shares.known("ben"), RemoteDirectory)
        cora = peer("cora", "c")
        peers.catalogue.learn(cora, ())
        assert peers.shares.known("cora") == RemoteDirectory("cora", 0, (cora,))
        assert len(named) == 2


async def test_who_is_named_without_a_look_around_is_found():
    async with open_peers() as peers:
        peers.add(ANNA)
        peers.add(BEN, "d/x", is_far=True)

        assert isinstance(await peers.stat("ben/d/x"), RemoteFile)


async def test_who_has_gone_is_not_shown_for_longer_than_a_dead_peer(autojump_clock: MockClock):
    async with open_peers() as peers:
        peers.add(ANNA, "x")
        peers.add(BEN, "x", is_far=True)
        assert await peers.ls() == ["anna", "ben"]
        peers.leave(BEN)
        await trio.sleep(SIGHTED_S + 1)

        assert await peers.stat("ben") is None
        assert await peers.ls() == ["anna"]
        assert await peers.ls("ben") == []


async def test_a_neighbour_that_is_gone_is_not_shown():
    async with open_peers() as peers:
        peers.add(ANNA, "x")
        peers.add(BEN)
        await peers.ls()
        peers.leave(BEN)

        assert await peers.ls() == ["anna"]


async def test_without_neighbours_what_was_known_stays(autojump_clock: MockClock):
    async with open_peers() as peers:
        peers.add(ANNA, "d/x")
        await peers.ls()
        await peers.ls("anna")
        await peers.ls("anna/d")
        peers.neighbours.clear()
        peers.unreachable.add(ANNA)
        peers.looked_at = None
        await trio.sleep(10 * SIGHTED_S)
        began_at = trio.current_time()

        assert await peers.ls() == ["anna"]
        assert await peers.ls("anna") == ["anna/d"]
        assert isinstance(await peers.stat("anna/d/x"), RemoteFile)
        assert await peers.stat("nobody") is None
        assert (trio.current_time(), peers.floods) == (began_at, 1)


async def test_who_shows_something_to_us_alone_is_not_absent_because_no_search_finds_it(
    autojump_clock: MockClock,
):
    async with open_peers() as peers:
        peers.add(ANNA, "d/x")
        peers.limited[ANNA] = {"d"}
        peers.add(BEN, "x")
        assert await peers.ls("anna") == ["anna/d"]
        assert await peers.ls("anna/d") == ["anna/d/x"]
        peers.neighbours.remove(ANNA)
        peers.unreachable.add(ANNA)
        await trio.sleep(SIGHTED_S + 1)
        await peers.list("")

        assert await peers.ls() == ["anna", "ben"]
        assert isinstance(await peers.stat("anna/d/x"), RemoteFile)
        with pytest.raises(NoSourceError):
            await peers.stat("anna/d/y")
        peers.confided.catalogue.forget(ANNA.id)
        assert await peers.stat("anna/d/x") is None
        assert await peers.ls() == ["ben"]


# What they have.


async def test_a_folder_holds_what_its_peer_alone_has(autojump_clock: MockClock):
    async with open_peers() as peers:
        peers.add(ANNA, "same", "d/x")
        peers.add(BEN, "same", "d/y")
        peers.files[BEN]["same"] = bytes(32)

        assert await peers.ls("anna") == ["anna/d", "anna/same"]
        assert await peers.ls("anna/d") == ["anna/d/x"]
        assert await peers.ls("ben/d") == ["ben/d/y"]
        files = [await peers.stat("anna/same"), await peers.stat("ben/same")]
        assert [file.file_id for file in files] == [ID, bytes(32)]
        assert [file.sources for file in files] == [(ANNA,), (BEN,)]


async def test_a_listing_that_ends_while_a_name_is_looked_up_makes_it_known(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    """The kernel's threads look names up while listings end on another."""
    async with open_peers() as peers:
        peers.add(ANNA, "d/x")
        await peers.ls("anna/d")
        peers.files[ANNA]["d/new"] = ID

        def listed_meanwhile(_: ServentId) -> float:
            peers.catalogue.learn_listing(ANNA, "d", peers._entries(ANNA, "d"))
            peers.catalogue.holders.mark_listed_by(ANNA.id, "d", trio.current_time())
            return float("-inf")

        monkeypatch.setattr(peers, "changed_at", listed_meanwhile)
        assert isinstance(peers.shares.known("anna/d/new"), RemoteFile)


async def test_no_peer_is_asked_for_a_name_that_cannot_be_published():
    async with open_peers() as peers:
        peers.add(ANNA, "films/x")

        assert await peers.shares.find("anna/caf\udce9.mp3") is None
        assert peers.lists == []


async def test_what_was_listed_is_shown_at_once_and_asked_for_again_behind(
    autojump_clock: MockClock,
):
    async with open_peers() as peers:
        peers.add(ANNA, "x", "y")
        assert await peers.ls("anna") == ["anna/x", "anna/y"]
        peers.files[ANNA] = {"z": ID}
        assert await peers.ls("anna") == ["anna/x", "anna/y"]
        assert await peers.stat("anna/z") is None
        await trio.sleep(REFRESH_AFTER_S + 1)
        assert peers.lists == [("anna", "")]

        assert await peers.ls("anna") == ["anna/x", "anna/y"]
        await trio.sleep(0.1)
        assert await peers.ls("anna") == ["anna/z"]
        assert peers.lists == [("anna", "")] * 2


async def test_what_a_neighbour_publishes_is_shown_at_the_next_look(autojump_clock: MockClock):
    async with open_peers() as peers:
        peers.add(ANNA, "x")
        await peers.ls("anna")
        await trio.sleep(0.5)
        peers.files[ANNA]["y"] = ID
        peers.changed[ANNA.id] = trio.current_time()
        await trio.sleep(0.1)

        assert isinstance(await peers.stat("anna/y"), RemoteFile)
        assert await peers.ls("anna") == ["anna/x", "anna/y"]


async def test_who_asks_the_same_at_once_shares_one_listing(autojump_clock: MockClock):
    async with open_peers() as peers:
        peers.add(ANNA, "x")
        peers.slow_s = 1
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(peers.ls, "anna")
                nursery.start_soon(peers.stat, "anna/x")

        assert peers.lists == [("anna", "")]


async def test_who_cannot_be_listed_is_not_asked_by_each_who_looks(autojump_clock: MockClock):
    async with open_peers() as peers:
        peers.add(ANNA, "x")
        peers.unreachable.add(ANNA)
        for _ in range(10):
            with pytest.raises(NoSourceError):
                await peers.ls("anna")
            with pytest.raises(NoSourceError):
                await peers.stat("anna/x")
        assert peers.lists == [("anna", "")]

        peers.unreachable.clear()
        await trio.sleep(UNLISTABLE_S)
        assert await peers.ls("anna") == ["anna/x"]


async def test_a_slow_peer_is_waited_for_a_moment_and_its_answer_kept(autojump_clock: MockClock):
    async with open_peers() as peers:
        peers.add(ANNA, "x")
        peers.slow_s = 3
        with pytest.raises(StalledError):
            await peers.ls("anna")
        assert trio.current_time() == FIRST_LISTING_S
        await trio.sleep(3)

        assert await peers.ls("anna") == ["anna/x"]
        assert peers.lists == [("anna", "")]


async def test_a_long_listing_is_whole_however_long_it_takes(autojump_clock: MockClock):
    async with open_peers() as peers:
        names = [f"{number:05}" for number in range(5_000)]
        peers.add(ANNA, *names)
        peers.slow_s = 1

        assert await peers.ls("anna") == [f"anna/{name}" for name in names]
        assert trio.current_time() >= 5_000 / PAGE


async def test_what_a_peer_does_not_tell_to_its_end_is_no_listing(autojump_clock: MockClock):
    async with open_peers() as peers:
        peers.add(ANNA, *[f"{number:05}" for number in range(5_000)])
        peers.silent_s = 1_000

        with pytest.raises(StalledError):
            await peers.ls("anna")
        with pytest.raises(StalledError):
            await peers.stat("anna/04999")
        assert isinstance(await peers.stat("anna/00000"), RemoteFile)


async def test_what_a_peer_told_before_is_shown_while_it_is_silent(autojump_clock: MockClock):
    async with open_peers() as peers:
        peers.add(ANNA, "x")
        await peers.ls("anna")
        await trio.sleep(1)
        peers.slow_s = 1_000
        peers.changed[ANNA.id] = trio.current_time()

        assert await peers.ls("anna") == ["anna/x"]
        with pytest.raises(StalledError):
            await peers.stat("anna/y")


async def test_a_peer_that_comes_back_is_listed_anew(autojump_clock: MockClock):
    async with open_peers() as peers:
        peers.add(ANNA, "x")
        await peers.ls("anna")
        peers.catalogue.forget(ANNA.id)
        peers.files[ANNA] = {"y": ID}

        assert await peers.ls("anna") == ["anna/y"]


async def test_who_waits_while_the_servent_ends_is_told_so(autojump_clock: MockClock):
    peers = Peers()
    peers.add(ANNA, "x")
    peers.slow_s = 1
    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        await nursery.start(peers.tasks.run)
        await nursery.start(peers.shares.run)

        async def wait() -> None:
            with pytest.raises(ShutdownError):
                await peers.shares.list("anna")

        outer.start_soon(wait)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()


def test_a_browser_is_such_a_horizon():
    for name in ("may_show", "list", "age", "changed_at", "ask_one"):
        assert callable(getattr(Browser, name))


# Names.


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("anna", "anna"),
        ("Änne Müller", "Änne Müller"),
        ("a/b", "a_b"),
        ("..", "_."),
        (".hidden", "_hidden"),
        ("x\x1b[31m\n", "x_[31m_"),
        ("exe\N{RIGHT-TO-LEFT OVERRIDE}gpj", "exe_gpj"),
        ("e\N{COMBINING ACUTE ACCENT}", "é"),
        ("  spaced ", "spaced"),
        ("", "aaaaaaaa"),
        ("   ", "aaaaaaaa"),
        ("Desktop.ini", "aaaaaaaa"),
    ],
)
def test_a_name_is_made_safe(name, folder) -> None:
    assert list(Folders().of([peer(name)], 0)) == [folder]


def test_who_came_first_keeps_a_name_also_when_gone_for_a_while() -> None:
    folders = Folders()
    real, other = peer("anna", "b"), peer("anna", "a")

    assert folders.of([real], 0) == {"anna": real}
    both = {"anna": real, "anna~aaaaaaaa": other}
    assert folders.of([real, other], 1) == both
    assert folders.of([other], 2) == {"anna~aaaaaaaa": other}
    assert folders.of([real, other], RESERVED_S) == both
    assert folders.owner("anna") == real.id
    folders.of([], 3 * RESERVED_S)
    assert folders.of([other], 3 * RESERVED_S) == {"anna": other}


def test_of_many_that_are_gone_those_seen_last_keep_their_names() -> None:
    folders = Folders()
    known = peer("known", "k")
    folders.of([known], 0)
    for number in range(MAX_RESERVED + 10):
        stranger = PeerInfo(ServentId(f"{number:a>32}"), f"stranger {number}", ())
        folders.of([stranger, known], number / 1_000)

    assert folders.owner("known") == known.id
    assert folders.owner("stranger 8") is None
    assert folders.owner("stranger 9") is not None
    everybody = [PeerInfo(ServentId(f"{n:b>32}"), f"friend {n}", ()) for n in range(MAX_RESERVED)]
    assert len(folders.of([*everybody, known], 10)) == MAX_RESERVED + 1


def test_a_peer_that_is_renamed_gets_another_folder() -> None:
    folders = Folders()
    folders.of([peer("anna")], 0)

    assert folders.of([peer("bella")], 1) == {"bella": peer("bella")}
    assert folders.owner("anna") is None


@given(
    st.dictionaries(
        st.sampled_from("abcdefgh"),
        st.one_of(
            st.text(max_size=64),
            st.sampled_from(["x", "x~aaaaaaaa", f"x~{'a' * 32}", "x~2", "\N{WHALE}" * 64]),
        ),
    ),
    st.randoms(),
)
def test_every_peer_has_one_folder_that_stays(told: dict[str, str], random) -> None:
    infos = [peer(name, letter) for letter, name in told.items()]
    folders = Folders()

    first = folders.of(infos, 0)

    assert sorted(p.id for p in first.values()) == sorted(p.id for p in infos)
    assert all(names.check_label(folder) is None for folder in first)
    random.shuffle(infos)
    assert folders.of(infos, 1) == first
