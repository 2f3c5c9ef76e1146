"""The reply to the kernel's first request, with what libfuse 2 leaves out of it."""

from __future__ import annotations

import struct

from p2pfs.mount.parallel import PARALLEL_DIROPS, _offered_flags, _with_flags

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


def test_a_reply_that_tells_of_an_error_stays_as_it_is() -> None:
    assert _with_flags(reply(-71, b""), PARALLEL_DIROPS) == reply(-71, b"")
