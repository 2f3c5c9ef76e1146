"""The secrets of one servent on disk: its identity, and the key of its private network."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from p2pfs.config import Config, Origin
from p2pfs.errors import UsageError
from p2pfs.invitations import MAX_KEY_BYTES, Invitation
from p2pfs.protocol import Identity, NetworkKey
from p2pfs.state import replace_file, sync_directory


def load_identity(config: Config) -> Identity:
    """Return the identity kept in the state directory, made at the first start, mode 0600.

    Raises:
        UsageError: it cannot be written, or is there and cannot be read or is damaged.
    """
    path = config.identity_path
    try:
        os.chmod(path, 0o600)  # also of one that came back from a backup
        return Identity.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return _new_identity(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the identity {path}: {error}") from error


def _new_identity(path: Path) -> Identity:
    """Make an identity and keep it, whole or not at all."""
    identity = Identity.generate()
    try:
        replace_file(path, identity.to_bytes())
    except OSError as error:
        raise UsageError(f"cannot keep the identity {path}: {error.strerror}") from error
    return identity


NEW_KEY_BYTES: Final = 32

MIN_KEY_BITS: Final = 80
"""An eavesdropper of one handshake can guess a network key with fewer bits. Each try costs scrypt
with 64 MiB, some 0.1 s; a thousand rented machines make 2^48 of them in a year (2^80 is four
thousand million times as many)."""

WORD_BITS: Final = 13.0
"""Bits of a word that people think of, or that dice choose from 7,776 (Diceware: 12.9)."""

WORD_LETTERS: Final = 6
"""Letters of one such word in the mean; a longer run is taken for several."""

_CHARACTER_BITS: Final = {"a": 4.7, "A": 4.7, "0": 3.3, ".": 5.0, " ": 0.0, "?": 7.0}
"""The bits that one character outside words adds, by its kind; blanks only part words."""

_RUN: Final = re.compile("A?a{2,}|A{3,}|.")
"""A run that may be a word, in kinds of characters, or one other character."""


def make_network_key(path: Path) -> None:
    """Write a new key for a private network, for its owner alone; it is text of one line.

    Raises:
        UsageError: there is something of that name already, or it cannot be written.
    """
    key = secrets.token_urlsafe(NEW_KEY_BYTES).encode() + b"\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} is there already, and a network may depend on it") from None
    except OSError as error:
        raise UsageError(f"cannot write the network key {path}: {error.strerror}") from error
    with open(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(path.parent)


def weaknesses_of(path: Path) -> list[str]:
    """Return, for people, why the network key in this file may be known to others."""
    found = []
    with contextlib.suppress(OSError):  # `load_network_key` tells of it
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            found.append(f"others can read the network key: chmod 600 {path}")
        bits = guessed_bits(path.read_bytes().strip())
        if bits < MIN_KEY_BITS:
            found.append(
                f"the network key {path} can be guessed, it is worth some {bits:.0f} bits of "
                f"{MIN_KEY_BITS} or more: `p2pfs newkey FILE` makes a good one"
            )
    return found


def guessed_bits(passphrase: bytes) -> float:
    """Return how many bits a passphrase is worth, by a plain estimate.

    A word counts as a word, once; anything else by the character. It knows no dictionary: a
    line from a song is worth less than this says.
    """
    text = passphrase.decode("utf-8", "surrogateescape")
    kinds = "".join(map(_kind_of, text))
    words: set[str] = set()
    bits = 0.0
    for run in _RUN.finditer(kinds):
        if len(run[0]) == 1:
            bits += _CHARACTER_BITS[run[0]]
        else:
            words.add(text[slice(*run.span())].lower())
    bits += sum(WORD_BITS * max(1.0, len(word) / WORD_LETTERS) for word in words)
    return min(bits, len(text) * math.log2(max(1, len(set(text)))))


def _kind_of(character: str) -> str:
    if character.isspace():
        return " "
    if character.isdigit():
        return "0"
    if character.isalpha():
        return "A" if character.isupper() else "a"
    return "." if character.isascii() else "?"


def accept_invitations(config: Config, now: float) -> Config:
    """Return the configuration with the key of the private network that it is invited to.

    The key is kept in the state directory, so that the next start needs no invitation, and taken
    out of the configuration, which every user of the mount may see.

    Raises:
        UsageError: an invitation is for another network than this servent belongs to, or has
            ended and would have brought the key; or the key cannot be kept.
    """
    for invitation in config.joins:
        if isinstance(invitation, Invitation):
            path, origins = _key_file_of(invitation, config, now), dict(config.origins)
            if path != config.network_key_file:
                origins["network-key-file"] = Origin.INVITATION
            config = dataclasses.replace(config, network_key_file=path, origins=origins)
    joins = tuple(
        dataclasses.replace(one, key=None) if isinstance(one, Invitation) else one
        for one in config.joins
    )
    return dataclasses.replace(config, joins=joins)


def _key_file_of(invitation: Invitation, config: Config, now: float) -> Path | None:
    path = config.network_key_file
    if path is None and invitation.key is not None:
        if invitation.has_ended(now):
            raise UsageError(f"this invitation ended on {invitation.end}: ask for another")
        try:
            replace_file(config.kept_key_path, invitation.key + b"\n")
        except OSError as error:
            raise UsageError(f"cannot keep the network key: {error.strerror}") from error
        return config.kept_key_path
    if path is not None and _passphrase_in(path) != invitation.key:
        raise UsageError(f"this invitation is for another network than that of the key in {path}")
    return path


def is_of_network(invitation: Invitation, key: NetworkKey) -> bool:
    """Return whether an invitation leads into the network of this key; takes 0.1 s."""
    if invitation.key is None or key.psk is None:
        return invitation.key is key.psk
    return NetworkKey.from_passphrase(invitation.key) == key


def load_network_key(config: Config) -> NetworkKey:
    """Return the key of the private network, or that of the open one.

    Raises:
        UsageError: the key file cannot be read or is empty.
    """
    path = config.network_key_file
    if path is None:
        return NetworkKey.open()
    return NetworkKey.from_passphrase(_passphrase_in(path))


def _passphrase_in(path: Path) -> bytes:
    try:
        passphrase = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"cannot read the network key {path}: {error.strerror}") from error
    if not passphrase:
        raise UsageError(f"the network key {path} is empty")
    return passphrase


def invitation_key(config: Config) -> bytes | None:
    """Return the key that an invitation into this servent's network must hold.

    Raises:
        UsageError: the key file cannot be read, or holds more than an invitation can.
    """
    path = config.network_key_file
    key = None if path is None else _passphrase_in(path)
    if key is not None and len(key) > MAX_KEY_BYTES:
        raise UsageError(f"the network key {path} is too long for an invitation")
    return key
