"""Who has which name: the law, and what it means in the cases that people meet."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.namespace.naming import Names, Odd, is_odd
from p2pfs.namespace.nodes import (
    Content,
    Nearness,
    Rank,
    Version,
    assign,
    backing,
    believed,
    directory_version,
    file_version,
    may_be_suffixed,
    numbered_names,
    usual_names,
    version_name,
    without_suffix,
)
from p2pfs.protocol import FileId, ServentId
from p2pfs.protocol.names import MAX_LABEL_BYTES

NUMBERS = itertools.count()


def candidates(version: Version) -> Iterator[str]:
    """Yield the names that a version may have, best first, without end."""
    yield from usual_names(version)
    yield from numbered_names(version)


def content(number: int, size: int = 1) -> Content:
    return Content(FileId(number.to_bytes(32, "little")), size)


def file(
    name: str,
    number: int,
    nearness: Nearness = Nearness.ELSEWHERE,
    groups: int = 0,
    size: int = 1,
    known_at: int | None = None,
) -> Version:
    """A version that is known later than those made before it."""
    known_at = next(NUMBERS) if known_at is None else known_at
    rank = Rank(nearness, (-groups, 0), known_at)
    return file_version(name, content(number, size), rank)


def directory(name: str, nearness: Nearness = Nearness.ELSEWHERE, groups: int = 0) -> Version:
    return directory_version(name, Rank(nearness, (-groups, 0), next(NUMBERS)))


def shown(*versions: Version) -> dict[str, object]:
    return {name: version.key for name, version in assign(versions).items()}


# What people meet.


def test_of_two_contents_of_one_name_the_one_that_was_known_first_has_it():
    assert shown(file("x.mkv", 1), file("x.mkv", 2)) == {
        "x.mkv": content(1),
        "x~02000000.mkv": content(2),
    }


def test_what_servents_have_that_we_chose_comes_before_what_was_known_first():
    assert shown(
        file("x", 1), file("x", 2, groups=1), file("x", 3, groups=2)
    ) == {"x": content(3), "x~02000000": content(2), "x~01000000": content(1)}  # fmt: skip


def test_heads_count_by_network_and_between_equals_by_address():
    where = {"a": ("n1", "1"), "b": ("n1", "2"), "c": ("n1", "2"), "d": ("n2", "3")}
    chosen = {ServentId(source): place for source, place in where.items()}
    worth = [backing(chosen, by) for by in ("ad", "abcx", "bc", "a", "xyz")]

    assert worth == sorted([(-2, -2), (-1, -2), (-1, -1), (-1, -1), (0, 0)])


def test_what_is_pinned_or_whole_here_comes_before_all_that_others_have():
    whole, pinned = file("x", 2, Nearness.WHOLE), file("x", 3, Nearness.PINNED)

    assert shown(file("x", 1, groups=9), whole)["x"] == content(2)
    assert shown(file("x", 1, groups=9), whole, pinned)["x"] == content(3)


def test_a_directory_and_a_file_of_one_name_are_both_shown():
    assert shown(file("x.mkv", 1), directory("x.mkv")) == {"x.mkv": content(1), "x.mkv~dir": None}
    assert shown(directory("x.mkv"), file("x.mkv", 1)) == {
        "x.mkv": None,
        "x~01000000.mkv": content(1),
    }


def test_who_publishes_the_name_of_a_version_does_not_take_it():
    first, second, thief = file("x.mkv", 1), file("x.mkv", 2), file("x~02000000.mkv", 3)

    assert shown(first, second, thief) == {
        "x.mkv": content(1),
        "x~02000000.mkv": content(2),
        "x~02000000~03000000.mkv": content(3),
    }


def test_a_copy_under_the_name_of_a_version_is_one_file_with_it():
    first, second = file("x.mkv", 1), file("x.mkv", 2)
    copy = file("x~02000000.mkv", 2)

    assert shown(first, second, copy) == shown(copy, first, second) == shown(first, second)


def test_a_version_that_comes_later_finds_another_name():
    assert shown(file("x.mkv", 1), file("x~02000000.mkv", 3), file("x.mkv", 2)) == {
        "x.mkv": content(1),
        "x~02000000.mkv": content(3),
        "x~0200000000000000.mkv": content(2),
    }


def test_a_version_of_which_every_name_is_taken_gets_a_number():
    rival = file("x", 1)
    taken = [file(name, 7 + n) for n, name in enumerate(itertools.islice(candidates(rival), 10))]
    last = file("x", 1)

    assert assign([*taken, last])[f"x~{last.token}~3"] == last


def test_two_sizes_of_one_id_are_two_versions():
    assert shown(file("x", 1, size=5), file("x", 1, size=6)) == {
        "x": content(1, 5),
        "x~01000000": content(1, 6),
    }


def test_what_is_held_keeps_its_name_and_nobody_else_gets_it():
    old, new = file("x", 1), file("x", 2, Nearness.PINNED)
    held = {"x": ("x", old.key), "x~02000000": ("x", content(9))}

    assert assign([old, new], held) == {"x": old, "x~0200000000000000": new}
    assert assign([new], held) == {"x~0200000000000000": new}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x.mkv", "x~01010101.mkv"),
        ("a/x", "a/x~01010101"),
        ("archive.tar.gz", "archive.tar~01010101.gz"),
        ("a.b/x", "a.b/x~01010101"),
        ("x." + "e" * 40, "x." + "e" * 40 + "~01010101"),
    ],
)
def test_version_names_keep_the_extension(path: str, name: str):
    assert version_name(path, FileId(b"\x01" * 32)) == name


def test_no_name_is_too_long_for_a_file():
    name = "\N{WHALE}" * (MAX_LABEL_BYTES // 4 - 1) + ".mkv"
    for version in (file(name, 1), directory(name)):
        some = list(itertools.islice(candidates(version), 20))

        assert len({*some}) == 20
        assert all(len(name.encode()) <= MAX_LABEL_BYTES for name in some)
        assert version.is_directory or all(name.endswith(".mkv") for name in some)


# The law, for directories made to be difficult: ids that begin alike, and names that are those of
# versions of other names.

LONG = "\N{WHALE}" * 62 + ".mkv"
NAMES = st.sampled_from(["x", "x.mkv", "y.tar.gz", LONG, LONG[1:], "x~dir"])
BACKING = st.tuples(st.integers(-1, 0), st.integers(-1, 0))
RANKS = st.tuples(st.sampled_from(Nearness), BACKING)
IDS = st.sampled_from([1, 2, 1 + 256**5, 1 + 256**12, 1 + 256**31])


@st.composite
def directories(draw: st.DrawFn) -> list[Version]:
    versions: list[Version] = []
    for known_at in range(draw(st.integers(0, 12))):
        name = draw(NAMES)
        if versions and draw(st.booleans()):
            wanted = candidates(draw(st.sampled_from(versions)))
            name = draw(st.sampled_from([*itertools.islice(wanted, 12)]))
        rank = Rank(*draw(RANKS), known_at)
        is_directory = draw(st.integers(0, 3)) == 0
        file = file_version(name, content(draw(IDS), draw(st.integers(1, 2))), rank)
        versions.append(directory_version(name, rank) if is_directory else file)
    return list({(version.name, version.key): version for version in versions}.values())


def lazily(versions: list[Version], held: dict[str, tuple[str, object]]) -> Names:
    by_name = defaultdict(list)
    for version in versions:
        by_name[version.name].append(version)
    odd = Odd()
    for name in filter(is_odd, by_name):
        odd.add(name)
    return Names(lambda name: by_name.get(name, ()), held, lambda: odd)


@st.composite
def holds(draw: st.DrawFn) -> tuple[list[Version], dict[str, tuple[str, object]]]:
    """A directory, and names in it that somebody has open."""
    versions = draw(directories())
    held: dict[str, tuple[str, object]] = {}
    for version in draw(st.lists(st.sampled_from(versions), max_size=3)) if versions else ():
        name = draw(st.sampled_from([*itertools.islice(candidates(version), 4)]))
        held[name] = (version.name, version.key)
    return versions, held


def is_one_file(one: Version, other: Version) -> bool:
    return one.key == other.key and not (one.is_directory or other.is_directory)


@given(holds(), st.randoms())
def test_every_version_has_one_name_of_its_own_whatever_the_order(made, random):
    versions, held = made
    names = assign(versions, held)
    shuffled = random.sample(versions, len(versions))

    assert {*names.values()} <= {*versions}
    assert len({(version.name, version.key) for version in names.values()}) == len(names)
    for version in {*versions} - {*names.values()}:
        shared = [name for name, other in names.items() if is_one_file(other, version)]
        assert {*shared} & {*itertools.islice(candidates(version), 40)}
    assert all(len(name.encode()) <= MAX_LABEL_BYTES for name in names)
    assert assign(shuffled, held) == names
    for name, version in names.items():
        published, key = held.get(name, (version.name, version.key))
        assert key == version.key
        assert published == version.name or not version.is_directory


@given(directories(), st.data())
def test_what_ranks_lower_changes_no_name_of_what_ranks_higher(versions, data):
    better = {version.rank[:2] for version in versions}
    limit = data.draw(st.sampled_from(sorted(better))) if better else None
    above = [version for version in versions if version.rank[:2] <= limit]
    strangers = [version for version in versions if version.rank[:2] > limit]
    order = data.draw(st.permutations(range(len(strangers))))
    others = [
        v._replace(rank=v.rank._replace(known_at=n)) for v, n in zip(strangers, order, strict=True)
    ]

    alone = assign(above)
    for there in (strangers, others):
        names = assign([*above, *there])
        assert {name: v for name, v in names.items() if v in above} == alone


@given(holds(), st.data())
def test_a_look_at_some_names_finds_what_a_look_at_all_does(made, data):
    versions, held = made
    names = assign(versions, held)
    asked = [*names, "x", "x~01000000", LONG, "x.mkv~dir", "y.tar~01000000~2.gz"]
    for name in data.draw(st.permutations(asked)):
        assert lazily(versions, held).holder(name) == names.get(name), name
    one = lazily(versions, held)
    for name in data.draw(st.permutations(asked)):
        assert one.holder(name) == names.get(name), name


def test_a_look_at_one_name_heeds_what_a_twin_takes():
    first, twin = file("x", 1, size=1), file("x", 1, size=2)
    usual = list(itertools.islice(candidates(first), 9))
    taken = [file(name, 7, known_at=-1) for name in usual]
    versions = [*taken, file(f"x~{first.token}~3", 8, known_at=-1), first, twin]

    names = assign(versions)
    assert (names[f"x~{first.token}~2"], names[f"x~{first.token}~4"]) == (first, twin)
    assert all(lazily(versions, {}).holder(name) == version for name, version in names.items())


def test_a_version_is_found_by_its_suffix_though_it_has_the_plain_name():
    best, other, folder = file("x.mkv", 1), file("x.mkv", 2), directory("x.mkv")
    names = lazily([best, other, folder], {})

    assert names.alias("x~01000000.mkv") == names.alias("x~0100000000000000.mkv") == best
    assert names.alias("x.mkv~dir") == folder
    assert names.alias("x~03000000.mkv") is names.alias("y") is None


def test_a_version_is_found_by_what_it_is_whatever_name_it_has():
    one, two, folder = file("x", 1), file("x", 2), directory("x")
    names = lazily([one, two, folder], {})

    assert names.find("x", two.key) == two
    assert names.find("x~02000000", two.key) == two
    assert names.find("x", content(3)) is None
    assert names.find("y", two.key) is None


def test_of_two_versions_that_one_suffix_means_it_is_the_better_one():
    worse = file("x", 1, known_at=2)
    better = file("x", 1, groups=1, size=2, known_at=3)

    for versions in ([worse, better], [better, worse]):
        assert lazily(versions, {}).alias("x~01000000") == better


def test_what_a_servent_says_that_we_chose_is_believed_and_else_who_was_first():
    first, second, third = ServentId("first"), ServentId("second"), ServentId("third")
    claims = {first: "1", second: "2", third: "3"}

    assert believed(claims, ()) == "1"
    assert believed(claims, (ServentId("stranger"),)) == "1"
    assert believed(claims, (ServentId("stranger"), third, second)) == "3"


@pytest.mark.parametrize("published", ["x", "x.mkv", "a/b/x.tar.gz", "x~y.mkv", "x~02000000.mkv"])
def test_the_suffix_of_a_version_can_be_taken_off_and_no_other(published: str):
    one, other = content(1).file_id, content(3).file_id
    shown_as = [version_name(published, one, length) for length in (8, 16, 64)]

    assert [without_suffix(path, one) for path in shown_as] == [published] * 3
    assert [without_suffix(path, other) for path in shown_as] == shown_as
    assert without_suffix(published, one) == published


def test_what_looks_like_a_suffix_is_told_from_a_tilde():
    looks = ("x~01010101", "x~0101010101010101.mkv", "x~dir", "x~01010101~2.mkv")
    assert all(map(may_be_suffixed, looks))
    assert not any(map(may_be_suffixed, ("x", "x.mkv", "x~", "x~y", "x~0101010", "x.mkv~01")))


def test_the_versions_of_a_name_are_asked_for_once_though_there_are_hundreds():
    """Each of 300 may share a notes.txt; the time must not grow with their square."""
    versions = [file("notes.txt", number, known_at=number) for number in range(300)]
    asked = []

    names = Names(lambda name: asked.append(name) or (versions if name == "notes.txt" else ()))

    assert names.holder("notes.txt") == versions[0]
    assert len(names.shown) == 300
    assert max(Counter(asked).values()) == 1
