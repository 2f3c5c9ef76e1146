"""Files of a tree, several at once, with one line that tells how it goes on.

A file that fails does not keep the others from being done, as with `cp -r`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from p2pfs.cli.asker import Asker
from p2pfs.cli.voice import OnProgress, Voice, told
from p2pfs.cli.wording import Record, shown_bytes
from p2pfs.control import ExitStatus, exit_status_of
from p2pfs.control.client import Hangup, Row, Running, get, list_directory
from p2pfs.control.opening import open_destination
from p2pfs.control.paths import Id, TreePath
from p2pfs.errors import P2pfsError, UsageError

AT_ONCE: Final = 8
"""Files under way. A small one takes a round trip: that is its time, and not the line's."""

END_S: Final = 2.0
"""How long files under way may take to let go when the user interrupts."""


@dataclass(frozen=True, eq=False)
class Job:
    """One file to be done."""

    typed: str
    """What the user would call it."""
    size: int
    run: Callable[[OnProgress, Hangup], Record]
    """Do it and describe it."""


@dataclass
class Outcome:
    """What came of some files."""

    records: list[Record] = field(default_factory=list)
    """Of one that failed: `path`, `error` and `status`."""
    done_bytes: int = 0
    status: ExitStatus = ExitStatus.DONE
    """That of the first that failed."""

    @property
    def summary(self) -> str:
        """What was done, in words."""
        count = sum("error" not in record for record in self.records)
        return f"{count} file{'s' * (count != 1)}, {shown_bytes(self.done_bytes)}"

    def add(self, other: Outcome) -> None:
        """Add what came of other files."""
        self.records += other.records
        self.done_bytes += other.done_bytes
        self.status = self.status or other.status

    def failed(self, typed: str, error: P2pfsError | OSError, voice: Voice) -> None:
        """Add one that failed, and tell it."""
        if isinstance(error, P2pfsError):
            text, status = str(error), exit_status_of(error)
        else:
            text, status = told(error), ExitStatus.FAILED
        self.add(Outcome([{"path": typed, "error": text, "status": status}], 0, status))
        voice.warn(text)


def each(typed: Sequence[str], voice: Voice, do: Callable[[str], Outcome]) -> int:
    """Do something for each thing that was typed, say what came of all, return the exit status.

    One that fails does not keep the next from being done; if it is the only one, its error is
    the command's.
    """
    outcome = Outcome()
    for one in typed:
        try:
            outcome.add(do(one))
        except (P2pfsError, OSError) as error:
            if len(typed) == 1:
                raise
            outcome.failed(one, error, voice)
    if voice.as_json:
        voice.done("", outcome.records)
    return outcome.status


def work_through(jobs: Sequence[Job], voice: Voice, title: str) -> Outcome:
    """Do some jobs, and return what came of them; what fails is told at once.

    When the user interrupts, those under way are ended.
    """
    crew = _Crew(jobs, voice)
    with voice.progress(title) as on_progress:
        crew.work(on_progress)
    return crew.outcome


class _Crew:
    """Threads that take one job after the other."""

    def __init__(self, jobs: Sequence[Job], voice: Voice) -> None:
        self.outcome = Outcome()
        self._jobs = deque(jobs)
        self._size = sum(job.size for job in jobs)
        self._voice = voice
        self._hangup = Hangup()
        self._lock = threading.Lock()
        """Guards all that follows, the outcome and the voice."""
        self._under_way: dict[Job, int] = {}
        """How many bytes are done of each job."""
        self._done_bytes = 0

    def work(self, on_progress: OnProgress) -> None:
        threads = [
            threading.Thread(target=self._take_jobs, args=(on_progress,), daemon=True)
            for _ in range(min(AT_ONCE, len(self._jobs)))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            self._jobs.clear()
            self._hangup.end()
            for thread in threads:
                thread.join(END_S)
            raise

    def _take_jobs(self, on_progress: OnProgress) -> None:
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                return
            self._do(job, on_progress)

    def _do(self, job: Job, on_progress: OnProgress) -> None:
        def reached(done: int, _size: int) -> None:
            with self._lock:
                self._under_way[job] = done
                on_progress(self._done_bytes + sum(self._under_way.values()), self._size)

        try:
            outcome = Outcome([job.run(reached, self._hangup)], job.size)
        except (P2pfsError, OSError) as error:
            with self._lock:
                if not self._hangup.is_ended:
                    self.outcome.failed(job.typed, error, self._voice)
        else:
            with self._lock:
                self.outcome.add(outcome)
        with self._lock:
            self._under_way.pop(job, None)
            self._done_bytes += job.size


def download(
    asker: Asker, target: TreePath | Id, typed: str, output: str, *, replace: bool
) -> Outcome:
    """Download a file or a directory to `output`, or into it if that is a directory."""
    found = cast("Row", asker.ask("look", path=str(target), typed=typed))
    name = found["name"] or str(target).rstrip("/")
    if not found["is_directory"]:
        return _download_file(asker, target, typed, output, name, replace=replace)
    assert isinstance(target, TreePath)
    top = os.path.join(output, name) if os.path.isdir(output) else output
    jobs = list(_download_jobs(asker.servent, target, typed, top, replace=replace))
    outcome = work_through(jobs, asker.voice, typed)
    asker.voice.said(f"{os.path.abspath(top)}: {outcome.summary}")
    return outcome


def _download_file(
    asker: Asker, target: TreePath | Id, typed: str, output: str, name: str, *, replace: bool
) -> Outcome:
    with open_destination(output, name, replace=replace) as destination:
        with asker.voice.progress(typed) as on_progress:
            size = get(asker.servent, target, destination, on_progress, typed=typed)
        if destination.shown is not None:
            asker.voice.said(destination.shown)
    record = {"path": typed, "destination": destination.shown, "size": size}
    return Outcome([record], size)


def _download_jobs(
    running: Running, target: TreePath, typed: str, top: str, *, replace: bool
) -> Iterator[Job]:
    """Return the jobs that download what is below a directory to `top`; directories are made.

    Raises:
        VerbError: the servent could not list it.
        OSError: a directory could not be made.
    """
    if not os.path.isdir(top):
        os.mkdir(top)
    for row in list_directory(running, target):
        name = row["name"]
        inner = TreePath(target.subtree, os.path.join(target.path, name))
        names = os.path.join(typed, name), os.path.join(top, name)
        if row["is_directory"]:
            yield from _download_jobs(running, inner, *names, replace=replace)
        else:
            yield _download_job(running, inner, *names, row["size"], replace=replace)


def _download_job(
    running: Running, target: TreePath, typed: str, place: str, size: int, *, replace: bool
) -> Job:
    def run(on_progress: OnProgress, hangup: Hangup) -> Record:
        if os.path.isdir(place):
            raise UsageError(f"{os.path.abspath(place)} is a directory, and {typed} is a file")
        with open_destination(place, os.path.basename(place), replace=replace) as destination:
            get(running, target, destination, on_progress, typed=typed, hangup=hangup)
        return {"path": typed, "destination": os.path.abspath(place), "size": size}

    return Job(typed, size, run)
