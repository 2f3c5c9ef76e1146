"""The command, in a process that may open few files: `python -m tests.helpers.frugalservent`."""

from __future__ import annotations

import resource

from p2pfs.__main__ import main

MAY_OPEN = 400

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAY_OPEN, MAY_OPEN))
    main()
