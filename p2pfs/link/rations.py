"""How many datagrams go to where nobody has answered.

Theory. An engine sends to whatever address it is told, and one answer of a liar names fifty: fifty
datagrams at ports of one victim, for one. So datagrams to a network (/24) from which nothing comes
back have a rate. One that is answered costs nothing, and whoever has spoken is answered: each
datagram that comes from an address is good for SPOKEN to it, and one that is forged for no more.
"""

from __future__ import annotations

from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import Address, groups_of
from p2pfs.protocol.flood import TokenBucket

UNANSWERED_PER_MINUTE: Final = 6
UNANSWERED_BURST: Final = 32
"""Datagrams to one network that are not answered: so many are on their way at once in a table that
grows, and in a hall where a third has gone."""

SPOKEN: Final = 4
"""Datagrams that are sent to an address for each one that comes from it: an answer, and a question
of our own that may be lost."""

MAX_RATIONED: Final = 4_096
"""Networks and addresses that are remembered."""


class Rations:
    """What may be sent, and to whom. Give it the time."""

    def __init__(self) -> None:
        self._networks: Latest[str, TokenBucket] = Latest(MAX_RATIONED)
        self._spoken: Latest[Address, int] = Latest(MAX_RATIONED)
        """How many datagrams to an address are paid for."""
        self._owed: Latest[Address, None] = Latest(MAX_RATIONED)
        """The addresses whose networks have paid."""

    def may_send(self, to: Address, now: float) -> bool:
        """Charge a datagram, and return whether it is sent."""
        paid = self._spoken.get(to, 0)
        if paid:
            self._spoken[to] = paid - 1
            return True
        is_sent = self._network(to).take(now)
        if is_sent:
            self._owed[to] = None
        return is_sent

    def came_from(self, sender: Address) -> None:
        """Note that a datagram came from an address: whoever is there takes part."""
        self._spoken[sender] = SPOKEN
        if sender in self._owed:
            del self._owed[sender]
            self._network(sender).give_back(1)

    def _network(self, address: Address) -> TokenBucket:
        return self._networks.renew(groups_of(address.host)[0], _bucket)


def _bucket() -> TokenBucket:
    return TokenBucket(UNANSWERED_PER_MINUTE / 60, UNANSWERED_BURST)
