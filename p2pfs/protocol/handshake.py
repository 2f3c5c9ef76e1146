"""Who is at the other end: keys, signatures and the Noise handshake (PROTOCOL.md, "Handshake").

The only file that knows Noise. A link is `Noise_XX_25519_AESGCM_SHA256`, or `XXpsk3` with the
key of a private network. Noise proves that the peer holds its static key; the credentials in
messages 2 and 3 prove that this static key belongs to an identity.

Who knows the public key of the peer speaks at once: the payload of message 1 is the first message
of an IK handshake, with what is to be said. A peer that takes it answers with the second, and
XX is over; any other ignores it, and XX goes on as if it were not there.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseValueError

from p2pfs.errors import HandshakeError, RemoteProtocolError
from p2pfs.protocol.manifest import MIB
from p2pfs.protocol.messages import (
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    Entry,
    Guid,
    Message,
    News,
    PeerInfo,
    QueryHit,
    ServentId,
)

SEED_BYTES: Final = 32
PSK_BYTES: Final = 32
NETWORK_ID_BYTES: Final = 16

MAX_HANDSHAKE_BYTES: Final = 1024
"""Of one Noise message of a handshake; the longest of today has 214. Nobody is known yet."""

MAX_EARLY_BYTES: Final = 800
"""Of all frames in a first message, each with EARLY_FRAME_BYTES: the rest of it takes 189 more."""

EARLY_FRAME_BYTES: Final = 3
"""What MessagePack puts before a frame."""

MAX_EARLY_FRAMES: Final = 8
"""In a first message: HELLO, a manifest and the first blocks are three."""

EARLY_ANSWER_BYTES: Final = 48
"""Of the second message of IK: a key and a tag. Message 2 of XX has four times as many."""

SERVENT_ID_BYTES: Final = 20
"""Of the hash that is a servent's id: 160 bits, 32 characters, no padding."""

_OPEN_PATTERN: Final = b"Noise_XX_25519_AESGCM_SHA256"
_PRIVATE_PATTERN: Final = b"Noise_XXpsk3_25519_AESGCM_SHA256"
_OPEN_EARLY_PATTERN: Final = b"Noise_IK_25519_AESGCM_SHA256"
_PRIVATE_EARLY_PATTERN: Final = b"Noise_IKpsk1_25519_AESGCM_SHA256"

# Each use of a key or hash has a text of its own, so that none can pose as another.
_ID_PREFIX: Final = b"p2pfs servent id 1\n"
_STATIC_KEY_PREFIX: Final = b"p2pfs static key 1\n"
_QUERY_HIT_PREFIX: Final = b"p2pfs query hit 1\n"
_EARLY_PREFIX: Final = b"p2pfs early 1\n"
_STATIC_KEY_CONTEXT: Final = "p2pfs 1 Noise static key"
_NEWS_PREFIX: Final = b"p2pfs news 1\n"
_NETWORK_ID_CONTEXT: Final = "p2pfs 1 network id"
_NETWORK_KEY_SALT: Final = b"p2pfs network key 1"

_SCRYPT_N: Final = 2**16
_SCRYPT_R: Final = 8
_SCRYPT_MEMORY_BYTES: Final = 80 * MIB
# 64 MiB and 0.2 s at each start: a guess at a passphrase costs as much as for a login.


class Role(enum.Enum):
    """Which end of a link: the one that dialled is the initiator."""

    __hash__ = object.__hash__  # see `connection.State`

    INITIATOR = "initiator"
    RESPONDER = "responder"

    @property
    def other(self) -> Role:
        """The role of the peer."""
        return Role.RESPONDER if self is Role.INITIATOR else Role.INITIATOR


class Identity:
    """The Ed25519 key that makes a servent itself, and the Noise key that follows from it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw()
        """32 bytes."""
        self.id = servent_id(self.public_key)

    @classmethod
    def generate(cls) -> Identity:
        """Make a new identity."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, seed: bytes) -> Identity:
        """Return the identity that `to_bytes` gave; a ValueError if it is not 32 bytes."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def to_bytes(self) -> bytes:
        """Return the seed, 32 bytes: the secret that must be kept."""
        return self._key.private_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`, 64 bytes. The caller puts a prefix of its own first."""
        return self._key.sign(data)

    def static_key(self) -> bytes:
        """Return the private Noise key: derived from the seed, so there is one secret to keep."""
        return blake3(self.to_bytes(), derive_key_context=_STATIC_KEY_CONTEXT).digest()

    def curve_key(self) -> bytes:
        """Return the private key whose public one is the `curve_point` of ours, 32 bytes."""
        return hashlib.sha512(self.to_bytes()).digest()[:32]  # RFC 8032, section 5.1.5


