"""The groups that directories are shared with, as config.toml has them at any moment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from p2pfs.config import Config, read_groups
from p2pfs.errors import UsageError

log = logging.getLogger(__name__)

Groups: TypeAlias = Mapping[str, Sequence[str]]
"""The ids of servents, by the name of their group."""


class GroupsFile:
    """The groups in config.toml. For one thread at a time."""

    def __init__(self, config: Config) -> None:
        """Begin with the groups of the start."""
        self._config = config
        self._read = config.groups
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> Groups | None:
        """Return the groups if they are others than before; a look at the file costs one `stat`.

        As long as the file cannot be read, half written for instance, they are those of before.
        """
        now = self._look()
        if now == self._seen:
            return None
        self._seen = now
        try:
            groups = read_groups(self._config)
        except UsageError as error:
            log.warning("groups stay as they were reason=%s", error)
            return None
        former, self._read = self._read, groups
        return None if groups == former else groups

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._config.config_path)
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns
