"""Tables that are bounded: what was put longest ago goes first.

Strangers make up much of what a servent remembers, with as many keys as they like.
A table of the latest takes as much memory as it may and no more, and forgets nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Latest(OrderedDict[K, V]):
    """A table of at most `limit` entries: those that were put last, the latest at the end.

    Putting a key again makes it the latest; looking at it does not (`move_to_end` does). Not
    locked; one look or one step from another thread finds it whole.
    """

    def __init__(
        self, limit: int, on_drop: Callable[[K, V], object] = lambda _key, _value: None
    ) -> None:
        """Begin empty; `on_drop` is called with each entry that goes by itself."""
        super().__init__()
        self.limit = limit
        self._on_drop = on_drop

    def __setitem__(self, key: K, value: V) -> None:
        """Put an entry, and let the oldest go if there are too many."""
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > self.limit:
            self._drop()

    def renew(self, key: K, make: Callable[[], V]) -> V:
        """Return the entry of a key, made if there is none; it is the latest from now on."""
        value = self[key] if key in self else make()
        self[key] = value
        return value

    def forget_while(self, is_old: Callable[[V], bool]) -> None:
        """Let the oldest entries go, up to the first whose value is not old."""
        while self and is_old(next(iter(self.values()))):
            self._drop()

    def _drop(self) -> None:
        self._on_drop(*self.popitem(last=False))
