"""A message type is complete: what it lacks is told in words, with where that belongs."""

from __future__ import annotations

import typing
from pathlib import Path

import p2pfs.protocol
from p2pfs.protocol import messages as m
from p2pfs.protocol.codec import BODY_LIMITS
from p2pfs.protocol.connection import STEPS
from tests.helpers import strategies

DOCUMENT = Path(p2pfs.protocol.__file__).with_name("PROTOCOL.md").read_text()
VECTORS = Path(__file__).parents[1] / "vectors" / "messages"


def wire_name(message_type: type) -> str:
    """Return how PROTOCOL.md calls a type: GET_PEERS for GetPeers."""
    name = message_type.__name__
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


def omissions(message_types: typing.Iterable[type[m.Message]]) -> list[str]:
    """Return what these types lack, a line each."""
    numbers = {message_type: number for number, message_type in m.MESSAGE_TYPES.items()}
    lacking = []
    for message_type in message_types:
        name = wire_name(message_type)
        number = numbers.get(message_type)
        if number is None:
            lacking.append(f"{name} has no number: a row of MESSAGE_TYPES in messages.py")
            number = -1
        if message_type not in BODY_LIMITS:
            lacking.append(f"{name} has no body limit: a row of BODY_LIMITS in codec.py")
        if message_type not in STEPS and message_type is not m.Hello:
            lacking.append(f"{name} is for no kind of link: a row of STEPS in connection.py")
        if message_type not in strategies.BY_TYPE:
            lacking.append(f"{name} cannot be made up: BY_TYPE in tests/helpers/strategies.py")
        if f" {name}\n" not in DOCUMENT:
            lacking.append(f"{name} is described nowhere: a section of PROTOCOL.md")
        if not list(VECTORS.glob(f"{number:02x}_*.json")):
            lacking.append(f"{name} has no vectors: a file in tests/vectors/messages")
    return lacking


def test_every_message_type_has_all_that_one_needs():
    assert omissions(m.MESSAGE_TYPES.values()) == []


def test_what_a_new_type_lacks_is_told_in_words():
    class Notice(m.Message, array_like=True, frozen=True):
        text: str

    told = "\n".join(omissions([Notice]))

    assert "NOTICE has no body limit" in told
    assert told.count("\n") == 5
