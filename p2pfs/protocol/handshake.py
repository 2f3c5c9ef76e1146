"""The Noise handshake: it proves who is at the other end (PROTOCOL.md, "Handshake").

The only file that knows Noise. A link is `Noise_XX_25519_AESGCM_SHA256`, or `XXpsk3` with the
key of a private network. Noise proves that the peer holds its static key; the credentials in
messages 2 and 3 prove that this static key belongs to an identity.

An initiator that knows the public key of the peer may speak at once: the payload of message 1 is
then the first message of an IK handshake, which carries its first frames. A peer that takes it
answers with the second message of IK, and XX is over; any other peer ignores it, and XX goes on.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseValueError

from p2pfs.errors import HandshakeError, RemoteProtocolError
from p2pfs.protocol.fields import Message, PublicKeyField, ServentId, SignatureField
from p2pfs.protocol.identity import Identity, NetworkKey, curve_point, servent_id, verify

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

_OPEN_PATTERN: Final = b"Noise_XX_25519_AESGCM_SHA256"
_PRIVATE_PATTERN: Final = b"Noise_XXpsk3_25519_AESGCM_SHA256"
_OPEN_EARLY_PATTERN: Final = b"Noise_IK_25519_AESGCM_SHA256"
_PRIVATE_EARLY_PATTERN: Final = b"Noise_IKpsk1_25519_AESGCM_SHA256"

_NONCE: Final = struct.Struct(">IQ")
"""Nothing, and the count: as Noise has it for AES-GCM."""

_STATIC_KEY_PREFIX: Final = b"p2pfs static key 1\n"
_EARLY_PREFIX: Final = b"p2pfs early 1\n"


class Role(enum.Enum):
    """Which end of a link: the one that dialled is the initiator."""

    __hash__ = object.__hash__  # see `connection.State`

    INITIATOR = "initiator"
    RESPONDER = "responder"

    @property
    def other(self) -> Role:
        """The role of the peer."""
        return Role.RESPONDER if self is Role.INITIATOR else Role.INITIATOR


class Credentials(Message, frozen=True, array_like=True):
    """The payload of Noise messages 2 and 3: whose static key this is."""

    public_key: PublicKeyField
    signature: SignatureField
    """By the identity, over a prefix and the static key."""


class Early(Message, frozen=True, array_like=True):
    """The payload of the first message of IK: who speaks, and what it says before any answer."""

    told_at_us: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    """Microseconds since 1970, by the sender's clock; later than in any that it sent before."""
    public_key: PublicKeyField
    frames: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_EARLY_FRAMES)]
    """As they would be encrypted: HELLO, then what can be asked twice without harm."""


TakeEarly = Callable[[ServentId, int], bool]
"""Decides whether an early message that a servent sent at this time is taken; a repeated one must
not be."""

_DECODE_CREDENTIALS: Final = msgspec.msgpack.Decoder(Credentials).decode
_DECODE_EARLY: Final = msgspec.msgpack.Decoder(Early).decode


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
        return self._outgoing.encrypt(plaintext)

    def decrypt(self, frame: bytes | memoryview) -> bytes:
        """Return the plaintext of the next frame.

        Raises:
            RemoteProtocolError: it was changed, repeated or reordered, or one was left out.
        """
        try:
            return self._incoming.decrypt(frame)
        except InvalidTag as error:
            raise RemoteProtocolError("a frame does not decrypt") from error

    @cached_property
    def _outgoing(self) -> _Cipher:
        return _Cipher(self._noise.noise_protocol.cipher_state_encrypt.k)

    @cached_property
    def _incoming(self) -> _Cipher:
        return _Cipher(self._noise.noise_protocol.cipher_state_decrypt.k)

    def _credentials(self) -> bytes:
        signature = self._identity.sign(_STATIC_KEY_PREFIX + self._state.s.public_bytes)
        return msgspec.msgpack.encode(Credentials(self._identity.public_key, signature))


class _Cipher:
    """One direction of a link after the handshake: the nonces of Noise count its frames.

    The library's own does the same in six calls, of which there were 17,000 in a GiB.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._count = 0

    def encrypt(self, plaintext: bytes) -> bytes:
        frame = self._cipher.encrypt(_NONCE.pack(0, self._count), plaintext, None)
        self._count += 1
        return frame

    def decrypt(self, frame: bytes | memoryview) -> bytes:
        """Return a plaintext; InvalidTag if it is not that of the next frame, which comes yet."""
        plaintext = self._cipher.decrypt(_NONCE.pack(0, self._count), frame, None)
        self._count += 1
        return plaintext


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
