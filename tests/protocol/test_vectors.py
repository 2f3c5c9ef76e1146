"""The vectors in tests/vectors/ hold, and the worked examples of PROTOCOL.md are among them."""

from __future__ import annotations

import enum
import itertools
import json
import re
from pathlib import Path

import msgspec
import pytest
from noise.backends.default.diffie_hellmans import ED25519
from noise.backends.default.keypairs import KeyPair25519

import p2pfs.protocol
from p2pfs.errors import RemoteProtocolError
from p2pfs.protocol import (
    NEED_DATA,
    Connection,
    Data,
    Identity,
    NetworkKey,
    Received,
    Role,
    Unknown,
    check_hit,
    fields,
    presentation,
)
from p2pfs.protocol import messages as m
from p2pfs.protocol.codec import decode, encode, encode_data
from p2pfs.protocol.connection import PREFACE_BYTES
from p2pfs.protocol.handshake import curve_point
from p2pfs.protocol.registry import MESSAGE_TYPES

VECTORS = Path(__file__).parent.parent / "vectors"
DOCUMENT = (Path(p2pfs.protocol.__file__).parent / "PROTOCOL.md").read_text()
KEYS = json.loads((VECTORS / "keys.json").read_text())
LINKS = json.loads((VECTORS / "links.json").read_text())["links"]
EARLY = json.loads((VECTORS / "early.json").read_text())
TICKETS = json.loads((VECTORS / "tickets.json").read_text())["tickets"]
FILES = [json.loads(path.read_text()) for path in sorted((VECTORS / "messages").glob("*.json"))]
CASES = [
    pytest.param(case, file["number"], id=f"{file['type']}: {case['comment']}")
    for file in FILES
    for case in file["cases"]
]


def plain(value: object) -> object:
    """A message as its vector writes it: bytes in hex, codes as numbers."""
    match value:
        case msgspec.Struct():
            return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        case tuple():
            return [plain(element) for element in value]
        case bytes() | memoryview():
            return value.hex()
        case enum.Enum():
            return value.value
    return value


@pytest.mark.parametrize(("case", "number"), CASES)
def test_a_frame_is_what_its_vector_says(case, number):
    frame = bytes.fromhex(case["hex"])
    if case["expect"] == "refused":
        with pytest.raises(RemoteProtocolError):
            decode(frame)
        return
    decoded = decode(frame)
    match decoded:
        case Unknown():
            assert case["expect"] == "ignored"
            assert decoded.type_number == number
        case Data(request_id, (payload,), is_last):
            assert (request_id, is_last) == (case["request_id"], case["is_last"])
            assert payload.hex() == case["payload"]
            assert encode_data(request_id, payload, is_last=is_last) == frame
        case Received(message, request_id):
            assert type(message) is MESSAGE_TYPES[number]
            assert request_id == case["request_id"]
            assert plain(message) == case["fields"]
            assert (encode(message, request_id) == frame) is (case["expect"] == "same")


def test_every_type_has_vectors_of_what_it_is():
    covered = {file["number"] for file in FILES if file["cases"][0]["expect"] == "same"}
    assert covered == {*MESSAGE_TYPES, m.DATA, m.DATA_END}


def test_the_hits_among_the_vectors_are_genuine():
    hits = next(file for file in FILES if file["type"] == "QUERY_HIT")["cases"]
    genuine = [decode(bytes.fromhex(h["hex"])).message for h in hits if h["expect"] == "same"]
    assert genuine
    for hit in genuine:
        check_hit(hit)


@pytest.mark.parametrize("vector", KEYS["identities"], ids=lambda v: v["id"])
def test_an_identity_follows_from_its_seed(vector):
    identity = Identity.from_bytes(bytes.fromhex(vector["seed"]))
    assert identity.public_key.hex() == vector["public_key"]
    assert identity.id == vector["id"]
    assert identity.static_key().hex() == vector["static_private_key"]


@pytest.mark.parametrize("vector", KEYS["network_keys"], ids=lambda v: v["passphrase"])
def test_a_network_key_follows_from_its_passphrase(vector):
    key = NetworkKey.from_passphrase(vector["passphrase"].encode())
    assert key.psk.hex() == vector["psk"]
    assert key.network_id.hex() == vector["network_id"]


@pytest.mark.parametrize("vector", TICKETS, ids=lambda v: v["comment"])
def test_a_ticket_is_presented_behind_a_preface(vector):
    key = NetworkKey(vector["psk"] and bytes.fromhex(vector["psk"]))
    assert presentation(key, bytes.fromhex(vector["ticket"])).hex() == vector["hex"]


@pytest.fixture
def fixed_keys(monkeypatch):
    """Make each Noise handshake draw its ephemeral key from a list that a test gives."""

    def fix(private_keys):
        keys = iter(private_keys)
        monkeypatch.setattr(
            ED25519,
            "generate_keypair",
            lambda _self: KeyPair25519.from_private_bytes(bytes.fromhex(next(keys))),
        )

    return fix


@pytest.mark.parametrize("link", LINKS, ids=lambda link: link["comment"])
def test_every_byte_of_a_link_is_that_of_the_transcript(link, fixed_keys):
    fixed_keys(link["ephemeral_private_keys"][role.value] for role in Role)
    key = NetworkKey(link["psk"] and bytes.fromhex(link["psk"]))
    assert key.network_id.hex() == link["network_id"]
    ends = {
        role: Connection(role, Identity.from_bytes(bytes.fromhex(vector["seed"])), key)
        for role, vector in zip(Role, KEYS["identities"], strict=True)
    }
    waiting = {role: connection.start() for role, connection in ends.items()}
    for step in link["steps"]:
        sender = Role(step["from"])
        expected = bytes.fromhex(step["hex"])
        said = waiting.pop(sender, b"")
        if step["what"] == "preface" and said[PREFACE_BYTES:]:
            said, waiting[sender] = said[:PREFACE_BYTES], said[PREFACE_BYTES:]
        said = said or ends[sender].data_to_send() or ends[sender].send(SENT[step["what"], sender])
        assert said == expected, step["what"]
        ends[sender.other].receive_data(said)
        while ends[sender.other].next_event() is not NEED_DATA:
            if step["what"] == "BYE":
                return


