"""The catalogue: one union of what many servents say."""

from __future__ import annotations

import contextlib
import gc
import sys
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pfs.namespace import asked as asked_module
from p2pfs.namespace import claims as claims_module
from p2pfs.namespace import entries as entries_module
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.disputes import Disputes
from p2pfs.namespace.fading import FORGOTTEN_AT_ONCE
from p2pfs.namespace.nodes import Knowledge, RemoteDirectory, RemoteFile
from p2pfs.namespace.showing import Here
from p2pfs.namespace.shown import NAMES_AT_ONCE
from p2pfs.protocol import Address, Entry, FileId, PeerInfo, ServentId


def peer(letter: str) -> PeerInfo:
    return PeerInfo(ServentId(letter * 32), letter, (Address("10.0.0.1", 4774),))


A, B, C = peer("a"), peer("b"), peer("c")


def file_id(number: int) -> FileId:
    return FileId(bytes([number]) * 32)


def file(path: str, content: int = 1, mtime_ns: int = 5) -> Entry:
    return Entry(path, content * 100, mtime_ns, file_id(content))


def directory(path: str, mtime_ns: int = 7) -> Entry:
    return Entry(path, 0, mtime_ns, b"")


def shown(catalogue: Catalogue, path: str = "") -> list[str]:
    return [node.path for node in catalogue.shown.children(path)]


@contextlib.contextmanager
def traced_bytes() -> Iterator[Callable[[], int]]:
    """Tell how much memory what is done meanwhile has taken and not given back."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: taken
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_same_content_anywhere_is_one_file_with_many_sources():
    catalogue = Catalogue()
    catalogue.learn(A, [file("films/x.mkv")])
    catalogue.learn(B, [file("films/x.mkv", mtime_ns=9)])

    node = catalogue.shown.lookup("films/x.mkv", 0)

    assert node == RemoteFile("films/x.mkv", 100, 5, file_id(1), (A, B))
    assert shown(catalogue, "films") == ["films/x.mkv"]


def test_directories_above_a_file_are_known_with_it():
    catalogue = Catalogue()
    catalogue.learn(A, [file("a/b/c.txt")])

    assert shown(catalogue) == ["a"]
    assert catalogue.shown.lookup("a/b", 0) == RemoteDirectory("a/b", 0, (A,))
    assert catalogue.holders.of("a") == (A,)


# Who has which name; the law is in test_nodes.


def names_of(catalogue: Catalogue, path: str = "") -> dict[str, FileId | None]:
    """What is shown in a directory, and that each name is also found by itself."""
    nodes = catalogue.shown.children(path)
    for node in nodes:
        assert catalogue.shown.lookup(node.path, 0) == node
    assert len({node.path for node in nodes}) == len(nodes)
    return {n.path: n.file_id if isinstance(n, RemoteFile) else None for n in nodes}


def test_of_two_contents_the_one_known_first_has_the_plain_name():
    catalogue = Catalogue()
    catalogue.learn(A, [file("x.mkv", 1)])
    for other in (B, C):
        catalogue.learn(other, [file("x.mkv", 2)])

    assert names_of(catalogue) == {"x.mkv": file_id(1), "x~02020202.mkv": file_id(2)}


def test_servents_that_we_chose_give_a_name_and_count_once_for_each_network():
    chosen = {B.id: ("net", "1")}
    catalogue = Catalogue(Here(chosen=lambda: chosen))
    catalogue.learn(A, [file("x", 1)])
    catalogue.learn(B, [file("x", 2)])
    assert names_of(catalogue)["x"] == file_id(2)

    chosen[A.id] = ("net", "2")  # as many now, and known first
    assert names_of(catalogue)["x"] == file_id(1)
    catalogue.learn(C, [file("x", 2)])
    chosen[C.id] = ("net", "1")
    assert names_of(catalogue)["x"] == file_id(1)
    chosen[C.id] = ("other net", "1")
    assert names_of(catalogue)["x"] == file_id(2)


def test_what_is_whole_in_the_cache_has_the_plain_name():
    catalogue = Catalogue(
        Here(is_whole=lambda i: i == file_id(2), chosen=lambda: {A.id: ("net", "1")})
    )
    catalogue.learn(A, [file("x", 1)])
    catalogue.learn(B, [file("x", 2)])

    assert names_of(catalogue) == {"x": file_id(2), "x~01010101": file_id(1)}


def test_reading_a_version_changes_no_name():
    whole: set[FileId] = set()
    catalogue = Catalogue(Here(is_whole=whole.__contains__))
    catalogue.learn(A, [file("x", 1)])
    catalogue.learn(B, [file("x", 2)])
    assert names_of(catalogue)["x"] == file_id(1)

    whole.add(file_id(2))
    assert names_of(catalogue)["x"] == file_id(1)


@pytest.mark.parametrize("is_looked_at", [True, False])
def test_what_had_the_plain_name_and_is_whole_keeps_it_whoever_comes(is_looked_at):
    whole: set[FileId] = set()
    chosen: dict[ServentId, tuple[str, str]] = {}
    catalogue = Catalogue(Here(is_whole=whole.__contains__, chosen=lambda: chosen))
    catalogue.learn(A, [file("x", 1), file("y", 1)])
    catalogue.learn(C, [file("y", 3)])
    assert not is_looked_at or names_of(catalogue)["x"] == file_id(1)

    whole.add(file_id(1))
    chosen |= {B.id: ("net", "1"), C.id: ("other net", "1")}
    catalogue.learn(B, [file("x", 2)])
    assert names_of(catalogue)["x"] == names_of(catalogue)["y"] == file_id(1)


def test_a_directory_does_not_swallow_a_file_nor_a_file_a_directory():
    catalogue = Catalogue()
    catalogue.learn(A, [file("music", 1), file("films/x", 2)])
    catalogue.learn(B, [file("music/song.ogg", 3), file("films", 4)])

    assert names_of(catalogue) == {
        "films": None,
        "films~04040404": file_id(4),
        "music": file_id(1),
        "music~dir": None,
    }
    assert names_of(catalogue, "music~dir") == {"music~dir/song.ogg": file_id(3)}
    assert names_of(catalogue, "films") == {"films/x": file_id(2)}
    assert catalogue.shown.published("music~dir/song.ogg") == "music/song.ogg"
    assert catalogue.shown.published("unknown~dir/x") == "unknown~dir/x"
    assert catalogue.shown.lookup("music/song.ogg", 0) is Knowledge.ABSENT
    assert catalogue.shown.lookup("music/song.ogg/below", 0) is Knowledge.ABSENT


def test_what_one_servent_says_of_a_name_is_one_thing():
    catalogue = Catalogue()
    catalogue.learn(A, [file("x", 1), file("x/below", 2)])
    assert names_of(catalogue) == {"x": None}

    catalogue.learn(A, [file("x", 1)])
    assert names_of(catalogue) == {"x": file_id(1)}
    assert catalogue.holders.entries(A.id, "") == [file("x", 1)]


def test_a_thief_of_names_gets_none_of_them():
    """A directory with the name of a file, and a file with the name of that file's version."""
    catalogue = Catalogue()
    catalogue.learn(A, [file("film.mkv", 1)])
    catalogue.learn(B, [file("film.mkv/x", 2), file("film~01010101.mkv", 3)])

    assert names_of(catalogue) == {
        "film.mkv": file_id(1),
        "film.mkv~dir": None,
        "film~01010101.mkv": file_id(3),
    }


