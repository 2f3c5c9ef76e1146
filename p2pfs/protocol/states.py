"""What may be said on a link when: its states, and the steps between them, as one table.

A link has one state, the same at both ends but for the messages still on their way. Each message
that crosses it is a step of some kind, made by one of the two roles; `TRANSITIONS` says where each
legal step leads, and all others are illegal. Sender and receiver ask the same table, so the two
ends cannot disagree on it. Until both HELLOs have crossed, the steps of the responder wait for
those of the initiator, who may ask at once what it has dialled for; from then on any order is
legal, and a BYE from either end is last.

States, steps and rows are those of PROTOCOL.md, "Link states"; a test compares the two.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from p2pfs.protocol.fields import Message
from p2pfs.protocol.handshake import Role
from p2pfs.protocol.messages import Bye, Data, Hello, LinkKind, Unknown
from p2pfs.protocol.registry import LINKS, LinkScope


class State(enum.Enum):
    """The stages of a link: waiting for something, or open."""

    __hash__ = object.__hash__  # each frame is looked up by it; an Enum's own is a call

    PREFACE = "preface"
    NOISE = "noise"
    GREETED = "greeted"
    ASKED_NEIGHBOUR = "asked neighbour"
    ASKED_TRANSFER = "asked transfer"
    NEIGHBOUR = "neighbour"
    TRANSFER = "transfer"
    RELAYED = "relayed"
    CLOSED = "closed"


class Step(enum.Enum):
    """What moves a link, or passes over it."""

    __hash__ = object.__hash__

    PREFACE = "preface"
    PROOF = "last Noise message"
    TAKEN = "second message of IK"
    TICKET = "ticket"
    HELLO_NEIGHBOUR = "HELLO (neighbour)"
    HELLO_TRANSFER = "HELLO (transfer)"
    CONTROL = "control message"
    TRANSFER = "transfer message"
    KEEP_ALIVE = "PING or PONG"
    UNKNOWN = "unknown type"
    BYE = "BYE"


_STEP_ON: Final = {
    LinkScope.NEIGHBOUR: Step.CONTROL,
    LinkScope.TRANSFER: Step.TRANSFER,
    LinkScope.BOTH: Step.KEEP_ALIVE,
}

STEPS: Final[Mapping[type[Message | Data | Unknown], Step]] = {
    **{kind: _STEP_ON[links] for kind, links in LINKS.items() if kind is not Hello},
    Bye: Step.BYE,
    Data: Step.TRANSFER,
    Unknown: Step.UNKNOWN,
}
"""The step that each type is, but for HELLO, which stands for two: its kind decides."""

_EITHER: Final = tuple(Role)

_ROWS: Final = (
    (State.PREFACE, _EITHER, Step.PREFACE, State.NOISE),
    (State.NOISE, (Role.INITIATOR,), Step.PROOF, State.GREETED),
    (State.NOISE, (Role.RESPONDER,), Step.TAKEN, State.GREETED),
    (State.NOISE, (Role.INITIATOR,), Step.TICKET, State.RELAYED),
    (State.GREETED, (Role.INITIATOR,), Step.HELLO_NEIGHBOUR, State.ASKED_NEIGHBOUR),
    (State.GREETED, (Role.INITIATOR,), Step.HELLO_TRANSFER, State.ASKED_TRANSFER),
    (State.GREETED, _EITHER, Step.BYE, State.CLOSED),
    (State.ASKED_NEIGHBOUR, (Role.RESPONDER,), Step.HELLO_NEIGHBOUR, State.NEIGHBOUR),
    (State.ASKED_NEIGHBOUR, _EITHER, Step.BYE, State.CLOSED),
    (State.ASKED_TRANSFER, (Role.RESPONDER,), Step.HELLO_TRANSFER, State.TRANSFER),
    (State.ASKED_TRANSFER, (Role.INITIATOR,), Step.TRANSFER, State.ASKED_TRANSFER),
    (State.ASKED_TRANSFER, _EITHER, Step.BYE, State.CLOSED),
    (State.NEIGHBOUR, _EITHER, Step.CONTROL, State.NEIGHBOUR),
    (State.NEIGHBOUR, _EITHER, Step.KEEP_ALIVE, State.NEIGHBOUR),
    (State.NEIGHBOUR, _EITHER, Step.UNKNOWN, State.NEIGHBOUR),
    (State.NEIGHBOUR, _EITHER, Step.BYE, State.CLOSED),
    (State.TRANSFER, _EITHER, Step.TRANSFER, State.TRANSFER),
    (State.TRANSFER, _EITHER, Step.KEEP_ALIVE, State.TRANSFER),
    (State.TRANSFER, _EITHER, Step.UNKNOWN, State.TRANSFER),
    (State.TRANSFER, _EITHER, Step.BYE, State.CLOSED),
)

TRANSITIONS: Final[Mapping[tuple[State, Role, Step], State]] = {
    (state, role, step): following for state, roles, step, following in _ROWS for role in roles
}
"""The state after each legal step, by the state before and the role that makes it."""


def step_of(said: Message | Data | Unknown) -> Step:
    """Return the step that something is which crosses a link."""
    if isinstance(said, Hello):
        return Step.HELLO_NEIGHBOUR if said.kind is LinkKind.NEIGHBOUR else Step.HELLO_TRANSFER
    return STEPS[type(said)]
