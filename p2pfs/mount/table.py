"""libfuse's table of the functions that answer requests, by the numbers of these.

It is no part of libfuse's interface. It is found by the names of requests that stand in it, and
taken for what it is only if each of several numbers has its name, and ours has none.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

_ROW: Final = struct.Struct("@PP")
"""A function, and the name of the request."""

_NAMES: Final[Mapping[int, bytes]] = {1: b"LOOKUP", 2: b"FORGET", 28: b"READDIR", 43: b"FALLOCATE"}
"""The names of some requests in libfuse 2.9; the first is looked for."""

_LAST: Final = 44
"""The last row that must be there."""

_PROT_READ: Final = 1
_PROT_WRITE: Final = 2
# Of mprotect(2).

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Segment(NamedTuple):
    """A part of a library in memory."""

    address: int
    content: bytes
    is_writable: bool


def set_function(library: Any, number: int, function: Any) -> bool:  # noqa: ANN401 - of ctypes
    """Have a function answer the requests with a number that has none; return whether it does.

    It must stay for as long as the process does.
    """
    found = _find(_segments(library.fuse_session_process), number)
    if found is None:
        return False
    place, segment = found
    if not segment.is_writable and not _protect(place, _PROT_READ | _PROT_WRITE):
        return False
    ctypes.c_void_p.from_address(place).value = ctypes.cast(function, ctypes.c_void_p).value
    return segment.is_writable or _protect(place, _PROT_READ)


def _segments(function: Any) -> list[Segment]:  # noqa: ANN401 - of ctypes
    """Return the data of the library that a function is in."""
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        lines = [line.split(maxsplit=5) for line in maps]
    parts = [(*_ends(line[0]), line[1], line[5]) for line in lines if len(line) > 5]
    path = next((path for begin, end, _, path in parts if begin <= address < end), None)
    return [
        Segment(begin, ctypes.string_at(begin, end - begin), "w" in mode)
        for begin, end, mode, its_path in parts
        if its_path == path and "r" in mode and "x" not in mode
    ]


def _ends(interval: str) -> tuple[int, int]:
    begin, end = interval.split("-")
    return int(begin, 16), int(end, 16)


def _find(segments: Sequence[Segment], number: int) -> tuple[int, Segment] | None:
    """Return where the function of a number stands, if none does and the table is the right one."""
    for segment in segments:
        for row in _rows_named(_NAMES[1], segment, segments):
            table = row - _ROW.size
            if _is_table(table, segment, segments, number):
                return segment.address + table + number * _ROW.size, segment
    return None


def _rows_named(name: bytes, segment: Segment, segments: Sequence[Segment]) -> Iterator[int]:
    """Yield where rows begin in a segment that have a name."""
    for text in segments:
        at = text.content.find(name + b"\0")
        while at >= 0:
            address = struct.pack("@P", text.address + at)
            found = segment.content.find(address)
            while found >= 0:
                yield found - _ROW.size // 2
                found = segment.content.find(address, found + 1)
            at = text.content.find(name + b"\0", at + 1)


def _is_table(table: int, segment: Segment, segments: Sequence[Segment], number: int) -> bool:
    if table < 0 or table + (_LAST + 1) * _ROW.size > len(segment.content):
        return False
    rows = dict(enumerate(_ROW.iter_unpack(segment.content[table:][: (_LAST + 1) * _ROW.size])))
    is_named = all(_text_at(rows[n][1], segments, name) for n, name in _NAMES.items())
    return is_named and rows[number] == (0, 0)


def _text_at(address: int, segments: Sequence[Segment], text: bytes) -> bool:
    for segment in segments:
        at = address - segment.address
        if 0 <= at < len(segment.content):
            return segment.content.startswith(text + b"\0", at)
    return False


def _protect(place: int, protection: int) -> bool:
    page = os.sysconf("SC_PAGE_SIZE")
    return bool(_libc.mprotect(place // page * page, page, protection) == 0)
