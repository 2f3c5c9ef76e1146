"""How many names an address may have in a directory: what is counted as claims come and go."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.namespace import claims
from p2pfs.namespace.claims import ANY_ROOM, ClaimTree, NameRoom
from p2pfs.namespace.places import Place
from p2pfs.protocol import Entry, FileId, ServentId

SOURCES = [ServentId(bytes([number]) * 32) for number in range(6)]
CONTENT = FileId(b"\1" * 32)
AT_FIRST = 1
FEW = 2
SHARED = 12


def address_of(source: ServentId) -> tuple[str, str]:
    """Two servents each have an address."""
    return "net", str(SOURCES.index(source) // 2)


def room_by_counting(tree: ClaimTree, source: ServentId, place: Place) -> NameRoom:
    """Return what a look at all servents finds."""
    count: Counter[tuple[str, str]] = Counter()
    for other in SOURCES:
        count[address_of(other)] += len(tree.names_of(other, place))
    own = count.pop(address_of(source))
    most = max(count.values())
    apart = len(place.children) - most
    if not most:
        return ANY_ROOM
    taken = own - len(tree.names_of(source, place))
    if apart <= AT_FIRST:
        return NameRoom(math.inf, math.inf, taken)
    at_address = max(FEW, SHARED // (1 + sum(number > FEW for number in count.values())))
    names = math.inf if apart <= FEW else at_address - taken
    return NameRoom(names, max(0, AT_FIRST - taken), taken)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(SOURCES),
            st.sampled_from(["learn", "learn", "forget", "fade"]),
            st.sampled_from([f"d/{number}" for number in range(8)] + ["d", "d/1/x"]),
        ),
        max_size=40,
    )
)
def test_what_is_counted_as_claims_come_and_go_is_what_a_look_at_all_finds(steps):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(claims, "FEW_NAMES", FEW)
        patched.setattr(claims, "NAMES_AT_FIRST", AT_FIRST)
        patched.setattr(claims, "MAX_SHARED_NAMES", SHARED)
        tree = ClaimTree(lambda _: False, address_of)
        for source, what, path in steps:
            place = tree.place(path)
            if what == "learn":
                tree.put(source, Entry(path, 5, 0, CONTENT), 0)
            elif place is not None and what == "forget":
                tree.forget(place, source)
            elif place is not None:
                tree.fade(place, source, 2)
            directory = tree.place("d")
            for other in SOURCES if directory is not None else ():
                assert tree.room(other, directory) == room_by_counting(tree, other, directory)


def test_a_page_of_a_long_listing_looks_at_no_servent_but_its_own():
    asked = []
    tree = ClaimTree(lambda _: False, lambda source: asked.append(source) or (source, source))
    for number in range(300):
        for name in range(2):
            source = ServentId(f"{number:a>32}")
            tree.put(source, Entry(f"d/{number} {name}", 5, 0, CONTENT), 0)
    place = tree.place("d")
    teller = ServentId("teller")
    tree.room(teller, place)
    tree.put(teller, Entry("d/new", 5, 0, CONTENT), 0)
    asked.clear()

    tree.room(teller, place)

    assert {*asked} == {teller}


def test_who_comes_to_have_another_address_counts_there_from_its_next_claim():
    addresses = {source: source for source in SOURCES}
    tree = ClaimTree(lambda _: False, lambda source: (addresses[source], addresses[source]))
    for source in SOURCES[:2]:
        tree.put(source, Entry("d/x", 5, 0, CONTENT), 0)
    place = tree.place("d")
    assert tree.room(SOURCES[0], place).names == math.inf
    crowd = tree._entries.crowd(place)
    assert not crowd.is_alone(SOURCES[0])

    addresses[SOURCES[1]] = SOURCES[0]
    tree.put(SOURCES[1], Entry("d/y", 5, 0, CONTENT), 0)

    assert crowd.is_alone(SOURCES[0])
    assert crowd.at_address_of(SOURCES[0]) == 3
