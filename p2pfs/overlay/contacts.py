"""The peers known of: where they were, when we last shook hands, when to try again.

Known of is not connected: a contact is an address and a memory. The book is saved and used
at the next start, so that a servent finds its way back without the servent it once joined.
Handshakes are noted in wall-clock seconds, since they outlive the process; tries in seconds of
whatever clock the caller waits by.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import trio

from p2pfs.protocol import (
    MAX_ADDRESSES,
    Address,
    PeerInfo,
    ServentId,
    by_turns,
    groups_of,
    largest_crowd,
)
from p2pfs.state import replace_file
from p2pfs.threads import RunInThread

log = logging.getLogger(__name__)

RETRY_AFTER_S: Final = (1.0, 5.0, 15.0, 60.0, 600.0)
"""Waits after the first, second, ... and every later failure in a row (Hyperswarm)."""

LONELY_RETRY_S: Final = 15.0
"""The longest of these waits without any neighbour: a servent that was started before the one
that it joins through, or whose network was down, was alone for ten minutes more."""

JITTER: Final = 0.25
"""Waits vary by this share, so that a network that lost one servent does not dial in step."""

STABLE_S: Final = 60.0
"""A link shorter than this does not reset the retry back-off: a peer that always hangs up at once
is dialled as seldom as one that is not there."""

FRESH_S: Final = 30 * 60.0
"""A contact is passed on to others for this long after a handshake with it."""

SAVE_CONTACTS_S: Final = 60.0
"""The book is written this often; contacts that a crash loses are found again by joining."""

MAX_CONTACTS: Final = 1_000
"""Linked contacts stay. Of the others those go first with whom we never shook hands, then those
that never were a neighbour for STABLE_S, of these those of the network that most are of, and of
these the least useful: failed most often, seen longest ago. A network is that where we saw a
contact, not one that it names. So no number of identities at one address pushes out anybody else.
"""


MAX_ANSWERED_AT: Final = 2
"""Addresses that are remembered at which a servent has answered: one of each version of IP. They
leave room for two where it may be now."""


@dataclass(slots=True)
class Contact:
    """One servent, or one address that was named with `--join`."""

    addresses: tuple[Address, ...]
    """Where it may be dialled; most of them are its own word, or that of others."""
    id: ServentId | None = None
    """None until it has answered once."""
    name: str = ""
    shaken_at: float = 0.0
    answered_at: tuple[Address, ...] = ()
    """Where it answered when we dialled it, the latest first."""
    seen_at: tuple[Address, ...] = ()
    """Where it said that it may be dialled, at the host where we saw it last."""
    host: str = ""
    """That host; empty if we have not seen it."""
    failures: int = 0
    next_try_at: float = 0.0
    trouble: str = ""
    """Why the last dial came to nothing, for people."""
    breaks: int = 0
    """Links in a row that soon ended."""
    is_proven: bool = False
    """It was our neighbour for STABLE_S or longer."""
    is_linked: bool = False
    """It is our neighbour."""
    is_join: bool = False
    """Named by the user: never given up, never forgotten."""
    is_pinned: bool = False
    """Named with its id, by an invitation: nobody else is taken for it."""
    is_introduced: bool = False
    """The end of a random walk of ours, hence a good neighbour wherever it is."""
    is_near: bool = False
    """In the same room: it was announced there."""

    @property
    def is_chosen(self) -> bool:
        """Whether it was chosen by the user or by chance, not by another servent's list."""
        return self.is_join or self.is_introduced

    @property
    def network(self) -> str:
        """The network that it is counted for (groups_of)."""
        return groups_of(_host_of(self))[0]

    @property
    def passed_on(self) -> tuple[Address, ...]:
        """The addresses that others are told: it could have made up any but these."""
        return tuple(dict.fromkeys((*self.answered_at, *self.seen_at)))[:MAX_ADDRESSES]

    def was_seen(self, host: str, addresses: Sequence[Address]) -> None:
        """Note at which host it was seen, and where it says that it may be dialled."""
        self.host, self.seen_at = host, tuple(one for one in addresses if one.host == host)

    def failed(self, now: float, why: str, *, has_neighbours: bool) -> None:
        """Note a dial that came to nothing, in seconds of the caller's clock."""
        self.failures += 1
        self.trouble = why
        self._wait(self.failures, now, math.inf if has_neighbours else LONELY_RETRY_S)

    def lost(self, now: float, lasted_s: float) -> None:
        """Note that a link to it ended."""
        self.is_linked = False
        self.is_proven |= lasted_s >= STABLE_S
        self.breaks = 1 if lasted_s >= STABLE_S else self.breaks + 1
        self._wait(self.breaks, now)

    def _wait(self, times: int, now: float, longest_s: float = math.inf) -> None:
        wait = min(longest_s, RETRY_AFTER_S[min(times, len(RETRY_AFTER_S)) - 1])
        self.next_try_at = now + wait * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret

    def succeeded(self, peer: PeerInfo, wall_now: float) -> None:
        """Note a handshake."""
        self.id, self.name = peer.id, peer.name
        self.failures, self.next_try_at, self.shaken_at = 0, 0.0, wall_now


