"""The files that the command opens for a verb, and hands over to the servent.

A name means what it means to the user: with his permissions and his umask, in his mount
namespace, among his open descriptors. So the servent is never told a name outside the share;
it is handed descriptors, and only what the user can read is published, only what he can
write is written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import select
import stat
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, Self

from p2pfs.control import VerbError
from p2pfs.control.paths import MAX_SYMLINKS
from p2pfs.errors import UsageError
from p2pfs.state import sync_directory

PART_SUFFIX: Final = ".part"
"""The suffix of an unfinished file. Files of this name are never published."""

STDOUT: Final = "-"
"""The destination that is the output of the command."""

PUMP_BYTES: Final = 1024**2
"""The largest pipe that an unprivileged user may have, and the size of one write."""

LOCK_WAIT_S: Final = 2.0
"""The time that another download of the same file gets to let go: it may just have been
interrupted, and the servent closes its descriptors when it has noticed that."""

FIFO_WAIT_S: Final = 30.0
"""The longest time that a FIFO may lack a reader, which the same user starts."""

LOOK_EVERY_S: Final = 0.05

PUMP_END_S: Final = 1.0
"""The time to wait for the error of a destination, after the servent has given up."""

NAME_MAX: Final = 255
"""The longest name of a file on Linux, in bytes."""

_PERMISSIONS: Final = 0o777

_DESCRIPTORS: Final = re.compile(r"/proc/(\d+)(/task/\d+)?/fd")
"""The directories of open descriptors; /dev/fd is a link to one, /dev/stdout a link into it."""


class SourceFile:
    """A file to be published, open for reading; a context manager that closes it."""

    def __init__(self, path: str) -> None:
        """Open it.

        Raises:
            UsageError: it is a directory or a device, or a FIFO that is not open yet.
            OSError: it is not there, or the user may not read it.
        """
        status = os.stat(path)
        is_pipe = stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{path} is a directory")
        if not stat.S_ISREG(status.st_mode) and not (is_pipe and _is_descriptor(path)):
            raise UsageError(f"{path} is not a regular file")
        self.name = os.path.basename(os.path.abspath(path))
        self.descriptor = _open(path, os.O_RDONLY)
        self.mode = (status.st_mode if not is_pipe else 0o666) & _PERMISSIONS & ~_umask()
        """The permissions of the copy, as `cp` gives them."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the file."""
        os.close(self.descriptor)


class Destination(Protocol):
    """Where a download goes; a context manager that lets go of it."""

    @property
    def shown(self) -> str | None:
        """The name of the file for people; None for a stream."""

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments that describe the descriptors to the servent."""

    @property
    def descriptors(self) -> Sequence[int]:
        """The descriptors that are handed over."""

    def finish(self, *, is_there_already: bool) -> None:
        """Finish the file after the servent has written it; OSError if that fails."""

    def failure(self, error: VerbError) -> Exception:
        """Return the exception to raise after the servent has failed."""

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(self, *exception: object) -> None:
        """Let go of it."""


def open_destination(output: str, name: str, *, replace: bool = False) -> Destination:
    """Open where a file of this name goes: to `output`, or into it if that is a directory.

    A regular file, or a missing one, is completed under another name first. Everything else
    is written to: devices, FIFOs, open descriptors and, for `-`, the standard output. With
    `replace` a regular file may hold anything.

    Raises:
        UsageError: another download is writing it, or something is in the way.
        OSError: the user may not write it.
    """
    if output == STDOUT:
        return Stream(os.dup(1))
    if os.path.isdir(output):
        output = os.path.join(output, name)
    elif output.endswith("/"):
        raise UsageError(f"{output} is no directory")
    if _is_descriptor(output) or not _is_regular_or_missing(output):
        return Stream(_open_to_write(output))
    return WholeFile(output, replace=replace)


class WholeFile:
    """A file that gets its name only when it is whole.

    It grows under the name `DEST.part`. The bytes of an earlier download there are used, and
    those at DEST if they are the beginning of the content. A symbolic link is followed.
    """

    def __init__(self, output: str, *, replace: bool) -> None:
        """Open the partial file, for this download alone, and the file at the destination."""
        self.shown = os.path.abspath(output)
        self._path = os.path.realpath(output)
        self._part = _part_of(self._path)
        self._replace = replace
        self._descriptor = _locked(self._part, self._path)
        try:
            self._earlier = _open_regular(self._path)
        except BaseException:
            self._close_part()
            raise
        self.descriptors = [self._descriptor, *self._earlier_ones()]
        self.arguments: Mapping[str, object] = {"replace": replace, "destination": self.shown}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close all files; remove the partial file if it is empty."""
        for descriptor in self._earlier_ones():
            os.close(descriptor)
        self._close_part()

    def finish(self, *, is_there_already: bool) -> None:
        """Give the whole file its name, with the owner and permissions of the file before.

        Both are on the disk then; a power cut before leaves the earlier file.

        Raises:
            UsageError: somebody else has put another file there meanwhile.
            OSError: it cannot be done.
        """
        if is_there_already:
            return
        if self._earlier is not None:
            self._be_as(self._earlier)
        os.fsync(self._descriptor)
        if self._earlier is None:
            _rename_to_free(self._part, self._path)
        elif self._replace or _is_at(self._path, self._earlier):
            os.replace(self._part, self._path)
        else:
            raise UsageError(f"{self._path} is another file now")
        with contextlib.suppress(OSError):  # a directory may be written to and not be read
            sync_directory(os.path.dirname(self._path))

    def _be_as(self, earlier: int) -> None:
        """Take the owner and permissions of the file that is replaced."""
        status = os.fstat(earlier)
        with contextlib.suppress(PermissionError):
            os.fchown(self._descriptor, status.st_uid, status.st_gid)
        os.fchmod(self._descriptor, stat.S_IMODE(status.st_mode))

    def failure(self, error: VerbError) -> Exception:
        """Return the error, with the place of the partial file for the next download."""
        if not os.fstat(self._descriptor).st_size:
            return error
        text = f"{error}; what came is kept in {self._part} for the next get"
        return VerbError(text, error.status)

    def _earlier_ones(self) -> list[int]:
        return [] if self._earlier is None else [self._earlier]

    def _close_part(self) -> None:
        with contextlib.suppress(OSError):
            if _is_at(self._part, self._descriptor) and not os.fstat(self._descriptor).st_size:
                os.unlink(self._part)
        with contextlib.suppress(OSError):  # a close that fails after a write that did
            os.close(self._descriptor)


