"""Hashing in steps: one for a small file, and many for a large one, with looks between them."""

from __future__ import annotations

import logging
import time
from typing import Final

from p2pfs.library.agenda import Look
from p2pfs.library.findings import Findings
from p2pfs.library.hashing import Hashing
from p2pfs.library.index import Record
from p2pfs.library.looks import Looks
from p2pfs.library.names import published_path
from p2pfs.library.refusing import BUG_MET, Refusing
from p2pfs.library.share import ChangedError, Share
from p2pfs.library.status import StatKey

HOP_S: Final = 0.01
"""How long steps of a large file may follow each other in one hop, if nothing else is due. A hop
costs 0.3 ms beside its work, which was a tenth of what hashing took."""

log = logging.getLogger(__name__)


class Hasher:
    """Hashes files, at most one large one at a time. For the worker's thread."""

    def __init__(self, share: Share, looks: Looks, refusing: Refusing) -> None:
        self._share = share
        self._looks = looks
        self._refusing = refusing
        self._large: tuple[Look, Hashing] | None = None
        self._left: Hashing | None = None
        """A large file that is hashed in part, kept while it is renamed, say."""

    @property
    def is_busy(self) -> bool:
        """Whether a large file is hashed in part."""
        return self._large is not None

    def hash_small(self, look: Look, key: StatKey, findings: Findings) -> None:
        """Hash a file that is one step."""
        findings.hashed_bytes += key.size
        self._step(look, Hashing(self._share, look.path, key, 0), findings)

    def go_on(self, findings: Findings) -> None:
        """Hash some steps of a large file, until something quick is due."""
        if self._large is None:
            self._begin(findings)
        ends_at = time.monotonic() + HOP_S
        while self._large is not None:
            look, hashing = self._large
            if look.is_void:
                self._looks.finish(look)
                self._large, self._left = None, hashing
            elif self._step(look, hashing, findings):
                self._large = None
            if time.monotonic() >= ends_at or self._looks.has_quick_work():
                return

    def _begin(self, findings: Findings) -> None:
        look = self._looks.take(large=True)
        if look is None:
            return
        findings.looks.append(look)
        try:
            status = self._share.look(look.path)
        except OSError as error:
            self._refusing.failed(look, error)
            return
        if self._refusing.is_wanted(look, status):
            self._large = look, self._hashing(look.path, status.key)

    def _hashing(self, path: str, key: StatKey) -> Hashing:
        """Begin to hash a file, or go on if it was only renamed meanwhile."""
        left, self._left = self._left, None
        suspicion = self._looks.suspicion(key)
        if left is None or left.suspicion != suspicion or not left.key.has_bytes_of(key):
            return Hashing(self._share, path, key, suspicion)
        left.path = path
        return left

    def _step(self, look: Look, hashing: Hashing, findings: Findings) -> bool:
        """Hash one step of a file; return whether it is over, for better or worse."""
        try:
            manifest = hashing.step()
        except ChangedError:
            self._looks.put_off(look)
            return True
        except OSError as error:
            self._left = hashing
            self._refusing.failed(look, error)
            return True
        except Exception:
            log.exception(BUG_MET, look.path)
            self._refusing.bug_met(look)
            return True
        if manifest is None:
            return False
        record = Record(published_path(look.path) or "", hashing.key, manifest)
        findings.found.append((look, hashing.key, record, True))
        return True
