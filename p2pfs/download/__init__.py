"""Bytes in: from the search for sources to verified blocks in the cache.

    swarms          readers join the swarm of their content here; further sources are looked for
    swarm           one content: locate(offset, size) -> verified bytes in a file
    small           files of one block: one exchange, no swarm
    pins            contents that the user keeps whole
    picker          which block to ask of which source next
    source          how one source has behaved: rate, patience, trouble
    rendezvous      which of several downloaders fetches which block for all of them
    readahead       which blocks readers will want next
    upstream        what a swarm asks of its owner, and of one source at a time
    pending_reads   reads that wait for blocks
    verifying       blocks that wait to be verified

A read goes downward: swarms, swarm, the cache or the picker, upstream.
"""

from p2pfs.download.pins import Pins, load_pins
from p2pfs.download.swarm import SwarmStatistics
from p2pfs.download.swarms import Reader, Swarms

__all__ = ["Pins", "Reader", "SwarmStatistics", "Swarms", "load_pins"]
