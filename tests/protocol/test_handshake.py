"""Who is at the other end: identities, signatures and Noise."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from p2pfs.errors import HandshakeError, RemoteProtocolError
from p2pfs.protocol import (
    Address,
    Entry,
    Guid,
    Identity,
    NetworkKey,
    PeerInfo,
    Role,
    ServentId,
    check_hit,
    servent_id,
    sign_hit,
)
from p2pfs.protocol.handshake import (
    EARLY_FRAME_BYTES,
    MAX_EARLY_BYTES,
    MAX_EARLY_FRAMES,
    MAX_HANDSHAKE_BYTES,
    Credentials,
    Handshake,
    curve_point,
    verify,
)
from p2pfs.protocol.identity import SMALL_ORDER
from tests.helpers.connections import IDENTITIES, OPEN, PRIVATE

NOISE_VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "noise.json").read_text())
OURS = IDENTITIES[Role.INITIATOR]
GUID = Guid(bytes(16))
ENTRY = Entry("music/song.ogg", 5, 7, bytes(32))


def shake_hands(
    ours=OURS, theirs=IDENTITIES[Role.RESPONDER], keys=(OPEN, OPEN), prologues=(b"p", b"p")
):
    one = Handshake(Role.INITIATOR, ours, keys[0], prologue=prologues[0])
    other = Handshake(Role.RESPONDER, theirs, keys[1], prologue=prologues[1])
    other.read(one.write())
    one.read(other.write())
    other.read(one.write())
    return one, other


@pytest.mark.filterwarnings("ignore:One of ephemeral keypairs is already set")
@pytest.mark.parametrize("vector", NOISE_VECTORS["vectors"], ids=lambda v: v["protocol_name"])
def test_the_noise_library_agrees_with_the_published_vectors(vector):
    speaker, hearer = (noise_of(vector, side) for side in ("init", "resp"))
    for message in vector["messages"]:
        payload = bytes.fromhex(message["payload"])
        ciphertext = (
            speaker.encrypt(payload)
            if speaker.handshake_finished
            else speaker.write_message(payload)
        )
        assert ciphertext.hex() == message["ciphertext"]
        read = hearer.decrypt if hearer.handshake_finished else hearer.read_message
        assert read(bytes(ciphertext)) == payload
        speaker, hearer = hearer, speaker
    assert speaker.get_handshake_hash().hex() == vector["handshake_hash"]


def noise_of(vector: dict, side: str) -> NoiseConnection:
    noise = NoiseConnection.from_name(vector["protocol_name"].encode())
    if f"{side}_psks" in vector:
        noise.set_psks(psks=[bytes.fromhex(psk) for psk in vector[f"{side}_psks"]])
    noise.set_prologue(bytes.fromhex(vector[f"{side}_prologue"]))
    for keypair, name in ((Keypair.STATIC, "static"), (Keypair.EPHEMERAL, "ephemeral")):
        noise.set_keypair_from_private_bytes(keypair, bytes.fromhex(vector[f"{side}_{name}"]))
    (noise.set_as_initiator if side == "init" else noise.set_as_responder)()
    noise.start_handshake()
    return noise


@pytest.mark.parametrize("key", [OPEN, PRIVATE], ids=["XX", "XXpsk3"])
def test_a_handshake_tells_each_end_who_the_other_is(key):
    one, other = shake_hands(keys=(key, key))
    assert one.is_finished
    assert other.is_finished
    assert one.peer_id == IDENTITIES[Role.RESPONDER].id
    assert other.peer_id == OURS.id


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_frames_arrive_as_they_were_sent_both_ways(plaintexts):
    one, other = shake_hands()
    for plaintext in plaintexts:
        assert other.decrypt(one.encrypt(plaintext)) == plaintext
        assert one.decrypt(memoryview(other.encrypt(plaintext))) == plaintext


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda frame: bytes([frame[0] ^ 1]) + frame[1:], id="changed"),
        pytest.param(lambda frame: frame[:-1], id="cut"),
        pytest.param(lambda frame: frame + b"\0", id="longer"),
        pytest.param(lambda frame: b"", id="emptied"),
    ],
)
def test_a_frame_that_was_tampered_with_is_refused(spoil):
    one, other = shake_hands()
    with pytest.raises(RemoteProtocolError):
        other.decrypt(spoil(one.encrypt(b"a message")))


def test_frames_out_of_order_are_refused():
    one, other = shake_hands()
    first, second = one.encrypt(b"first"), one.encrypt(b"second")
    with pytest.raises(RemoteProtocolError):
        other.decrypt(second)
    assert other.decrypt(first) == b"first"
    with pytest.raises(RemoteProtocolError):
        other.decrypt(first)


def test_another_network_key_does_not_get_through():
    with pytest.raises(HandshakeError):
        shake_hands(keys=(PRIVATE, NetworkKey(bytes(32))))
    with pytest.raises(HandshakeError):
        shake_hands(keys=(PRIVATE, OPEN))


def test_a_preface_that_was_changed_on_the_way_does_not_get_through():
    with pytest.raises(HandshakeError):
        shake_hands(prologues=(b"one", b"other"))


class Impostor(Identity):
    """Has its own static key, and the identity that it shows is somebody else's."""

    def __init__(self, victim: Identity) -> None:
        super().__init__(Identity.generate()._key)
        self.public_key = victim.public_key


