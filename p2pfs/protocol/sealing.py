"""The directory of a network: its keys, and the seal on its datagrams (PROTOCOL.md, "Directory").

Both come from the key of the network. A stranger without it learns from a key neither which file,
servent nor network is meant, and can neither read a sealed datagram nor make one. The open network
has no secret, and everybody can open its datagrams; but they are of no use to another network, nor
are those of another network of use there.
"""

from __future__ import annotations

import enum
from typing import Final, NewType

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from p2pfs.protocol.fields import DIRECTORY_KEY_BYTES
from p2pfs.protocol.identity import NetworkKey

DirectoryKey = NewType("DirectoryKey", bytes)
"""What something is found by in a directory."""

SEAL_VERSION: Final = b"\xa7"
"""The first byte of a sealed datagram. No message of Mainline begins so: they begin with `d`."""

SALT_BYTES: Final = 16
"""Random, and so never twice: each datagram has a key of its own."""

_SEAL_OVERHEAD: Final = len(SEAL_VERSION) + SALT_BYTES + 16  # with the tag of Poly1305

_NONCE: Final = bytes(12)
"""Each key is used once."""

_KEY_CONTEXT: Final = "p2pfs 2026-11-29 directory key"
_SEAL_CONTEXT: Final = "p2pfs 2026-11-29 directory seal"
_HASH_KEY_BYTES: Final = 32


class Subject(enum.Enum):
    """What a directory tells of."""

    NETWORK = b"network"
    """Servents of the network that can be dialled."""
    SERVENT = b"servent"
    """A servent, or its neighbours if it cannot be dialled."""
    FILE = b"file"
    """A content, by its file id."""


def directory_key(key: NetworkKey, subject: Subject, what: bytes = b"") -> DirectoryKey:
    """Return the key under which a directory tells of something in a network."""
    secret = _secret(key, _KEY_CONTEXT)
    text = bytes([len(subject.value)]) + subject.value + what
    return DirectoryKey(blake3(text, key=secret).digest(DIRECTORY_KEY_BYTES))


class Seal:
    """Closes and opens the datagrams of one network."""

    def __init__(self, key: NetworkKey) -> None:
        self._secret = _secret(key, _SEAL_CONTEXT)

    def close(self, message: bytes, salt: bytes) -> bytes:
        """Return a datagram that those of the network can open; the salt is new and random."""
        return SEAL_VERSION + salt + self._cipher(salt).encrypt(_NONCE, message, SEAL_VERSION)

    def open(self, datagram: bytes) -> bytes | None:
        """Return the message in a datagram, or None if it was not sealed in this network."""
        if len(datagram) < _SEAL_OVERHEAD or not datagram.startswith(SEAL_VERSION):
            return None
        salt, closed = datagram[1 : 1 + SALT_BYTES], datagram[1 + SALT_BYTES :]
        try:
            return self._cipher(salt).decrypt(_NONCE, closed, SEAL_VERSION)
        except InvalidTag:
            return None

    def _cipher(self, salt: bytes) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(blake3(salt, key=self._secret).digest())


def _secret(key: NetworkKey, context: str) -> bytes:
    known = key.network_id if key.psk is None else key.psk
    return blake3(known, derive_key_context=context).digest(_HASH_KEY_BYTES)
