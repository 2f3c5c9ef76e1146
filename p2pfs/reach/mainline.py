"""A directory by libtorrent's Mainline DHT (BEP 5), among servents or in public.

libtorrent is an extra, `p2pfs[dht]`; only this module knows it. It runs threads of its own and
wakes trio through a pipe. All that it says goes through a courier: in a directory of servents each
datagram is sealed with the key of the network. So strangers' datagrams never reach it, none of ours
means anything to Mainline, and the two cannot grow together. It opens no port for torrents and
asks no router for anything.

Measured with libtorrent 2.1.1 in namespaces: with its defaults no table forms within one network
(`_AMONG_SERVENTS` has the settings that it takes); nodes of `dht_bootstrap_nodes` are asked and
never enter the table, so `add_dht_node` takes in ours; with a SOCKS5 proxy it opens no TCP port and
hears nobody else; 60 nodes in a ring, each knowing two, find 20 of 20 keys half a minute after the
start.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import trio

from p2pfs.errors import UsageError
from p2pfs.latest import Latest
from p2pfs.link import LOOPBACK, Courier, open_courier
from p2pfs.protocol import (
    DIRECTORY_KEY_BYTES,
    SALT_BYTES,
    Address,
    DirectoryKey,
    NetworkKey,
    Seal,
)
from p2pfs.reach.directory import some_of
from p2pfs.state import replace_file
from p2pfs.tasks import kept_up
from p2pfs.threads import RunInThread

log = logging.getLogger(__name__)

MISSING: Final = "libtorrent is not here: pip install 'p2pfs[dht]'"

FIND_S: Final = 5.0
"""How long a search may take: some rounds of questions to servents far away, some of them gone."""

MORE_ANSWERS_S: Final = 0.5
"""How long a search waits for further answers: the first one has most addresses."""

MAX_ADDRESSES_FOUND: Final = 32
"""Addresses of one search: more are not dialled."""

MAX_ADDRESSES_HEARD: Final = 4_096
"""Addresses of which those are taken, networks by turns: one answer of a liar has two hundred."""

TELL_AGAIN_AFTER_S: Final = (15.0, 60.0, 900.0)
"""When a key is told again, after it was told once, twice, ... A node forgets it after half an
hour; the first two are for a table that is still growing."""

ENGINE_START_S: Final = 5.0
"""How long libtorrent may take to find the courier; what it is told to send before is lost."""

PAUSE_S: Final = 0.5
"""Between two keys that are told: each costs some 30 datagrams."""

COUNT_EVERY_S: Final = 5.0
"""How often the nodes of the table are counted."""

FEW_NODES: Final = 8
"""With fewer nodes, those that were named to us are asked again: a datagram may be lost."""

MAX_NODES_NAMED: Final = 32
"""Named nodes that are remembered to be asked again: as many as there are neighbours."""

SAVE_TABLE_S: Final = 600.0
"""How often the table is written; a crash costs what has changed since."""

MAX_STATE_BYTES: Final = 256 * 1024
"""More is no table of ours: one has some hundred nodes of 26 bytes."""

BOOTSTRAP: Final = "dht.libtorrent.org:25401,router.bittorrent.com:6881,dht.transmissionbt.com:6881"
"""Where the public DHT is entered."""

_SOCKS5_BY_PASSWORD: Final = 3

_ALWAYS: Final = {
    "user_agent": "p2pfs",
    "enable_dht": False,  # until the courier is found: what it would send before is lost
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_tcp": False,
    "enable_outgoing_tcp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "listen_interfaces": f"{LOOPBACK}:0",
    "proxy_type": _SOCKS5_BY_PASSWORD,
    "proxy_hostname": LOOPBACK,
    "proxy_hostnames": False,
}

_AMONG_SERVENTS: Final = {
    "dht_bootstrap_nodes": "",
    # All may be in one network, or at one address: the seal says who belongs here.
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False,
    "dht_ignore_dark_internet": False,
}

_IN_PUBLIC: Final = {"dht_bootstrap_nodes": BOOTSTRAP}


class Mainline:
    """A directory (reach.Directory), for as long as `open_mainline` runs it."""

    def __init__(
        self,
        engine: Any,  # noqa: ANN401
        session: Any,  # noqa: ANN401
        courier: Courier,
        port: Callable[[], int],
    ) -> None:
        self._engine = engine  # the module, which may not be here
        self._session = session
        self._courier = courier
        self._port = port
        self._due: dict[DirectoryKey, tuple[float, int]] = {}
        """When a key is told, and how often it was."""
        self._hurry = trio.Event()
        self._asking: dict[DirectoryKey, set[trio.MemorySendChannel[Sequence[Address]]]] = {}
        self._named: Latest[Address, None] = Latest(MAX_NODES_NAMED)
        self.nodes = 0
        """How many others are in the table."""

    @property
    def dropped(self) -> int:
        """Datagrams from outside that were not of this network."""
        return self._courier.dropped

    @property
    def engine_port(self) -> int:
        """The UDP port of the engine itself; it hears the courier there, and nobody else."""
        return self._courier.engine_port

    # What the rest of `reach` calls (reach.Directory).

    def announce(self, key: DirectoryKey) -> None:
        """Tell others that we are to be dialled for a key, until withdrawn."""
        if key not in self._due:
            self._due[key] = trio.current_time(), 0
            self._hurry.set()

    def withdraw(self, key: DirectoryKey) -> None:
        """Stop telling it."""
        self._due.pop(key, None)

    def add_node(self, address: Address) -> None:
        """Take in a servent; one without IPv4 is passed over."""
        if ":" not in address.host:
            self._named[address] = None
            self._session.add_dht_node((address.host, address.port))

    async def find(self, key: DirectoryKey) -> Sequence[Address]:
        """Return the addresses that others tell; see `Directory.find`."""
        send, receive = trio.open_memory_channel[Sequence[Address]](MAX_ADDRESSES_FOUND)
        asking = self._asking.setdefault(key, set())
        asking.add(send)
        found: dict[Address, None] = {}
        try:
            if len(asking) == 1:
                self._session.dht_get_peers(self._hash(key))
            with trio.move_on_after(FIND_S) as scope:
                while len(found) < MAX_ADDRESSES_HEARD:
                    found.update(dict.fromkeys(await receive.receive()))
                    scope.deadline = min(scope.deadline, trio.current_time() + MORE_ANSWERS_S)
        finally:
            asking.discard(send)
            if not asking:
                self._asking.pop(key, None)
        return some_of(found, MAX_ADDRESSES_FOUND)

    # What the engine says.

    async def run(self, read_end: int) -> None:
        """Tell keys and hear the engine, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept_up, functools.partial(self._hear, read_end))
            nursery.start_soon(kept_up, self._tell)
            nursery.start_soon(kept_up, self._count)

    async def _hear(self, read_end: int) -> None:
        while True:
            await trio.lowlevel.wait_readable(read_end)
            os.read(read_end, 4096)
            for alert in self._session.pop_alerts():  # gone with the next call
                self._heard(alert)

    def _heard(self, alert: Any) -> None:  # noqa: ANN401
        engine = self._engine
        if isinstance(alert, engine.dht_get_peers_reply_alert):
            key = DirectoryKey(alert.info_hash.to_bytes())
            found = [Address(host, port) for host, port in alert.peers() if port]
            for channel in self._asking.get(key, ()) if found else ():
                with contextlib.suppress(trio.WouldBlock):
                    channel.send_nowait(found)
        elif isinstance(alert, engine.dht_stats_alert):
            self.nodes = sum(bucket["num_nodes"] for bucket in alert.routing_table)
            self._hurry.set()
        elif isinstance(alert, engine.listen_succeeded_alert):
            self._courier.engine_port = alert.port

    async def _count(self) -> None:
        while True:
            self._session.post_dht_stats()
            await trio.sleep(COUNT_EVERY_S)
            for address in self._named if self.nodes < FEW_NODES else ():
                self._session.add_dht_node((address.host, address.port))
            if not self.nodes:
                # It asks those who are known to all once, perhaps before it has looked them up.
                nothing = DirectoryKey(secrets.token_bytes(DIRECTORY_KEY_BYTES))
                self._session.dht_get_peers(self._hash(nothing))

    async def _tell(self) -> None:
        """Tell each key when it is due, and none while nobody could hear it."""
        while True:
            self._hurry = trio.Event()
            key = min(self._due, key=lambda one: self._due[one], default=None)
            with trio.move_on_at(self._due[key][0] if key and self.nodes else math.inf):
                await self._hurry.wait()
                continue
            if key in self._due:  # else it was withdrawn meanwhile
                self._tell_one(key)
                await trio.sleep(PAUSE_S)

    def _tell_one(self, key: DirectoryKey) -> None:
        self._session.dht_announce(self._hash(key), self._port(), 0)
        _, times = self._due[key]
        wait = TELL_AGAIN_AFTER_S[min(times, len(TELL_AGAIN_AFTER_S) - 1)]
        at = trio.current_time() + wait * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        self._due[key] = at, times + 1

    def _hash(self, key: DirectoryKey) -> Any:  # noqa: ANN401
        return self._engine.sha1_hash(key)

    def table(self) -> bytes:
        """Return the table as `open_mainline` reads it."""
        what = self._engine.save_state_flags_t.save_dht_state
        return bytes(self._engine.write_session_params_buf(self._session.session_state(what), what))


