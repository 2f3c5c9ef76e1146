"""Names that are kept: they are those that would be worked out anew, whatever has changed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.namespace import nodes as nodes_module
from p2pfs.namespace import showing as showing_module
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.nodes import Node, RemoteFile
from p2pfs.namespace.places import Place
from p2pfs.namespace.showing import DIRECTORIES_KEPT, Here
from p2pfs.namespace.sources import Sources
from p2pfs.protocol import Entry, FileId, PeerInfo, ServentId
from tests.helpers.upstream import peer

PEERS = [peer(number) for number in range(4)]
LONG = "\N{WHALE}" * 61 + ".mkv"
LONGER = "\N{WHALE}" * 62
NAMES = ["x", "x.mkv", "y", "x~dir", "x~01000000", "x~0100000000000000", "x~01000000.mkv", LONG]
NAMES += [LONGER, LONGER[:-3] + "~01000000", "x~01000000~02000000", LONG[:58] + "~01000000.mkv"]
"""Names that are those of versions of others, or are cut."""

IDS = [FileId(number.to_bytes(32, "little")) for number in (1, 2, 1 + 256**5, 1 + 256**12)]
"""Ids that begin alike."""


def history(random: Random) -> Iterator[tuple]:
    """Yield what happens in a directory, and where somebody looks after each step."""
    names = random.choices(NAMES, weights=[6, 2, 1, 2, *[1] * 8], k=random.randint(1, 3))

    def path() -> str:
        return random.choice(names) + "/x" * (random.random() < 0.1)

    def file() -> Entry:
        return Entry(path(), random.randint(1, 2), 0, random.choice(IDS))

    def entry() -> Entry:
        return file() if random.random() < 0.8 else Entry(path(), 0, 0, b"")

    def some() -> list[PeerInfo]:
        return random.sample(PEERS, random.randint(0, 2))

    def step() -> tuple:
        match random.choice([*["learn"] * 5, *["open"] * 2, *["close"] * 2, *OTHER_STEPS]):
            case "learn" | "list" as what:
                return what, random.choice(PEERS), [entry() for _ in range(random.randint(1, 3))]
            case "leave":
                return "leave", random.choice(PEERS)
            case "forget":
                return "forget", random.choice(PEERS), path()
            case "end":
                return "end", random.choice(["", path()]), some()
            case "keep":
                return "keep", file()
            case "drop":
                return "drop", path()
            case "choose":
                return "choose", some()
            case "whole" | "prove" as what:
                return what, random.choice(IDS)
            case what:
                return what, random.randint(0, 3)

    def look() -> tuple:
        suffixed = f"{random.choice(names)}~{random.choice(IDS).hex()[:8]}"
        looks = [("look", random.choice(names)), ("look", suffixed), ("ls", ""), ("ls", path())]
        return random.choice([*looks, ("all",)])

    for _ in range(40):
        yield step()
        yield look()
    yield ("all",)
    yield ("ls", "")


OTHER_STEPS = [
    "list",
    "leave",
    "forget",
    "end",
    "keep",
    "drop",
    "choose",
    "whole",
    "whole",
    "prove",
]


class Servent:
    """A catalogue, and what it depends on."""

    def __init__(self, directories_kept: int) -> None:
        self.chosen: dict = {}
        self.whole: set[FileId] = set()
        here = Here(is_whole=self.whole.__contains__, chosen=lambda: self.chosen)
        self.catalogue = Catalogue(here)
        self.catalogue._showing._kept.limit = directories_kept
        self.releases: list[Callable[[], None]] = []

    def do(self, step) -> object:
        """Take a step; return what is seen of it."""
        catalogue = self.catalogue
        match step:
            case "learn", who, entries:
                catalogue.learn(who, entries)
            case "list", who, entries:
                catalogue.learn_listing(who, "", [one for one in entries if "/" not in one.path])
            case "leave", who:
                catalogue.forget(who.id)
            case "forget", who, path:
                catalogue.forget_path(who.id, path)
            case "end", path, kept:
                catalogue.keep_only(path, [who.id for who in kept])
            case "keep", entry:
                catalogue.kept.put(entry)
            case "drop", path:
                catalogue.kept.drop(path)
            case "open", number:
                files = [n for n in catalogue.shown.children("") if isinstance(n, RemoteFile)]
                self.releases += map(catalogue.shown.hold, files[number : number + 1])
            case "close", number:
                for release in self.releases[number : number + 1]:
                    release()
                del self.releases[number : number + 1]
            case "choose", some:
                self.chosen = {who.id: ("net", who.name) for who in some}
            case "whole", one:
                self.whole ^= {one}
            case "prove", one:
                catalogue.offers.prove(one, 1)
            case "look", path:
                return catalogue.shown.look(path, 0)
            case "ls", path:
                return catalogue.shown.children(path)
            case ("all",):
                nodes = catalogue.shown.children("")
                for node in nodes:
                    self.check_sources(node)
                return [catalogue.shown.look(node.path, 0) for node in nodes]
        return None

    def check_sources(self, node: Node) -> None:
        """Check who has what is shown against what each servent says of some published name."""
        entry = self.catalogue.holders.entry
        content = (node.size, node.file_id) if isinstance(node, RemoteFile) else (0, b"")

        def holders_at(published: str) -> set[ServentId]:
            told = {who.id: entry(who.id, published) for who in PEERS}
            return {one for one, e in told.items() if e and (e.size, e.file_id) == content}

        published = self.catalogue._tree.root.children
        assert {who.id for who in node.sources} in [holders_at(name) for name in published]


@given(st.integers(0))
def test_names_that_are_kept_are_those_that_would_be_worked_out_anew(seed: int):
    keeping, working = Servent(DIRECTORIES_KEPT), Servent(0)
    done = []
    for step in history(Random(seed)):
        done.append(step)
        assert keeping.do(step) == working.do(step), done


# What a look costs, counted.


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the versions of each name were asked for."""
    asked: Counter[str] = Counter()
    versions = Place.versions

    def counted(self: Place):
        asked[self.name] += 1
        return versions(self)

    monkeypatch.setattr(Place, "versions", counted)
    return asked


