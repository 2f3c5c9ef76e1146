"""What it costs to know what many others have: processor, the longest pause, memory for a name.

PYTHONPATH=.:contrib .venv/bin/python -m benchmarks.listings [NAMES_HELD]
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable
from typing import Final

from blake3 import blake3

from p2pfs.namespace import Catalogue
from p2pfs.protocol import Address, Entry, PeerInfo, ServentId

PROVIDERS: Final = 500
NAMES_OF_EACH: Final = 50
"""As many as fit one hit."""

HELD: Final = 100_000
IN_ONE_DIRECTORY: Final = 1_000

KIB: Final = 1024


def main(arguments: list[str]) -> None:
    """Measure, and print it."""
    held = int(arguments[0]) if arguments else HELD
    gc.disable()  # what it takes once in a while is not what an operation takes
    before = peak_bytes()
    catalogue = Catalogue()
    took = Longest()
    for number in range(0, held, IN_ONE_DIRECTORY):
        entries = [entry(f"d{number}/file {number + i}") for i in range(IN_ONE_DIRECTORY)]
        for first in range(0, IN_ONE_DIRECTORY, 100):
            part = entries[first : first + 100]
            took.of(lambda part=part: catalogue.learn(provider(10**6), part))
    print(f"{(peak_bytes() - before) / held:.0f} bytes for each of {held:,} names of one servent")
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
    parts = list(catalogue.parts(""))
    print(f"shown: {since_ms(began_at):.0f} ms for {sum(map(len, parts)):,} names")
    took.of(lambda: catalogue.learn_listing(provider(0), "", []))
    while took.of(catalogue.fade):
        pass
    print(f"longest pause: {took.ms:.1f} ms")


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
    return Entry(path, 1_000_000, 1_700_000_000_000_000_000, blake3(path.encode()).digest())


def peak_bytes() -> int:
    """Return the most memory that this process had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB


if __name__ == "__main__":
    main(sys.argv[1:])
