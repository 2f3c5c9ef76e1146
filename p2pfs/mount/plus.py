"""Names with their attributes: READDIRPLUS, a request that is younger than libfuse 2.

A program that lists a directory mostly asks for the attributes of each name at once, and each such
question takes the way from the kernel to Python and back: 85 us. Told with the names, they take a
fifth. They are good only if the kernel believes them until it is asked for them, so this is done
where a name means one file and its attributes change when others say so: not in `shared/`.

libfuse answers a request by a function in a table, by its number. That of READDIRPLUS has none, and
gets ours here. It asks libfuse itself for the page of the directory and then for each name on it,
by requests that libfuse takes for the kernel's and answers into a file in memory: so libfuse knows
each node that the kernel gets to know, and how often.

Where the table is not as `table` knows it, the kernel is not told that it may ask.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

from p2pfs.filesystem import BELIEVED_S, Attributes, os_error
from p2pfs.mount.table import set_function
from p2pfs.mount.threads import keep_state

log = logging.getLogger(__name__)

DO_READDIRPLUS: Final = 1 << 13
READDIRPLUS_AUTO: Final = 1 << 14
"""FUSE_DO_READDIRPLUS and FUSE_READDIRPLUS_AUTO of <linux/fuse.h>: the kernel may ask for names
with their attributes, and does so for the first page of a directory, and for each further one if a
program asks for attributes in between."""

_LOOKUP: Final = 1
_BATCH_FORGET: Final = 42
_READDIR: Final = 28
_READDIRPLUS: Final = 44

_REQUEST: Final = struct.Struct("=IIQQIIII")
"""`struct fuse_in_header`: length, number, unique, node, user, group, thread, nothing."""
_CALLER: Final = struct.Struct("=III")
"""How `struct fuse_ctx` begins: user, group, thread."""
_READ: Final = struct.Struct("=QQIIQII")
"""`struct fuse_read_in`: handle, offset, size, flags, owner of locks, flags of the file, none."""
_REPLY: Final = struct.Struct("=IiQ")
"""`struct fuse_out_header`: length, error, unique."""
_NAME: Final = struct.Struct("=QQII")
"""How `struct fuse_dirent` begins: inode, offset behind it, length of the name, type."""
_ENTRY_BYTES: Final = 128
"""Of `struct fuse_entry_out`, which begins with the node."""
_SECONDS_AT: Final = 24
_NANOSECONDS_AT: Final = 36
"""In it: for how long the attributes are good."""
_FORGOTTEN: Final = struct.Struct("=QQ")
"""`struct fuse_forget_one`: node, how often."""

_SECONDS: Final = struct.pack("=Q", BELIEVED_S)
_NO_NANOSECONDS: Final = bytes(4)

_NO_ENTRY: Final = bytes(_ENTRY_BYTES)
"""What stands before a name whose attributes are not told."""

_ALIGNED: Final = 8
"""Each name is filled up to a multiple of this."""

_SCRATCH_BYTES: Final = 256 * 1024
"""Twice the most that the kernel asks for at once. They are there from the start: libfuse ends the
process when it cannot write an answer into a file."""

_HANDLER: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p)
"""`void (fuse_req_t, fuse_ino_t, const void *)`."""


class Tree(Protocol):
    """The question about each name of a page."""

    def beside_name(self, path: str) -> Attributes | None:
        """Return attributes that may be believed for as long as the name; None: ask again."""


class _Asked(threading.local):
    """What a thread is asked for on behalf of a page."""

    request: int | None = None
    """The kernel's request that waits for it."""
    is_known = False
    """Whether the attributes of the last name were told."""


_asked: Final = _Asked()


def shown_in_page(tree: Tree, path: str) -> Attributes | None:
    """Return the attributes of a name for the page that this thread makes; None: it makes none."""
    if _asked.request is None:
        return None
    shown = tree.beside_name(path)
    _asked.is_known = shown is not None
    if shown is None:
        raise os_error(errno.EAGAIN, path)
    return shown


def is_page_interrupted(library: Any) -> bool:  # noqa: ANN401 - what ctypes has loaded
    """Return whether the program was interrupted that waits for the page that this thread makes."""
    return _asked.request is not None and bool(
        library.fuse_req_interrupted(ctypes.c_void_p(_asked.request))
    )


class Plus:
    """Answers READDIRPLUS for one mount. Any of libfuse's threads."""

    def __init__(self, library: Any, session: int) -> None:  # noqa: ANN401 - what ctypes has loaded
        self._library = library
        self._session = session
        self._spare: list[_Scratch] = []
        """Those that no thread uses now."""

    def end(self) -> None:
        """Let go of all memory, once no request comes any more."""
        while self._spare:
            self._spare.pop().end()

    def answer(self, request: int, node: int, argument: int) -> None:
        """Answer a request of the kernel's, whatever happens."""
        try:
            page, nodes = self._page(request, node, ctypes.string_at(argument, _READ.size))
        except OSError as error:
            self._library.fuse_reply_err(request, error.errno or errno.EIO)
            return
        if self._library.fuse_reply_buf(request, page, len(page)) == -errno.ENOENT:
            self._forget(nodes)  # the program is gone, and the kernel knows none of them

    def _page(self, request: int, node: int, argument: bytes) -> tuple[bytes, Sequence[int]]:
        """Return the answer, and the nodes that the kernel knows then once more."""
        caller = _CALLER.unpack(ctypes.string_at(self._library.fuse_req_ctx(request), _CALLER.size))
        scratch = self._spare.pop() if self._spare else _Scratch(self._library, self._session)
        _asked.request = request
        try:
            listed = scratch.ask([_request(_READDIR, node, caller, argument)])
            if error := _REPLY.unpack_from(listed)[1]:
                raise os_error(-error)
            records = list(_records(listed[_REPLY.size :], _READ.unpack(argument)[2]))
            names = (record.name for record in records)
            entries = list(_entries(scratch.ask(_lookups(names, node, caller))))
        finally:
            _asked.request = None
            self._spare.append(scratch)
        return _joined(records, entries)

    def _forget(self, nodes: Sequence[int]) -> None:
        """Tell libfuse that the kernel has forgotten each of these nodes once."""
        forgotten = b"".join(_FORGOTTEN.pack(node, 1) for node in nodes)
        request = _request(
            _BATCH_FORGET, 0, (0, 0, 0), struct.pack("=II", len(nodes), 0) + forgotten
        )
        scratch = _Scratch(self._library, self._session)
        scratch.ask([request])
        scratch.end()