def alike(servents: int, names: int) -> Catalogue:
    """Return what is known where each servent has its own content under each name."""
    catalogue = Catalogue()
    for number in range(servents):
        ids = (bytes([number, name]) * 16 for name in range(names))
        entries = [Entry(f"d/{name}.txt", 5, 0, one) for name, one in enumerate(ids)]
        catalogue.learn(peer(number), entries)
    return catalogue


def test_a_look_at_names_that_many_have_works_out_nothing_that_is_known(asked: Counter[str]):
    catalogue = alike(servents=20, names=5)
    nodes = catalogue.shown.children("d")
    asked.clear()

    assert [catalogue.shown.lookup(node.path, 0) for node in nodes] == nodes
    assert catalogue.shown.children("d") == nodes
    for node in nodes:
        catalogue.shown.hold(node)()

    assert len(nodes) == 20 * 5
    assert not asked


def test_a_change_of_one_name_has_no_other_worked_out_anew(asked: Counter[str]):
    catalogue = alike(servents=20, names=5)
    catalogue.shown.children("d")
    catalogue.learn(peer(21), [Entry("d/3.txt", 5, 0, bytes(32)), Entry("d/new", 5, 0, bytes(32))])
    asked.clear()

    assert len(catalogue.shown.children("d")) == 20 * 5 + 2
    catalogue.shown.lookup("d/3.txt", 0)

    assert asked == {"3.txt": 1}


