"""The kernel's side of the tree: the only file that knows FUSE.

libfuse 2 calls back on threads of its own. `Adapter` turns each call into one on the tree
and every exception into an errno; what the tree answers with `Later` is run in trio by
`Portal`, while the calling thread waits in a way that a signal to the reader can end.

fusepy is kept at arm's length. It takes an `OSError` without errno, or anything that is not
an `Exception`, for an uninitialised number, which can be an empty, successful read; it
refuses names that are not UTF-8 in a way that hides whole directories; and it forks in C if
allowed to. So one guard stands around every call, a forgiving codec around every name, and
libfuse runs in the foreground of a thread of ours.

Nothing here, and nothing else in trio's thread, may touch a path below the mountpoint: the
kernel would wait for our answer and we for the kernel's.
"""

from __future__ import annotations

import atexit
import codecs
import ctypes
import errno
import itertools
import logging
import os
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final, Generic, Protocol, TypeVar, cast

import trio

from p2pfs.errors import UsageError
from p2pfs.filesystem import Answer, Attributes, FileSystem, Later, Moment, OpenFile, Time

logger = logging.getLogger(__name__)

T = TypeVar("T")

POLL_INTERVAL_S: Final = 0.1
"""How often a waiting call looks whether its reader was interrupted. libfuse does not wake
it; at this rate sixty waiting readers cost nothing that can be measured."""

INTERRUPT_GRACE_S: Final = 0.3
"""How long a cancelled request may take to end before its reader is let go without it."""

MOUNT_TIMEOUT_S: Final = 10.0
"""The kernel's first call comes within milliseconds of the mount, or never."""

UNMOUNT_TIMEOUT_S: Final = 2.0
"""How long each way of unmounting may take before the next, rougher one."""

MAX_BACKGROUND: Final = 1000
"""Reads that the kernel keeps under way at once. With its default, 12 readers waiting for
the network freeze every other read on the mount, those in `shared/` too."""

CACHE_S: Final = 1
"""How long the kernel believes names, attributes and absences. At 0 `ls -l` twice costs ten
times the calls; above 1 nothing more was gained."""

_MOUNTINFO: Final = "/proc/self/mountinfo"
_CONNECTIONS: Final = "/sys/fs/fuse/connections"
_FSTYPE: Final = "fuse.p2pfs"
_NAME_CODEC: Final = "utf-8-or-bytes"

_UTIME_NOW: Final = (1 << 30) - 1
_UTIME_OMIT: Final = (1 << 30) - 2
# UTIME_NOW and UTIME_OMIT of <sys/stat.h>, which arrive with 0 seconds.


# What must be there before we can mount.


def check_fuse() -> None:
    """Raise `UsageError` if this machine cannot mount, with what to do about it."""
    if not os.path.exists("/dev/fuse"):
        raise UsageError("/dev/fuse is missing: load the kernel module with `modprobe fuse`")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise UsageError("no permission to use /dev/fuse: ask the administrator for it")
    _fusermount()
    _load_fuse()


def check_mountpoint(path: str) -> str:
    """Make `path` ready to be mounted on and return it absolute, without symbolic links.

    It is created if missing. What a crashed p2pfs left mounted there is unmounted. Blocks
    on the disk, so not for trio's thread. Raises `UsageError` with one clear line.
    """
    path = os.path.realpath(path)
    mounted = _mount_at(path)
    if mounted is not None and mounted.fstype == _FSTYPE:
        if not _is_stale(path):
            raise UsageError(f"{path} is already mounted by a running p2pfs")
        detach(path)
    try:
        os.makedirs(path, exist_ok=True)
        is_empty = not os.listdir(path)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{path} is not a directory") from None
    except OSError as error:
        raise UsageError(f"cannot mount on {path}: {error.strerror}") from None
    if not is_empty:
        raise UsageError(f"{path} is not empty")
    return path


def detach(mountpoint: str) -> None:
    """Unmount `mountpoint` now, whoever uses it. Blocks; does nothing if it is not mounted."""
    command = [_fusermount(), "-u", "-z", mountpoint]
    subprocess.run(command, capture_output=True, check=False, timeout=MOUNT_TIMEOUT_S)


