"""Whoever fills memory and results with made-up names loses his own first, and nobody else's."""

from __future__ import annotations

import itertools
import sys

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import UnreachableError
from p2pfs.journal import Journal
from p2pfs.namespace import Catalogue, Here, Tellers, claims, gathering, listing
from p2pfs.namespace.ages import LEAST_LOOK_S, REFRESH_AFTER_S
from p2pfs.namespace.ends import UNENDED_NAMES
from p2pfs.namespace.entries import ENTRY_BYTES
from p2pfs.namespace.listing import LEARNED_AT_ONCE
from p2pfs.namespace.newcomers import MOVES_BURST
from p2pfs.namespace.nodes import RemoteFile
from p2pfs.namespace.partials import TOLD_EVERY_S, Partial, Partials
from p2pfs.protocol import (
    Address,
    Entry,
    Identity,
    LinkKind,
    Listing,
    PeerInfo,
    ServentId,
    sign_hit,
)
from p2pfs.protocol.messages import (
    MAX_PAGES_ASKED,
    MAX_RESULTS,
    Ping,
    Pong,
    Query,
    QueryKind,
)
from tests.helpers.rogues import RawPeer
from tests.helpers.world import PORT, World, host, open_world
from tests.namespace.test_browser import PAGE, Holder, Horizon, endless, open_horizon

LIAR_HOST, HONEST_HOST = "10.66.6.6", "10.0.0.7"
MOST = 2_000
NAME_BYTES = ENTRY_BYTES + sys.getsizeof("1000")
NUMBERS = itertools.count(1)


def peer(name: str) -> PeerInfo:
    return PeerInfo(ServentId(f"{next(NUMBERS):a>32}".translate(DIGITS)), name, ())


DIGITS = str.maketrans("0123456789", "abcdefghij")


def files(directory: str, count: int) -> list[Entry]:
    return [
        Entry(f"{directory}/{number}", 1, 1, next(NUMBERS).to_bytes(32, "big"))
        for number in range(count)
    ]


