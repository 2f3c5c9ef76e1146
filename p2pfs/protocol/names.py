"""Which names may come from strangers (PROTOCOL.md, "Names").

A path is a list of labels joined by `/`. What breaks a rule is dropped and counted by
the caller, never repaired: a repaired name is a name nobody published.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_LABEL_BYTES: Final = 255
"""NAME_MAX of Linux: a longer name could be listed but never copied."""

MAX_PATH_BYTES: Final = 1024
"""Keeps fifty results within one frame."""

MAX_DEPTH: Final = 16
"""Labels in a path. Deeper trees exist by accident or by malice."""

_FORBIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Cc: terminal escapes, newlines. Cf: bidi overrides and zero-width characters that make
# `exe.gpj` look like a picture (the Trojan Source class). Cs, Co, Cn: nothing to show.

# Cf, yet an ordinary part of words in Persian and the Indic scripts and of emoji; both
# are still refused, because two names that look alike are worse than a missing one.

_RESERVED: Final = frozenset(
    {
        "desktop.ini", "thumbs.db",
        "lost+found", "$recycle.bin", "system volume information",
    }
)  # fmt: skip
# What desktops leave in every folder, of no use to anybody else; and where systems keep what was
# deleted or found damaged on a disk: whoever shares the disk does not mean to share that.

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
    if not is_plain and any(unicodedata.category(c) in _FORBIDDEN_CATEGORIES for c in label):
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
    labels = path.split("/")
    if len(labels) > MAX_DEPTH:
        return "too deep"
    for label in labels:
        reason = check_label(label)
        if reason is not None:
            return reason
    if len(path.encode()) > MAX_PATH_BYTES:
        return "path too long"
    return None


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


def tokens_of(text: str) -> list[str]:
    """Return everything in a text that could be a word, in order, with repeats.

    NFKC and casefold make `Ｃａｆé` and `CAFÉ` meet; everything that is not a letter or a
    digit separates.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    spaced = "".join(c if c.isalnum() or unicodedata.combining(c) else " " for c in folded)
    return spaced.split()


def words_of(text: str) -> list[str]:
    """Return the search words of a path or a query, in order, without repeats.

    Words of one character carry nothing but are kept when they are digits.
    """
    return list(dict.fromkeys(w for w in tokens_of(text) if len(w) > 1 or w.isdigit()))
