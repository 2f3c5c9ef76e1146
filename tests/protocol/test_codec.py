"""Frames and their limits: what goes in comes out, and nothing else comes in."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from p2pfs.errors import LocalProtocolError, RemoteProtocolError
from p2pfs.protocol import fields
from p2pfs.protocol import messages as m
from p2pfs.protocol.codec import (
    HEADER,
    MAX_DATA_BYTES,
    MAX_REQUEST_ID,
    Data,
    Unknown,
    decode,
    encode,
    encode_data,
    fits_query,
)
from p2pfs.protocol.inbox import MAX_BODY_BYTES, MAX_FRAME_BYTES, TAG_BYTES
from p2pfs.protocol.manifest import EMPTY_FILE_ID, MAX_BLOCKS, MAX_FILE_BYTES
from p2pfs.protocol.names import MAX_PATH_BYTES
from p2pfs.protocol.registry import BODY_LIMITS, MESSAGE_TYPES
from tests.helpers import strategies

NUMBERS = {message: number for number, message in MESSAGE_TYPES.items()}
GUID = fields.Guid(bytes(16))
PEER = fields.PeerInfo(fields.ServentId("a" * 32), "n", ())
ENTRY = fields.Entry("a", 1, 1, bytes(32))
ADDRESS = fields.Address("h", 1)
HELLO = (m.LinkKind.TRANSFER, "n", 1, ADDRESS, (), "a")
QUERY = (GUID, 1, 0, m.QueryKind.WORDS, "w", 1, 1)
HIT = (GUID, 1, PEER, (), 0, bytes(32), bytes(64))


def put(values: tuple, index: int, value: object) -> tuple:
    return (*values[:index], value, *values[index + 1 :])


def frame(message_type: type[fields.Message], *fields: object, request_id: int = 0) -> bytes:
    """A frame as a peer that checks nothing would make it."""
    return HEADER.pack(NUMBERS[message_type], request_id) + msgspec.msgpack.encode(fields)


@pytest.mark.parametrize("message_type", MESSAGE_TYPES.values(), ids=lambda t: t.__name__)
@given(data=st.data(), request_id=strategies.request_ids)
def test_every_message_survives_the_round_trip(message_type, data, request_id):
    message = data.draw(strategies.BY_TYPE[message_type])
    assert decode(encode(message, request_id)) == (message, request_id)


def test_every_message_has_a_limit_and_a_strategy():
    assert set(BODY_LIMITS) == set(strategies.BY_TYPE) == set(MESSAGE_TYPES.values())


@given(strategies.request_ids, st.binary(min_size=1, max_size=2000), st.booleans())
def test_data_survives_the_round_trip(request_id, payload, is_last):
    decoded = decode(encode_data(request_id, memoryview(payload), is_last=is_last))
    assert decoded == Data(request_id, (memoryview(payload),), is_last)


def test_a_full_data_frame_fills_a_noise_message_exactly():
    plaintext = encode_data(1, bytes(MAX_DATA_BYTES), is_last=False)
    assert len(plaintext) + TAG_BYTES == MAX_FRAME_BYTES


def test_data_of_no_bytes_may_only_be_the_last():
    assert decode(encode_data(1, b"", is_last=True)) == Data(1, (memoryview(b""),), is_last=True)
    with pytest.raises(LocalProtocolError):
        encode_data(1, b"", is_last=False)
    with pytest.raises(RemoteProtocolError):
        decode(HEADER.pack(m.DATA, 1))


def test_data_over_a_frame_is_not_encoded():
    with pytest.raises(LocalProtocolError):
        encode_data(1, bytes(MAX_DATA_BYTES + 1), is_last=True)


@pytest.mark.parametrize("request_id", [-1, MAX_REQUEST_ID + 1])
def test_a_request_id_that_does_not_fit_is_not_encoded(request_id):
    with pytest.raises(LocalProtocolError):
        encode(m.Ping(), request_id)
    with pytest.raises(LocalProtocolError):
        encode_data(request_id, b"x", is_last=True)


@pytest.mark.parametrize("record", [ADDRESS, PEER, ENTRY], ids=lambda r: type(r).__name__)
def test_a_record_is_not_sent_by_itself(record):
    with pytest.raises(LocalProtocolError):
        encode(record)


def test_a_frame_without_a_whole_header_is_refused():
    for length in range(HEADER.size):
        with pytest.raises(RemoteProtocolError):
            decode(bytes(length))


@given(st.integers(0, 255).filter(lambda n: n not in {*MESSAGE_TYPES, m.DATA, m.DATA_END}))
def test_an_unknown_type_is_no_error_whatever_its_body(number):
    assert decode(HEADER.pack(number, 9) + b"\xc1 anything") == Unknown(number)


# Growth: a field added at the end is ignored, here and inside of records.


def test_fields_that_a_later_version_adds_are_ignored():
    peer = (PEER.id, PEER.name, (("h", 1, "more"),), "more", {"deeper": [1]})
    grown = frame(m.Introduce, GUID, peer, "more")
    assert decode(grown).message == m.Introduce(GUID, fields.PeerInfo(PEER.id, "n", (ADDRESS,)))


def test_optional_fields_may_be_missing():
    assert decode(frame(m.Reject, 1, "no")).message == m.Reject(m.RejectCode.NOT_FOUND, "no", 0)
    assert decode(frame(m.Bye, 1, "bye")).message == m.Bye(m.ByeCode.LEAVING, "bye", ())


@given(
    st.text(alphabet="wé\uac01", min_size=100, max_size=480),
    st.lists(st.integers(0, 1), max_size=2).map(tuple) | st.none(),
)
def test_a_query_that_is_taken_can_be_passed_on(text: str, terms: tuple[int, ...] | None):
    short = frame(m.Query, *put(QUERY, 4, text), terms)
    try:
        query = decode(short).message
    except RemoteProtocolError:
        return
    encode(replace(query, ttl=fields.MAX_TTL, hops=fields.MAX_TTL, echoes=True))


def test_a_query_counts_with_the_fields_that_it_leaves_out():
    short = frame(m.Query, *put(QUERY, 4, "w" * 480), (1,))
    assert len(short) <= HEADER.size + fields.MAX_QUERY_BYTES
    with pytest.raises(RemoteProtocolError):
        decode(short)


@pytest.mark.parametrize("ticket", [b"", bytes(fields.TICKET_BYTES)])
def test_a_ticket_is_whole_or_none(ticket: bytes):
    assert decode(frame(m.Relay, GUID, PEER.id, ticket)).message.ticket == ticket
    with pytest.raises(RemoteProtocolError):
        decode(frame(m.Relay, GUID, PEER.id, ticket[:5] or b"12345"))


# Bodies that are not MessagePack of the right shape.


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="a byte that MessagePack never uses"),
        pytest.param(b"\x90\x00", id="bytes behind the array"),
        pytest.param(b"\x80", id="a map instead of an array"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="an array of four billion"),
        pytest.param(b"\x91" * 100, id="arrays within arrays, cut short"),
    ],
)
def test_a_malformed_body_is_refused(body):
    with pytest.raises(RemoteProtocolError):
        decode(HEADER.pack(NUMBERS[m.Ping], 0) + body)


def test_depth_is_an_error_of_the_peer_not_of_the_stack():
    with pytest.raises(RemoteProtocolError):
        decode(HEADER.pack(NUMBERS[m.Listing], 0) + b"\x91" * MAX_BODY_BYTES)
    with pytest.raises(RemoteProtocolError):  # in a field that is skipped
        decode(HEADER.pack(NUMBERS[m.Listing], 0) + b"\x93\x90\xc2" + b"\x91" * 60_000 + b"\xc0")


def test_text_that_is_not_utf_8_is_refused():
    with pytest.raises(RemoteProtocolError):
        decode(HEADER.pack(NUMBERS[m.Reject], 0) + b"\x92\x01\xa2\xff\xfe")


@given(strategies.messages, st.data())
def test_a_body_cut_short_is_refused(message, data):
    plaintext = encode(message)
    cut = data.draw(st.integers(HEADER.size, len(plaintext) - 1))
    with pytest.raises(RemoteProtocolError):
        decode(plaintext[:cut])


# Limits: each is gone over by one.


@pytest.mark.parametrize("message_type", BODY_LIMITS, ids=lambda t: t.__name__)
def test_a_body_over_its_limit_is_refused_before_it_is_looked_at(message_type):
    body = bytes(BODY_LIMITS[message_type] + 1)
    with pytest.raises(RemoteProtocolError, match="over its limit"):
        decode(HEADER.pack(NUMBERS[message_type], 0) + body)


def test_a_body_of_its_limit_is_understood():
    shorter = frame(m.List, "music", "", 1, bytes(1_000))
    listed = frame(
        m.List, "music", "", 1, bytes(1_000 + HEADER.size + BODY_LIMITS[m.List] - len(shorter))
    )
    assert len(listed) == HEADER.size + BODY_LIMITS[m.List]
    assert decode(listed).message == m.List("music", "", 1)


def test_a_query_over_its_limit_is_not_sent():
    text = "ä" * fields.MAX_QUERY_TEXT_BYTES
    with pytest.raises(LocalProtocolError, match="over its limit"):
        encode(m.Query(*put(QUERY, 4, text)))


def test_a_query_of_the_longest_text_fits():
    text = "w" * fields.MAX_QUERY_TEXT_BYTES
    full = (fields.Guid(bytes(16)), 5, 5, m.QueryKind.WORDS, text, 50, fields.MAX_DEADLINE_MS)
    assert len(encode(m.Query(*full))) <= HEADER.size + fields.MAX_QUERY_BYTES


def test_what_is_too_long_for_a_query_is_known_before_it_is_asked():
    longest = "w" * fields.MAX_QUERY_TEXT_BYTES
    terms = fields.Terms(phrases=("p" * 200,) * 2)
    assert fits_query(longest)
    assert not fits_query(longest + "w")
    assert fits_query("w", fields.Terms(phrases=("p" * 200,)))
    assert not fits_query("w", fields.Terms(phrases=("p" * 200,) * 3))
    assert not fits_query("w" * 200, terms)


def test_a_hit_of_the_most_and_longest_results_fits_one_frame():
    address = fields.Address("h" * 253, 65_535)
    peer = fields.PeerInfo(PEER.id, "n" * fields.MAX_NAME_LENGTH, (address,) * fields.MAX_ADDRESSES)
    entry = fields.Entry("p" * MAX_PATH_BYTES, MAX_FILE_BYTES, -(2**63), bytes(32))
    entries = (entry,) * fields.MAX_RESULTS
    hit = m.QueryHit(GUID, 5, peer, entries, 2**32 - 1, bytes(32), bytes(64))
    assert decode(encode(hit)).message == hit


@pytest.mark.parametrize("mtime_ns", [-(2**63), -1, 2**63 - 1])
def test_times_of_all_centuries_travel(mtime_ns):
    listing = m.Listing((fields.Entry("a", 0, mtime_ns, EMPTY_FILE_ID),), has_more=False)
    assert decode(encode(listing)).message == listing


def test_a_bye_and_peers_of_the_most_and_longest_addresses_fit():
    address = fields.Address("h" * 253, 65_535)
    peer = fields.PeerInfo(PEER.id, "ä" * fields.MAX_NAME_LENGTH, (address,) * fields.MAX_ADDRESSES)
    bye = m.Bye(m.ByeCode.FULL, "ä" * 200, (peer,) * fields.MAX_ALTERNATIVES)
    peers = m.Peers((peer,) * fields.MAX_PEERS)
    for message in (bye, peers, m.Introduce(GUID, peer)):
        assert decode(encode(message)).message == message


def test_a_list_of_the_longest_paths_fits():
    path = "ä" * (MAX_PATH_BYTES // 2)
    assert decode(encode(m.List(path, path))).message == m.List(path, path)


BEYOND = {
    "guid of 15 bytes": (m.Walk, (bytes(15), 1)),
    "guid of 17 bytes": (m.Walk, (bytes(17), 1)),
    "guid that is text": (m.Walk, ("g" * 16, 1)),
    "walk of 11 steps": (m.Walk, (GUID, fields.WALK_STEPS + 1)),
    "walk of -1 steps": (m.Walk, (GUID, -1)),
    "ttl 0": (m.Query, put(QUERY, 1, 0)),
    "ttl 6": (m.Query, put(QUERY, 1, fields.MAX_TTL + 1)),
    "hops -1": (m.Query, put(QUERY, 2, -1)),
    "hops 6": (m.Query, put(QUERY, 2, fields.MAX_TTL + 1)),
    "unknown kind of query": (m.Query, put(QUERY, 3, 5)),
    "query text too long": (m.Query, put(QUERY, 4, "w" * (fields.MAX_QUERY_TEXT_BYTES + 1))),
    "limit 0": (m.Query, put(QUERY, 5, 0)),
    "limit 51": (m.Query, put(QUERY, 5, fields.MAX_RESULTS + 1)),
    "deadline -1": (m.Query, put(QUERY, 6, -1)),
    "deadline over 10 s": (m.Query, put(QUERY, 6, fields.MAX_DEADLINE_MS + 1)),
    "51 results": (m.QueryHit, put(HIT, 3, (ENTRY,) * (fields.MAX_RESULTS + 1))),
    "hit of ttl 6": (m.QueryHit, put(HIT, 1, fields.MAX_TTL + 1)),
    "total beyond 32 bits": (m.QueryHit, put(HIT, 4, 2**32)),
    "public key of 31 bytes": (m.QueryHit, put(HIT, 5, bytes(31))),
    "signature of 65 bytes": (m.QueryHit, put(HIT, 6, bytes(65))),
    "done of ttl 0": (m.Done, (GUID, 0, 0, 0, True)),
    "count beyond 32 bits": (m.Done, (GUID, 1, 2**32, 0, True)),
    "count below 0": (m.Done, (GUID, 1, 0, -1, True)),
    "a number for a truth": (m.Done, (GUID, 1, 0, 0, 1)),
    "501 entries": (m.Listing, ((("a", 0, 0, b""),) * (fields.MAX_LISTING + 1), False)),
    "path too long": (m.List, ("p" * (MAX_PATH_BYTES + 1), "")),
    "file too large": (m.Listing, ((("a", MAX_FILE_BYTES + 1, 0, bytes(32)),), False)),
    "size below 0": (m.Listing, ((("a", -1, 0, bytes(32)),), False)),
    "time beyond 63 bits": (m.Listing, ((("a", 1, 2**63, bytes(32)),), False)),
    "file id of 31 bytes": (m.Listing, ((("a", 1, 0, bytes(31)),), False)),
    "size 0 of a content that is not empty": (m.Listing, ((("a", 0, 0, bytes(32)),), False)),
    "size 1 of the empty file": (m.Listing, ((("a", 1, 0, EMPTY_FILE_ID),), False)),
    "size 1 of a directory": (m.QueryHit, put(HIT, 3, (("a", 1, 0, b""),))),
    "file id of 33 bytes": (m.GetManifest, (bytes(33),)),
    "file id of no bytes": (m.GetManifest, (b"",)),
    "block beyond the last": (m.GetBlocks, (bytes(32), (MAX_BLOCKS,))),
    "block -1": (m.GetBlocks, (bytes(32), (-1,))),
    "no block": (m.GetBlocks, (bytes(32), ())),
    "17 blocks": (m.GetBlocks, (bytes(32), (0,) * (fields.MAX_BLOCKS_ASKED + 1))),
    "17 peers": (m.Peers, ((PEER,) * (fields.MAX_PEERS + 1),)),
    "11 alternatives": (m.Bye, (2, "", (PEER,) * (fields.MAX_ALTERNATIVES + 1))),
    "unknown bye": (m.Bye, (99, "")),
    "bye text too long": (m.Bye, (1, "t" * (fields.MAX_REASON_LENGTH + 1))),
    "reject text too long": (m.Reject, (1, "t" * (fields.MAX_REASON_LENGTH + 1))),
    "unknown reject": (m.Reject, (0, "")),
    "unknown kind of link": (m.Hello, put(HELLO, 0, 3)),
    "port 65,536": (m.Hello, put(HELLO, 2, 65_536)),
    "name too long": (m.Hello, put(HELLO, 1, "n" * (fields.MAX_NAME_LENGTH + 1))),
    "agent too long": (m.Hello, put(HELLO, 5, "n" * (fields.MAX_NAME_LENGTH + 1))),
    "5 addresses": (m.Hello, put(HELLO, 4, (ADDRESS,) * (fields.MAX_ADDRESSES + 1))),
    "host of no characters": (m.Hello, put(HELLO, 3, ("", 1))),
    "host of 254 characters": (m.Hello, put(HELLO, 3, ("h" * (fields.MAX_HOST_LENGTH + 1), 1))),
    "host with a space": (m.Hello, put(HELLO, 3, ("a b", 1))),
    "host with a newline": (m.Hello, put(HELLO, 3, ("a\n", 1))),
    "host that is not ASCII": (m.Hello, put(HELLO, 3, ("ä", 1))),
    "servent id of 31 characters": (m.Introduce, (GUID, ("a" * 31, "n", ()))),
    "servent id with a newline": (m.Introduce, (GUID, ("a" * 32 + "\n", "n", ()))),
    "servent id in upper case": (m.Introduce, (GUID, ("A" * 32, "n", ()))),
    "a missing field": (m.Introduce, (GUID,)),
}


@pytest.mark.parametrize(("message_type", "fields"), BEYOND.values(), ids=BEYOND)
def test_a_value_out_of_bounds_is_refused(message_type, fields):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        decode(frame(message_type, *fields))


@pytest.mark.parametrize(
    ("message_type", "fields"),
    [(m.Hello, HELLO), (m.Query, QUERY), (m.QueryHit, HIT), (m.Introduce, (GUID, PEER))],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_values_that_are_put_out_of_bounds_above_are_within_them(message_type, fields):
    assert decode(frame(message_type, *fields)).message == message_type(*fields)
