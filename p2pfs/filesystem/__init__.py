"""The tree as users see it, and nothing of how it is mounted.

The first label of a path chooses the sub-tree; each sub-tree sees paths relative to itself.

    shared/    p2pfs.filesystem.shared     read and write, over a backing directory
    network/   p2pfs.filesystem.network    read-only, what everybody else shares
    search/    p2pfs.filesystem.search     read-only but for mkdir and rmdir, keyword searches
    peers/     p2pfs.filesystem.network    read-only, what each peer shares by itself
    .p2pfs/    p2pfs.filesystem.info       read-only, the state of this servent as text

    tree         which sub-tree a path is in, and the mountpoint itself
    subtree      what each sub-tree can be asked, and what read-only ones answer
    answers      answers that come at once or later; errors with an errno
    attributes   what `stat` shows of things that lie on no disk
    writers      open files in `shared/`, and how many write to each path
    xattrs       extended attributes in `shared/`: the user's, and how a file stands
    backing      walking the backing directory of `shared/` without following links
    removed      what was removed in `shared/` while it was open
    absences     names of which the kernel was told that they are not there
    versions     which version of a path the kernel was told of, and has pages of
    justlisted   what was listed a moment ago: its attributes are told with its names
    siblings     small files that will be opened next
    previews     what thumbnailers and indexers may read
    caller       the program that asks

Every operation is an ordinary function, called on a kernel thread, many at once. It answers
at once or returns `Later` (see `p2pfs.filesystem.answers`); what goes wrong is an `OSError`
with an errno. All else is a bug of ours.
"""

from p2pfs.filesystem.absences import BELIEVED_S
from p2pfs.filesystem.answers import Later, NowOrLater, Stretch, os_error
from p2pfs.filesystem.attributes import Attributes, Listed
from p2pfs.filesystem.caller import Caller
from p2pfs.filesystem.network import Contents, Reader
from p2pfs.filesystem.search import SearchView
from p2pfs.filesystem.shared import Share
from p2pfs.filesystem.subtree import Moment, OpenFile, Ownership, Time
from p2pfs.filesystem.tree import FileSystem

__all__ = [
    "BELIEVED_S",
    "Attributes",
    "Caller",
    "Contents",
    "FileSystem",
    "Later",
    "Listed",
    "Moment",
    "NowOrLater",
    "OpenFile",
    "Ownership",
    "Reader",
    "SearchView",
    "Share",
    "Stretch",
    "Time",
    "os_error",
]