def test_an_identity_without_its_key_is_refused():
    with pytest.raises(HandshakeError, match="could not prove its identity"):
        shake_hands(theirs=Impostor(OURS))
    with pytest.raises(HandshakeError, match="could not prove its identity"):
        shake_hands(ours=Impostor(IDENTITIES[Role.RESPONDER]))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="none"),
        pytest.param(b"\xc1", id="no MessagePack"),
        pytest.param(msgspec.msgpack.encode((bytes(31), bytes(64))), id="a short key"),
        pytest.param(b"\x91" * 900, id="nested"),
    ],
)
def test_credentials_that_are_none_are_refused(payload, monkeypatch):
    monkeypatch.setattr(Handshake, "_credentials", lambda _self: payload)
    with pytest.raises(HandshakeError, match="without valid credentials"):
        shake_hands()


@given(st.binary(max_size=200))
def test_whatever_comes_as_a_first_message_is_at_most_a_handshake_error(message):
    handshake = Handshake(Role.RESPONDER, OURS, OPEN, prologue=b"")
    try:
        handshake.read(message)
    except HandshakeError:
        assert len(message) < 32
    assert not handshake.is_finished
    assert handshake.peer_id is None


def test_a_key_that_gives_no_secret_is_refused():
    responder = Handshake(Role.RESPONDER, OURS, OPEN, prologue=b"")
    responder.read(bytes(32))
    with pytest.raises(HandshakeError, match="damaged"):
        responder.write()
    initiator = Handshake(Role.INITIATOR, OURS, OPEN, prologue=b"")
    initiator.write()
    with pytest.raises(HandshakeError, match="damaged"):
        initiator.read(bytes(200))


@given(st.binary(max_size=300))
def test_whatever_comes_as_a_second_message_is_a_handshake_error(message):
    handshake = Handshake(Role.INITIATOR, OURS, OPEN, prologue=b"")
    handshake.write()
    with pytest.raises(HandshakeError):
        handshake.read(message)


# What is said early.

KEY = IDENTITIES[Role.RESPONDER].public_key


def speak(key=OPEN, public_key=KEY, ours=OURS, take=lambda _peer, _at: True, frames=(b"f",)):
    one = Handshake(Role.INITIATOR, ours, key, prologue=b"p")
    other = Handshake(
        Role.RESPONDER, IDENTITIES[Role.RESPONDER], key, prologue=b"p", take_early=take
    )
    return one, other, one.write_early(public_key, 7, frames)


def finish(one: Handshake, other: Handshake) -> None:
    one.read(other.write())
    if not one.is_finished:
        other.read(one.write())
    assert (one.is_finished, other.is_finished) == (True, True)
    assert (one.peer_id, other.peer_id) == (IDENTITIES[Role.RESPONDER].id, OURS.id)
    assert other.decrypt(one.encrypt(b"to")) == b"to"
    assert one.decrypt(other.encrypt(b"fro")) == b"fro"


@pytest.mark.parametrize("key", [OPEN, PRIVATE], ids=["IK", "IKpsk1"])
def test_what_is_said_early_to_whom_is_known_is_heard_with_the_first_message(key):
    heard = []
    one, other, first = speak(key, take=lambda *told: heard.append(told) or True)
    other.read(first)
    assert heard == [(OURS.id, 7)]
    assert list(other.early_frames) == [b"f"]
    finish(one, other)
    assert (one.is_early, other.is_early) == (True, True)


