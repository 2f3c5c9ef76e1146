"""Links to files: what is written is read, and each thing wrong with one has its own words."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.endpoints import Endpoint
from p2pfs.filelinks import MAX_LINK, FileLink, parse_file_link
from p2pfs.invitations import Invited

ID = "0123456789abcdef" * 4
SERVENT = "abcdefghijklmnopqrstuvwxyz234567"

places = st.builds(
    Endpoint,
    st.sampled_from(["203.0.113.9", "10.0.0.1", "2001:db8::5"]),
    st.integers(1024, 65_535),
)
names = st.text(max_size=30).filter(lambda text: text.isprintable() and "/" not in text)


@given(
    digits=st.text("0123456789abcdef", min_size=64, max_size=64),
    name=names,
    size=st.none() | st.integers(0, 2**40),
    network=st.sampled_from(["", "3fa2"]),
    holders=st.lists(places, max_size=3).map(
        lambda found: (Invited(SERVENT, tuple(found)),) if found else ()
    ),
    scheme=st.sampled_from(["p2pfs", "peerfs", "P2PFS"]),
)
def test_what_is_written_is_read(digits, name, size, network, holders, scheme):
    link = FileLink(digits, name, size, network, holders)

    assert parse_file_link(link.text(scheme)) == link


def test_a_link_is_one_word_that_people_can_read():
    link = FileLink(
        ID, "blue whale&co.mkv", 700, "3fa2", (Invited(SERVENT, (Endpoint("2001:db8::5", 4774),)),)
    )

    assert link.text() == (
        f"p2pfs:file/{ID}?name=blue%20whale%26co.mkv&size=700&net=3fa2"
        f"&via={SERVENT}@[2001:db8::5]:4774"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "that is no link to a file"),
        ("http://example.org/x", "that is no link to a file"),
        (ID, "that is no link to a file: one begins with p2pfs:file/"),
        (f"p2pfs:file/{ID}?name={'a' * MAX_LINK}", "this link is too long"),
        ("p2pfs:join/AEAAA", "that is an invitation, not a link to a file: `p2pfs join`"),
        ("p2pfs:folder/AEAAA", "of another version of p2pfs"),
        ("p2pfs:", "of another version of p2pfs"),
        (f"p2pfs:file/{ID[:-1]}", "is not whole: its file id has 63 digits, and not 64"),
        ("p2pfs:file/", "is not whole: its file id has 0 digits"),
        (f"p2pfs:file/{ID}0", "is damaged: its file id has 65 digits"),
        (f"p2pfs:file/{ID[:9]}x{ID[10:]}", "'x' at place 10 is in no file id"),
        (f"p2pfs:file/{ID}?name=a%2Fb", "its name cannot be the name of a file"),
        (f"p2pfs:file/{ID}?name=%1b[31m", "its name cannot be the name of a file"),
        (f"p2pfs:file/{ID}?name=%ff", "its name cannot be the name of a file"),
        (f"p2pfs:file/{ID}?size=much", "its size is no number"),
        (f"p2pfs:file/{ID}?via=1.2.3.4:4774", "where the file was is no SERVENT@ADDRESS:PORT"),
        (f"p2pfs:file/{ID}?via={SERVENT}@1.2.3.4", "is no SERVENT@ADDRESS:PORT"),
        (f"p2pfs:file/{ID}?via={SERVENT}@printer.local:9100", "is no SERVENT@ADDRESS:PORT"),
        (f"p2pfs:file/{ID}?via={SERVENT}@1.2.3.400:9100", "is no SERVENT@ADDRESS:PORT"),
        (f"p2pfs:file/{ID}?via={SERVENT}@1.2.3.4:70000", "is no SERVENT@ADDRESS:PORT"),
        (f"p2pfs:file/{ID}?via={SERVENT}@1.2.3.4:80", "leads to port 80, where no servent is"),
    ],
)
def test_each_thing_that_is_wrong_with_a_link_has_its_own_words(text, complaint):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_file_link(text)

    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_another_version_adds_does_no_harm():
    assert parse_file_link(f"p2pfs:file/{ID}?colour=blue&name=a") == FileLink(ID, "a")


@given(st.text(string.printable, max_size=200) | st.text(max_size=50))
def test_a_link_is_read_or_is_a_value_error(text):
    try:
        link = parse_file_link(f"p2pfs:file/{text}")
    except ValueError:
        return
    assert len(link.digits) == 64
