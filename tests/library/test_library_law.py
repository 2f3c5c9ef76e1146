"""The law of the library: what is offered matches its bytes, and in the end all is offered."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfs.errors import NotYetError
from p2pfs.library import Library
from p2pfs.roots import Roots
from tests.helpers.contents import Content
from tests.helpers.libraries import listed, read_block
from tests.helpers.threads import run_directly

# The kernel follows links before it calls the tree.
_OPEN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW

# Few of each, so that operations meet.
PATHS = st.sampled_from(("a", "b", "d/a", "d/e/cafe\u0301", ".hidden", "x.part", ".private/a"))
DATA = st.sampled_from((b"", b"1", b"2", b"longer"))
PLACES = st.sampled_from(("d", "d/e", "f", ".private"))


class Tree:
    """Does to a directory what the tree does, and tells the library as the tree does."""

    def __init__(self, root: str, library: Library) -> None:
        self.root = root
        self.library = library
        self.writers: list[tuple[str, int]] = []

    def at(self, path):
        return os.path.join(self.root, path)

    def open(self, path, data):
        """Open, truncate and begin to write; the writer stays until `close`."""
        self.library.write_began(path)
        try:
            descriptor = os.open(self.at(path), _OPEN_FLAGS)
        except OSError:
            self.library.write_ended(path)
            return
        self.library.touched(path)
        self.writers.append((path, descriptor))
        os.write(descriptor, data)

    def append(self, data):
        for _, descriptor in self.writers:
            os.write(descriptor, data)

    def close(self):
        """Let the writer that came first go."""
        if self.writers:
            path, descriptor = self.writers.pop(0)
            os.close(descriptor)
            self.library.write_ended(path)

    def write(self, path, data):
        self.open(path, data)
        while self.writers:
            self.close()

    def open_and_close(self, path):
        """Open to write, and write nothing."""
        self.library.write_began(path)
        try:
            os.close(os.open(self.at(path), os.O_RDWR))
        finally:
            self.library.write_ended(path)

    def rename(self, old, new):
        """Writers move: they begin at the new path before, and end at the old one after."""
        moving = [path for path, _ in self.writers if path == old or path.startswith(old + "/")]
        moved = {path: new + path[len(old) :] for path in moving}
        for path in moving:
            self.library.write_began(moved[path])
        try:
            os.rename(self.at(old), self.at(new))
        except OSError:
            for path in moving:
                self.library.write_ended(moved[path])
            return
        self.writers = [(moved.get(path, path), writer) for path, writer in self.writers]
        for path in moving:
            self.library.write_ended(path)
        self.library.names_changed(old, new)

    def link(self, old, new):
        os.link(self.at(old), self.at(new), follow_symlinks=False)
        self.library.names_changed(old, new)

    def symlink(self, target, path):
        os.symlink(self.at(target), self.at(path))
        self.library.touched(path)

    def unlink(self, path):
        os.unlink(self.at(path))
        self.library.touched(path)

    def mkdir(self, path):
        os.mkdir(self.at(path))
        self.library.touched(path)

    def rmdir(self, path):
        os.rmdir(self.at(path))
        self.library.touched(path)

    def chmod(self, path):
        if not os.path.islink(self.at(path)):
            os.chmod(self.at(path), 0o700)
        self.library.attributes_changed(path)

    def set_time(self, path, seconds):
        os.utime(self.at(path), (seconds, seconds), follow_symlinks=False)
        self.library.attributes_changed(path)

    def write_and_restore_the_time(self, path, data):
        status = os.stat(self.at(path))
        self.write(path, data)
        os.utime(self.at(path), ns=(status.st_atime_ns, status.st_mtime_ns))
        self.library.attributes_changed(path)

    def write_past_the_tree(self, path, data):
        with open(os.open(self.at(path), _OPEN_FLAGS), "wb") as file:
            file.write(data)
        self.library.touched(path)

    # What should be, and what is.

    def expected(self):
        files = {}
        for directory, _, names in os.walk(self.root):
            for name in names:
                whole = os.path.join(directory, name)
                path = os.path.relpath(whole, self.root)
                is_public = not any(n.startswith(".") for n in path.split("/"))
                if is_public and not path.endswith(".part") and not os.path.islink(whole):
                    files[path.replace("e\u0301", "\u00e9")] = self.id_at(path)
        return files

    def states(self):
        """Return the local paths of all files that others could be told of."""
        published, private = set(), set()
        for directory, _, names in os.walk(self.root):
            for name in names:
                path = os.path.relpath(os.path.join(directory, name), self.root)
                if not os.path.islink(self.at(path)):
                    is_published = self.library.file_state(path).state == "published"
                    (published if is_published else private).add(path)
        return {path.replace("e\u0301", "\u00e9") for path in published}, private

    def id_at(self, path):
        with open(self.at(path), "rb") as file:
            return Content(file.read()).file_id

    def offered(self, directory=""):
        files = {}
        for entry in listed(self.library, directory):
            if entry.is_directory:
                assert os.path.isdir(self.at(entry.path))
                files |= self.offered(entry.path)
            else:
                files[entry.path] = entry.file_id
        return files


def op(name, *arguments):
    return st.tuples(st.just(name), *arguments)


OPERATIONS = st.one_of(
    op("write", PATHS, DATA),
    op("open", PATHS, DATA),
    op("append", DATA),
    op("close"),
    op("rename", PATHS, PATHS),
    op("rename", PLACES, PLACES),
    op("link", PATHS, PATHS),
    op("symlink", PATHS | PLACES, PATHS),
    op("unlink", PATHS | PLACES),
    op("mkdir", PLACES),
    op("rmdir", PLACES),
    op("chmod", PATHS),
    op("set_time", PATHS, st.integers(1, 2)),
    op("write_and_restore_the_time", PATHS, DATA),
    op("write_past_the_tree", PATHS, DATA),
    op("hop", st.integers(1, 3)),
)


@settings(max_examples=80)
@given(st.lists(OPERATIONS, max_size=30))
async def test_what_is_offered_matches_its_bytes_at_all_times_and_is_everything_in_the_end(
    operations,
):
    base = tempfile.mkdtemp(prefix="p2pfs-library-")
    root = os.path.join(base, "shared")
    os.makedirs(os.path.join(root, "d/e"))
    library = Library(Roots(root), os.path.join(base, "index"), run_directly)
    tree = Tree(root, library)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(library.run)
            for name, *arguments in operations:
                if name == "hop":
                    for _ in range(arguments[0]):
                        await trio.testing.wait_all_tasks_blocked()
                    continue
                with suppress(OSError):
                    getattr(tree, name)(*arguments)
                await trio.lowlevel.checkpoint()
                assert tree.offered().items() <= tree.expected().items()
            while tree.writers:
                tree.close()
            await library.wait_idle()
            assert tree.offered() == tree.expected()
            assert library.statistics().files == len(tree.expected())
            published, private = tree.states()
            assert published == set(tree.expected())
            assert all(library.file_state(path).state == "private" for path in private)
            nursery.cancel_scope.cancel()

        await restart_offers_the_same(tree, base)
    finally:
        shutil.rmtree(base)


HARMLESS = st.one_of(
    op("rename", st.sampled_from(("d/a", "d/b", "f/a")), st.sampled_from(("d/a", "d/b", "f/a"))),
    op("rename", st.sampled_from(("d", "f")), st.sampled_from(("d", "f"))),
    op("link", st.sampled_from(("d/a", "d/b", "f/a")), st.sampled_from(("d/l", "f/l", ".l"))),
    op("chmod", st.sampled_from(("d/a", "d/b", "d", "f/a", "d/l"))),
    op("set_time", st.sampled_from(("d/a", "d/b", "f/a", "f/l")), st.integers(1, 3)),
    op("open_and_close", st.sampled_from(("d/a", "d/b", "f/a", "d/l", "f/l", ".l"))),
    op("hop", st.integers(1, 3)),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(HARMLESS, max_size=20))
async def test_a_read_outlasts_all_that_leaves_the_bytes_as_they_are(operations):
    base = tempfile.mkdtemp(prefix="p2pfs-library-")
    root = os.path.join(base, "shared")
    os.makedirs(os.path.join(root, "d"))
    content = Content(b"what somebody reads")
    with open(os.path.join(root, "d", "a"), "wb") as file:
        file.write(content.data)
    library = Library(Roots(root), os.path.join(base, "index"), run_directly)
    tree = Tree(root, library)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(library.run)
            await library.wait_idle()
            for name, *arguments in operations:
                if name == "hop":
                    for _ in range(arguments[0]):
                        await trio.testing.wait_all_tasks_blocked()
                else:
                    with suppress(OSError):
                        getattr(tree, name)(*arguments)
                with suppress(NotYetError):
                    assert await read_block(library, content.file_id, 0) == content.data
            await library.wait_idle()
            assert await read_block(library, content.file_id, 0) == content.data
            nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(base)


async def restart_offers_the_same(tree, base):
    tree.library = Library(Roots(tree.root), os.path.join(base, "index"), run_directly)
    async with trio.open_nursery() as nursery:
        await nursery.start(tree.library.run)
        await tree.library.wait_idle()
        assert tree.offered() == tree.expected()
        nursery.cancel_scope.cancel()
