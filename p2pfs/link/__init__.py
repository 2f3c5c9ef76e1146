"""Live links: dial or answer, greet, and carry messages until the end.

    sockets     dial and listen over TCP
    unixsockets the Unix socket behind the verbs
    interfaces  where others may dial this machine, and its router
    datagrams   one question to a router and its answer, over UDP or TCP
    courier     carries the datagrams of an engine through a port of ours, wrapped
    rations     how many datagrams go to where nobody has answered
    dialling    all addresses of a servent are dialled, and the first that leads to it is taken
    knocks      how often addresses are dialled that others name
    greeting    opens a link: preface, handshake, HELLO
    reception   lets others in
    live        the link itself: its messages both ways, and how it ends
    incoming    what arrives on a link, and its reader
    outgoing    what leaves on a link, and its writer
    replays     early messages are heard once
    keepalive   the watch over a link for silence
    pulse       when a silent peer is asked, and when it is gone
    allowance   how much of each message is read from one link
    outbox      messages that wait to be sent on a link
    asking      what we ask over a link, and the wait for each answer
    requests    requests that were sent and are not answered yet
    pool        transfer links that we dialled, and the requests over them
    unreached   the peers that could not be reached a moment ago

One task reads a link and one writes it. The part that wants a link runs it, and so decides its
life.
"""

from p2pfs.link.courier import LOOPBACK, Courier, open_courier
from p2pfs.link.datagrams import ask_by_datagram, ask_by_stream, search_by_datagram
from p2pfs.link.dialling import STAGGER_S, dial_servent, dial_twice
from p2pfs.link.greeting import (
    ASKS_NOTHING,
    First,
    Judge,
    LocalServent,
    Presented,
    RefusedError,
    answer_link,
    greet,
    present,
)
from p2pfs.link.interfaces import Surroundings, router_of_machine
from p2pfs.link.knocks import Knocks
from p2pfs.link.live import Link, LinkStatistics, OnMessage
from p2pfs.link.outbox import FIRST_DATA_BYTES, SEALED_BYTES
from p2pfs.link.pool import PAGE_SILENCE_S, Deliver, TransferLinks
from p2pfs.link.pulse import DEAD_AFTER_S, PING_AFTER_S
from p2pfs.link.reception import MAX_GREETINGS, Expected, accept_links, listen
from p2pfs.link.sockets import (
    Channel,
    Dialler,
    Listener,
    Network,
    PortTakenError,
    TcpNetwork,
    WaitChange,
)
from p2pfs.link.unixsockets import UnixListener, listen_unix

__all__ = [
    "ASKS_NOTHING",
    "DEAD_AFTER_S",
    "FIRST_DATA_BYTES",
    "LOOPBACK",
    "MAX_GREETINGS",
    "PAGE_SILENCE_S",
    "PING_AFTER_S",
    "SEALED_BYTES",
    "STAGGER_S",
    "Channel",
    "Courier",
    "Deliver",
    "Dialler",
    "Expected",
    "First",
    "Judge",
    "Knocks",
    "Link",
    "LinkStatistics",
    "Listener",
    "LocalServent",
    "Network",
    "OnMessage",
    "PortTakenError",
    "Presented",
    "RefusedError",
    "Surroundings",
    "TcpNetwork",
    "TransferLinks",
    "UnixListener",
    "WaitChange",
    "accept_links",
    "answer_link",
    "ask_by_datagram",
    "ask_by_stream",
    "dial_servent",
    "dial_twice",
    "greet",
    "listen",
    "listen_unix",
    "open_courier",
    "present",
    "router_of_machine",
    "search_by_datagram",
]
