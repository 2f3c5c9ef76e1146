"""What `stat` and `ls` show: sizes, times, modes and inode numbers that stay the same."""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

from blake3 import blake3
from msgspec import Struct

OWN_PREFIX: Final = "user.p2pfs."
"""The prefix of our own extended attributes."""

SECTOR_BYTES: Final = 512
"""The unit of st_blocks, whatever the file system."""

READ_BYTES: Final = 256 * 1024
"""st_blksize of what comes from the network: programs that heed it read whole blocks."""

_VIRTUAL_INODE: Final = 1 << 63
"""Set in every inode number that we make up: no disk has numbers that large, so none of
ours can be taken for a file in the backing directory."""


_FOREIGN_INODE: Final = 1 << 62
"""Set in the inode numbers of files that lie on other disks than the share itself."""


_UID: Final = os.getuid()
_GID: Final = os.getgid()
# Of the user of the mount; asked once, since each `stat` of `ls -l` shows them.


class Attributes(Struct, frozen=True, gc=False):
    """One file or directory as `stat` shows it. Times are in nanoseconds since 1970."""

    mode: int
    inode: int
    links: int
    uid: int
    gid: int
    device: int
    size: int
    block_size: int
    sectors: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class Listed(NamedTuple):
    """One name in a directory. The kernel wants no more of `stat` than this."""

    name: str
    mode: int
    """The type bits; 0 where another system call would be needed to know them."""
    inode: int


def shown_inode(device: int, inode: int, own_device: int) -> int:
    """Return the inode number to show of a file: its own, unless it lies on another device.

    The mount shows all with one device. Two files of two disks with one inode number would be
    one file to `cp`, `diff` and `rsync -H`.
    """
    if device == own_device:
        return inode
    return hash((device, inode)) & (_FOREIGN_INODE - 1) | _FOREIGN_INODE


def from_stat(status: os.stat_result, own_device: int) -> Attributes:
    """Return the attributes of a real file."""
    return Attributes(
        mode=status.st_mode,
        inode=shown_inode(status.st_dev, status.st_ino, own_device),
        links=status.st_nlink,
        uid=status.st_uid,
        gid=status.st_gid,
        device=status.st_rdev,
        size=status.st_size,
        block_size=status.st_blksize,
        sectors=status.st_blocks,
        atime_ns=status.st_atime_ns,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )


def virtual(mode: int, inode: int, *, size: int = 0, time_ns: int = 0) -> Attributes:
    """Return the attributes of a file or directory that lies on no local disk.

    It belongs to the user of the mount. It has one link, directories too: a count of two would
    tell `find` that there are no sub-directories. All sectors are shown as there, or `cp`
    and `tar` would take a file that is not cached for one full of holes.
    """
    return Attributes(
        mode=mode,
        inode=inode,
        links=1,
        uid=_UID,
        gid=_GID,
        device=0,
        size=size,
        block_size=READ_BYTES,
        sectors=-(-size // SECTOR_BYTES),
        atime_ns=time_ns,
        mtime_ns=time_ns,
        ctime_ns=time_ns,
    )


def virtual_inode(path: str, file_id: bytes = b"") -> int:
    """Return the inode number of a path and content: the same in every run of every servent."""
    digest = blake3(path.encode(errors="surrogateescape") + b"\0" + file_id).digest(length=8)
    return int.from_bytes(digest, "big") | _VIRTUAL_INODE


DIRECTORY_MODE: Final = stat.S_IFDIR | 0o555
FILE_MODE: Final = stat.S_IFREG | 0o444
"""Read-only for everybody: nobody writes below `network/` and `.p2pfs/`."""
