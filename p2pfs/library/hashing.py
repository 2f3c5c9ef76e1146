"""One file on its way from bytes to a manifest."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import signal
from typing import Final

from p2pfs.library.share import ChangedError, Share
from p2pfs.library.status import StatKey
from p2pfs.protocol import MIB, Manifest, block_bytes_for, block_count_for, block_span, digest

STEP_BYTES: Final = 16 * MIB
"""Bytes hashed in one go, about 8 ms: so long a shutdown or a small file waits for a large one."""

SPARSE_FROM_BYTES: Final = MIB
"""Holes are not looked for in smaller files: to read them costs less than the question."""

_STAT_BLOCK_BYTES: Final = 512
"""The unit of `st_blocks`, whatever the file system's blocks are."""


class Hashing:
    """One file on its way to a manifest, a bounded step at a time.

    It holds no descriptor between steps, so it can be dropped at any time.
    """

    def __init__(self, share: Share, path: str, key: StatKey, suspicion: int) -> None:
        self._share = share
        self.path = path
        """Where the file is; to be changed when it has been renamed meanwhile."""
        self.key = key
        """The state that is hashed."""
        self.suspicion = suspicion
        """The number of `Looks.suspicion` of the file when this began."""
        self._digests = bytearray()
        self._next_block = 0

    def step(self) -> Manifest | None:
        """Hash the next 16 MiB, or one block if that is more; return the manifest at the end.

        Releases the GIL nearly all the time.

        Raises:
            ChangedError: the file changed since it was looked at.
            OSError: as the disk says.
        """
        size = self.key.size
        last_block = block_count_for(size)
        blocks = max(1, STEP_BYTES // block_bytes_for(size))
        stop = min(self._next_block + blocks, last_block)
        with self._share.opened(self.path, self.key.identity) as (descriptor, key):
            if not key.has_bytes_of(self.key) or (
                self._next_block == 0 and _has_writer(descriptor)
            ):
                raise ChangedError
            is_sparse = size > SPARSE_FROM_BYTES and _takes(descriptor) < size
            buffer = memoryview(bytearray(min(size, block_bytes_for(size))))
            for index in range(self._next_block, stop):
                offset, length = block_span(size, index)
                if is_sparse and _is_hole(descriptor, offset, length):
                    self._digests += _digest_of_zeros(length)
                    continue
                _read_into(descriptor, buffer[:length], offset)
                self._digests += digest(buffer[:length])
        self._next_block = stop
        if stop < last_block:
            return None
        key = self._share.look(self.path).key
        if not key.has_bytes_of(self.key):
            raise ChangedError
        self.key = key  # it may have been renamed or linked meanwhile
        return Manifest(size, bytes(self._digests))


def _has_writer(descriptor: int) -> bool:
    """Return whether anybody on this machine has the file open for writing.

    The tree counts writers through the mount. For the others, ask for a lease for reading,
    which the kernel grants if there is no writer, and give it back. A process that opens the
    file in that moment waits until the lease is back, and the kernel sends us a signal, which is
    SIGURG because that one does nothing.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # somebody else's file, or a file system that has no leases
        return False
    return False


def _takes(descriptor: int) -> int:
    """Return how many bytes of the disk a file takes."""
    return os.fstat(descriptor).st_blocks * _STAT_BLOCK_BYTES


def _is_hole(descriptor: int, offset: int, length: int) -> bool:
    """Return whether these bytes are zeros that the disk does not hold.

    Reading a hole fills the page cache: 3.1 s for 1 GiB that hashes in 0.3.
    """
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO  # no data up to the end of the file


@functools.lru_cache(maxsize=8)
def _digest_of_zeros(length: int) -> bytes:
    return digest(bytes(length))


def _read_into(descriptor: int, buffer: memoryview, offset: int) -> None:
    """Fill the whole buffer. The kernel gives less than asked only at the end of a file."""
    while buffer:
        count = os.preadv(descriptor, [buffer], offset)
        if count == 0:
            raise ChangedError
        buffer = buffer[count:]
        offset += count
