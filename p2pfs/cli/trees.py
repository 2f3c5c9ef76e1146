"""Downloads and uploads of whole trees: several files at once, with one progress line.

A file that fails does not keep the others from being done, as with `cp -r`.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from p2pfs.cli.asker import Asker
from p2pfs.cli.voice import OnProgress, Voice, told
from p2pfs.cli.walk import DirectoryWalk
from p2pfs.control import ExitStatus, VerbError, client, exit_status_of
from p2pfs.control.client import Hangup, Row, Running, get, list_directory
from p2pfs.control.opening import STDOUT, SourceFile, open_destination
from p2pfs.control.paths import Id, TreePath, read_target, received_target
from p2pfs.errors import P2pfsError, UsageError
from p2pfs.wording import Record, shown_bytes

AT_ONCE: Final = 8
"""Files under way. A small one takes a round trip: that is its time, and not the line's."""

PINS_AT_ONCE: Final = 500
"""Files in one question: the book of pins is written once for all of them."""

SHOWN: Final = 3
"""Paths that are shown of those left out for one reason."""

LET_GO_S: Final = 5.0
"""How long files under way may take to let go when the user interrupts."""


@dataclass(frozen=True, eq=False)
class Job:
    """One file to be done."""

    typed: str
    """The path as the user would type it."""
    size: int
    run: Callable[[OnProgress, Hangup], Record]
    """Do it and describe it."""


@dataclass
class Tally:
    """The results of some files."""

    records: list[Record] = field(default_factory=list)
    """Of one that failed: `path`, `error` and `status`."""
    left_out: list[Record] = field(default_factory=list)
    """Skipped entries, each with `path` and `reason`."""
    done_bytes: int = 0
    status: ExitStatus = ExitStatus.DONE
    """That of the first that failed."""

    @property
    def summary(self) -> str:
        """The number of files and bytes done, for people."""
        count = sum("error" not in record for record in self.records)
        return f"{count} file{'s' * (count != 1)}, {shown_bytes(self.done_bytes)}"

    def add(self, other: Tally) -> None:
        """Add the results of other files."""
        self.records += other.records
        self.left_out += other.left_out
        self.done_bytes += other.done_bytes
        self.status = self.status or other.status

    def failed(self, typed: str, error: P2pfsError | OSError, voice: Voice) -> None:
        """Add a file that failed, and print its error."""
        text, status = _naming(typed, error)
        record = {"path": typed, "error": text, "status": status}
        self.add(Tally([record], status=status))
        voice.warn(text)


def each(typed: Sequence[str], voice: Voice, do: Callable[[str], Tally]) -> int:
    """Run `do` for each argument, print the results, and return the exit status.

    A failure does not stop the next argument; the error of a single argument is the command's
    own.
    """
    outcome = Tally()
    for one in typed:
        try:
            outcome.add(do(one))
        except (P2pfsError, OSError) as error:
            if len(typed) == 1:
                raise VerbError(*_naming(one, error)) from error
            outcome.failed(one, error, voice)
    if voice.as_json:
        voice.done("", [*outcome.records, *outcome.left_out])
    return outcome.status


def _naming(typed: str, error: P2pfsError | OSError) -> tuple[str, ExitStatus]:
    """Return the text of an error, which names the typed path, and its exit status."""
    if isinstance(error, OSError):
        text, status = told(error), ExitStatus.FAILED
    else:
        text, status = str(error), exit_status_of(error)
    is_of_it = status not in (ExitStatus.NO_SERVENT, ExitStatus.USAGE)
    return (f"{typed}: {text}" if is_of_it and typed not in text else text), status


def work_through(jobs: Sequence[Job], voice: Voice, title: str) -> Tally:
    """Run jobs and return their results; each failure is printed at once.

    When the user interrupts, the running jobs are ended.
    """
    crew = _Crew(jobs, voice)
    with voice.progress(title) as on_progress:
        crew.work(on_progress)
    return crew.outcome


