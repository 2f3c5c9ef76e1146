"""A full hall: real servents in memory whose people look around while others publish.

All but sockets, threads and the clock is what users run. Everybody looks at the root and opens
a directory that is new to it every few seconds, one file a second is published; then a third
leaves at once, and comes back.
"""

from __future__ import annotations

import contextlib
import gc
import random
import time
import unittest.mock
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from p2pfs.errors import TransferError
from p2pfs.namespace import Knowledge, belief
from p2pfs.protocol.flood import askers, news, spreading
from simulation.report import quantile
from tests.helpers.world import World, open_world

LATENCY_S: Final = 0.01
"""One way: the wireless network of a full hall."""

COME_APART_S: Final = 0.1
"""Ten come in a second."""

SETTLE_S: Final = 20.0
LOOK_EVERY_S: Final = 5.0
PUBLISH_EVERY_S: Final = 1.0
PHASE_S: Final = 15.0
FILES_EACH: Final = 3
"""In the directory that everybody shares from the start."""

LINKED_WITHIN_S: Final = 3.0
"""Who comes back has a neighbour by then, and looks around from then on."""

SHOWN_WITHIN_S: Final = 2.0
"""A change is in others' open listings by then."""

BACK_WITHIN_S: Final = 5.0
"""What those offer who have come back, all at once, is in others' listings by then: one look in
seventy, four seconds after they had neighbours, lacked one of them."""

PHASES: Final = ("all are there", "a third has left", "a third is back")


@dataclass(frozen=True)
class Look:
    """What somebody saw of a directory."""

    path: str
    took_s: float
    is_whole: bool
    """Whether nothing is said to be missing."""
    missing: frozenset[str]
    """Names that were there for a while, and are not shown."""
    gone: frozenset[str]
    """Names that are shown, and whose holder has left."""
    since_s: float
    """How long the phase had lasted."""


@dataclass(frozen=True)
class Figures:
    """What came of the looks, by phase, and what they cost."""

    looks: Mapping[str, Sequence[Look]]
    cores: Mapping[str, float]
    """The part of a core that a servent took, by phase."""
    joined_s: float
    """Processor time for all to come."""


