"""Servents of one network that are in one room find each other, by DNS-SD (RFC 6762, 6763).

Theory. A servent announces an instance of `_p2pfs._tcp.local.` under a random name, with its
port and its addresses, and listens for others. Names say nothing of the user. A servent of a
private network adds a tag: a nonce, and a hash of both the nonce and the network's key. A
servent with the key sees that the tag is of its network; to others it is noise, new at each start.

No announcement is believed: an address becomes a contact that is dialled as any other,
and the handshake says who is there. A liar in the room can make us dial addresses of private
networks and of our own network alone, no oftener than any who names addresses (`Knocks`), and so
many at most are remembered.

zeroconf has a loop and threads of its own. They hear at a rate (`hearing`), and hand on what they
hear through one bounded channel: announcements that do not fit are dropped, and come again when
they are repeated. zeroconf remembers each name for as long as whoever said it likes, so a room
with MAX_NAMES is left and entered anew. Without an interface but loopback there is nobody to meet,
and nothing is opened or sent.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio
from blake3 import blake3
from zeroconf import (
    InterfaceChoice,
    IPVersion,
    ServiceBrowser,
    ServiceInfo,
    ServiceListener,
    Zeroconf,
)

from p2pfs.protocol import MAX_ADDRESSES, MIN_PORT, Address, NetworkKey, Scope, groups_of, scope_of
from p2pfs.protocol.flood import TokenBucket
from p2pfs.reach.changes import Machine
from p2pfs.reach.hearing import Hearing

log = logging.getLogger(__name__)

SERVICE: Final = "_p2pfs._tcp.local."
"""The type of service that is announced. PROTOCOL.md, "In one room"."""

NAME_BYTES: Final = 8
ROOM_NONCE_BYTES: Final = 8
ROOM_TAG_BYTES: Final = 8
"""A stranger's noise passes for a tag once in 2^64."""

_ROOM_TAG_CONTEXT: Final = "p2pfs 2026-11-29 LAN tag"

VERSION_KEY: Final = b"v"
TAG_KEY: Final = b"t"
ROOM_VERSION: Final = b"1"

ROOM_RETRY_S: Final = 60.0
"""After how long a room that could not be opened is tried again, if nothing changes before."""

MAX_NEARBY: Final = 128
"""Others that are remembered at once: as many as a room of people has, and no work for a liar. Who
was announced first makes room: it was dialled then, and a liar who fills all places keeps none."""

MAX_ANNOUNCEMENTS: Final = 64
"""Announcements that have come and are not taken in yet."""

RESOLVE_MS: Final = 500
"""How long an instance is asked for its address if that did not come with its name."""

RESOLVES_PER_S: Final = 0.5
RESOLVE_BURST: Final = 8
"""How often one is: mostly it comes with the name, and while one is asked all others wait."""

MAX_NAMES: Final = 2_000
"""Names that are heard in a room before it is left: more than there are people in a hall."""

LEFT_S: Final = 10.0
"""How long it is left then: zeroconf says some thirty packets when it enters."""

GOODBYE_S: Final = 2.0
"""How long saying goodbye to the room may take."""


class NearbyReceiver(Protocol):
    """The receiver of servents that are in the room."""

    def came_near(self, name: str, addresses: Sequence[Address]) -> None:
        """Note that a servent of our network is announced, newly or with other addresses."""

    def went_away(self, name: str) -> None:
        """Note that the servent announced under `name` said goodbye, or is silent for long."""


@dataclass(frozen=True, slots=True)
class _Announced:
    """One announcement. Without addresses it is the end of one."""

    name: str
    addresses: tuple[Address, ...]


