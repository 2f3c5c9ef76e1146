"""What a stranger says after the handshake ends his own link at most, and hurts nobody else.

Two real servents are linked, and a stranger beside them says and answers what Hypothesis thinks
of, while the user of the first one looks around. `P2PFS_FUZZ_EXAMPLES` in the environment makes
it look longer than in an ordinary run; `contrib/hostile --fuzz MINUTES` sets it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from p2pfs.errors import P2pfsError
from p2pfs.link.sockets import Channel
from p2pfs.namespace.nodes import RemoteFile
from p2pfs.protocol import FileId, Identity, fields, sign_hit, sign_news
from p2pfs.protocol import messages as m
from p2pfs.protocol.codec import encode
from p2pfs.protocol.flood.filters import FILTER_BITS, pack, pack_added
from p2pfs.protocol.registry import LINKS
from tests.fuzz.test_fuzz_wire import frames, mutants
from tests.helpers import strategies
from tests.helpers.contents import Content
from tests.helpers.rogues import RawPeer
from tests.helpers.sizes import BLOCK
from tests.helpers.world import PORT, World, host, open_pair, read_whole

EXAMPLES: Final = int(os.environ.get("P2PFS_FUZZ_EXAMPLES", "100")) // 2
STRANGER: Final = "10.66.6.6"
FILM: Final = Content.of(BLOCK + 5, seed=3)
FILM_PATH: Final = "folder/film.bin"
NOTE: Final = b"a note"
LOOK_S: Final = 120.0
"""Of virtual time for one look of the user: more than any search, listing or read may take."""

paths = st.sampled_from(["", "folder", FILM_PATH, "note.txt", "trap", "trap/door"])
film_entries = st.builds(
    fields.Entry,
    st.sampled_from([FILM_PATH, "folder/other.bin", "film.bin"]),
    strategies.integers(1, 2**40) | st.just(FILM.size),
    strategies.times,
    st.just(bytes(FILM.file_id)),
)
directories = st.builds(
    fields.Entry, paths.filter(bool), st.just(0), strategies.times, st.just(b"")
)
entries = film_entries | directories | strategies.entries
entry_lists = strategies.tuples(entries, 50)

filters = st.one_of(
    st.builds(
        lambda layer, bits: m.Filter(layer, m.FilterForm.WHOLE, pack(bits, FILTER_BITS)),
        st.integers(1, 2),
        st.integers(0, 2**64),
    ),
    st.builds(
        lambda layer, at: m.Filter(layer, m.FilterForm.ADDED, pack_added(sorted(at))),
        st.integers(1, 2),
        st.sets(st.integers(0, FILTER_BITS - 1), max_size=20),
    ),
)


@dataclass(frozen=True)
class Manner:
    """How a stranger answers what he is asked."""

    entries: tuple[fields.Entry, ...]
    has_more: bool
    is_last: bool
    total: int
    is_complete: bool
    data: bytes
    pieces: int
    reject: m.Reject | None
    ignored: frozenset[type[fields.Message]]


manners = st.builds(
    Manner,
    entry_lists,
    st.booleans(),
    st.booleans(),
    strategies.counts,
    st.booleans(),
    st.sampled_from([FILM.manifest.to_bytes(), FILM.block(0), FILM.block(1)])
    | st.binary(max_size=200),
    st.integers(1, 3),
    st.none() | strategies.BY_TYPE[m.Reject],
    st.frozensets(st.sampled_from([m.Query, m.List, m.Match, m.GetManifest, m.GetBlocks])),
)


@dataclass(frozen=True)
class Say:
    """A frame that a stranger sends on his own link of a kind; News and hits he signs."""

    kind: m.LinkKind
    frame: fields.Message | bytes
    request_id: int = 0


@dataclass(frozen=True)
class Look:
    """What the user of the servent does meanwhile."""

    verb: str
    path: str


ANY: Final = st.one_of(
    *(strategies.BY_TYPE[one] for one in strategies.BY_TYPE if one is not m.Hello)
)
spoilt_filters = st.builds(
    m.Filter, st.integers(1, 2), st.sampled_from(m.FilterForm), st.binary(min_size=1, max_size=64)
)


@st.composite
def moves(draw: st.DrawFn) -> Say | Look | float:
    """Draw one step of a script; most are messages that this kind of link takes."""
    what = draw(st.sampled_from(["filter", "say", "say", "say", "spoil", "look", "look", "wait"]))
    if what == "look":
        verb = draw(st.sampled_from(["list", "find", "read", "search", "peers"]))
        return Look(verb, draw(paths))
    if what == "wait":
        return draw(st.floats(0.01, 5.0))
    if what == "filter":
        return Say(m.LinkKind.NEIGHBOUR, draw(spoilt_filters | filters))
    kind = draw(st.sampled_from(m.LinkKind))
    if what == "spoil":
        return Say(kind, draw(mutants() | frames))
    here = [one for one, links in LINKS.items() if links.value in (kind.name.lower(), "both")]
    known = [one for one in here if one in strategies.BY_TYPE and one is not m.Hello]
    message = draw(ANY | st.sampled_from(known).flatmap(strategies.BY_TYPE.__getitem__))
    return Say(kind, message, draw(st.integers(0, 3)))


class Line:
    """A link on which two tasks may send, whatever our own rules say of the frame."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer
        self._alone = trio.Lock()

    async def send(self, frame: bytes) -> None:
        async with self._alone:
            sealed = self.peer.connection._handshake.encrypt(frame)
            await self.peer.channel.stream.send_all(len(sealed).to_bytes(2, "big") + sealed)


