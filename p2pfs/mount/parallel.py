"""Flags that libfuse 2 leaves out of its answer to the kernel's first request, INIT.

The kernel lets one lookup or listing at a time into a directory, and a program that waits for its
turn cannot even be killed, unless the answer has a flag that is younger than libfuse 2. So the
request is read here, libfuse answers it into a channel of ours, and the flags are added on its way.
From then on libfuse goes on alone. (Two lookups of the very same name still wait for each other:
that is the kernel's own rule, on every file system.)

Nor does libfuse 2 say how much a request may ask for, and the kernel takes 128 KiB. A program that
says that it reads in sequence, as `cp` and `cat` do, gets twice as much at once where it may.

Not among them is FUSE_WRITEBACK_CACHE, with which the kernel gathers small writes. It then believes
its own size of each file for as long as it knows the name, whatever we say: bytes that are appended
past the mount, or under another name of the file, are never seen.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import threading
from types import ModuleType
from typing import Any, Final

from p2pfs.mount.plus import Answering
from p2pfs.mount.replies import DESTROY, RECEIVE, SEND, ChannelOps, Replies

PARALLEL_DIROPS: Final = 1 << 18
"""FUSE_PARALLEL_DIROPS of <linux/fuse.h>: lookups and listings in one directory side by side."""

HANDLE_KILLPRIV_V2: Final = 1 << 28
"""FUSE_HANDLE_KILLPRIV_V2: a program that is written to loses its privileges by the rule of its
disk, not by the kernel's, which would ask for `security.capability` before every write."""

MAX_PAGES: Final = 1 << 22
"""FUSE_MAX_PAGES: the answer says how many pages a request may have."""

REQUEST_BYTES: Final = 256 * 1024
"""What a request may ask for, one block: the kernel reads ahead no further by itself. For `cp` half
as many requests took 0.91 of the processor time that a cold read costs its reader."""

_INIT: Final = 26
_REQUEST_HEADER_BYTES: Final = 40
_REPLY_HEADER_BYTES: Final = 16
_OPCODE_AT: Final = 4
_FLAGS_AT: Final = 12
_MAX_PAGES_AT: Final = 28
_INIT_REPLY_BYTES: Final = 64
# Of FUSE_INIT, `struct fuse_in_header`, `fuse_out_header`, `fuse_init_in` and `fuse_init_out`.


_TYPES: Final[dict[str, tuple[Any, list[Any] | None]]] = {
    "fuse_setup": (ctypes.c_void_p, None),
    "fuse_get_session": (ctypes.c_void_p, [ctypes.c_void_p]),
    "fuse_session_next_chan": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p]),
    "fuse_chan_recv": (
        ctypes.c_int, [ctypes.POINTER(ctypes.c_void_p), ctypes.c_char_p, ctypes.c_size_t],
    ),
    "fuse_chan_bufsize": (ctypes.c_size_t, [ctypes.c_void_p]),
    "fuse_chan_fd": (ctypes.c_int, [ctypes.c_void_p]),
    "fuse_chan_new": (
        ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p],
    ),
    "fuse_chan_destroy": (None, [ctypes.c_void_p]),
    "fuse_session_process": (
        None, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p],
    ),
    "fuse_loop_mt": (ctypes.c_int, [ctypes.c_void_p]),
    "fuse_teardown": (None, [ctypes.c_void_p, ctypes.c_void_p]),
    "fuse_kern_chan_new": (ctypes.c_void_p, [ctypes.c_int]),
    "fuse_req_userdata": (ctypes.c_void_p, [ctypes.c_void_p]),
    "fuse_req_ctx": (ctypes.c_void_p, [ctypes.c_void_p]),
    "fuse_req_interrupted": (ctypes.c_int, [ctypes.c_void_p]),
    "fuse_reply_err": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
    "fuse_reply_buf": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
}  # fmt: skip