class _Crew:
    """Threads that take one job after the other."""

    def __init__(self, jobs: Sequence[Job], voice: Voice) -> None:
        self.outcome = Tally()
        self._jobs = deque(jobs)
        self._size = sum(job.size for job in jobs)
        self._voice = voice
        self._hangup = Hangup()
        self._ended = threading.Semaphore(0)
        """Counts the threads that have ended."""
        self._lock = threading.Lock()
        """Guards all that follows, the outcome and the voice."""
        self._under_way: dict[Job, int] = {}
        """How many bytes are done of each job."""
        self._done_bytes = 0

    def work(self, on_progress: OnProgress) -> None:
        """Do all jobs; an interrupt ends those under way."""
        under_way = 0
        try:
            for _ in range(min(AT_ONCE, len(self._jobs))):
                work = functools.partial(self._take_jobs, on_progress)
                threading.Thread(target=work, daemon=True).start()
                under_way += 1
            while under_way:
                self._ended.acquire()  # Thread.join, if interrupted, takes the thread for ended
                under_way -= 1
        except KeyboardInterrupt:
            with self._lock:
                self._jobs.clear()
            self._hangup.end()
            for _ in range(under_way):
                self._ended.acquire(timeout=LET_GO_S)
            raise

    def _take_jobs(self, on_progress: OnProgress) -> None:
        try:
            while (job := self._next_job()) is not None:
                self._do(job, on_progress)
        finally:
            self._ended.release()

    def _next_job(self) -> Job | None:
        with self._lock:
            return self._jobs.popleft() if self._jobs else None

    def _do(self, job: Job, on_progress: OnProgress) -> None:
        def reached(done: int, _size: int) -> None:
            with self._lock:
                self._under_way[job] = done
                on_progress(self._done_bytes + sum(self._under_way.values()), self._size)

        try:
            outcome = Tally([job.run(reached, self._hangup)], done_bytes=job.size)
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
) -> Tally:
    """Download a file or a directory to `output`, or into it if that is a directory."""
    found, target = _looked_at(asker, target, typed)
    name = found["name"] or str(target).rstrip("/")
    if not found["is_directory"]:
        return _download_file(asker, target, typed, output, name, replace=replace)
    assert isinstance(target, TreePath)
    if output == STDOUT:
        raise UsageError(f"{typed} is a directory, and cannot all go to the output")
    top = os.path.join(output, name) if os.path.isdir(output) else output
    jobs = list(_download_jobs(asker.servent, target, typed, top, replace=replace))
    outcome = work_through(jobs, asker.voice, typed)
    asker.voice.said(f"{os.path.abspath(top)}: {outcome.summary}")
    return outcome


def _looked_at(asker: Asker, target: TreePath | Id, typed: str) -> tuple[Row, TreePath | Id]:
    """Return the record at a target, and its path: each file below would be sought anew."""
    found = cast("Row", asker.ask("look", path=str(target), typed=typed))
    return found, received_target(found["place"]) if "place" in found else target


def _download_file(
    asker: Asker, target: TreePath | Id, typed: str, output: str, name: str, *, replace: bool
) -> Tally:
    with open_destination(output, name, replace=replace) as destination:
        with asker.voice.progress(typed) as on_progress:
            size = get(asker.servent, target, destination, on_progress, typed=typed)
        if destination.shown is not None:
            asker.voice.said(destination.shown)
    record = {"path": typed, "destination": destination.shown, "size": size}
    return Tally([record], done_bytes=size)


def _download_jobs(
    running: Running, target: TreePath, typed: str, top: str, *, replace: bool
) -> Iterator[Job]:
    """Yield the jobs that download a directory to `top`, and make its directories.

    Raises:
        VerbError: the servent could not list it.
        OSError: a directory could not be made.
    """
    if not os.path.isdir(top):
        os.mkdir(top)
    rows, partial = list_directory(running, target)
    if partial is not None:
        yield _failing_job(typed, f"{typed}: not all of it was listed: {partial}")
    for row in rows:
        name = row["name"]
        inner = TreePath(target.subtree, os.path.join(target.path, name))
        names = os.path.join(typed, name), os.path.join(top, name)
        if row["is_directory"]:
            yield from _download_jobs(running, inner, *names, replace=replace)
        else:
            yield _download_job(running, inner, *names, row["size"], replace=replace)


