"""What `shared/` offers: which files, under which names, and their verified blocks.

    library   joins all below: facts from the tree in, offers and blocks out
    worker    the thread that looks at files and hashes them
    register  which path offers which content, and what became of each change
    agenda    which paths have to be looked at, and which files are being written
    offers    what is offered at this moment, in memory
    index     SQLite: manifests and words, kept over a restart
    share     the backing directory: the only file here that opens what users wrote
    watch     what is changed there, by whomever

A path is offered from the moment it has been hashed with nobody writing it, until the first
sign that it may have changed. All of it serves one promise: what is offered matches its bytes.
"""

from p2pfs.library.library import FileState, Library, LibraryStatistics
from p2pfs.library.offers import SharedFile
from p2pfs.library.share import published_path, unacceptable
from p2pfs.library.watch import Watch

__all__ = [
    "FileState",
    "Library",
    "LibraryStatistics",
    "SharedFile",
    "Watch",
    "published_path",
    "unacceptable",
]
