"""What is done in the backing directory, past the mount, is published and withdrawn as well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.mounted import Servents, open_servents, until

pytestmark = pytest.mark.fuse


@pytest.fixture
def servents(tmp_path: Path) -> Iterator[Servents]:
    with open_servents(tmp_path) as servents:
        yield servents


def test_a_neighbour_sees_what_is_changed_past_the_mount(servents: Servents) -> None:
    anna = servents.start("anna")
    ben = servents.start("ben", joins=[anna])
    backing = anna.state / "shared"

    with (backing / "f").open("wb", buffering=0) as file:
        file.write(b"half")
        until((anna.shared / "f").exists)
        assert os.getxattr(anna.shared / "f", "user.p2pfs.state") == b"hashing"
        assert not ben.shows("f")
        file.write(b" and half")
    assert ben.sees("f").read_bytes() == b"half and half"

    (backing / "d").mkdir()
    (backing / "f").rename(backing / "d" / "g")
    assert ben.sees("d/g").read_bytes() == b"half and half"
    (backing / "d" / "g").unlink()
    until(lambda: not ben.shows("d/g"))
