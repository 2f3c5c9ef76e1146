"""The secrets of one servent on disk: its identity, and the key of its private network."""

from __future__ import annotations

import os

from p2pfs.config import Config
from p2pfs.errors import UsageError
from p2pfs.protocol.handshake import Identity, NetworkKey


def load_identity(config: Config) -> Identity:
    """Return the identity kept in the state directory, made at the first start, mode 0600.

    Raises:
        UsageError: the file is there and cannot be read or is damaged.
    """
    path = config.identity_path
    try:
        return Identity.from_bytes(path.read_bytes())
    except FileNotFoundError:
        identity = Identity.generate()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the identity {path}: {error}") from error
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(identity.to_bytes())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
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
