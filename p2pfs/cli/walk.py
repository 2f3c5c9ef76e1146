"""Which files below a directory on this machine can be published."""

from __future__ import annotations

import os
from collections.abc import Iterator

from p2pfs.mounts import read_mounts


class DirectoryWalk:
    """One walk through a directory that is to be published under a name."""

    def __init__(self, top: str, name: str) -> None:
        self._top = os.path.realpath(top)
        self._name = name
        self._mounted = {mount.place for mount in read_mounts() if mount.is_ours}
        self.left_out: dict[str, list[str]] = {}
        """Paths that are not published, by reason. Dotfiles are left out without a reason."""
        self.failures: list[tuple[str, OSError]] = []
        """Directories that could not be read."""

    def files(self, inner: str = "") -> Iterator[str]:
        """Return the paths of the files, sorted; they start at the directory."""
        from p2pfs.library import holds_state, why_private  # noqa: PLC0415 - heavy

        try:
            with os.scandir(os.path.join(self._top, inner)) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self.failures.append((inner, error))
            return
        if holds_state({entry.name for entry in entries}):
            self._leave_out(inner or ".", "it is the state directory of a servent")
            return
        for entry in entries:
            path = os.path.join(inner, entry.name)
            reason = why_private(os.path.join(self._name, path))
            if reason is None:
                reason = self._why_left_out(entry)
            if reason is not None:
                self._leave_out(path, reason)
            elif entry.is_dir():
                yield from self.files(path)
            else:
                yield path

    def _why_left_out(self, entry: os.DirEntry[str]) -> str | None:
        if entry.is_symlink():
            return "it is a symbolic link"
        if entry.path in self._mounted:  # all of it would be downloaded to be published again
            return "a network is mounted there"
        return None if entry.is_dir() or entry.is_file() else "it is no regular file"

    def _leave_out(self, path: str, reason: str) -> None:
        if reason:
            self.left_out.setdefault(reason, []).append(path)
