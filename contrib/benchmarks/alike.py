"""What a look costs where many have files of the same names, each another content.

PYTHONPATH=.:contrib .venv/bin/python -m benchmarks.alike [SERVENTS [NAMES]]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

from benchmarks.listings import provider
from p2pfs.namespace import Catalogue
from p2pfs.protocol import Entry, FileId

SERVENTS: Final = 300
NAMES: Final = 20
LOOKS: Final = 200
DIRECTORY: Final = "d"


def main(arguments: list[str]) -> None:
    """Measure, and print it."""
    servents, names = (int(a) for a in (*arguments, SERVENTS, NAMES)[:2])
    names_alike(servents, names)
    sizes_of_one_id(servents)


def names_alike(servents: int, names: int) -> None:
    """Measure looks at a directory in which each servent has files of the same names."""
    catalogue = Catalogue()

    def learn(servent: int, salt: int = 0) -> None:
        entries = [entry(name, servent + salt) for name in range(names)]
        catalogue.learn(provider(servent), entries)

    shown = catalogue.shown
    tell(f"{servents} servents share {names} names", lambda: list(map(learn, range(servents))))
    nodes = shown.children(DIRECTORY)
    tell(f"ls of {len(nodes):,} names", lambda: shown.children(DIRECTORY))
    some = nodes[:: max(1, len(nodes) // LOOKS)]
    tell("stat", lambda: [shown.lookup(node.path, 0) for node in some], len(some))
    tell("open and close", lambda: [shown.hold(node)() for node in some], len(some))
    changes = range(1, 21)

    def look_after_changes() -> None:
        for salt in changes:
            learn(0, salt * servents)
            shown.lookup(nodes[salt].path, 0)

    tell("all names change at one servent, and a stat", look_after_changes, len(changes))
    tell("ls after that", lambda: shown.children(DIRECTORY))
    everybody = [provider(number).id for number in range(servents)]
    tell("all leave", lambda: list(map(catalogue.forget, everybody)), servents)


def sizes_of_one_id(liars: int) -> None:
    """Measure a look at a name of which each liar announces another size."""
    catalogue = Catalogue()
    one = FileId(bytes(range(32)))
    for size in range(1, liars + 1):
        catalogue.learn(provider(size), [Entry("x", size, 0, one)])
    tell(f"{liars} sizes of one content: the first stat", lambda: catalogue.shown.lookup("x", 0))


def entry(name: int, salt: int) -> Entry:
    """Return a file of a content of its own."""
    return Entry(f"{DIRECTORY}/notes {name}.txt", 5, 0, (name << 32 | salt).to_bytes(32, "big"))


def tell(what: str, act: Callable[[], object], count: int = 1) -> None:
    """Print how long something takes, for each of a number of times."""
    began_at = time.process_time()
    act()
    print(f"{what}: {(time.process_time() - began_at) * 1e3 / count:.3f} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