def test_a_version_is_found_by_its_suffix_though_it_has_the_plain_name():
    catalogue = Catalogue()
    catalogue.learn(A, [file("archive.tar.gz", 1)])
    assert names_of(catalogue) == {"archive.tar.gz": file_id(1)}

    node = catalogue.shown.lookup("archive.tar~01010101.gz", 0)
    assert isinstance(node, RemoteFile)
    assert (node.path, node.file_id) == ("archive.tar~01010101.gz", file_id(1))


# What is open.


def held(catalogue: Catalogue, path: str) -> Callable[[], None]:
    node = catalogue.shown.lookup(path, 0)
    assert isinstance(node, RemoteFile)
    return catalogue.shown.hold(node)


def test_an_open_file_keeps_its_name_and_its_directories_theirs():
    chosen: dict[ServentId, tuple[str, str]] = {}
    catalogue = Catalogue(Here(chosen=lambda: chosen))
    catalogue.learn(A, [file("d/x", 1)])
    release = held(catalogue, "d/x")
    chosen[B.id] = ("net", "1")
    catalogue.learn(B, [file("d/x", 2)])
    catalogue.learn(C, [file("d", 3)])
    chosen[C.id] = ("other net", "1")

    assert names_of(catalogue, "d") == {"d/x": file_id(1), "d/x~02020202": file_id(2)}
    assert names_of(catalogue) == {"d": None, "d~03030303": file_id(3)}
    release()
    assert names_of(catalogue, "d") == {"d/x": file_id(2), "d/x~01010101": file_id(1)}


def test_what_nobody_offers_is_not_shown_but_its_name_is_held_while_it_is_open():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/x", 1)])
    release = held(catalogue, "d/x")
    second = held(catalogue, "d/x")
    catalogue.forget(A.id)
    assert shown(catalogue) == shown(catalogue, "d") == []

    catalogue.learn(B, [file("d/x", 2)])
    release()
    assert names_of(catalogue, "d") == {"d/x~02020202": file_id(2)}
    second()
    assert names_of(catalogue, "d") == {"d/x": file_id(2)}
    catalogue.forget(B.id)
    assert not catalogue._tree.root.children


def test_what_was_opened_by_its_suffix_is_shown_by_it_meanwhile():
    catalogue = Catalogue()
    catalogue.learn(A, [file("x", 1)])
    catalogue.learn(B, [file("x", 2)])

    release = held(catalogue, "x~01010101")
    assert names_of(catalogue) == {"x": file_id(2), "x~01010101": file_id(1)}
    release()
    assert names_of(catalogue) == {"x": file_id(1), "x~02020202": file_id(2)}