class Stream:
    """A descriptor that is written to from the beginning to the end.

    The servent writes into a pipe, and a thread here empties that: a terminal that was
    stopped, or a FIFO that nobody reads, then holds up this command and not the servent.
    """

    def __init__(self, target: int) -> None:
        """Take over the descriptor `target`."""
        self.shown = None
        self._target = target
        self._read_end, self._write_end = os.pipe()
        with contextlib.suppress(OSError):  # it may be more than this user has left
            fcntl.fcntl(self._write_end, fcntl.F_SETPIPE_SZ, PUMP_BYTES)
        self.descriptors = [self._write_end]
        self.arguments: Mapping[str, object] = {"stream": True}
        self._error: OSError | None = None
        self._pump = threading.Thread(target=self._run, daemon=True)
        self._pump.start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Let the thread end, without waiting for its last writes."""
        self._end()

    def finish(self, *, is_there_already: bool) -> None:  # noqa: ARG002 - as Destination has it
        """Return when all is written.

        Raises:
            OSError: it could not be.
        """
        self._end()
        self._pump.join()
        if self._error is not None:
            raise self._error

    def failure(self, error: VerbError) -> Exception:
        """Return the error of the thread, if it had one: the servent only saw a closed pipe."""
        self._end()
        self._pump.join(PUMP_END_S)
        return error if self._error is None else self._error

    def _end(self) -> None:
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    def _run(self) -> None:
        try:
            while data := os.read(self._read_end, PUMP_BYTES):
                _write(self._target, data)
        except OSError as error:
            self._error = error
        finally:
            os.close(self._read_end)
            with contextlib.suppress(OSError):
                os.close(self._target)


def _write(target: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(target, rest) :]
        except BlockingIOError:  # we, or another program, have made it so
            select.select([], [target], [])


def _part_of(path: str) -> str:
    """Return the name of the unfinished file of a path."""
    directory, name = os.path.split(path)
    label = os.fsencode(name)
    if len(label) + len(PART_SUFFIX) > NAME_MAX:
        tag = "~" + hashlib.blake2b(label, digest_size=8).hexdigest()
        room = NAME_MAX - len(PART_SUFFIX) - len(tag)
        name = label[:room].decode(errors="ignore") + tag
    return os.path.join(directory, name + PART_SUFFIX)


def _locked(part: str, path: str) -> int:
    """Open a partial file that no other download may write as long as it is open.

    The lock is the descriptor's, so it is the servent's too, and a command that is killed
    leaves none behind.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    ends_at = time.monotonic() + LOCK_WAIT_S
    while time.monotonic() < ends_at:
        descriptor = os.open(part, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{part} is in the way")
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(part, descriptor):  # else the other download has renamed it
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(LOOK_EVERY_S)
    raise UsageError(f"another get is writing {path}")


def _rename_to_free(part: str, path: str) -> None:
    """Give a file its name if nothing else has it: rename(2) would replace that."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise UsageError(f"{path} is another file now") from None
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise UsageError(f"{path} is another file now") from None
        os.rename(part, path)
    else:
        os.unlink(part)


def _open_regular(path: str) -> int | None:
    """Open a file to read it; None if there is none."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _is_regular_or_missing(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True


def _is_at(path: str, descriptor: int) -> bool:
    """Return whether a path names the file of a descriptor."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    return False


def _is_descriptor(path: str) -> bool:
    return _descriptor_at(path) is not None


def _open(path: str, flags: int) -> int:
    """Open a file; an open descriptor of ours is duplicated, with its offset."""
    own = _descriptor_at(path)
    if own is not None and own[0] == os.getpid():
        return os.dup(own[1])
    return os.open(path, flags | os.O_CLOEXEC)


def _open_to_write(path: str) -> int:
    """Open a device or a FIFO to write; a FIFO once it has a reader.

    Raises:
        UsageError: it had no reader for FIFO_WAIT_S.
    """
    ends_at = time.monotonic() + FIFO_WAIT_S
    while time.monotonic() < ends_at:
        try:
            return _open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(path).st_mode):
                raise
        time.sleep(LOOK_EVERY_S)
    raise UsageError(f"nobody reads {path}")


def _descriptor_at(path: str) -> tuple[int, int] | None:
    """Return the process and the number of the open descriptor that a path names, if it does.

    It is not enough to ask what kind of file lies there: /dev/stdout may be a regular file,
    and must not be renamed over.
    """
    for _ in range(MAX_SYMLINKS):
        parent, name = os.path.split(os.path.abspath(path))
        parent = os.path.realpath(parent)
        match = _DESCRIPTORS.fullmatch(parent)
        if match is not None and name.isdecimal():
            return int(match[1]), int(name)
        try:
            path = os.path.join(parent, os.readlink(os.path.join(parent, name)))
        except OSError:
            break
    return None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