class Memory:
    """A catalogue that holds little, and who answers for what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(claims, "MAX_CLAIMS_BYTES", MOST * NAME_BYTES)
        monkeypatch.setattr(claims, "MAX_ENTRIES_PER_SOURCE", MOST)
        self.tellers = Tellers()
        self.catalogue = Catalogue(Here(groups_of=self.tellers.groups_of))

    def learn(self, source: PeerInfo, entries: list[Entry], told_by: str) -> None:
        self.tellers.told(ServentId(source.id), told_by)
        for one in entries:
            self.catalogue.learn(source, [one])

    def held(self, entries: list[Entry]) -> int:
        return sum(isinstance(self.catalogue.shown.lookup(e.path, 0), RemoteFile) for e in entries)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    return Memory(monkeypatch)


@pytest.mark.parametrize("identities", [1, 40], ids=["one", "forty of one address"])
def test_the_entries_of_the_largest_go_first(memory: Memory, identities: int):
    for number in range(identities):
        made_up = files(f"bomb{number}", 2 * MOST // identities)
        memory.learn(peer("liar"), made_up, LIAR_HOST)

    honest = files("honest", MOST // 4)
    memory.learn(peer("honest"), honest, HONEST_HOST)

    assert memory.held(honest) == len(honest)
    assert memory.catalogue.left_out > MOST // 4


def test_what_is_honest_stays_whatever_comes_after(memory: Memory):
    honest = files("honest", MOST // 4)
    memory.learn(peer("honest"), honest, HONEST_HOST)

    for number in range(40):
        memory.learn(peer("liar"), files(f"bomb{number}", MOST // 4), LIAR_HOST)

    assert memory.held(honest) == len(honest)


def test_who_has_proved_its_id_does_not_answer_for_its_neighbour(memory: Memory):
    honest = peer("honest")
    names = files("honest", MOST // 4)
    memory.tellers.proved(ServentId(honest.id), HONEST_HOST)
    memory.learn(honest, names, LIAR_HOST)

    for number in range(60):
        memory.learn(peer("liar"), files(f"bomb{number}", MOST // 20), LIAR_HOST)

    assert memory.held(names) == len(names)


def test_one_address_holds_no_more_than_one_servent_may(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claims, "MAX_ENTRIES_PER_SOURCE", MOST // 4)
    told = [files(f"bomb{number}", 50) for number in range(40)]
    for some in told:
        memory.learn(peer("liar"), some, LIAR_HOST)

    assert sum(map(memory.held, told)) <= MOST // 4 + 60


def test_a_directory_that_lost_names_is_not_taken_for_whole(memory: Memory):
    liar = peer("liar")
    memory.learn(liar, files("bomb", MOST), LIAR_HOST)
    memory.catalogue.holders.mark_listed("bomb", -1.0)
    partials = Partials(memory.catalogue, Journal())
    assert partials.of("bomb") is None

    memory.learn(peer("honest"), files("honest", 10), HONEST_HOST)

    lost = partials.of("bomb")
    assert lost is not None
    assert lost.is_doubtful
    assert partials.directories() == ["bomb"]


def test_that_names_made_room_is_said_once_in_a_while(memory: Memory):
    journal = Journal()
    partials = Partials(memory.catalogue, journal)
    memory.learn(peer("liar"), files("bomb", MOST), LIAR_HOST)
    for number in range(10):
        memory.learn(peer("honest"), files(f"honest{number}", MOST // 10), HONEST_HOST)
        partials.note(f"honest{number}", TOLD_EVERY_S * number / 9, Partial())

    texts = [event.text for event in journal.events()]
    assert len(texts) == 2
    assert " names of others made room for more, lately in bomb: " in texts[0]


def bomb(horizon: Horizon, number: int, host: str) -> Holder:
    """Add a neighbour whose root has no end, of names that nobody else has."""
    one = horizon.add(f"bomb {number}", *(f"{number} {name}" for name in range(60)))
    horizon.tellers.proved(ServentId(one.id), host)
    endless(one, [], count=PAGE, begin=f"{number}-")
    return one


def add_honest(horizon: Horizon, *paths: str) -> Holder:
    honest = horizon.add("honest", *paths)
    horizon.tellers.proved(ServentId(honest.id), HONEST_HOST)
    return honest


@pytest.fixture
def few_shared(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let a directory that several have show 10,000 names, to save time."""
    monkeypatch.setattr(claims, "MAX_SHARED_NAMES", 10_000)
    return 10_000


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> int:
    """Take 20,000 names of a servent for a listing without end, to save time."""
    monkeypatch.setattr(listing, "MAX_NAMES", 20_000)
    return 20_000


@pytest.mark.parametrize(
    ("bombs", "hosts"), [(1, 1), (10, 1), (10, 10)], ids=["one", "ten of one address", "ten"]
)
async def test_listings_without_end_show_few_names_of_each_address(
    bombs: int, hosts: int, autojump_clock: MockClock, short_lists: int
):
    async with open_horizon() as horizon:
        add_honest(horizon, *(f"film {number}" for number in range(40)))
        for number in range(bombs):
            bomb(horizon, number, f"10.66.{number % hosts}.6")

        shown = await horizon.ls()

        assert (
            len(shown)
            <= 40 + hosts * (claims.NAMES_AT_FIRST + LEARNED_AT_ONCE) + bombs * MAX_RESULTS
        )
        assert {f"film {number}" for number in range(40)} <= {*shown}
        assert horizon.browser.partial("") == "there are more names than are held"


async def test_a_listing_without_end_is_counted_once_for_all_at_its_address(
    autojump_clock: MockClock, short_lists: int
):
    async with open_horizon() as horizon:
        add_honest(horizon, "film")
        await horizon.ls()
        pages = []
        for number in range(5):
            liar = bomb(horizon, number, LIAR_HOST)
            endless(liar, pages, count=PAGE, begin=f"{number}-")
            horizon.browser.comings.joined(liar.id)
            await horizon.ls()
            await trio.sleep(10)

        counted = short_lists // PAGE
        assert counted <= len(pages) <= counted + 5 * 3 * MAX_PAGES_ASKED


