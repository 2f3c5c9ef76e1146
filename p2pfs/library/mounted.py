"""Mounts of servents below the share: nothing in them is looked at, let alone published.

A share that holds a mount of p2pfs would fetch all files of the network and offer them as
its own. The table of mounts names each mount, so that none has to be asked for anything.
"""

from __future__ import annotations

import os
import select

from p2pfs.mounts import MOUNTINFO, Mount, is_within, read_mounts
from p2pfs.protocol import join_path
from p2pfs.roots import Roots


class Mounted:
    """The mounts below the shared directories. For one thread at a time."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._places: dict[str, Mount] = {}
        self._devices: frozenset[int] = frozenset()
        self._numbering: frozenset[int] = frozenset()
        self._table: int | None = None
        self._poll = select.poll()
        self._is_new = False

    def close(self) -> None:
        """Let go of the table."""
        if self._table is not None:
            self._poll.unregister(self._table)
            os.close(self._table)
            self._table = None

    def changes(self) -> list[str]:
        """Return the paths at which something was mounted or unmounted since the last call."""
        if not self.has_changed():
            return []
        self._is_new = False
        former = self._places
        mounts = read_mounts()
        self._devices = frozenset(mount.device for mount in mounts if mount.is_ours)
        self._numbering = frozenset(mount.device for mount in mounts if mount.gives_new_inodes)
        self._places = {}
        for directory, path in self._roots.places():
            # Those that are shared where they lie are known without links, and may be silent.
            root = directory if path else os.path.realpath(directory)
            self._places |= {
                join_path(path, os.path.relpath(mount.place, root)): mount
                for mount in mounts
                if is_within(mount.place, root) and mount.place != root
            }
        paths = former | self._places
        return [path for path in paths if former.get(path) != self._places.get(path)]

    def holds(self, path: str) -> bool:
        """Return whether a path below the directory is in a mount of p2pfs, by its name."""
        while path and self._places:
            mount = self._places.get(path)
            if mount is not None and mount.is_ours:
                return True
            path = os.path.dirname(path)
        return False

    def has_device(self, device: int) -> bool:
        """Return whether this device is a mount of p2pfs, at any place."""
        return device in self._devices

    def gives_new_inodes(self, device: int) -> bool:
        """Return whether a file of this device may have another inode at the next look."""
        return device in self._numbering

    def look_again(self) -> None:
        """Have the table read again, since other directories are shared now."""
        self._is_new = True

    def has_changed(self) -> bool:
        """Return whether there may be changes to take."""
        if self._table is None:
            self._table = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(self._table, select.POLLPRI)
            self._is_new = True
        self._is_new = self._is_new or bool(self._poll.poll(0))
        return self._is_new