@dataclass(frozen=True)
class NetworkKey:
    """The key that all servents of a private network have; the open network has none."""

    psk: bytes | None

    @classmethod
    def open(cls) -> NetworkKey:
        """Return the key of the open network."""
        return cls(None)

    @classmethod
    def from_passphrase(cls, passphrase: bytes) -> NetworkKey:
        """Return the key that a passphrase stands for; takes 0.2 s and 64 MiB, by intent."""
        return cls(
            hashlib.scrypt(
                passphrase,
                salt=_NETWORK_KEY_SALT,
                n=_SCRYPT_N,
                r=_SCRYPT_R,
                p=1,
                maxmem=_SCRYPT_MEMORY_BYTES,
                dklen=PSK_BYTES,
            )
        )

    @property
    def network_id(self) -> bytes:
        """Name the network without telling its key: 16 bytes, all zero for the open one."""
        if self.psk is None:
            return bytes(NETWORK_ID_BYTES)
        context = _NETWORK_ID_CONTEXT
        return blake3(self.psk, derive_key_context=context).digest(NETWORK_ID_BYTES)


class Credentials(Message, frozen=True, array_like=True):
    """The payload of Noise messages 2 and 3: whose static key this is."""

    public_key: Annotated[
        bytes, msgspec.Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)
    ]
    signature: Annotated[
        bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)
    ]
    """By the identity, over a prefix and the static key."""


class Early(Message, frozen=True, array_like=True):
    """The payload of the first message of IK: who speaks, and what it says before any answer."""

    told_at_us: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    """Microseconds since 1970, by the sender's clock; later than in any that it sent before."""
    public_key: Annotated[
        bytes, msgspec.Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)
    ]
    frames: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_EARLY_FRAMES)]
    """As they would be encrypted: HELLO, then what can be asked twice without harm."""


TakeEarly = Callable[[ServentId, int], bool]
"""Decides whether what a servent has told at this time is taken; what is repeated must not be."""

_DECODE_CREDENTIALS: Final = msgspec.msgpack.Decoder(Credentials).decode
_DECODE_EARLY: Final = msgspec.msgpack.Decoder(Early).decode


def servent_id(public_key: bytes) -> ServentId:
    """Return the id of the servent with this key: 32 characters of lower-case base32."""
    digest = blake3(_ID_PREFIX + public_key).digest(SERVENT_ID_BYTES)
    return ServentId(base64.b32encode(digest).decode().lower())


