"""What stands in the documents: blocks of code, and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

README: Final = ROOT / "README.md"

DOCUMENTS: Final = (README, *sorted((ROOT / "contrib" / "docs").glob("*.md")))

_BLOCK: Final = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n\n?)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

_RULE: Final = re.compile(r"\|[ :|-]+\|")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    document: str
    line: int
    mark: str
    """What the comment above it says, or nothing."""
    language: str
    text: str


@dataclass(frozen=True)
class Example:
    """A command, and the lines that it is said to show."""

    command: str
    shown: str


def blocks(document: Path) -> list[Block]:
    """Return the fenced blocks of a document, in their order."""
    text = document.read_text()
    return [
        Block(
            document.name,
            text.count("\n", 0, found.start("text")),
            found["mark"] or "",
            found["language"],
            found["text"],
        )
        for found in _BLOCK.finditer(text)
    ]


def examples(text: str) -> list[Example]:
    """Return the commands of a console, each with what follows it."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not parts[0].strip(), f"no command shows this: {parts[0]}"
    found = []
    for part in parts[1:]:
        command, _, shown = part.partition("\n")
        while command.endswith("\\"):
            more, _, shown = shown.partition("\n")
            command += "\n" + more
        found.append(Example(command, shown))
    return found


def section(document: Path, title: str) -> str:
    """Return the text below a heading, up to the next one."""
    pattern = rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)"
    found = re.search(pattern, document.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{document.name} has no section {title!r}"
    return found[1]


def table(text: str) -> list[list[str]]:
    """Return the cells of the first table in a text, without its head and backquotes."""
    lines = iter(text.splitlines())
    for line in lines:
        if _RULE.fullmatch(line):
            break
    else:
        raise AssertionError("no table")
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells: Sequence[str] = re.split(r"(?<!\\)\|", line.strip().strip("|"))
        rows.append([cell.strip().replace("`", "").replace(r"\|", "|") for cell in cells])
    return rows
