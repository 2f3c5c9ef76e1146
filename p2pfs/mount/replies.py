"""The last moment of a request: between libfuse's decision and the kernel's hearing of it.

Where a file is removed that somebody has open, and where another takes its name, libfuse 2 first
renames it aside and does not say which of the two it is about. Of the latter it then asks, on the
same thread; of the former never. So that the latter is one rename(2) on the disk, the removal is
put off until libfuse answers the request. Nobody has been told by then that it was done, and if it
fails the answer tells of that.

libfuse answers by a function whose address stands at the beginning of its channel. It is replaced
by ours as long as anything is put off, for microseconds: a call into Python for each answer would
cost more than the answer. That a channel begins so is looked at once, on one that we made
ourselves (`fuse_chan_new` copies what it is given); where it does not, nothing is put off.

In the same way the answer to an open gets a flag that is younger than libfuse 2: a file that nobody
writes has nothing to tell when it is closed, and the kernel does not ask.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import struct
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

log = logging.getLogger(__name__)


class Iovec(ctypes.Structure):
    """`struct iovec`."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


RECEIVE: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.c_char_p, ctypes.c_size_t
)
SEND: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Iovec), ctypes.c_size_t
)
TAKE: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
FORWARD: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
"""SEND as our side has it, with addresses as they are: to wrap those takes a fifth of the time that
an answer to an open does. Called as FORWARD it keeps the interpreter's lock: that may take
longer to have back than to answer."""
DESTROY: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class ChannelOps(ctypes.Structure):
    """`struct fuse_chan_ops`, with which `struct fuse_chan` begins."""

    _fields_ = (("receive", RECEIVE), ("send", SEND), ("destroy", DESTROY))


_REPLY_HEADER: Final = struct.Struct("=IiQ")
"""`struct fuse_out_header`: length, error, and the number of the request."""


NO_FLUSH: Final = 1 << 5
"""FOPEN_NOFLUSH of <linux/fuse.h>: no FLUSH when a descriptor is closed. Linux before 5.16 passes
over it."""

_OPENED_BYTES: Final = 16
_OPENED_FLAGS_AT: Final = 8
"""`struct fuse_open_out`: handle, flags, and nothing."""

_IOVECS: Final = ctypes.c_size_t * 4
"""Two of `struct iovec`: header and body."""


class Aside(NamedTuple):
    """A file that libfuse has renamed aside."""

    path: str
    """The name that is to be removed, or to be given to another file."""
    name: str
    """What libfuse calls the file from then on."""


class _PutOff(NamedTuple):
    aside: Aside
    act: Callable[[], object]


class Replies:
    """The answers of one mount to the kernel. Any thread of libfuse's, but for `watch`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._put_off: dict[int, _PutOff] = {}
        """By threads: each is at one request at a time."""
        self._unflushed: set[int] = set()
        """Threads whose request opens a file that has nothing to flush."""
        self._place: Any = None  # of the address of the function that answers
        self._plain = 0
        self._forward: Any = None
        self._forward_at_once: Any = None
        self._taker: Any = TAKE(self._send)
        self._ours = ctypes.cast(self._taker, ctypes.c_void_p).value

    def watch(self, channel: int, own: int, given: ChannelOps) -> None:
        """Be able to put off from now on, if a channel of our `own` begins as it was `given`."""
        if ctypes.string_at(own, ctypes.sizeof(ChannelOps)) != bytes(given):
            log.info("libfuse's channels are not those of 2.9: nothing is put off")
            return
        self._place = ctypes.c_void_p.from_address(channel + ChannelOps.send.offset)
        self._plain = self._place.value
        self._forward = TAKE(self._plain)
        self._forward_at_once = FORWARD(self._plain)

    def end(self) -> None:
        """Put off nothing any more: libfuse is about to let go of its channel."""
        with self._lock:
            self._place = None

    def put_off(self, aside: Aside, act: Callable[[], object]) -> bool:
        """Have `act` called before this thread's request is answered; False: it cannot be had.

        An `OSError` that it raises becomes the answer. It is not called if the answer is an
        error already, nor after `taken`.
        """
        with self._lock:
            if self._place is None:
                return False
            self._put_off[threading.get_ident()] = _PutOff(aside, act)
            self._place.value = self._ours
        return True

    def open_unflushed(self) -> None:
        """Have the kernel not ask when descriptors of the file are closed that is being opened."""
        with self._lock:
            if self._place is not None:
                self._unflushed.add(threading.get_ident())
                self._place.value = self._ours

    def taken(self, path: str) -> Aside | None:
        """Return the file that this thread's request set aside for `path`: remove it now."""
        if not self._put_off:
            return None
        put_off = self._put_off.get(threading.get_ident())
        if put_off is None or put_off.aside.path != path:
            return None
        self._pop()
        return put_off.aside

    def _pop(self) -> _PutOff | None:
        with self._lock:
            put_off = self._put_off.pop(threading.get_ident(), None)
            self._rest()
            return put_off

    def _rest(self) -> None:
        """Let libfuse answer alone again, if nothing is to be done to any answer."""
        if not self._put_off and not self._unflushed and self._place is not None:
            self._place.value = self._plain

    def _send(self, channel: int, parts: int, count: int) -> int:
        if self._unflushed and threading.get_ident() in self._unflushed:
            return self._send_opened(channel, parts, count)
        put_off = self._pop()
        if put_off is None:
            return int(self._forward(channel, parts, count))
        _length, error, number = _REPLY_HEADER.unpack(
            ctypes.string_at(Iovec.from_address(parts).base, _REPLY_HEADER.size)
        )
        failed = _errno_after(put_off.act) if error == 0 else 0
        if failed == 0:
            return int(self._forward(channel, parts, count))
        header = ctypes.create_string_buffer(
            _REPLY_HEADER.pack(_REPLY_HEADER.size, -failed, number)
        )
        part = Iovec(ctypes.addressof(header), _REPLY_HEADER.size)
        return int(self._forward(channel, ctypes.addressof(part), 1))

    def _send_opened(self, channel: int, parts: int, count: int) -> int:
        with self._lock:
            self._unflushed.discard(threading.get_ident())
            self._rest()
        if count > 1:
            _, _, body, length = _IOVECS.from_address(parts)
            if length == _OPENED_BYTES:
                flags = ctypes.c_uint32.from_address(body + _OPENED_FLAGS_AT)
                flags.value |= NO_FLUSH
        return self._forward_at_once(channel, parts, count)  # type: ignore[no-any-return]


def _errno_after(act: Callable[[], object]) -> int:
    """Return the errno with which `act` fails, 0 if it does not."""
    try:
        act()
    except OSError as error:
        return error.errno or errno.EIO
    except BaseException:
        log.exception("a bug in what was put off")
        return errno.EIO
    return 0