def _failing_job(typed: str, reason: str) -> Job:
    """Return a job that fails with the reason why a part of a tree cannot be downloaded."""

    def run(_on_progress: OnProgress, _hangup: Hangup) -> Record:
        raise VerbError(reason, ExitStatus.FAILED)

    return Job(typed, 0, run)


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


def pin(asker: Asker, typed: str) -> Tally:
    """Pin a file, or all files that are below a directory now."""
    found, target = _looked_at(asker, read_target(typed, asker.servent), typed)
    files = [(str(target), typed)]
    if found["is_directory"]:
        assert isinstance(target, TreePath)
        files = list(_files_below(asker.servent, target, typed))
    records: list[Record] = []
    for start in range(0, len(files), PINS_AT_ONCE):
        paths, names = zip(*files[start : start + PINS_AT_ONCE], strict=True)
        records += asker.list("pin", paths=paths, typed=names)
    size = sum(cast("int", record["size"]) for record in records)
    outcome = Tally(records, done_bytes=size)
    asker.voice.said(f"{typed}: pinned, {outcome.summary}; `p2pfs cache` shows how much is here")
    return outcome


def unpin(asker: Asker, typed: str) -> Tally:
    """Unpin a file, or all that are pinned below a directory."""
    target = read_target(typed, asker.servent)
    records = asker.list("unpin", path=str(target), typed=typed)
    count = "1 file: it goes" if len(records) == 1 else f"{len(records):,} files: they go"
    asker.voice.said(f"{typed}: unpinned, {count} when the cache needs room")
    return Tally(list(records))


def _files_below(running: Running, target: TreePath, typed: str) -> Iterator[tuple[str, str]]:
    """Return the files of a directory, each as it travels and as the user would call it."""
    rows, partial = list_directory(running, target)
    if partial is not None:
        raise VerbError(f"{typed}: not all of it was listed: {partial}", ExitStatus.FAILED)
    for row in rows:
        inner = TreePath(target.subtree, os.path.join(target.path, row["name"]))
        name = os.path.join(typed, row["name"])
        if row["is_directory"]:
            yield from _files_below(running, inner, name)
        else:
            yield str(inner), name


def publish(asker: Asker, typed: str) -> Tally:
    """Copy a file, or a directory with all that can be published of it, into `shared/`."""
    if not os.path.isdir(typed):
        with SourceFile(typed) as source, asker.voice.progress(typed) as on_progress:
            record = client.publish(asker.servent, source, source.name, on_progress)
        asker.voice.said(f"{record['path']}: {record['state']}")
        return Tally([record])
    name = os.path.basename(os.path.abspath(typed))
    if not name:
        raise UsageError(f"{typed} has no name that its files could be below: name what is in it")
    walk = DirectoryWalk(typed, name)
    jobs = [
        _publish_job(asker.servent, os.path.join(typed, path), os.path.join(name, path))
        for path in walk.files()
    ]
    outcome = work_through(jobs, asker.voice, typed)
    for path, error in walk.failures:
        outcome.failed(os.path.join(typed, path), error, asker.voice)
    for reason, paths in walk.left_out.items():
        asker.voice.note(f"{typed}: left out {_some(paths)}: {reason}")
        outcome.left_out += [{"path": os.path.join(typed, one), "reason": reason} for one in paths]
    asker.voice.said(f"{name}: {outcome.summary}")
    return outcome


def _publish_job(running: Running, path: str, target: str) -> Job:
    def run(on_progress: OnProgress, hangup: Hangup) -> Record:
        with SourceFile(path) as source:
            return client.publish(running, source, target, on_progress, hangup=hangup)

    try:
        size = os.stat(path).st_size
    except OSError:  # its job will report the error
        size = 0
    return Job(path, size, run)


def _some(paths: Sequence[str]) -> str:
    """Return a few of some paths, and the number of the others."""
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more
