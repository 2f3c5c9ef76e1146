"""Starting in the background, with stand-ins for the servent that starts."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import p2pfs
from p2pfs.host import background
from p2pfs.host.background import Welcome


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Let `python -m p2pfs` run a script of the test's, beside the real modules."""
    package = tmp_path / "path" / "p2pfs"
    package.mkdir(parents=True)
    real = Path(p2pfs.__file__).parent
    (package / "__init__.py").write_text(f"__path__.append({str(real)!r})")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    prelude = f"""
import os, sys, time
from p2pfs.host.background import ParentPipe, StartError, Welcome
report = ParentPipe()
with open({str(tmp_path / "pid")!r}, "w") as file: file.write(str(os.getpid()))
"""

    def child(script: str) -> Path:
        (package / "__main__.py").write_text(prelude + script)
        (tmp_path / "state").mkdir()
        return tmp_path / "state" / "output"

    return child


@pytest.fixture
def pid(tmp_path):
    return lambda: int((tmp_path / "pid").read_text())


def has_ended(pid: int, within_s: float = 60) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], within_s)[0])
    finally:
        os.close(process)


def test_what_the_servent_reports_is_returned_and_it_lives_on(child, pid):
    output = child(
        "line = f'{sys.argv[1:]} in group {os.getpgid(0)}'\n"
        "report.ready(Welcome([line], ['warning: wet'], {'pid': 1}))\n"
        "print('printed', flush=True); time.sleep(1000)"
    )

    line = f"['mount', 'dir'] in group {os.getpgid(0)}"  # ours, until it was up
    welcome = Welcome([line], ["warning: wet"], {"pid": 1})
    assert background.start(["mount", "dir"], output) == welcome
    assert os.getsid(pid()) == pid()

    assert not has_ended(pid(), 0)
    os.kill(pid(), signal.SIGKILL)
    os.waitpid(pid(), 0)


def test_why_it_failed_is_the_error(child, pid):
    output = child("report.failed('no luck'); sys.exit(1)")

    with pytest.raises(background.StartError, match=r"^no luck$"):
        background.start(["mount"], output)

    assert has_ended(pid())


def test_a_servent_that_dies_silently_is_an_error_with_its_last_line(child):
    output = child("raise RuntimeError('burnt')")

    with pytest.raises(background.StartError, match=r"ended before it was ready: .*burnt"):
        background.start(["mount"], output)


def test_a_servent_that_takes_for_ever_is_ended(child, pid, monkeypatch):
    output = child("time.sleep(1000)")
    monkeypatch.setattr(background, "CHILD_START_S", 0.5)

    with pytest.raises(background.StartError, match="not ready within"):
        background.start(["mount"], output)

    assert not (output.parent.parent / "pid").exists() or has_ended(pid())


PARENT = "import sys; from pathlib import Path; from p2pfs.host import background\n" + (
    "background.start(['mount'], Path(sys.argv[1]))"
)


def start_parent(output: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PARENT, str(output)], stderr=subprocess.DEVNULL)


def test_ctrl_c_on_the_parent_ends_the_child(child, pid, tmp_path):
    os.mkfifo(tmp_path / "started")
    output = child(f"open({str(tmp_path / 'started')!r}, 'w').close(); time.sleep(1000)")
    with start_parent(output) as parent:
        (tmp_path / "started").read_text()

        parent.send_signal(signal.SIGINT)

        assert parent.wait(60) != 0
    assert has_ended(pid())


def test_a_servent_nobody_waits_for_any_more_is_told_so(child, tmp_path):
    for name in ("started", "go", "result"):
        os.mkfifo(tmp_path / name)
    output = child(
        f"""
open({str(tmp_path / "started")!r}, 'w').close(); open({str(tmp_path / "go")!r}).read()
try: report.ready(Welcome([], [], {{}}))
except StartError as error: open({str(tmp_path / "result")!r}, 'w').write(str(error))
"""
    )
    with start_parent(output) as parent:
        (tmp_path / "started").read_text()
        parent.kill()
        parent.wait()

        (tmp_path / "go").write_text("")

        assert "interrupted" in (tmp_path / "result").read_text()


def test_without_a_parent_reports_go_nowhere(monkeypatch):
    monkeypatch.delenv("P2PFS_REPORT_FD", raising=False)
    report = background.ParentPipe()

    assert not report.is_awaited
    assert report.ready(Welcome([], [], {})) is None
