"""A copy on its way into the share: what a crash and a power cut leave of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pfs.control.files import Copying
from p2pfs.roots import Roots
from p2pfs.state import Leftovers
from tests.helpers.powercut import check_cuts, power_may_fail


@pytest.fixture
def leftovers(tmp_path: Path) -> Leftovers:
    return Leftovers(tmp_path / "leftovers")


@pytest.fixture
def share(tmp_path: Path) -> Path:
    share = tmp_path / "shared"
    share.mkdir()
    return share


@contextmanager
def source(tmp_path: Path, content: bytes) -> Iterator[int]:
    (tmp_path / "source").write_bytes(content)
    descriptor = os.open(tmp_path / "source", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("path", ["f", "d/f"])
def test_what_was_not_whole_is_removed_at_the_next_start(tmp_path, share, leftovers, path):
    with source(tmp_path, b"x" * 100) as descriptor:
        copying = Copying(descriptor, Roots(share), path, 0o600, leftovers)
        copying.step()
        place = (share / path).parent
        assert len(os.listdir(place)) == 1

        leftovers.remove()

        assert os.listdir(place) == []
        copying.discard()


def test_a_copy_that_is_whole_or_given_up_is_noted_no_more(tmp_path, share, leftovers):
    with source(tmp_path, b"x") as descriptor:
        for path, is_whole in (("whole", True), ("not", False)):
            copying = Copying(descriptor, Roots(share), path, 0o600, leftovers)
            copying.step()
            if is_whole:
                copying.finish()
            copying.discard()
    assert os.listdir(tmp_path / "leftovers") == []

    leftovers.remove()

    assert (share / "whole").read_bytes() == b"x"
    assert os.listdir(share) == ["whole"]


def test_a_copy_that_cannot_be_noted_is_not_begun(tmp_path, share, leftovers):
    (tmp_path / "leftovers").touch()

    with source(tmp_path, b"x") as descriptor, pytest.raises(OSError, match="leftovers"):
        Copying(descriptor, Roots(share), "f", 0o600, leftovers)

    assert os.listdir(share) == []


@pytest.mark.parametrize(("path", "before"), [("f", None), ("f", b"old"), ("d/e/f", None)])
def test_a_power_cut_leaves_the_whole_copy_or_what_was_there(
    tmp_path, share, leftovers, path, before
):
    if before is not None:
        (share / path).write_bytes(before)

    with source(tmp_path, b"new") as descriptor, power_may_fail(share) as cuts:
        copying = Copying(descriptor, Roots(share), path, 0o600, leftovers)
        copying.step()
        copying.finish()
        copying.discard()

    def load(disk: Path) -> bytes | None:
        return (disk / path).read_bytes() if (disk / path).exists() else None

    check_cuts(cuts, tmp_path / "disks", load, before, b"new")
