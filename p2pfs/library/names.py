"""Local paths as text: their parts, the names that others see, and which names stay private."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection
from typing import Final

from p2pfs.config import IDENTITY, LOCK
from p2pfs.protocol import check_path, is_private

_TEMPORARY: Final = re.compile(
    r"""  \#.*\#          # Emacs saves itself
      | ~\$.*           # office suites' locks
      | .*~             # backups
      | .*\.sw[a-z]     # Vim's swap files that do not begin with a dot
      | 4913            # Vim tries whether it may write here
      | .*\.part        # downloads of Firefox, KDE, wget's friends
      | .*\.crdownload  # downloads of Chromium
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def split(path: str) -> tuple[str, str]:
    """Return (directory, name)."""
    directory, _, name = path.rpartition("/")
    return directory, name


@functools.lru_cache(maxsize=4096)  # a look asks a dozen times, a label costs microseconds
def published_path(path: str) -> str | None:
    """Return the path under which others see a local path, or None if it stays private.

    Others accept normal form C alone, so a name in form D (macOS makes them) is offered in C.
    """
    return None if why_private(path) is not None else unicodedata.normalize("NFC", path)


def why_private(path: str) -> str | None:
    """Return why a local path stays private by its name, or None if it does not.

    A leading dot is meant to keep it private, and needs no reason: the text is empty.
    """
    if path == "":
        return None
    labels = path.split("/")
    if any(is_private(label) for label in labels):
        return ""
    if any(_TEMPORARY.fullmatch(label) for label in labels):
        return "its name is that of a temporary file"
    if IDENTITY in labels:
        return "its name is that of a servent's secret key"
    try:
        path.encode()
    except UnicodeEncodeError:  # as the file system hands out bytes that are not UTF-8
        return "its name is not UTF-8"
    return check_path(unicodedata.normalize("NFC", path))


def first_private(path: str) -> tuple[str, str]:
    """Return the highest part of a local path that stays private by its name, and why."""
    labels = path.split("/")
    for depth in range(1, len(labels) + 1):
        part = "/".join(labels[:depth])
        reason = why_private(part)
        if reason is not None:
            return part, reason
    return path, ""


def holds_state(names: Collection[str]) -> bool:
    """Return whether a directory with these names is the state directory of a servent."""
    return IDENTITY in names and LOCK in names


def other_forms(path: str) -> list[str]:
    """Return the paths in the same directory that look the same as this one to others."""
    directory, slash, name = path.rpartition("/")
    forms = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")} - {name}
    return [f"{directory}{slash}{form}" for form in sorted(forms)]
