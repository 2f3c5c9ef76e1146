"""Two connections joined by a wire without time, or one of them facing made-up bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from p2pfs.protocol.connection import NEED_DATA, Connection, Event
from p2pfs.protocol.fields import Address, Message
from p2pfs.protocol.handshake import Role
from p2pfs.protocol.identity import Identity, NetworkKey
from p2pfs.protocol.inbox import LENGTH
from p2pfs.protocol.messages import Hello, LinkKind
from p2pfs.protocol.states import State

IDENTITIES = {
    Role.INITIATOR: Identity.from_bytes(bytes([1]) * 32),
    Role.RESPONDER: Identity.from_bytes(bytes([2]) * 32),
}
OPEN = NetworkKey.open()
PRIVATE = NetworkKey(bytes(range(32)))


def hello(kind: LinkKind) -> Hello:
    """A HELLO that nobody looks at."""
    return Hello(kind, "test", 4774, Address("127.0.0.1", 4774), (), "p2pfs test")


def events_of(connection: Connection) -> list[Event]:
    """Everything that a connection has to tell now."""
    events = []
    while len(events) < 10_000:
        event = connection.next_event()
        if event is NEED_DATA:
            break
        events.append(event)
        if connection.state is State.CLOSED:
            break
    return events


def whole(data: bytes) -> Iterator[bytes]:
    """Deliver data in one piece."""
    yield data


def by_byte(data: bytes) -> Iterator[bytes]:
    """Deliver data one byte at a time."""
    return (data[i : i + 1] for i in range(len(data)))


def by_receive(data: bytes) -> Iterator[bytes]:
    """Deliver data as a socket might, wherever frames end."""
    return (data[i : i + 100_000] for i in range(0, len(data), 100_000))


def by_frame(data: bytes) -> Iterator[bytes]:
    """Deliver data one frame at a time."""
    while data:
        end = LENGTH.size + LENGTH.unpack_from(data)[0]
        yield data[:end]
        data = data[end:]


def feed(connection: Connection, pieces: Iterable[bytes]) -> list[Event]:
    """Give a connection bytes, piece by piece, and return all that it tells."""
    events = []
    for piece in pieces:
        connection.receive_data(piece)
        events += events_of(connection)
    return events


class ConnectionPair:
    """An initiator and a responder, and the wire between them."""

    def __init__(self, network_key: NetworkKey = OPEN, *, cut=whole) -> None:
        self.ends = {role: Connection(role, IDENTITIES[role], network_key) for role in Role}
        self._cut = cut

    @property
    def states(self) -> set[State]:
        """The state as the two ends see it."""
        return {connection.state for connection in self.ends.values()}

    def deliver(self, to: Role, data: bytes) -> list[Event]:
        """Bring bytes to one end, carry what it answers, and return what it tells."""
        events = feed(self.ends[to], self._cut(data))
        answer = self.ends[to].data_to_send()
        if answer:
            events += self.deliver(to.other, answer)
        return events

    def greet(self) -> list[Event]:
        """Carry out the handshake; return the two `Greeted`."""
        first = {role: connection.start() for role, connection in self.ends.items()}
        return [
            *self.deliver(Role.INITIATOR, first[Role.RESPONDER]),
            *self.deliver(Role.RESPONDER, first[Role.INITIATOR]),
        ]

    def say(self, role: Role, message: Message, request_id: int = 0) -> list[Event]:
        """Send a message from one end; return what the other end tells."""
        return self.deliver(role.other, self.ends[role].send(message, request_id))

    def reach(self, state: State) -> ConnectionPair:
        """Bring a fresh pair into `state`."""
        kind = {
            State.ASKED_NEIGHBOUR: LinkKind.NEIGHBOUR, State.NEIGHBOUR: LinkKind.NEIGHBOUR,
            State.ASKED_TRANSFER: LinkKind.TRANSFER, State.TRANSFER: LinkKind.TRANSFER,
        }.get(state)  # fmt: skip
        if state is not State.PREFACE:
            self.greet()
        if kind is not None:
            self.say(Role.INITIATOR, hello(kind))
        if state in (State.NEIGHBOUR, State.TRANSFER):
            self.say(Role.RESPONDER, hello(kind))
        return self
