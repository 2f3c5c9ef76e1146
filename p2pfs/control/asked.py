"""The arguments of a request, checked one by one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

from p2pfs.errors import UsageError

Args = Mapping[str, object]
"""The arguments of a request, and under `HANDED` a tuple of its descriptors."""

HANDED: Final = "descriptors"


def handed(args: Args, most: int) -> Sequence[int]:
    """Return the descriptors that the client has handed over: one at least."""
    descriptors = args.get(HANDED)
    if not isinstance(descriptors, tuple) or not 0 < len(descriptors) <= most:
        raise UsageError("this verb is handed open files; the command does that")
    return descriptors


def text_of(args: Args, name: str) -> str:
    """Return an argument that can be encoded as a file name of this machine."""
    value = args.get(name)
    if not isinstance(value, str) or not value or not _is_encodable(value):
        raise UsageError(f"{name}: a text is needed")
    return value


def _is_encodable(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def texts_of(args: Args, name: str) -> list[str]:
    """Return an argument that is a list of one text or more, each as `text_of` has it."""
    values = args.get(name)
    if not isinstance(values, list) or not values:
        raise UsageError(f"{name}: at least one is needed")
    return [text_of({name: value}, name) for value in values]
