"""The end of a look that offers nothing: a refusal, another look later, or nothing is there."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import Final

from p2pfs.library.agenda import Look
from p2pfs.library.answers import Answers
from p2pfs.library.looks import Looks
from p2pfs.library.notices import Notices
from p2pfs.library.share import GONE, PASSING
from p2pfs.library.status import StatKey, Status
from p2pfs.protocol import MAX_FILE_BYTES

BUG_MET: Final = "a bug of ours: file is not published path=%r"

_IS_BUG: Final = "a bug of ours keeps it from being hashed: see the log"

log = logging.getLogger(__name__)


class Refusing:
    """Ends looks without an offer, and tells the user why. For the worker's thread."""

    def __init__(
        self, looks: Looks, answers: Answers, notices: Notices, on_lost: Callable[[], object]
    ) -> None:
        """Prepare; `on_lost` is called when the directory of the share itself has gone."""
        self._looks = looks
        self._answers = answers
        self._notices = notices
        self._on_lost = on_lost
        self._is_lost = False

    def refuse(self, look: Look, reason: str, key: StatKey | None = None) -> None:
        """End a look at a path that stays private for a reason, and tell the user."""
        self._looks.refuse(look, reason, key)
        self._notices.private(look.path, reason)

    def is_wanted(self, look: Look, status: Status) -> bool:
        """Return whether a file is there to be hashed or found in the index; else end the look."""
        if status.is_link:
            self.refuse(look, "it is a symbolic link")
        elif not status.is_file:
            self.refuse(look, "it is neither a file nor a directory")
        elif status.key.size > MAX_FILE_BYTES:
            self.refuse(look, "it is too large")
        elif self._looks.saw_file(look, status.key):
            return True
        else:
            self.tell_twin(look.path)
        return False

    def failed(self, look: Look, error: OSError) -> None:
        """End a look that the disk has failed."""
        if error.errno in PASSING:
            self._looks.put_off(look)
        elif error.errno in GONE:
            self._looks.refuse(look, None)
            if look.path == "" and not self._is_lost:
                self._is_lost = True
                self._on_lost()
        else:
            log.warning("file is not published path=%r error=%r", look.path, str(error))
            self.refuse(look, f"it cannot be read: {os.strerror(error.errno or errno.EIO)}")

    def bug_met(self, look: Look) -> None:
        """End a look in which a bug showed."""
        self.refuse(look, _IS_BUG)

    def found(self, path: str) -> None:
        """Note that a directory is there: the share itself may have been lost before."""
        self._is_lost = self._is_lost and path != ""

    def tell(self, path: str, reason: str) -> None:
        """Tell the user why a local path is not published, unless a leading dot says it."""
        self._notices.private(path, reason)

    def tell_twin(self, path: str) -> None:
        """Tell the user of a file whose name others cannot tell from another's, if it is one."""
        self.tell(path, self._answers.state(path).reason)