@pytest.mark.parametrize("key", [OPEN, PRIVATE], ids=["IK", "IKpsk1"])
@pytest.mark.parametrize(
    "speech",
    [
        pytest.param({"take": None}, id="by a servent that does not know of it"),
        pytest.param({"take": lambda *_: False}, id="again"),
        pytest.param({"public_key": OURS.public_key}, id="to somebody else"),
        pytest.param({"public_key": bytes(32)}, id="to a key that is nobody's"),
    ],
)
def test_what_is_not_taken_early_is_not_heard_and_the_handshake_goes_on(speech, key):
    one, other, first = speak(key, **speech)
    other.read(first)
    assert not other.early_frames
    finish(one, other)
    assert not one.is_early


def test_the_longest_early_words_have_room_in_a_handshake_message():
    per_frame = MAX_EARLY_BYTES // MAX_EARLY_FRAMES - EARLY_FRAME_BYTES
    _, other, first = speak(PRIVATE, frames=[bytes(per_frame)] * MAX_EARLY_FRAMES)
    assert len(first) <= MAX_HANDSHAKE_BYTES
    other.read(first)
    assert len(other.early_frames) == MAX_EARLY_FRAMES
    _, _, first = speak(PRIVATE, frames=[bytes(MAX_EARLY_BYTES - EARLY_FRAME_BYTES)])
    assert len(first) <= MAX_HANDSHAKE_BYTES


def test_nobody_speaks_early_in_the_name_of_another():
    one, other, first = speak(ours=Impostor(Identity.generate()))
    other.read(first)
    assert not other.early_frames
    with pytest.raises(HandshakeError, match="could not prove its identity"):
        finish(one, other)


def test_what_was_said_early_and_changed_on_the_way_is_not_heard_and_gives_no_link():
    for position in range(32, len(speak()[2])):
        one, other, first = speak()
        other.read(first[:position] + bytes((first[position] ^ 1,)) + first[position + 1 :])
        assert not other.early_frames
        with pytest.raises(HandshakeError):
            finish(one, other)


def test_an_early_message_that_is_repeated_says_nothing_to_who_repeats_it():
    _, other, first = speak()
    other.read(first)
    other.write()
    with pytest.raises(RemoteProtocolError):
        other.decrypt(b"a frame of who lacks the key")


@given(st.binary(max_size=300))
def test_an_answer_that_is_none_is_at_most_a_handshake_error(message):
    one, _, _ = speak()
    with pytest.raises(HandshakeError):
        one.read(message)
    assert one.peer_id is None


@pytest.mark.parametrize("identity", IDENTITIES.values(), ids=lambda one: one.id)
def test_the_curve_key_of_an_identity_is_that_of_its_public_key(identity):
    private = X25519PrivateKey.from_private_bytes(identity.curve_key())
    assert curve_point(identity.public_key) == private.public_key().public_bytes_raw()


@pytest.mark.parametrize("y", sorted(SMALL_ORDER), ids=bytes.hex)
def test_a_key_that_is_nobodys_has_no_place_on_the_curve(y: bytes):
    assert curve_point(y) is None
    assert curve_point(y[:-1] + bytes((y[-1] | 0x80,))) is None


# Identities.


def test_an_identity_comes_back_from_its_bytes():
    identity = Identity.generate()
    again = Identity.from_bytes(identity.to_bytes())
    assert (again.id, again.public_key) == (identity.id, identity.public_key)
    assert again.static_key() == identity.static_key()


def test_an_identity_of_another_length_is_a_value_error():
    with pytest.raises(ValueError, match="32 bytes"):
        Identity.from_bytes(bytes(31))


def test_the_noise_key_is_not_the_identity_key():
    assert OURS.static_key() != OURS.to_bytes()


def test_a_signature_holds_for_its_data_and_its_key_alone():
    signature = OURS.sign(b"data")
    assert verify(OURS.public_key, signature, b"data")
    assert not verify(OURS.public_key, signature, b"other")
    assert not verify(IDENTITIES[Role.RESPONDER].public_key, signature, b"data")
    assert not verify(b"no key", signature, b"data")
    assert not verify(OURS.public_key, b"no signature", b"data")


