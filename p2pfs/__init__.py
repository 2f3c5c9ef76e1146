"""A peer-to-peer file-sharing network that looks like a folder.

The map, top to bottom. A package imports only from lines below its own, and others by their
faces: the names that its `__init__` exports. Each face draws the map of its package.

    cli/          what people type and read: argv -> a verb -> tables and exit statuses
    host/         a servent process on this machine: lifetime, background, desktop, doctor
    mount/        the only part that knows FUSE: kernel threads -> tree, exceptions -> errno
    control/      the Unix socket behind the verbs
    filesystem/   the tree as users see it; raises OSError
    servent       composition: opens everything below, wires it, and no more
    acts          the acts that the user asks of it: join, invite, leave, pause
    arrivals      what follows when a neighbour comes, goes, brings a hit or changes
    report        what the verbs and `.p2pfs/` tell, as JSON objects
    peering       all links to others: which there are, and which peers get none
    ondisk        what a servent has on disk, and needs no peer for
    download/     bytes in: readers, swarms, pins
    namespace/    what a name is: what `network/`, `search/` and `peers/` show
    upload/       bytes out: the offer, and which peer is served next
    reach/        ways to other servents that nobody has to type, or that a dial does not find
    overlay/      the neighbours, and the messages that flood
    link/         every stream: sockets, greeting, live links, the pool of dialled ones
    library/      what `shared/` offers
    cache/        verified blocks on disk
    wording       values as people read them
    keys          the identity of a servent, and the key of a private network
    history       what was fetched, for which program and from which peers
    journal       what happened, for people
    roots         which directories lie behind `shared/`
    settings      the settings of a running servent, and limits that follow the hour
    audiences     who may know of each share
    groups        the groups of servents, as config.toml has them at any moment
    protocol/     the wire, sans-IO: see protocol/PROTOCOL.md
    rates         how many bytes may pass
    tasks         tasks that outlive the calls which start them
    threads       threads for what may block, in lanes
    latest        tables that are bounded: what was put longest ago goes first
    state         the directory of a servent: made, held, unmade
    config/       every knob, once
    filelinks     one line of text that leads to a file
    attempts      calls that may never return
    allocation    room on the disk: reserved, or given back
    invitations   one line of text that lets others join
    mounts        the kernel's table of mounts
    endpoints     a host and a port, and how they are written
    errors        every exception, by whose fault it is

The way of one read through all this is in contrib/docs/hacking.md, one file a line.
"""

__version__ = "0.1.0"
