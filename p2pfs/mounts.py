"""The kernel's table of mounts, read without touching anything that is mounted (proc(5)).

A call on a live mount waits for its answer, and a call on a stuck one waits for ever: so the mounts
are read from the table, before any path is touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

FSTYPE: Final = "fuse.p2pfs"
"""The type of our mounts in the table."""

_OF_THE_KERNEL: Final = frozenset(
    {
        "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs",
        "efivarfs", "fusectl", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs",
        "selinuxfs", "sysfs", "tracefs",
    }
)  # fmt: skip
"""Types of file systems in which no file is anybody's: to read one may even do something."""

_NUMBERING: Final = frozenset({"vfat", "msdos", "exfat", "fuse"})
"""Types of file systems that keep no inode numbers: the kernel, or libfuse, gives each file one
when it meets it, and another after the next mount or once it has forgotten the file."""

MOUNTINFO: Final = "/proc/self/mountinfo"


class Mount(NamedTuple):
    """One line of the table."""

    place: str
    """Where it is: absolute, without symbolic links."""
    kind: str
    """The type of file system."""
    device: int
    """`st_dev` of all that is in it, but for a few types of file system."""

    @property
    def is_ours(self) -> bool:
        """Whether a servent serves it, this one or another."""
        return self.kind == FSTYPE

    @property
    def is_of_the_kernel(self) -> bool:
        """Whether the kernel makes up what is in it."""
        return self.kind in _OF_THE_KERNEL

    @property
    def gives_new_inodes(self) -> bool:
        """Whether the inode of a file may be another one at the next look."""
        return self.kind.partition(".")[0] in _NUMBERING


def read_mounts() -> list[Mount]:
    """Return the mounts in our namespace, in the order in which they were made."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as lines:
        return [_parsed(line) for line in lines]


def mount_on(path: str) -> Mount | None:
    """Return the mount on exactly this path, the last if there are several."""
    return _last(mount for mount in read_mounts() if mount.place == path)


def is_ours_on(path: str) -> bool:
    """Return whether the mount that is visible at exactly this path is a servent's."""
    mount = mount_on(path)
    return mount is not None and mount.is_ours


def mount_of(path: str) -> Mount | None:
    """Return the mount that a path without symbolic links lies in."""
    # Of two one above the other, the later hides the earlier, whichever is longer. Only the root
    # hides none: a system that is started mounts it behind /proc and /run, which it then moves.
    holding = [mount for mount in read_mounts() if is_within(path, mount.place)]
    return _last(mount for mount in holding if mount.place != "/") or _last(holding)


def is_within(path: str, directory: str) -> bool:
    """Return whether an absolute path is a directory or lies below it, by its text."""
    return os.path.commonpath([path, directory]) == directory


def _last(mounts: Iterable[Mount]) -> Mount | None:
    found = None
    for found in mounts:  # noqa: B007 - the last one is wanted
        pass
    return found


def _parsed(line: str) -> Mount:
    about, _, system = line.partition(" - ")
    _, _, device, _, place, *_ = about.split(" ")
    major, minor = device.split(":")
    return Mount(_unescaped(place), system.split(" ")[0], os.makedev(int(major), int(minor)))


def _unescaped(field: str) -> str:
    """Undo the octal escapes that the table has for blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
