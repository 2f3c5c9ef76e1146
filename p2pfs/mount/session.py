"""One mount from start to end: libfuse's loop in a thread of its own, and its options."""

from __future__ import annotations

import atexit
import codecs
import contextlib
import ctypes
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Final

import trio

from p2pfs.errors import UsageError
from p2pfs.filesystem import BELIEVED_S, FileSystem, Ownership
from p2pfs.mount.adapter import Adapter
from p2pfs.mount.binding import complete
from p2pfs.mount.caller import KernelCaller
from p2pfs.mount.heard import libfuse_heard
from p2pfs.mount.mountpoint import (
    FUSERMOUNT_TIMEOUT_S,
    detach,
    fusermount,
    load_fuse,
)
from p2pfs.mount.plus import is_page_interrupted
from p2pfs.mount.portal import Portal

log = logging.getLogger(__name__)

MOUNT_TIMEOUT_S: Final = 10.0
"""The kernel's first call comes within milliseconds of the mount, or never."""

DRAIN_TIMEOUT_S: Final = 1.0
"""libfuse's loop ends milliseconds after the mount, unless files are still open there."""

MAX_BACKGROUND: Final = 1000
"""Reads that the kernel keeps under way at once. With its default, 12 readers waiting for
the network freeze every other read on the mount, those in `shared/` too."""

ATTRIBUTES_S: Final = 0.001
"""How long it believes attributes: to the next tick of its clock, which is enough for the one
call that looks a name up and asks for them. To libfuse each name of a file is a file of its
own. With a second here, what was appended under one name was cut off under the other, and
`cp -r` and `ls -l` were no faster; at 0 they are slower by half, and four times."""

_NAME_CODEC: Final = "utf-8-or-bytes"


