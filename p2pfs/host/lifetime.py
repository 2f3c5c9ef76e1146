"""One servent process from start to end: its parts are opened in order, and closed in reverse.

    lock on the state directory > signals > servent > verbs > mount > "ready"

Everything that can end it (a signal, the verb `shutdown`, an unmount from outside) cancels
the same scope, so there is one way down: readers are released, the mount goes, the verbs
end, the servent says BYE, the lock is dropped.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import logging.handlers
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from io import TextIOWrapper
from typing import Final

import trio

from p2pfs.config import Config
from p2pfs.control.client import running_servents
from p2pfs.control.server import serve_control
from p2pfs.errors import P2pfsError, UsageError
from p2pfs.filesystem import FileSystem
from p2pfs.host.background import Welcome
from p2pfs.host.desktop import notify
from p2pfs.host.directories import use_directories
from p2pfs.host.manager import Manager
from p2pfs.host.process import give_memory_back, settle
from p2pfs.host.welcome import state_of, welcome_of
from p2pfs.journal import printable
from p2pfs.library import Watch
from p2pfs.mount import (
    KernelCaller,
    check_fuse,
    check_mountpoint,
    new_mountpoint_undone,
    serve_mount,
)
from p2pfs.mounts import is_within
from p2pfs.reach import Lan, PortMapping
from p2pfs.servent import Servent, open_servent
from p2pfs.state import OUTPUT, Leftovers, lock_state, open_private
from p2pfs.tasks import guarded

log = logging.getLogger(__name__)

LOG_BYTES: Final = 5 * 1024**2
LOG_FILES: Final = 3
"""A week of an ordinary servent; never more than 20 MiB on the disk."""

JOIN_WAIT_S: Final = 3.0
"""How long readiness waits for a first neighbour, to be able to say whether there is one."""

JOIN_LOOK_S: Final = 0.02

TELL_EVERY_S: Final = 10.0
"""The interval at which the service manager gets a new status text."""

ENDING: Final = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU}
)

UNHEEDED: Final = frozenset(
    {signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO}
)
"""Signals that mean nothing to us. At their defaults they would end the process at once and
leave a dead mount behind; `kill -USR1` is how people ask some daemons for a new log."""

Announce = Callable[[Welcome], None]
"""Takes the welcome, once all is up."""

KeepMade = Callable[[], object]
"""Lets a mountpoint that was made stay, once it is mounted."""


def live(config: Config, announce: Announce) -> None:
    """Run a servent until a signal, a verb or an unmount ends it.

    Raises:
        P2pfsError: it could not start; the text says why, and everything is undone.
        OSError: the machine did not let it start or go on.
    """
    manager = Manager()
    settle()
    try:
        _check_apart(config)
        with lock_state(config), _new_mountpoint_undone(config) as keep:
            _forget_output(config)
            _start_logging(config)
            try:
                trio.run(_live, config, announce, manager, keep)
            except BaseExceptionGroup as group:
                raise _cause_of(group) from group
    except (P2pfsError, OSError) as error:
        manager.stopping(str(error))
        raise


def _check_apart(config: Config) -> None:
    """Refuse a state directory that another servent of this user would publish."""
    for running in running_servents():
        share = os.path.realpath(running.shared_directory)
        if is_within(os.fspath(config.state_directory), share):
            raise UsageError(
                f"the state directory {config.state_directory} is in what the servent with "
                f"the state directory {running.state_directory} shares"
            )


def _new_mountpoint_undone(config: Config) -> contextlib.AbstractContextManager[KeepMade]:
    if config.mountpoint is None:
        return contextlib.nullcontext(_keep_nothing)
    return new_mountpoint_undone(os.fspath(config.mountpoint))


def _keep_nothing() -> None:
    """Do nothing: no mountpoint was made."""


async def _live(
    config: Config, announce: Announce, manager: Manager, keep_mountpoint: KeepMade
) -> None:
    # Before the mount: libfuse takes over the signals that are at their defaults.
    with trio.open_signal_receiver(*ENDING, *UNHEEDED) as signals:
        mountpoint = await _prepared_mountpoint(config)
        await trio.to_thread.run_sync(_tidy_share, config)
        async with open_servent(config, watch=Watch()) as servent, trio.open_nursery() as nursery:

            def end() -> None:
                manager.stopping("saying goodbye")
                nursery.cancel_scope.cancel()

            nursery.start_soon(_end_on_signal, signals, end)
            await nursery.start(serve_control, servent, end)
            _be_found(servent, nursery)
            nursery.start_soon(guarded, give_memory_back)
            nursery.start_soon(guarded, notify, servent.journal, lambda: servent.config.notify)
            servent.settings.on_change("log-level", _set_log_level)
            if mountpoint is not None:
                await nursery.start(_mount, servent, mountpoint, end)
                keep_mountpoint()
            if manager.is_listening:
                nursery.start_soon(guarded, _keep_told, manager, servent)
            await _wait_for_a_neighbour(servent)
            announce(welcome_of(servent))
    log.info("ended")


async def _prepared_mountpoint(config: Config) -> str | None:
    if config.mountpoint is None:
        return None
    await trio.to_thread.run_sync(functools.partial(check_fuse, allow_other=config.allow_other))
    return await trio.to_thread.run_sync(check_mountpoint, os.fspath(config.mountpoint))


def _tidy_share(config: Config) -> None:
    """Remove the temporary files of a servent that was killed."""
    Leftovers(config.leftovers_directory).remove()


def _be_found(servent: Servent, nursery: trio.Nursery) -> None:
    """Find others whom nobody has named, and be found by them, as far as the user wants it."""
    config, where = servent.config, servent.whereabouts
    if config.lan:
        room = Lan(where.network_key, where.addresses, servent.changes)
        nursery.start_soon(guarded, room.run, servent.overlay)
    nursery.start_soon(guarded, use_directories, servent)
    if config.port_mapping:
        mapping = PortMapping(where.addresses, where, servent.changes)
        nursery.start_soon(guarded, mapping.run)


async def _end_on_signal(signals: AsyncIterator[int], end: Callable[[], None]) -> None:
    async for number in signals:
        log.info("signal received number=%d", number)
        if number in ENDING:
            end()


async def _mount(
    servent: Servent,
    mountpoint: str,
    end: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    previews = servent.config.previews
    caller = KernelCaller()
    tree = FileSystem(
        servent.roots, servent.library, servent, caller, previews, readings=servent.history
    )
    with contextlib.closing(tree):
        await serve_mount(
            tree,
            mountpoint,
            name=servent.config.name,
            allow_other=servent.config.allow_other,
            kernel_options=servent.config.kernel_options,
            task_status=task_status,
        )
    end()  # unmounted from outside


async def _keep_told(manager: Manager, servent: Servent) -> None:
    """Report to the service manager that all is up, and from then on the state of the servent."""
    while True:
        manager.ready(state_of(servent))
        await trio.sleep(TELL_EVERY_S)


async def _wait_for_a_neighbour(servent: Servent) -> None:
    if servent.knows_peers:
        with trio.move_on_after(JOIN_WAIT_S):
            while not servent.report.peers():  # noqa: ASYNC110 - once in a life; not worth an event
                await trio.sleep(JOIN_LOOK_S)


def _forget_output(config: Config) -> None:
    """Empty the file of earlier servents' output: none of them runs any more."""
    if not config.foreground:
        with contextlib.suppress(FileNotFoundError):
            os.truncate(config.state_directory / OUTPUT, 0)


class _PrivateLog(logging.handlers.RotatingFileHandler):
    """A log file for its owner alone, because it names files and peers."""

    def _open(self) -> TextIOWrapper:
        descriptor = open_private(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return open(descriptor, "a", encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop a line for which the disk has no room; print any other error."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def _start_logging(config: Config) -> None:
    path = os.fspath(config.log_path)
    handlers: list[logging.Handler] = [_PrivateLog(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES)]
    if config.foreground:
        handlers.append(logging.StreamHandler())
    for handler in handlers:
        handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=config.log_level.upper(), handlers=handlers, force=True)


def _set_log_level(config: Config) -> None:
    logging.getLogger().setLevel(config.log_level.upper())


class _OneLine(logging.Formatter):
    """Writes a message as one line that fools no terminal: peers wrote parts of it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


def _cause_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to report: the first that is no bug of ours, else the group."""
    for error in group.exceptions:
        cause = _cause_of(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(cause, P2pfsError | OSError):
            return cause
    return group