# Sizes.


def sized(path: str, size: int, content: int = 1) -> Entry:
    return Entry(path, size, 5, file_id(content))


class Court(list[str]):
    """Who has lied, as the catalogue tells."""

    def __init__(self) -> None:
        self.sizes: dict[FileId, int] = {}
        self.refused: set[ServentId] = set()
        self.catalogue = Catalogue(
            Here(
                size_of=self.sizes.get,
                is_refused=lambda source: source in self.refused,
                on_lie=lambda source: self.append(source[0]),
            )
        )


def test_sizes_of_one_id_never_mix():
    catalogue = Catalogue()
    catalogue.learn(A, [sized("x", 5)])
    catalogue.learn(B, [sized("x", 6), sized("y", 6)])

    nodes = {node.path: node for node in catalogue.shown.children("")}
    assert {p: (n.size, n.sources) for p, n in nodes.items() if isinstance(n, RemoteFile)} == {
        "x": (5, (A,)),
        "x~01010101": (6, (B,)),
        "y": (6, (B,)),
    }
    assert (
        catalogue.offers.sources_of(file_id(1), 5),
        catalogue.offers.sources_of(file_id(1), 6),
    ) == (
        (A,),
        (B,),
    )
    assert catalogue.offers.is_disputed(file_id(1))
    assert catalogue.offers.claimants_of(file_id(1)) == [(A,), (B,)]


def test_what_is_disputed_is_left_out_of_what_may_be_shown_at_once():
    async def fetch(_peer: PeerInfo, _file_id: FileId) -> bytes:
        raise NotImplementedError

    catalogue = Court().catalogue
    disputes = Disputes(catalogue, fetch, lambda: 0.0)
    catalogue.learn(A, [sized("x", 5), sized("y", 5, 2)])
    nodes = catalogue.shown.children("")
    assert list(disputes.left_out(nodes)) == nodes

    catalogue.learn(B, [sized("z", 6)])
    assert [node.path for node in disputes.left_out(catalogue.shown.children(""))] == ["y"]


def test_a_manifest_ends_a_dispute_and_costs_the_liars():
    court = Court()
    catalogue = court.catalogue
    catalogue.learn(A, [sized("x", 6), sized("y", 5, 2)])
    catalogue.learn(B, [sized("x", 5)])
    catalogue.learn(C, [sized("d/x", 7)])
    catalogue.offers.prove(file_id(1), 5)

    assert sorted(court) == ["a", "c"]
    assert shown(catalogue) == ["d", "x", "y"]
    assert shown(catalogue, "d") == []
    assert not catalogue.offers.is_disputed(file_id(1))
    node = catalogue.shown.lookup("x", 0)
    assert isinstance(node, RemoteFile)
    assert (node.size, node.sources) == (5, (B,))


def test_a_claim_that_a_manifest_contradicts_is_not_taken_in():
    court = Court()
    catalogue = court.catalogue
    catalogue.learn(A, [sized("x", 5)])
    court.sizes[file_id(1)] = 5

    assert list(catalogue.learn(B, [sized("x", 6), sized("y", 1, 2)])) == [sized("y", 1, 2)]
    catalogue.learn_listing(C, "", [sized("z", 6), sized("z2", 6)])
    assert shown(catalogue) == ["x", "y"]
    assert court == ["b", "c"]


def test_what_a_manifest_contradicts_goes_when_it_is_told_again():
    court = Court()
    catalogue = court.catalogue
    catalogue.learn(A, [sized("x", 6)])
    court.sizes[file_id(1)] = 5
    catalogue.learn(A, [sized("y", 6)])

    assert shown(catalogue) == []
    assert court == ["a"]


def test_what_is_proved_is_remembered_when_the_content_is_gone():
    court = Court()
    court.catalogue.offers.prove(file_id(1), 5)
    court.catalogue.learn(A, [sized("x", 6)])

    assert (shown(court.catalogue), court) == ([], ["a"])
    assert court.catalogue.offers.believes(RemoteFile("x", 5, 0, file_id(1), ()))
    assert not court.catalogue.offers.believes(RemoteFile("x", 6, 0, file_id(1), ()))


def test_who_is_refused_is_not_heard():
    court = Court()
    court.refused.add(A.id)
    court.catalogue.learn_listing(A, "", [file("x")])

    assert shown(court.catalogue) == []
    assert court.catalogue.holders.all() == ()


def test_a_whole_listing_replaces_what_its_source_had_there_and_no_one_elses():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/old"), file("d/sub/deep"), file("d/kept", 3)])
    catalogue.learn(B, [file("d/old")])

    catalogue.learn_listing(A, "d", [file("d/kept", 3), file("d/new", 4)])

    assert shown(catalogue, "d") == ["d/kept", "d/new", "d/old"]
    old = catalogue.shown.lookup("d/old", 0)
    assert isinstance(old, RemoteFile)
    assert old.sources == (B,)
    assert catalogue.shown.lookup("d/sub/deep", 0) is Knowledge.UNKNOWN


