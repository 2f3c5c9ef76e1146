"""Networks that grow as ours do: a newcomer dials the ends of random walks.

`tests/simulation/test_simulate.py` compares their shape with that of real servents.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from p2pfs.config import DEGREE, MAX_NEIGHBOURS
from p2pfs.overlay.degree import CHOSEN, ENOUGH
from p2pfs.protocol.fields import WALK_STEPS

Graph = list[set[int]]
"""The neighbours of each servent."""

TRIES: Final = 50
"""Walks after which a servent takes what it has."""


CONTENT: Final = int(DEGREE * ENOUGH)
"""Links with which a servent looks for no others."""


@dataclass(frozen=True)
class Shape:
    """What a graph looks like from some of its servents."""

    degree: float
    most: int
    clustering: float
    path: float
    """How many links two servents are apart on average."""
    reach: tuple[float, ...]
    """The part of the servents within 1, 2, 3, … links."""


def grow(servents: int, rng: random.Random, degree: int = DEGREE) -> Graph:
    """Return a network into which the servents came one after the other."""
    graph: Graph = [set() for _ in range(servents)]
    for newcomer in range(1, servents):
        graph[newcomer].clear()
        join(graph, newcomer, range(newcomer), rng, degree)
    for servent in range(servents):
        dial(graph, servent, min(int(degree * ENOUGH), servents - 1), rng)
    return graph


def join(
    graph: Graph,
    newcomer: int,
    members: range | list[int],
    rng: random.Random,
    degree: int = DEGREE,
) -> None:
    """Link a newcomer through a member that has room, then by walks."""
    known = rng.choice(members)
    while known == newcomer or len(graph[known]) >= MAX_NEIGHBOURS:
        known = rng.choice(members)
    link(graph, newcomer, known)
    dial(graph, newcomer, min(int(degree * CHOSEN), len(members)), rng)


def dial(graph: Graph, servent: int, links: int, rng: random.Random) -> None:
    """Dial the ends of walks until a servent has so many links."""
    for _ in range(TRIES):
        if len(graph[servent]) >= links:
            return
        end = walk(graph, servent, rng)
        if end != servent and len(graph[end]) < MAX_NEIGHBOURS:
            link(graph, servent, end)


def walk(graph: Graph, start: int, rng: random.Random) -> int:
    """Return where a walk ends, which never goes straight back."""
    before, here = start, start
    for _ in range(WALK_STEPS + 1):
        onward = [one for one in graph[here] if one != before]
        if not onward:
            break
        before, here = here, rng.choice(onward)
    return here


def link(graph: Graph, one: int, other: int) -> None:
    """Make two servents neighbours."""
    graph[one].add(other)
    graph[other].add(one)


def unlink(graph: Graph, servent: int) -> set[int]:
    """Take a servent out; return who were its neighbours."""
    lost, graph[servent] = graph[servent], set()
    for other in lost:
        graph[other].discard(servent)
    return lost


def rings(graph: Graph, origin: int) -> Iterator[list[int]]:
    """Yield the servents that are 1, 2, 3, … links away."""
    seen, ring = {origin}, [origin]
    while ring := list({near for far in ring for near in graph[far]} - seen):
        seen.update(ring)
        yield ring


def shape(graph: Graph, rng: random.Random, samples: int = 50) -> Shape:
    """Describe a graph as seen from some servents."""
    origins = rng.sample(range(len(graph)), min(samples, len(graph)))
    sizes = [[len(ring) for ring in rings(graph, origin)] for origin in origins]
    pairs = sum(map(sum, sizes))
    far = sum(distance * count for one in sizes for distance, count in enumerate(one, 1))
    others = (len(graph) - 1) * len(origins)
    reach = tuple(sum(sum(one[:ttl]) for one in sizes) / others for ttl in range(1, 8))
    return Shape(
        sum(map(len, graph)) / len(graph),
        max(map(len, graph)),
        sum(clustering(graph, origin) for origin in origins) / len(origins),
        far / pairs,
        reach,
    )


def clustering(graph: Graph, servent: int) -> float:
    """Return how many of the pairs of neighbours of a servent are neighbours themselves."""
    near = graph[servent]
    linked = sum(len(graph[one] & near) for one in near)
    return linked / (len(near) * (len(near) - 1)) if len(near) > 1 else 0.0
