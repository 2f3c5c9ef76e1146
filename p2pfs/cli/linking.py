"""Links to files, as the command line and the desktop handle them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import Final

from p2pfs.cli.asker import Asker
from p2pfs.control import ExitStatus, VerbError
from p2pfs.control.client import running_servents
from p2pfs.invitations import SCHEMES
from p2pfs.wording import Record

RUNNABLE: Final = frozenset(
    {".appimage", ".bat", ".bin", ".desktop", ".exe", ".jar", ".js", ".msi", ".pl", ".ps1", ".py",
     ".run", ".sh", ".vbs"}
)  # fmt: skip
"""Endings of files that some desktop runs when it opens them: their folder is opened."""

OPENER: Final = "xdg-open"


def other_scheme(link: str) -> str:
    """Return a link with the scheme that has no digit.

    xdg-open of Debian 12 (xdg-utils 1.1.3) takes a scheme with a digit for the name of a file.
    """
    return SCHEMES[1] + link.removeprefix(SCHEMES[0])


def ask_who_knows(asker: Asker, link: str) -> Record:
    """Open a link at the chosen servent, or else at each servent until one is of its network.

    Raises:
        VerbError: nobody has the file, or no servent is of that network.
    """
    if asker.is_clear:
        return asker.ask("open", link=link)
    refusal = VerbError("no servent is running", ExitStatus.NO_SERVENT)
    for asker.servent in running_servents():
        try:
            return asker.ask("open", link=link)
        except VerbError as error:
            if error.status is not ExitStatus.USAGE:
                raise
            refusal = error
    raise refusal


def show_file(place: str, *, is_mounted: bool) -> None:
    """Have the desktop open a file with the program that it has for such files.

    If some desktop might run the file, its folder is opened instead.

    Raises:
        VerbError: there is no mount, or no desktop.
    """
    if not is_mounted:
        raise VerbError("this servent has no mount: `p2pfs get` fetches it", ExitStatus.FAILED)
    if os.path.splitext(place)[1].lower() in RUNNABLE:
        place = os.path.dirname(place)
    try:
        done = subprocess.run([OPENER, place], check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise VerbError(f"{OPENER} is not here, which opens files", ExitStatus.FAILED) from None
    if done.returncode:
        raise VerbError(f"the desktop opens no {place}", ExitStatus.FAILED)


def told_on_desktop(text: str) -> None:
    """Show a failure as a notification, for a user who has clicked on a link."""
    from p2pfs.host.desktop import show_once  # noqa: PLC0415 - heavy, and seldom needed

    with contextlib.suppress(OSError):
        show_once("This link does not open", text)
