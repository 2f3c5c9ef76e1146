"""Let people search in grown networks, or meet in a hall, and tell what came of it."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import trio
from trio.testing import MockClock

from p2pfs.config import MAX_TTL
from simulation import graph as graphs
from simulation import hall
from simulation.graph import Shape
from simulation.network import Result, SimulatedNetwork
from simulation.others import Dynamic, Others
from simulation.report import Table, latency_chart, result_table, shape_table, success_chart
from simulation.shares import Question, Shares

SIZES: Final = (100, 1_000, 10_000)
HALL_SIZES: Final = (300,)

QUESTIONS: Final = {100: 40, 1_000: 20, 10_000: 4}
"""Of each kind: a larger network takes longer for each, and differs less between them."""

CONTESTANTS: Final = ("p2pfs", "without filters", "flooding", "ring", "walkers", "dynamic")

STOPPED: Final = 0.01
"""The part of servents that are silent while their links stay open."""

CHURN_S: Final = 60.0
"""The time between two questions in which servents come and go."""

DEEP_TTL: Final = MAX_TTL
DEEP_FROM: Final = 5_000
"""Servents from which a search needs a fifth link to reach all."""

Asker = Callable[[Shares], Question]


def kinds(servents: int) -> dict[str, Asker]:
    """Return what is looked for, by its name."""
    return {
        "one copy": lambda shares: shares.copies(1),
        "1 % copies": lambda shares: shares.copies(max(1, servents // 100)),
        "an absent name": lambda shares: shares.copies(0),
        "directory of one holder": lambda shares: shares.directory(),
        "two words, all": lambda shares: shares.words(),
    }


def simulate(
    servents: int,
    questions: int,
    contestants: Sequence[str] = CONTESTANTS,
    seed: int = 1,
    ttl: int | None = None,
) -> tuple[Shape, Table]:
    """Return the shape of one network and what all kinds of searches in it brought."""
    ttl = ttl or (DEEP_TTL if servents >= DEEP_FROM else DEEP_TTL - 1)
    shape, table = None, {}
    for one in contestants:
        clock = MockClock(autojump_threshold=0)
        shape, more = trio.run(
            _simulate, servents, questions, one, ttl, random.Random(seed), clock=clock
        )
        table |= more
    assert shape is not None
    order = [*kinds(servents)]
    return shape, dict(sorted(table.items(), key=lambda row: order.index(row[0][0])))


async def _simulate(
    servents: int, questions: int, contestant: str, ttl: int, rng: random.Random
) -> tuple[Shape, Table]:
    """Let one contestant search: each has the same network to begin with."""
    graph = graphs.grow(servents, rng)
    shape = graphs.shape(graph, rng)
    shares = Shares(servents, rng)
    has_filters = contestant == CONTESTANTS[0]
    network = SimulatedNetwork(graph, shares, rng, ttl=ttl, has_filters=has_filters)
    network.stopped = set(rng.sample(range(servents), int(servents * STOPPED)))
    others = Others(graph, network.latency, network.stopped, rng)
    ask = {
        "flooding": others.flood,
        "ring": others.ring,
        "walkers": others.walkers,
        "dynamic": Dynamic(servents, network.latency, network.stopped, rng).search,
    }.get(contestant)
    table: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.run)
        await network.settle()
        for name, asker in kinds(servents).items():
            for _ in range(questions):
                await network.churn(CHURN_S)
                question = asker(shares)
                await network.publish(question.holders)
                origin = rng.choice([one for one in range(servents) if one not in network.stopped])
                result = ask(origin, question) if ask else await network.search(origin, question)
                table[name, contestant].append(result)
        nursery.cancel_scope.cancel()
    return shape, table


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="contrib/simulate", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, help="servents in a network")
    parser.add_argument("--hall", action="store_true", help="let real servents meet in a hall")
    parser.add_argument("--as", type=int, dest="as_many", help="crowd a hall as so many would")
    parser.add_argument("--phase", type=float, default=hall.PHASE_S, help="seconds in a hall")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ttl", type=int, choices=range(1, MAX_TTL + 1), help="of p2pfs")
    parser.add_argument("--charts", type=Path, help="a directory for the charts")
    options = parser.parse_args(arguments)
    if options.hall:
        return fill_halls(options.sizes or HALL_SIZES, options.phase, options.seed, options.as_many)
    shapes = {}
    for servents in options.sizes or SIZES:
        began_at = time.process_time()
        questions = next(count for size, count in QUESTIONS.items() if servents <= size)
        asked = (servents, questions, options.only, options.seed, options.ttl)
        shapes[servents], table = simulate(*asked)
        seconds = time.process_time() - began_at
        print(f"\n{servents:,} servents, {questions} searches of each kind:\n")
        print(result_table(table))
        print(f"simulated in {seconds:.0f} s of processor time", file=sys.stderr)
        if options.charts:
            draw(options.charts, servents, table)
    print(f"\n{shape_table(shapes)}")
    return 0


def fill_halls(sizes: Sequence[int], phase_s: float, seed: int, as_many: int | None) -> int:
    """Let so many people meet, each number in a hall of its own; print what they saw."""
    for people in sizes:
        clock = MockClock(autojump_threshold=0)
        figures = trio.run(hall.fill, people, seed, phase_s, as_many, clock=clock)
        print(f"\n{people:,} people in a hall:\n\n{hall.hall_table(figures)}")
        print(f"all came in {figures.joined_s:.0f} s of processor time", file=sys.stderr)
    return 0


def draw(directory: Path, servents: int, table: Table) -> None:
    """Write the charts of one network."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, chart in (("success", success_chart), ("latency", latency_chart)):
        (directory / f"{name}-{servents}.svg").write_text(chart(table, "one copy"))