async def test_what_was_told_before_others_had_names_is_no_more_than_a_few_at_the_end(
    autojump_clock: MockClock, short_lists: int
):
    async with open_horizon() as horizon:
        liar = bomb(horizon, 0, LIAR_HOST)
        tell, honest = liar.list, []

        def page(path: str, after: str) -> Listing:
            if after > "0-00001" and not honest:
                honest.append(add_honest(horizon, "film"))
                horizon.catalogue.learn(honest[0].info, honest[0].entries(""))
            return tell(path, after)

        liar.list = page
        await horizon.ls()
        await trio.sleep(1)

        shown = await horizon.ls()

        assert "film" in shown
        assert len(shown) <= 1 + claims.NAMES_AT_FIRST + MAX_RESULTS


@pytest.mark.parametrize(("bombs", "hosts"), [(10, 1), (10, 10)], ids=["one address", "ten"])
async def test_listings_without_end_leave_hardly_a_name_in_later_looks(
    bombs: int, hosts: int, autojump_clock: MockClock, short_lists: int
):
    async with open_horizon() as horizon:
        add_honest(horizon, *(f"film {number}" for number in range(40)))
        for number in range(bombs):
            bomb(horizon, number, f"10.66.{number % hosts}.6")
        await horizon.ls()
        await trio.sleep(60)
        await horizon.ls()
        await trio.sleep(60)

        shown = await horizon.ls()

        assert {f"film {number}" for number in range(40)} <= {*shown}
        assert len(shown) <= 40 + 2 * UNENDED_NAMES


async def test_who_tells_without_end_again_is_counted_more_and_more_seldom(
    autojump_clock: MockClock, short_lists: int
):
    async with open_horizon() as horizon:
        add_honest(horizon, "film")
        pages: list[float] = []
        endless(bomb(horizon, 0, LIAR_HOST), pages, count=PAGE, begin="0-")
        for _ in range(300):
            await horizon.ls()
            await trio.sleep(60)

        counted = short_lists // PAGE
        assert counted < len(pages) <= 6 * counted + 300 / 5 * 3 * MAX_PAGES_ASKED


