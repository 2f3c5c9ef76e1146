"""The `p2pfs` command, which `python -m p2pfs` is as well."""

import sys

from p2pfs.errors import INTERRUPTED


def main() -> None:
    """Run the command. Whoever interrupts it while it is still being loaded sees no traceback."""
    try:
        from p2pfs.cli import main as run  # noqa: PLC0415 - this is what takes its time
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
