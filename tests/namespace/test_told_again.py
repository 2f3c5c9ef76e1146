"""What is told again changes nothing and costs little; what has come between is never missed."""

from __future__ import annotations

import pytest

from p2pfs.namespace.catalogue import NAMES_SIFTED_AT_ONCE, Catalogue
from p2pfs.protocol import Entry, PeerInfo, ServentId

ANNA, BEN = (PeerInfo(ServentId(letter * 32), letter, ()) for letter in "ab")


def entry(path: str, content: int = 1) -> Entry:
    return Entry(path, 1, 1, bytes([content]) * 32)


ENTRIES = [entry("d/a"), entry("d/b")]


def shown(catalogue: Catalogue) -> list[str]:
    return [node.path for node in catalogue.shown.children("d")]


@pytest.fixture
def catalogue() -> Catalogue:
    catalogue = Catalogue()
    catalogue.learn_listing(ANNA, "d", ENTRIES)
    return catalogue


def test_the_same_hit_is_not_taken_in_again(catalogue, monkeypatch):
    def refuse(*_arguments: object) -> None:
        raise AssertionError("it was told before")

    monkeypatch.setattr(catalogue._tree, "put", refuse)
    catalogue.learn_listing(ANNA, "d", list(ENTRIES))
    with pytest.raises(AssertionError):
        catalogue.learn_listing(ANNA, "d", [*ENTRIES, entry("d/c")])


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.forget(ANNA.id),
        lambda c: c.forget_path(ANNA.id, "d/a"),
        lambda c: c.keep_only("d", []),
        lambda c: c.keep_names(ANNA, "d", {"b"}),
        lambda c: c.learn(ANNA, [entry("d/c")]),
        lambda c: c.learn(ANNA, [entry("d/a", content=2)]),
        lambda c: c.learn_listing(ANNA, "d", [entry("d/z")]),
    ],
)
def test_what_has_come_between_is_undone_by_the_same_hit(catalogue, change):
    before = [(node.path, getattr(node, "file_id", None)) for node in catalogue.shown.children("d")]
    change(catalogue)
    catalogue.learn_listing(ANNA, "d", ENTRIES)
    while catalogue.fade():
        pass
    after = [(node.path, getattr(node, "file_id", None)) for node in catalogue.shown.children("d")]
    assert after == before


def test_what_others_tell_does_not_matter(catalogue):
    catalogue.learn_listing(BEN, "d", [entry("d/b")])
    catalogue.learn_listing(ANNA, "d", ENTRIES)
    catalogue.forget(ANNA.id)
    assert shown(catalogue) == ["d/b"]


def test_of_a_long_listing_what_is_gone_goes_part_by_part():
    catalogue = Catalogue()
    count = 2 * NAMES_SIFTED_AT_ONCE + 7
    names = [f"{number}" for number in range(count)]
    catalogue.learn(ANNA, [entry(f"d/{name}") for name in names])
    parts = list(catalogue.keeping_names(ANNA, "d", set(names[:-20])))
    assert len(parts) == 3
    assert len(catalogue.holders.entries(ANNA.id, "d")) == count - 20
    assert list(catalogue.keeping_names(ANNA, "d", set(names[:-20]))) == []