async def serve_mount(
    tree: FileSystem,
    mountpoint: str,
    *,
    name: str,
    allow_other: bool = False,
    kernel_options: Sequence[str] = (),
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount `tree` on `mountpoint`, as `check_mountpoint` returned it, and serve it.

    `kernel_options` are such as `Config` has.

    `started` is called when the kernel has made its first call. Returns when somebody
    unmounts it from outside. When cancelled, it first answers every waiting reader with
    ESHUTDOWN, then unmounts, if need be under programs that still have files open there.

    Take SIGINT, SIGTERM and SIGHUP with `trio.open_signal_receiver` before: libfuse installs
    handlers for those that are at their defaults, and SIGTERM would then end nothing.

    Raises:
        UsageError: it cannot be mounted; the text says why, in libfuse's own words.
    """
    fuse = load_fuse()
    options = _options(name, kernel_options, allow_other=allow_other)
    with _broken_pipes_survived():
        await _serve(tree, mountpoint, fuse, options, task_status)


async def _serve(
    tree: FileSystem,
    mountpoint: str,
    fuse: ModuleType,
    options: Mapping[str, object],
    task_status: trio.TaskStatus[None],
) -> None:
    async with trio.open_nursery() as requests:
        portal = Portal(requests, _interrupt_check(fuse), KernelCaller().is_leaving)
        thread = _FuseThread(mountpoint)
        adapter = Adapter(tree, portal, thread.has_mounted, _caller_finder(fuse))
        try:
            with libfuse_heard() as said, trio.move_on_after(MOUNT_TIMEOUT_S):
                thread.start(fuse, adapter, options)
                await thread.mounted.wait()
            if thread.was_mounted:
                task_status.started()
                await thread.ended.wait()
        finally:
            portal.close()
            with trio.CancelScope(shield=True):
                await thread.take_down()
    if not thread.was_mounted:
        raise UsageError(f"cannot mount on {mountpoint}: {said() or 'no answer'}")


@contextlib.contextmanager
def _broken_pipes_survived() -> Iterator[None]:
    """Keep libfuse from setting SIGPIPE to its default as it ends.

    It does so where the signal was ignored, as Python has it, and the next write to a peer
    that has hung up would kill the process without a word. A handler it leaves alone.
    """
    former = signal.signal(signal.SIGPIPE, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, former)


class _FuseThread:
    """The thread in which libfuse runs its loop, and its state as trio sees it."""

    def __init__(self, mountpoint: str) -> None:
        self.mountpoint = mountpoint
        self.mounted = trio.Event()
        """The kernel has called, or never will."""
        self.ended = trio.Event()
        self.was_mounted = False
        self._token = trio.lowlevel.current_trio_token()
        self._mounted_by = trio.current_time() + MOUNT_TIMEOUT_S
        self._program = fusermount()
        self._thread: threading.Thread | None = None

    def start(self, fuse: ModuleType, adapter: Adapter, options: Mapping[str, object]) -> None:
        """Start libfuse's loop. It ends when the file system is unmounted."""
        arguments = (fuse, adapter, options)
        self._thread = threading.Thread(target=self._run, args=arguments, name="fuse", daemon=True)
        # The last resort, when trio has died under us and nobody else unmounts.
        atexit.register(self._detach)
        self._thread.start()

    def has_mounted(self) -> None:
        """Note, on a kernel thread, that the kernel has made its first call."""
        self.was_mounted = True
        self._tell(self.mounted)

    async def take_down(self) -> None:
        """Unmount, if need be under programs that have files open, and wait for the end.

        A mount that is being made is waited for: to unmount it before would do nothing, and leave
        it behind us.
        """
        with trio.move_on_at(self._mounted_by):
            await self.mounted.wait()
        if not self.ended.is_set() and (await self._unmount() or await self._unmount("-z")):
            with trio.move_on_after(DRAIN_TIMEOUT_S):
                await self.ended.wait()
        if not self.ended.is_set():
            # They get ENOTCONN when this process ends, and ESHUTDOWN for what must wait.
            log.info("programs still use files below the mount: path=%r", self.mountpoint)
        atexit.unregister(self._detach)

    async def _unmount(self, *options: str) -> bool:
        command = [self._program, "-u", *options, self.mountpoint]
        with trio.move_on_after(FUSERMOUNT_TIMEOUT_S):
            done = await trio.run_process(command, capture_stderr=True, check=False)
            if done.returncode != 0:
                log.info("not unmounted: path=%r words=%r", self.mountpoint, done.stderr)
            return done.returncode == 0
        return False

    def _detach(self) -> None:
        with suppress(UsageError):  # nobody is left to be told
            detach(self.mountpoint)
        if self._thread is not None:
            self._thread.join(DRAIN_TIMEOUT_S)

    def _run(self, fuse: ModuleType, adapter: Adapter, options: Mapping[str, object]) -> None:
        try:
            complete(fuse)(adapter, self.mountpoint, **options)
        except RuntimeError as error:
            log.info("libfuse failed: path=%r status=%s", self.mountpoint, error)
        finally:
            self._tell(self.mounted)
            self._tell(self.ended)

    def _tell(self, event: trio.Event) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(event.set)


def _options(name: str, kernel_options: Sequence[str], *, allow_other: bool) -> dict[str, object]:
    """Return the options for fusepy and libfuse; each is here for a reason that was measured."""
    options: dict[str, object] = {
        "foreground": True,  # libfuse would fork, and lose all our threads
        "raw_fi": True,  # open's flags in, keep_cache and direct_io out
        "encoding": _NAME_CODEC,
        "fsname": "p2pfs:" + re.sub(r"[^\w.-]", "_", name, flags=re.ASCII),
        "subtype": "p2pfs",
        "use_ino": True,  # else a dropped name comes back with another inode: git, rsync -H
        "big_writes": True,  # 128 KiB a call, not 4
        "max_background": MAX_BACKGROUND,
        "attr_timeout": ATTRIBUTES_S,
        "entry_timeout": BELIEVED_S,
        "negative_timeout": BELIEVED_S,
        "noatime": True,
        "splice_write": True,  # what lies in a file goes to the reader by way of a pipe
    }
    if allow_other:
        # Else the disk says what the user may do, who alone gets in. The kernel would ask for the
        # attributes of each directory on the way to a file, as often as they have become old: of
        # twelve requests for a file of an archive two and a half.
        options["allow_other"] = options["default_permissions"] = True
    for option in kernel_options:
        key, equals, value = option.partition("=")
        options[key] = re.sub(r"([\\,])", r"\\\1", value) if equals else True
    return options


def _interrupt_check(fuse: ModuleType) -> Callable[[], bool]:
    """Return a function that returns whether the reader of the current call was interrupted."""
    library = fuse._libfuse  # noqa: SLF001 - fusepy offers no way to it
    interrupted = library.fuse_interrupted
    interrupted.restype = ctypes.c_int
    return lambda: bool(interrupted()) or is_page_interrupted(library)


def _caller_finder(fuse: ModuleType) -> Callable[[], Ownership | None]:
    """Return a function that returns the owner of files that the current call makes, if not us."""
    if os.geteuid() != 0:
        return lambda: None  # only root can give files away
    return lambda: Ownership(*fuse.fuse_get_context()[:2])


def _find_codec(name: str) -> codecs.CodecInfo | None:
    """Return the codec for names: UTF-8, with any other byte kept as it is.

    fusepy decodes strictly. The caller of a name that is not UTF-8 would get EINVAL, and one
    such name in a directory would hide all others.
    """
    if name != _NAME_CODEC.replace("-", "_"):
        return None
    return codecs.CodecInfo(
        name=_NAME_CODEC,
        encode=lambda text, _errors="strict": codecs.utf_8_encode(text, "surrogateescape"),
        decode=lambda data, _errors="strict": codecs.utf_8_decode(data, "surrogateescape", True),
    )


codecs.register(_find_codec)