@pytest.mark.parametrize("vector", EARLY["curve_keys"], ids=lambda v: v["public_key"][:8])
def test_a_curve_key_follows_from_an_identity(vector):
    public_key = bytes.fromhex(vector["public_key"])
    seed = next(v["seed"] for v in KEYS["identities"] if v["public_key"] == vector["public_key"])
    assert Identity.from_bytes(bytes.fromhex(seed)).curve_key().hex() == vector["curve_private_key"]
    assert curve_point(public_key).hex() == vector["curve_point"]


@pytest.mark.parametrize("link", EARLY["links"], ids=lambda link: link["comment"])
def test_every_byte_of_an_early_link_is_that_of_the_transcript(link, fixed_keys):
    fixed_keys(link["ephemeral_private_keys"].values())
    key = NetworkKey(link["psk"] and bytes.fromhex(link["psk"]))
    assert key.network_id.hex() == link["network_id"]
    ours, theirs = (Identity.from_bytes(bytes.fromhex(v["seed"])) for v in KEYS["identities"])
    ends = {
        Role.INITIATOR: Connection(Role.INITIATOR, ours, key),
        Role.RESPONDER: Connection(
            Role.RESPONDER, theirs, key, (lambda *_: True) if link["is_taken"] else None
        ),
    }
    said = [
        ends[Role.INITIATOR].prepare(SENT_EARLY["HELLO", Role.INITIATOR]),
        ends[Role.INITIATOR].prepare(SENT_EARLY["GET_BLOCKS", Role.INITIATOR], 1),
    ]
    start = ends[Role.INITIATOR].start_early(theirs.public_key, link["told_at_us"], said)
    first = {"preface": start[:PREFACE_BYTES], "Noise message 1": start[PREFACE_BYTES:]}
    heard = []
    for step in link["steps"]:
        sender, what = Role(step["from"]), step["what"]
        if sender is Role.INITIATOR and what in first:
            data = first[what]
        elif what == "preface":
            data = ends[sender].start()
        elif what == "DATA_END":
            data = ends[sender].send_data(1, b"block", is_last=True)
        elif (what, sender) in SENT_EARLY:
            message = SENT_EARLY[what, sender]
            data = ends[sender].send(message, 1 if what == "GET_BLOCKS" else 0)
        else:
            data = ends[sender].data_to_send()
        assert data.hex() == step["hex"], what
        ends[sender.other].receive_data(data)
        while (event := ends[sender.other].next_event()) is not NEED_DATA:
            heard.append(event)
    assert {e.message for e in heard if isinstance(e, Received)} == {*SENT_EARLY.values()}
    assert (ends[Role.INITIATOR].said_early == 2) is link["is_taken"]


SENT_EARLY = {
    ("HELLO", Role.INITIATOR): m.Hello(
        m.LinkKind.TRANSFER, "anna", 4774, fields.Address("192.0.2.9", 4774), (), "p2pfs 0.1.0"
    ),
    ("GET_BLOCKS", Role.INITIATOR): m.GetBlocks(bytes(range(32)), (0,)),
    ("HELLO", Role.RESPONDER): m.Hello(
        m.LinkKind.TRANSFER, "ben", 4774, fields.Address("198.51.100.4", 50123), (), "p2pfs 0.1.0"
    ),
}

SENT = {
    ("HELLO", Role.INITIATOR): m.Hello(
        m.LinkKind.NEIGHBOUR, "anna", 4774, fields.Address("192.0.2.9", 4774),
        (fields.Address("192.0.2.7", 4774),), "p2pfs 0.1.0",
    ),
    ("HELLO", Role.RESPONDER): m.Hello(
        m.LinkKind.NEIGHBOUR, "ben", 4774, fields.Address("198.51.100.4", 50123), (), "p2pfs 0.1.0"
    ),
    ("PING", Role.INITIATOR): m.Ping(),
    ("BYE", Role.INITIATOR): m.Bye(m.ByeCode.LEAVING, ""),
}  # fmt: skip


def examples() -> list[str]:
    """The worked examples of PROTOCOL.md, without spaces and remarks."""
    blocks = re.findall(r"^```hex\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    return [re.sub(r"#.*|\s", "", block) for block in blocks]


def test_every_example_in_the_document_is_a_vector():
    known = {case["hex"] for file in FILES for case in file["cases"]}
    known |= {step["hex"] for link in LINKS for step in link["steps"]}
    manifests = json.loads((VECTORS / "manifests.json").read_text())["contents"]
    known |= {manifest["manifest"] for manifest in manifests}
    known |= {vector["hex"] for vector in TICKETS}
    contents = json.loads((VECTORS / "contents.json").read_text())
    known |= {vector["hex"] for vector in contents["answers"]}
    assert set(examples()) <= known


def test_every_type_has_an_example_in_the_document():
    shown = {int(example[:2], 16) for example in examples()}
    assert shown >= {*MESSAGE_TYPES, m.DATA, m.DATA_END}


def test_no_two_vectors_are_the_same():
    everything = [case["hex"] for file in FILES for case in file["cases"]]
    assert [h for h, group in itertools.groupby(sorted(everything)) if len([*group]) > 1] == []
