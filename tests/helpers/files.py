"""The operations of the file system suite, over a real directory and over the tree itself."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from p2pfs.filesystem import FileSystem, Later, Moment, OpenFile, Stretch
from p2pfs.filesystem.attributes import Attributes


class RealHandle:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def write(self, data: bytes, offset: int) -> int:
        return os.pwrite(self._descriptor, data, offset)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def fsync(self, *, data_only: bool) -> None:
        (os.fdatasync if data_only else os.fsync)(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class RealFiles:
    """A directory, by the system's calls: a plain one, or one in a mount."""

    def __init__(self, directory: str, above: int | None = None) -> None:
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY, dir_fd=above)
        self._directory = f"/proc/self/fd/{self._root}"
        self._below: list[RealFiles] = []

    def close(self) -> None:
        for files in self._below:
            files.close()
        os.close(self._root)

    def below(self, path: str) -> RealFiles:
        self._below.append(RealFiles(path, self._root))
        return self._below[-1]

    def open(self, path: str, flags: int, mode: int = 0o644) -> RealHandle:
        umask = os.umask(0)
        try:
            return RealHandle(os.open(path, flags, mode, dir_fd=self._root))
        finally:
            os.umask(umask)

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path, dir_fd=self._root, follow_symlinks=False)

    def listdir(self, path: str) -> list[str]:
        return os.listdir(os.path.join(self._directory, path))

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        umask = os.umask(0)
        try:
            os.mkdir(path, mode, dir_fd=self._root)
        finally:
            os.umask(umask)

    def rmdir(self, path: str) -> None:
        os.rmdir(path, dir_fd=self._root)

    def unlink(self, path: str) -> None:
        os.unlink(path, dir_fd=self._root)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._root, dst_dir_fd=self._root)

    def link(self, old: str, new: str) -> None:
        os.link(old, new, src_dir_fd=self._root, dst_dir_fd=self._root)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, path, dir_fd=self._root)

    def readlink(self, path: str) -> str:
        return os.readlink(path, dir_fd=self._root)

    def mknod(self, path: str, mode: int) -> None:
        os.mknod(path, mode, dir_fd=self._root)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(path, mode, dir_fd=self._root)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(path, uid, gid, dir_fd=self._root)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(os.path.join(self._directory, path), size)

    def utime(self, path: str, times: tuple[int, int] | None) -> None:
        if times is None:
            os.utime(path, dir_fd=self._root, follow_symlinks=False)
        else:
            os.utime(path, ns=times, dir_fd=self._root, follow_symlinks=False)

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        os.setxattr(os.path.join(self._directory, path), name, value, flags)

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(os.path.join(self._directory, path), name)

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(os.path.join(self._directory, path), name)

    def statvfs(self) -> os.statvfs_result:
        return os.statvfs(self._directory)


class TreeHandle:
    def __init__(self, file: OpenFile) -> None:
        self._file = file

    def read(self, size: int, offset: int) -> bytes:
        return bytes_of(now(self._file.read(size, offset)))

    def write(self, data: bytes, offset: int) -> int:
        return self._file.write(data, offset)

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def size(self) -> int:
        return self._file.getattr().size

    def fsync(self, *, data_only: bool) -> None:
        self._file.fsync(data_only=data_only)

    def close(self) -> None:
        self._file.flush()
        self._file.release()


