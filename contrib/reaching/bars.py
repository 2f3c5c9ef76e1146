"""What is measured, one function each, and what it must be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from p2pfs.reach import RELAY_BYTES_PER_S
from reaching.places import PORT, Place
from reaching.ring import COUNT, PROCESSES, Ring, hops, host_of, open_ring, wait_formed
from tests.helpers.hosts import Host, Router
from tests.helpers.mounted import PROJECT, Servent, make_shared, until

MIB = 1024 * 1024
READ_BYTES = 128 * 1024
FILM_BYTES = 24 * MIB
FILM_RATE = "2M"
OUTAGE_S = 150.0
SLEEP_S = 120.0
FAR_MS = 50.0
FAR_HOPS = 20
FEW_NODES = 8
TOLD_S = 10.0
KILL_AFTER_S = 60.0
KILLED = (2, 5, 8)
"""Processes of the ring, each with a tenth of its servents."""
NEIGHBOURS = 12
SETTLED_S = 90.0
IDLE_S = 300.0
DIRECTORY_IDLE_S = 900.0
"""A directory is told again every quarter of an hour."""
DAY_S = 86_400
LETTER = b"dear all\n" * 1000


@dataclass(frozen=True)
class Measured:
    """A figure, and whether it is what it must be."""

    figure: str
    is_met: bool


@dataclass(frozen=True)
class Bar:
    """One thing that is measured."""

    name: str
    title: str
    bar: str
    measure: Callable[[Place], Measured]
    document: str = "reach.md"
    """Where its row stands."""


def _seconds(value: float, most: float, *, note: str = "") -> Measured:
    return Measured(f"{value:.2f} s{note}", value <= most)


def _seconds_until(claim: Callable[[], object]) -> float:
    began_at = time.monotonic()
    until(claim)
    return time.monotonic() - began_at


def _film(size: int = FILM_BYTES) -> bytes:
    return os.urandom(MIB) * (size // MIB)


def _two_linked(place: Place, *, mounted: bool, options: Sequence[str] = ()) -> tuple:
    """Return two hosts on one switch, and a servent on each, linked to the other."""
    switch = place.wires.switch()
    hosts = [place.wires.host(switch, f"10.50.0.{number}") for number in (1, 2)]
    first = place.start("first", hosts[0], *options, mounted=mounted)
    second = place.start("second", hosts[1], "--join", f"10.50.0.1:{PORT}", mounted=mounted)
    until(lambda: first.neighbours() and second.neighbours())
    return hosts, first, second


def outage(place: Place) -> Measured:
    hosts, _, second = _two_linked(place, mounted=False)
    hosts[1].run("ip link set eth0 down")
    time.sleep(OUTAGE_S)
    until(lambda: not second.neighbours())
    hosts[1].run("ip link set eth0 up")
    return _seconds(_seconds_until(second.neighbours), 3.0)


def asleep(place: Place) -> Measured:
    _, first, second = _two_linked(place, mounted=False)
    second.send(signal.SIGSTOP)
    time.sleep(SLEEP_S)
    until(lambda: not first.neighbours())
    second.send(signal.SIGCONT)
    return _seconds(_seconds_until(first.neighbours), 3.0)


def _longest_wait(path: Path) -> tuple[float, int]:
    """Read a file to its end; return the longest that one read took, and how many failed."""
    longest, errors, offset = 0.0, 0, 0
    with path.open("rb", buffering=0) as file:
        while offset < FILM_BYTES:
            began_at = time.monotonic()
            try:
                offset += len(os.pread(file.fileno(), READ_BYTES, offset))
            except OSError:
                errors += 1
            longest = max(longest, time.monotonic() - began_at)
    return longest, errors


def _moves(place: Place, who: int) -> Measured:
    hosts, source, reader = _two_linked(place, mounted=True, options=("--upload-limit", FILM_RATE))
    source.share("film.mkv", _film())
    film = reader.sees("film.mkv")
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(_longest_wait, film)
        until(lambda: int(str(reader.status()["downloaded_bytes"])) > FILM_BYTES / 4)
        old = f"10.50.0.{who + 1}"
        hosts[who].run(f"ip address del {old}/24 dev eth0; ip address add 10.50.0.22/24 dev eth0")
        longest, errors = reading.result()
    measured = _seconds(longest, 5.0, note=f", {errors} errors")
    return Measured(measured.figure, measured.is_met and not errors)


def source_moves(place: Place) -> Measured:
    return _moves(place, 0)


def reader_moves(place: Place) -> Measured:
    return _moves(place, 1)


def _middle(place: Place, street: object) -> Servent:
    return place.start("middle", place.wires.host(street, "93.184.216.1"))


def _join(place: Place, name: str, host: Host) -> Servent:
    return place.start(name, host, "--join", f"93.184.216.1:{PORT}")


def push(place: Place) -> Measured:
    street = place.wires.switch()
    _middle(place, street)
    source = _join(place, "source", place.home(street))
    reader = _join(place, "reader", place.wires.host(street, "93.184.216.2"))
    source.share("letter.txt", LETTER)
    letter = reader.sees("letter.txt")
    began_at = time.monotonic()
    letter.read_bytes()
    return _seconds(time.monotonic() - began_at, 1.0)


def _reads(
    place: Place, kinds: Sequence[Router], times: int, *, loss_percent: float = 3.0
) -> list[str]:
    """Return how long each new reader took, behind one router, for a file behind another."""
    street = place.wires.wan(delay_ms=FAR_MS, loss_percent=loss_percent)
    _middle(place, street)
    source = _join(place, "source", place.home(street, kinds[0]))
    source.share("letter.txt", LETTER)
    command = [sys.executable, "-m", "reaching.reader", f"93.184.216.1:{PORT}", "letter.txt"]
    done = subprocess.run(
        [*place.home(street, kinds[1]).inside, *command, str(times)],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def _times_of(told: Sequence[str]) -> list[float]:
    return sorted(float(one) for one in told if one.replace(".", "").isdigit())


def punch(place: Place, times: int = 100) -> Measured:
    took = _times_of(_reads(place, (Router.CONE, Router.CONE), times))
    within = sum(one <= 3.0 for one in took)
    median = took[len(took) // 2] if took else float("nan")
    return Measured(f"{within} of {times}, median {median:.2f} s", within >= 0.95 * times)


def relay(place: Place, times: int = 10) -> Measured:
    kinds = Router.SYMMETRIC, Router.CONE
    took = _times_of(_reads(place, kinds, times, loss_percent=0.0))
    slowest = took[-1] if len(took) == times else float("inf")
    return _seconds(slowest, 5.0, note=f", slowest of {times}")


def relay_lossy(place: Place, times: int = 20) -> Measured:
    took = _times_of(_reads(place, (Router.SYMMETRIC, Router.CONE), times))
    if len(took) < times:
        return Measured(f"{len(took)} of {times} came through", False)
    return Measured(f"median {took[times // 2]:.2f} s, slowest {took[-1]:.2f} s", took[-1] <= 5.0)


def relay_rate(place: Place) -> Measured:
    street = place.wires.wan(delay_ms=10.0)
    middle = _middle(place, street)
    source = _join(place, "source", place.home(street, Router.SYMMETRIC))
    reader = _join(place, "reader", place.home(street))
    source.share("film.mkv", _film())
    film = reader.sees("film.mkv")
    with film.open("rb", buffering=0) as file:
        file.read(READ_BYTES)
        before, began_at = _relayed(middle), time.monotonic()
        while file.read(READ_BYTES):
            pass
        rate = (_relayed(middle) - before) / (time.monotonic() - began_at)
    share = rate / RELAY_BYTES_PER_S
    return Measured(f"{share:.1%} of 1 MiB/s", 0.9 <= share <= 1.05)


def _relayed(middle: Servent) -> int:
    return int(str(middle.status()["relayed_bytes"]))


def room(place: Place) -> Measured:
    switch = place.wires.switch()
    hosts = [place.wires.host(switch, f"10.50.0.{number}") for number in (1, 2)]
    for host in hosts:
        host.run("ip route add 224.0.0.0/4 dev eth0")
    os.environ.pop("P2PFS_ALONE", None)
    options = ("--no-port-mapping",)
    first = place.start("first", hosts[0], *options, mounted=False)
    time.sleep(3)  # it has announced itself
    second = place.start("second", hosts[1], *options, mounted=False)
    os.environ["P2PFS_ALONE"] = "1"
    until(lambda: first.neighbours() and second.neighbours())
    [peer], status = second.rows("peers"), second.status()
    took = float(str(status["uptime_s"])) - float(str(peer["connected_s"]))
    return Measured(f"{max(took, 0.1):.1f} s", took <= 1.5)


def idle(place: Place, idle_s: float, *options: str) -> Measured:
    """Count the bytes of a host on which a servent has twelve neighbours, who do nothing."""
    os.environ.pop("P2PFS_ALONE", None)
    switch = place.wires.switch()
    hosts = [place.wires.host(switch, f"10.50.0.{one}") for one in range(1, NEIGHBOURS + 2)]
    servents: list[Servent] = []
    for number, host in enumerate(hosts):
        host.run("ip route add 224.0.0.0/4 dev eth0")
        shared = make_shared(place.directory / f"{number}.state")
        for file in range(100):
            (shared / f"letter {number} {file}.txt").write_bytes(LETTER)
        joins = ("--join", f"10.50.0.1:{PORT}") if servents else ()
        said = ("--no-port-mapping", *options, *joins)
        servents.append(place.start(str(number), host, *said, mounted=False))
    os.environ["P2PFS_ALONE"] = "1"
    until(lambda: len(servents[0].neighbours()) == NEIGHBOURS)
    time.sleep(SETTLED_S)
    before, began_at = _bytes_of(hosts[0]), time.monotonic()
    time.sleep(idle_s)
    count = (_bytes_of(hosts[0]) - before) / (time.monotonic() - began_at)
    assert len(servents[0].neighbours()) == NEIGHBOURS
    megabytes = count * DAY_S / 1e6
    return Measured(f"{megabytes:.1f} MB", megabytes < 10)


def _bytes_of(host: Host) -> int:
    counters = host.run("grep eth0: /proc/net/dev").partition(":")[2].split()
    return int(counters[0]) + int(counters[8])


def _ring(place: Place) -> AbstractContextManager[Ring]:
    host = place.wires.host(place.wires.switch(), host_of(0))
    for number in range(1, COUNT):
        host.run(f"ip address add {host_of(number)}/24 dev eth0")
    return open_ring(host, place.directory)


def beyond(place: Place, times: int = 20) -> Measured:
    with _ring(place) as ring:
        formed = wait_formed(ring, FEW_NODES)
        took, near = [], hops(ring.status(), 0)
        links = [ring.ask(number, do="link") for number in range(times)]
        time.sleep(TOLD_S)
        for holder, link in enumerate(links):
            took.append(ring.ask((holder + FAR_HOPS) % COUNT, do="open", link=link))
        far = near.get(FAR_HOPS)
    times_s = sorted(one for one in took if isinstance(one, float))
    slowest = f"slowest {times_s[-1]:.1f} s" if times_s else f"{took[0]}"
    figure = f"{len(times_s)} of {times}, {slowest}, {far} hops, {formed:.0f} s after the start"
    return Measured(figure, len(times_s) == times and far == FAR_HOPS)


def beyond_killed(place: Place) -> Measured:
    with _ring(place) as ring:
        wait_formed(ring, FEW_NODES)
        links = {number: ring.ask(number, do="link") for number in range(COUNT)}
        time.sleep(KILL_AFTER_S)
        for number in KILLED:
            ring.kill(number)
        living = [one for one in links if one % PROCESSES not in KILLED]
        took = []
        for place_, reader in enumerate(living):
            holder = living[(place_ + len(living) // 2) % len(living)]
            took.append(ring.ask(reader, do="open", link=links[holder]))
    times_s = sorted(one for one in took if isinstance(one, float))
    failed = next((f", e.g. {one}" for one in took if not isinstance(one, float)), "")
    median = times_s[len(times_s) // 2] if times_s else float("nan")
    figure = f"{len(times_s)} of {len(took)}, median {median:.1f} s{failed}"
    return Measured(figure, len(times_s) >= 0.95 * len(took))


BARS = (
    Bar("push", "source behind a router, reader in the open: first byte", "1 s", push),
    Bar("room", "one room: neighbours without --join", "1.5 s", room),
    Bar("punch", "both behind routers, 50 ms, 3 % loss: read within 3 s", "95 of 100", punch),
    Bar("relay", "one router symmetric, 50 ms: read", "5 s", relay),
    Bar(
        "relay-lossy",
        "the same with 3 % loss, 20 reads",
        "5 s",
        relay_lossy,
    ),
    Bar("relay-rate", "what a relay passes on of one circuit", "95 to 105 %", relay_rate),
    Bar(
        "source-moves",
        "the only source changes its address: longest read",
        "5 s, no error",
        source_moves,
    ),
    Bar(
        "reader-moves",
        "the reader changes its address: longest read",
        "5 s, no error",
        reader_moves,
    ),
    Bar("beyond", "60 in a ring, TTL 2: links to files 20 hops away open", "20 of 20", beyond),
    Bar("beyond-killed", "the same right after 30 % are killed: links open", "95 %", beyond_killed),
    Bar(
        "idle",
        "a day of a servent with 12 idle neighbours, in one room, without a directory",
        "10 MB",
        lambda place: idle(place, IDLE_S, "--no-dht"),
        "benchmarks.md",
    ),
    Bar(
        "idle-directory",
        "the same with a directory",
        "10 MB",
        lambda place: idle(place, DIRECTORY_IDLE_S),
        "benchmarks.md",
    ),
    Bar("asleep", "SIGSTOP for 120 s: neighbours again", "3 s", asleep),
    Bar("outage", "link down for 150 s: first neighbour again", "3 s", outage),
)
"""In the order in which they are measured."""
