"""The content of a file whose bytes have not changed since they were hashed."""

from __future__ import annotations

from collections.abc import Callable

from p2pfs.library.agenda import Look
from p2pfs.library.doubts import Sign, Trust
from p2pfs.library.findings import Known
from p2pfs.library.index import Index
from p2pfs.library.looks import Looks
from p2pfs.library.status import StatKey, Status


class Memory:
    """Asks the holdings, then the index. For the worker's thread."""

    def __init__(
        self,
        index: Index,
        looks: Looks,
        status: Callable[[str], Status | None],
        gives_new_inodes: Callable[[int], bool] = lambda _device: False,
    ) -> None:
        self._status = status
        self._gives_new_inodes = gives_new_inodes
        self._index = index
        self._looks = looks

    def recall(self, look: Look, path: str, key: StatKey) -> Known | None:
        """Return the content of the file at a published path; None if it has to be hashed."""
        trust = self._looks.trust(key)
        if trust is Trust.NONE:
            return None
        known = self._held(look, path, key) or self._filed(path, key) or self._numbered(path, key)
        if known is None or (trust is Trust.WARY and known.key.ctime_ns != key.ctime_ns):
            return None
        return known

    def _held(self, look: Look, path: str, key: StatKey) -> Known | None:
        holding = self._looks.held(key)
        if holding is None:
            return None
        is_sure = look.sign < Sign.FOUND or holding.key.ctime_ns == key.ctime_ns
        is_filed = self._looks.is_offered(path, holding.file_id)
        return Known(holding.file_id, holding.key, is_sure, is_filed)

    def _filed(self, path: str, key: StatKey) -> Known | None:
        filed = self._index.find(key)
        for file in filed:
            if file.path == path:
                is_sure = file.key.ctime_ns == key.ctime_ns
                return Known(file.file_id, file.key, is_sure, True, file.key == key)
        for file in filed:
            # A name that it had before, or a hard link. Device numbers are given anew at each
            # start, so that this may be another file of a twin of that file system.
            if file.key.device == key.device and not self._is_another(file.path, key):
                return Known(file.file_id, file.key, is_sure=False, is_filed=False)
        return None

    def _numbered(self, path: str, key: StatKey) -> Known | None:
        """Return the content of a file whose disk may have given it another inode since."""
        filed = self._index.at(path) if self._gives_new_inodes(key.device) else None
        if filed is None or not filed.key.is_written_as(key):
            return None
        return Known(filed.file_id, filed.key, is_sure=False, is_filed=True)

    def _is_another(self, path: str, key: StatKey) -> bool:
        status = self._status(path)
        return status is not None and status.key.identity != key.identity
