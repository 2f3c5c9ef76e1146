"""Who is at the other end: keys, signatures and the Noise handshake (PROTOCOL.md, "Handshake").

The only file that knows Noise. A link is `Noise_XX_25519_AESGCM_SHA256`, or `XXpsk3` with the
key of a private network. Noise proves that the peer holds its static key; the credentials in
messages 2 and 3 prove that this static key belongs to an identity.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Sequence
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

SERVENT_ID_BYTES: Final = 20
"""Of the hash that is a servent's id: 160 bits, 32 characters, no padding."""

_OPEN_PATTERN: Final = b"Noise_XX_25519_AESGCM_SHA256"
_PRIVATE_PATTERN: Final = b"Noise_XXpsk3_25519_AESGCM_SHA256"

# Each use of a key or hash has a text of its own, so that none can pose as another.
_ID_PREFIX: Final = b"p2pfs servent id 1\n"
_STATIC_KEY_PREFIX: Final = b"p2pfs static key 1\n"
_QUERY_HIT_PREFIX: Final = b"p2pfs query hit 1\n"
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


_DECODE_CREDENTIALS: Final = msgspec.msgpack.Decoder(Credentials).decode


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
    """Return a query hit that proves who provides these entries."""
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
    """Return news that prove whose share has changed."""
    told = (provider, version, tuple(directories), is_all)
    signature = identity.sign(_NEWS_PREFIX + msgspec.msgpack.encode(told))
    return News(ttl, *told, identity.public_key, signature)


def check_news(news: News) -> None:
    """Check that news were told by the servent whose share they say has changed.

    Raises:
        RemoteProtocolError: they were not. Nobody has to pass on such: who brings them is to blame.
    """
    if servent_id(news.public_key) != news.provider.id:
        raise RemoteProtocolError("news have a key that is not their provider's")
    told = (news.provider, news.version, news.directories, news.is_all)
    if not verify(news.public_key, news.signature, _NEWS_PREFIX + msgspec.msgpack.encode(told)):
        raise RemoteProtocolError("news have a wrong signature")


class Handshake:
    """One Noise handshake, then the two ciphers that it leaves.

    The initiator writes, reads, writes; the responder reads, writes, reads. Then `peer_id` is
    known and proven, and `encrypt` and `decrypt` may be called.
    """

    def __init__(
        self, role: Role, identity: Identity, network_key: NetworkKey, *, prologue: bytes
    ) -> None:
        self._identity = identity
        self._noise = _new_noise(role, identity, network_key, prologue)
        # The library drops this at the last message, just when it has the peer's static key.
        self._state = self._noise.noise_protocol.handshake_state
        self._messages = 0
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
        payload = self._credentials() if self._messages > 1 else b""
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
        try:
            payload = bytes(self._noise.read_message(message))
        except (InvalidTag, NoiseValueError, ValueError) as error:
            raise HandshakeError("that is a servent whose handshake is damaged") from error
        if self._messages > 1:
            self.peer_id = _check_credentials(payload, self._state.rs.public_bytes)

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
    role: Role, identity: Identity, network_key: NetworkKey, prologue: bytes
) -> NoiseConnection:
    psk = network_key.psk
    noise = NoiseConnection.from_name(_OPEN_PATTERN if psk is None else _PRIVATE_PATTERN)
    if psk is not None:
        noise.set_psks(psk)
    noise.set_prologue(prologue)
    noise.set_keypair_from_private_bytes(Keypair.STATIC, identity.static_key())
    if role is Role.INITIATOR:
        noise.set_as_initiator()
    else:
        noise.set_as_responder()
    noise.start_handshake()
    return noise


def _check_credentials(payload: bytes, static_key: bytes) -> ServentId:
    try:
        credentials = _DECODE_CREDENTIALS(payload)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise HandshakeError("that is a servent without valid credentials") from error
    signed = _STATIC_KEY_PREFIX + static_key
    if not verify(credentials.public_key, credentials.signature, signed):
        raise HandshakeError("that is a servent that could not prove its identity")
    return servent_id(credentials.public_key)