def test_a_directory_that_became_a_file_is_forgotten_with_all_below():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/x/deep")])

    catalogue.learn_listing(A, "d", [file("d/x", 2)])

    assert isinstance(catalogue.shown.lookup("d/x", 0), RemoteFile)
    assert shown(catalogue, "d/x") == []


def test_new_content_at_a_path_replaces_the_old_of_the_same_source():
    catalogue = Catalogue()
    catalogue.learn(A, [file("x", 1)])
    catalogue.learn(A, [file("x", 2)])

    assert shown(catalogue) == ["x"]
    assert catalogue.offers.sources_of(file_id(1), 100) == ()
    assert catalogue.offers.sources_of(file_id(2), 200) == (A,)


def test_a_long_directory_is_shown_in_parts_whatever_changes_meanwhile():
    catalogue = Catalogue()
    names = [f"{number:04}" for number in range(3 * NAMES_AT_ONCE)]
    catalogue.learn(A, [file(f"d/{name}") for name in names])
    catalogue.learn(B, [file("d/0000", 2)])
    assert shown(catalogue, "d") == ["d/0000", "d/0000~02020202", *[f"d/{n}" for n in names[1:]]]

    parts = catalogue.shown.parts("d")
    first = next(parts)
    catalogue.keep_names(A, "d", set(names[: NAMES_AT_ONCE * 2]))
    catalogue.learn(A, [file("d/new")])
    fade(catalogue)
    rest = [node.path for part in parts for node in part]

    assert len(first) == NAMES_AT_ONCE
    assert [node.path for node in first] + rest == [
        "d/0000",
        "d/0000~02020202",
        *[f"d/{name}" for name in names[1 : NAMES_AT_ONCE * 2]],
    ]


def fade(catalogue: Catalogue) -> int:
    """Let all go that is to be forgotten; return in how many parts."""
    parts = 1
    while catalogue.fade():
        parts += 1
    return parts


MANY = [f"d/{number:04}" for number in range(5 * FORGOTTEN_AT_ONCE)]


def forget_all(catalogue: Catalogue) -> None:
    catalogue.forget(A.id)


def forget_a_path(catalogue: Catalogue) -> None:
    catalogue.forget_path(A.id, "d")


def forget_names(catalogue: Catalogue) -> None:
    catalogue.keep_names(A, "d", set())
    catalogue.keep_names(A, "", set())


def forget_who_did_not_answer(catalogue: Catalogue) -> None:
    catalogue.keep_only("", [B.id])


FORGET = [forget_all, forget_a_path, forget_names, forget_who_did_not_answer]


@pytest.mark.parametrize("forget", FORGET)
def test_much_is_forgotten_a_little_at_a_time(forget: Callable[[Catalogue], None]):
    catalogue, calls = Catalogue(), []
    catalogue.on_fading = lambda: calls.append("fading")
    catalogue.learn(A, [file(path) for path in MANY])
    catalogue.learn(B, [file("d/0000"), file("e/x")])

    forget(catalogue)

    left = len(shown(catalogue, "d"))
    assert len(MANY) - 2 * FORGOTTEN_AT_ONCE <= left < len(MANY)
    assert calls
    assert fade(catalogue) >= len(MANY) / FORGOTTEN_AT_ONCE - 2
    assert shown(catalogue, "d") == ["d/0000"]
    assert shown(catalogue) == ["d", "e"]
    assert not catalogue.fade()


def test_what_is_told_again_while_it_is_being_forgotten_stays():
    catalogue = Catalogue()
    catalogue.learn(A, [file(path) for path in MANY])
    catalogue.forget_path(A.id, "d")

    catalogue.learn(A, [file("d/0001"), file("e/x")])
    fade(catalogue)

    assert shown(catalogue, "d") == ["d/0001"]
    assert shown(catalogue) == ["d", "e"]


def test_who_is_back_while_it_is_being_forgotten_has_what_it_had():
    catalogue = Catalogue()
    catalogue.learn(A, [file(path) for path in MANY])
    catalogue.forget(A.id)
    left = shown(catalogue, "d")

    catalogue.learn(A, [file("x")])
    fade(catalogue)

    assert shown(catalogue, "d") == left
    catalogue.learn_listing(A, "d", [file("d/new")])
    fade(catalogue)
    assert shown(catalogue, "d") == ["d/new"]


def test_what_others_tell_under_a_name_that_is_being_forgotten_stays():
    catalogue = Catalogue()
    catalogue.learn(A, [file(path) for path in MANY])
    catalogue.keep_names(A, "d", set())
    catalogue.learn(B, [file(path) for path in MANY])

    fade(catalogue)

    assert shown(catalogue, "d") == MANY
    node = catalogue.shown.lookup(MANY[0], 0)
    assert isinstance(node, RemoteFile)
    assert node.sources == (B,)


def test_one_servent_may_offer_three_hundred_thousand_files():
    assert claims_module.MAX_ENTRIES_PER_SOURCE >= 300_000
    name_bytes = sys.getsizeof("x" * 25)
    held_bytes = 300_000 * (entries_module.ENTRY_BYTES + name_bytes)
    assert held_bytes <= claims_module.MAX_CLAIMS_BYTES


