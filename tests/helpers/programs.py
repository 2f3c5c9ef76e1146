"""What programs ask of a mounted tree, as the kernel passes it on, without a kernel.

Each name is looked up label by label and nothing is cached, so programs ask more here than
they do on a mount.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from p2pfs.filesystem import Attributes, FileSystem, Later, Listed, OpenFile
from p2pfs.filesystem.answers import NowOrLater
from p2pfs.roots import Roots
from p2pfs.servent import Servent
from tests.helpers.faketree import FakeCaller
from tests.helpers.files import bytes_of

KERNEL_READ_BYTES = 128 * 1024

PROBED = (
    ".hidden", ".directory", ".Trash", ".Trash-1000", ".sh_thumbnails", "autorun.inf", ".git",
    "folder.jpg", "cover.jpg", ".xdg-volume-info", "HEAD", "desktop.ini", "Thumbs.db", "._x",
)  # fmt: skip
"""What file managers and shells look for in every folder."""

XATTRS = ("user.p2pfs.id", "user.xdg.origin.url", "system.posix_acl_access", "security.selinux")


class Programs:
    """A user's programs on the tree of one servent."""

    def __init__(self, tree: FileSystem) -> None:
        self.tree = tree
        self.waited = 0
        """Answers that memory did not hold."""

    async def settle(self, answer: NowOrLater):
        if isinstance(answer, Later):
            self.waited += 1
            return answer.finish(await answer.fetch())
        return answer

    async def stat(self, path: str) -> Attributes:
        labels = path.strip("/").split("/")
        for depth in range(1, len(labels)):
            await self.settle(self.tree.getattr("/" + "/".join(labels[:depth])))
        return await self.settle(self.tree.getattr(path))

    async def exists(self, path: str) -> bool:
        try:
            await self.stat(path)
        except FileNotFoundError:
            return False
        return True

    async def ls(self, path: str) -> list[str]:
        return [listed.name for listed in await self.readdir(path)]

    async def readdir(self, path: str) -> list[Listed]:
        await self.stat(path)
        return await self.settle(self.tree.readdir(path))

    async def walk(self, path: str) -> AsyncIterator[tuple[str, Attributes]]:
        """Look at everything below a directory, as `find` and `du` do."""
        for name in await self.ls(path):
            below = f"{path}/{name}"
            attributes = await self.stat(below)
            yield below, attributes
            if stat.S_ISDIR(attributes.mode):
                async for each in self.walk(below):
                    yield each

    async def find_files(self, path: str) -> list[str]:
        """Do `find PATH -type f`."""
        return [below async for below, a in self.walk(path) if stat.S_ISREG(a.mode)]

    async def du(self, path: str) -> int:
        """Do `du -s PATH`, in bytes."""
        return sum([a.sectors * 512 async for _, a in self.walk(path)])

    async def complete(self, path: str) -> list[str]:
        """Press the tabulator behind a path: it is looked up, and its directory listed."""
        await self.exists(path)
        parent, _, prefix = path.rpartition("/")
        names = [name for name in await self.ls(parent) if name.startswith(prefix)]
        for name in names:
            await self.stat(f"{parent}/{name}")
        return names

    async def browse(self, path: str) -> None:
        """Open a folder in a file manager, which also counts what is in its folders."""
        for name in PROBED:
            await self.exists(f"{path}/{name}")
        for name in await self.ls(path):
            below = f"{path}/{name}"
            attributes = await self.stat(below)
            for xattr in XATTRS:
                with contextlib.suppress(OSError):
                    await self.settle(self.tree.getxattr(below, xattr))
            if stat.S_ISDIR(attributes.mode):
                await self.exists(f"{below}/.hidden")
                await self.ls(below)

    async def open(self, path: str) -> OpenFile:
        await self.stat(path)
        return await self.settle(self.tree.open(path, os.O_RDONLY))

    async def pread(self, file: OpenFile, size: int, offset: int) -> bytes:
        """Read as the kernel does: in pieces of 128 KiB at most."""
        data = bytearray()
        while len(data) < size:
            wanted = min(KERNEL_READ_BYTES, size - len(data))
            piece = bytes_of(await self.settle(file.read(wanted, offset + len(data))))
            data += piece
            if len(piece) < wanted:
                break
        return bytes(data)

    async def cat(self, path: str) -> bytes:
        file = await self.open(path)
        try:
            return await self.pread(file, file.getattr().size, 0)
        finally:
            file.release()


@contextmanager
def programs_on(servent: Servent, caller: FakeCaller | None = None) -> Iterator[Programs]:
    """Give the tree of a servent to programs."""
    directory = servent.config.shared_directory
    directory.mkdir(exist_ok=True)
    tree = FileSystem(Roots(directory), servent.library, servent, caller or FakeCaller())
    with contextlib.closing(tree):
        yield Programs(tree)
