"""`shared/` through a real mount: the same suite that a plain directory passes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.files import RealFiles
from tests.helpers.mountedtree import MountedTree, mounted_tree
from tests.suites.filesystem_suite import FileSystemSuite

pytestmark = pytest.mark.fuse

directories = itertools.count()


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountedTree]:
    with mounted_tree(tmp_path_factory.mktemp("mount")) as mounted:
        yield mounted
        assert mounted.ask("released")


class TestMountedTree(FileSystemSuite):
    @pytest.fixture
    def files(self, mounted: MountedTree) -> Iterator[RealFiles]:
        directory: Path = mounted.shared / str(next(directories))
        directory.mkdir()
        files = RealFiles(str(directory))
        yield files
        files.close()


def test_a_directory_of_twenty_thousand_files_is_listed_whole(mounted: MountedTree) -> None:
    backing = mounted.backing / "many"
    backing.mkdir()
    names = {f"file number {number}" for number in range(20_000)}
    for name in names:
        (backing / name).touch()

    with os.scandir(mounted.shared / "many") as entries:
        assert {entry.name for entry in entries if entry.is_file()} == names
    (mounted.shared / "many" / "one more").touch()
    assert len(os.listdir(mounted.shared / "many")) == 20_001