def test_who_leaves_takes_all_its_names_along():
    catalogue = Catalogue()
    catalogue.learn(A, [file("a/only-a"), file("both")])
    catalogue.learn(B, [file("both")])

    catalogue.forget(A.id)

    assert shown(catalogue) == ["both"]
    assert catalogue.holders.all() == (B,)


def test_a_complete_answer_drops_those_who_did_not_answer():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/a"), file("e/a")])
    catalogue.learn(B, [file("d/b")])

    catalogue.keep_only("d", [B.id])

    assert shown(catalogue, "d") == ["d/b"]
    assert shown(catalogue, "e") == ["e/a"]


# Times.


def mtime(catalogue: Catalogue, path: str) -> int:
    node = catalogue.shown.lookup(path, 0)
    assert not isinstance(node, Knowledge)
    return node.mtime_ns


def test_a_time_in_the_future_becomes_now_once_and_stays():
    clock = iter([1000, 2000, 3000, 4000])
    catalogue = Catalogue(now_ns=lambda: next(clock))
    for _ in range(2):
        catalogue.learn(A, [file("x", mtime_ns=2**63 - 1)])
        catalogue.learn(A, [directory("d", mtime_ns=5000)])

        assert (mtime(catalogue, "x"), mtime(catalogue, "d")) == (1000, 2000)


def test_a_new_content_with_a_time_in_the_future_gets_a_time_of_its_own():
    clock = iter([1000, 2000])
    catalogue = Catalogue(now_ns=lambda: next(clock))
    catalogue.learn(A, [file("x", 1, mtime_ns=5000)])
    catalogue.learn(A, [file("x", 2, mtime_ns=5000)])

    assert mtime(catalogue, "x") == 2000


def test_a_time_before_1970_is_a_time_as_any():
    catalogue = Catalogue()
    catalogue.learn(A, [file("x", mtime_ns=-5), directory("d", mtime_ns=-7)])

    assert (mtime(catalogue, "x"), mtime(catalogue, "d")) == (-5, -7)


def test_absent_names_are_believed_until_their_time_or_better_news():
    catalogue = Catalogue()
    catalogue.remember_absent("x", until=10)

    assert catalogue.shown.lookup("x", 9) is Knowledge.ABSENT
    assert catalogue.shown.lookup("x", 11) is Knowledge.UNKNOWN
    catalogue.learn(A, [file("x")])
    assert isinstance(catalogue.shown.lookup("x", 9), RemoteFile)


def test_expiring_forgets_when_but_not_what():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/x")])
    catalogue.holders.mark_listed("", 5)
    catalogue.holders.mark_listed("d", 5)
    catalogue.remember_absent("d/y", until=100)

    catalogue.expire(100.0)

    assert catalogue.holders.listed_at("") is None
    assert catalogue.holders.listed_at("d") is None
    assert catalogue.shown.lookup("d/y", 6) is Knowledge.UNKNOWN
    assert shown(catalogue, "d") == ["d/x"]


def test_one_source_cannot_fill_the_catalogue(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claims_module, "MAX_ENTRIES_PER_SOURCE", 3)
    catalogue = Catalogue()

    catalogue.learn(A, [file(f"{n}") for n in range(5)])
    catalogue.learn(B, [file("b")])

    assert shown(catalogue) == ["0", "1", "2", "b"]
    assert catalogue.dropped == 2


def test_all_sources_together_cannot_go_over_the_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claims_module, "MAX_CLAIMS_BYTES", 2 * entries_module.ENTRY_BYTES)
    catalogue = Catalogue()

    catalogue.learn(A, [file("a"), file("b")])
    catalogue.learn(B, [file("c")])

    assert shown(catalogue) == ["a", "b"]
    catalogue.forget(A.id)
    catalogue.learn(B, [file("c")])
    assert shown(catalogue) == ["c"]


def test_absent_names_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asked_module, "MAX_ABSENT", 2)
    catalogue = Catalogue()
    for name in ("a", "b", "c"):
        catalogue.remember_absent(name, until=10)

    assert catalogue.shown.lookup("a", 0) is Knowledge.UNKNOWN
    assert catalogue.shown.lookup("c", 0) is Knowledge.ABSENT


PATHS = st.sampled_from(["x", "y", "d", "d/x", "d/y", "d/e/x", "x~01010101", "d~dir", "d~dir/x"])
PEERS = st.sampled_from([A, B, C])
FILES = st.builds(sized, PATHS, st.sampled_from([100, 200]), st.integers(1, 3))
ENTRIES = FILES | st.builds(directory, PATHS)
STEPS = st.one_of(
    st.tuples(st.just("learn"), PEERS, ENTRIES),
    st.tuples(st.just("forget"), PEERS),
    st.tuples(st.just("forget path"), PEERS, PATHS),
    st.tuples(st.just("keep only"), st.sampled_from(["", "d", "x"]), st.lists(PEERS, max_size=2)),
    st.tuples(st.just("list"), PEERS, st.sampled_from(["", "d"]), st.lists(ENTRIES, max_size=3)),
    st.tuples(st.just("keep"), FILES),
    st.tuples(st.just("let go"), PATHS),
    st.tuples(st.just("hold"), st.integers(0, 9)),
    st.tuples(st.just("release"), st.integers(0, 9)),
    st.tuples(st.just("prove"), st.integers(1, 3)),
)


