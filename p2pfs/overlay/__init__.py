"""The neighbours of this servent, and the messages that flood between them.

    neighbours   the links to neighbours: joining, judging, leaving
    exchange     the peers that neighbours name, and those that are named to them
    twins        another servent uses our identity
    slots        which peer gets a place for a neighbour
    degree       which peer to dial next, and when to walk
    contacts     addresses that answered, and when to dial them again
    bans         peers that flood, or that sent wrong blocks
    announcing   tells neighbours what our share has, and when it changes
    flooding     carries out what the protocol decides about flooded messages
    search       one search of our own, ring by ring
    whereabouts  our identity and addresses, as peers get to know them

`Overlay` keeps the links; `MessageRouter` and `Searches` use them.
"""

from p2pfs.overlay.announcing import Announcer
from p2pfs.overlay.bans import Bans
from p2pfs.overlay.contacts import ContactBook
from p2pfs.overlay.flooding import MessageRouter
from p2pfs.overlay.neighbours import Handlers, Overlay, OverlayOwner
from p2pfs.overlay.search import Hits, Outcome, Searches, answers_in, is_match
from p2pfs.overlay.whereabouts import Whereabouts

__all__ = [
    "Announcer",
    "Bans",
    "ContactBook",
    "Handlers",
    "Hits",
    "MessageRouter",
    "Outcome",
    "Overlay",
    "OverlayOwner",
    "Searches",
    "Whereabouts",
    "answers_in",
    "is_match",
]
