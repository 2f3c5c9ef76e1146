"""The Unix socket behind the verbs.

The command line sends one line of JSON, `{"verb": "search", "args": {"words": "blue"}}`, and
with it the descriptors of the files that it has opened for the verb; what follows has no
meaning. The servent answers with any number of `{"progress": ...}` lines (null: I am still there),
then one of

    {"ok": RESULT}
    {"error": "one line for people", "status": EXIT_STATUS}

and hangs up. A client that hangs up first cancels its verb. Only the owner of the servent
and root can connect. A verb starts quickly: `client` imports neither trio nor the servent.

    client     the command line's side: finds a servent, asks it, hands files over
    opening    opens files for a verb, with the permissions of the user
    paths      parses the paths of the command line
    server     the servent's side: one request, its progress, its answer
    verbs      the table of verbs, and the short ones
    moving     the verbs that move bytes
    linking    the verbs about links to files
    asked      checks the arguments of a request
    needed     the protocols of a servent that the verbs use
    finding    finds the file or directory that a received path means
    files      copies into the share and out of the network
    statuses   the bounds of a request, and the exit statuses

Other packages import these modules directly.
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
