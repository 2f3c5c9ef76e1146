"""What is done in the last moment before the kernel hears of a request, on a channel in memory."""

from __future__ import annotations

import ctypes
import errno
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest

from p2pfs.mount.replies import DESTROY, NO_FLUSH, RECEIVE, SEND, Aside, ChannelOps, Iovec, Replies

ASIDE = Aside("/shared/f", "/shared/.fuse_hidden0000000100000001")


class Libfuse:
    """A channel as libfuse 2.9 has it, and what it has sent to the kernel."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.channel = ChannelOps(RECEIVE(lambda *_: 0), SEND(self._send), DESTROY(lambda _: None))
        self.plain = self.address()

    def address(self) -> int:
        """Return where the function is that answers now."""
        return int.from_bytes(bytes(self.channel)[8:16], "little")

    def reply(self, error: int = 0, body: bytes = b"", number: int = 7) -> int:
        """Answer the request that this thread is at."""
        header = ctypes.create_string_buffer(struct.pack("=IiQ", 16 + len(body), error, number), 16)
        rest = ctypes.create_string_buffer(body, len(body) or 1)
        parts = (Iovec * 2)(
            Iovec(ctypes.addressof(header), 16), Iovec(ctypes.addressof(rest), len(body))
        )  # fmt: skip
        send = SEND(self.address())
        return int(send(ctypes.addressof(self.channel), parts, 2 if body else 1))

    def _send(self, _channel: int, parts: Any, count: int) -> int:
        pieces = [ctypes.string_at(parts[i].base, parts[i].length) for i in range(count)]
        self.sent.append(b"".join(pieces))
        return 0


@pytest.fixture
def libfuse() -> Libfuse:
    return Libfuse()


@pytest.fixture
def replies(libfuse: Libfuse) -> Replies:
    replies = Replies()
    own = ChannelOps.from_buffer_copy(libfuse.channel)
    replies.watch(ctypes.addressof(libfuse.channel), ctypes.addressof(own), libfuse.channel)
    return replies


def answer(error: int = 0, number: int = 7) -> bytes:
    return struct.pack("=IiQ", 16, error, number)


def test_it_is_done_before_the_answer_and_once(replies: Replies, libfuse: Libfuse) -> None:
    done: list[int] = []
    assert replies.put_off(ASIDE, lambda: done.append(len(libfuse.sent)))

    libfuse.reply()
    libfuse.reply(number=8)

    assert done == [0]
    assert libfuse.sent == [answer(), answer(number=8)]
    assert libfuse.address() == libfuse.plain


def test_what_libfuse_then_asks_for_itself_is_not_done_again(
    replies: Replies, libfuse: Libfuse
) -> None:
    done: list[str] = []
    replies.put_off(ASIDE, lambda: done.append("removed"))

    assert replies.taken("/shared/g") is None
    assert replies.taken(ASIDE.path) == ASIDE
    assert replies.taken(ASIDE.path) is None
    assert libfuse.address() == libfuse.plain
    libfuse.reply()

    assert done == []


def test_a_failure_is_the_answer(replies: Replies, libfuse: Libfuse) -> None:
    def fail() -> None:
        raise PermissionError(errno.EPERM, "no")

    replies.put_off(ASIDE, fail)

    assert libfuse.reply() == 0

    assert libfuse.sent == [answer(-errno.EPERM)]


def test_a_bug_is_told_as_eio(
    replies: Replies, libfuse: Libfuse, expect_log: Callable[[str], None]
) -> None:
    expect_log("a bug in what was put off")
    replies.put_off(ASIDE, lambda: 1 // 0)

    libfuse.reply()

    assert libfuse.sent == [answer(-errno.EIO)]


def test_nothing_is_done_where_libfuse_has_failed_by_itself(
    replies: Replies, libfuse: Libfuse
) -> None:
    done: list[str] = []
    replies.put_off(ASIDE, lambda: done.append("removed"))

    libfuse.reply(-errno.EBUSY)

    assert done == []
    assert libfuse.sent == [answer(-errno.EBUSY)]
    assert libfuse.address() == libfuse.plain


def test_the_answers_of_other_threads_pass_untouched(replies: Replies, libfuse: Libfuse) -> None:
    done: list[str] = []
    replies.put_off(ASIDE, lambda: done.append("removed"))
    other = threading.Thread(target=libfuse.reply, args=(0, b"attributes", 9))
    other.start()
    other.join()

    assert done == []
    assert libfuse.sent == [struct.pack("=IiQ", 26, 0, 9) + b"attributes"]
    assert libfuse.address() != libfuse.plain
    libfuse.reply()
    assert done == ["removed"]
    assert libfuse.address() == libfuse.plain


def opened(flags: int) -> bytes:
    """Return what libfuse answers to an open, behind its header."""
    return struct.pack("=QII", 5, flags, 0)


def test_the_answer_to_an_open_has_the_flag_once(replies: Replies, libfuse: Libfuse) -> None:
    replies.open_unflushed()

    libfuse.reply(body=opened(2))
    libfuse.reply(body=opened(2))

    assert [sent[16:] for sent in libfuse.sent] == [opened(2 | NO_FLUSH), opened(2)]
    assert libfuse.address() == libfuse.plain


def test_an_open_that_fails_is_told_as_it_is(replies: Replies, libfuse: Libfuse) -> None:
    replies.open_unflushed()

    libfuse.reply(-errno.EINTR)

    assert libfuse.sent == [answer(-errno.EINTR)]
    assert libfuse.address() == libfuse.plain


def test_the_opens_of_other_threads_have_no_flag(replies: Replies, libfuse: Libfuse) -> None:
    done: list[str] = []
    replies.open_unflushed()

    def rename_and_open() -> None:
        replies.put_off(ASIDE, lambda: done.append("removed"))
        libfuse.reply(number=8)
        libfuse.reply(body=opened(0), number=9)

    other = threading.Thread(target=rename_and_open)
    other.start()
    other.join()

    assert done == ["removed"]
    assert libfuse.sent[1][16:] == opened(0)
    assert libfuse.address() != libfuse.plain
    libfuse.reply(body=opened(0))
    assert libfuse.sent[2][16:] == opened(NO_FLUSH)
    assert libfuse.address() == libfuse.plain


def test_another_libfuse_is_left_alone(libfuse: Libfuse) -> None:
    replies = Replies()
    unlike = ChannelOps()
    replies.watch(ctypes.addressof(libfuse.channel), ctypes.addressof(unlike), libfuse.channel)

    assert not replies.put_off(ASIDE, lambda: None)
    replies.open_unflushed()
    assert libfuse.address() == libfuse.plain


def test_nothing_is_put_off_before_and_after_the_mount(replies: Replies) -> None:
    assert not Replies().put_off(ASIDE, lambda: None)
    replies.end()
    assert not replies.put_off(ASIDE, lambda: None)