class Model:
    """What each servent has, told in the simplest way: its entries by path."""

    def __init__(self) -> None:
        self.shares: dict[str, dict[str, Entry]] = defaultdict(dict)
        self.proved: set[bytes] = set()

    def is_false(self, entry: Entry) -> bool:
        return entry.file_id in self.proved and entry.size != 100

    def learn(self, who: str, entry: Entry) -> None:
        if self.is_false(entry):
            return
        share = self.shares[who]
        labels = entry.path.split("/")
        for depth in range(1, len(labels)):
            above = "/".join(labels[:depth])
            if above not in share or not share[above].is_directory:
                share[above] = Entry(above, 0, 0, b"")
        if not (entry.is_directory and entry.path in share and share[entry.path].is_directory):
            self.forget(who, entry.path)
        share[entry.path] = entry

    def forget(self, who: str, path: str) -> None:
        gone = [p for p in self.shares[who] if not path or p == path or p.startswith(path + "/")]
        for one in gone:
            del self.shares[who][one]

    def forget_but(self, who: str, directory: str, names: set[str]) -> None:
        for path in [*self.shares[who]]:
            parent, _, name = path.rpartition("/")
            if parent == directory and name not in names:
                self.forget(who, path)

    def let_go(self, path: str) -> None:
        self.forget("", path)
        parent = path.rpartition("/")[0]
        kept = self.shares[""]
        is_directory = parent in kept and kept[parent].is_directory
        if is_directory and not any(p.startswith(parent + "/") for p in kept):
            self.let_go(parent)

    def prove(self, file_id: FileId) -> None:
        self.proved.add(file_id)
        self.drop_false(file_id)

    def drop_false(self, file_id: bytes) -> None:
        for share in self.shares.values():
            for path, entry in [*share.items()]:
                if entry.file_id == file_id and self.is_false(entry):
                    del share[path]

    def published(self) -> Counter[tuple[str, bytes, int]]:
        """Every version of every path, once however many have it."""
        told = (one for share in self.shares.values() for one in share.items())
        return Counter({(path, entry.file_id, entry.size) for path, entry in told})


def every_version(catalogue: Catalogue, directory: str = "") -> Counter[tuple[str, bytes, int]]:
    """All that is shown, by the paths as published."""
    found: Counter[tuple[str, bytes, int]] = Counter()
    names_of(catalogue, directory)
    for node in catalogue.shown.children(directory):
        if isinstance(node, RemoteFile):
            parent = catalogue.shown.published(directory)
            name = node.path.rpartition("/")[2]
            version = catalogue._showing.names(catalogue._tree.place(parent)).holder(name)
            found[f"{parent}/{version.name}".lstrip("/"), node.file_id, node.size] += 1
        else:
            found[catalogue.shown.published(node.path), b"", 0] += 1
            found += every_version(catalogue, node.path)
    return found


def assert_all_shown(catalogue: Catalogue, model: Model) -> None:
    """Every version is shown once; one that is a copy of another in its directory with it."""
    shown, published = every_version(catalogue), model.published()
    assert all(count == 1 for count in shown.values())
    assert {*shown} <= {*published}
    contents = {(path.rpartition("/")[0], *content) for path, *content in shown}
    for path, *content in published - shown:
        assert content[0]
        assert (path.rpartition("/")[0], *content) in contents


def test_a_copy_under_the_name_of_a_version_is_one_file_with_it():
    catalogue = Catalogue()
    catalogue.learn(A, [file("x", 1)])
    catalogue.learn(B, [file("x", 2)])
    catalogue.learn(C, [file("x~02020202", 2)])

    assert names_of(catalogue) == {"x": file_id(1), "x~02020202": file_id(2)}
    catalogue.forget(B.id)
    assert names_of(catalogue) == {"x": file_id(1), "x~02020202": file_id(2)}


