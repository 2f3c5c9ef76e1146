"""A library over a directory, and the few things that tests do to them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from contextlib import asynccontextmanager

import trio

from p2pfs.library import Library
from p2pfs.protocol import FileId
from p2pfs.roots import Roots
from tests.helpers.contents import Content
from tests.helpers.threads import run_directly


class World:
    """A shared directory with its library, and the few things that tests do to them."""

    def __init__(self, base, run_in_thread=run_directly, **how):
        self.root = os.fspath(base / "shared")
        self.index = os.fspath(base / "index")
        self.outside = os.fspath(base / "outside")
        os.makedirs(self.root, exist_ok=True)
        os.makedirs(self.outside, exist_ok=True)
        self.roots = Roots(self.root)
        self._run_in_thread = run_in_thread
        self.told = []
        self._how = how
        World.current = self
        self.library = self._open()

    def _open(self):
        tell = lambda path, text: self.told.append((path, text))  # noqa: E731
        return Library(self.roots, self.index, self._run_in_thread, tell=tell, **self._how)

    def at(self, path):
        return os.path.join(self.root, path)

    def write(self, path, data=b"data"):
        """As the tree does it."""
        self.library.write_began(path)
        with open(self.at(path), "wb") as file:
            self.library.touched(path)
            file.write(data)
        self.library.write_ended(path)

    def put(self, path, data=b"data"):
        """Behind the library's back."""
        os.makedirs(os.path.dirname(self.at(path)), exist_ok=True)
        with open(self.at(path), "wb") as file:
            file.write(data)

    def remove(self, path):
        lost = os.lstat(self.at(path))
        os.unlink(self.at(path))
        self.library.touched(path, lost)

    def rename(self, old, new):
        lost = os.lstat(self.at(new)) if os.path.lexists(self.at(new)) else None
        os.rename(self.at(old), self.at(new))
        self.library.names_changed(old, new, lost)

    def link(self, old, new):
        os.link(self.at(old), self.at(new))
        self.library.names_changed(old, new)

    def mkdir(self, path):
        os.mkdir(self.at(path))
        self.library.touched(path)

    def offered(self, directory=""):
        """Return every file that is offered, by path."""
        files = {}
        for entry in listed(self.library, directory):
            if entry.is_directory:
                files |= self.offered(entry.path)
            else:
                files[entry.path] = entry.file_id
        return files

    async def settled(self):
        """Return every file that is offered once the library has nothing left to do."""
        await self.library.wait_idle()
        return self.offered()

    @asynccontextmanager
    async def running(self):
        async with trio.open_nursery() as nursery:
            await nursery.start(self.library.run)
            await self.library.wait_idle()
            yield self
            nursery.cancel_scope.cancel()

    async def settle(self, seconds):
        """Let time pass, and return when all is done that it has made due."""
        await trio.sleep(seconds + 0.1)
        await self.library.wait_idle()

    def restarted(self):
        self.roots.look()
        self.library = self._open()
        return self.running()


def listed(library, path):
    """Return all that is in a directory, None if there is none."""
    page = library.list_page(path, "", 10**6)
    return None if page is None else page.entries


def id_of(data: bytes) -> FileId:
    return Content(data).file_id


def watched_world(base) -> tuple[World, list[dict[str, FileId]]]:
    """Return a library, and what it offered after each call that ran in a thread."""
    seen = []

    async def watched(sync_fn, /, *args):
        result = await run_directly(sync_fn, *args)
        seen.append(world.offered())
        return result

    world = World(base, watched)
    return world, seen


def after_the_first(monkeypatch, owner, name, act):
    """Have something happen right after the first call of a function."""
    real, moments = getattr(owner, name), iter((True,))

    def call(*args):
        real(*args)
        if next(moments, False):
            act()

    monkeypatch.setattr(owner, name, call)


class Interrupting:
    """Runs things directly, and something else before the n-th call."""

    def __init__(self):
        self.actions = {}
        self.calls = 0

    async def __call__(self, sync_fn, /, *args):
        self.calls += 1
        if self.calls in self.actions:
            self.actions.pop(self.calls)()
        return await run_directly(sync_fn, *args)


def forbid_hashing(monkeypatch):
    def preadv(*_):
        raise AssertionError("a file was read")

    monkeypatch.setattr(os, "preadv", preadv)


def settled():
    """Return when the kernel's clock has moved on."""
    time.sleep(0.02)


def filed(world: World) -> set[str]:
    """Return the paths that the index on the disk has."""
    with contextlib.closing(sqlite3.connect(world.index)) as index:
        return {path for (path,) in index.execute("SELECT path FROM files")}


async def read_block(library, file_id, index):
    """Return one block of a content that the library holds."""
    (block,) = await library.read_blocks(file_id, (index,))
    return block