@dataclass(slots=True)
class ContactBook:
    """All contacts."""

    _by_id: dict[ServentId, Contact] = field(default_factory=dict)
    _joins: dict[Address, Contact] = field(default_factory=dict)
    _near: dict[str, Contact] = field(default_factory=dict)
    """Those in the same room, by the name under which each was announced there."""
    _written: bytes = field(default=b"", compare=False)

    def add_join(self, address: Address) -> Contact:
        """Return the contact for an address that the user named, due at once."""
        contact = self._joins.setdefault(address, Contact((address,), is_join=True))
        contact.failures, contact.next_try_at = 0, 0.0
        return contact

    def add_invited(self, peer: ServentId, addresses: Sequence[Address]) -> Contact:
        """Return the contact for a servent that an invitation names, due at once."""
        contact = self.add_join(addresses[0])
        contact.addresses = tuple(addresses)[:MAX_ADDRESSES]
        contact.id, contact.is_pinned = peer, True
        return contact

    def unanswered(self) -> list[Contact]:
        """Return the contacts for addresses that the user named and that never answered."""
        return [contact for contact in self._joins.values() if not contact.shaken_at]

    def came_near(self, name: str, addresses: Sequence[Address]) -> None:
        """Note a servent that was announced in the same room; it is due at once."""
        self._near[name] = Contact(tuple(addresses), is_near=True)

    def went_away(self, name: str) -> None:
        """Forget a servent that is no longer announced in the same room."""
        self._near.pop(name, None)

    def near_ids(self) -> frozenset[ServentId]:
        """Return the ids of servents in the same room that have answered."""
        return frozenset(c.id for c in self._near.values() if c.id is not None)

    def heard_of(self, peer: PeerInfo, *, is_introduced: bool = False) -> None:
        """Note a peer that another one named; facts of our own are kept."""
        contact = self._by_id.get(peer.id)
        if contact is None:
            contact = self._by_id[peer.id] = Contact(peer.addresses, peer.id, peer.name)
            self._bound()
        elif contact.failures:
            contact.addresses = _merged(contact.answered_at, peer.addresses, contact.addresses)
        contact.is_introduced |= is_introduced

    def has_answered(self, peer: ServentId, address: Address) -> bool:
        """Return whether a servent was there when we dialled it at an address."""
        contact = self._by_id.get(peer)
        return contact is not None and address in contact.answered_at

    def shook_hands(
        self,
        peer: PeerInfo,
        wall_now: float,
        remote: Address,
        *,
        is_dialled: bool = False,
    ) -> None:
        """Note a handshake with a peer at `remote`, where we dialled it, or from where it did."""
        contact = self._by_id.setdefault(peer.id, Contact(peer.addresses))
        if is_dialled:
            latest = dict.fromkeys((remote, *contact.answered_at))
            contact.answered_at = tuple(latest)[:MAX_ANSWERED_AT]
        contact.was_seen(remote.host, peer.addresses)
        contact.addresses = _merged(peer.addresses, contact.answered_at) or contact.addresses
        contact.succeeded(peer, wall_now)
        contact.is_linked = True
        self._bound()

    def lost(self, peer: ServentId, now: float, lasted_s: float) -> None:
        """Note that a link to a peer ended, in seconds of the caller's clock."""
        for contact in self._all():
            if contact.id == peer:
                contact.lost(now, lasted_s)

    def hasten(self, now: float) -> None:
        """Cut the waits after failed dials to those of a servent without neighbours.

        A peer that answers and soon hangs up, again and again, keeps its wait.
        """
        failed = (c for c in self._all() if c.failures)
        for contact in failed:
            contact.next_try_at = min(contact.next_try_at, now + LONELY_RETRY_S)

    def start_afresh(self) -> None:
        """Let every contact be dialled at once: what failed may succeed now."""
        for contact in self._all():
            contact.failures = contact.breaks = 0
            contact.next_try_at = 0.0

    def unlinked(self, linked: Iterable[ServentId]) -> list[Contact]:
        """Return the contacts that are not among `linked`, in the order in which to try them."""
        taken = frozenset(linked)
        named = (*self._joins.values(), *self._near.values())
        # A servent that cannot be dialled where the user said may be where it said itself.
        ids = frozenset(c.id for c in named if not c.failures)
        known = (c for c in self._by_id.values() if c.id not in ids and c.addresses)
        free = (c for c in (*named, *known) if c.id is None or c.id not in taken)
        return sorted(free, key=_rank)

    def fresh(self, wall_now: float) -> Iterator[PeerInfo]:
        """Yield the peers that may be passed on: handshaken by us lately, best first.

        Every second one is or long was our neighbour, as far as there are any: to shake hands costs
        a stranger nothing. Beside that networks take turns, and chance decides.
        """
        fresh = [
            c
            for c in self._by_id.values()
            if wall_now - c.shaken_at <= FRESH_S and (c.answered_at or c.seen_at)
        ]
        random.shuffle(fresh)
        staying = by_turns((c for c in fresh if c.is_linked or c.is_proven), _host_of)
        others = by_turns((c for c in fresh if not (c.is_linked or c.is_proven)), _host_of)
        both = (c for pair in itertools.zip_longest(staying, others) for c in pair if c is not None)
        return (PeerInfo(c.id, c.name, c.passed_on) for c in both if c.id is not None)

    def _all(self) -> tuple[Contact, ...]:
        return (*self._by_id.values(), *self._joins.values(), *self._near.values())

    def _bound(self) -> None:
        while len(self._by_id) > MAX_CONTACTS:
            worst = self._worst()
            assert worst.id is not None
            del self._by_id[worst.id]

    def _worst(self) -> Contact:
        """Return the contact that goes first; see MAX_CONTACTS."""
        free = [contact for contact in self._by_id.values() if not contact.is_linked]
        some = [contact for contact in free if not contact.is_proven] or free
        some = [contact for contact in some if not contact.shaken_at] or some
        crowd = largest_crowd(some, _host_of, 0) or list(self._by_id.values())
        return max(crowd, key=lambda c: (c.failures, -c.shaken_at))

    # On disk.

    async def keep_saved(self, path: str, run_in_thread: RunInThread) -> None:
        """Write the book now and then, until cancelled."""
        while True:
            await trio.sleep(SAVE_CONTACTS_S)
            await run_in_thread(self._write, path, self.to_bytes())

    def save(self, path: str) -> None:
        """Write the book now, if it is another than was last written; trouble is logged."""
        self._write(path, self.to_bytes())

    def _write(self, path: str, book: bytes) -> None:
        if book == self._written:
            return  # a disk that sleeps is let sleep
        try:
            replace_file(path, book)
            self._written = book
        except OSError as error:
            log.warning("contacts not saved reason=%s", error)

    def to_bytes(self) -> bytes:
        """Return the book as `load` reads it: the peers that have shaken hands with us."""
        rows = [
            _SavedContact(
                c.id, c.name, c.addresses, c.shaken_at, c.is_proven, c.answered_at, c.host
            )
            for c in self._by_id.values()
            if c.id is not None and c.shaken_at
        ]
        return msgspec.json.encode(rows)

    @classmethod
    def load(cls, path: str) -> ContactBook:
        """Read the book; a missing or damaged one is an empty one."""
        book = cls()
        try:
            with open(path, "rb") as file:
                rows = msgspec.json.decode(file.read(), type=list[_SavedContact])
        except FileNotFoundError:
            return book
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("contacts not read reason=%s", error)
            return book
        for row in rows[:MAX_CONTACTS]:
            contact = Contact(row.addresses, row.id, row.name, row.shaken_at)
            contact.is_proven = row.is_proven
            contact.was_seen(row.host, row.addresses)
            contact.answered_at = row.answered_at[:MAX_ANSWERED_AT]
            book._by_id[row.id] = contact
        return book


def _merged(*some: Sequence[Address]) -> tuple[Address, ...]:
    """Return the first addresses of all, each once."""
    return tuple(dict.fromkeys(itertools.chain(*some)))[:MAX_ADDRESSES]


def _host_of(contact: Contact) -> str:
    return contact.host or (contact.addresses[0].host if contact.addresses else "")


def _rank(contact: Contact) -> tuple[bool, bool, bool, int, float]:
    """Return what contacts are sorted by: the one to try first has the least."""
    return (
        not contact.is_near,
        not contact.is_join,
        not contact.is_introduced,
        contact.failures,
        -contact.shaken_at,
    )


class _SavedContact(msgspec.Struct):
    """A contact as saved."""

    id: ServentId
    name: str
    addresses: tuple[Address, ...]
    shaken_at: float
    is_proven: bool = False
    answered_at: tuple[Address, ...] = ()
    host: str = ""