@given(st.lists(STEPS, max_size=30))
@example(steps=[("keep", sized("d/e/x", 200, 1)), ("prove", 1), ("let go", "d/e/x")])
@example(steps=[("keep", sized("d/x", 200, 1)), ("prove", 1), ("let go", "d/e/x")])
def test_whatever_is_told_every_version_has_one_name_and_all_can_be_forgotten(steps):
    catalogue, model = Catalogue(), Model()
    releases: list[Callable[[], None]] = []
    for step in steps:
        match step:
            case "learn", who, entry:
                catalogue.learn(who, [entry])
                model.learn(who.id, entry)
            case "forget", who:
                catalogue.forget(who.id)
                model.forget(who.id, "")
            case "forget path", who, path:
                catalogue.forget_path(who.id, path)
                model.forget(who.id, path)
            case "keep only", path, kept:
                catalogue.keep_only(path, [who.id for who in kept])
                for who in {A, B, C} - {*kept}:
                    model.forget(who.id, path)
            case "list", who, path, entries:
                here = [e for e in entries if e.path.rpartition("/")[0] == path]
                catalogue.learn_listing(who, path, here)
                for entry in here:
                    model.learn(who.id, entry)
                if path:
                    model.learn(who.id, directory(path, 0))
                good = [entry for entry in here if not model.is_false(entry)]
                model.forget_but(who.id, path, {e.path.rpartition("/")[2] for e in good})
            case "keep", entry:
                catalogue.kept.put(entry)
                model.learn("", entry)
            case "let go", path:
                catalogue.kept.drop(path)
                model.let_go(path)
            case "hold", number:
                files = [n for n in catalogue.shown.children("d") if isinstance(n, RemoteFile)]
                releases += [catalogue.shown.hold(node) for node in files[number : number + 1]]
            case "release", number:
                for release in releases[number : number + 1]:
                    release()
                del releases[number : number + 1]
            case "prove", content:
                catalogue.offers.prove(file_id(content), 100)
                model.prove(file_id(content))

        assert_all_shown(catalogue, model)

    for release in releases:
        release()
    for who in (A, B, C):
        catalogue.forget(who.id)
    for path in [*model.shares[""]]:
        catalogue.kept.drop(path)
    assert shown(catalogue) == []
    assert not catalogue._tree.root.children
    assert not catalogue._tree._entries.total
    assert not any(catalogue._tree.claimed._places)
    assert not catalogue._tree._entries._names


NOW_NS = 10
PAGES = st.lists(
    st.builds(
        Entry,
        PATHS | st.sampled_from(["z", "d/z", "d/" + 60 * "l", "d/" + 60 * "l" + "~01010101"]),
        st.sampled_from([100, 200]),
        st.sampled_from([5, 7, 20]),
        st.integers(1, 3).map(file_id),
    )
    | st.builds(directory, PATHS),
    max_size=5,
)


@given(
    st.lists(
        st.tuples(st.just("learn"), PEERS, PAGES)
        | st.tuples(st.just("again"), PEERS, st.sampled_from(["", "d"]))
        | st.tuples(st.just("forget"), PEERS, PATHS)
        | st.tuples(st.just("look"), PEERS, st.sampled_from(["", "d", "d/x"])),
        max_size=20,
    )
)
@example(steps=[("learn", A, [file("x"), file("y", 2)]), ("look", A, ""), ("again", A, "")])
@example(steps=[("learn", A, [file("x"), file("x", 2)]), ("learn", B, [file("x"), file("y")])])
@example(steps=[("look", A, ""), ("learn", A, [file("x~01010101", 2), file("y")])])
def test_a_page_is_learned_as_if_each_name_had_come_by_itself(steps):
    at_once, one_by_one = Catalogue(now_ns=lambda: NOW_NS), Catalogue(now_ns=lambda: NOW_NS)
    for verb, who, what in steps:
        for catalogue in (at_once, one_by_one):
            match verb:
                case "learn" | "again":
                    told = what if verb == "learn" else catalogue.holders.entries(who.id, what)
                    pages = [told] if catalogue is at_once else [[entry] for entry in told]
                    for page in pages:
                        catalogue.learn(who, page)
                case "forget":
                    catalogue.forget_path(who.id, what)
                case "look":
                    catalogue.shown.children(what)
        assert all_known(at_once) == all_known(one_by_one)


def all_known(catalogue: Catalogue) -> object:
    """What is shown and held, and how much that is."""
    entries = catalogue._tree._entries
    ids = [file_id(number) for number in range(1, 4)]
    return (
        [catalogue.shown.children(path) for path in ("", "d", "d/e", "d~dir", "x")],
        [[catalogue.holders.entries(who.id, path) for path in ("", "d")] for who in (A, B, C)],
        [catalogue.offers.claimants_of(one) for one in ids],
        [[catalogue.offers.sources_of(one, size) for size in (100, 200)] for one in ids],
        (dict(entries.counts), entries.total, entries.held_bytes),
    )


def test_of_a_page_nothing_is_done_name_by_name(monkeypatch: pytest.MonkeyPatch):
    catalogue = Catalogue(now_ns=lambda: NOW_NS)
    catalogue.learn(A, [directory("d")])
    monkeypatch.setattr(catalogue._tree, "put", None)
    page = [file("d/x"), file("d/y", 2), file("d/z", 1)]
    for _ in range(2):
        assert catalogue.learn(A, page) == page

    assert shown(catalogue, "d") == ["d/x", "d/y", "d/z"]


def test_what_is_kept_is_shown_when_nobody_offers_it_any_more():
    catalogue = Catalogue()
    catalogue.learn(A, [file("films/x.mkv")])
    catalogue.kept.put(file("films/x.mkv"))

    catalogue.forget(A.id)
    catalogue.keep_only("", ())

    assert catalogue.shown.lookup("films/x.mkv", 0) == RemoteFile(
        "films/x.mkv", 100, 5, file_id(1), ()
    )
    assert shown(catalogue, "films") == ["films/x.mkv"]
    assert catalogue.holders.of("films") == catalogue.offers.sources_of(file_id(1), 100) == ()