async def test_liars_who_tell_all_share_a_directory_that_others_have(
    autojump_clock: MockClock, few_shared: int
):
    async with open_horizon() as horizon:
        add_honest(horizon, "film")
        for number in range(10):
            names = (f"{number} {name:05}" for name in range(few_shared // 2))
            liar = horizon.add(f"liar {number}", *names)
            horizon.tellers.proved(ServentId(liar.id), LIAR_HOST)

        shown = await horizon.ls()

        assert "film" in shown
        assert len(shown) <= 1 + few_shared + 10 * PAGE


async def test_a_long_directory_of_one_servent_is_seen_whole(
    autojump_clock: MockClock, few_shared: int
):
    async with open_horizon() as horizon:
        many = [f"long/{number:05}" for number in range(few_shared + 1_000)]
        add_honest(horizon, *many)
        horizon.tellers.proved(ServentId(horizon.add("other", "x").id), "10.0.3.1")

        await horizon.ls()
        assert await horizon.ls("long") == many


async def test_two_that_have_many_in_one_directory_are_both_seen_whole(
    autojump_clock: MockClock, few_shared: int
):
    async with open_horizon() as horizon:
        own = [[f"long/{who} {n:05}" for n in range(few_shared // 2)] for who in range(2)]
        for number, names in enumerate(own):
            one = horizon.add(f"honest {number}", *names)
            horizon.tellers.proved(ServentId(one.id), f"10.0.{number}.1")

        await horizon.ls()
        assert await horizon.ls("long") == sorted(own[0] + own[1])
        assert horizon.browser.partial("long") is None


@pytest.mark.parametrize("is_mute", [True, False], ids=["mute", "without end"])
async def test_who_comes_again_and_again_holds_up_no_look(is_mute: bool, autojump_clock: MockClock):
    async with open_horizon() as horizon:
        add_honest(horizon, "film")
        assert await horizon.ls() == ["film"]
        waited_s = []
        for number in range(20):
            liar = bomb(horizon, number, LIAR_HOST)
            liar.wait_s = 1.0
            horizon.is_unfinished = is_mute
            horizon.browser.comings.joined(liar.id)
            for _ in range(10):
                began_at = trio.current_time()
                assert "film" in await horizon.ls()
                waited_s.append(trio.current_time() - began_at)
                await trio.sleep(0.1)
            horizon.leave(liar)
            horizon.is_unfinished = False
            horizon.browser.comings.lost(liar.id)

        assert max(waited_s) == pytest.approx(LEAST_LOOK_S)
        assert sum(waited_s) <= 2 * LEAST_LOOK_S


async def test_who_comes_and_breaks_off_fails_no_look(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        add_honest(horizon, "film")
        assert await horizon.ls() == ["film"]
        liar = bomb(horizon, 0, LIAR_HOST)
        tell = liar.list

        def break_off(path: str, after: str) -> Listing:
            if after:
                raise UnreachableError("it hangs up")
            return tell(path, after)

        liar.list = break_off
        await trio.sleep(1)
        horizon.browser.comings.joined(liar.id)

        assert "film" in await horizon.ls()
        assert horizon.browser.partial("") == "not all was told by 'bomb 0'"


async def test_who_comes_and_goes_without_end_uses_up_no_searches(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        add_honest(horizon, "film")
        for number in range(300):
            liar = horizon.add(f"stranger {number}")
            horizon.tellers.proved(ServentId(liar.id), LIAR_HOST)
            horizon.browser.comings.joined(liar.id)
            assert await horizon.ls() == ["film"]
            horizon.leave(liar)
            horizon.browser.comings.lost(liar.id)
            await trio.sleep(1 / 30)

        refreshed = 10 / REFRESH_AFTER_S
        assert len(horizon.queries) <= MOVES_BURST + 2 * refreshed + 1


async def test_who_says_changed_again_and_again_holds_up_no_look(autojump_clock: MockClock):
    async with open_horizon() as horizon:
        add_honest(horizon, "film")
        waited_s = []
        for number in range(20):
            liar = horizon.add(f"crier {number}", "x")
            horizon.tellers.proved(ServentId(liar.id), LIAR_HOST)
            liar.wait_s = 1_000.0
            await horizon.ls()
            for _ in range(10):
                horizon.browser.comings.changed(liar.id)
                began_at = trio.current_time()
                assert "film" in await horizon.ls()
                waited_s.append(trio.current_time() - began_at)
                await trio.sleep(0.2)
            horizon.leave(liar)
            horizon.browser.comings.left(liar.id)

        assert sum(waited_s) == pytest.approx(LEAST_LOOK_S)


async def fakes(world: World, from_host: str, hits: int) -> None:
    """Be a neighbour of the first servent that makes up files for each question."""
    network = world.net.host(from_host)
    rogue = await RawPeer.dial(network, Address(host(0), PORT), LinkKind.NEIGHBOUR)
    while True:
        message, number = await rogue.receive()
        if isinstance(message, Ping):
            await rogue.send(Pong(), number)
        if isinstance(message, Query) and message.kind is QueryKind.WORDS:
            for _ in range(hits):
                identity = Identity.generate()
                entries = [
                    Entry(f"treasure map {next(NUMBERS)}", 1, 1, next(NUMBERS).to_bytes(32, "big"))
                    for _ in range(50)
                ]
                info = PeerInfo(identity.id, "nobody", ())
                await rogue.send(
                    sign_hit(identity, message.guid, message.ttl, info, entries, len(entries))
                )


async def test_a_thousand_fakes_hide_nobody(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world, trio.open_nursery() as nursery:
        await world.start(max_neighbours=8)
        await world.start(joins=[0], max_neighbours=2)
        await world.linked(1, 1)
        await world.start(joins=[1], max_neighbours=1)
        await world.linked(1, 2, 1)
        await world.share(2, "old/treasure map.txt", b"X")
        nursery.start_soon(fakes, world, LIAR_HOST, 25)
        await world.linked(2, 2, 1)
        await trio.sleep(70)

        for _look in range(2):
            names = {node.path for node in await world[0].results.list("treasure map")}
            assert len(names) == gathering.MAX_FILES
            assert any(name.endswith("treasure map.txt") for name in names)
            await trio.sleep(60)
        nursery.cancel_scope.cancel()
