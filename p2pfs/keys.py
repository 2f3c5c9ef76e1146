"""The secrets of one servent on disk: its identity, and the key of its private network."""

from __future__ import annotations

import os
from pathlib import Path

from p2pfs.config import Config
from p2pfs.errors import UsageError
from p2pfs.protocol import Identity, NetworkKey


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
    temporary = f"{path}.new"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(identity.to_bytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"cannot keep the identity {path}: {error.strerror}") from error
    return identity


def load_network_key(config: Config) -> NetworkKey:
    """Return the key of the private network, or that of the open one.

    Raises:
        UsageError: the key file cannot be read or is empty.
    """
    path = config.network_key_file
    if path is None:
        return NetworkKey.open()
    try:
        passphrase = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"cannot read the network key {path}: {error.strerror}") from error
    if not passphrase:
        raise UsageError(f"the network key {path} is empty")
    return NetworkKey.from_passphrase(passphrase)
