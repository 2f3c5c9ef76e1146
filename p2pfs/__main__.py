"""The `p2pfs` command, which `python -m p2pfs` is as well.

Here the process is made fit for all that follows, whatever it was given: the three standard
streams are open, they take every character, and names are UTF-8.
"""

import codecs
import contextlib
import errno
import gc
import io
import locale
import os
import sys
from typing import NoReturn

from p2pfs.errors import INTERRUPTED

_STANDARD_STREAMS = ("stdin", "stdout", "stderr")


def main() -> None:
    """Run the command. Ctrl-C while it is still being loaded gives no traceback."""
    try:
        if sys.getfilesystemencoding() != "utf-8":
            _start_anew_in_utf8()
        _open_streams()
        from p2pfs.cli import conceal  # noqa: PLC0415 - this is what takes its time
        from p2pfs.cli import main as run  # noqa: PLC0415

        conceal(sys.argv)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    try:
        run()
    finally:
        gc.freeze()  # else the interpreter's end looks through all that is left: 0.1 s


def _start_anew_in_utf8() -> NoReturn:
    """Become the same command in Python's UTF-8 mode.

    Names of files are bytes, and p2pfs takes them for UTF-8 wherever it runs. How Python
    turns names into text is settled before any line of ours is run, hence a new start.
    """
    interpreter, *arguments = sys.orig_argv
    os.execv(sys.executable, [interpreter, "-X", "utf8", *arguments])  # noqa: S606 - a list


def _open_streams() -> None:
    """Let each standard stream be open, and let output be escaped where its encoding lacks it.

    A descriptor that is closed (`>&-`) would be taken by the next socket, which would then be
    written to. Printing to such an output is an error, as for all programs.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < len(_STANDARD_STREAMS):
        os.set_inheritable(descriptor, True)
        name = _STANDARD_STREAMS[descriptor]
        if name == "stdout":
            read_only = os.open(os.devnull, os.O_RDONLY)
            os.dup2(read_only, descriptor)
            os.close(read_only)
        setattr(sys, name, _ClosedOutput() if name == "stdout" else _nothing(descriptor, name))
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=_wanted_encoding(), errors="backslashreplace")


def _nothing(descriptor: int, name: str) -> io.TextIOWrapper:
    """Return an input that is empty, or an output for errors, which are best just lost."""
    return open(descriptor, "r" if name == "stdin" else "w", closefd=False)


class _ClosedOutput(io.TextIOBase):
    """The standard output of a process that was started without one."""

    def write(self, text: str, /) -> int:
        """Refuse a text."""
        if text:
            raise OSError(errno.EBADF, "the standard output is closed")
        return 0


def _wanted_encoding() -> str | None:
    """Return the locale's encoding where UTF-8 mode has hidden it; None: leave it as it is.

    A locale of plain ASCII says nothing about the terminal, so UTF-8 it stays, as in all of
    Python.
    """
    if "PYTHONIOENCODING" in os.environ or not sys.flags.utf8_mode:
        return None
    with contextlib.suppress(LookupError):  # an encoding that Python does not know
        encoding = codecs.lookup(locale.getencoding()).name
        return None if encoding == "ascii" else encoding
    return None


if __name__ == "__main__":
    main()