def test_what_is_kept_keeps_its_name_whatever_others_offer():
    catalogue = Catalogue(Here(chosen=lambda: {A.id: ("net", "1")}))
    catalogue.learn(A, [file("x.mkv", 2)])
    catalogue.kept.put(file("x.mkv", 1))

    assert names_of(catalogue) == {"x.mkv": file_id(1), "x~02020202.mkv": file_id(2)}


def test_what_is_let_go_is_shown_while_others_offer_it():
    catalogue = Catalogue()
    catalogue.learn(A, [file("x.mkv")])
    catalogue.kept.put(file("x.mkv"))
    catalogue.kept.put(file("own/y.mkv", 2))

    catalogue.kept.drop("x.mkv")
    catalogue.kept.drop("own/y.mkv")

    assert shown(catalogue) == ["x.mkv"]


# One servent's share.


def test_what_one_servent_has_is_told_apart():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/x", 1), file("y", 2)])
    catalogue.learn(B, [file("d/x", 3), file("d/z", 3)])

    assert catalogue.holders.entries(A.id, "") == [Entry("d", 0, 0, b""), file("y", 2)]
    assert catalogue.holders.entries(A.id, "d") == [file("d/x", 1)]
    assert catalogue.holders.entry(B.id, "d/x") == file("d/x", 3)
    assert catalogue.holders.entry(B.id, "y") is None
    assert catalogue.holders.entry(A.id, "nowhere") is None
    assert catalogue.holders.entries(A.id, "nowhere") == []
    assert catalogue.holders.get(A.id) == A
    assert catalogue.holders.get(C.id) is None


@pytest.mark.parametrize(
    "forget",
    [
        lambda catalogue: catalogue.forget(A.id),
        lambda catalogue: catalogue.forget_path(A.id, ""),
        lambda catalogue: catalogue.keep_only("", [B.id]),
    ],
)
def test_who_is_forgotten_was_never_listed(forget):
    catalogue = Catalogue()
    for one in (A, B):
        catalogue.learn(one, [file("d/x")])
        catalogue.holders.mark_listed_by(one.id, "d", 5)
    assert catalogue.holders.listed_by(A.id, "d") == 5
    assert catalogue.holders.listed_by(A.id, "") is None

    forget(catalogue)

    assert catalogue.holders.listed_by(A.id, "d") is None
    assert catalogue.holders.listed_by(B.id, "d") == 5


def test_a_directory_that_is_gone_was_not_listed_nor_what_was_below():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/e/x"), file("de/x")])
    for path in ("", "d", "d/e", "de"):
        catalogue.holders.mark_listed_by(A.id, path, 5)

    catalogue.keep_only("d", [B.id])

    assert [catalogue.holders.listed_by(A.id, path) for path in ("", "d", "d/e", "de")] == [
        5,
        None,
        None,
        5,
    ]


def test_listings_remembered_of_one_servent_are_bounded(monkeypatch):
    monkeypatch.setattr(asked_module, "MAX_LISTED_BY", 2)
    catalogue = Catalogue()
    catalogue.learn(A, [file("x")])
    for path in ("a", "b", "c"):
        catalogue.holders.mark_listed_by(A.id, path, 5)
    catalogue.holders.mark_listed_by(B.id, "a", 5)  # of whom nothing is known

    assert [catalogue.holders.listed_by(A.id, path) for path in "abc"] == [None, 5, 5]
    assert catalogue.holders.listed_by(B.id, "a") is None


def test_what_is_let_go_after_its_size_was_disproved_leaves_nothing_behind():
    catalogue = Catalogue()
    catalogue.kept.put(sized("d/e/x", 200))
    catalogue.offers.prove(file_id(1), 100)
    catalogue.kept.drop("d/e/x")

    assert shown(catalogue) == []


def test_a_name_takes_five_hundred_bytes_and_nothing_that_is_collected():
    entries = [file(f"d/{number:020}", mtime_ns=10**18 + number) for number in range(2_000)]
    page = msgspec.msgpack.encode(entries)
    del entries
    catalogue = Catalogue()
    gc.collect()
    collected = len(gc.get_objects())
    with traced_bytes() as taken:
        entries = msgspec.msgpack.decode(page, type=list[Entry])
        catalogue.learn(A, entries)
        del entries

    assert taken() / 2_000 < 500
    assert len(gc.get_objects()) - collected < 100


def test_a_catalogue_that_is_dropped_leaves_nothing_behind():
    content = bytes(range(32))
    before = sys.getrefcount(content)
    catalogue = Catalogue()
    catalogue.learn(A, [Entry("d/e/x", 1, 1, content)])
    catalogue.learn(B, [Entry("d/e/x", 1, 1, content), Entry("y", 1, 1, content)])
    assert sys.getrefcount(content) > before

    del catalogue

    assert sys.getrefcount(content) == before
