"""The command, run in this process, and a servent that answers it from memory."""

from __future__ import annotations

import sys

import pytest

from p2pfs.cli import main
from p2pfs.config import load_config
from tests.helpers.fakeservent import FakeServent, running


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Be in an empty directory, where no other servent is seen."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def p2pfs(here, monkeypatch, capsys):
    """Run the command; return its exit status, output and error output."""

    def p2pfs(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["p2pfs", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        output, errors = capsys.readouterr()
        return int(ended.value.code), output, errors

    return p2pfs


@pytest.fixture
def servent(here):
    """A servent whose mount, `mnt`, is only said to be there."""
    options = {"state_directory": str(here / "state"), "mountpoint": str(here / "mnt")}
    servent = FakeServent(load_config({"name": "fake"}, **options))
    with running(servent):
        yield servent
