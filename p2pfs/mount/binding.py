"""The parts of libfuse 2.9 that fusepy lacks (`read_buf`, `fallocate`), or does slowly.

Attributes are written into libfuse's own structure, field by field, and system attributes are
refused before anything else is done, as on a disk that has none: after the first such answer
`ls -l` asks for no more of them, and its one `stat` of each file is a third of what it asked.

fusepy ends its table of operations before `read_buf`. With it libfuse moves the pages of a
cache file into the kernel's pipe and on to the reader, and no byte of them passes through
Python: a fifth less of the processor for a bare pass-through, and one wait for the
interpreter's lock in each read instead of three.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from p2pfs.filesystem import Attributes, Stretch
from p2pfs.mount.adapter import errno_of
from p2pfs.mount.parallel import (
    HANDLE_KILLPRIV_V2,
    MAX_PAGES,
    PARALLEL_DIROPS,
    allow_parallel_lookups,
)
from p2pfs.mount.threads import is_our_own, keep_state

_IS_FD: Final = 1 << 1
_FD_SEEK: Final = 1 << 2
# FUSE_BUF_IS_FD and FUSE_BUF_FD_SEEK of <fuse_common.h>.


_BUFFER_VECTOR: Final = struct.Struct("@NNNNiPiq")
"""`struct fuse_bufvec`: how many buffers, which of them, and where in it; and the one `struct
fuse_buf`: size, flags, memory, descriptor and place in the file."""

_FILLER: Final = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_longlong
)
"""`fuse_fill_dir_t`. It keeps the interpreter's lock: to note a name takes less than to let go of
it, and other threads would take it between any two of thousands."""

_libc: Final = ctypes.PyDLL(None)  # keeps the interpreter's lock: an allocation takes no time
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.memcpy.restype = None
_libc.memcpy.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]


def complete(fuse: ModuleType) -> Any:  # noqa: ANN401 - a subclass of an untyped class
    """Return fusepy's `FUSE` with `read_buf`, for an adapter whose `read` gives a `Stretch`."""
    _extend(fuse)
    libfuse = allow_parallel_lookups(fuse)

    class Fuse(fuse.FUSE):  # type: ignore[misc, name-defined] # fusepy has no types
        def __init__(self, adapter: Any, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
            is_our_own()  # it runs the loop, and others make the calls
            if libfuse is not None:
                libfuse.answer_by(adapter.replies, _wanted_flags(options))
            super().__init__(adapter, *arguments, **options)

        def _wrapper(self, call: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
            keep_state()
            try:
                return call(*arguments) or 0
            except BaseException as error:  # noqa: BLE001 - ctypes would answer with garbage
                return -errno_of(call.__name__, error)

        # What is asked for each file that is read goes to the adapter without a further guard.

        def open(self, path: bytes, info: Any) -> None:  # noqa: ANN401
            self.operations.open(_name(path), info.contents)

        def release(self, _path: object, info: Any) -> None:  # noqa: ANN401
            self.operations.release("", info.contents)

        def read_buf(self, _path: object, answer: Any, size: int, offset: int, info: Any) -> int:  # noqa: ANN401
            found = self.operations.read("", size, offset, info.contents)
            answer[0] = _placed(found) if isinstance(found, Stretch) else _copied(found)
            return 0

        def write(self, _path: object, data: Any, size: int, offset: int, info: Any) -> int:  # noqa: ANN401
            content = ctypes.string_at(data, size)
            return int(self.operations("write", "", content, offset, info.contents))

        def fallocate(
            self,
            _path: object,
            mode: int,
            offset: int,
            length: int,
            info: Any,  # noqa: ANN401
        ) -> int:
            self.operations("fallocate", mode, offset, length, info.contents)
            return 0

        def getattr(self, path: bytes, status: Any) -> int:  # noqa: ANN401
            name, adapter = _name(path), self.operations
            _fill(status.contents, adapter.shown_in_page(name) or adapter.getattr(name))
            return 0

        def fgetattr(self, _path: object, status: Any, info: Any) -> int:  # noqa: ANN401
            _fill(status.contents, self.operations.getattr("", info.contents))
            return 0

        def readdir(self, path: bytes | None, buffer: int, filler: Any, *_: object) -> int:  # noqa: ANN401
            listed = self.operations.readdir(None if path is None else _name(path))
            put = _FILLER.from_address(ctypes.addressof(filler))
            if path is not None:
                put(buffer, b".", None, 0)
                put(buffer, b"..", None, 0)
            status = vars(fuse)["c_stat"]()
            where = ctypes.addressof(status)
            for name, mode, inode in listed:
                status.st_mode, status.st_ino = mode, inode
                if put(buffer, name.encode("utf-8", "surrogateescape"), where, 0) != 0:
                    break
            return 0

        def getxattr(
            self, path: bytes, name: bytes, value: int | None, size: int, *_: object
        ) -> int:
            if not name.startswith(b"user."):
                return -errno.ENOTSUP  # `ls` asks such a disk only once
            return int(super().getxattr(path, name, value, size))

    return Fuse


def _name(path: bytes) -> str:
    """Return a path as text; any byte that is not UTF-8 is kept as it is."""
    return path.decode(errors="surrogateescape")


def _wanted_flags(options: Mapping[str, Any]) -> int:
    """Return what to ask of the kernel that libfuse 2 does not.

    Where others may write to a file whose owner we are not, the kernel must say who loses what.
    """
    always = PARALLEL_DIROPS | MAX_PAGES
    return always | (0 if options.get("allow_other") else HANDLE_KILLPRIV_V2)


def _extend(fuse: ModuleType) -> None:
    """Lengthen fusepy's table of operations as far as we need; fusepy reads it when it mounts."""
    fields = tuple(vars(fuse)["fuse_operations"]._fields_)
    if "read_buf" in dict(field[:2] for field in fields):
        return
    info = ctypes.POINTER(fuse.fuse_file_info)
    offset = fuse.c_off_t
    vector = ctypes.POINTER(ctypes.c_void_p)
    fields += (
        ("poll", ctypes.c_void_p),
        ("write_buf", ctypes.c_void_p),
        ("read_buf", _call_back(ctypes.c_char_p, vector, ctypes.c_size_t, offset, info)),
        ("flock", ctypes.c_void_p),
        ("fallocate", _call_back(ctypes.c_char_p, ctypes.c_int, offset, offset, info)),
    )
    table = type("fuse_operations", (ctypes.Structure,), {"_fields_": fields})
    vars(fuse)["fuse_operations"] = table


def _call_back(*arguments: Any) -> Any:  # noqa: ANN401 - a type of ctypes
    return ctypes.CFUNCTYPE(ctypes.c_int, *arguments)


def _fill(status: Any, shown: Attributes) -> None:  # noqa: ANN401 - `struct stat` as fusepy has it
    """Write attributes into a structure that libfuse has cleared."""
    status.st_mode = shown.mode
    status.st_ino = shown.inode
    status.st_nlink = shown.links
    status.st_uid = shown.uid
    status.st_gid = shown.gid
    status.st_rdev = shown.device
    status.st_size = shown.size
    status.st_blksize = shown.block_size
    status.st_blocks = shown.sectors
    for time, time_ns in (
        (status.st_atimespec, shown.atime_ns),
        (status.st_mtimespec, shown.mtime_ns),
        (status.st_ctimespec, shown.ctime_ns),
    ):
        time.tv_sec, time.tv_nsec = divmod(time_ns, 10**9)


def _placed(stretch: Stretch) -> int:
    """Return a vector, which libfuse will free, for bytes that lie in a file."""
    return _vector(stretch.length, _IS_FD | _FD_SEEK, 0, stretch.descriptor, stretch.offset)


def _copied(data: bytes) -> int:
    """Return a vector, which libfuse will free with the memory behind it, for bytes."""
    memory = _allocate(max(1, len(data)))
    _libc.memcpy(memory, data, len(data))
    return _vector(len(data), 0, memory, -1, 0)


def _vector(size: int, flags: int, memory: int, descriptor: int, place: int) -> int:
    vector = _allocate(_BUFFER_VECTOR.size)
    packed = _BUFFER_VECTOR.pack(1, 0, 0, size, flags, memory, descriptor, place)
    _libc.memcpy(vector, packed, len(packed))
    return vector


def _allocate(size: int) -> int:
    place: int | None = _libc.malloc(size)
    if place is None:
        raise OSError(errno.ENOMEM, "no memory for a read")
    return place
