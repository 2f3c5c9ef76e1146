"""A look at one path: which file or directory is there, and whether it may be published."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from p2pfs.config import IDENTITY, LOCK
from p2pfs.library.agenda import Look
from p2pfs.library.books import NAMES_A_STEP
from p2pfs.library.doubts import Sign
from p2pfs.library.facts import Facts
from p2pfs.library.findings import Findings
from p2pfs.library.hashing import STEP_BYTES
from p2pfs.library.ignoring import IGNORE, IS_IGNORED, Ignoring
from p2pfs.library.index import DamagedIndexError, Index, Record
from p2pfs.library.large import Hasher
from p2pfs.library.looks import NO_KEYS, Looks
from p2pfs.library.memory import Memory
from p2pfs.library.mounted import Mounted
from p2pfs.library.names import (
    first_private,
    holds_state,
    published_names,
    published_path,
    split,
    why_private,
)
from p2pfs.library.refusing import BUG_MET, Refusing
from p2pfs.library.share import Share
from p2pfs.library.status import StatKey, Status
from p2pfs.protocol import join_path
from p2pfs.roots import IS_STATE, Roots

YIELD_S: Final = 0.0002
"""How long the interpreter is left to other threads after some hundred names. Without a pause
each of them waits its turn of 5 ms, at every call."""

_IS_OURS: Final = "it is in a mount of p2pfs"
_IS_ELSEWHERE: Final = "it is on another file system, which can be shared by a name of its own"

log = logging.getLogger(__name__)


class Looking:
    """Looks at the paths that are due. For the worker's thread."""

    def __init__(
        self,
        share: Share,
        roots: Roots,
        mounted: Mounted,
        ignoring: Ignoring,
        index: Index,
        facts: Facts,
        looks: Looks,
        refusing: Refusing,
        hasher: Hasher,
        *,
        is_shared_by_root: bool,
    ) -> None:
        self._share = share
        self._roots = roots
        self._mounted = mounted
        self._ignoring = ignoring
        self._index = index
        self._memory = Memory(index, looks, self.status, mounted.gives_new_inodes)
        self._facts = facts
        self._looks = looks
        self._refusing = refusing
        self._hasher = hasher
        self._is_shared_by_root = is_shared_by_root

    def look_at_some(self, findings: Findings) -> None:
        """Look at paths that are due until the hop is full."""
        while findings.has_room():
            look = self._looks.take()
            if look is None:
                return
            findings.looks.append(look)
            if published_path(look.path) is None:
                self._looks.finish(look)
                self.look_at_private(look.path)
            else:
                self._look_at(look, findings)

    def look_at_private(self, path: str) -> None:
        """Tell the user why a path stays private; have its directory looked at if it says more."""
        highest, reason = first_private(path)
        if reason and self.status(highest) is not None:
            self._refusing.tell(highest, reason)
        directory, name = split(path)
        if published_path(directory) is None:
            return
        if name == IDENTITY:
            self._facts.look_at(directory)
        elif name == IGNORE:
            self._facts.touched(directory, self.status(directory), Sign.FOUND)

    def status(self, path: str) -> Status | None:
        """Return the status of a path, None if a servent is mounted there or it cannot be seen."""
        return None if self._mounted.holds(path) else self._share.status(path)

    def _look_at(self, look: Look, findings: Findings) -> None:
        try:
            status = None if self._mounted.holds(look.path) else self._share.look(look.path)
            if status is None or self._mounted.has_device(status.key.device):
                self._refusing.refuse(look, _IS_OURS)
            elif status.is_directory and self._roots.is_elsewhere(look.path, status.key.device):
                self._refusing.refuse(look, _IS_ELSEWHERE)
            elif self._ignoring.is_ignored(look.path, is_directory=status.is_directory):
                self._looks.refuse(look, IS_IGNORED, status.key)
            elif not self._may_be_read(look.path, status):
                self._refusing.refuse(
                    look, "other users of this machine may not read it", status.key
                )
            elif status.is_directory:
                self._look_into(look, status)
            elif self._is_beside_key(look.path):
                self._refusing.refuse(look, IS_STATE)
                self._facts.look_at(split(look.path)[0])
            elif self._refusing.is_wanted(look, status):
                self._look_at_file(look, status.key, findings)
        except OSError as error:
            self._refusing.failed(look, error)
        except (DamagedIndexError, sqlite3.Error):
            raise
        except Exception:
            log.exception(BUG_MET, look.path)
            self._refusing.bug_met(look)

    def _may_be_read(self, path: str, status: Status) -> bool:
        """Return whether the users of root's mount have not kept this from each other.

        Root can read everything. He publishes files that all may read, and files that their owner
        made through the mount, but none in a directory that a user keeps to himself.
        """
        if not self._is_shared_by_root or status.is_open_to_all or path == "":
            return True
        if not status.mode & stat.S_IRUSR or (status.is_directory and status.uid != os.geteuid()):
            return False
        return self._share.is_meant(path, status.uid)

    def _is_beside_key(self, path: str) -> bool:
        """Return whether this is the second of the files that mark a state directory."""
        directory, name = split(path)
        return name == LOCK and self._share.status(join_path(directory, IDENTITY)) is not None

    # Directories.

    def _look_into(self, look: Look, status: Status) -> None:
        names = self._share.names(look.path)
        self._refusing.found(look.path)
        if trouble := self._ignoring.look_into(look.path, names):
            self._refusing.tell(look.path, f"its {trouble}")
        if holds_state(names):
            self._refusing.refuse(look, IS_STATE)
        elif self._looks.saw_directory(look, status.key):
            self._take_names(look, names)
            self._looks.finish(look)

    def _take_names(self, look: Look, names: list[str]) -> None:
        """Have the names in a directory looked at, and take back those that are gone from it."""
        kept: set[str] = set()
        for some in _batched(names, NAMES_A_STEP):
            seen = {}
            for name, published in published_names(look.path, some):
                path = join_path(look.path, name)
                if published is None:
                    self._refusing.tell(path, why_private(path) or "")
                else:
                    seen[path] = published
            kept.update(seen.values())
            if not self._looks.saw_names(look, seen, self._keys(look, seen)):
                return
            time.sleep(YIELD_S)
        lacking = [name for name in self._looks.names(look.path) if name not in kept]
        for some in _batched(lacking, NAMES_A_STEP):
            self._looks.miss(look, some)

    def _keys(self, look: Look, paths: Iterable[str]) -> Mapping[str, StatKey]:
        """Return the states of the files in a directory, if that may spare a look at each."""
        is_of_use = look.sign >= Sign.FOUND and self._looks.has_names(look.path)
        if not is_of_use or self._is_shared_by_root or self._ignoring.has_patterns:
            return NO_KEYS
        names = {split(path)[1]: path for path in paths}
        found = self._share.keys(look.path, names)
        return {names[name]: key for name, key in found.items()}

    # Files.

    def _look_at_file(self, look: Look, key: StatKey, findings: Findings) -> None:
        path = published_path(look.path) or ""
        known = self._memory.recall(look, path, key)
        if known is not None:
            with self._share.opened(look.path, key.identity):
                pass  # or it could be read before, and cannot now
            if known.is_filed:
                findings.known.append((look, key, known))
                return
            manifest = self._index.manifest(known.file_id)
            if manifest is not None:
                record = Record(path, key if known.is_sure else known.key, manifest)
                findings.found.append((look, key, record, known.is_sure))
                return
        if key.size > STEP_BYTES:
            self._looks.put_aside(look)
        else:
            self._hasher.hash_small(look, key, findings)


_T = TypeVar("_T")


def _batched(items: Sequence[_T], count: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), count):
        yield items[start : start + count]
