"""What programs find in `network/` by its path, where nobody has listed anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.mounted import PATIENCE_S, Servent, until

pytestmark = pytest.mark.fuse

GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")


def git(*arguments: str | Path, cwd: Path) -> str:
    environment = {"HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    done = subprocess.run(
        [*GIT, *map(str, arguments)], cwd=cwd, env=os.environ | environment,
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout.strip()


def published(servent: Servent, directory: Path) -> None:
    """Wait until all files of a directory in `shared/` are offered."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    state = "user.p2pfs.state"
    until(lambda: all(os.getxattr(file, state) == b"published" for file in files))


@pytest.mark.parametrize("name", ["cover.jpg", "HEAD", "folder.jpg", "Folder.jpg", "AlbumArt.jpg"])
def test_a_name_that_programs_look_up_anywhere_is_found_at_first_sight(
    anna: Servent, ben: Servent, name: str
):
    anna.share(f"album {name}/{name}", b"img")
    album = ben.network / f"album {name}"
    until(album.is_dir)

    assert (album / name).read_bytes() == b"img"


@pytest.mark.skipif(shutil.which("git") is None, reason="not installed: git")
def test_a_repository_is_cloned_at_first_sight_and_fetched_after_each_push(
    anna: Servent, ben: Servent, tmp_path: Path
):
    work, clone = tmp_path / "work", tmp_path / "clone"
    shared, seen = anna.shared / "repo.git", ben.network / "repo.git"
    git("init", "-q", "-b", "main", work, cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "one", cwd=work)
    git("clone", "-q", "--bare", work, shared, cwd=tmp_path)
    published(anna, shared)
    until(seen.is_dir)

    git("clone", "-q", seen, clone, cwd=tmp_path)
    for number in range(3):
        git("commit", "-q", "--allow-empty", "-m", f"more {number}", cwd=work)
        git("push", "-q", shared, "main", cwd=work)
        published(anna, shared)
        head = git("rev-parse", "HEAD", cwd=work)

        until(lambda head=head: git("ls-remote", seen, "main", cwd=tmp_path).startswith(head))
        git("fetch", "-q", cwd=clone)
        assert git("rev-parse", "origin/main", cwd=clone) == head
    git("fsck", "--full", cwd=clone)
