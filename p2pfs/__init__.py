"""A peer-to-peer file-sharing network that looks like a folder.

The map, top to bottom. A module imports only from lines below its own.

    cli                       argv -> Config -> a verb; exit statuses; prints
    lifetime | doctor         a servent process from start to end | what keeps us from working
      | screen | service        tables, progress bars and `top` | the unit of the user's systemd
    wording                   values as people read them
    background | desktop      start ourselves anew in the background | notifications
      | manager                 what systemd is told of a servent
    mount                     fusepy adapter: kernel threads -> tree, exceptions -> errno
    filesystem/ | control     the tree as users see it | the Unix socket behind the verbs
    servent                   the owner: opens everything below, accepts links, answers queries
    overlay|uploads|swarms    joining and staying joined | serving blocks | one swarm per file
      | browser|results|shares  what network/, search/ and peers/ show
    records | small           what the verbs tell, as JSON objects | files of one block: no swarm
    search | swarm            one query's life | locate(offset, size) -> verified bytes in a file
      | pins                    | what the user keeps
    link | library | cache    a live link | what shared/ offers | verified blocks on disk
      | catalogue | journal     | what network/ is known to hold | what happened, for people
    network | picker          dial and listen: the only sockets | which block from whom next
      | source | fellows        | how quick one source has been | readers who share the work
      | readahead               | what readers will want
      | waiting | arrivals      | reads that wait for blocks | blocks that wait to be verified
      | upstream                | what a swarm asks of its owner, and of one source at a time
      | troubles | tasks        | what goes wrong at a source | tasks that outlive calls
    protocol/ | rates         the wire, sans-IO: see protocol/PROTOCOL.md | how many bytes may pass
    state                     the directory of a servent: made, held, unmade
    config                    every knob, once
    errors                    every exception, by whose fault it is

To follow one read, start at `mount.Adapter` and go downward: `filesystem.network.read`,
`swarm.locate`, `cache` on a hit, else `picker`, `link.stream`, `manifest.verify`, `cache.put`.
"""

__version__ = "0.1.0"
