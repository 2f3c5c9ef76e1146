"""The book of contacts: who is known of, in what order to try, what is kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from p2pfs.overlay import contacts as contacts_module
from p2pfs.overlay.contacts import (
    FRESH_S,
    JITTER,
    LONELY_RETRY_S,
    RETRY_AFTER_S,
    Contact,
    ContactBook,
)
from p2pfs.protocol import Address, PeerInfo, ServentId
from p2pfs.state import replace_file


def peer(letter: str, port: int = 4774) -> PeerInfo:
    return PeerInfo(ServentId(letter * 32), letter, (Address("10.0.0.1", port),))


A, B, C = peer("a"), peer("b"), peer("c")


def test_waits_grow_and_stay_at_the_last():
    contact = Contact(A.addresses)

    for expected in (*RETRY_AFTER_S, RETRY_AFTER_S[-1]):
        contact.failed(100, "refused", has_neighbours=True)
        wait = contact.next_try_at - 100
        assert expected * (1 - JITTER) <= wait <= expected * (1 + JITTER)


def test_waits_are_short_without_any_neighbour():
    contact = Contact(A.addresses)

    for _failure in RETRY_AFTER_S:
        contact.failed(100, "refused", has_neighbours=False)

    assert contact.next_try_at <= 100 + LONELY_RETRY_S * (1 + JITTER)


def test_waits_are_cut_when_the_last_neighbour_goes():
    book = ContactBook()
    contact = book.add_join(Address("10.0.0.9", 5000))
    for _failure in RETRY_AFTER_S:
        contact.failed(100, "refused", has_neighbours=True)

    book.hasten(200)

    assert contact.next_try_at == 200 + LONELY_RETRY_S


def test_a_handshake_ends_the_waits():
    contact = Contact(A.addresses)
    contact.failed(100, "refused", has_neighbours=True)

    contact.succeeded(A, 200)

    assert contact.next_try_at == 0
    assert contact.failures == 0
    assert contact.id == A.id


def test_joins_are_unanswered_until_they_answer():
    book = ContactBook()
    contact = book.add_join(A.addresses[0])
    contact.failed(100, "refused", has_neighbours=True)
    assert [(one, one.trouble) for one in book.unanswered()] == [(contact, "refused")]

    contact.succeeded(A, 200)

    assert book.unanswered() == []


def test_who_was_named_or_introduced_is_tried_before_those_merely_heard_of():
    book = ContactBook()
    book.heard_of(A)
    book.heard_of(B, is_introduced=True)
    book.add_join(Address("10.0.0.9", 5000))

    order = book.unlinked([])

    assert [contact.is_join for contact in order] == [True, False, False]
    assert order[1].id == B.id
    assert [contact.is_chosen for contact in order] == [True, True, False]


def test_those_already_linked_are_left_out_under_every_name():
    book = ContactBook()
    join = book.add_join(A.addresses[0])
    join.succeeded(A, 1)
    book.shook_hands(A, 1, A.addresses[0])
    book.heard_of(B)

    assert [contact.id for contact in book.unlinked([A.id])] == [B.id]
    assert [contact.id for contact in book.unlinked([B.id])] == [A.id]


def test_only_those_shaken_hands_with_lately_are_passed_on():
    book = ContactBook()
    book.heard_of(A)
    book.shook_hands(B, 1000, B.addresses[0])

    assert [*book.fresh(1000 + FRESH_S)] == [B]
    assert [*book.fresh(1000 + FRESH_S + 1)] == []


def test_hearsay_does_not_replace_an_address_that_works():
    book = ContactBook()
    book.shook_hands(A, 1000, A.addresses[0])

    book.heard_of(peer("a", port=6666))

    assert [*book.fresh(1000)] == [A]


def test_hearsay_adds_an_address_to_one_that_fails():
    book = ContactBook()
    book.heard_of(A)
    book.unlinked([])[0].failed(0, "refused", has_neighbours=True)

    book.heard_of(peer("a", port=6666))

    ports = [address.port for address in book.unlinked([])[0].addresses]
    assert ports == [6666, 4774]


def test_the_book_is_bounded_and_forgets_the_least_useful_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(contacts_module, "MAX_CONTACTS", 2)
    book = ContactBook()
    book.shook_hands(A, 1000, A.addresses[0])
    book.shook_hands(B, 2000, B.addresses[0])

    book.shook_hands(C, 3000, C.addresses[0])

    assert {contact.id for contact in book.unlinked([])} == {B.id, C.id}


def test_what_was_saved_is_there_again_for_its_owner_alone(tmp_path: Path):
    path = os.fspath(tmp_path / "peers.json")
    book = ContactBook()
    book.shook_hands(A, 1000, A.addresses[0])
    book.heard_of(B)

    replace_file(path, book.to_bytes())

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert [*ContactBook.load(path).fresh(1000)] == [A]


@pytest.mark.parametrize("text", ["", "[", '{"a": 1}', '[["not", "a", "row"]]'])
def test_a_damaged_book_is_an_empty_one(tmp_path: Path, text: str, expect_log):
    expect_log("contacts not read")
    path = tmp_path / "peers.json"
    path.write_text(text)

    assert ContactBook.load(os.fspath(path)).unlinked([]) == []


def test_a_missing_book_is_an_empty_one(tmp_path: Path):
    assert ContactBook.load(os.fspath(tmp_path / "none")).unlinked([]) == []
