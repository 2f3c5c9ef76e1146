"""One link's state machine: the order of things, what is at the other end, and tampering."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfs.errors import HandshakeError, LocalProtocolError, RemoteProtocolError
from p2pfs.protocol import fields
from p2pfs.protocol import messages as m
from p2pfs.protocol.codec import (
    HEADER,
    MAX_DATA_BYTES,
    Data,
    Received,
    Unknown,
    encode,
    encode_data,
)
from p2pfs.protocol.connection import (
    FRAMES_TOGETHER,
    MAGIC,
    NEED_DATA,
    PREFACE_BYTES,
    VERSION,
    Connection,
    Ended,
    Greeted,
    Ticket,
    presentation,
)
from p2pfs.protocol.handshake import MAX_HANDSHAKE_BYTES, NetworkKey, Role
from p2pfs.protocol.registry import MESSAGE_TYPES
from p2pfs.protocol.states import STEPS, TRANSITIONS, State, Step
from tests.helpers import strategies
from tests.helpers.connections import (
    IDENTITIES,
    OPEN,
    PRIVATE,
    ConnectionPair,
    by_byte,
    by_frame,
    by_receive,
    events_of,
    feed,
    hello,
    whole,
)

SAMPLES = {
    Step.HELLO_NEIGHBOUR: hello(m.LinkKind.NEIGHBOUR),
    Step.HELLO_TRANSFER: hello(m.LinkKind.TRANSFER),
    Step.CONTROL: m.GetPeers(),
    Step.TRANSFER: m.GetBlocks(bytes(32), (0,)),
    Step.KEEP_ALIVE: m.Ping(),
    Step.BYE: m.Bye(m.ByeCode.LEAVING, "bye"),
}
"""A message for each step that is one."""

TALKING = [s for s in State if s not in (State.PREFACE, State.NOISE, State.RELAYED, State.CLOSED)]


def dial(network_key: NetworkKey = OPEN) -> Connection:
    connection = Connection(Role.INITIATOR, IDENTITIES[Role.INITIATOR], network_key)
    connection.start()
    return connection


def smuggle(pair: ConnectionPair, role: Role, plaintext: bytes) -> bytes:
    """The bytes of a frame that an honest end would not send."""
    frame = pair.ends[role]._handshake.encrypt(plaintext)
    return len(frame).to_bytes(2, "big") + frame


# The way to an open link.


@pytest.mark.parametrize("cut", [whole, by_byte])
@pytest.mark.parametrize("key", [OPEN, PRIVATE], ids=["XX", "XXpsk3"])
def test_both_ends_learn_who_the_other_is(key, cut):
    pair = ConnectionPair(key, cut=cut)
    assert {event.peer_id for event in pair.greet()} == {i.id for i in IDENTITIES.values()}
    assert pair.states == {State.GREETED}


@pytest.mark.parametrize("kind", m.LinkKind)
def test_hello_and_its_answer_open_a_link_of_their_kind(kind):
    pair = ConnectionPair()
    pair.greet()
    assert pair.say(Role.INITIATOR, hello(kind)) == [Received(hello(kind), 0)]
    assert pair.say(Role.RESPONDER, hello(kind)) == [Received(hello(kind), 0)]
    assert pair.states == {State[kind.name]}


def test_the_responder_sends_its_preface_without_waiting():
    responder = Connection(Role.RESPONDER, IDENTITIES[Role.RESPONDER], PRIVATE)
    assert responder.start() == MAGIC + bytes([VERSION]) + PRIVATE.network_id


def test_what_next_event_wants_sent_is_given_once():
    pair = ConnectionPair()
    responder = pair.ends[Role.RESPONDER]
    responder.receive_data(pair.ends[Role.INITIATOR].start())
    assert events_of(responder) == []
    assert responder.data_to_send()
    assert responder.data_to_send() == b""


# Every row of the state table, and everything that is not in it.


@pytest.mark.parametrize(
    ("state", "role", "step"),
    [*itertools.product(TALKING, Role, SAMPLES)],
    ids=lambda value: value.value,
)
def test_a_step_is_taken_if_the_table_has_it_and_refused_at_both_ends_if_not(state, role, step):
    pair = ConnectionPair().reach(state)
    message = SAMPLES[step]
    following = TRANSITIONS.get((state, role, step))
    if following is not None:
        assert pair.say(role, message, 7) == [Received(message, 7)]
        assert pair.states == {following}
        return
    with pytest.raises(LocalProtocolError):
        pair.ends[role].send(message)
    with pytest.raises(RemoteProtocolError, match="out of place"):
        pair.deliver(role.other, smuggle(pair, role, encode(message)))
    assert pair.states == {state}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("state", TALKING)
def test_data_and_unknown_types_follow_the_table_too(state, role):
    data = encode_data(3, b"bytes", is_last=True)
    unknown = HEADER.pack(0xEE, 0) + b"from the future"
    for plaintext, step, events in (
        (data, Step.TRANSFER, [Data(3, (memoryview(b"bytes"),), is_last=True)]),
        (unknown, Step.UNKNOWN, [Unknown(0xEE)]),
    ):
        pair = ConnectionPair().reach(state)
        stolen = smuggle(pair, role, plaintext)
        if (state, role, step) in TRANSITIONS:
            assert pair.deliver(role.other, stolen) == events
        else:
            with pytest.raises(RemoteProtocolError, match="out of place"):
                pair.deliver(role.other, stolen)


@pytest.mark.parametrize("state", [s for s in TALKING if s is not State.TRANSFER])
def test_data_is_sent_on_transfer_links_alone(state):
    pair = ConnectionPair().reach(state)
    with pytest.raises(LocalProtocolError):
        pair.ends[Role.RESPONDER].send_data(1, b"x", is_last=True)


@pytest.mark.parametrize("state", [State.PREFACE, State.NOISE])
def test_nothing_is_sent_before_the_greeting(state):
    connection = dial()
    if state is State.NOISE:
        feed(connection, [MAGIC + bytes([VERSION]) + bytes(16)])
    assert connection.state is state
    with pytest.raises(LocalProtocolError):
        connection.send(m.Bye(m.ByeCode.LEAVING, ""))


@pytest.mark.parametrize("message_type", MESSAGE_TYPES.values(), ids=lambda t: t.__name__)
@given(data=st.data())
@settings(max_examples=10)
def test_every_message_crosses_the_link_that_it_is_for(message_type, data):
    message = data.draw(strategies.BY_TYPE[message_type])
    step = STEPS.get(message_type)
    state = {Step.TRANSFER: State.TRANSFER, None: State.GREETED}.get(step, State.NEIGHBOUR)
    pair = ConnectionPair().reach(state)
    assert pair.say(Role.INITIATOR, message, 1) == [Received(message, 1)]


def test_every_type_is_a_step():
    assert {*STEPS, m.Hello} == {*MESSAGE_TYPES.values(), Data, Unknown}


def test_a_message_over_its_limit_is_not_sent_and_changes_nothing():
    pair = ConnectionPair().reach(State.NEIGHBOUR)
    query = m.Query(fields.Guid(bytes(16)), 1, 0, m.QueryKind.WORDS, "ä" * 480, 1, 1)
    with pytest.raises(LocalProtocolError):
        pair.ends[Role.INITIATOR].send(query)
    assert pair.say(Role.INITIATOR, m.Ping(), 1) == [Received(m.Ping(), 1)]


# The end.


def test_nothing_follows_a_bye():
    pair = ConnectionPair().reach(State.NEIGHBOUR)
    late = pair.ends[Role.RESPONDER].send(m.Ping())
    pair.say(Role.INITIATOR, SAMPLES[Step.BYE])
    assert pair.states == {State.CLOSED}
    for connection in pair.ends.values():
        assert connection.next_event() == Ended()
        with pytest.raises(LocalProtocolError):
            connection.send(m.Ping())
    assert feed(pair.ends[Role.INITIATOR], [late]) == [Ended()]


def test_what_arrives_together_with_a_bye_and_behind_it_is_dropped():
    pair = ConnectionPair().reach(State.NEIGHBOUR)
    bye = pair.ends[Role.INITIATOR].send(SAMPLES[Step.BYE])
    responder = pair.ends[Role.RESPONDER]
    responder.receive_data(bye + b"and more")
    assert [responder.next_event() for _ in range(2)] == [Received(SAMPLES[Step.BYE], 0), Ended()]


@pytest.mark.parametrize("state", TALKING)
def test_a_stream_may_end_in_any_state(state):
    pair = ConnectionPair().reach(state)
    pair.ends[Role.INITIATOR].receive_data(b"")
    assert pair.ends[Role.INITIATOR].next_event() == Ended()
    assert pair.ends[Role.INITIATOR].next_event() == Ended()


def test_a_stream_that_ends_in_the_middle_of_a_frame_has_ended_and_the_frame_is_lost():
    pair = ConnectionPair().reach(State.NEIGHBOUR)
    frame = pair.ends[Role.INITIATOR].send(m.Ping())
    responder = pair.ends[Role.RESPONDER]
    assert feed(responder, [frame[:-1]]) == []
    responder.receive_data(b"")
    assert responder.next_event() == Ended()


def test_an_error_is_final_for_hearing_and_a_bye_can_still_tell_it():
    pair = ConnectionPair().reach(State.NEIGHBOUR)
    responder = pair.ends[Role.RESPONDER]
    good = pair.ends[Role.INITIATOR].send(m.Ping())
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="decrypt"):
            feed(responder, [b"\0\x20" + bytes(32)])
    responder.receive_data(good)
    with pytest.raises(RemoteProtocolError, match="decrypt"):
        responder.next_event()
    bye = m.Bye(m.ByeCode.PROTOCOL, "broken")
    assert pair.say(Role.RESPONDER, bye) == [Received(bye, 0)]


# What is at the other end.

STRANGERS = {
    b"HTTP/1.1 400 Bad Request\r\n\r\n": r"web server \(HTTP\)",
    b'<!DOCTYPE HTML>\n<html lang="en">': r"web server \(HTML\)",
    b"<html>\r\n<head><title>400 Bad Request": r"web server \(HTML\)",
    b"GET / HTTP/1.1\r\n": "web client",
    b"POST /login HTTP/1.1\r\n": "web client",
    b"\x15\x03\x01\x00\x02\x02\x46": "TLS service",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": "TLS client",
    b"SSH-2.0-OpenSSH_9.6\r\n": "SSH",
    b"220 mail.example ESMTP\r\n": "says b'220 mail'",
    b"\x1b[31mred\x1b[0m": r"says b'\\x1b\[31mred'",
}


@pytest.mark.parametrize("cut", [whole, by_byte])
@pytest.mark.parametrize(("says", "text"), STRANGERS.items(), ids=STRANGERS.values())
def test_the_error_says_what_answered(says, text, cut):
    with pytest.raises(HandshakeError, match=text):
        feed(dial(), cut(says))


def test_another_version_and_another_network_are_told_apart():
    with pytest.raises(HandshakeError, match="protocol version 2, and this one has 1"):
        feed(dial(), [MAGIC + bytes([VERSION + 1]) + PRIVATE.network_id])
    with pytest.raises(HandshakeError, match="another network"):
        feed(dial(), [MAGIC + bytes([VERSION]) + PRIVATE.network_id])
    with pytest.raises(HandshakeError, match="another network"):
        feed(dial(PRIVATE), [MAGIC + bytes([VERSION]) + OPEN.network_id])


def test_who_hangs_up_during_the_handshake_is_told_so():
    said = Connection(Role.RESPONDER, IDENTITIES[Role.RESPONDER], OPEN).start()
    for length in range(PREFACE_BYTES + 1):
        connection = dial()
        assert feed(connection, by_byte(said[:length])) == []
        connection.receive_data(b"")
        with pytest.raises(HandshakeError, match="closed during the handshake"):
            connection.next_event()


def test_a_stranger_who_says_little_and_hangs_up_is_quoted():
    connection = dial()
    assert feed(connection, [b"421"]) == []
    connection.receive_data(b"")
    with pytest.raises(HandshakeError, match="says b'421'"):
        connection.next_event()


def test_a_handshake_message_over_its_limit_is_refused_before_it_arrives():
    preface = MAGIC + bytes([VERSION]) + bytes(16)
    connection = dial()
    assert feed(connection, [preface + MAX_HANDSHAKE_BYTES.to_bytes(2, "big")]) == []
    with pytest.raises(HandshakeError, match="too long"):
        feed(dial(), [preface + (MAX_HANDSHAKE_BYTES + 1).to_bytes(2, "big")])


def test_a_servent_that_cannot_do_the_handshake_is_refused():
    preface = MAGIC + bytes([VERSION]) + bytes(16)
    with pytest.raises(HandshakeError, match="damaged"):
        feed(dial(), [preface + b"\0\x60" + bytes(96)])


# Bytes in pieces, and bytes that were tampered with.


@given(st.lists(strategies.messages, max_size=4), st.data())
@settings(max_examples=40)
def test_the_pieces_in_which_bytes_arrive_make_no_difference(messages, data):
    pair = ConnectionPair().reach(State.NEIGHBOUR)
    sent = [message for message in messages if STEPS.get(type(message)) is Step.CONTROL]
    stream = b"".join(pair.ends[Role.INITIATOR].send(message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=9)))
    # An empty piece would mean the end of the stream.
    pieces = [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)]) if a < b]
    received = feed(pair.ends[Role.RESPONDER], pieces)
    assert received == [Received(message, 0) for message in sent]


def test_byte_by_byte_equals_all_at_once_from_preface_to_bye():
    transcripts = []
    for cut in (whole, by_byte):
        pair = ConnectionPair(cut=cut)
        events = pair.greet()
        for role in Role:
            events += pair.say(role, hello(m.LinkKind.TRANSFER))
        events += pair.say(Role.INITIATOR, m.GetBlocks(bytes(32), (3,)), 9)
        data = pair.ends[Role.RESPONDER].send_data(9, b"x" * 1000, is_last=True)
        events += pair.deliver(Role.INITIATOR, data)
        events += pair.say(Role.RESPONDER, SAMPLES[Step.BYE])
        transcripts.append(events)
    assert transcripts[0] == transcripts[1]
    assert [type(event) for event in transcripts[0]] == [Greeted] * 2 + [Received] * 3 + [
        Data,
        Received,
    ]


@given(st.data())
@settings(max_examples=100)
def test_a_stream_with_any_bit_changed_gives_nothing_from_there_on(data):
    pair = ConnectionPair().reach(State.NEIGHBOUR)
    frames = [pair.ends[Role.INITIATOR].send(m.Ping(), number) for number in range(3)]
    stream = bytearray(b"".join(frames))
    position = data.draw(st.integers(0, len(stream) - 1))
    stream[position] ^= 1 << data.draw(st.integers(0, 7))
    responder = pair.ends[Role.RESPONDER]
    responder.receive_data(stream)
    received = []
    # A length that grew makes it wait for bytes; anything else is an error at once.
    with contextlib.suppress(RemoteProtocolError):
        while isinstance(event := responder.next_event(), Received):
            received.append(event)
    assert received == [Received(m.Ping(), number) for number in range(position // len(frames[0]))]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda a, b, c: a + c, id="one is missing"),
        pytest.param(lambda a, b, c: b + a + c, id="two changed places"),
        pytest.param(lambda a, b, c: a + a, id="one comes twice"),
        pytest.param(lambda a, b, c: a + b"\0\0" + b, id="an empty frame"),
    ],
)
def test_frames_that_were_moved_are_refused(spoil):
    pair = ConnectionPair().reach(State.NEIGHBOUR)
    frames = [pair.ends[Role.INITIATOR].send(m.Ping()) for _ in range(3)]
    with pytest.raises(RemoteProtocolError, match="decrypt"):
        feed(pair.ends[Role.RESPONDER], [spoil(*frames)])


def test_a_frame_does_not_come_back_to_its_sender():
    pair = ConnectionPair().reach(State.NEIGHBOUR)
    frame = pair.ends[Role.INITIATOR].send(m.Ping())
    with pytest.raises(RemoteProtocolError, match="decrypt"):
        feed(pair.ends[Role.INITIATOR], [frame])


# Bulk.


def test_a_block_crosses_in_full_frames():
    pair = ConnectionPair().reach(State.TRANSFER)
    block = bytes(range(256)) * 1024
    stream = pair.ends[Role.RESPONDER].send_data(5, memoryview(block), is_last=True)
    events = feed(pair.ends[Role.INITIATOR], [stream])
    full, rest = events
    assert b"".join((*full.pieces, *rest.pieces)) == block
    assert list(map(len, full.pieces)) == [MAX_DATA_BYTES] * 4
    assert (full.is_last, rest.is_last) == (False, True)


@pytest.mark.parametrize("pieces", [whole, by_frame, by_receive])
def test_what_crosses_in_full_frames_comes_out_the_same_however_it_arrives(pieces):
    pair = ConnectionPair().reach(State.TRANSFER)
    send = pair.ends[Role.RESPONDER].send_data
    said = [(5, bytes([1]) * 3 * MAX_DATA_BYTES), (6, bytes([2]) * 2 * MAX_DATA_BYTES), (5, b"3")]
    stream = b"".join(send(number, data, is_last=False) for number, data in said)
    stream += send(6, bytes([4]) * MAX_DATA_BYTES, is_last=True)
    stream += send(6, bytes([5]) * MAX_DATA_BYTES, is_last=True)  # not to be had for the same
    heard = [
        (event.request_id, bytes(piece), event.is_last)
        for event in feed(pair.ends[Role.INITIATOR], pieces(stream))
        for piece in event.pieces
    ]
    frames = [(5, 1, False)] * 3 + [(6, 2, False)] * 2 + [(5, None, False)] + [(6, 4, True)]
    frames += [(6, 5, True)]
    assert heard == [
        (number, b"3" if byte is None else bytes([byte]) * MAX_DATA_BYTES, is_last)
        for number, byte, is_last in frames
    ]


def test_an_end_in_a_full_frame_is_told_alone():
    pair = ConnectionPair().reach(State.TRANSFER)
    send = pair.ends[Role.RESPONDER].send_data
    stream = b"".join(send(5, bytes(MAX_DATA_BYTES), is_last=True) for _ in range(2))
    events = feed(pair.ends[Role.INITIATOR], [stream])
    assert [(event.size, event.is_last) for event in events] == [(MAX_DATA_BYTES, True)] * 2


def test_so_many_full_frames_are_told_at_once():
    pair = ConnectionPair().reach(State.TRANSFER)
    count = FRAMES_TOGETHER + 1
    stream = pair.ends[Role.RESPONDER].send_data(5, bytes(count * MAX_DATA_BYTES), is_last=False)
    events = feed(pair.ends[Role.INITIATOR], [stream])
    assert [len(event.pieces) for event in events] == [FRAMES_TOGETHER, 1]


def test_what_came_before_a_damaged_frame_is_told_first():
    pair = ConnectionPair().reach(State.TRANSFER)
    block = bytes(3 * MAX_DATA_BYTES)
    stream = bytearray(pair.ends[Role.RESPONDER].send_data(5, block, is_last=False))
    stream[-1] ^= 1
    initiator = pair.ends[Role.INITIATOR]
    initiator.receive_data(bytes(stream))
    assert initiator.next_event() == Data(5, [memoryview(bytes(MAX_DATA_BYTES))] * 2, False)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="decrypt"):
            initiator.next_event()


def test_a_part_of_an_answer_is_not_its_end():
    pair = ConnectionPair().reach(State.TRANSFER)
    responder = pair.ends[Role.RESPONDER]
    stream = responder.send_data(5, bytes(MAX_DATA_BYTES + 1), is_last=False)
    stream += responder.send_data(5, b"", is_last=True)
    events = feed(pair.ends[Role.INITIATOR], [stream])
    assert [event.is_last for event in events] == [False, False, True]


def test_what_is_held_for_an_unfinished_frame_is_less_than_a_frame():
    pair = ConnectionPair().reach(State.TRANSFER)
    responder = pair.ends[Role.RESPONDER]
    responder.receive_data(b"\xff\xff" + bytes(65_534))
    assert responder.next_event() is NEED_DATA
    responder.receive_data(b"\0")
    with pytest.raises(RemoteProtocolError):
        responder.next_event()


def test_the_payload_outlives_the_connection():
    pair = ConnectionPair().reach(State.TRANSFER)
    send = pair.ends[Role.INITIATOR].send_data
    stream = send(1, b"first", is_last=False) + send(1, b"second", is_last=True)
    first, second = feed(pair.ends[Role.RESPONDER], [stream])
    feed(pair.ends[Role.RESPONDER], [send(1, b"x" * 70, is_last=True)])
    assert (bytes(first.pieces[0]), bytes(second.pieces[0])) == (b"first", b"second")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_ticket_in_place_of_a_handshake_comes_out_with_what_follows(size: int):
    relay = Connection(Role.RESPONDER, IDENTITIES[Role.RESPONDER], OPEN)
    ticket, rest = bytes(range(16)), b"what is not for it"
    said = presentation(OPEN, ticket)
    for offset in range(0, len(said) - 1, size):
        relay.receive_data(said[offset : min(offset + size, len(said) - 1)])
        assert relay.next_event() is NEED_DATA
    relay.receive_data(said[-1:] + rest)

    assert relay.next_event() == Ticket(ticket, rest)
    assert relay.state is State.RELAYED
    with pytest.raises(LocalProtocolError):
        relay.send(m.Ping())


def test_a_ticket_of_another_network_is_none():
    relay = Connection(Role.RESPONDER, IDENTITIES[Role.RESPONDER], OPEN)
    relay.receive_data(presentation(PRIVATE, bytes(16)))

    with pytest.raises(HandshakeError, match="another network"):
        relay.next_event()


def test_who_has_dialled_takes_no_ticket():
    dialler = Connection(Role.INITIATOR, IDENTITIES[Role.INITIATOR], OPEN)
    dialler.start()
    dialler.receive_data(presentation(OPEN, bytes(16)))

    with pytest.raises(HandshakeError):
        dialler.next_event()