def _fusermount() -> str:
    program = shutil.which("fusermount") or shutil.which("fusermount3")
    if program is None:
        raise UsageError("fusermount is missing: install the package fuse3 (or fuse)")
    return program


def _load_fuse() -> ModuleType:
    """Return fusepy, which looks for libfuse when it is imported."""
    try:
        import fuse  # noqa: PLC0415 - only who mounts needs libfuse
    except OSError:
        raise UsageError(
            "libfuse 2 is missing: install libfuse2 (Debian, Ubuntu), fuse-libs (Fedora) "
            "or fuse2 (Arch)"
        ) from None
    return cast("ModuleType", fuse)


@dataclass(frozen=True, slots=True)
class _Mounted:
    fstype: str
    device_minor: str
    """Also the name of the connection below `_CONNECTIONS`."""


def _mount_at(path: str) -> _Mounted | None:
    """Return what is mounted on `path`, last first, without touching it."""
    found = None
    with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            place, _, kind = line.partition(" - ")
            fields = place.split()
            if _unescaped(fields[4]) == path:
                found = _Mounted(kind.split()[0], fields[2].partition(":")[2])
    return found


def _unescaped(field_text: str) -> str:
    """Undo the octal escapes that mountinfo has for blanks and backslashes (proc(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field_text)


def _is_stale(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


# From kernel threads into trio.


class Portal:
    """Runs what the tree cannot answer from memory, in a nursery of the mount's."""

    def __init__(self, nursery: trio.Nursery, is_interrupted: Callable[[], bool]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._nursery = nursery
        self._is_interrupted = is_interrupted
        self._is_closed = False

    def settle(self, answer: Answer[T]) -> T:
        """Return an answer, waiting for it if it comes later. For kernel threads.

        Whatever happens to trio, the wait ends: with EINTR when the reader is interrupted,
        with ESHUTDOWN when the portal closes or trio is no more.
        """
        if not isinstance(answer, Later):
            return answer
        request: _Request[T] = _Request(answer.fetch)
        self._in_trio(self._start, request)
        while not request.ended.wait(POLL_INTERVAL_S):
            if self._is_interrupted():
                self._in_trio(request.scope.cancel)
                if not request.ended.wait(INTERRUPT_GRACE_S):
                    raise _error(errno.EINTR)
                break
            self._in_trio(_nothing)
        return request.result()

    def close(self) -> None:
        """Refuse new requests and cancel those under way: ESHUTDOWN. For trio's thread."""
        self._is_closed = True
        self._nursery.cancel_scope.cancel()

    def _start(self, request: _Request[T]) -> None:
        # In trio's thread, as `close` is: no request can start after it.
        if self._is_closed:
            request.ended.set()
        else:
            self._nursery.start_soon(request.run)

    def _in_trio(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            self._token.run_sync_soon(call, *arguments)
        except trio.RunFinishedError:
            raise _error(errno.ESHUTDOWN) from None


@dataclass(eq=False, slots=True)
class _Request(Generic[T]):
    """One call that waits for trio."""

    fetch: Callable[[], Awaitable[T]]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: threading.Event = field(default_factory=threading.Event)
    values: list[T] = field(default_factory=list)
    """The answer, once there is one."""
    error: Exception | None = None

    async def run(self) -> None:
        try:
            with self.scope:
                self.values.append(await self.fetch())
            if self.scope.cancelled_caught:
                self.error = _error(errno.EINTR)
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = error
        finally:
            self.ended.set()

    def result(self) -> T:
        if self.values:
            return self.values[0]
        if self.error is not None:
            raise self.error
        raise _error(errno.ESHUTDOWN)


def _nothing() -> None:
    """Do nothing, in trio: that it can be asked to shows that it lives."""


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


# From libfuse to the tree.


class FileInfo(Protocol):
    """The fields of libfuse's `struct fuse_file_info` that we use."""

    flags: int
    fh: int
    keep_cache: int
    direct_io: int


class Adapter:
    """What fusepy calls: one method for each of libfuse's operations that we have.

    It is no subclass of fusepy's `Operations`: that has defaults of its own. libfuse answers
    ENOSYS for what is missing here; the kernel then does locks by itself.
    """

    use_ns = True
    flag_utime_omit_ok = 1

    def __init__(self, tree: FileSystem, portal: Portal, on_init: Callable[[], object]) -> None:
        self._tree = tree
        self._settle = portal.settle
        self._on_init = on_init
        self._files: dict[int, OpenFile] = {}
        self._handles = itertools.count(1)

    def __call__(self, operation: str, *arguments: object) -> object:
        """Run one operation. Whatever it raises, an `OSError` with an errno comes out."""
        try:
            return getattr(self, operation)(*arguments)
        except BaseException as error:  # noqa: BLE001 - fusepy would make garbage of it
            raise _error(_errno_of(operation, error)) from None

    def init(self, _path: str) -> None:
        self._on_init()

    # Looking.

    def getattr(self, path: str, info: FileInfo | None = None) -> dict[str, int]:
        if info is not None:
            return _as_stat(self._file(info).getattr())
        return _as_stat(self._settle(self._tree.getattr(path)))

    def readdir(self, path: str, _handle: int) -> list[tuple[str, Mapping[str, int] | None, int]]:
        entries: list[tuple[str, Mapping[str, int] | None, int]] = [(".", None, 0), ("..", None, 0)]
        for name, mode, inode in self._settle(self._tree.readdir(path)):
            entries.append((name, {"st_mode": mode, "st_ino": inode}, 0))
        return entries

    def readlink(self, path: str) -> str:
        return self._tree.readlink(path)

    def getxattr(self, path: str, name: str) -> bytes:
        return self._settle(self._tree.getxattr(path, name))

    def listxattr(self, path: str) -> list[str]:
        return self._settle(self._tree.listxattr(path))

    def statfs(self, _path: str) -> dict[str, int]:
        room = self._tree.statfs()
        return {name: getattr(room, name) for name in _STATFS_FIELDS}

    # Files.

    def open(self, path: str, info: FileInfo) -> None:
        self._opened(self._settle(self._tree.open(path, info.flags)), info)

    def create(self, path: str, mode: int, info: FileInfo) -> None:
        self._opened(self._tree.create(path, info.flags, mode), info)

    def read(self, _path: str, size: int, offset: int, info: FileInfo) -> bytes:
        data = self._settle(self._file(info).read(size, offset))
        if len(data) > size:
            raise AssertionError(f"read gave {len(data)} bytes for {size}")
        return data

    def write(self, _path: str, data: bytes, offset: int, info: FileInfo) -> int:
        return self._file(info).write(data, offset)

    def truncate(self, path: str, size: int, info: FileInfo | None = None) -> None:
        if info is not None:
            self._file(info).truncate(size)
        else:
            self._tree.truncate(path, size)

    def flush(self, _path: str, info: FileInfo) -> None:
        self._file(info).flush()

    def fsync(self, _path: str, data_only: int, info: FileInfo) -> None:
        self._file(info).fsync(data_only=bool(data_only))

    def release(self, _path: str, info: FileInfo) -> None:
        self._files.pop(info.fh).release()

    # Names.

    def mknod(self, path: str, mode: int, _device: int) -> None:
        self._tree.mknod(path, mode)

    def mkdir(self, path: str, mode: int) -> None:
        self._tree.mkdir(path, mode)

    def unlink(self, path: str) -> None:
        self._tree.unlink(path)

    def rmdir(self, path: str) -> None:
        self._tree.rmdir(path)

    def rename(self, old: str, new: str) -> None:
        self._tree.rename(old, new)

    def link(self, new: str, old: str) -> None:
        self._tree.link(old, new)

    def symlink(self, path: str, target: str) -> None:
        self._tree.symlink(path, target)

    def fsyncdir(self, path: str, _data_only: int, _handle: int) -> None:
        self._tree.fsyncdir(path)

    # Attributes.

    def chmod(self, path: str, mode: int) -> None:
        self._tree.chmod(path, stat.S_IMODE(mode))

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._tree.chown(path, uid, gid)

    def utimens(self, path: str, times: tuple[int, int] | None) -> None:
        atime, mtime = times or (_UTIME_NOW, _UTIME_NOW)
        self._tree.utimens(path, _as_time(atime), _as_time(mtime))

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        self._tree.setxattr(path, name, value, flags)

    def removexattr(self, path: str, name: str) -> None:
        self._tree.removexattr(path, name)

    # Inside.

    def _opened(self, file: OpenFile, info: FileInfo) -> None:
        info.fh = next(self._handles)
        info.keep_cache = file.keep_cache
        info.direct_io = file.direct_io
        self._files[info.fh] = file

    def _file(self, info: FileInfo) -> OpenFile:
        file = self._files.get(info.fh)
        if file is None:
            raise _error(errno.EBADF)
        return file


_STATFS_FIELDS: Final = (
    "f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail",
    "f_namemax",
)  # fmt: skip


def _errno_of(operation: str, error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return error.errno
    logger.error("a bug in a call from the kernel: operation=%s", operation, exc_info=error)
    return errno.EIO


def _as_stat(attributes: Attributes) -> dict[str, int]:
    return {
        "st_mode": attributes.mode,
        "st_ino": attributes.inode,
        "st_nlink": attributes.links,
        "st_uid": attributes.uid,
        "st_gid": attributes.gid,
        "st_rdev": attributes.device,
        "st_size": attributes.size,
        "st_blksize": attributes.block_size,
        "st_blocks": attributes.sectors,
        "st_atime": attributes.atime_ns,
        "st_mtime": attributes.mtime_ns,
        "st_ctime": attributes.ctime_ns,
    }


def _as_time(value: int) -> Time:
    if value == _UTIME_NOW:
        return Moment.NOW
    return Moment.OMIT if value == _UTIME_OMIT else value


# The mount's life.


async def serve_mount(
    tree: FileSystem,
    mountpoint: str,
    *,
    name: str,
    allow_other: bool = False,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount `tree` on `mountpoint`, as `check_mountpoint` returned it, and serve it.

    `started` is called when the kernel has made its first call. Returns when somebody
    unmounts it from outside. When cancelled, it first answers every waiting reader with
    ESHUTDOWN, then unmounts, if need be under programs that still have files open there.

    Take SIGINT, SIGTERM and SIGHUP with `trio.open_signal_receiver` before: libfuse installs
    handlers for those that are at their defaults, and SIGTERM would then end nothing.

    Raises:
        UsageError: it cannot be mounted; the text says why, or that libfuse wrote why.
    """
    fuse = _load_fuse()
    async with trio.open_nursery() as requests:
        portal = Portal(requests, _interrupt_check(fuse))
        thread = _FuseThread(mountpoint)
        adapter = Adapter(tree, portal, thread.has_mounted)
        thread.start(fuse, adapter, _options(name, allow_other=allow_other))
        try:
            with trio.move_on_after(MOUNT_TIMEOUT_S):
                await thread.mounted.wait()
            if thread.failure is None and thread.mounted.is_set():
                task_status.started()
                await thread.ended.wait()
        finally:
            portal.close()
            with trio.CancelScope(shield=True):
                await thread.take_down()
    if not thread.was_mounted:
        raise UsageError(f"cannot mount on {mountpoint}: {thread.failure or 'no answer'}")


class _FuseThread:
    """The thread in which libfuse runs its loop, and what trio knows of it."""

    def __init__(self, mountpoint: str) -> None:
        self.mountpoint = mountpoint
        self.mounted = trio.Event()
        """The kernel has called, or never will."""
        self.ended = trio.Event()
        self.was_mounted = False
        self.failure: str | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._program = _fusermount()
        self._connection = ""
        self._thread: threading.Thread | None = None

    def start(self, fuse: ModuleType, adapter: Adapter, options: Mapping[str, object]) -> None:
        """Start libfuse's loop. It ends when the file system is unmounted."""
        arguments = (fuse, adapter, options)
        self._thread = threading.Thread(target=self._run, args=arguments, name="fuse", daemon=True)
        # The last resort, when trio has died under us and nobody else unmounts.
        atexit.register(self._detach)
        self._thread.start()

    def has_mounted(self) -> None:
        """Note, on a kernel thread, that the kernel has made its first call."""
        mounted = _mount_at(self.mountpoint)
        self._connection = mounted.device_minor if mounted else ""
        self.was_mounted = True
        self._tell(self.mounted)

    async def take_down(self) -> None:
        """Unmount, more roughly the longer it takes, and wait for the thread's end."""
        for step in (self._unmount, self._unmount_lazily, self._abort):
            if self.ended.is_set():
                break
            with trio.move_on_after(UNMOUNT_TIMEOUT_S):
                if await step():
                    await self.ended.wait()
        if not self.ended.is_set():
            logger.error("cannot unmount: mountpoint=%r", self.mountpoint)
        atexit.unregister(self._detach)

    async def _unmount(self, *options: str) -> bool:
        command = [self._program, "-u", *options, self.mountpoint]
        done = await trio.run_process(command, capture_stderr=True, check=False)
        return done.returncode == 0

    async def _unmount_lazily(self) -> bool:
        return await self._unmount("-z")

    async def _abort(self) -> bool:
        """Cut the connection: programs that still have files open get ENOTCONN from now on."""
        if not self._connection:
            return False
        try:
            async with await trio.open_file(
                f"{_CONNECTIONS}/{self._connection}/abort", "w"
            ) as file:
                await file.write("1")
        except OSError as error:
            logger.warning("cannot abort the connection: error=%s", error)
            return False
        return True

    def _detach(self) -> None:
        detach(self.mountpoint)
        if self._thread is not None:
            self._thread.join(UNMOUNT_TIMEOUT_S)

    def _run(self, fuse: ModuleType, adapter: Adapter, options: Mapping[str, object]) -> None:
        try:
            fuse.FUSE(adapter, self.mountpoint, **options)
        except RuntimeError:
            self.failure = "libfuse wrote the reason to the standard error output"
        finally:
            self._tell(self.mounted)
            self._tell(self.ended)

    def _tell(self, event: trio.Event) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(event.set)


def _options(name: str, *, allow_other: bool) -> dict[str, object]:
    """Return what fusepy and libfuse are told; each is here for a reason that was measured."""
    options: dict[str, object] = {
        "foreground": True,  # libfuse would fork, and lose all our threads
        "raw_fi": True,  # open's flags in, keep_cache and direct_io out
        "encoding": _NAME_CODEC,
        "fsname": "p2pfs:" + re.sub(r"[^\w.-]", "_", name, flags=re.ASCII),
        "subtype": "p2pfs",
        "default_permissions": True,
        "use_ino": True,  # else a dropped name comes back with another inode: git, rsync -H
        "sync_read": True,  # else a reader in read-ahead cannot be interrupted
        "big_writes": True,  # 128 KiB a call, not 4
        "max_background": MAX_BACKGROUND,
        "attr_timeout": CACHE_S,
        "entry_timeout": CACHE_S,
        "negative_timeout": CACHE_S,
        "noatime": True,
    }
    if allow_other:
        options["allow_other"] = True
    return options


def _interrupt_check(fuse: ModuleType) -> Callable[[], bool]:
    """Return a function that tells whether the reader of the current call was interrupted."""
    interrupted = fuse._libfuse.fuse_interrupted  # noqa: SLF001 - fusepy offers no way to it
    interrupted.restype = ctypes.c_int
    return lambda: bool(interrupted())


def _find_codec(name: str) -> codecs.CodecInfo | None:
    """Return the codec for names: UTF-8, with any other byte kept as it is.

    fusepy decodes strictly. The caller of a name that is not UTF-8 would get EINVAL, and one
    such name in a directory would hide all others.
    """
    if name != _NAME_CODEC.replace("-", "_"):
        return None
    return codecs.CodecInfo(
        name=_NAME_CODEC,
        encode=lambda text, _errors="strict": codecs.utf_8_encode(text, "surrogateescape"),
        decode=lambda data, _errors="strict": codecs.utf_8_decode(data, "surrogateescape", True),
    )


codecs.register(_find_codec)
