"""What others than the tree change in the backing directory is noticed, as it is on a real disk."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from inotify_simple import Event, INotify, flags

from p2pfs.errors import NotFoundError, StaleError
from p2pfs.library import Library, Watch, watch
from p2pfs.roots import Roots
from tests.helpers.contents import Content
from tests.helpers.libraries import listed, read_block

PATIENCE_S = 60.0

RENAME_EXCHANGE = 2
"""Of renameat2(2), which Python does not offer."""


class Share:
    """A library over a directory that only others write to."""

    def __init__(self, base: Path, on_lost: Callable[[], object] = lambda: None) -> None:
        self.root = base / "shared"
        self.root.mkdir()
        self.watch = Watch()
        self.library = Library(
            Roots(self.root), str(base / "index"), trio.to_thread.run_sync, self.watch, on_lost
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Share]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.library.run)
            await self.library.wait_idle()
            yield self
            nursery.cancel_scope.cancel()

    def offered(self, path: str) -> bytes | None:
        entry = self.library.find_path(path)
        return None if entry is None or entry.is_directory else bytes(entry.file_id)

    async def offers(self, path: str, data: bytes) -> None:
        """Return when this content is offered at a path."""
        await until(lambda: self.offered(path) == Content(data).file_id)

    async def offers_nothing(self, path: str) -> None:
        await until(lambda: self.library.find_path(path) is None)


async def until(claim: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not claim():
            await trio.sleep(0.005)


@pytest.fixture
async def share(tmp_path: Path) -> AsyncIterator[Share]:
    async with Share(tmp_path).running() as share:
        yield share


async def test_a_new_file_is_offered_a_changed_one_anew_and_a_removed_one_no_more(share):
    (share.root / "f").write_bytes(b"old")
    await share.offers("f", b"old")

    (share.root / "f").write_bytes(b"new")
    await share.offers("f", b"new")

    (share.root / "f").unlink()
    await share.offers_nothing("f")


async def test_a_file_is_offered_when_its_writer_has_closed_it(share):
    """However long he takes, and though nobody but the kernel knows of him."""
    with (share.root / "f").open("wb", buffering=0) as file:
        file.write(b"first half, ")
        await until(lambda: share.library.file_state("f").state == "hashing")
        for _ in range(3):
            await trio.sleep(watch_gather())
            assert share.offered("f") is None
        file.write(b"second half")

    await share.offers("f", b"first half, second half")


def watch_gather() -> float:
    """Return some time in which what is wrong would have happened."""
    return 0.1


async def test_what_is_offered_is_taken_back_with_the_first_write(share):
    (share.root / "f").write_bytes(b"old")
    await share.offers("f", b"old")

    with (share.root / "f").open("r+b", buffering=0) as file:
        file.write(b"new")
        await share.offers_nothing("f")

    await share.offers("f", b"new")


async def test_a_file_that_was_being_written_at_the_start_waits_for_its_writer(tmp_path):
    share = Share(tmp_path)
    with (share.root / "f").open("wb", buffering=0) as file:
        file.write(b"half")
        async with trio.open_nursery() as nursery:
            await nursery.start(share.library.run)
            await until(lambda: share.library.statistics().hashing)
            await trio.sleep(watch_gather())
            assert share.offered("f") is None
            file.write(b" and half")
            file.close()
            await share.offers("f", b"half and half")
            nursery.cancel_scope.cancel()


async def test_a_rename_over_a_file_is_one_version_or_the_other(share):
    (share.root / "f").write_bytes(b"old")
    await share.offers("f", b"old")

    (share.root / "f.part").write_bytes(b"new")
    (share.root / "f.part").rename(share.root / "f")

    await share.offers("f", b"new")
    assert share.library.find_path("f.part") is None


async def test_a_tree_that_is_copied_in_moved_and_removed_is_followed(share, tmp_path):
    deep = tmp_path / "source" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"deep")
    shutil.copytree(tmp_path / "source", share.root / "copy")
    await share.offers("copy/a/b/f", b"deep")

    (share.root / "copy" / "a").rename(share.root / "moved")
    await share.offers("moved/b/f", b"deep")
    await share.offers_nothing("copy/a")

    (share.root / "moved" / "b" / "later").write_bytes(b"later")
    await share.offers("moved/b/later", b"later")

    shutil.rmtree(share.root / "moved")
    await share.offers_nothing("moved")


async def test_a_tree_that_is_moved_in_and_out_is_followed(share, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_bytes(b"in")

    source.rename(share.root / "d")
    await share.offers("d/f", b"in")
    (share.root / "d").rename(source)
    await share.offers_nothing("d")

    (source / "g").write_bytes(b"out there")
    (share.root / "sign").write_bytes(b"")
    await share.offers("sign", b"")
    assert share.library.find_path("d") is None


async def test_a_hard_link_from_outside_is_offered_and_a_symbolic_one_not(share, tmp_path):
    (tmp_path / "outside").write_bytes(b"mine")
    (share.root / "hard").hardlink_to(tmp_path / "outside")
    (share.root / "symbolic").symlink_to(tmp_path / "outside")

    await share.offers("hard", b"mine")
    await until(lambda: share.library.file_state("symbolic").state == "private")
    assert share.library.find_path("symbolic") is None


async def test_what_is_written_under_one_name_is_offered_under_the_other(share):
    (share.root / "one").write_bytes(b"old")
    (share.root / "two").hardlink_to(share.root / "one")
    await share.offers("two", b"old")
    await share.offers("one", b"old")

    (share.root / "two").write_bytes(b"new")

    await share.offers("two", b"new")
    await share.offers("one", b"new")


async def test_a_directory_that_becomes_a_link_offers_nothing(share, tmp_path):
    (share.root / "d").mkdir()
    (share.root / "d" / "f").write_bytes(b"inside")
    await share.offers("d/f", b"inside")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "f").write_bytes(b"secret")

    (share.root / "d").rename(tmp_path / "d")
    (share.root / "d").symlink_to(tmp_path / "elsewhere")

    await share.offers_nothing("d")
    await until(lambda: share.library.file_state("d").state == "private")
    assert share.library.find_path("d/f") is None


async def test_a_directory_that_flickers_between_itself_and_a_link_never_leads_out(share, tmp_path):
    """The names are exchanged in one step, again and again, while files are hashed and served."""
    secret = Content(b"secret")
    elsewhere = tmp_path / "elsewhere"
    for place, data in ((share.root / "d", b"inside"), (elsewhere, secret.data)):
        (place / "deep").mkdir(parents=True)
        for number in range(10):
            (place / "deep" / f"f{number}").write_bytes(data)
    (share.root / "link").symlink_to(elsewhere)
    libc = ctypes.CDLL(None)
    d, link = bytes(share.root / "d"), bytes(share.root / "link")

    for _ in range(200):
        assert libc.renameat2(-1, d, -1, link, RENAME_EXCHANGE) == 0
        share.library.touched("d")
        await trio.sleep(0.002)
        assert share.library.find_id(secret.file_id) is None
        with suppress(NotFoundError, StaleError):
            await read_block(share.library, Content(b"inside").file_id, 0)

    (elsewhere / "deep" / "f0").write_bytes(b"secret of another size")
    await share.offers("d/deep/f9", b"inside")
    await share.offers_nothing("link")
    assert share.library.find_id(secret.file_id) is None


def do_something(root: Path, chance: random.Random) -> None:
    """Do one of the things that people do, if it can be done."""

    def path() -> Path:
        return root.joinpath(*(chance.choice("abc") for _ in range(chance.randrange(1, 4))))

    with suppress(OSError):
        match chance.randrange(8):
            case 0 | 1:
                path().write_bytes(chance.randbytes(chance.randrange(3)))
            case 2:
                path().mkdir()
            case 3:
                path().rename(path())
            case 4:
                path().unlink()
            case 5:
                shutil.rmtree(path())
            case 6:
                path().hardlink_to(path())
            case 7:
                path().symlink_to(path())


def held(root: Path) -> dict[str, bytes]:
    """Return what there is to be offered, by path."""
    return {
        str(Path(directory, name).relative_to(root)): Content(
            Path(directory, name).read_bytes()
        ).file_id
        for directory, _, names in os.walk(root)
        for name in names
        if not Path(directory, name).is_symlink()
    }


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_others_do_in_the_end_all_there_is_is_offered(share, seed):
    chance = random.Random(seed)

    def offered(directory: str = "") -> dict[str, bytes]:
        files = {}
        for entry in listed(share.library, directory) or ():
            if entry.is_directory:
                files |= offered(entry.path)
            else:
                files[entry.path] = entry.file_id
        return files

    for _ in range(300):
        do_something(share.root, chance)
        if not chance.randrange(10):
            await trio.sleep(0.003 * chance.randrange(10))

    await until(lambda: offered() == held(share.root))


async def test_when_the_queue_has_run_over_everything_is_looked_at(share, monkeypatch):
    def run_over(_self, timeout=None):
        monkeypatch.setattr(INotify, "read", read)
        list(read(share.watch._inotify, timeout=0))  # what there was is lost
        return [Event(-1, flags.Q_OVERFLOW, 0, "")]

    read = INotify.read
    monkeypatch.setattr(INotify, "read", run_over)

    (share.root / "d").mkdir()
    (share.root / "d" / "f").write_bytes(b"lost and found")

    await share.offers("d/f", b"lost and found")


@pytest.mark.parametrize("failing", ["add_watch", "__init__"])
async def test_what_cannot_be_watched_is_looked_at_now_and_then(
    tmp_path, monkeypatch, expect_log, failing
):
    def fail(*_arguments, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    expect_log("not every change from outside will be noticed at once")
    monkeypatch.setattr(watch, "RESCAN_S", 0.05)
    monkeypatch.setattr(INotify, failing, fail)
    async with Share(tmp_path).running() as share:
        (share.root / "f").write_bytes(b"found")

        await share.offers("f", b"found")


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_share_that_is_removed_is_withdrawn_and_may_come_back(tmp_path, is_open):
    lost = []
    share = Share(tmp_path, on_lost=lambda: lost.append(True))
    async with share.running():
        (share.root / "f").write_bytes(b"x")
        await share.offers("f", b"x")
        held = os.open(share.root if is_open else tmp_path, os.O_RDONLY)

        shutil.rmtree(share.root)
        await share.offers_nothing("f")
        await until(lambda: lost == [True])
        share.root.mkdir()
        (share.root / "g").write_bytes(b"again")

        await share.offers("g", b"again")
        (share.root / "h").write_bytes(b"and again")
        await share.offers("h", b"and again")
        share.root.rename(tmp_path / "elsewhere")
        await share.offers_nothing("g")
        await until(lambda: lost == [True, True])
        os.close(held)


async def test_what_the_tree_tells_is_hashed_once(share, monkeypatch):
    """Though the kernel tells of it as well."""
    hashed = []
    offer = share.library._worker._looks.offer
    monkeypatch.setattr(
        share.library._worker._looks,
        "offer",
        lambda look, *known, **how: hashed.append(look.path) or offer(look, *known, **how),
    )

    for number in range(20):
        path = f"f{number}"
        share.library.write_began(path)
        with (share.root / path).open("wb") as file:
            share.library.touched(path)
            file.write(b"some" * number)
        share.library.write_ended(path)
        await share.offers(path, b"some" * number)

    assert sorted(hashed) == sorted(f"f{number}" for number in range(20))


def test_a_watch_that_was_closed_has_nothing_to_tell(tmp_path):
    closed = Watch()
    closed.open(str(tmp_path / "shared"))
    closed.close()
    closed.close()

    assert not closed.has_changes()
    assert closed.take() == {}
