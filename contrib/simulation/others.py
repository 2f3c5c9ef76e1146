"""How others search, as far as they have published it, on the same graph and latencies.

flood        plain flooding with TTL 7 (Gnutella 0.4)
ring         an expanding ring: floods anew with TTL 1, 2, 3, ... (Lv et al., ICS 2002)
walkers      32 random walkers that ask their origin every fourth step (the same)
dynamic      ultrapeers with QRP tables at the last hop, and dynamic querying (Fisk, 2003)
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final

from simulation.graph import Graph
from simulation.network import Result
from simulation.shares import Question

FLOOD_TTL: Final = 7
WALKERS: Final = 32
CHECK_STEPS: Final = 4
MAX_STEPS: Final = 1_024

LEAF_PARENTS: Final = 3
LEAVES: Final = 30
ULTRAPEER_DEGREE: Final = 32
PROBES: Final = 3
"""Ultrapeers that are asked at first, with TTL 1."""

PAUSE_S: Final = 2.4
"""What is waited after a query of TTL 2 or 3 before the next connection is asked."""

FALSE_POSITIVES: Final = 0.01
"""Of a QRP table that is well filled."""

DYNAMIC_TTL: Final = 3
MAX_DYNAMIC_S: Final = 200.0

Latency = Callable[[int, int], float]


class Others:
    """The published ways on one network."""

    def __init__(
        self, graph: Graph, latency: Latency, stopped: AbstractSet[int], rng: random.Random
    ) -> None:
        self._graph = graph
        self._latency = latency
        self._stopped = stopped
        self._rng = rng

    def flood(self, origin: int, question: Question, ttl: int = FLOOD_TTL) -> Result:
        """Ask everybody within reach; it never ends early."""
        messages, times, last_s = self._spread(origin, question.holders, ttl)
        return _result(question, origin, messages, times, last_s)

    def ring(self, origin: int, question: Question) -> Result:
        """Flood again and again, each time further, until there is enough."""
        messages, end_s = 0, 0.0
        for ttl in range(1, FLOOD_TTL + 1):
            more, times, last_s = self._spread(origin, question.holders, ttl)
            messages += more
            if times and not question.wants_all:
                return _result(
                    question, origin, messages, [end_s + t for t in times], end_s + last_s
                )
            end_s += last_s
        return _result(question, origin, messages, [end_s - last_s + t for t in times], end_s)

    def _spread(
        self, origin: int, holders: AbstractSet[int], ttl: int
    ) -> tuple[int, list[float], float]:
        """Return the messages, when hits came home, and when the last message arrived."""
        seen = {origin}
        heap = [(0.0, origin, -1, ttl, 0)]
        messages, times, last_s = 0, [], 0.0
        while heap:
            now, here, came_from, left, hops = heapq.heappop(heap)
            if hops and (here in seen or here in self._stopped):
                continue
            seen.add(here)
            last_s = max(last_s, now)
            if hops and here in holders:
                messages += hops
                times.append(2 * now)
            for other in self._graph[here] - {came_from} if left else ():
                messages += 1
                heapq.heappush(
                    heap, (now + self._latency(here, other), other, here, left - 1, hops + 1)
                )
        return messages, times, 2 * last_s

    def walkers(self, origin: int, question: Question) -> Result:
        """Let walkers go, each until it is told that another one has found something."""
        messages, times, end_s = 0, [], 0.0
        walkers = [(0.0, number, origin, -1, 0) for number in range(WALKERS)]
        found: set[int] = set()
        while walkers:
            now, number, here, before, steps = heapq.heappop(walkers)
            end_s = max(end_s, now)
            is_over = times and min(times) <= now and not question.wants_all
            if steps >= MAX_STEPS or (steps % CHECK_STEPS == 0 and steps and is_over):
                continue
            onward = [one for one in self._graph[here] if one != before] or [before]
            there = self._rng.choice(onward)
            messages += 1 + 2 * (steps % CHECK_STEPS == 0 and steps > 0)
            now += self._latency(here, there)
            if there in self._stopped:
                continue  # the walker is lost
            if there in question.holders and there not in found:
                found.add(there)
                messages += 1
                times.append(now + self._latency(origin, there))
            heapq.heappush(walkers, (now, number, there, here, steps + 1))
        return _result(question, origin, messages, times, end_s)


class Dynamic:
    """A network of ultrapeers and leaves, with dynamic querying."""

    def __init__(
        self, servents: int, latency: Latency, stopped: AbstractSet[int], rng: random.Random
    ) -> None:
        self._latency = latency
        self._stopped = stopped
        self._rng = rng
        count = max(ULTRAPEER_DEGREE // 4, servents * LEAF_PARENTS // LEAVES)
        self._ultrapeers = range(min(count, servents))
        degree = min(ULTRAPEER_DEGREE, len(self._ultrapeers) - 1)
        self._near: Graph = [set() for _ in self._ultrapeers]
        for one in self._ultrapeers:
            while len(self._near[one]) < degree / 2 + 1:
                other = rng.choice(self._ultrapeers)
                if other != one:
                    self._near[one].add(other)
                    self._near[other].add(one)
        self._leaves: Graph = [{one} for one in self._ultrapeers]
        self._parents: dict[int, list[int]] = {one: [one] for one in self._ultrapeers}
        for leaf in range(len(self._ultrapeers), servents):
            self._parents[leaf] = rng.sample(self._ultrapeers, min(LEAF_PARENTS, count))
            for parent in self._parents[leaf]:
                self._leaves[parent].add(leaf)

    def search(self, origin: int, question: Question) -> Result:
        """Ask one connection after the other, with the TTL that should be enough."""
        home = self._rng.choice(self._parents[origin])
        if home in self._stopped:
            return _result(question, origin, 1, [], 0.0)
        wanted = len(question.holders) if question.wants_all else 1
        now = self._latency(origin, home)
        messages, hits = 1, {}
        seen = {home}
        messages += self._ask_leaves(home, question, now, hits)
        connections = self._rng.sample(sorted(self._near[home]), len(self._near[home]))
        asked = 0
        for number, other in enumerate(connections):
            ttl = (
                1
                if number < PROBES
                else self._ttl(len(hits), asked, wanted, len(connections) - number)
            )
            messages += self._ask(home, other, ttl, question, now, hits, seen)
            asked += sum((ULTRAPEER_DEGREE - 1) ** hop for hop in range(ttl))
            if number >= PROBES - 1:
                now += PAUSE_S
            arrived = sum(at <= now for at in hits.values())
            if (arrived >= wanted and wanted) or now > MAX_DYNAMIC_S:
                break
        times = [at + self._latency(origin, home) for at in hits.values()]
        return _result(question, origin, messages, times, now)

    @staticmethod
    def _ttl(hits: int, asked: int, wanted: int, left: int) -> int:
        """Return the smallest TTL whose horizon should bring what is missing from those left."""
        needed = (wanted - hits) * asked / max(hits, 0.1) / max(1, left)
        for ttl in range(1, DYNAMIC_TTL):
            if sum((ULTRAPEER_DEGREE - 1) ** hop for hop in range(ttl)) >= needed:
                return ttl
        return DYNAMIC_TTL

    def _ask(
        self,
        home: int,
        first: int,
        ttl: int,
        question: Question,
        now: float,
        hits: dict[int, float],
        seen: set[int],
    ) -> int:
        messages = 0
        waiting = [(now + self._latency(home, first), first, home, ttl)]
        messages += 1
        while waiting:
            at, here, before, left = heapq.heappop(waiting)
            if here in seen or here in self._stopped:
                continue
            seen.add(here)
            messages += self._ask_leaves(here, question, at, hits)
            for other in self._near[here] - {before} if left > 1 else ():
                if left == 2 and not self._may_have(other, question):
                    continue  # the table of a neighbour is looked at before the last hop
                messages += 1
                heapq.heappush(waiting, (at + self._latency(here, other), other, here, left - 1))
        return messages

    def _may_have(self, ultrapeer: int, question: Question) -> bool:
        return bool(self._leaves[ultrapeer] & question.holders) or self._is_false_positive()

    def _is_false_positive(self) -> bool:
        return self._rng.random() < FALSE_POSITIVES

    def _ask_leaves(
        self, ultrapeer: int, question: Question, at: float, hits: dict[int, float]
    ) -> int:
        messages = 0
        for leaf in self._leaves[ultrapeer]:
            if leaf in question.holders or self._is_false_positive():
                messages += leaf != ultrapeer
                if leaf in question.holders and leaf not in self._stopped:
                    messages += 2
                    hits.setdefault(leaf, at + 2 * self._latency(leaf, ultrapeer))
        return messages


def _result(
    question: Question, origin: int, messages: int, times: list[float], end_s: float
) -> Result:
    others = len(question.holders - {origin})
    wanted = others if question.wants_all else min(1, others)
    return Result(messages, 0.0, len(times), wanted, min(times, default=None), end_s)
