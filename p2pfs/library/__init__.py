"""What `shared/` offers: which files, under which names, and their verified blocks.

    library   joins all below: facts from the tree in, offers and blocks out
    serving   blocks and manifests, each block verified as it leaves
    searching  keyword queries

The worker's thread:

    rounds    when it does it
    worker    one bounded hop after the other: changes in, looks, hashing, offers
    recollection  what the index remembers, offered before it is looked at
    looking   a look at one path, and whether it may be published
    memory    the content of a file, if that is known without reading it
    large     hashing, at most one large file at a time
    publishing  files that were found: filed first, offered second
    refusing  how a look ends that offers nothing
    findings  what one hop has found
    notices   events for the user, about files that are not published

The beliefs, under one lock:

    books     all of it, and the steps that keep it consistent
    facts     what the tree, the watch and readers may do with the books
    looks     what the worker may do with them
    tidying   what it may do when nothing is due
    answers   questions from memory
    agenda    which paths have to be looked at, and which looks are under way
    doubts    what a sign of a change leaves in doubt, and which files are
    writers   which files are being written
    offers    the names that are offered at this moment
    holdings  the contents that are served, under any name
    index     SQLite: manifests and words, kept over a restart

The disk:

    share     the backing directory: the only file here that opens what users wrote
    hashing   one file on its way from bytes to a manifest
    status    the numbers by which one state of a file differs from another
    names     paths as text: which stay private, and how others see the rest
    watch     changes there, by anybody
    mounted   mounts of servents there, which stay private
    ignoring  `.p2pfsignore` files, and what they keep private
    patterns  what a line of one matches

Theory. Everything here is about one question: are the bytes at this path still those that were
hashed? Times and sizes show most changes, signs from the mount and from the watch show the rest,
and each sign leaves a definite doubt (the table of `doubts.Sign`). A fact that arrives while a path
is looked at makes that look void, so a look never offers what was true before it ended. Nothing is
forgotten, because a path leaves the agenda only by an offer, by a refusal, or by being gone; what
could not be seen now is put off, and comes back. And a wrong offer does no harm to others: each
block is verified as it leaves, so a missed change costs an answer, never a wrong byte.

A path is offered from the moment it has been hashed with nobody writing it, until the first
sign that its bytes may be others. A content is served as long as a file has it: each block is
verified as it leaves. What a change leaves in doubt is a table: see `doubts.Sign`.
"""

from p2pfs.library.answers import FileState
from p2pfs.library.library import Library, LibraryStatistics
from p2pfs.library.names import holds_state, why_private
from p2pfs.library.offers import Changes, Page, SharedFile
from p2pfs.library.watch import Watch

__all__ = [
    "Changes",
    "FileState",
    "Library",
    "LibraryStatistics",
    "Page",
    "SharedFile",
    "Watch",
    "holds_state",
    "why_private",
]