def is_installed() -> bool:
    """Return whether libtorrent is here, and can be loaded."""
    return _engine() is not None


def _engine() -> Any:  # noqa: ANN401
    try:
        import libtorrent  # noqa: PLC0415 - an extra
    except ImportError as error:
        log.info("no libtorrent reason=%s", error)
        return None
    return libtorrent


@contextlib.asynccontextmanager
async def open_mainline(
    where: Address,
    port: Callable[[], int],
    state_path: str,
    run_in_thread: RunInThread,
    among: NetworkKey | None,
) -> AsyncIterator[Mainline]:
    """Run a directory for the length of the block, at a UDP port on an IPv4 address.

    `port` tells at which TCP port we are to be dialled. It is a directory among the servents of a
    network, whose datagrams are sealed, or without one the public one. Its table is kept in a file.

    Raises:
        UsageError: libtorrent is not here, or the port cannot be used.
    """
    engine = _engine()
    if engine is None:
        raise UsageError(MISSING)
    wrap, unwrap = _sealed(among) if among else (bytes, _as_it_is)
    courier = open_courier(where, wrap, unwrap)
    async with trio.open_nursery() as nursery:
        await nursery.start(courier.run)
        settings = _settings(engine, courier, _AMONG_SERVENTS if among else _IN_PUBLIC)
        params = await run_in_thread(_read_table, engine, state_path)
        params.settings = settings
        holder = [engine.session(params)]
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            holder[0].set_alert_fd(write_end)
            mainline = Mainline(engine, holder[0], courier, port)
            nursery.start_soon(mainline.run, read_end)
            with trio.move_on_after(ENGINE_START_S):
                await courier.is_used.wait()
            holder[0].apply_settings({"enable_dht": True})
            nursery.start_soon(_keep_saved, mainline, state_path, run_in_thread)
            yield mainline
            nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await run_in_thread(_save, state_path, mainline.table())
                del mainline
                await run_in_thread(holder.clear)  # waits for the engine's threads
            os.close(read_end)
            os.close(write_end)


