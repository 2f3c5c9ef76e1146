"""What a control message costs: searches through some servents, each a process of its own.

Everybody asks for names that nobody has, so nothing passes but queries and their echoes: the
processor that all took, divided by the messages that they sent, is what one costs both ends. The
verbs that begin the searches are measured on a servent without neighbours, and left out.

PYTHONPATH=.:contrib .venv/bin/python -m benchmarks.floods [SERVENTS [SEARCHES_OF_EACH]]
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks.contestants import HOST, P2PFS
from benchmarks.workshop import Process, Workshop
from p2pfs.control.client import Running, ask, servent_of

SERVENTS: Final = 12
SEARCHES: Final = 25
"""Below what a servent may begin at once."""

SETTLE_S: Final = 5.0
"""Until all have dialled whom they want."""


def main(arguments: Sequence[str]) -> None:
    """Measure, and print what a message costs."""
    count, searches = (
        [*map(int, arguments), SERVENTS, SEARCHES][:2]
        if arguments
        else (
            SERVENTS,
            SEARCHES,
        )
    )
    with Workshop() as workshop:
        os.environ.update(workshop.environment())
        servents = start(workshop, 1)
        verb_s = -took(servents)[0]
        search(servents[0][0], searches)
        verb_s = (verb_s + took(servents)[0]) / searches
        start(workshop, count - 1, servents)
        time.sleep(SETTLE_S)
        before = took(servents)
        began_at = time.monotonic()
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(search, [one for one, _ in servents], [searches] * count))
        seconds = time.monotonic() - began_at
        cpu_s, messages = (late - early for late, early in zip(took(servents), before, strict=True))
    print(f"{count} servents, {count * searches} searches in {seconds:.1f} s")
    print(f"{messages} messages, {cpu_s:.2f} s of processor")
    cpu_s -= count * searches * verb_s
    print(f"{verb_s * 1e3:.1f} ms for a search of one that is alone")
    print(f"{cpu_s / messages * 1e6:.0f} us a message for both ends, without that")


def start(
    workshop: Workshop, count: int, servents: list[tuple[Running, Process]] | None = None
) -> list[tuple[Running, Process]]:
    """Start so many servents beside those that run; each joins through the first."""
    servents = [] if servents is None else servents
    for number in range(len(servents), len(servents) + count):
        state = workshop.directory(f"servent-{number}")
        command = (*P2PFS, "serve", "--foreground", "--listen", f"{HOST}:0", "--state", state)
        joins = ("--join", str(ask(servents[0][0], "status", {})["listen"])) if servents else ()
        process = workshop.start((*command, *joins))
        process.wait_for(functools.partial(is_ready, process), "readiness")
        servents.append((servent_of(os.fspath(state)), process))
    return servents


def is_ready(process: Process) -> bool:
    """Return whether a servent has said that it listens."""
    return "listening on " in process.output()


def took(servents: Sequence[tuple[Running, Process]]) -> tuple[float, int]:
    """Return the seconds of processor that all have taken, and the messages that they sent."""
    sent = sum(int(ask(one, "status", {})["messages_out"]) for one, _ in servents)
    return sum(process.cpu_s() for _, process in servents), sent


def search(servent: Running, times: int) -> None:
    """Ask for what is nowhere."""
    for number in range(times):
        ask(servent, "search", {"words": f"nothing{number} x{os.urandom(4).hex()}"})


if __name__ == "__main__":
    main(sys.argv[1:])
