"""The Unix socket behind the verbs.

The command line sends one line of JSON, `{"verb": "search", "args": {"words": "blue"}}`, and
with it the descriptors of the files that it has opened for the verb; what follows has no
meaning. The servent answers with any number of `{"progress": ...}` lines (null: I am still there),
then one of

    {"ok": RESULT}
    {"error": "one line for people", "status": EXIT_STATUS}

and hangs up. A client that hangs up first cancels its verb. Only the owner of the servent
and root can connect. A verb starts quickly: `client` imports neither trio nor the servent.

    client     the command line's side: find a servent, ask it, hand files over
    opening    what the command opens for a verb, and hands over
    paths      what a path on the command line means
    server     the servent's side: one request, its progress, its answer
    verbs      what each verb does
    moving     the verbs that move bytes
    linking    the verbs about links to files
    asked      the arguments of a request, checked
    needed     what the verbs need of a servent
    finding    what a path that has travelled means to a servent
    files      copies into the share and out of the network
    statuses   the bounds of the talk, and the exit statuses

Each module is a door of its own.
"""

from p2pfs.control.statuses import (
    ALIVE_EVERY_S,
    MAX_REQUEST_BYTES,
    RECORD,
    SILENCE_S,
    ExitStatus,
    VerbError,
    exit_status_of,
)

__all__ = [
    "ALIVE_EVERY_S",
    "MAX_REQUEST_BYTES",
    "RECORD",
    "SILENCE_S",
    "ExitStatus",
    "VerbError",
    "exit_status_of",
]