class Stranger:
    """One who has shaken hands, is dialled too, and keeps to no rule."""

    def __init__(self, world: World, nursery: trio.Nursery, manner: Manner) -> None:
        self._network = world.net.host(STRANGER)
        self._identity = Identity.generate()
        self._me = fields.PeerInfo(self._identity.id, "stranger", (fields.Address(STRANGER, PORT),))
        self._nursery = nursery
        self._manner = manner
        self._links: dict[m.LinkKind, Line] = {}

    async def listen(self) -> None:
        """Take in those who dial."""
        listener = await self._network.listen(None, PORT)
        try:
            while True:
                self._nursery.start_soon(self._take, await listener.accept())
        finally:
            await listener.aclose()

    async def _take(self, channel: Channel) -> None:
        with _until_it_ends():
            await self._converse(Line(await RawPeer.answer(channel, identity=self._identity)))

    async def say(self, one: Say) -> None:
        """Send a frame; dial first if there is no link of this kind."""
        with _until_it_ends():
            if one.kind not in self._links:
                await self._dial(one.kind)
            frame = one.frame
            if isinstance(frame, m.News):
                frame = self._signed(frame)
            if isinstance(frame, fields.Message):
                frame = encode(frame, one.request_id)
            if one.kind in self._links:
                await self._links[one.kind].send(frame)

    def _signed(self, news: m.News) -> m.News:
        me = self._me
        return sign_news(
            self._identity, news.ttl, me, news.version, news.directories, is_all=news.is_all
        )

    async def _dial(self, kind: m.LinkKind) -> None:
        there = fields.Address(host(0), PORT)
        peer = await RawPeer.dial(self._network, there, kind, identity=self._identity, hello=False)
        await peer.send(m.Hello(kind, "stranger", PORT, there, self._me.addresses, "x"))
        answer, _ = await peer.receive()
        if isinstance(answer, m.Hello):
            self._links[kind] = Line(peer)
            self._nursery.start_soon(self._keep, kind, self._links[kind])

    async def _keep(self, kind: m.LinkKind, line: Line) -> None:
        with _until_it_ends():
            await self._converse(line)
        if self._links.get(kind) is line:
            del self._links[kind]

    async def _converse(self, line: Line) -> None:
        while True:
            message, request_id = await line.peer.receive()
            if type(message) in self._manner.ignored:
                continue
            for frame in self._answers(message, request_id):
                await line.send(frame)

    def _answers(self, message: fields.Message, request_id: int) -> Sequence[bytes]:
        manner = self._manner
        if isinstance(message, m.Ping):
            return [encode(m.Pong(), request_id)]
        if isinstance(message, m.Query):
            hit = sign_hit(
                self._identity, message.guid, message.ttl, self._me, manner.entries, manner.total
            )
            done = m.Done(message.guid, message.ttl, 1, 1, manner.is_complete)
            return [encode(hit), encode(done)]
        if isinstance(message, m.Walk):
            return [encode(m.Introduce(message.guid, self._me))]
        if manner.reject is not None and request_id:
            return [encode(manner.reject, request_id)]
        if isinstance(message, m.List | m.Match):
            page = m.Listing(manner.entries, manner.has_more, manner.is_last)
            return [encode(page, request_id)] * manner.pieces
        if isinstance(message, m.GetManifest | m.GetBlocks):
            head = m.DATA.to_bytes(1, "big") + request_id.to_bytes(4, "big")
            last = m.DATA_END.to_bytes(1, "big") + request_id.to_bytes(4, "big")
            data = manner.data[:60_000]
            return [head + data] * (manner.pieces - 1) + [last + data]
        return []


