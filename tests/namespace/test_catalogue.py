"""The catalogue: one union of what many servents say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.namespace import catalogue as catalogue_module
from p2pfs.namespace.catalogue import (
    Catalogue,
    Knowledge,
    RemoteDirectory,
    RemoteFile,
    version_name,
)
from p2pfs.protocol.manifest import FileId
from p2pfs.protocol.messages import Address, Entry, PeerInfo, ServentId


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
    return [node.path for node in catalogue.children(path)]


def test_same_content_anywhere_is_one_file_with_many_sources():
    catalogue = Catalogue()
    catalogue.learn(A, [file("films/x.mkv")])
    catalogue.learn(B, [file("films/x.mkv", mtime_ns=9)])

    node = catalogue.lookup("films/x.mkv", 0)

    assert node == RemoteFile("films/x.mkv", 100, 9, file_id(1), (A, B))
    assert shown(catalogue, "films") == ["films/x.mkv"]


def test_directories_above_a_file_are_known_with_it():
    catalogue = Catalogue()
    catalogue.learn(A, [file("a/b/c.txt")])

    assert shown(catalogue) == ["a"]
    assert catalogue.lookup("a/b", 0) == RemoteDirectory("a/b", 0, (A,))
    assert catalogue.directory_sources("a") == (A,)


def test_the_content_with_most_sources_has_the_plain_name():
    catalogue = Catalogue()
    catalogue.learn(A, [file("x.mkv", 1)])
    catalogue.learn(B, [file("x.mkv", 2)])
    catalogue.learn(C, [file("x.mkv", 2)])

    plain = catalogue.lookup("x.mkv", 0)
    other = catalogue.lookup("x~01010101.mkv", 0)

    assert isinstance(plain, RemoteFile)
    assert plain.file_id == file_id(2)
    assert isinstance(other, RemoteFile)
    assert other.file_id == file_id(1)
    assert shown(catalogue) == ["x.mkv", "x~01010101.mkv"]


def test_a_file_and_a_directory_of_one_name_both_stay_reachable():
    catalogue = Catalogue()
    catalogue.learn(A, [file("music", 1)])
    catalogue.learn(B, [file("music/song.ogg", 2)])

    assert shown(catalogue) == ["music", "music~01010101"]
    assert isinstance(catalogue.lookup("music", 0), RemoteDirectory)
    assert isinstance(catalogue.lookup("music~01010101", 0), RemoteFile)


def test_a_published_name_that_looks_like_a_version_keeps_its_place():
    catalogue = Catalogue()
    catalogue.learn(A, [file("x.mkv", 1), file("x~02020202.mkv", 3)])
    catalogue.learn(B, [file("x.mkv", 2)])

    node = catalogue.lookup("x~02020202.mkv", 0)

    assert isinstance(node, RemoteFile)
    assert node.file_id == file_id(3)
    assert shown(catalogue) == ["x.mkv", "x~02020202.mkv"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x.mkv", "x~01010101.mkv"),
        ("a/x", "a/x~01010101"),
        ("archive.tar.gz", "archive.tar~01010101.gz"),
        ("a.b/x", "a.b/x~01010101"),
    ],
)
def test_version_names_keep_the_extension(path: str, name: str):
    assert version_name(path, file_id(1)) == name


def test_versions_of_names_with_several_dots_are_found_by_their_shown_name():
    catalogue = Catalogue()
    catalogue.learn(A, [file("archive.tar.gz", 1)])
    catalogue.learn(B, [file("archive.tar.gz", 2)])

    for path in shown(catalogue):
        assert isinstance(catalogue.lookup(path, 0), RemoteFile), path


def test_a_whole_listing_replaces_what_its_source_had_there_and_no_one_elses():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/old"), file("d/sub/deep"), file("d/kept", 3)])
    catalogue.learn(B, [file("d/old")])

    catalogue.learn_listing(A, "d", [file("d/kept", 3), file("d/new", 4)])

    assert shown(catalogue, "d") == ["d/kept", "d/new", "d/old"]
    old = catalogue.lookup("d/old", 0)
    assert isinstance(old, RemoteFile)
    assert old.sources == (B,)
    assert catalogue.lookup("d/sub/deep", 0) is Knowledge.UNKNOWN


def test_a_directory_that_became_a_file_is_forgotten_with_all_below():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/x/deep")])

    catalogue.learn_listing(A, "d", [file("d/x", 2)])

    assert isinstance(catalogue.lookup("d/x", 0), RemoteFile)
    assert shown(catalogue, "d/x") == []


def test_new_content_at_a_path_replaces_the_old_of_the_same_source():
    catalogue = Catalogue()
    catalogue.learn(A, [file("x", 1)])
    catalogue.learn(A, [file("x", 2)])

    assert shown(catalogue) == ["x"]
    assert catalogue.sources_of(file_id(1)) == ()
    assert catalogue.sources_of(file_id(2)) == (A,)


def test_who_leaves_takes_all_its_names_along():
    catalogue = Catalogue()
    catalogue.learn(A, [file("a/only-a"), file("both")])
    catalogue.learn(B, [file("both")])

    catalogue.forget(A.id)

    assert shown(catalogue) == ["both"]
    assert catalogue.peers() == (B,)


def test_a_complete_answer_drops_those_who_did_not_answer():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/a"), file("e/a")])
    catalogue.learn(B, [file("d/b")])

    catalogue.keep_only("d", [B.id])

    assert shown(catalogue, "d") == ["d/b"]
    assert shown(catalogue, "e") == ["e/a"]


# Times.


def mtime(catalogue: Catalogue, path: str) -> int:
    node = catalogue.lookup(path, 0)
    assert not isinstance(node, Knowledge)
    return node.mtime_ns


def test_a_time_in_the_future_becomes_now_once_and_stays():
    clock = iter([1000, 2000, 3000, 4000])
    catalogue = Catalogue(now_ns=lambda: next(clock))
    for _ in range(2):
        catalogue.learn(A, [file("x", mtime_ns=2**63 - 1), directory("d", mtime_ns=5000)])

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

    assert catalogue.lookup("x", 9) is Knowledge.ABSENT
    assert catalogue.lookup("x", 11) is Knowledge.UNKNOWN
    catalogue.learn(A, [file("x")])
    assert isinstance(catalogue.lookup("x", 9), RemoteFile)


def test_expiring_forgets_when_but_not_what():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/x")])
    catalogue.mark_listed("", 5)
    catalogue.mark_listed("d", 5)
    catalogue.remember_absent("d/y", until=100)

    catalogue.expire(100.0)

    assert catalogue.listed_at("") is None
    assert catalogue.listed_at("d") is None
    assert catalogue.lookup("d/y", 6) is Knowledge.UNKNOWN
    assert shown(catalogue, "d") == ["d/x"]


def test_one_source_cannot_fill_the_catalogue(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogue_module, "MAX_ENTRIES_PER_SOURCE", 3)
    catalogue = Catalogue()

    catalogue.learn(A, [file(f"{n}") for n in range(5)])
    catalogue.learn(B, [file("b")])

    assert shown(catalogue) == ["0", "1", "2", "b"]
    assert catalogue.dropped == 2


def test_all_sources_together_cannot_go_over_the_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogue_module, "MAX_ENTRIES", 2)
    catalogue = Catalogue()

    catalogue.learn(A, [file("a"), file("b")])
    catalogue.learn(B, [file("c")])

    assert shown(catalogue) == ["a", "b"]
    catalogue.forget(A.id)
    catalogue.learn(B, [file("c")])
    assert shown(catalogue) == ["c"]


def test_absent_names_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogue_module, "MAX_ABSENT", 2)
    catalogue = Catalogue()
    for name in ("a", "b", "c"):
        catalogue.remember_absent(name, until=10)

    assert catalogue.lookup("a", 0) is Knowledge.UNKNOWN
    assert catalogue.lookup("c", 0) is Knowledge.ABSENT


PATHS = st.sampled_from(["x", "y", "d", "d/x", "d/y", "d/e/x"])
PEERS = st.sampled_from([A, B, C])
ENTRIES = st.builds(file, PATHS, st.integers(1, 3)) | st.builds(directory, PATHS)
STEPS = st.one_of(
    st.tuples(st.just("learn"), PEERS, ENTRIES),
    st.tuples(st.just("forget"), PEERS),
    st.tuples(st.just("list"), PEERS, st.sampled_from(["", "d"]), st.lists(ENTRIES, max_size=3)),
)


@given(st.lists(STEPS, max_size=30))
def test_whatever_is_told_everything_shown_can_be_looked_up_and_all_can_be_forgotten(steps):
    catalogue = Catalogue()
    for step in steps:
        match step:
            case "learn", who, entry:
                catalogue.learn(who, [entry])
            case "forget", who:
                catalogue.forget(who.id)
            case "list", who, path, entries:
                here = [e for e in entries if e.path.rpartition("/")[0] == path]
                catalogue.learn_listing(who, path, here)

    for path in ("", "d", "d/e"):
        for node in catalogue.children(path):
            assert catalogue.lookup(node.path, 0) == node
            assert node.sources

    for who in (A, B, C):
        catalogue.forget(who.id)
    assert shown(catalogue) == []


def test_what_is_kept_is_shown_when_nobody_offers_it_any_more():
    catalogue = Catalogue()
    catalogue.learn(A, [file("films/x.mkv")])
    catalogue.keep(file("films/x.mkv"))

    catalogue.forget(A.id)
    catalogue.keep_only("", ())

    assert catalogue.lookup("films/x.mkv", 0) == RemoteFile("films/x.mkv", 100, 5, file_id(1), ())
    assert shown(catalogue, "films") == ["films/x.mkv"]
    assert catalogue.directory_sources("films") == catalogue.sources_of(file_id(1)) == ()


def test_what_is_kept_gives_way_to_what_others_offer_under_its_name():
    catalogue = Catalogue()
    catalogue.keep(file("x.mkv", 1))
    catalogue.learn(A, [file("x.mkv", 2)])

    assert shown(catalogue) == ["x.mkv", version_name("x.mkv", file_id(1))]
    node = catalogue.lookup("x.mkv", 0)
    assert isinstance(node, RemoteFile)
    assert node.file_id == file_id(2)


def test_what_is_let_go_is_shown_while_others_offer_it():
    catalogue = Catalogue()
    catalogue.learn(A, [file("x.mkv")])
    catalogue.keep(file("x.mkv"))
    catalogue.keep(file("own/y.mkv", 2))

    catalogue.let_go("x.mkv")
    catalogue.let_go("own/y.mkv")

    assert shown(catalogue) == ["x.mkv"]


# One servent's share.


def test_what_one_servent_has_is_told_apart():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/x", 1), file("y", 2)])
    catalogue.learn(B, [file("d/x", 3), file("d/z", 3)])

    assert catalogue.entries_of(A.id, "") == [Entry("d", 0, 0, b""), file("y", 2)]
    assert catalogue.entries_of(A.id, "d") == [file("d/x", 1)]
    assert catalogue.entry_of(B.id, "d/x") == file("d/x", 3)
    assert catalogue.entry_of(B.id, "y") is None
    assert catalogue.entry_of(A.id, "nowhere") is None
    assert catalogue.entries_of(A.id, "nowhere") == []
    assert catalogue.peer(A.id) == A
    assert catalogue.peer(C.id) is None


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
        catalogue.mark_listed_by(one.id, "d", 5)
    assert catalogue.listed_by(A.id, "d") == 5
    assert catalogue.listed_by(A.id, "") is None

    forget(catalogue)

    assert catalogue.listed_by(A.id, "d") is None
    assert catalogue.listed_by(B.id, "d") == 5


def test_a_directory_that_is_gone_was_not_listed_nor_what_was_below():
    catalogue = Catalogue()
    catalogue.learn(A, [file("d/e/x"), file("de/x")])
    for path in ("", "d", "d/e", "de"):
        catalogue.mark_listed_by(A.id, path, 5)

    catalogue.keep_only("d", [B.id])

    assert [catalogue.listed_by(A.id, path) for path in ("", "d", "d/e", "de")] == [
        5,
        None,
        None,
        5,
    ]


def test_listings_remembered_of_one_servent_are_bounded(monkeypatch):
    monkeypatch.setattr(catalogue_module, "MAX_LISTED_BY", 2)
    catalogue = Catalogue()
    catalogue.learn(A, [file("x")])
    for path in ("a", "b", "c"):
        catalogue.mark_listed_by(A.id, path, 5)
    catalogue.mark_listed_by(B.id, "a", 5)  # of whom nothing is known

    assert [catalogue.listed_by(A.id, path) for path in "abc"] == [None, 5, 5]
    assert catalogue.listed_by(B.id, "a") is None