class Lan:
    """The room: the servents that are announced in it, and our own announcement.

    `addresses` tells where others may dial this servent at the moment it is asked, from any
    thread; loopback in it is passed over.
    """

    def __init__(
        self, key: NetworkKey, addresses: Callable[[], Sequence[Address]], machine: Machine
    ) -> None:
        self._key = key
        self._addresses = addresses
        self._machine = machine
        self._name = secrets.token_hex(NAME_BYTES)
        self._found: dict[str, tuple[Address, ...]] = {}
        self._is_full = trio.Event()

    async def run(self, meeting: NearbyReceiver) -> None:
        """Announce this servent and hand on the announcements of others, until cancelled.

        It is announced anew when this machine's addresses change. Where the room cannot be
        opened, no multicast say, that is logged and tried again.
        """
        while True:
            version = self._machine.version
            hosts = await trio.to_thread.run_sync(self._hosts)
            if not hosts:
                await self._machine.wait_changed(version)
                continue
            try:
                async with self._open(hosts) as heard:
                    await self._listen(heard, hosts, meeting)
            except OSError as error:
                log.info("no discovery in the room reason=%s", error)
                with trio.move_on_after(ROOM_RETRY_S):
                    await self._machine.wait_changed(version)
            self._forget(meeting)  # this may be another room now
            if self._is_full.is_set():
                self._is_full = trio.Event()
                log.info("the room is left for a while: %d names", MAX_NAMES)
                await trio.sleep(LEFT_S)

    def _forget(self, meeting: NearbyReceiver) -> None:
        for name in list(self._found):
            self.take(_Announced(name, ()), meeting)

    def _hosts(self) -> tuple[Address, ...]:
        """Return where others in the room may dial us."""
        return tuple(
            one for one in self._addresses() if scope_of(one.host) not in (None, Scope.MACHINE)
        )

    async def _listen(
        self,
        heard: trio.MemoryReceiveChannel[_Announced],
        hosts: tuple[Address, ...],
        meeting: NearbyReceiver,
    ) -> None:
        """Hand on announcements until this machine has other addresses, or the room is full."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_all, heard, meeting)
            nursery.start_soon(self._end_if_full, nursery.cancel_scope)
            version = self._machine.version
            while await trio.to_thread.run_sync(self._hosts) == hosts:
                version = await self._machine.wait_changed(version)
            nursery.cancel_scope.cancel()

    async def _end_if_full(self, scope: trio.CancelScope) -> None:
        await self._is_full.wait()
        scope.cancel()

    async def _take_all(
        self, heard: trio.MemoryReceiveChannel[_Announced], meeting: NearbyReceiver
    ) -> None:
        while True:
            self.take(await heard.receive(), meeting)

    def take(self, one: _Announced, meeting: NearbyReceiver) -> None:
        """Hand on an announcement that says anything new."""
        if one.addresses:
            if self._found.get(one.name) != one.addresses:
                self._make_room(one.name, meeting)
                self._found[one.name] = one.addresses
                meeting.came_near(one.name, one.addresses)
        elif self._found.pop(one.name, None) is not None:
            meeting.went_away(one.name)

    def _make_room(self, name: str, meeting: NearbyReceiver) -> None:
        """Forget who was announced first, if there are too many."""
        if name not in self._found and len(self._found) >= MAX_NEARBY:
            self.take(_Announced(next(iter(self._found)), ()), meeting)

    @contextlib.asynccontextmanager
    async def _open(
        self, hosts: tuple[Address, ...]
    ) -> AsyncIterator[trio.MemoryReceiveChannel[_Announced]]:
        send, receive = trio.open_memory_channel[_Announced](MAX_ANNOUNCEMENTS)
        token = trio.lowlevel.current_trio_token()
        pass_on = functools.partial(_pass_on, send, token)
        is_full = functools.partial(_run_soon, token, self._is_full.set)
        ear = _Ear(f"{self._name}.{SERVICE}", self._key, hosts, pass_on, is_full)
        room = await trio.to_thread.run_sync(self._announce, hosts, ear)
        try:
            yield receive
        finally:
            receive.close()
            with trio.move_on_after(GOODBYE_S, shield=True):
                await trio.to_thread.run_sync(room.close, abandon_on_cancel=True)

    def _announce(self, hosts: tuple[Address, ...], ear: _Ear) -> Zeroconf:
        room = Zeroconf(InterfaceChoice.All, ip_version=_version_of(hosts))
        try:
            Hearing().attend(room)
            ServiceBrowser(room, SERVICE, ear)
            # The name is random, so nobody else has it and there is no need to ask for a second.
            room.register_service(self._announcement(hosts), cooperating_responders=True)
        except BaseException:
            room.close()
            raise
        return room

    def _announcement(self, hosts: tuple[Address, ...]) -> ServiceInfo:
        return ServiceInfo(
            SERVICE,
            f"{self._name}.{SERVICE}",
            parsed_addresses=[one.host for one in hosts[:MAX_ADDRESSES]],
            port=hosts[0].port,
            properties=properties_of(self._key, secrets.token_bytes(ROOM_NONCE_BYTES)),
            server=f"{self._name}.local.",
        )


def properties_of(key: NetworkKey, nonce: bytes) -> dict[bytes, bytes]:
    """Return the properties that are announced beside the addresses: PROTOCOL.md, "In one room"."""
    if key.psk is None:
        return {VERSION_KEY: ROOM_VERSION}
    return {VERSION_KEY: ROOM_VERSION, TAG_KEY: nonce.hex().encode() + _tag(key.psk, nonce)}


def is_of_network(key: NetworkKey, properties: dict[bytes, bytes | None]) -> bool:
    """Return whether an announcement is of the network that has this key."""
    tag = properties.get(TAG_KEY)
    if properties.get(VERSION_KEY) != ROOM_VERSION or key.psk is None or tag is None:
        return properties.get(VERSION_KEY) == ROOM_VERSION and key.psk is None and tag is None
    head, rest = tag[: 2 * ROOM_NONCE_BYTES], tag[2 * ROOM_NONCE_BYTES :]
    try:
        nonce = bytes.fromhex(head.decode("ascii"))
    except ValueError:
        return False
    return hmac.compare_digest(rest, _tag(key.psk, nonce))


def _tag(psk: bytes, nonce: bytes) -> bytes:
    hasher = blake3(psk + nonce, derive_key_context=_ROOM_TAG_CONTEXT)
    return hasher.hexdigest(ROOM_TAG_BYTES).encode()


class _Ear(ServiceListener):
    """Hears announcements, in a thread of zeroconf, one after the other."""

    def __init__(
        self,
        own_name: str,
        key: NetworkKey,
        hosts: Sequence[Address],
        pass_on: Callable[[_Announced], None],
        is_full: Callable[[], None] = lambda: None,
    ) -> None:
        """`is_full` is called when MAX_NAMES were heard."""
        self._own_name = own_name
        self._key = key
        self._networks = {groups_of(one.host)[0] for one in hosts}
        self._pass_on = pass_on
        self._is_full = is_full
        self._names = 0
        self._resolves = TokenBucket(RESOLVES_PER_S, RESOLVE_BURST)

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Hand on a new announcement, if it is of our network."""
        self._names += 1
        if self._names == MAX_NAMES:
            self._is_full()
        self.update_service(zc, type_, name)

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Hand on an announcement that is new, or has changed."""
        if name == self._own_name:
            return
        info = ServiceInfo(type_, name)
        if info.load_from_cache(zc) or self._is_resolved(info, zc):
            self.take(info)

    def _is_resolved(self, info: ServiceInfo, zc: Zeroconf) -> bool:
        return self._resolves.take(time.monotonic()) and info.request(zc, RESOLVE_MS)

    def take(self, info: ServiceInfo) -> None:
        """Hand on an announcement, if it is of our network and may be dialled."""
        addresses = self._addresses_of(info)
        if addresses and is_of_network(self._key, dict(info.properties)):
            self._pass_on(_Announced(info.name, addresses))

    def remove_service(self, _zc: Zeroconf, _type: str, name: str) -> None:
        """Hand on that an announcement has ended."""
        self._pass_on(_Announced(name, ()))

    def _addresses_of(self, info: ServiceInfo) -> tuple[Address, ...]:
        port = info.port or 0
        hosts = [host for host in info.parsed_scoped_addresses() if self._is_near(host)]
        return tuple(Address(host, port) for host in hosts[:MAX_ADDRESSES] if port >= MIN_PORT)

    def _is_near(self, host: str) -> bool:
        """Return whether an address is of a private network, or of one of our own."""
        scope = scope_of(host)
        return scope is Scope.SITE or (
            scope is Scope.WORLD and groups_of(host)[0] in self._networks
        )


def _version_of(hosts: Sequence[Address]) -> IPVersion:
    versions = {ipaddress.ip_address(one.host.partition("%")[0]).version for one in hosts}
    if versions == {4}:
        return IPVersion.V4Only
    return IPVersion.V6Only if versions == {6} else IPVersion.All


def _pass_on(
    send: trio.MemorySendChannel[_Announced], token: trio.lowlevel.TrioToken, one: _Announced
) -> None:
    def put() -> None:
        with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError):
            send.send_nowait(one)

    _run_soon(token, put)


def _run_soon(token: trio.lowlevel.TrioToken, act: Callable[[], object]) -> None:
    with contextlib.suppress(trio.RunFinishedError):
        token.run_sync_soon(act)
