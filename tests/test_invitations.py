"""Invitations: what is written is read again, and each damage has its own words."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.endpoints import Endpoint
from p2pfs.invitations import (
    MAX_ADDRESSES,
    MAX_KEY_BYTES,
    MAX_SERVENTS,
    Invitation,
    Invited,
    _armoured,
    is_of_ours,
    parse_invitation,
)

ID = "3pz4jios6nrfqcbywzv3agbq2k4hlbp4"
OPEN = Invitation(1_800_000_000, (Invited(ID, (Endpoint("203.0.113.9", 4774),)),))
PRIVATE = Invitation(
    0, (Invited(ID, (Endpoint("fd00::1", 4774), Endpoint("h.example", 1))),), b"word"
)

ids = st.binary(min_size=20, max_size=20).map(lambda raw: base64.b32encode(raw).decode().lower())
hosts = st.ip_addresses().map(str) | st.from_regex(r"[a-z][a-z0-9-]{0,20}\.example", fullmatch=True)
places = st.builds(Endpoint, hosts, st.integers(1, 65_535))
servents = st.builds(Invited, ids, st.lists(places, min_size=1, max_size=MAX_ADDRESSES).map(tuple))
invitations = st.builds(
    Invitation,
    st.integers(0, 2**32 - 1),
    st.lists(servents, min_size=1, max_size=MAX_SERVENTS).map(tuple),
    st.none() | st.binary(min_size=1, max_size=MAX_KEY_BYTES),
)


@given(invitations)
def test_what_is_written_is_read_again(invitation: Invitation):
    text = str(invitation)
    assert parse_invitation(text) == invitation
    assert parse_invitation(text.upper()) == invitation
    assert parse_invitation(text.replace("p2pfs", "peerfs")) == invitation
    assert parse_invitation(text[:30] + "\n " + text[30:]) == invitation


@given(invitations, st.data())
def test_no_changed_character_passes(invitation: Invitation, data: st.DataObject):
    head, word = str(invitation).split("/")
    place = data.draw(st.integers(0, len(word) - 2))  # the last holds bits that mean nothing
    other = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567").filter(
        lambda one: one != word[place]))  # fmt: skip
    with pytest.raises(ValueError, match="this invitation"):
        parse_invitation(f"{head}/{word[:place]}{other}{word[place + 1 :]}")


@given(st.text())
def test_no_text_makes_it_stumble(text: str):
    for line in (text, f"p2pfs:join/{text}"):
        try:
            parse_invitation(line)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - it may also be right


@given(st.binary(max_size=200))
def test_no_bytes_with_a_right_check_make_it_stumble(data: bytes):
    try:
        parse_invitation(f"p2pfs:join/{_armoured(b'' + data)}")
    except ValueError as error:
        assert str(error).startswith(("this invitation", "that is"))  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.0.0.1:4774", "not an invitation"),
        (str(OPEN)[:-1], "missing"),
        (str(OPEN)[:-8], "damaged: a character is wrong"),
        (str(OPEN).replace("/", "/0", 1), "'0' at place 1"),
        (f"p2pfs:join/{_armoured(bytes([2]) * 9)}", "another version"),
        (f"p2pfs:join/{_armoured(bytes([1]) + bytes(5))}", "names nobody"),
        (f"p2pfs:join/{_armoured(bytes([1]) + bytes(6))}", "makes no sense"),
    ],
)
def test_each_damage_has_its_own_words(text: str, told: str):
    with pytest.raises(ValueError, match=told):
        parse_invitation(text)


def test_an_invitation_of_today_is_read_for_ever():
    text = "p2pfs:join/AFVUTUQAADN7HRFB2LZWEWAIHC3GXMAYGDJLQ5MF7QAQBSYAOEERFJX34F26Y"
    assert parse_invitation(text) == OPEN
    assert str(OPEN) == text


@pytest.mark.parametrize(
    ("ends_at", "now", "has_ended"), [(0, 9, False), (9, 8, False), (9, 9, True)]
)
def test_an_invitation_ends_when_it_says(ends_at: int, now: float, has_ended: bool):
    assert Invitation(ends_at, OPEN.servents).has_ended(now) is has_ended


def test_what_is_meant_for_us_is_known_by_its_scheme():
    assert all(map(is_of_ours, ("p2pfs:join/X", "PEERFS:JOIN/X")))
    assert not any(map(is_of_ours, ("host:4774", "host", "[::1]:4774")))
