"""Keys and seals of a directory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pfs.protocol import SALT_BYTES, NetworkKey, Seal, Subject, directory_key

ONE, OTHER = NetworkKey(b"1" * 32), NetworkKey(b"2" * 32)
NETWORKS = [NetworkKey.open(), ONE, OTHER]

salts = st.binary(min_size=SALT_BYTES, max_size=SALT_BYTES)


def test_keys_differ_by_network_subject_and_what():
    keys = {
        directory_key(network, subject, what)
        for network in NETWORKS
        for subject in Subject
        for what in (b"", b"a", b"ab")
    }

    assert len(keys) == len(NETWORKS) * len(Subject) * 3
    assert {len(key) for key in keys} == {20}


def test_keys_and_seals_are_those_of_the_specification():
    key = directory_key(NetworkKey.open(), Subject.FILE, bytes(32))
    sealed = Seal(NetworkKey.open()).close(b"d1:y1:qe", bytes(16))

    assert key.hex() == "8745b5dbe588e9e2f7e63b7da4389530541c0b4f"
    assert sealed.hex() == (
        "a700000000000000000000000000000000c3ebabd8c1c8687ca22b517aa9fdaef6486b56ec9a0eb7d4"
    )


@given(st.binary(max_size=1_500), salts)
def test_a_network_opens_what_it_has_sealed(message: bytes, salt: bytes):
    for network in NETWORKS:
        assert Seal(network).open(Seal(network).close(message, salt)) == message


@given(st.binary(max_size=100), salts, st.data())
def test_nobody_else_does_and_no_changed_byte_passes(message: bytes, salt: bytes, data):
    sealed = Seal(ONE).close(message, salt)
    place = data.draw(st.integers(0, len(sealed) - 1))
    changed = bytearray(sealed)
    changed[place] ^= data.draw(st.integers(1, 255))

    assert Seal(OTHER).open(sealed) is None
    assert Seal(NetworkKey.open()).open(sealed) is None
    assert Seal(ONE).open(bytes(changed)) is None
    assert Seal(ONE).open(sealed[:place]) is None


@given(st.binary(max_size=200))
def test_garbage_opens_as_nothing(garbage: bytes):
    assert Seal(ONE).open(garbage) is None
    assert Seal(ONE).open(b"\xa7" + garbage) is None
