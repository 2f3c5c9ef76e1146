"""Ask a servent that runs, for a verb."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from typing import cast

from p2pfs.cli.voice import OnProgress, Voice
from p2pfs.control import VerbError
from p2pfs.control.client import Running, ask, choose_servent, running_servents
from p2pfs.wording import Record

log = logging.getLogger(__name__)


class Asker:
    """The context of one verb: the voice that prints, and the servent that is asked."""

    def __init__(self, voice: Voice, directory: str | None) -> None:
        """Take the servent at `directory`, as `choose_servent` has it, when it is first asked."""
        self.voice = voice
        self._directory = directory
        self.path: str | None = None
        """The first path that was typed. If it leads into a mount, it chooses the servent."""
        if voice.is_verbose:
            logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(name)s %(message)s")

    @property
    def is_clear(self) -> bool:
        """Whether the user has said which servent is to be asked, or there is no choice."""
        try:
            return bool(self.servent)
        except VerbError:
            if self._directory is not None or not running_servents():
                raise
            return False

    @functools.cached_property
    def servent(self) -> Running:
        """The servent that is asked; VerbError says why there is none."""
        found = choose_servent(self._directory, self.path)
        log.debug("asks pid=%d state=%s", found.pid, found.state_directory)
        return found

    def ask(self, verb: str, on_progress: OnProgress | None = None, /, **args: object) -> Record:
        """Have the servent do a verb and return its result, a record."""
        return cast("Record", self._ask(verb, on_progress, args))

    def list(self, verb: str, /, **args: object) -> Sequence[Record]:
        """Have the servent do a verb and return its result, a list of records."""
        return cast("Sequence[Record]", self._ask(verb, None, args))

    def _ask(self, verb: str, on_progress: OnProgress | None, args: Mapping[str, object]) -> object:
        began_at = time.monotonic()
        try:
            return ask(self.servent, verb, args, on_progress or (lambda _done, _size: None))
        finally:
            log.debug("asked verb=%s took_s=%.3f", verb, time.monotonic() - began_at)
