"""The names of a directory: worked out as far as they are asked for, and kept. Pure, not locked.

A directory may have 100,000 names, and a name 10,000 versions. So a look at a name works out no
more than the names that may stand in its way, and keeps them until something changes there.

Theory. Which published names may stand in each other's way follows from how they are spelt. Nearly
all are plain: they look like no suffixed name, none that looks like a suffixed name of theirs is
published, and no suffix cuts them. The versions of a plain name contend with each other alone, so a
change there, or of a name held there, concerns that name and no other. All others are odd. They are
few, and are worked out anew together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from p2pfs.namespace.nodes import (
    ID_SUFFIX_LENGTH,
    HeldNames,
    Version,
    assign,
    may_be_suffixed,
    numbered_names,
    order,
    published_names,
    usual_names,
)
from p2pfs.protocol.names import MAX_LABEL_BYTES

_LONGEST_SUFFIX: Final = 80
"""Bytes of it: a tilde, an id in hexadecimal, and a number."""

_LONGEST_CHARACTER: Final = 4
"""Bytes of one in UTF-8: a name that was cut is shorter by fewer than it might be."""

_SHORTEST_CUT: Final = MAX_LABEL_BYTES - _LONGEST_CHARACTER
"""A name that was cut has more bytes."""

_LONGEST_PLAIN: Final = _SHORTEST_CUT - _LONGEST_SUFFIX
"""A name of no more bytes is not cut. Nor is it a name that was cut, with its suffix taken off."""

_KEPT_BYTES: Final = 128
"""Bytes at the beginning of a name that no suffix takes away."""

_TOKEN: Final = re.compile(r"(?<=~)[0-9a-f]{8}|(?<=~)dir")
"""How the text begins that tells versions of a name apart, in a suffixed name."""


def is_odd(name: str) -> bool:
    """Return whether a published name looks like a suffixed one, or may be cut."""
    return _is_long(name) or ("~" in name and may_be_suffixed(name))


def odd_among(names: Sequence[str]) -> Sequence[str]:
    """Return those of some names that are odd: none of most."""
    if "~" not in "".join(names) and 4 * len(max(names, key=len)) <= _LONGEST_PLAIN:
        return ()
    return [name for name in names if is_odd(name)]


class Odd:
    """The odd names that are published in a directory."""

    def __init__(self) -> None:
        self._by: dict[str | bytes, set[str]] = {}
        """By what they are without a suffix; those that may be cut by how they begin as well."""

    def add(self, name: str) -> None:
        """Note that an odd name is published."""
        for key in _keys(name):
            self._by.setdefault(key, set()).add(name)

    def drop(self, name: str) -> None:
        """Note that an odd name is published no more."""
        for key in _keys(name):
            self._by[key].discard(name)
            if not self._by[key]:
                del self._by[key]

    def is_plain(self, name: str) -> bool:
        """Return whether the versions of a name contend with each other alone."""
        return name not in self._by and not is_odd(name)

    def cut_to(self, name: str) -> Collection[str]:
        """Return the published names that may have been cut to this one."""
        if 4 * len(name) <= _SHORTEST_CUT:
            return ()
        label = _bytes_of(name)
        return self._by.get(label[:_KEPT_BYTES], ()) if len(label) > _SHORTEST_CUT else ()


NO_ODD: Final = Odd()
"""Those of most directories. It is shared and never changed."""


class _Group:
    """Published names that were put in order together, each with its versions."""

    def __init__(self, versions: Mapping[str, Sequence[Version]], shown: Iterable[str]) -> None:
        self.versions = versions
        self.shown = tuple(shown)


class Names:
    """The result of `assign` for a directory, worked out only as far as it is asked for.

    Good until something changes: a caller that changes a published name, its rank or a held name
    says so by `forget`, `hold`, `let_go` or `clear`.
    """

    def __init__(
        self,
        versions_of: Callable[[str], Sequence[Version]],
        held: HeldNames = MappingProxyType({}),
        odd: Callable[[], Odd] = lambda: NO_ODD,
    ) -> None:
        """Ask for the versions of a published name, and for the odd names that are published."""
        self._versions_of = versions_of
        self._odd = odd
        self._held: dict[str, tuple[str, Hashable]] = {}
        self._near: dict[str, dict[str, None]] = {}
        """The names that are held, by the published names whose versions may want them."""
        self._idle: set[str] = set()
        """Names held for versions that have them anyhow: to let go of one changes nothing."""
        self._groups: dict[str, _Group] = {}
        """By each of its published names."""
        self._odd_groups: dict[_Group, None] = {}
        self._by_token: dict[bytes, dict[str, list[str]]] = {}
        """Names that may be cut, by how they begin, and by how the ids of their versions do."""
        self._fresh: list[str] = []
        self.shown: dict[str, Version] = {}
        """The versions that are worked out so far, by name."""
        for name, holder in held.items():
            self._note_held(name, holder)

    # Questions.

    def holder(self, name: str) -> Version | None:
        """Return which version has a name."""
        for published in self._rivals(name):
            self.settle(published)
        return self.shown.get(name)

    def find(self, name: str, key: Hashable) -> Version | None:
        """Return the version with this key that has or had a published name."""
        found = (v for published in self._rivals(name) for v in self._versions(published))
        return next((version for version in found if version.key == key), None)

    def alias(self, name: str) -> Version | None:
        """Return the version that would have a name, if it had not a better one."""
        found = (v for published in self._rivals(name) for v in self._versions(published))
        likely = (v for v in found if v.name == name or v.token[:ID_SUFFIX_LENGTH] in name)
        return min((v for v in likely if name in usual_names(v)), key=order, default=None)

    def settled(self) -> Collection[str]:
        """Return the published names whose versions are worked out."""
        return self._groups.keys()

    def settled_with(self, name: str) -> Iterator[str]:
        """Yield those that were worked out together with the names that a name may be of."""
        groups = (self._groups.get(published) for published in self._rivals(name))
        for group in dict.fromkeys(groups):
            yield from () if group is None else group.versions

    def settle(self, published: str) -> None:
        """Work out the names of all versions of a published name."""
        if published in self._groups:
            return
        is_plain = self._odd().is_plain(published)
        versions = self._of_plain(published) if is_plain else self._of_odd(published)
        if not versions:
            return
        near = self._near.get(published, ()) if is_plain else self._held
        held = {name: self._held[name] for name in near}
        shown = assign((version for here in versions.values() for version in here), held)
        group = _Group(versions, shown)
        self._groups |= dict.fromkeys(versions, group)
        if not is_plain:
            self._odd_groups[group] = None
        self.shown |= shown
        self._fresh += shown

    def take_settled(self) -> Iterable[tuple[str, Version]]:
        """Return the names that were worked out since the last call, and are good still."""
        fresh, self._fresh = self._fresh, []
        return [(name, self.shown[name]) for name in fresh if name in self.shown]

    # What changes.

    def forget(self, published: str) -> None:
        """Note that the versions of a published name change, or their ranks."""
        for name in published_names(published):
            group = self._groups.get(name)
            if group in self._odd_groups:
                self._drop_odd()
            elif group is not None:
                self._drop(group)
        if not self._odd().is_plain(published):
            self._drop_odd()

    def clear(self) -> None:
        """Note that anything may have changed, but for the held names."""
        self._drop_odd()
        self._groups.clear()
        self.shown.clear()
        self._idle.clear()

    def hold(self, name: str, holder: tuple[str, Hashable]) -> None:
        """Let a name stay with a version, given by its published name and its key."""
        if self._stands_alone(name, holder[0]):
            self._held[name] = holder
            self._near.setdefault(name, {})[name] = None
            return
        has_it = self.shown.get(name)
        self._note_held(name, holder)
        if has_it is not None and (has_it.name, has_it.key) == holder:
            self._idle.add(name)
        else:
            self._forget_near(name, holder[0])

    def let_go(self, name: str) -> None:
        """Let any version have a name that was held."""
        published, _ = self._held.pop(name)
        if self._stands_alone(name, published):
            self._drop_near(name, name)
            return
        for near in {published, *published_names(name)}:
            self._drop_near(near, name)
        if name in self._idle:
            self._idle.remove(name)
        else:
            self._forget_near(name, published)

    def _stands_alone(self, name: str, published: str) -> bool:
        """Return whether nothing that is worked out depends on a name: it is no suffixed one.

        Most names are such, and there are thousands that are held one behind the other.
        """
        is_plain = name == published and "~" not in name and name not in self._groups
        return is_plain and name not in self._idle and self._odd().is_plain(name)

    # How it is worked out.

    def _of_plain(self, published: str) -> dict[str, Sequence[Version]]:
        versions = self._versions_of(published)
        return {published: versions} if versions else {}

    def _of_odd(self, published: str) -> dict[str, Sequence[Version]]:
        """Return all versions that may stand in each other's way, by their published names."""
        seen: dict[str, Sequence[Version]] = {}
        todo = [published]

        def versions_of(name: str) -> Sequence[Version]:
            if name not in seen:
                seen[name] = self._versions_of(name)
            return seen[name]

        done: set[str] = set()
        while todo:
            name = todo.pop()
            if name not in done and name not in self._groups:
                done.add(name)
                held = (one for one in self._near.get(name, ()) if self._held[one][0] == name)
                reach = (*held, *_within_reach(versions_of(name), versions_of))
                todo += (rival for wanted in reach for rival in self._rivals(wanted))
        return {name: seen[name] for name in done if seen[name]}

    def _versions(self, published: str) -> Sequence[Version]:
        group = self._groups.get(published)
        return self._versions_of(published) if group is None else group.versions[published]

    def _rivals(self, name: str) -> Iterator[str]:
        """Yield the published names whose versions may have a name."""
        yield from published_names(name)
        if cut := self._odd().cut_to(name):
            begin = _bytes_of(name)[:_KEPT_BYTES]
            if begin not in self._by_token:
                self._by_token[begin] = self._tokens_of(cut)
            for token in _TOKEN.findall(name):
                yield from self._by_token[begin].get(token, ())

    def _tokens_of(self, names: Iterable[str]) -> dict[str, list[str]]:
        by_token: dict[str, list[str]] = {}
        for name in names:
            for token in {version.token[:ID_SUFFIX_LENGTH] for version in self._versions(name)}:
                by_token.setdefault(token, []).append(name)
        return by_token

    # How it is kept.

    def _drop(self, group: _Group) -> None:
        for name in group.versions:
            del self._groups[name]
        for name in group.shown:
            self.shown.pop(name, None)
        self._idle.difference_update(group.shown)

    def _drop_odd(self) -> None:
        for group in self._odd_groups:
            self._drop(group)
        self._odd_groups.clear()
        self._by_token.clear()

    def _note_held(self, name: str, holder: tuple[str, Hashable]) -> None:
        self._held[name] = holder
        for near in {holder[0], *published_names(name)}:
            self._near.setdefault(near, {})[name] = None

    def _drop_near(self, near: str, name: str) -> None:
        held = self._near[near]
        del held[name]
        if not held:
            del self._near[near]

    def _forget_near(self, name: str, published: str) -> None:
        for near in {published, *published_names(name)}:
            self.forget(near)


def _within_reach(
    versions: Sequence[Version], versions_of: Callable[[str], Sequence[Version]]
) -> Iterator[str]:
    """Yield the names that versions of one name may come to have: each takes the first free one."""
    twins = Counter(version.token for version in versions)
    for version in {version.token: version for version in versions}.values():
        yield from usual_names(version)
        left = twins[version.token]
        for name in numbered_names(version):
            left -= not versions_of(name)
            if not left:
                break
            yield name


def _keys(name: str) -> Iterator[str | bytes]:
    yield from (published for published in published_names(name) if published != name)
    if _is_long(name):
        yield _bytes_of(name)[:_KEPT_BYTES]


def _is_long(name: str) -> bool:
    return 4 * len(name) > _LONGEST_PLAIN and len(_bytes_of(name)) > _LONGEST_PLAIN


def _bytes_of(name: str) -> bytes:
    """Return a name in UTF-8; the user may have typed half a surrogate pair."""
    return name.encode(errors="surrogatepass")