class Libfuse:
    """libfuse as fusepy sees it, but for its main loop."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 - what ctypes has loaded
        self._library = library
        self._of_thread = threading.local()
        for name, (result, arguments) in _TYPES.items():
            function = getattr(library, name)
            function.restype = result
            if arguments is not None:
                function.argtypes = arguments
        self._answering = Answering(library)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a function of the library's
        return getattr(self._library, name)

    def answer_by(self, replies: Replies, flags: int) -> None:
        """Let these know the answers of the loop that this thread is about to run.

        The `flags` are wanted of those that the kernel offers.
        """
        self._of_thread.replies = replies
        self._of_thread.flags = flags

    def fuse_main_real(self, argc: int, argv: Any, table: Any, size: int, data: object) -> int:  # noqa: ANN401
        """Mount and serve, as libfuse's own does; return 0 after an orderly end."""
        library = self._library
        mountpoint, is_threaded = ctypes.c_void_p(), ctypes.c_int()
        fuse = library.fuse_setup(
            argc, argv, table, ctypes.c_size_t(size),
            ctypes.byref(mountpoint), ctypes.byref(is_threaded), data,
        )  # fmt: skip
        if not fuse:
            return 1
        session = library.fuse_get_session(fuse)
        try:
            self._of_thread.flags |= self._answering.begin(fuse, session)
            self._answer_first(session)
            return int(library.fuse_loop_mt(fuse) != 0)
        finally:
            self._of_thread.replies.end()
            self._answering.end(fuse)
            library.fuse_teardown(fuse, mountpoint)

    def _answer_first(self, session: int) -> None:
        library = self._library
        channel = library.fuse_session_next_chan(session, None)
        replies: Replies = self._of_thread.replies
        size = library.fuse_chan_bufsize(channel)
        request = ctypes.create_string_buffer(size)
        length = -errno.EINTR
        while length == -errno.EINTR:
            length = library.fuse_chan_recv(ctypes.byref(ctypes.c_void_p(channel)), request, size)
        if length <= 0:
            return  # it was unmounted at once: the loop ends by itself
        flags = self._of_thread.flags & _offered_flags(request.raw[:length])
        descriptor = library.fuse_chan_fd(channel)

        def send(_channel: int, parts: Any, count: int) -> int:  # noqa: ANN401 - an array of iovec
            pieces = [ctypes.string_at(parts[i].base, parts[i].length) for i in range(count)]
            try:
                os.write(descriptor, _with_flags(b"".join(pieces), flags))
            except OSError as error:
                return -(error.errno or errno.EIO)
            return 0

        operations = ChannelOps(RECEIVE(_refuse), SEND(send), DESTROY(_forget))
        ours = library.fuse_chan_new(ctypes.byref(operations), -1, size, None)
        replies.watch(channel, ours, operations)
        library.fuse_session_process(session, request, length, ours)
        library.fuse_chan_destroy(ours)


def allow_parallel_lookups(fuse: ModuleType) -> Libfuse | None:
    """Have fusepy mount by `Libfuse`, which is returned, where the library can do that."""
    library = vars(fuse)["_libfuse"]
    if not isinstance(library, Libfuse):
        if not all(hasattr(library, name) for name in _TYPES):
            return None
        library = vars(fuse)["_libfuse"] = Libfuse(library)
    return library


def _offered_flags(request: bytes) -> int:
    """Return what the kernel offers in INIT; nothing if it is another request."""
    at = _REQUEST_HEADER_BYTES + _FLAGS_AT
    (opcode,) = struct.unpack_from("=I", request, _OPCODE_AT)
    if opcode != _INIT or len(request) < at + 4:
        return 0
    return int(struct.unpack_from("=I", request, at)[0])


def _with_flags(reply: bytes, flags: int) -> bytes:
    """Return the reply to INIT with more flags; one that tells of an error stays as it is."""
    at = _REPLY_HEADER_BYTES + _FLAGS_AT
    if len(reply) < at + 4:
        return reply
    changed = bytearray(reply)
    struct.pack_into("=I", changed, at, struct.unpack_from("=I", reply, at)[0] | flags)
    if flags & MAX_PAGES:
        changed = changed.ljust(_REPLY_HEADER_BYTES + _INIT_REPLY_BYTES, b"\0")
        pages_at = _REPLY_HEADER_BYTES + _MAX_PAGES_AT
        struct.pack_into("=H", changed, pages_at, max(1, REQUEST_BYTES // mmap.PAGESIZE))
        struct.pack_into("=I", changed, 0, len(changed))
    return bytes(changed)


def _refuse(*_arguments: object) -> int:
    return -errno.EIO


def _forget(_channel: int) -> None:
    """Let a channel go: there is nothing to let go of."""
