"""Where a content is claimed: what is counted is what a look at all places would find."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.namespace import claimed
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.claims import ClaimTree
from p2pfs.namespace.places import Place
from p2pfs.protocol import Entry, FileId, ServentId
from tests.helpers.upstream import peer

ID = FileId(b"\1" * 32)
OTHER = FileId(b"\2" * 32)
SOURCES = [ServentId(bytes([number]) * 32) for number in range(3)]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(SOURCES),
        st.sampled_from([f"{a}/{b}" for a in "xy" for b in "abc"]),
        st.sampled_from([(ID, 5), (ID, 6), (OTHER, 5), None]),
    ),
    max_size=40,
)


def seen(tree: ClaimTree, file_id: FileId) -> dict[int, set[ServentId]]:
    """Return the claims to a content by its size, as all places have them."""
    found: dict[int, set[ServentId]] = {}

    def visit(place: Place) -> None:
        for content, claims in place.versions():
            if content.file_id == file_id:
                found.setdefault(content.size, set()).update(claims.by)
        for child in place.children.values():
            visit(child)

    visit(tree.root)
    return found


@pytest.mark.parametrize("common", [0, 2, 100])
@given(steps=STEPS)
def test_claims_are_counted_as_they_come_and_go(common: int, steps):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(claimed, "COMMON", common)
        tree = ClaimTree(lambda _: False)
        for source, path, content in steps:
            place = tree.place(path)
            if content is not None:
                tree.put(source, Entry(path, content[1], 0, content[0]), 0)
            elif place is not None:
                tree.forget(place, source)
            for file_id in (ID, OTHER):
                by_size = tree.claimed.by_size(file_id)
                assert {size: set(by) for size, by in by_size.items()} == seen(tree, file_id)
                assert set(tree.claimed.sizes(file_id)) == set(by_size)


def test_what_is_asked_of_one_of_many_files_alike_takes_as_long_as_of_one(
    monkeypatch: pytest.MonkeyPatch,
):
    """All empty files are one content, and a liar may announce an honest id under many names."""
    catalogue = Catalogue()
    entries = [Entry(f"{number}", 5, 0, ID) for number in range(2_000)]
    catalogue.learn(peer(1), entries)
    looks = []
    versions = Place.versions
    monkeypatch.setattr(Place, "versions", lambda self: looks.append(1) or versions(self))

    assert not catalogue.offers.is_disputed(ID)
    assert catalogue.offers.sources_of(ID, 5) == (peer(1),)
    assert len(catalogue.offers.claimants_of(ID)) == 1
    catalogue.offers.prove(ID, 5)

    assert not looks
