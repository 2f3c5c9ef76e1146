"""Let the desktop of this user open links to files (`p2pfs:`) with p2pfs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from p2pfs.host.service import program
from p2pfs.invitations import SCHEMES

DESKTOP_FILE: Final = "p2pfs-open.desktop"

_ENTRY: Final = """\
[Desktop Entry]
Type=Application
Name=p2pfs link
Comment=Find the file that a link means, and open it
Exec={command} open --desktop %u
Icon=folder-remote
Terminal=false
NoDisplay=true
MimeType={types}
"""

_REGISTER_S: Final = 20.0
"""A desktop's database is written in less; the entry works without it after the next login."""


def handler_entry(command: str) -> str:
    """Return the desktop entry by which a command opens links."""
    types = "".join(f"x-scheme-handler/{scheme};" for scheme in SCHEMES)
    return _ENTRY.format(command=command, types=types)


def install_handler() -> Path:
    """Make p2pfs open this user's links to files, and return the path of the desktop entry.

    Raises:
        OSError: it cannot be written.
    """
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    path = Path(base, "applications", DESKTOP_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(handler_entry(" ".join(_quoted(word) for word in program())))
    _run("update-desktop-database", os.fspath(path.parent))
    for scheme in SCHEMES:
        _run("xdg-mime", "default", DESKTOP_FILE, f"x-scheme-handler/{scheme}")
    return path


def missing_programs() -> Sequence[str]:
    """Return which programs of xdg-utils are not here; without them a click may open no link."""
    return [name for name in ("xdg-open", "xdg-mime") if shutil.which(name) is None]


def _quoted(word: str) -> str:
    """Return a word as the key Exec has it (Desktop Entry Specification, "The Exec key")."""
    for special in ("\\", '"', "`", "$"):
        word = word.replace(special, f"\\{special}")
    escaped = word.replace("\\", "\\\\").replace("%", "%%")
    return f'"{escaped}"'


def _run(*command: str) -> None:
    """Run a program of the desktop, which may not be there."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, check=False, capture_output=True, timeout=_REGISTER_S)
