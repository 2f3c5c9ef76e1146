"""Who a servent is: its key, the id that follows from it, and the key of a private network.

An identity is one Ed25519 key. Its public half, hashed, is the servent's id; the Noise keys of its
links follow from its secret half (`handshake`), and it signs what floods (`signatures`).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from p2pfs.protocol.fields import ServentId
from p2pfs.protocol.manifest import MIB

PSK_BYTES: Final = 32
NETWORK_ID_BYTES: Final = 16

SERVENT_ID_BYTES: Final = 20
"""Of the hash that is a servent's id: 160 bits, 32 characters, no padding."""

# Each use of a key or a hash, in any module, has a text of its own: none can pose as another.
_ID_PREFIX: Final = b"p2pfs servent id 1\n"
_STATIC_KEY_CONTEXT: Final = "p2pfs 1 Noise static key"
_NETWORK_ID_CONTEXT: Final = "p2pfs 1 network id"
_NETWORK_KEY_SALT: Final = b"p2pfs network key 1"

_SCRYPT_N: Final = 2**16
_SCRYPT_R: Final = 8
_SCRYPT_MEMORY_BYTES: Final = 80 * MIB
# 64 MiB and 0.2 s at each start: a guess at a passphrase costs as much as for a login.

_FIELD: Final = 2**255 - 19
"""The prime of Curve25519."""


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


def servent_id(public_key: bytes) -> ServentId:
    """Return the id of the servent with this key: 32 characters of lower-case base32."""
    digest = blake3(_ID_PREFIX + public_key).digest(SERVENT_ID_BYTES)
    return ServentId(base64.b32encode(digest).decode().lower())


def verify(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Return whether `signature` is that of `data` by the holder of this key."""
    if public_key[:-1] + bytes((public_key[-1] & 0x7F,)) in SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def curve_point(public_key: bytes) -> bytes | None:
    """Return the X25519 key of who holds an Ed25519 key (RFC 7748, section 4.1).

    None for a key that is nobody's.
    """
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    if y.to_bytes(32, "little") in SMALL_ORDER:
        return None
    return ((1 + y) * pow(1 - y, -1, _FIELD) % _FIELD).to_bytes(32, "little")
