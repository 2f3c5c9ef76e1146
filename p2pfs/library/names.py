"""Local paths as text: their parts, the names that others see, and which names stay private."""

from __future__ import annotations

import functools
import string
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

from p2pfs.config import IDENTITY, LOCK
from p2pfs.protocol import MAX_LABEL_BYTES, check_extent, check_label, is_private, join_path

_TEMPORARY_ENDS: Final = (
    "~",  # backups
    ".part",  # downloads of Firefox, KDE, wget's friends
    ".crdownload",  # downloads of Chromium
    *(f".sw{letter}" for letter in string.ascii_lowercase),  # Vim's that begin with no dot
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


def published_names(directory: str, names: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Yield names in a directory that others see, each with how they see it, None if they do not.

    It is the rule of `published_path`, which takes three times as long for each name.
    """
    is_never_too_long = check_extent(join_path(directory, "n" * MAX_LABEL_BYTES)) is None
    for name in names:
        if _why_private(name) is not None:
            yield name, None
        elif is_never_too_long:
            yield name, name if name.isascii() else unicodedata.normalize("NFC", name)
        else:
            path = published_path(join_path(directory, name))
            yield name, None if path is None else split(path)[1]


def why_private(path: str) -> str | None:
    """Return why a local path stays private by its name, or None if it does not.

    A leading dot is meant to keep it private, and needs no reason: the text is empty.
    """
    if path == "":
        return None
    reasons = [reason for label in path.split("/") if (reason := _why_private(label))]
    return min(reasons).text if reasons else check_extent(unicodedata.normalize("NFC", path))


class _Reason(NamedTuple):
    rank: int
    """Of several, the one with the smallest is told."""
    text: str


@functools.lru_cache(maxsize=4096)  # a directory of a path is that of the next one too
def _why_private(label: str) -> _Reason | None:
    """Return why all at and below a label stays private."""
    if is_private(label):
        return _Reason(0, "")
    if _is_temporary(label.casefold()):
        return _Reason(1, "its name is that of a temporary file")
    if label == IDENTITY:
        return _Reason(2, "its name is that of a servent's secret key")
    try:
        label.encode()
    except UnicodeEncodeError:  # as the file system hands out bytes that are not UTF-8
        return _Reason(3, "its name is not UTF-8")
    text = check_label(unicodedata.normalize("NFC", label))
    return None if text is None else _Reason(4, text)


def _is_temporary(folded: str) -> bool:
    is_saved = len(folded) > 1 and folded[0] == folded[-1] == "#"  # Emacs saves itself
    is_lock = folded.startswith("~$")  # of an office suite
    is_probe = folded == "4913"  # Vim tries whether it may write here
    return is_saved or is_lock or is_probe or folded.endswith(_TEMPORARY_ENDS)


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