SMALL_ORDER: Final = frozenset(
    bytes.fromhex(y)
    for y in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""The y of Ed25519 keys whose order divides 8, without the sign of x. For them there is a signature
that verifies anything, so such an id is nobody's."""


def verify(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Return whether `signature` is that of `data` by the holder of this key."""
    if public_key[:-1] + bytes((public_key[-1] & 0x7F,)) in SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def sign_hit(
    identity: Identity,
    guid: Guid,
    ttl: int,
    provider: PeerInfo,
    entries: Sequence[Entry],
    total: int,
) -> QueryHit:
    """Return a query hit, signed by the provider of these entries."""
    signed = _signed_part(guid, provider, tuple(entries), total)
    signature = identity.sign(signed)
    return QueryHit(guid, ttl, provider, tuple(entries), total, identity.public_key, signature)


def check_hit(hit: QueryHit) -> None:
    """Check that a query hit was made by the servent it names as its provider, for this query.

    Raises:
        RemoteProtocolError: it was not. Who passed it on need not know, and is not to blame.
    """
    if servent_id(hit.public_key) != hit.provider.id:
        raise RemoteProtocolError("query hit has a key that is not its provider's")
    signed = _signed_part(hit.guid, hit.provider, hit.entries, hit.total)
    if not verify(hit.public_key, hit.signature, signed):
        raise RemoteProtocolError("query hit has a wrong signature")


def _signed_part(guid: Guid, provider: PeerInfo, entries: tuple[Entry, ...], total: int) -> bytes:
    return _QUERY_HIT_PREFIX + msgspec.msgpack.encode((guid, provider, entries, total))


def sign_news(
    identity: Identity,
    ttl: int,
    provider: PeerInfo,
    version: int,
    directories: Sequence[str],
    *,
    is_all: bool,
) -> News:
    """Return NEWS, signed by the servent whose share has changed."""
    told = (provider, version, tuple(directories), is_all)
    signature = identity.sign(_NEWS_PREFIX + msgspec.msgpack.encode(told))
    return News(ttl, *told, identity.public_key, signature)


def check_news(news: News) -> None:
    """Check that NEWS are signed by the servent whose share they say has changed.

    Raises:
        RemoteProtocolError: they are not. No servent passes such on, so the neighbour that
            brings them is to blame.
    """
    if servent_id(news.public_key) != news.provider.id:
        raise RemoteProtocolError("news have a key that is not their provider's")
    told = (news.provider, news.version, news.directories, news.is_all)
    if not verify(news.public_key, news.signature, _NEWS_PREFIX + msgspec.msgpack.encode(told)):
        raise RemoteProtocolError("news have a wrong signature")


_FIELD: Final = 2**255 - 19


def curve_point(public_key: bytes) -> bytes | None:
    """Return the X25519 key of who holds an Ed25519 key (RFC 7748, section 4.1).

    None for a key that is nobody's.
    """
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    if y.to_bytes(32, "little") in SMALL_ORDER:
        return None
    return ((1 + y) * pow(1 - y, -1, _FIELD) % _FIELD).to_bytes(32, "little")


class Handshake:
    """One Noise handshake, then the two ciphers that it leaves.

    The initiator writes, reads, writes; the responder reads, writes, reads. Then `peer_id` is
    known and proven, and `encrypt` and `decrypt` may be called. If the responder takes what the
    initiator has said early, the second message is the last.
    """

    def __init__(
        self,
        role: Role,
        identity: Identity,
        network_key: NetworkKey,
        *,
        prologue: bytes,
        take_early: TakeEarly | None = None,
    ) -> None:
        """Begin; a responder without `take_early` hears nothing early."""
        self._role = role
        self._identity = identity
        self._network_key = network_key
        self._prologue = prologue
        self._take_early = take_early
        self._noise = _new_noise(
            role,
            identity.static_key(),
            _OPEN_PATTERN if network_key.psk is None else _PRIVATE_PATTERN,
            network_key,
            prologue,
        )
        # The library drops this at the last message, just when it has the peer's static key.
        self._state = self._noise.noise_protocol.handshake_state
        self._messages = 0
        self._early: tuple[NoiseConnection, bytes] | None = None  # said to whom
        self.is_early = False
        """Whether the responder has taken what was said early."""
        self.early_frames: Sequence[bytes] = ()
        """What the initiator has said early, for the responder."""
        self.peer_id: ServentId | None = None
        """Who the peer is; None until it has proven it."""

    @property
    def is_untouched(self) -> bool:
        """Whether no message has been written or read."""
        return self._messages == 0

    @property
    def is_finished(self) -> bool:
        """Whether all three messages have been written and read."""
        return bool(self._noise.handshake_finished)

    def write(self) -> bytes:
        """Return our next Noise message.

        Raises:
            HandshakeError: the peer's last message had a key that gives no secret.
        """
        self._messages += 1
        is_told = self._messages > 1 and not self.is_early
        return self._written(self._credentials() if is_told else b"")

    def write_early(self, public_key: bytes, told_at_us: int, frames: Sequence[bytes]) -> bytes:
        """Return our first Noise message to the servent with this key, and say something with it.

        All frames are at most MAX_EARLY_FRAMES, and MAX_EARLY_BYTES together. To a key that is
        nobody's nothing is said.
        """
        point = curve_point(public_key)
        if point is None:
            return self.write()
        self._messages += 1
        noise = self._early_noise(public_key, point)
        early = Early(told_at_us, self._identity.public_key, tuple(frames))
        self._early = noise, public_key
        return self._written(bytes(noise.write_message(msgspec.msgpack.encode(early))))

    def _written(self, payload: bytes) -> bytes:
        try:
            return bytes(self._noise.write_message(payload))
        except ValueError as error:
            raise HandshakeError("that is a servent whose handshake is damaged") from error

    def read(self, message: bytes) -> None:
        """Take the peer's next Noise message.

        Raises:
            HandshakeError: it is none, or was changed on the way, or the peer lacks the key of
                the network, or it could not prove its identity. Any other exception is a bug.
        """
        self._messages += 1
        if self._early is not None and len(message) == EARLY_ANSWER_BYTES:
            self._noise, public_key = self._early
            _read(self._noise, message)
            self.is_early, self.peer_id = True, servent_id(public_key)
            return
        payload = _read(self._noise, message)
        if self._messages > 1:
            self.peer_id = _check_credentials(payload, self._state.rs.public_bytes)
        elif payload and self._take_early is not None:
            self._hear_early(payload, self._take_early)

    def _hear_early(self, message: bytes, take_early: TakeEarly) -> None:
        """Take what the initiator has said in its first message, unless it is not for us."""
        noise = self._early_noise(self._identity.public_key)
        try:
            early = _DECODE_EARLY(_read(noise, message))
        except (HandshakeError, msgspec.MsgspecError, RecursionError):
            return
        static_key = noise.noise_protocol.handshake_state.rs.public_bytes
        peer_id = servent_id(early.public_key)
        if curve_point(early.public_key) == static_key and take_early(peer_id, early.told_at_us):
            self._noise, self.is_early = noise, True
            self.peer_id, self.early_frames = peer_id, early.frames

    def _early_noise(self, responder: bytes, point: bytes | None = None) -> NoiseConnection:
        """Return the beginning of IK with the servent that has this public key."""
        is_open = self._network_key.psk is None
        return _new_noise(
            self._role,
            self._identity.curve_key(),
            _OPEN_EARLY_PATTERN if is_open else _PRIVATE_EARLY_PATTERN,
            self._network_key,
            self._prologue + _EARLY_PREFIX + responder,
            point,
        )

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return the next frame to be sent."""
        cipher = self._noise.noise_protocol.cipher_state_encrypt
        frame: bytes = cipher.encrypt_with_ad(None, plaintext)
        return frame

    def decrypt(self, frame: bytes | memoryview) -> bytes:
        """Return the plaintext of the next frame.

        Raises:
            RemoteProtocolError: it was changed, repeated or reordered, or one was left out.
        """
        # The library's own `decrypt` takes bytes alone, which would cost a copy.
        cipher = self._noise.noise_protocol.cipher_state_decrypt
        try:
            plaintext: bytes = cipher.decrypt_with_ad(None, frame)
        except InvalidTag as error:
            raise RemoteProtocolError("a frame does not decrypt") from error
        return plaintext

    def _credentials(self) -> bytes:
        signature = self._identity.sign(_STATIC_KEY_PREFIX + self._state.s.public_bytes)
        return msgspec.msgpack.encode(Credentials(self._identity.public_key, signature))


def _new_noise(
    role: Role,
    static_key: bytes,
    pattern: bytes,
    network_key: NetworkKey,
    prologue: bytes,
    remote_static_key: bytes | None = None,
) -> NoiseConnection:
    noise = NoiseConnection.from_name(pattern)
    if network_key.psk is not None:
        noise.set_psks(network_key.psk)
    noise.set_prologue(prologue)
    noise.set_keypair_from_private_bytes(Keypair.STATIC, static_key)
    if remote_static_key is not None:
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote_static_key)
    if role is Role.INITIATOR:
        noise.set_as_initiator()
    else:
        noise.set_as_responder()
    noise.start_handshake()
    return noise


def _read(noise: NoiseConnection, message: bytes) -> bytes:
    try:
        return bytes(noise.read_message(message))
    except (InvalidTag, NoiseValueError, ValueError) as error:
        raise HandshakeError("that is a servent whose handshake is damaged") from error


def _check_credentials(payload: bytes, static_key: bytes) -> ServentId:
    try:
        credentials = _DECODE_CREDENTIALS(payload)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise HandshakeError("that is a servent without valid credentials") from error
    signed = _STATIC_KEY_PREFIX + static_key
    if not verify(credentials.public_key, credentials.signature, signed):
        raise HandshakeError("that is a servent that could not prove its identity")
    return servent_id(credentials.public_key)