def test_a_thousand_sizes_of_one_id_are_named_in_the_time_that_they_take(
    monkeypatch: pytest.MonkeyPatch,
):
    """Each of a thousand liars may announce another size; all want the same names."""
    tried = []
    may_have = nodes_module._may_have
    monkeypatch.setattr(nodes_module, "_may_have", lambda *args: tried.append(1) or may_have(*args))
    catalogue = Catalogue()
    for size in range(1, 1_001):
        catalogue.learn(peer(size), [Entry("x", size, 0, IDS[0])])

    shown = [node.path for node in catalogue.shown.children("")]

    assert len(shown) == 1_000
    assert f"x~{IDS[0].hex()}~992" in shown
    assert len(tried) < 12 * 1_000


def test_names_that_are_cut_stand_only_in_the_way_of_those_that_begin_alike(asked: Counter[str]):
    """A title in an East Asian language soon has 172 bytes, and a directory has thousands."""
    catalogue = Catalogue()
    titles = [f"{number:02}" + "\N{WHALE}" * 60 for number in range(50)]
    for who, number in itertools.product((1, 2), range(50)):
        catalogue.learn(peer(who), [Entry(titles[number], 5, 0, bytes([who, number]) * 16)])
    asked.clear()

    assert isinstance(catalogue.shown.lookup(titles[0], 0), RemoteFile)
    assert asked.keys() == {titles[0]}
    assert len(catalogue.shown.children("")) == 100
    assert max(asked.values()) <= 3


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(showing_module, "NAMES_KEPT", 40)
    catalogue = alike(servents=20, names=5)
    for node in catalogue.shown.children("d"):
        assert catalogue.shown.lookup(node.path, 0) == node
        [kept] = catalogue._showing._kept.values()
        assert len(kept.names.shown) <= 40 + 20


def test_a_name_that_is_held_for_what_is_gone_is_no_other_version_s():
    catalogue = Catalogue()
    catalogue.learn(peer(1), [Entry("x", 5, 0, IDS[1])])
    catalogue.learn(peer(2), [Entry("x", 5, 0, IDS[0])])
    second = catalogue.shown.children("")[1]
    catalogue.shown.hold(second)
    for who in (1, 2):
        catalogue.forget(peer(who).id)

    catalogue.learn(peer(3), [Entry(second.path, 6, 0, IDS[2])])

    assert second.path == "x~01000000"
    assert [node.path for node in catalogue.shown.children("")] == ["x~01000000~01000000"]


def test_a_look_at_what_many_have_goes_through_none_of_them(monkeypatch: pytest.MonkeyPatch):
    """All of a crowd may have the same files in the same directory."""
    catalogue = Catalogue()
    for number in range(20):
        catalogue.learn(peer(number), [Entry("d/x", 5, 0, IDS[0])])
    nodes = [catalogue.shown.lookup(path, 0) for path in ("d", "d/x")]
    asked = []
    infos = Sources.infos
    monkeypatch.setattr(Sources, "infos", lambda *args: asked.append(1) or infos(*args))

    assert [catalogue.shown.lookup(path, 0) for path in ("d", "d/x")] == nodes
    assert catalogue.shown.children("d") == nodes[1:]

    assert [len(node.sources) for node in nodes] == [20, 20]
    assert not asked
    renamed = PeerInfo(peer(3).id, "new name", ())
    catalogue.learn(renamed, ())
    assert renamed in catalogue.shown.lookup("d/x", 0).sources


def test_of_one_content_under_two_names_the_one_that_is_shown_is_held():
    catalogue = Catalogue()
    catalogue.learn(peer(1), [Entry("x~dir", 5, 0, IDS[0]), Entry("x~dir", 5, 0, IDS[0])])
    catalogue.kept.put(Entry("x~dir/y", 5, 0, IDS[1]))
    catalogue.learn(peer(2), [Entry("x", 5, 0, IDS[0])])
    before = catalogue.shown.children("")

    catalogue.shown.hold(before[-1])

    assert [node.path for node in before] == ["x", "x~dir", "x~dir~01000000"]
    assert catalogue.shown.children("") == before
    assert [catalogue.shown.lookup(node.path, 0) for node in before] == before
