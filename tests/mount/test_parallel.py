"""The reply to the kernel's first request, with what libfuse 2 leaves out of it."""

from __future__ import annotations

import mmap
import struct

from p2pfs.mount.parallel import (
    MAX_PAGES,
    PARALLEL_DIROPS,
    REQUEST_BYTES,
    _offered_flags,
    _with_flags,
)

INIT = 26
LOOKUP = 1


def request(opcode: int, flags: int) -> bytes:
    header = struct.pack("=IIQQIIII", 56, opcode, 2, 0, 0, 0, 1, 0)
    return header + struct.pack("=IIII", 7, 45, 131_072, flags)


def reply(error: int, body: bytes) -> bytes:
    return struct.pack("=IiQ", 16 + len(body), error, 2) + body


def test_what_the_kernel_offers_is_read_from_init_alone() -> None:
    assert _offered_flags(request(INIT, 0x4001)) == 0x4001
    assert _offered_flags(request(LOOKUP, 0x4001)) == 0
    assert _offered_flags(request(INIT, 0x4001)[:48]) == 0


def test_a_flag_is_added_and_nothing_else_is_changed() -> None:
    body = struct.pack("=IIIIHHI", 7, 19, 131_072, 0x21, 1000, 750, 131_072)

    changed = _with_flags(reply(0, body), PARALLEL_DIROPS)

    assert len(changed) == len(reply(0, body))
    assert changed[:28] == reply(0, body)[:28]
    assert changed[32:] == reply(0, body)[32:]
    assert struct.unpack_from("=I", changed, 28) == (0x21 | PARALLEL_DIROPS,)
    assert _with_flags(reply(0, body), 0) == reply(0, body)


def test_how_much_a_request_may_ask_for_is_said_behind_what_libfuse_says() -> None:
    body = struct.pack("=IIIIHHI", 7, 19, 131_072, 0x21, 1000, 750, 131_072)

    changed = _with_flags(reply(0, body), PARALLEL_DIROPS | MAX_PAGES)

    assert struct.unpack_from("=IiQ", changed) == (16 + 64, 0, 2)
    assert len(changed) == 16 + 64
    assert struct.unpack_from("=I", changed, 28) == (0x21 | PARALLEL_DIROPS | MAX_PAGES,)
    assert changed[16:28] + changed[32:40] == body[:12] + body[16:]
    assert struct.unpack_from("=IH", changed, 40) == (0, REQUEST_BYTES // mmap.PAGESIZE)
    assert not any(changed[46:])


def test_a_reply_that_tells_of_an_error_stays_as_it_is() -> None:
    assert _with_flags(reply(-71, b""), PARALLEL_DIROPS) == reply(-71, b"")
