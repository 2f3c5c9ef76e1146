"""The Unix socket behind the verbs.

The command line sends one line of JSON, `{"verb": "search", "args": {"words": "blue"}}`, and
with it the descriptors of the files that it has opened for the verb; what follows has no
meaning. The servent answers with any number of `{"progress": ...}` lines (null: I am still there),
then one of

    {"ok": RESULT}
    {"error": "one line for people", "status": EXIT_STATUS}

and hangs up. A client that hangs up first cancels its verb. Only the owner of the servent
and root can connect. `server` answers and `verbs` does the work. `client` is the command
line's side, with `paths` (what is meant) and `opening` (what is handed over); it imports
neither trio nor the servent, so that a verb starts quickly.
`paths` parses what people type, `finding` tells what that is in the network, `files` copies into
the share and out of the network. `statuses` has the bounds of
the talk and the exit statuses. Each of the seven is a door of its own.
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
