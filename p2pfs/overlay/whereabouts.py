"""The identity of this servent, and the addresses at which peers reach it (link.LocalServent).

A servent behind a router cannot know its own address. It learns it from its neighbours: the
HELLO of each says at which host it sees us.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from p2pfs import __version__
from p2pfs.link import Listener
from p2pfs.protocol import (
    CONTENTS,
    MAX_ADDRESSES,
    Address,
    Hello,
    Identity,
    LinkKind,
    NetworkKey,
    PeerInfo,
    Scope,
    groups_of,
    scope_of,
    without_zone,
)

SEEN_SHARE: Final = 0.25
"""We advertise an observed host if it is reported at least a quarter as often as the one that is
reported most: two networks show us at two hosts, and one liar does not make a third."""

MIN_SEEN: Final = 2
"""Neighbours that must see us at a host that no interface has before the user is shown it:
a single neighbour could send the user's friends anywhere."""


class Whereabouts:
    """The identity of this servent, its name, and the addresses at which it can be dialled."""

    def __init__(self, identity: Identity, network_key: NetworkKey, name: str) -> None:
        self.identity = identity
        self.network_key = network_key
        self.name = name
        self._listener: Listener | None = None
        self._observed: Counter[tuple[str, str]] = Counter()  # (where we are seen, by a network)
        self._own_hosts: set[str] = set()
        """Of the hosts at which we were seen, those that an interface had then."""
        self._outside: Address | None = None
        self.reachable = ""
        """Whether a router passes our port on, or why not, for people. Empty: nobody has asked."""

    def listens(self, listener: Listener) -> None:
        """Note where this servent listens from now on."""
        self._listener = listener

    def mapped(self, outside: Address | None, text: str) -> None:
        """Note where a router passes our port on from, if it does (reach.Reachable)."""
        self._outside, self.reachable = outside, text

    @property
    def is_mapped(self) -> bool:
        """Whether a router passes our port on."""
        return self._outside is not None

    @property
    def outside_port(self) -> int:
        """The port at which others dial us from where our neighbours are."""
        return self.listen_address.port if self._outside is None else self._outside.port

    @property
    def listener(self) -> Listener:
        """What this servent listens with."""
        assert self._listener is not None
        return self._listener

    @property
    def listen_address(self) -> Address:
        """Where this servent listens."""
        return self.listener.address

    def hello(self, kind: LinkKind, observed: Address) -> Hello:
        """Return the HELLO for a link; `observed` is where the other side appears to be."""
        port, agent = self.listen_address.port, f"p2pfs/{__version__}"
        addresses = self._advertised_to(observed)
        seen = without_zone(observed)
        return Hello(kind, self.name, port, seen, addresses, agent, (CONTENTS,))

    def info(self) -> PeerInfo:
        """Return this servent as peers get to know it."""
        return PeerInfo(self.identity.id, self.name, self._advertised())

    def observed(self, host: str, by: str) -> None:
        """Note that a neighbour at `by` sees us at `host`.

        All neighbours of one network count as one: identities are free.
        """
        self._observed[host, groups_of(by)[0]] += 1
        if any(own.host == host for own in self._interfaces()):
            self._own_hosts.add(host)

    def observed_no_more(self, host: str, by: str) -> None:
        """Note that a neighbour that saw us at `host` is gone."""
        self._observed[host, groups_of(by)[0]] -= 1
        self._observed += Counter()  # drops the hosts at which no neighbour sees us any more
        self._own_hosts &= self._seen().keys()

    def _seen(self) -> Counter[str]:
        """Return where we are seen, and by how many networks."""
        return Counter(host for host, _by in dict(self._observed))

    def _advertised(self) -> tuple[Address, ...]:
        """Return where we listen, if that is one address; else where most others saw us."""
        port = self.listen_address.port
        if scope_of(self.listen_address.host) is not None:
            return (without_zone(self.listen_address),)
        observed = [Address(host, port) for host in self._likely_hosts()]
        return tuple(dict.fromkeys([*self._mapped(), *observed]))[:MAX_ADDRESSES]

    def _likely_hosts(self) -> Sequence[str]:
        """Return the hosts at which most see us, the likeliest first.

        Behind the first stand those of our interfaces that reach as far as it: many networks may
        lie together, and name so many hosts that none is left for that at which we are.
        """
        seen = self._seen().most_common()
        if not seen:
            return ()
        first, most = seen[0]
        reach = scope_of(first) or Scope.MACHINE
        own = [one for one, _ in seen if one in self._own_hosts]
        sure = [one for one in own if (scope_of(one) or Scope.MACHINE) >= reach]
        others = [one for one, count in seen if count >= most * SEEN_SHARE]
        return list(dict.fromkeys([first, *sure, *others]))

    def _mapped(self) -> Sequence[Address]:
        outside = self._outside
        return () if outside is None else (outside,)

    def _advertised_to(self, peer: Address) -> tuple[Address, ...]:
        """Return the addresses for a peer: also those of our interfaces that reach as far as it is.

        A peer in our own network gets all addresses that we have there, IPv6 beside IPv4; a peer on
        the Internet gets the public ones. One on this machine needs no more than it has dialled.
        """
        told, reach = self._advertised(), scope_of(peer.host)
        if reach is not None and reach > Scope.MACHINE:
            own = self._interfaces()
            told += tuple(one for one in own if (scope_of(one.host) or Scope.MACHINE) >= reach)
        return tuple(dict.fromkeys(told))[:MAX_ADDRESSES]

    def _interfaces(self) -> Sequence[Address]:
        return self.listener.addresses()

    def addresses(self) -> Sequence[Address]:
        """Return where others may reach us, the likeliest first. Any thread.

        Those of this machine's interfaces, the one from which a router passes our port on, and
        public ones at which two neighbours or more see us: there a router may do so, too.
        """
        port = self.listen_address.port
        own = self._interfaces()
        if self.listen_address in own:
            return own
        seen = [host for host, count in self._seen().items() if count >= MIN_SEEN]
        public = [Address(host, port) for host in seen if scope_of(host) is Scope.WORLD]
        return list(dict.fromkeys((*own, *self._mapped(), *public)))
