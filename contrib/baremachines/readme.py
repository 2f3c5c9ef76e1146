"""The commands that README.md tells its readers, so that what is tried is what they read.

A block of code is run if the line above it is a comment such as
`<!-- contrib/fresh: on the first machine -->`. What a block says will be shown is compared by
tests/documents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

README: Final = Path(__file__).parents[2] / "README.md"

FIRST, SECOND, EITHER = "first", "second", "either"

_BLOCK: Final = re.compile(
    r"^<!-- contrib/fresh: on (?:the )?(first|second|either)(?: machine)? -->\n\n?"
    r"(?:```\w*\n(.*?)^```|((?:(?:    [^\n]*)?\n)+))",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """Some commands, and on which machine they are for."""

    machine: str
    commands: Sequence[str]


def blocks(path: Path = README) -> list[Block]:
    """Return the marked blocks in the order of the text."""
    found = _BLOCK.findall(path.read_text())
    return [Block(machine, _commands(fenced or indented)) for machine, fenced, indented in found]


def _commands(code: str) -> list[str]:
    """Return the lines that are typed: those with a prompt, or all where none has one."""
    lines = [line.strip() for line in code.splitlines()]
    if any(line.startswith("$ ") for line in lines):
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in lines if line and not line.startswith("#")]
