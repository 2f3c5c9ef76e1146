"""How kernel threads wait for trio: without a kernel, with a thread in its place."""

from __future__ import annotations

import errno
import resource
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
import trio

from p2pfs.errors import UsageError
from p2pfs.filesystem import Later
from p2pfs.mount import check_fuse
from p2pfs.mount.adapter import Adapter
from p2pfs.mount.binding import complete
from p2pfs.mount.mountpoint import fusermount
from p2pfs.mount.portal import Portal
from tests.helpers.mountedtree import EXCEPTIONS, Faults, expected_errno, make_exception
from tests.suites.filesystem_suite import errno_of


async def in_thread(call: Callable[[], object]) -> object:
    return await trio.to_thread.run_sync(call)


def never() -> bool:
    return False


async def forever() -> None:
    await trio.sleep_forever()


async def test_an_answer_at_hand_is_returned_without_trio() -> None:
    async with trio.open_nursery() as nursery:
        portal = Portal(nursery, never)

        assert portal.settle(b"at hand") == b"at hand"


async def test_an_answer_that_comes_later_is_waited_for() -> None:
    async def fetch() -> bytes:
        await trio.lowlevel.checkpoint()
        return b"fetched"

    async with trio.open_nursery() as nursery:
        portal = Portal(nursery, never)

        assert await in_thread(lambda: portal.settle(Later(fetch))) == b"fetched"


async def test_an_answer_is_finished_by_the_thread_that_waits_for_it() -> None:
    async def fetch() -> int:
        await trio.lowlevel.checkpoint()
        return threading.get_ident()

    async with trio.open_nursery() as nursery:
        portal = Portal(nursery, never)
        later = Later(fetch, lambda fetched_by: (fetched_by, threading.get_ident()))

        fetched_by, finished_by = await in_thread(lambda: portal.settle(later))
        assert fetched_by == threading.get_ident() != finished_by


async def test_an_answer_that_is_held_back_can_be_interrupted() -> None:
    async def fetch() -> bytes:
        await trio.lowlevel.checkpoint()
        return b"fetched"

    interrupts = iter((False, False, True))
    async with trio.open_nursery() as nursery:
        portal = Portal(nursery, lambda: next(interrupts, True))
        later = Later(fetch, held_s=lambda _answer: 1_000.0)

        assert await in_thread(lambda: errno_of(portal.settle, later)) == errno.EINTR


async def test_an_interrupted_reader_gets_eintr_and_its_request_is_cancelled() -> None:
    cancelled = trio.Event()

    async def fetch() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with trio.open_nursery() as nursery:
        portal = Portal(nursery, lambda: True)

        assert await in_thread(lambda: errno_of(portal.settle, Later(fetch))) == errno.EINTR
        await cancelled.wait()


async def test_a_request_that_will_not_end_holds_no_interrupted_reader() -> None:
    release = trio.Event()

    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await release.wait()

    async with trio.open_nursery() as nursery:
        portal = Portal(nursery, lambda: True)

        assert await in_thread(lambda: errno_of(portal.settle, Later(stubborn))) == errno.EINTR
        release.set()


async def test_closing_lets_every_reader_go_and_refuses_new_ones() -> None:
    codes: list[int | None] = []

    async with trio.open_nursery() as readers, trio.open_nursery() as requests:
        portal = Portal(requests, never)
        waiting = trio.Event()

        async def fetch() -> None:
            waiting.set()
            await trio.sleep_forever()

        async def read(fetch: Callable[[], Awaitable[None]]) -> None:
            code = await in_thread(lambda: errno_of(portal.settle, Later(fetch)))
            codes.append(code)

        readers.start_soon(read, fetch)
        await waiting.wait()
        portal.close()
        readers.start_soon(read, forever)

    assert codes == [errno.ESHUTDOWN, errno.ESHUTDOWN]


def test_a_reader_outlives_trio() -> None:
    """Nothing tells it: it looks by itself."""
    codes: list[int | None] = []
    waiting = threading.Event()
    thread: threading.Thread | None = None

    async def stop_without_a_word() -> None:
        nonlocal thread
        async with trio.open_nursery() as nursery:
            portal = Portal(nursery, never)
            # A request that trio has accepted and forgets.
            portal._start = lambda request: waiting.set()
            thread = threading.Thread(
                target=lambda: codes.append(errno_of(portal.settle, Later(forever)))
            )
            thread.start()
            await trio.to_thread.run_sync(waiting.wait)

    trio.run(stop_without_a_word)
    assert thread is not None
    thread.join(10)

    assert codes == [errno.ESHUTDOWN]


# The guard around every call.


