"""The kernel's side of the tree: the only part that knows FUSE.

    session      one mount from start to end: libfuse's loop in a thread, and its options
    adapter      libfuse's call-backs -> the tree; every exception -> an errno
    binding      what fusepy lacks of libfuse 2.9: reads without a copy
    parallel     that a lookup does not hold up its directory, which libfuse 2 cannot ask for
    plus         names with their attributes: another request that is younger than libfuse 2
    table        where libfuse looks for what answers a request
    replies      the last moment before libfuse answers the kernel
    portal       kernel threads -> trio, and how a waiting reader is let go
    heard        what libfuse and fusermount write when they cannot mount
    threads      what Python keeps of libfuse's threads
    caller       who made the call that is being answered, and whether a signal waits for it
    mountpoint   what must be there to mount; cleaning up after a crash

Theory. Three worlds meet here: kernel threads that wait for an answer, trio's thread that must not
wait, and the kernel, which believes what it was told for a while. A call is answered on its own
thread from memory or the disk where that is enough; only what needs the network crosses into trio,
as `Later`, by the `Portal`. Every thread that waits there is let go by exactly one of four: the
answer, a signal to its caller, the end of the mount, the end of trio. What the kernel believes is
bounded by BELIEVED_S for names and what comes with them, and by ATTRIBUTES_S, and nobody has to
take anything back from it.

libfuse 2 runs its loop in the foreground of a thread of ours and calls back on threads of
its own. Nothing in trio's thread may touch a path below the mountpoint: the kernel would
wait for our answer and we for the kernel's.

One thing libfuse 2 does not tell is whether a file is moved aside because it is removed or
because another takes its name while somebody has it open: it does the latter in two calls. So
`replies` puts the removal off until libfuse answers, and the latter is one rename(2) on the disk:
killed at any moment, a servent leaves the old content under the name or the new one. (Where the
removal is done at once, 1 of 10 kills aimed at it left neither. With libfuse's `hard_remove` it
would be one call, too, but what has no name has no attributes then: the kernel asks for them
without the handle.)

Another is that two names may be one file: the kernel keeps attributes and pages for each.
What was done under one shows under the other a few milliseconds later (`ATTRIBUTES_S`), and
in the pages of a file that was open before not at all.

The kernel may read ahead in the background, two reads of a file at a time (no `sync_read`). A
read of 1 GiB from the cache became 1.7 times faster with it, faster than that of a bare
pass-through, and a cold one by a twentieth. Its price was that the kernel lets nobody interrupt
such a read; `Portal.wait_for_read` looks after that.
"""

from p2pfs.mount.caller import KernelCaller
from p2pfs.mount.mountpoint import (
    check_fuse,
    check_mountpoint,
    detach,
    is_stuck,
    new_mountpoint_undone,
    stale_mounts,
)
from p2pfs.mount.session import serve_mount

__all__ = [
    "KernelCaller",
    "check_fuse",
    "check_mountpoint",
    "detach",
    "is_stuck",
    "new_mountpoint_undone",
    "serve_mount",
    "stale_mounts",
]