class Hall:
    """The people, and what they do."""

    def __init__(
        self,
        world: World,
        people: int,
        rng: random.Random,
        phase_s: float,
        publish_every_s: float,
    ) -> None:
        self._world = world
        self._people = people
        self._rng = rng
        self._phase_s = phase_s
        self._publish_every_s = publish_every_s
        self._published_at: dict[tuple[int, str], float] = {}
        """When each servent offered each path."""
        self._present_since = dict.fromkeys(range(people), 0.0)
        self._away: set[int] = set()
        self._phase = PHASES[0]
        self._phase_began_at = 0.0
        self.looks: defaultdict[str, list[Look]] = defaultdict(list)
        self.cores: dict[str, float] = {}

    async def come(self) -> None:
        """Let all come, each through somebody who is there, with something to share."""
        for number in range(self._people):
            joins = [self._rng.randrange(number)] if number else []
            await self._world.start(joins=joins)
            for file in range(FILES_EACH):
                await self._publish(number, f"d{number}/f{file}.txt")
            await trio.sleep(COME_APART_S)
        await trio.sleep(SETTLE_S)

    async def live(self) -> None:
        """Let them look and publish while all are there, a third is away, and it is back."""
        third = self._rng.sample(range(self._people), self._people // 3)
        async with trio.open_nursery() as nursery:
            await self.look(nursery)
            for number in third:
                self._away.add(number)
                self._world.stop(number)
            await self._pass(PHASES[1])
            for number in third:
                await self._world.come_back(number)
            await self._world.until(
                lambda: all(self._world[number].overlay.neighbours for number in third),
                within_s=LINKED_WITHIN_S,
            )
            shown_at = trio.current_time() + BACK_WITHIN_S
            self._present_since |= dict.fromkeys(third, shown_at - SHOWN_WITHIN_S)
            self._away.clear()
            await self._pass(PHASES[2])
            nursery.cancel_scope.cancel()

    async def look(self, nursery: trio.Nursery) -> None:
        """Let them begin to look and publish, and go on for a phase while all are there."""
        for number in range(self._people):
            nursery.start_soon(self._look_around, number)
        nursery.start_soon(self._publish_on)
        await self._pass(PHASES[0])

    async def _pass(self, phase: str) -> None:
        self._phase, self._phase_began_at = phase, trio.current_time()
        began_at = time.process_time()
        await trio.sleep(self._phase_s)
        present = self._people - len(self._away)
        self.cores[phase] = (time.process_time() - began_at) / self._phase_s / present

    async def _publish_on(self) -> None:
        for number in range(1_000_000):
            await trio.sleep(self._publish_every_s)
            who = self._rng.choice(self._present())
            directory = f"d{who}/" if number % 2 else ""
            await self._publish(who, f"{directory}new{number}.txt")

    def _present(self) -> list[int]:
        return [one for one in range(self._people) if one not in self._away]

    async def _publish(self, number: int, path: str) -> None:
        await self._world.share(number, path, path.encode())
        self._published_at[number, path] = trio.current_time()

    async def _look_around(self, number: int) -> None:
        """Look at the root, and then at a directory that was never opened, time and again."""
        others = [one for one in range(self._people) if one != number]
        self._rng.shuffle(others)
        await trio.sleep(self._rng.uniform(0, LOOK_EVERY_S))
        while True:
            looked_at = trio.current_time()
            if number not in self._away:
                await self._look(number, "")
                there = [one for one in others if one not in self._away]
                if there:
                    others.remove(there[0])
                    await self._look(number, f"d{there[0]}")
            await trio.sleep_until(looked_at + LOOK_EVERY_S)

    async def _look(self, number: int, path: str) -> None:
        """Look at a directory as a file manager does, and note what is seen."""
        browser, phase = self._world[number].browser, self._phase
        began_at, expected = trio.current_time(), self._expected(number, path)
        try:
            shown = browser.known_children(path)
            if isinstance(shown, Knowledge):
                shown = await browser.list(path)
            is_whole = browser.partial(path) is None
        except TransferError:
            shown, is_whole = (), False
        if number in self._away:
            return
        names = {node.path for node in shown}
        there = {name for name, _ in self._offered(number, path)}
        left = {one for one in self._names(path, self._away) if one in names} - there
        missing = frozenset((expected & there) - names)
        took_s = trio.current_time() - began_at
        since_s = began_at - self._phase_began_at
        self.looks[phase].append(Look(path, took_s, is_whole, missing, frozenset(left), since_s))

    def _expected(self, number: int, path: str) -> set[str]:
        """Return the names that are there for long enough to be shown."""
        latest = trio.current_time() - SHOWN_WITHIN_S
        return {name for name, since in self._offered(number, path) if since <= latest}

    def _offered(self, number: int, path: str) -> list[tuple[str, float]]:
        """Return the names in a directory that others who are there offer, and since when."""
        return [
            (name, max(at, self._present_since[who]))
            for (who, offered), at in self._published_at.items()
            if who != number and who not in self._away and (name := _child(path, offered))
        ]

    def _names(self, path: str, holders: set[int]) -> set[str]:
        return {
            name
            for who, offered in self._published_at
            if who in holders and (name := _child(path, offered))
        }


def _child(directory: str, path: str) -> str | None:
    """Return what a listing of a directory shows of a path; None if the path is elsewhere."""
    if not directory:
        return path.partition("/")[0]
    return path if path.startswith(f"{directory}/") else None


GARBAGE_AT: Final = (50_000, 50, 100_000)
"""The garbage collector looks seldom at everything, as there are hundreds of servents in one heap:
that took 40 % of the time of all, and in a process of its own each looks at its own objects."""


@contextlib.contextmanager
def crowded(times: float) -> Iterator[float]:
    """Let links carry so many times less, and listings age so much more slowly.

    A flood crosses each link about once each way, so a few people then crowd a hall as many do.
    Yields how much more seldom somebody publishes. What many cost each of them is not among it.
    """
    with (
        unittest.mock.patch.multiple(
            spreading,
            QUERIES_PER_S=spreading.QUERIES_PER_S / times,
            QUERY_BURST=int(spreading.QUERY_BURST / times),
            OWN_COPIES=int(spreading.OWN_COPIES / times),
            OTHERS_COPIES=int(spreading.OTHERS_COPIES / times),
        ),
        unittest.mock.patch.multiple(
            askers,
            SPREAD_PER_S=askers.SPREAD_PER_S / times,
            SPREAD_BURST=int(askers.SPREAD_BURST / times),
            SPREAD_AT_FIRST=int(askers.SPREAD_AT_FIRST / times),
        ),
        unittest.mock.patch.multiple(
            news, NEWS_PER_S=news.NEWS_PER_S / times, NEWS_BURST=int(news.NEWS_BURST / times)
        ),
        unittest.mock.patch.object(belief, "REFRESH_EACH_S", belief.REFRESH_EACH_S * times),
    ):
        yield PUBLISH_EVERY_S * times


async def fill(
    people: int, seed: int = 1, phase_s: float = PHASE_S, as_many: int | None = None
) -> Figures:
    """Let so many people meet in a hall, as crowded as with many; use on a clock that jumps."""
    with crowded((as_many or people) / people) as publish_every_s:
        return await _fill(people, seed, phase_s, publish_every_s)


async def _fill(people: int, seed: int, phase_s: float, publish_every_s: float) -> Figures:
    gc.set_threshold(*GARBAGE_AT)
    began_at = time.process_time()
    async with open_world(latency_s=LATENCY_S, seed=seed) as world:
        hall = Hall(world, people, random.Random(seed), phase_s, publish_every_s)
        await hall.come()
        joined_s = time.process_time() - began_at
        await hall.live()
        return Figures(hall.looks, hall.cores, joined_s)


def hall_table(figures: Figures) -> str:
    """Return a row for each phase and kind of look."""
    lines = [
        "| while | looks at | looks | whole | lack a name | show one that left"
        " | median (s) | 95 % (s) | longest (s) | of a core each |",
        "| --- | --- |" + " ---: |" * 8,
    ]
    for phase, looks in figures.looks.items():
        for kind in ("the root", "a new directory"):
            some = [one for one in looks if bool(one.path) == (kind != "the root")]
            took_s = [one.took_s for one in some]
            lines.append(
                f"| {phase} | {kind} | {len(some)} | {_part(some, 'is_whole')} |"
                f" {_part(some, 'missing')} | {_part(some, 'gone')} |"
                f" {quantile(took_s, 0.5):.2f} | {quantile(took_s, 0.95):.2f} | {max(took_s):.2f} |"
                f" {figures.cores[phase]:.1%} |"
            )
    return "\n".join(lines)


def _part(looks: Sequence[Look], what: str) -> str:
    return f"{sum(bool(getattr(one, what)) for one in looks) / len(looks):.1%}"