@contextlib.contextmanager
def _until_it_ends() -> Iterator[None]:
    with contextlib.suppress(
        P2pfsError, trio.BrokenResourceError, trio.ClosedResourceError, AssertionError
    ):
        yield


async def look(world: World, one: Look) -> None:
    """Do what a user does; that it fails is his affair, that it never ends is not."""
    servent = world[0]
    looks: dict[str, Callable[[], object]] = {
        "list": lambda: servent.browser.list(one.path),
        "find": lambda: servent.browser.find(one.path),
        "read": lambda: world.read(0, one.path),
        "search": lambda: servent.results.list(one.path.rpartition("/")[2]),
        "peers": lambda: servent.shares.list(f"stranger/{one.path}".rstrip("/")),
    }
    with trio.fail_after(LOOK_S), contextlib.suppress(P2pfsError, AssertionError):
        await looks[one.verb]()


class Bugs(logging.Handler):
    """What a servent says of its own bugs, with where they are."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.met: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.met.append(logging.Formatter().format(record))


@contextlib.contextmanager
def no_bugs() -> Iterator[None]:
    bugs, logger = Bugs(), logging.getLogger("p2pfs")
    logger.addHandler(bugs)
    try:
        yield
    finally:
        logger.removeHandler(bugs)
    assert not bugs.met, "\n".join(bugs.met)


async def read_film(world: World) -> bytes:
    """Find the film by its content, as nobody can take that, and read it whole."""
    with trio.fail_after(LOOK_S):
        file = await world[0].find_content(FileId(FILM.file_id))
        assert isinstance(file, RemoteFile)
        return await read_whole(world[0], file)


@contextlib.asynccontextmanager
async def open_library() -> AsyncIterator[World]:
    """Run two honest servents that are linked; the second one shares a film and a note."""
    async with open_pair() as world:
        await world.share(1, "note.txt", NOTE)
        await world.share(1, FILM_PATH, FILM.block(0) + FILM.block(1))
        yield world


async def play(world: World, manner: Manner, script: Sequence[Say | Look | float]) -> None:
    """Let a stranger go through his script, and be reset at its end."""
    async with trio.open_nursery() as nursery:
        stranger = Stranger(world, nursery, manner)
        nursery.start_soon(stranger.listen)
        await stranger.say(Say(m.LinkKind.NEIGHBOUR, m.Ping(), 1))
        for move in script:
            if isinstance(move, Say):
                await stranger.say(move)
            elif isinstance(move, Look):
                nursery.start_soon(look, world, move)
            else:
                await trio.sleep(move)
        assert await read_film(world) == FILM.block(0) + FILM.block(1)
        await trio.sleep(LOOK_S)
        nursery.cancel_scope.cancel()
    world.net.cut(STRANGER)


async def hurts_nobody(manner: Manner, script: Sequence[Say | Look | float]) -> None:
    """Check that the link between the honest stands, and carries what it should."""
    async with open_library() as world:
        honest = world[0].overlay.neighbours[0]
        await play(world, manner, script)

        assert honest in world[0].overlay.neighbours
        await world.share(1, "later.txt", NOTE)
        await trio.sleep(LOOK_S)
        assert {"later.txt", "note.txt", "folder"} <= set(await world.names(0))
        assert await world.read(0, "later.txt") == NOTE


@settings(max_examples=EXAMPLES)
@given(manners, st.lists(moves(), min_size=2, max_size=20))
def test_a_stranger_hurts_nobody_but_himself(manner, script):
    with no_bugs():
        trio.run(hurts_nobody, manner, script, clock=MockClock(autojump_threshold=0))
