"""What it costs to know what many others have: processor, the longest pause, memory for a name.

PYTHONPATH=.:contrib .venv/bin/python -m benchmarks.listings [NAMES_HELD]
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from blake3 import blake3

from p2pfs.namespace import Catalogue
from p2pfs.protocol import Address, Entry, Listing, PeerInfo, ServentId

PROVIDERS: Final = 500
NAMES_OF_EACH: Final = 50
"""As many as fit one hit."""

HELD: Final = 100_000
IN_ONE_DIRECTORY: Final = 1_000

AT_ONCE: Final = 100
"""Entries that are taken in without a break."""

NAMES_OF_ONE: Final = 100_000
"""Names that one servent has at most."""

KIB: Final = 1024

DECODER: Final = msgspec.msgpack.Decoder(Listing)


def main(arguments: list[str]) -> None:
    """Measure, and print it."""
    held = int(arguments[0]) if arguments else HELD
    gc.disable()  # what it takes once in a while is not what an operation takes
    before = peak_bytes()
    catalogue = Catalogue()
    took = Longest()
    for number in range(0, held, IN_ONE_DIRECTORY):
        holder = provider(10**6 + number // NAMES_OF_ONE)
        for part in pages(number):
            took.of(lambda: catalogue.learn(holder, part))  # noqa: B023
    print(f"{(peak_bytes() - before) / held:.0f} bytes for each of {held:,} names")
    one_of_many(catalogue)
    hits = [
        (provider(number), [entry(f"{number}-{i}") for i in range(NAMES_OF_EACH)])
        for number in range(PROVIDERS)
    ]
    for what in ("first", "again"):
        began_at = time.process_time()
        for source, entries in hits:
            took.of(lambda: catalogue.learn_listing(source, "", entries))  # noqa: B023
        took.of(lambda: catalogue.keep_only("", [source.id for source, _ in hits]))
        print(f"{PROVIDERS} hits of {NAMES_OF_EACH} names, {what}: {since_ms(began_at):.0f} ms")
    began_at = time.process_time()
    parts = list(catalogue.shown.parts(""))
    print(f"shown: {since_ms(began_at):.0f} ms for {sum(map(len, parts)):,} names")
    took.of(lambda: catalogue.learn_listing(provider(0), "", []))
    while took.of(catalogue.fade):
        pass
    print(f"longest pause: {took.ms:.1f} ms")


def one_of_many(catalogue: Catalogue) -> None:
    """Measure what a directory of 1,000 names and a servent with 50 cost among all."""
    began_at = time.process_time()
    shown = sum(map(len, catalogue.shown.parts("d0")))
    print(f"ls of a directory of {shown:,} names: {since_ms(began_at):.1f} ms")
    guest = provider(9 * 10**5)
    catalogue.learn_listing(guest, "", [entry(f"guest {i}") for i in range(NAMES_OF_EACH)])
    began_at = time.process_time()
    catalogue.forget(guest.id)
    print(f"a servent with {NAMES_OF_EACH} names leaves: {since_ms(began_at):.1f} ms")
    began_at = time.process_time()
    gc.collect()
    print(f"a collection of all garbage: {since_ms(began_at):.0f} ms")


def pages(number: int) -> Iterator[tuple[Entry, ...]]:
    """Yield the entries of a directory in parts, as they come over a link."""
    for first in range(number, number + IN_ONE_DIRECTORY, AT_ONCE):
        entries = tuple(entry(f"d{number}/file {i}") for i in range(first, first + AT_ONCE))
        yield DECODER.decode(msgspec.msgpack.encode(Listing(entries, has_more=False))).entries


class Longest:
    """The longest that anything took."""

    def __init__(self) -> None:
        self.ms = 0.0

    def of(self, function: Callable[[], object]) -> object:
        """Call something, and note how long it took."""
        began_at = time.process_time()
        result = function()
        self.ms = max(self.ms, since_ms(began_at))
        return result


def since_ms(began_at: float) -> float:
    """Return the milliseconds of processor since a time."""
    return (time.process_time() - began_at) * 1000


def provider(number: int) -> PeerInfo:
    """Return a servent."""
    address = Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 4774)
    return PeerInfo(ServentId(f"{number:a>32}"), f"servent {number}", (address,))


def entry(path: str) -> Entry:
    """Return a file of its own content."""
    content = blake3(path.encode()).digest()
    number = int.from_bytes(content[:4], "big")  # sizes and times differ, as those of files do
    return Entry(path, 1 + number, 1_700_000_000_000_000_000 + number, content)


def peak_bytes() -> int:
    """Return the most memory that this process had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB


if __name__ == "__main__":
    main(sys.argv[1:])
