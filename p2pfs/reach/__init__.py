"""Reach: the ways to other servents that nobody has to type, or that a dial does not find.

    lan      servents of one network in one room find each other (DNS-SD)
    hearing  how much of what is said there is heard
    ports    the port that the router of this machine passes on to us
    routers  how a router is asked for that: PCP, NAT-PMP, UPnP
    upnp     the last of them
    wishes   what it is asked for, and what of its answer is believed
    changes  the network of this machine has changed, or the machine has slept
    inviting others are invited, and invitations followed
    linking  links to files, made and checked
    ways     all ways to a servent at once
    push     a servent that cannot be dialled is asked to dial
    punch    two who cannot dial each other dial at one moment
    meeting  the dials of one of these, until there is a link
    circuits two who can do nothing else pass through a neighbour of both
    guides   a neighbour of a servent is made ours, to bring us together
    relays   what others pass through us
    shared   links on which both ends ask
    favours  which neighbour is asked for that, and how often
    directory who is to be dialled for what, told by servents beyond the horizon
    mainline a directory by libtorrent's DHT
    instead  what neighbours tell directories in our stead, and we in theirs
    beyond   what we tell directories, and whom we meet by what they tell

Each part runs until it is cancelled, and then takes back what it has announced or asked for.
"""

from p2pfs.reach.beyond import Beyond
from p2pfs.reach.changes import NetworkChanges
from p2pfs.reach.directory import Directory
from p2pfs.reach.inviting import Inviting
from p2pfs.reach.lan import Lan
from p2pfs.reach.linking import FileLinks
from p2pfs.reach.mainline import MISSING, Mainline, is_installed, open_mainline
from p2pfs.reach.ports import PortMapping
from p2pfs.reach.punch import OwnPort
from p2pfs.reach.relays import RELAY_BYTES_PER_S, Relays
from p2pfs.reach.ways import Ways

__all__ = [
    "MISSING",
    "RELAY_BYTES_PER_S",
    "Beyond",
    "Directory",
    "FileLinks",
    "Inviting",
    "Lan",
    "Mainline",
    "NetworkChanges",
    "OwnPort",
    "PortMapping",
    "Relays",
    "Ways",
    "is_installed",
    "open_mainline",
]