class _Record(NamedTuple):
    name: bytes
    content: bytes
    """All of it, filled up."""


def _records(listed: bytes, room: int) -> Iterator[_Record]:
    """Yield those names of a page for which there is room with their attributes."""
    at = 0
    while at + _NAME.size <= len(listed):
        length = _NAME.unpack_from(listed, at)[2]
        end = at + -(-(_NAME.size + length) // _ALIGNED) * _ALIGNED
        room -= _ENTRY_BYTES + end - at
        if end > len(listed) or room < 0:
            return
        name_at = at + _NAME.size
        yield _Record(listed[name_at : name_at + length], listed[at:end])
        at = end


def _lookups(names: Iterable[bytes], node: int, caller: tuple[int, ...]) -> Iterator[bytes]:
    """Yield a request for each name, until the attributes of one are not told."""
    for name in names:
        if name not in (b".", b".."):
            yield _request(_LOOKUP, node, caller, name + b"\0")
            if not _asked.is_known:
                return


def _entries(replies: bytes) -> Iterator[bytes]:
    """Yield what stands before each name that was asked for."""
    at = 0
    while at < len(replies):
        end = at + _REPLY.unpack_from(replies, at)[0]
        entry = replies[at + _REPLY.size : end]
        yield _believed(entry) if entry else _NO_ENTRY
        at = end


def _believed(entry: bytes) -> bytes:
    """Return what libfuse says of a name, its attributes good for BELIEVED_S."""
    before, between = entry[:_SECONDS_AT], entry[_SECONDS_AT + 8 : _NANOSECONDS_AT]
    return before + _SECONDS + between + _NO_NANOSECONDS + entry[_NANOSECONDS_AT + 4 :]


def _joined(records: Sequence[_Record], entries: Sequence[bytes]) -> tuple[bytes, Sequence[int]]:
    """Return a page of names, each behind its attributes if they are told, and its nodes."""
    left = iter(entries)
    page: list[bytes] = []
    for record in records:
        has_none = record.name in (b".", b"..")
        page += _NO_ENTRY if has_none else next(left, _NO_ENTRY), record.content
    nodes = [struct.unpack_from("=Q", entry)[0] for entry in entries]
    return b"".join(page), [node for node in nodes if node]


def _request(number: int, node: int, caller: tuple[int, ...], argument: bytes) -> bytes:
    """Return a request as the kernel would make it."""
    return _REQUEST.pack(_REQUEST.size + len(argument), number, 0, node, *caller, 0) + argument


class _Scratch:
    """A file in memory into which libfuse answers what we ask. One thread at a time."""

    def __init__(self, library: Any, session: int) -> None:  # noqa: ANN401 - what ctypes has loaded
        self._library = library
        self._session = session
        self._descriptor = os.memfd_create("p2pfs-replies")
        os.posix_fallocate(self._descriptor, 0, _SCRATCH_BYTES)
        self._channel = library.fuse_kern_chan_new(self._descriptor)

    def ask(self, requests: Iterable[bytes]) -> bytes:
        """Ask one after the other; return all answers."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        for request in requests:
            self._library.fuse_session_process(self._session, request, len(request), self._channel)
        return os.pread(self._descriptor, os.lseek(self._descriptor, 0, os.SEEK_CUR), 0)

    def end(self) -> None:
        """Let go of the file."""
        self._library.fuse_chan_destroy(self._channel)


class Answering:
    """Lets the requests of the kernel reach the mounts of this process that answer them."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 - what ctypes has loaded
        """Prepare; it must stay for as long as the process does."""
        self._library = library
        self._handler = _HANDLER(self._answer)
        self._mounts: dict[int, Plus] = {}
        """By what libfuse calls each."""
        self.is_possible = set_function(library, _READDIRPLUS, self._handler)

    def begin(self, fuse: int, session: int) -> int:
        """Answer for a mount from now on; return the flags by which the kernel learns that."""
        if not self.is_possible:
            return 0
        self._mounts[fuse] = Plus(self._library, session)
        return DO_READDIRPLUS | READDIRPLUS_AUTO

    def end(self, fuse: int) -> None:
        """Answer for a mount no more: its loop is over."""
        mount = self._mounts.pop(fuse, None)
        if mount is not None:
            mount.end()

    def _answer(self, request: int, node: int, argument: int) -> None:
        keep_state()
        mount = self._mounts.get(self._library.fuse_req_userdata(request))
        if mount is None:
            self._library.fuse_reply_err(request, errno.ENOSYS)
            return
        try:
            mount.answer(request, node, argument)
        except BaseException as error:
            log.error("a bug in listing with attributes", exc_info=error)
            self._library.fuse_reply_err(request, errno.EIO)
