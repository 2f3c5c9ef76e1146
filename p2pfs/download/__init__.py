"""Bytes in: from the search for sources to verified blocks in the cache.

    reader          one open file: pinned to one content, whatever happens to its name
    swarms          the swarms of all contents that somebody reads
    scout           searches for further sources of contents that are being fetched
    swarm           one content: locate(offset, size) -> verified bytes in a file
    reading         the reads of one content: answered from the cache, once all is there
    small           files of one block: one exchange, no swarm
    behind          small contents that are read from memory until the disk has them
    pins            contents that the user keeps whole
    picker          which block to ask of which source next
    choosing        which source to ask for one block, and whether to ask a further one
    known           the sources that are remembered, and which of them are asked
    outstanding     the requests that are on their way, and how many may be
    probing         of how many sources a block is asked that nobody has given
    sharing         blocks that are left to other downloaders, and for how long
    source          how one source has behaved: rate, patience, requests
    standing        how a source stands, as a table, and why it gives nothing
    rendezvous      which of several downloaders fetches which block for all of them
    readahead       which blocks readers will want next
    transfers       what goes over the wire for one content
    alarm           one alarm clock for many deadlines
    intake          a queue that lets its taker wait for a whole batch
    batches         what one source is asked for at once
    upstream        below a swarm: searches for sources, the pool of links, blame
    pending_reads   reads that wait for blocks
    verdicts        when reads fail, and with which error
    patience        how long reads wait in vain before they fail
    seeking         the search when no known source gives what reads wait for
    verifying       blocks that have arrived: verified, kept, and only then announced

A read goes downward: reader, swarm, the cache or else the picker, transfers, upstream.

The words for a source, a search and a read that do not come forward:

    silent        a source was asked, and has not answered yet or not in its time
    stuck         a source has been silent for all of its patience: others are asked in its place
    out of reach  no way leads to a source, and it never gave a block
    starved       readers wait for a block that no source can be expected to give soon: search
    hopeless      no source will ever give a block: after a search that found none, its reads fail
    stalled       nothing came for a content for the stall time: all its reads fail
    overdue       one read waited for several stall times, whatever came for others: it fails
"""

from p2pfs.download.pins import Pins, load_pins
from p2pfs.download.reader import Reader
from p2pfs.download.swarm import SwarmStatistics
from p2pfs.download.swarms import Swarms

__all__ = ["Pins", "Reader", "SwarmStatistics", "Swarms", "load_pins"]
