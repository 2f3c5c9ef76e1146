"""The settings of a running servent: changes by verbs, and limits that follow the hour.

A change holds at once. It is kept in `set.toml` of the state directory and holds after a restart
too, unless the command line of that start gives the same option.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import tomli_w
import trio

from p2pfs.config import (
    SETTABLE,
    Config,
    Limit,
    Origin,
    all_options,
    rate_at,
    read_set,
    regrouped,
    reset,
    set_value,
)
from p2pfs.errors import UsageError
from p2pfs.rates import RateLimit
from p2pfs.state import remove_file, replace_file
from p2pfs.threads import RunInThread

log = logging.getLogger(__name__)

FOLLOW_EVERY_S: Final = 20.0
"""How late a limit follows the hour at most, also when the clock was set or the machine slept."""

Record = Mapping[str, object]

TakeConfig = Callable[[Config], object]
"""Takes in the settings, one of which has changed. It may wait for the disk."""


class Settings:
    """The settings of a servent that runs, and the parts that follow them."""

    def __init__(
        self, config: Config, wall_clock: Callable[[], float], run_in_thread: RunInThread
    ) -> None:
        """Begin with the settings of the start."""
        self.config = config
        """The current settings. Each change replaces the object."""
        self._wall_clock = wall_clock
        self._run_in_thread = run_in_thread
        self._takers: dict[str, TakeConfig] = {}
        self._limits: dict[str, RateLimit] = {}
        self._changing = trio.Lock()

    def on_change(self, option: str, take: TakeConfig) -> None:
        """Have a part take in the settings whenever this option has changed."""
        self._takers[option] = take

    def follow(self, option: str, limit: RateLimit) -> None:
        """Have a limit follow this option, and the hour, from now on."""
        self._limits[option] = limit
        self._apply_limit(option)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let the limits follow the hour until cancelled."""
        task_status.started()
        while True:
            for option in self._limits:
                self._apply_limit(option)
            await trio.sleep(FOLLOW_EVERY_S)

    async def set(self, option: str, text: str | None) -> Record:
        """Set an option to a value, or with None take the set value back.

        Returns its row, as `rows` has it.

        Raises:
            UsageError: the option cannot be set, or not to this value; nothing has changed.
            OSError: it could not be kept; nothing has changed.
        """
        async with self._changing:
            values = await self._run_in_thread(read_set, self.config)
            values.pop(option, None)
            if text is not None or option not in SETTABLE:
                values[option] = set_value(option, text or "")
            config = await self._run_in_thread(reset, self.config, option, values)
            with trio.CancelScope(shield=True):  # or it would be kept, and not followed
                await self._run_in_thread(_keep, config, values)
                self.config = config
                if option in self._limits:
                    self._apply_limit(option)
                if option in self._takers:
                    await self._run_in_thread(self._takers[option], config)
        log.info("set option=%s value=%r", option, all_options(config)[option])
        return self._row(option)

    async def groups(self) -> Mapping[str, Sequence[str]]:
        """Return the groups that config.toml has now, or had before as long as it is broken."""
        async with self._changing:
            with contextlib.suppress(UsageError):
                self.config = await self._run_in_thread(regrouped, self.config)
        return self.config.groups

    async def rows(self) -> list[Record]:
        """Return each option with its value, its source, and whether it can be set."""
        await self.groups()
        return [self._row(option) for option in all_options(self.config)]

    def _row(self, option: str) -> Record:
        config = self.config
        origin = config.origins.get(option, Origin.DEFAULT)
        is_given = config.command_line.get(option) is not None
        return {
            "name": option,
            "value": all_options(config)[option],
            "source": str(origin),
            "can_be_set": option in SETTABLE,
            "holds_after_restart": not (origin is Origin.SET and is_given),
        }

    def _apply_limit(self, option: str) -> None:
        wanted: Limit = getattr(self.config, SETTABLE[option])
        rate, limit = rate_at(wanted, self._wall_clock()), self._limits[option]
        if rate != limit.limit_bytes_s:
            log.info("limit changed option=%s bytes_s=%s", option, rate)
            limit.change(rate)


def _keep(config: Config, values: Mapping[str, object]) -> None:
    if values:
        head = b"# Written by `p2pfs set`; `p2pfs set NAME --unset` takes a line away.\n"
        replace_file(config.set_path, head + tomli_w.dumps(values).encode())
    else:
        remove_file(config.set_path)