# Network keys.


def test_each_passphrase_gives_a_key_and_a_network_of_its_own():
    one, other = NetworkKey.from_passphrase(b"one"), NetworkKey.from_passphrase(b"other")
    assert {len(one.psk), len(other.psk)} == {32}
    assert one.psk != other.psk
    assert one.network_id != other.network_id


def test_the_network_id_tells_nothing_of_the_key():
    assert OPEN.network_id == bytes(16)
    assert PRIVATE.network_id not in (PRIVATE.psk[:16], PRIVATE.psk[16:], bytes(16))


# Query hits.


def provider(identity: Identity = OURS) -> PeerInfo:
    return PeerInfo(identity.id, "ours", (Address("192.0.2.1", 4774),))


def test_a_signed_hit_holds_whatever_its_ttl():
    hit = sign_hit(OURS, GUID, 3, provider(), [ENTRY], 1)
    check_hit(hit)
    check_hit(msgspec.structs.replace(hit, ttl=1))


@pytest.mark.parametrize(
    "change",
    [
        {"guid": Guid(bytes([1]) * 16)},
        {"entries": (ENTRY, ENTRY)},
        {"entries": ()},
        {"total": 2},
        {"provider": PeerInfo(OURS.id, "ours", (Address("192.0.2.66", 4774),))},
        {"provider": PeerInfo(OURS.id, "other", (Address("192.0.2.1", 4774),))},
        {"provider": PeerInfo(ServentId("a" * 32), "ours", ())},
        {"public_key": IDENTITIES[Role.RESPONDER].public_key},
        {"signature": bytes(64)},
    ],
    ids=str,
)
def test_a_hit_that_was_changed_on_the_way_is_refused(change):
    hit = sign_hit(OURS, GUID, 3, provider(), [ENTRY], 1)
    with pytest.raises(RemoteProtocolError):
        check_hit(msgspec.structs.replace(hit, **change))


def test_a_hit_in_the_name_of_somebody_else_is_refused():
    stolen = provider(IDENTITIES[Role.RESPONDER])
    with pytest.raises(RemoteProtocolError):
        check_hit(sign_hit(OURS, GUID, 3, stolen, [ENTRY], 1))


def test_a_signature_for_one_purpose_does_not_serve_another():
    hit = sign_hit(OURS, GUID, 3, provider(), [ENTRY], 1)
    unprefixed = msgspec.msgpack.encode((GUID, provider(), [ENTRY], 1))
    assert not verify(OURS.public_key, hit.signature, unprefixed)


def test_credentials_are_64_and_32_bytes():
    signature = OURS.sign(b"")
    assert len(msgspec.msgpack.encode(Credentials(OURS.public_key, signature))) == 101
    assert servent_id(OURS.public_key) == OURS.id
    assert len(OURS.id) == 32


# Keys that are nobody's.

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def added(one: Point, other: Point) -> Point:
    """Add two points of Ed25519 (RFC 8032, section 5.1)."""
    (x1, y1), (x2, y2) = one, other
    t = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def points_of(y: int) -> list[Point]:
    """Return the points with this y."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    roots = (pow(square, (P + 3) // 8, P) * pow(2, k * (P - 1) // 4, P) % P for k in range(2))
    root = next(root for root in roots if root * root % P == square)
    return [(root, y), (-root % P, y)]


def test_the_keys_that_verify_nothing_are_those_whose_order_divides_eight():
    found = {int.from_bytes(y, "little") % P for y in SMALL_ORDER}
    points = {point for y in found for point in points_of(y)}

    assert len(points) == 8
    for point in points:
        twice = added(point, point)
        fourfold = added(twice, twice)
        assert added(fourfold, fourfold) == (0, 1)
    encodings = {y.to_bytes(32, "little") for y in (*found, P, P + 1)}
    assert encodings == SMALL_ORDER


@pytest.mark.parametrize("y", sorted(SMALL_ORDER), ids=bytes.hex)
@pytest.mark.parametrize("sign", [0, 0x80])
def test_a_key_of_small_order_verifies_nothing(y: bytes, sign: int):
    key = y[:-1] + bytes((y[-1] | sign,))
    for point in sorted(SMALL_ORDER):
        assert not verify(key, point + bytes(32), b"anything")