class NoPortal:
    """For calls that are answered at once."""

    def wait_for_read(self, later: object) -> object:
        raise AssertionError(f"nothing here comes later: {later}")

    def settle(self, answer: object) -> object:
        return answer


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_nothing_but_an_errno_gets_past_the_guard(kind: str, expect_log) -> None:
    expect_log("a bug in a call from the kernel")

    def fail() -> None:
        raise make_exception(kind)

    adapter = Adapter(Faults().wrap(object()), NoPortal(), fail)

    assert errno_of(adapter, "init", "/") == expected_errno(kind)


def test_a_handle_that_was_never_given_is_refused() -> None:
    class Info:
        fh = 7

    adapter = Adapter(Faults().wrap(object()), NoPortal(), lambda: None)

    for arguments in (("read", "/f", 1, 0, Info), ("write", "/f", b"", 0, Info)):
        assert errno_of(adapter, *arguments) == errno.EBADF


def test_more_bytes_than_were_asked_for_reach_no_reader(expect_log) -> None:
    """fusepy would copy them over the end of libfuse's buffer."""
    expect_log("operation=read")

    class Generous:
        keep_cache = direct_io = flushes = False

        def read(self, size: int, offset: int) -> bytes:
            return bytes(size + 1)

    class Info:
        fh = flags = 0

    class Tree:
        def open(self, path: str, flags: int) -> Generous:
            return Generous()

    class Portal(NoPortal):
        def settle(self, answer: object) -> object:
            return answer

    adapter = Adapter(Tree(), Portal(), lambda: None)
    info = Info()
    adapter("open", "/f", info)

    assert errno_of(adapter, "read", "/f", 10, 0, info) == errno.EIO


@pytest.mark.fuse
def test_fusepy_is_given_every_operation_under_its_own_name() -> None:
    import fuse  # noqa: PLC0415 - it looks for libfuse when imported

    complete(fuse)
    known = {field[0] for field in fuse.fuse_operations._fields_} | {"use_ns", "read"}

    assert {name for name in vars(Adapter) if not name.startswith("_")} <= known


# What a machine may lack.


def test_a_missing_fusermount_is_said_with_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: True)
    monkeypatch.setattr("os.access", lambda path, mode: True)
    monkeypatch.setattr("shutil.which", lambda name: None)

    with pytest.raises(UsageError, match="fusermount is missing: install"):
        check_fuse()


def test_libfuse_2_runs_fusermount_under_no_other_name(tmp_path, monkeypatch) -> None:
    (tmp_path / "fusermount3").write_text("#!/bin/sh\n")
    (tmp_path / "fusermount3").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="fusermount is missing: install"):
        fusermount()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert fusermount() == str(tmp_path / "fusermount3")  # it only unmounts what root mounted


def test_a_missing_device_is_said_with_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr("p2pfs.mount.mountpoint._DEVICE", "/dev/no-such-device")

    with pytest.raises(UsageError, match="modprobe fuse"):
        check_fuse()


def test_a_forbidden_device_is_said(monkeypatch) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: True)
    monkeypatch.setattr("os.access", lambda path, mode: False)

    with pytest.raises(UsageError, match="no permission"):
        check_fuse()


def test_a_missing_libfuse_is_said_with_what_to_install(monkeypatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "fuse", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    monkeypatch.setattr("os.path.exists", lambda path: True)
    monkeypatch.setattr("os.access", lambda path, mode: True)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/" + name)

    with pytest.raises(UsageError, match="install libfuse2"):
        check_fuse()


@pytest.mark.parametrize(
    ("allowed", "for_programs"), [(40, 20), (64, 32), (100, 52), (400, 300), (8192, 7168)]
)
def test_the_last_descriptors_are_not_for_programs(
    monkeypatch: pytest.MonkeyPatch, allowed: int, for_programs: int
) -> None:
    opened = []

    class Tree:
        def open(self, path: str, _flags: int) -> SimpleNamespace:
            opened.append(path)
            return SimpleNamespace(keep_cache=0, direct_io=0, flushes=True, release=lambda: None)

        def create(self, path: str, flags: int, _mode: int, _owner: object) -> SimpleNamespace:
            return self.open(path, flags)

    class Portal(NoPortal):
        def settle(self, answer: object) -> object:
            return answer

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (allowed, allowed))
    adapter = Adapter(Tree(), Portal(), lambda: None)
    *infos, last = [SimpleNamespace(flags=0, fh=0) for _ in range(for_programs + 1)]
    for info in infos:
        adapter("open", "/shared/x", info)

    assert errno_of(adapter, "open", "/shared/x", last) == errno.EMFILE
    assert errno_of(adapter, "create", "/shared/x", 0o600, last) == errno.EMFILE
    adapter("release", "/shared/x", infos[0])
    adapter("create", "/shared/y", 0o600, last)
    assert len(opened) == for_programs + 1
