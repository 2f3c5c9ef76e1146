"""A message type is complete: what it lacks is told in words, with where that belongs."""

from __future__ import annotations

import typing
from pathlib import Path

import p2pfs.protocol
from p2pfs.protocol import fields
from p2pfs.protocol import messages as m
from p2pfs.protocol.registry import MESSAGE_TYPES, REGISTRY
from tests.helpers import strategies

DOCUMENT = Path(p2pfs.protocol.__file__).with_name("PROTOCOL.md").read_text()
VECTORS = Path(__file__).parents[1] / "vectors" / "messages"
PARTS = {fields.Message, fields.Address, fields.PeerInfo, fields.Entry, fields.Terms}
"""Structs that are sent inside of others only."""


def wire_name(message_type: type) -> str:
    """Return how PROTOCOL.md calls a type: GET_PEERS for GetPeers."""
    name = message_type.__name__
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


def omissions(message_types: typing.Iterable[type[fields.Message]]) -> list[str]:
    """Return what these types lack, a line each."""
    rows = {row.struct: row for row in REGISTRY}
    lacking = []
    for message_type in message_types:
        name = wire_name(message_type)
        number = rows[message_type].number if message_type in rows else -1
        if message_type not in rows:
            lacks = ("number", "kind of link", "body limit", "rate")
            lacking += [f"{name} has no {what}: a row of REGISTRY in registry.py" for what in lacks]
        if message_type not in strategies.BY_TYPE:
            lacking.append(f"{name} cannot be made up: BY_TYPE in tests/helpers/strategies.py")
        if f" {name}\n" not in DOCUMENT:
            lacking.append(f"{name} is described nowhere: a section of PROTOCOL.md")
        if not list(VECTORS.glob(f"{number:02x}_*.json")):
            lacking.append(f"{name} has no vectors: a file in tests/vectors/messages")
    return lacking


def test_every_message_type_has_all_that_one_needs():
    structs = {kind for kind in vars(m).values() if isinstance(kind, type)}
    sent = [kind for kind in structs if issubclass(kind, fields.Message) and kind not in PARTS]

    assert set(sent) >= set(MESSAGE_TYPES.values())
    assert omissions(sent) == []


def test_what_a_new_type_lacks_is_told_in_words():
    class Notice(fields.Message, array_like=True, frozen=True):
        text: str

    told = "\n".join(omissions([Notice]))

    assert "NOTICE has no body limit" in told
    assert told.count("\n") == 6
