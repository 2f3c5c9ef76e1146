"""PROTOCOL.md and the code say the same: each table of the one is compared with the other."""

from __future__ import annotations

import enum
import importlib
import json
import re
from pathlib import Path

import msgspec
import pytest
from msgspec import inspect

import p2pfs.protocol
from p2pfs.protocol import fields
from p2pfs.protocol import messages as m
from p2pfs.protocol.handshake import Credentials, Early, Role
from p2pfs.protocol.registry import BODY_LIMITS, MESSAGE_TYPES, RATES
from p2pfs.protocol.states import STEPS, TRANSITIONS, State, Step

DOCUMENT = (Path(p2pfs.protocol.__file__).parent / "PROTOCOL.md").read_text()
LINKS = {Step.CONTROL: "neighbour", Step.TRANSFER: "transfer"}


def section(title: str) -> str:
    """The text below a heading, up to the next one of any level."""
    pattern = rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)"
    found = re.search(pattern, DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found, f"PROTOCOL.md has no section {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without their heads and without backquotes."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines, "no table"
    ruled = {i for i, line in enumerate(lines) if line.startswith("|--")}
    heads = {i - 1 for i in ruled}
    body = [line for i, line in enumerate(lines) if i not in ruled | heads]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in body]


def wire_name(kind: type) -> str:
    """The name of a message or an enumeration as people write it: QueryHit is QUERY_HIT."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper()


def type_of(kind: inspect.Type) -> str:
    match kind:
        case inspect.UnionType():
            (other,) = (one for one in kind.types if not isinstance(one, inspect.NoneType))
            return type_of(other)
        case inspect.VarTupleType():
            return f"list of {type_of(kind.item_type)}"
        case inspect.CustomType() | inspect.StructType() | inspect.EnumType():
            return kind.cls.__name__
        case inspect.BytesType():
            return "bytes"
        case inspect.StrType():
            return "text"
        case inspect.BoolType():
            return "truth"
        case inspect.IntType():
            return "integer"
    raise AssertionError(kind)


def bounds_of(kind: inspect.Type) -> str:
    match kind:
        case inspect.BytesType(min_length=least, max_length=most) if least == most:
            return f"{most} bytes"
        case inspect.BytesType(max_length=most):
            return f"at most {most} bytes"
        case inspect.StrType(pattern=str(pattern)):
            return pattern
        case inspect.StrType(max_length=most):
            return f"at most {most:,} characters"
        case inspect.VarTupleType(max_length=most):
            return f"at most {most}"
        case inspect.IntType(ge=least, le=most, lt=beyond):
            return f"{least:,} to {beyond - 1 if most is None else most:,}"
    return ""


def fields_of(struct: type[msgspec.Struct]) -> list[list[str]]:
    fields = inspect.type_info(struct).fields
    return [
        [field.name + ("" if field.required else " (optional)"), type_of(field.type),
         bounds_of(field.type)]
        for field in fields
    ]  # fmt: skip


RECORDS = {
    struct.__name__: struct
    for struct in (fields.Address, fields.PeerInfo, fields.Entry, fields.Terms, Credentials, Early)
}
STRUCTS = {f"0x{n:02x} {wire_name(t)}": t for n, t in MESSAGE_TYPES.items()} | RECORDS


@pytest.mark.parametrize("title", STRUCTS)
def test_the_fields_of_each_message_and_record_are_those_of_the_code(title):
    expected = fields_of(STRUCTS[title])
    text = section(title)
    if expected:
        assert [row[:3] for row in rows(text)] == expected
    else:
        assert "No fields." in text
    assert "```hex" in text or title in RECORDS


def test_the_list_of_messages_is_that_of_the_code():
    expected = [
        [f"0x{n:02x}", wire_name(t), LINKS.get(STEPS.get(t), "both"), f"{BODY_LIMITS[t]:,}"]
        for n, t in MESSAGE_TYPES.items()
    ]
    expected += [[f"0x{n:02x}", name, "transfer", "65,514"] for n, name in DATA_TYPES]
    assert [row[:4] for row in rows(section("List of messages"))] == expected


def test_the_rates_are_those_of_the_code():
    expected = [[wire_name(t), f"{rate.per_s:,}", f"{rate.burst:,}"] for t, rate in RATES.items()]
    assert rows(section("Budgets")) == expected


DATA_TYPES = [(m.DATA, "DATA"), (m.DATA_END, "DATA_END")]


@pytest.mark.parametrize("codes", [m.LinkKind, m.ByeCode, m.QueryKind, m.RejectCode])
def test_the_codes_are_those_of_the_code(codes: type[enum.IntEnum]):
    table = rows(section(codes.__name__))
    assert [row[:2] for row in table] == [[str(code.value), code.name] for code in codes]


def test_the_transitions_are_those_of_the_code():
    who = {"either": [*Role], "initiator": [Role.INITIATOR], "responder": [Role.RESPONDER]}
    table = {
        (State(state), role, Step(step)): State(following)
        for state, sender, step, following in rows(section("Transitions"))
        for role in who[sender]
    }
    assert table == TRANSITIONS


def test_every_state_is_explained():
    assert [row[0] for row in rows(section("States"))] == [state.value for state in State]


@pytest.mark.parametrize("row", rows(section("Limits")), ids=lambda row: row[0])
def test_the_limits_are_those_of_the_code(row):
    module, _, name = row[0].rpartition(".")
    value = getattr(importlib.import_module(f"p2pfs.{module}"), name)
    assert float(row[1].replace(",", "")) == value
    assert row[2], "a limit has a unit"
    assert row[3], "a limit has a reason"


def test_every_limit_of_the_protocol_is_listed():
    listed = {row[0] for row in rows(section("Limits"))}
    for module in (
        *("inbox", "codec", "messages", "manifest", "names"),
        *(
            "flood.routing",
            "flood.spreading",
            "flood.askers",
            "flood.waves",
            "flood.seen",
            "flood.budgets",
        ),
    ):
        constants = vars(importlib.import_module(f"p2pfs.protocol.{module}"))
        path = f"{module.replace('.', '/')}.py"
        source = (Path(p2pfs.protocol.__file__).parent / path).read_text()
        for name in re.findall(r"^(MAX_\w+): Final", source, re.MULTILINE):
            assert f"protocol.{module}.{name}" in listed, (name, constants[name])


def test_every_rule_for_names_is_listed():
    path = Path(__file__).parent.parent / "vectors" / "names.json"
    refused = {case["refused"] for case in json.loads(path.read_text())["cases"]}
    assert {row[1] for row in rows(section("Names"))} == refused - {None}
