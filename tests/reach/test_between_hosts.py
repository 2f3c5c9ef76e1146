"""Servents on hosts with wires between them: namespaces of the kernel, real mounts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from p2pfs.protocol.manifest import MIN_BLOCK_BYTES
from p2pfs.reach import is_installed
from tests.helpers.hosts import Host, Router, Wan, Wires, open_wires
from tests.helpers.mounted import Servent, Servents, errno_name, make_shared, open_servents, until

pytestmark = pytest.mark.slow

PORT = 4774

FILM = bytes(range(256)) * (24 * MIN_BLOCK_BYTES // 256)

CLIP = FILM[: 2 * MIN_BLOCK_BYTES]
"""Short enough for a line that loses packets."""


@pytest.fixture
def wires() -> Iterator[Wires]:
    with open_wires() as wires:
        yield wires


@pytest.fixture
def servents(tmp_path: Path) -> Iterator[Servents]:
    with open_servents(tmp_path) as servents:
        yield servents


def start(
    servents: Servents, name: str, host: Host, *options: str, mounted: bool = True
) -> Servent:
    """Start a servent on a host, at every address that it has."""
    options = ("--listen", str(PORT), *options)
    return servents.start(name, *options, inside=host.inside, mounted=mounted)


class Street:
    """Two hosts on one switch: `source` has a film, `reader` has joined through it."""

    def __init__(self, wires: Wires, servents: Servents, *options: str) -> None:
        switch = wires.switch()
        self.source_host = wires.host(switch, "10.50.0.1")
        self.reader_host = wires.host(switch, "10.50.0.2")
        self.source = start(servents, "source", self.source_host, *options)
        self.source.share("film.mkv", FILM)
        join = ("--join", f"10.50.0.1:{PORT}")
        self.reader = start(servents, "reader", self.reader_host, *join)
        self.film = self.reader.sees("film.mkv")


@pytest.mark.fuse
@pytest.mark.parametrize("who", ["source", "reader"])
def test_a_read_goes_on_when_an_address_changes(wires: Wires, servents: Servents, who: str):
    street = Street(wires, servents, "--upload-limit", "2M")
    with ThreadPoolExecutor() as threads:
        digest = threads.submit(lambda: hashlib.sha256(street.film.read_bytes()).digest())
        until(lambda: int(str(street.reader.status()["downloaded_bytes"])) > MIN_BLOCK_BYTES)
        host, old = (
            (street.source_host, "10.50.0.1")
            if who == "source"
            else (street.reader_host, "10.50.0.2")
        )
        host.run(f"ip address del {old}/24 dev eth0; ip address add 10.50.0.22/24 dev eth0")

        assert digest.result() == hashlib.sha256(FILM).digest()
    assert street.reader.errors("film.mkv") == []


def test_an_outage_is_noticed_and_over_with_the_cable(wires: Wires, servents: Servents):
    switch = wires.switch()
    first_host, second_host = wires.host(switch, "10.50.0.1"), wires.host(switch, "10.50.0.2")
    start(servents, "first", first_host, mounted=False)
    second = start(servents, "second", second_host, "--join", f"10.50.0.1:{PORT}", mounted=False)
    until(lambda: second.neighbours() == ["first"])

    second_host.run("ip link set eth0 down")
    until(lambda: not second.neighbours())
    second_host.run("ip link set eth0 up")

    until(lambda: second.neighbours() == ["first"])


def link_local(host: Host) -> str:
    """Return the address that IPv6 has given a host, for its own line alone."""
    until(lambda: "fe80" in host.run("ip -6 address show dev eth0 -tentative"))
    return host.run("ip -6 -o address show dev eth0 scope link").split()[3].partition("/")[0]


@pytest.mark.fuse
@pytest.mark.parametrize("listens_at_line", [False, True])
def test_files_are_read_over_link_local_addresses(
    wires: Wires, servents: Servents, listens_at_line: bool
):
    switch = wires.switch()
    ann_host, ben_host = wires.host(switch, "10.50.0.1"), wires.host(switch, "10.60.0.1")
    address = link_local(ann_host)
    link_local(ben_host)
    listen = ("--listen", f"[{address}%eth0]:{PORT}") if listens_at_line else ()
    ann = start(servents, "ann", ann_host, *listen)
    ben = start(servents, "ben", ben_host, "--join", f"[{address}%eth0]:{PORT}")
    ann.share("of-ann", FILM)
    ben.share("of-ben", FILM)

    assert ben.sees("of-ann").read_bytes() == FILM
    assert ann.sees("of-ben").read_bytes() == FILM


def test_neighbours_tell_each_other_of_their_other_addresses(wires: Wires, servents: Servents):
    switch = wires.switch()
    hosts = [wires.host(switch, f"10.50.0.{number}") for number in (1, 2)]
    for number, host in enumerate(hosts, 1):
        host.run(f"ip address add fd50::{number}/64 dev eth0 nodad")
    first = start(servents, "first", hosts[0], mounted=False)
    second = start(servents, "second", hosts[1], "--join", f"[fd50::1]:{PORT}", mounted=False)
    until(lambda: first.neighbours() and second.neighbours())

    for host in hosts:
        host.run("ip -6 address flush dev eth0 scope global")

    until(lambda: any(str(row["address"]).startswith("10.50.") for row in second.rows("peers")))


class Homes:
    """A servent in the open, `middle`, and homes behind routers whose servents join through it."""

    def __init__(
        self, wires: Wires, servents: Servents, street: Host | Wan | None = None, *options: str
    ) -> None:
        self._wires = wires
        self._servents = servents
        self.street = street or wires.switch()
        self._homes = 0
        host = wires.host(self.street, "93.184.216.1")
        self.middle = start(servents, "middle", host, *options)

    def join(self, name: str, host: Host) -> Servent:
        return start(self._servents, name, host, "--join", f"93.184.216.1:{PORT}")

    def in_the_open(self, name: str) -> Servent:
        return self.join(name, self._wires.host(self.street, "93.184.216.2"))

    def at_home(self, name: str, kind: Router = Router.CONE) -> Servent:
        self._homes += 1
        inside, outside = f"192.168.{self._homes}", f"93.184.216.1{self._homes}"
        home = self._wires.router(self.street, outside, f"{inside}.1", kind)
        return self.join(name, self._wires.host(home, f"{inside}.2", router=f"{inside}.1"))


@pytest.mark.fuse
def test_a_file_behind_a_router_is_read_by_everybody_in_the_open(wires: Wires, servents: Servents):
    homes = Homes(wires, servents)
    source, reader = homes.at_home("source"), homes.in_the_open("reader")
    source.share("film.mkv", FILM)

    assert homes.middle.sees("film.mkv").read_bytes() == FILM
    assert reader.sees("film.mkv").read_bytes() == FILM


@pytest.mark.fuse
@pytest.mark.parametrize(
    ("at_source", "at_reader"),
    [(Router.CONE, Router.CONE), (Router.SHIFTING, Router.REFUSING)],
    ids=lambda kind: kind.name.lower(),
)
def test_two_behind_routers_read_from_each_other(
    wires: Wires, servents: Servents, at_source: Router, at_reader: Router
):
    homes = Homes(wires, servents, wires.wan(delay_ms=50, loss_percent=3))
    source, reader = homes.at_home("source", at_source), homes.at_home("reader", at_reader)
    source.share("clip.mkv", CLIP)
    reader.share("answer.txt", b"thanks")

    assert reader.sees("clip.mkv").read_bytes() == CLIP
    assert source.sees("answer.txt").read_bytes() == b"thanks"


@pytest.mark.fuse
def test_who_is_behind_a_router_too_is_told_so(wires: Wires, servents: Servents):
    homes = Homes(wires, servents, None, "--no-relay")
    source, reader = (homes.at_home(name, Router.SYMMETRIC) for name in ("source", "reader"))
    source.share("film.mkv", CLIP)
    film = reader.sees("film.mkv")

    assert errno_name(film.read_bytes) == "EHOSTUNREACH"
    (why,) = set(reader.errors("film.mkv"))
    assert "source at 93.184.216.11:4774 cannot be dialled" in why
    assert "it seems to be behind a router" in why
    assert "middle was asked to relay: it does not relay" in why


@pytest.mark.fuse
def test_who_can_do_nothing_else_passes_through_the_neighbour(wires: Wires, servents: Servents):
    homes = Homes(wires, servents, wires.wan(delay_ms=50, loss_percent=3))
    source, reader = homes.at_home("source", Router.SYMMETRIC), homes.at_home("reader")
    source.share("clip.mkv", CLIP)

    assert reader.sees("clip.mkv").read_bytes() == CLIP
    status = homes.middle.status()
    assert status["circuits"] == 1
    assert int(str(status["relayed_bytes"])) > 2 * MIN_BLOCK_BYTES


@pytest.mark.skipif(not is_installed(), reason="libtorrent is an extra: p2pfs[dht]")
def test_a_link_opens_beyond_the_horizon(
    wires: Wires, servents: Servents, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("P2PFS_ALONE")
    switch, names, started = wires.switch(), ("ann", "ben", "cleo", "dan"), []
    shared = make_shared(servents.directory / "ann.state")
    (shared / "letter.txt").write_bytes(b"dear all\n")
    for number, name in enumerate(names, 1):
        join = ("--join", f"10.50.0.{number - 1}:{PORT}") if started else ()
        room = "1" if name in (names[0], names[-1]) else "2"
        options = ("--ttl", "1", "--max-neighbours", room, "--no-lan", "--no-port-mapping", *join)
        host = wires.host(switch, f"10.50.0.{number}")
        started.append(start(servents, name, host, *options, mounted=False))
        until(lambda: bool(started[-1].neighbours()) or len(started) == 1)
    made = started[0].p2pfs("link", "shared/letter.txt").stdout.strip()
    link = re.sub(r"[?].*", "?name=letter.txt", made)  # without the address in it

    until(lambda: int(str(started[0].status()["directory_keys"])) == 3)
    until(lambda: started[-1].p2pfs("open", link).returncode == 0)

    assert int(str(started[-1].status()["directory_nodes"])) >= 1
