"""The secrets on disk: whose they are, and what a damaged one leads to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, strategies

from p2pfs.config import Config
from p2pfs.errors import UsageError
from p2pfs.keys import (
    guessed_bits,
    load_identity,
    load_network_key,
    make_network_key,
    weaknesses_of,
)
from p2pfs.protocol.handshake import NetworkKey
from tests.helpers.powercut import power_may_fail


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


def test_a_key_is_made_once_for_its_owner_alone_and_is_a_good_one(config: Config):
    path = config.state_directory / "new.key"
    before = os.umask(0)
    try:
        make_network_key(path)
    finally:
        os.umask(before)
    made = path.read_bytes()

    assert mode(path) == 0o600
    assert weaknesses_of(path) == []
    with pytest.raises(UsageError, match="is there already"):
        make_network_key(path)
    assert path.read_bytes() == made


def test_no_two_keys_are_the_same(tmp_path: Path):
    for name in "ab":
        make_network_key(tmp_path / name)

    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_a_key_that_cannot_be_written_is_an_error(config: Config):
    with pytest.raises(UsageError, match="cannot write the network key"):
        make_network_key(config.state_directory / "none" / "new.key")


def test_a_new_key_survives_a_power_cut(tmp_path: Path):
    place = tmp_path / "d"
    place.mkdir()
    with power_may_fail(place) as cuts:
        make_network_key(place / "k")
    key = (place / "k").read_bytes()

    for disk in cuts[-1].disks(tmp_path / "disks"):
        assert (disk / "k").read_bytes() == key


@pytest.mark.parametrize("others", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_told_of(tmp_path: Path, others: int):
    make_network_key(tmp_path / "k")
    (tmp_path / "k").chmod(others)

    assert weaknesses_of(tmp_path / "k") == [
        f"others can read the network key: chmod 600 {tmp_path / 'k'}"
    ]


WEAK = ["", "swing", "hunter2", "correct horse battery staple", "CorrectHorseBatteryStaple"]
WEAK += ["a" * 60, "word " * 40, "Tr0ub4dor&3", "0123456789" * 2, "ab" * 35, "\n \n"]

STRONG = ["cleft cam synod lacy yr wok cab", "716129bbcd28e54ad8c3b767e5d93542"]
STRONG += ["FvrR4zM6xe7qGZhHkfLlBg==", "Haus-Mond-Ofen-Laub-Tor-Keks-Sieb"]


@pytest.mark.parametrize("text", WEAK)
def test_a_key_that_can_be_guessed_is_told_of(config: Config, text: str):
    file = private(config, text).network_key_file
    file.chmod(0o600)

    (told,) = weaknesses_of(file)

    assert "can be guessed" in told
    assert "p2pfs newkey" in told


@pytest.mark.parametrize("text", [*STRONG, bytes(range(100, 132)).decode("latin1")])
def test_a_key_that_can_not_be_guessed_is_not(config: Config, text: str):
    file = private(config, text).network_key_file
    file.chmod(0o600)

    assert weaknesses_of(file) == []


@given(strategies.binary(max_size=200), strategies.binary(max_size=50))
def test_a_longer_key_is_never_worth_less_than_nothing(one: bytes, more: bytes):
    assert 0 <= guessed_bits(one) <= 21 * len(one)
    assert guessed_bits(one + one + more) <= 2 * guessed_bits(one) + 21 * (len(more) + 2)


def test_a_missing_network_key_is_an_error(config: Config):
    missing = private(config, "x")
    (config.state_directory / "network.key").unlink()

    with pytest.raises(UsageError, match="No such file"):
        load_network_key(missing)
