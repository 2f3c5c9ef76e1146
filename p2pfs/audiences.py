"""Who may know of each share: everybody, or some peers alone.

A share is limited by its name in `shared/`, and all below that name with it. What has no limit is
for everybody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from p2pfs.config import SharedDirectory, is_servent_id
from p2pfs.errors import UsageError
from p2pfs.groups import Groups


class Audiences:
    """The peers that may know of the share under each name. For any thread."""

    def __init__(self, groups: Groups, changed_groups: Callable[[], Groups | None]) -> None:
        """Begin with everybody for all.

        `changed_groups` returns the groups if they have changed since the last call.
        """
        self._groups = groups
        self._changed_groups = changed_groups
        self._limits: Mapping[str, frozenset[str]] = {}
        """A limit outlasts its share until `forget`, for withdrawn names are known for a while yet;
        or until the name is shared with everybody."""
        self._withdrawn: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        """Held while one of these is replaced; to read them takes no lock."""

    def check(self, shared: SharedDirectory) -> None:
        """Raise UsageError if a share is for somebody who cannot be known."""
        for name in shared.to:
            if name not in self._groups and not is_servent_id(name):
                raise UsageError(
                    f"{name} is neither a servent id nor a group in config.toml: "
                    "`p2pfs peers --json` shows ids"
                )

    def limit(self, shared: SharedDirectory) -> None:
        """Limit a share from now on to those whom it names, or let everybody see it."""
        members = (self._groups.get(one, [one]) for one in shared.to)
        allowed = frozenset(one for ids in members for one in ids)
        with self._lock:
            limits = {name: ids for name, ids in self._limits.items() if name != shared.name}
            self._limits = {**limits, shared.name: allowed} if shared.to else limits

    def take_groups(self, shares: Iterable[SharedDirectory]) -> None:
        """Have who was put into a group, or out of it, see more or less of these from now on."""
        groups = self._changed_groups()
        if groups is not None:
            self._groups = groups
            for shared in shares:
                self.limit(shared)

    @property
    def has_limits(self) -> bool:
        """Return whether anything is shared with some and not with all."""
        return bool(self._limits)

    def may_see(self, path: str, peer: str | None) -> bool:
        """Return whether a peer may know of a path; None is who else may read what it is told."""
        allowed = self._limits.get(path.partition("/")[0])
        return allowed is None or peer in allowed

    def hidden_from(self, peer: str | None) -> list[str]:
        """Return the names in `shared/` of which a peer may not know."""
        return [name for name, allowed in self._limits.items() if peer not in allowed]

    def limited_for(self, peer: str | None) -> list[str]:
        """Return the names in `shared/` of which a peer may know, and not everybody may."""
        return [name for name, allowed in self._limits.items() if peer in allowed]

    def count_of(self, name: str) -> int | None:
        """Return how many peers may know of a name in `shared/`; None for everybody."""
        allowed = self._limits.get(name)
        return None if allowed is None else len(allowed)

    def withdraw(self, name: str) -> None:
        """Note that everybody has been told to forget what was shared under a name."""
        with self._lock:
            self._withdrawn |= {name}

    @property
    def withdrawn(self) -> frozenset[str]:
        """The names that `withdraw` has noted, and `forget` has not taken."""
        return self._withdrawn

    def forget(self, names: frozenset[str], *, shared: frozenset[str]) -> None:
        """End the limits of names of which nothing is known any more, but of those shared again."""
        with self._lock:
            self._withdrawn -= names
            gone = names - shared
            self._limits = {one: ids for one, ids in self._limits.items() if one not in gone}
