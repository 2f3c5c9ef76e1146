"""Extended attributes in `shared/`: the user's are on the disk, ours tell how a file stands."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final, Protocol

from p2pfs.filesystem.answers import os_error
from p2pfs.filesystem.attributes import OWN_PREFIX
from p2pfs.filesystem.backing import Backing
from p2pfs.protocol import FileId, PeerInfo, name_of

_ID: Final = OWN_PREFIX + "id"
_LINK: Final = f"{OWN_PREFIX}link"
_STATE: Final = OWN_PREFIX + "state"
_REASON: Final = OWN_PREFIX + "reason"


class FileState(Protocol):
    """How one file stands; `p2pfs.library.FileState` is the real class."""

    @property
    def state(self) -> str:
        """One word: hashing, published, paused or private."""
        ...

    @property
    def file_id(self) -> FileId | None:
        """The content that is offered, if any is."""
        ...

    @property
    def reason(self) -> str:
        """Why it is private; nothing if it is meant to be."""
        ...


class FileLinks(Protocol):
    """Makes links to files, for people. Any thread."""

    def to_own(self, file_id: FileId, name: str, size: int) -> str:
        """Return a link to a file that is shared here."""
        ...

    def to_others(self, file_id: FileId, name: str, size: int, sources: Sequence[PeerInfo]) -> str:
        """Return a link to a file that others have."""
        ...


class Attributed(Protocol):
    """The methods of the library that are called here: all are quick, and for any thread."""

    def attributes_changed(self, path: str) -> None:
        """Note that mode, owner, times or extended attributes were set, and no byte."""
        ...

    def file_state(self, path: str) -> FileState:
        """Return whether a file is offered, and as what."""
        ...


class SharedXattrs:
    """The extended attributes of files in `shared/`."""

    def __init__(self, backing: Backing, share: Attributed, links: FileLinks | None) -> None:
        self._backing = backing
        self._share = share
        self._links = links

    def get(self, path: str, name: str) -> bytes:
        """Return the value of an extended attribute; the library knows those of p2pfs."""
        if name.startswith(OWN_PREFIX):
            value = self._own_xattrs(path).get(name)
            if value is None:
                raise os_error(errno.ENODATA, path)
            return value
        with self._backing.named(path) as name_of_file:
            return os.getxattr(name_of_file, name)

    def names(self, path: str) -> list[str]:
        """Return the names of the user's extended attributes.

        Ours are answered by name alone. If they were listed, `rsync -X` would try to remove them,
        since its source does not have them, and fail at every run.
        """
        with self._backing.named(path) as name_of_file:
            return [name for name in os.listxattr(name_of_file) if _is_users(name)]

    def set(self, path: str, name: str, value: bytes, flags: int) -> None:
        """Set an extended attribute of the user's; one of ours stays what it is.

        Copies that were made while ours were listed carry them along, and `rsync -X` fails
        where it cannot set what its source has.
        """
        if self._is_others(path, name):
            return
        with self._backing.named(path) as name_of_file:
            os.setxattr(name_of_file, name, value, flags)
        self._share.attributes_changed(path)

    def remove(self, path: str, name: str) -> None:
        """Remove an extended attribute of the user's; one of ours stays what it is."""
        if self._is_others(path, name):
            return
        with self._backing.named(path) as name_of_file:
            os.removexattr(name_of_file, name)
        self._share.attributes_changed(path)

    def _is_others(self, path: str, name: str) -> bool:
        """Return whether an attribute is ours; ENOTSUP for one that is not the user's either."""
        if name.startswith(OWN_PREFIX):
            self._backing.lstat(path)
            return True
        if not _is_users(name):
            raise os_error(errno.ENOTSUP, path)
        return False

    def _own_xattrs(self, path: str) -> dict[str, bytes]:
        status = self._backing.lstat(path)
        state = self._share.file_state(path)
        own = {_STATE: state.state.encode()}
        if state.reason:
            own[_REASON] = state.reason.encode()
        if state.file_id is not None:
            own[_ID] = state.file_id.hex().encode()
            if self._links is not None:
                name = name_of(path)
                own[_LINK] = self._links.to_own(state.file_id, name, status.st_size).encode()
        return own


def _is_users(name: str) -> bool:
    return name.startswith("user.") and not name.startswith(OWN_PREFIX)
