"""The key by which a cache file is filed: its name on the disk."""

from __future__ import annotations

from typing import NamedTuple

from p2pfs.protocol import FILE_ID_BYTES, FileId


class Key(NamedTuple):
    """The file id and the size by which a cache file is filed.

    The size is part of it because a peer can announce a wrong one: such a file gets no
    manifest, hence no bytes, and does not touch the right one.
    """

    file_id: FileId
    size: int

    @property
    def name(self) -> str:
        """The name of its cache file."""
        return f"{self.file_id.hex()}.{self.size}"

    @classmethod
    def parse(cls, name: str) -> Key | None:
        """Return the key of a cache file's name, or None if it is not one."""
        head, _, tail = name.partition(".")
        try:
            key = cls(FileId(bytes.fromhex(head)), int(tail))
        except ValueError:
            return None
        return key if len(key.file_id) == FILE_ID_BYTES and key.name == name else None
