"""Whatever a peer sends, only its own errors come out: the one oracle of the wire.

`P2PFS_FUZZ_EXAMPLES` in the environment makes it look longer than in an ordinary run.
"""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from p2pfs.errors import HandshakeError, LocalProtocolError, RemoteProtocolError
from p2pfs.protocol import (
    Connection,
    Data,
    FileId,
    Manifest,
    Received,
    Role,
    State,
    Unknown,
    check_hit,
    check_path,
)
from p2pfs.protocol import messages as m
from p2pfs.protocol.codec import HEADER, decode, encode
from p2pfs.protocol.connection import MAGIC, VERSION
from p2pfs.protocol.registry import BODY_LIMITS, MESSAGE_TYPES
from tests.helpers import strategies
from tests.helpers.connections import IDENTITIES, OPEN, ConnectionPair, events_of

fuzz = settings(max_examples=int(os.environ.get("P2PFS_FUZZ_EXAMPLES", "100")))

NUMBERS = st.sampled_from([*MESSAGE_TYPES, m.DATA, m.DATA_END]) | st.integers(0, 255)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=70)
    | strategies.servent_ids
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)
"""Anything that MessagePack can say, near to what messages hold."""

bodies = (
    st.binary(max_size=700)
    | st.lists(values, max_size=9).map(msgspec.msgpack.encode)
    | values.map(msgspec.msgpack.encode)
)
frames = st.builds(lambda n, r, body: HEADER.pack(n, r) + body, NUMBERS, st.integers(0, 9), bodies)


@st.composite
def mutants(draw, messages=strategies.messages) -> bytes:
    """A good frame with some bytes changed, put in or taken out."""
    frame = bytearray(encode(draw(messages)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(frame)))
        end = draw(st.integers(start, min(len(frame), start + 4)))
        frame[start:end] = draw(st.binary(max_size=4))
    return bytes(frame)


@fuzz
@given(frames | mutants() | st.binary(max_size=300))
def test_a_frame_is_understood_or_is_the_peers_fault(frame):
    try:
        decoded = decode(frame)
    except RemoteProtocolError:
        return
    match decoded:
        case Received(message, request_id):
            # What decodes is within every limit, so it can be passed on.
            again = encode(message, request_id)
            assert len(again) <= HEADER.size + BODY_LIMITS[type(message)]
            assert decode(again) == decoded
        case Data():
            assert decoded.size == len(frame) - HEADER.size
        case _:
            assert isinstance(decoded, Unknown)


@fuzz
@given(strategies.BY_TYPE[m.QueryHit])
def test_a_made_up_hit_is_the_peers_fault(hit):
    with pytest.raises(RemoteProtocolError):
        check_hit(hit)


@fuzz
@given(st.binary(max_size=200), st.binary(min_size=32, max_size=32))
def test_a_manifest_is_the_one_asked_for_or_is_the_peers_fault(data, file_id):
    try:
        manifest = Manifest.from_bytes(data, FileId(file_id))
    except RemoteProtocolError:
        return
    assert manifest.file_id == file_id


@fuzz
@given(st.text(max_size=300))
def test_a_path_is_accepted_or_there_is_a_reason(path):
    assert check_path(path) is None or isinstance(check_path(path), str)


preface = MAGIC + bytes([VERSION]) + bytes(16)
openings = st.one_of(
    st.binary(max_size=100),
    st.binary(max_size=300).map(lambda tail: preface + tail),
    st.binary(max_size=300).map(lambda tail: preface + len(tail).to_bytes(2, "big") + tail),
    st.binary(max_size=20).map(lambda tail: MAGIC + tail),
)


@fuzz
@given(st.sampled_from(Role), st.lists(openings, min_size=1, max_size=4))
def test_a_stranger_gets_nothing_but_a_handshake_error(role, pieces):
    connection = Connection(role, IDENTITIES[role], OPEN)
    connection.start()
    try:
        for piece in [*pieces, b""]:
            connection.receive_data(piece)
            events = events_of(connection)
            assume(connection.state is not State.RELAYED)  # a ticket: the owner judges it
            assert events == []
    except HandshakeError as error:
        text = str(error)
    else:
        text = ""  # the end of the stream is an error as well, so this must not be
    assert text
    assert text.isprintable()
    assert connection.state in (State.PREFACE, State.NOISE)


@fuzz
@given(
    st.sampled_from([s for s in State if s not in (State.PREFACE, State.NOISE, State.CLOSED)]),
    st.sampled_from(Role),
    st.lists(frames | mutants(), max_size=4),
    st.binary(max_size=40),
)
def test_a_greeted_peer_gets_nothing_but_a_remote_protocol_error(state, role, plaintexts, tail):
    pair = ConnectionPair().reach(state)
    rogue = pair.ends[role]._handshake
    for plaintext in plaintexts:
        frame = rogue.encrypt(plaintext)
        pair.ends[role.other].receive_data(len(frame).to_bytes(2, "big") + frame)
    pair.ends[role.other].receive_data(tail)
    pair.ends[role.other].receive_data(b"")
    try:
        events_of(pair.ends[role.other])
    except RemoteProtocolError:
        assert pair.ends[role.other].state is not State.CLOSED
    assert pair.ends[role.other].state not in (State.PREFACE, State.NOISE)


@fuzz
@given(st.lists(strategies.messages, max_size=6), st.sampled_from(m.LinkKind))
def test_what_one_end_agrees_to_send_the_other_agrees_to_hear(messages, kind):
    pair = ConnectionPair().reach(State[kind.name])
    sender = pair.ends[Role.INITIATOR]
    for message in messages:
        if sender.state is State.CLOSED:
            break
        try:
            data = sender.send(message)
        except LocalProtocolError:
            continue
        assert pair.deliver(Role.RESPONDER, data) == [Received(message, 0)]
    assert pair.ends[Role.RESPONDER].state is sender.state