class TreeFiles:
    """`shared/` of a tree, called as the kernel would call it."""

    def __init__(self, tree: FileSystem, directory: str = "/shared") -> None:
        self._tree = tree
        self._directory = directory

    def below(self, path: str) -> TreeFiles:
        return TreeFiles(self._tree, self._at(path))

    def _at(self, path: str) -> str:
        return f"{self._directory}/{path}" if path else self._directory

    def open(self, path: str, flags: int, mode: int = 0o644) -> TreeHandle:
        if flags & os.O_CREAT:
            with suppress(FileNotFoundError):
                self.stat(path)
                if flags & os.O_EXCL:
                    raise OSError(errno.EEXIST, path)
                return TreeHandle(now(self._tree.open(self._at(path), flags & ~os.O_CREAT)))
            return TreeHandle(self._tree.create(self._at(path), flags, mode))
        return TreeHandle(now(self._tree.open(self._at(path), flags)))

    def stat(self, path: str) -> os.stat_result:
        return _as_result(now(self._tree.getattr(self._at(path))))

    def listdir(self, path: str) -> list[str]:
        return [listed.name for listed in now(self._tree.readdir(self._at(path)))]

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self._tree.mkdir(self._at(path), mode)

    def rmdir(self, path: str) -> None:
        self._tree.rmdir(self._at(path))

    def unlink(self, path: str) -> None:
        self._tree.unlink(self._at(path))

    def fsyncdir(self, path: str) -> None:
        self._tree.fsyncdir(self._at(path))

    def rename(self, old: str, new: str) -> None:
        self._tree.rename(self._at(old), self._at(new))

    def remove_open(self, path: str, name: str) -> None:
        """Remove an open file as libfuse does: from then on it goes by another name."""
        assert self._tree.set_aside(self._at(path), self._at(name))
        self._tree.unlink(self._at(path), aside=self._at(name))

    def replace_open(self, new: str, path: str, name: str) -> None:
        """Rename a file over an open one as libfuse does: that one goes by another name."""
        assert self._tree.set_aside(self._at(path), self._at(name))
        self._tree.rename(self._at(new), self._at(path), aside=self._at(name))

    def link(self, old: str, new: str) -> None:
        self._tree.link(self._at(old), self._at(new))

    def symlink(self, target: str, path: str) -> None:
        self._tree.symlink(self._at(path), target)

    def readlink(self, path: str) -> str:
        return self._tree.readlink(self._at(path))

    def mknod(self, path: str, mode: int) -> None:
        self._tree.mknod(self._at(path), mode)

    def chmod(self, path: str, mode: int) -> None:
        self._tree.chmod(self._at(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._tree.chown(self._at(path), uid, gid)

    def truncate(self, path: str, size: int) -> None:
        self._tree.truncate(self._at(path), size)

    def utime(self, path: str, times: tuple[int, int] | None) -> None:
        self._tree.utimens(self._at(path), *(times or (Moment.NOW, Moment.NOW)))

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        self._tree.setxattr(self._at(path), name, value, flags)

    def getxattr(self, path: str, name: str) -> bytes:
        return now(self._tree.getxattr(self._at(path), name))

    def removexattr(self, path: str, name: str) -> None:
        self._tree.removexattr(self._at(path), name)

    def statvfs(self) -> os.statvfs_result:
        return self._tree.statfs(self._directory)


def bytes_of(found: bytes | Stretch) -> bytes:
    """Return what a read gave, also if it only said where that lies."""
    if not isinstance(found, Stretch):
        return found
    data = os.pread(found.descriptor, found.length, found.offset)
    assert len(data) == found.length
    return data


def now(answer):
    """Return an answer that must not need the network."""
    assert not isinstance(answer, Later)
    return answer


class _Result:
    """The fields of `os.stat_result` that tests look at."""

    def __init__(self, attributes: Attributes) -> None:
        self.st_mode = attributes.mode
        self.st_ino = attributes.inode
        self.st_nlink = attributes.links
        self.st_uid = attributes.uid
        self.st_gid = attributes.gid
        self.st_size = attributes.size
        self.st_blocks = attributes.sectors
        self.st_atime_ns = attributes.atime_ns
        self.st_mtime_ns = attributes.mtime_ns
        self.st_ctime_ns = attributes.ctime_ns


def _as_result(attributes: Attributes) -> _Result:
    assert stat.S_IFMT(attributes.mode)
    return _Result(attributes)