def _settings(engine: Any, courier: Courier, more: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    kinds = engine.alert_category
    return {
        **_ALWAYS,
        **more,
        "proxy_port": courier.proxy_port,
        "proxy_username": courier.user,
        "proxy_password": courier.password,
        "alert_mask": kinds.dht_operation | kinds.status | kinds.stats,
    }


def _sealed(key: NetworkKey) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes | None]]:
    seal = Seal(key)
    return lambda message: seal.close(message, secrets.token_bytes(SALT_BYTES)), seal.open


def _as_it_is(datagram: bytes) -> bytes | None:
    return datagram


def _read_table(engine: Any, path: str) -> Any:  # noqa: ANN401
    """Return what was kept; a missing or damaged file is an empty table."""
    try:
        with open(path, "rb") as file:
            kept = file.read(MAX_STATE_BYTES + 1)
        if len(kept) <= MAX_STATE_BYTES:
            return engine.read_session_params(kept, engine.save_state_flags_t.save_dht_state)
    except FileNotFoundError:
        pass
    except (OSError, RuntimeError) as error:
        log.warning("directory not read reason=%s", error)
    return engine.session_params()


async def _keep_saved(mainline: Mainline, path: str, run_in_thread: RunInThread) -> None:
    while True:
        await trio.sleep(SAVE_TABLE_S)
        await run_in_thread(_save, path, mainline.table())


def _save(path: str, table: bytes) -> None:
    try:
        replace_file(path, table)
    except OSError as error:
        log.warning("directory not saved reason=%s", error)
