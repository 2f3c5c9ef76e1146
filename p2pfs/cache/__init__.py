"""Verified blocks on disk: one sparse file per content, within a limit.

    store       all contents: which are open, how much they take, which goes first
    shelves     those that nobody has open: which stay, which are quick to open again
    blocks      one content: its blocks, which are verified, how they come and go
    reads       reads of it, on any thread
    flushing    when its bitmap is written, and when all is synced
    footprint   its file, and what that takes of the cache's room
    storage     its open file: bytes, manifest and bitmap on the disk
    bitmap      which of its blocks are there
    key         the id and size that name a cache file
    passage     contents that are larger than the whole cache

A cache file is named by file id and size, never by anything else a peer said. It holds the
content at its own offsets and, behind it from the next page on, the map: the manifest and
one bit per block. The map is evidence, not proof. Whatever the disk or a crash did to it,
the manifest is checked against the file id, and a block claimed by an earlier run is
verified before its first use. So a lost or torn bitmap costs a download, never a wrong byte.

Eviction is by whole file, least recently used first. A file with an open handle stays, and so
does a pinned one (`BlockCache.keep`).
A content that is larger than the whole cache passes through it.
"""

from __future__ import annotations

from p2pfs.cache.blocks import CachedFile, NotKeptError, expects_nothing
from p2pfs.cache.flushing import FLUSH_BYTES, FLUSH_S
from p2pfs.cache.key import Key
from p2pfs.cache.storage import PAGE_BYTES, Located
from p2pfs.cache.store import BlockCache, CachedContent

__all__ = [
    "FLUSH_BYTES",
    "FLUSH_S",
    "PAGE_BYTES",
    "BlockCache",
    "CachedContent",
    "CachedFile",
    "Key",
    "Located",
    "NotKeptError",
    "expects_nothing",
]
