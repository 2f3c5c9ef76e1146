"""The secrets on disk: whose they are, and what a damaged one leads to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from p2pfs.config import Config
from p2pfs.errors import UsageError
from p2pfs.keys import load_identity, load_network_key
from p2pfs.protocol.handshake import NetworkKey


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(state_directory=tmp_path, name="me", cache_limit_bytes=2**26)


def private(config: Config, text: str) -> Config:
    file = config.state_directory / "network.key"
    file.write_text(text)
    return Config(
        state_directory=config.state_directory,
        name="me",
        cache_limit_bytes=2**26,
        network_key_file=file,
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_identity_is_made_at_the_first_start_and_kept(config: Config):
    identity = load_identity(config)

    assert load_identity(config).id == identity.id
    assert [path.name for path in config.state_directory.iterdir()] == ["identity.key"]


def test_an_identity_is_for_its_owner_alone_whatever_the_umask(config: Config):
    before = os.umask(0)
    try:
        load_identity(config)
    finally:
        os.umask(before)

    assert mode(config.identity_path) == 0o600


def test_an_identity_that_others_could_read_is_closed_to_them(config: Config):
    load_identity(config)
    config.identity_path.chmod(0o644)

    load_identity(config)

    assert mode(config.identity_path) == 0o600


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_damaged_identity_is_an_error_and_is_not_replaced(config: Config, content: bytes):
    config.identity_path.write_bytes(content)

    with pytest.raises(UsageError, match=r"identity\.key"):
        load_identity(config)

    assert config.identity_path.read_bytes() == content


def test_an_identity_that_cannot_be_read_is_an_error(config: Config):
    config.identity_path.mkdir()

    with pytest.raises(UsageError, match="cannot read the identity"):
        load_identity(config)


def test_an_identity_that_cannot_be_kept_is_an_error(config: Config):
    (config.state_directory / "identity.key.new").mkdir()

    with pytest.raises(UsageError, match="cannot keep the identity"):
        load_identity(config)


def test_what_a_crash_left_half_written_is_written_anew(config: Config):
    (config.state_directory / "identity.key.new").write_bytes(b"half")

    assert load_identity(config).id == load_identity(config).id


def test_without_a_key_file_the_network_is_the_open_one(config: Config):
    assert load_network_key(config) == NetworkKey.open()


def test_a_network_key_is_the_same_with_or_without_a_last_newline(config: Config):
    key = load_network_key(private(config, "correct horse"))

    assert key.psk is not None
    assert load_network_key(private(config, "correct horse\n")) == key
    assert load_network_key(private(config, "correct house")) != key


@pytest.mark.parametrize("text", ["", "\n", "  \n"])
def test_an_empty_network_key_is_an_error_and_never_the_open_network(config: Config, text: str):
    with pytest.raises(UsageError, match="is empty"):
        load_network_key(private(config, text))


def test_a_missing_network_key_is_an_error(config: Config):
    missing = private(config, "x")
    (config.state_directory / "network.key").unlink()

    with pytest.raises(UsageError, match="No such file"):
        load_network_key(missing)
