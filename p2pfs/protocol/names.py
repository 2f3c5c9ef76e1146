"""Which names may come from strangers (PROTOCOL.md, "Names").

A path is a list of labels joined by `/`. What breaks a rule is dropped and counted by
the caller, never repaired: a repaired name is a name nobody published.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

import idna

MAX_LABEL_BYTES: Final = 255
"""NAME_MAX of Linux: a longer name could be listed but never copied."""

MAX_PATH_BYTES: Final = 1024
"""Keeps fifty results within one frame."""

MAX_DEPTH: Final = 16
"""Labels in a path. Deeper trees exist by accident or by malice."""

_FORBIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Cc: terminal escapes, newlines. Cf: bidi overrides and zero-width characters that make
# `exe.gpj` look like a picture (the Trojan Source class). Cs, Co, Cn: nothing to show.

ZERO_WIDTH_NON_JOINER: Final = "\u200c"
ZERO_WIDTH_JOINER: Final = "\u200d"
JOINERS: Final = ZERO_WIDTH_NON_JOINER + ZERO_WIDTH_JOINER
# Cf, yet Persian and the Indic scripts cannot be written without them, nor can most emoji.

_VIRAMA: Final = 9
"""The combining class of the sign that joins an Indic consonant to the next one."""

_PICTURES: Final = (
    r"\u2190-\u21ff\u2300-\u23ff\u25a0-\u27bf\u2934\u2935\u2b00-\u2bff\U0001f000-\U0001faff"
)
"""Where Unicode has what emoji are joined of, none of it letters or marks."""

_PICTURE_BEFORE: Final = re.compile(rf"[{_PICTURES}]\ufe0f?\Z")
_PICTURE_AFTER: Final = re.compile(rf"[{_PICTURES}]")

_RESERVED: Final = frozenset(
    {
        "desktop.ini", "thumbs.db",
        "lost+found", "$recycle.bin", "system volume information",
    }
)  # fmt: skip
# Files that desktops leave in every folder, of no use to anybody else; and directories where
# systems keep deleted or damaged files: a user who shares the disk does not mean to share them.

_PROBED: Final = _RESERVED | {
    "autorun.inf", "folder.jpg", "folder.gif", "folder.png", "cover.jpg", "cover.png",
    "albumart.jpg", "albumartsmall.jpg", "head", "4913",
}  # fmt: skip
# What file managers, editors and shells look up in every folder, seen with six file managers.


def check_label(label: str) -> str | None:
    """Return why `label` is not acceptable as one path component, or None if it is."""
    if not label:
        return "empty label"
    if label in (".", "..") or "/" in label:
        return "not a single label"
    # Most labels are plain ASCII; a page of 500 names took 17 ms without this shortcut.
    is_plain = label.isascii() and label.isprintable()
    if not is_plain and any(_is_forbidden(label, index) for index in range(len(label))):
        return "control, bidi or invisible character"
    if len(label.encode()) > MAX_LABEL_BYTES:
        return "label too long"
    if not is_plain and not unicodedata.is_normalized("NFC", label):
        return "not in normal form C"
    if is_private(label) or is_reserved(label):
        return "reserved name"
    return None


def check_path(path: str) -> str | None:
    """Return why `path` is not acceptable from a stranger, or None if it is.

    The root of a share is the empty path, which this refuses: nobody publishes it.
    """
    reason = check_extent(path)
    if reason is not None:
        return reason
    reasons = map(check_label, path.split("/"))
    return next((reason for reason in reasons if reason is not None), None)


def are_in(directory: str, paths: Sequence[str]) -> bool:
    """Return whether all of some paths are acceptable and in a directory, told of all at once.

    False says nothing: then each is to be checked by itself. Most names are plain ASCII, and a
    page has hundreds of them.
    """
    labels = labels_in(directory, paths)
    if not labels:
        return False
    text = "/".join(labels)
    is_plain = text.isascii() and text.isprintable() and "/." not in f"/{text}"
    if not is_plain or not _RESERVED.isdisjoint(text.lower().split("/")):
        return False
    # If the longest of them fits so do all, and they have all other labels in common.
    return check_path(join_path(directory, max(labels, key=len))) is None


def labels_in(directory: str, paths: Sequence[str]) -> list[str]:
    """Return the last labels of paths that are all in one directory; none if one is not."""
    begin = f"{directory}/" if directory else ""
    # What lies between two texts that begin alike begins so too.
    if not paths or not (min(paths).startswith(begin) and max(paths).startswith(begin)):
        return []
    labels = [path[len(begin) :] for path in paths]
    return [] if "" in labels or "/" in "".join(labels) else labels


def check_extent(path: str) -> str | None:
    """Return why a path is not acceptable whatever its labels are, or None if it may be."""
    if path.count("/") >= MAX_DEPTH:
        return "too deep"
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        return "path too long"
    return None


def is_joiner_in_place(label: str, index: int) -> bool:
    """Return whether U+200C or U+200D stands at `index` where it is seen.

    That is where scripts need them (UAX #31, profile for default ignorable code points) and
    between the parts of an emoji (UTS #51). Anywhere else two names would look the same.
    """
    if label[index] not in JOINERS or len(label) > MAX_LABEL_BYTES:
        return False
    before, after = label[:index], label[index + 1 :]
    if label[index] == ZERO_WIDTH_JOINER and _PICTURE_BEFORE.search(before):
        return _PICTURE_AFTER.match(after) is not None
    if not before or unicodedata.category(before[-1]) in _FORBIDDEN_CATEGORIES:
        return False
    if not idna.valid_contextj(label, index):
        return False
    if unicodedata.combining(before[-1]) != _VIRAMA:
        return True  # between two letters that would be joined in writing
    kind = unicodedata.category(after[0]) if after else ""
    if label[index] == ZERO_WIDTH_NON_JOINER:
        return kind.startswith("L")
    return not kind.startswith("M")


def _is_forbidden(label: str, index: int) -> bool:
    return unicodedata.category(label[index]) in _FORBIDDEN_CATEGORIES and not is_joiner_in_place(
        label, index
    )


def is_private(label: str) -> bool:
    """Return whether a name with a leading dot: never published, searched nor accepted."""
    return label.startswith(".")


def is_reserved(label: str) -> bool:
    """Return whether this name is never accepted from peers, nor published."""
    return label.casefold() in _RESERVED


def is_probe(label: str) -> bool:
    """Return whether programs look this name up by themselves in every folder.

    It is shown where somebody published it, and never searched for by its path: it costs a
    listing of its directory, if there is one.
    """
    return label.casefold() in _PROBED


def parent_of(path: str) -> str:
    """Return the directory that a path is in; the empty path, the root, for a name at the top."""
    return path.rpartition("/")[0]


def name_of(path: str) -> str:
    """Return the last label of a path; that of the root is empty."""
    return path.rpartition("/")[2]


def join_path(directory: str, name: str) -> str:
    """Return the path of a name in a directory, which may be the root."""
    return f"{directory}/{name}" if directory else name
