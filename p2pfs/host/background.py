"""Start this command anew in the background, and report readiness or the error through a pipe.

It does not fork: with threads running that is unsafe, and libfuse's own way into the background
loses errors. The child is a new process, and once it is up it has its own session. An
environment variable names the descriptor for its report. If the parent ends before the report,
the child ends itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from p2pfs.errors import P2pfsError
from p2pfs.state import open_private

CHILD_START_S: Final = 60.0
"""The time for a slow disk to open the index; scanning goes on after readiness."""

CHILD_END_S: Final = 15.0
"""The time that a child gets to end after SIGTERM, before it is killed."""

MAX_REPORT_BYTES: Final = 65_536

_REPORT_VARIABLE: Final = "P2PFS_REPORT_FD"


@dataclass(frozen=True)
class Welcome:
    """The report of a servent that is up."""

    lines: Sequence[str]
    """The lines for people."""
    warnings: Sequence[str]
    """Problems that did not stop the start."""
    record: Mapping[str, object]
    """The same for programs: a JSON object."""


class StartError(P2pfsError):
    """The servent did not start; the text says why."""


def start(arguments: Sequence[str], output_path: Path, text: str = "") -> Welcome:
    """Run `p2pfs ARGUMENTS` in the background and return its report when it is ready.

    Its standard input is `text`: other users can read its arguments, and not that. What it
    prints is added to `output_path`. If anything fails, or this process is interrupted, the
    child is ended before this returns.

    Raises:
        StartError: it failed, ended or did not report within a minute.
    """
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as pipe:
        try:
            child = _spawn(arguments, output_path, write_end, text)
        except OSError as error:
            raise StartError(f"cannot start: {error.strerror}: {error.filename}") from error
        finally:
            os.close(write_end)
        try:
            welcome = _welcome(_report(pipe.fileno()), output_path)
            child.returncode = 0  # it lives on, and nobody is going to wait for it
            return welcome
        except BaseException:
            _end(child)
            raise


class ParentPipe:
    """The child's end of the pipe; without a parent that waits, it does nothing."""

    def __init__(self) -> None:
        self._descriptor = _inherited_pipe(os.environ.pop(_REPORT_VARIABLE, ""))
        if self._descriptor is not None:
            os.set_inheritable(self._descriptor, False)  # fusermount must not keep it open

    @property
    def is_awaited(self) -> bool:
        """Whether we are a child in the background that has not reported yet."""
        return self._descriptor is not None

    def ready(self, welcome: Welcome) -> None:
        """Report that the servent is up, and leave the session of the starting command.

        An earlier new session would fail under an automounter: it shows the mountpoint to its
        own process group alone, and every other process waits there for the mount.

        Raises:
            StartError: the parent is gone, so nobody knows of us: end.
        """
        if self.is_awaited:
            with contextlib.suppress(PermissionError):  # it has one
                os.setsid()
        if not self._send("ready", json.dumps(asdict(welcome))):
            raise StartError("the command that started this servent was interrupted")

    def failed(self, text: str) -> None:
        """Report why the start failed; a failure after the report is not reported."""
        self._send("failed", text)

    def _send(self, outcome: str, text: str) -> bool:
        if self._descriptor is None:
            return True
        try:
            os.write(self._descriptor, f"{outcome}\n{text}".encode("utf-8", "replace"))
        except BrokenPipeError:
            return False
        finally:
            os.close(self._descriptor)
            self._descriptor = None
        return True


def _inherited_pipe(text: str) -> int | None:
    """Return the descriptor of that number if it is a pipe: others may have set the variable."""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if stat.S_ISFIFO(os.fstat(int(text)).st_mode):
            return int(text)
    return None


def _spawn(
    arguments: Sequence[str], output_path: Path, write_end: int, text: str
) -> subprocess.Popen[bytes]:
    # Not emptied: another servent may be printing there, which the child will find out.
    with (
        open(output_path, "ab", opener=open_private) as output,
        open(os.memfd_create("p2pfs-input"), "r+") as given,
    ):
        given.write(text)
        given.seek(0)
        # -P: a directory `p2pfs` that happens to lie here must not be what runs.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "p2pfs", *arguments],
            stdin=given,
            stdout=output,
            stderr=output,
            pass_fds=(write_end,),
            env=os.environ | {_REPORT_VARIABLE: str(write_end)},
        )


def _report(pipe: int) -> bytes:
    """Read until the child has closed the pipe."""
    report, deadline = b"", time.monotonic() + CHILD_START_S
    while len(report) < MAX_REPORT_BYTES:
        rest = max(0.0, deadline - time.monotonic())
        if not select.select([pipe], [], [], rest)[0]:
            raise StartError(f"the servent was not ready within {CHILD_START_S:.0f} s")
        data = os.read(pipe, MAX_REPORT_BYTES)
        if not data:
            break
        report += data
    return report


def _welcome(report: bytes, output_path: Path) -> Welcome:
    outcome, _, text = report.decode("utf-8", "replace").partition("\n")
    if outcome == "ready":
        return Welcome(**json.loads(text))
    if outcome == "failed":
        raise StartError(text)
    last = _last_line(output_path)
    raise StartError(f"the servent ended before it was ready: {last or 'it said nothing'}")


def _last_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        lines = path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(CHILD_END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
