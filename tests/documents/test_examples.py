"""What README.md and contrib/docs show is what happens: each example is run, and compared."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.reading import DOCUMENTS, Block, Example, blocks, examples
from tests.helpers.machines import Machine, Plan, machines

FIRST, SECOND, FRIEND = "first", "second", "friend"

PLANS = {
    FIRST: Plan("desk", "ann", "192.168.1.5", "first-machine desk.example"),
    SECOND: Plan("laptop", "ben", "192.168.1.7"),
    FRIEND: Plan("laptop2", "cleo", "203.0.113.9", "friend.example"),
}

LEFT_OUT = re.compile(r"contrib/check\b|sudo ufw\b")
"""Commands that contrib/fresh runs, or nobody."""

OPTIONAL = ("getfattr",)

LOOKS = re.compile(r"(ls|cat|find|du|getfattr|p2pfs (search|status|peers|transfers|events)\b)")
"""Commands that may be given again until they show what they are to show: the network takes
its time, and a person would look again too."""

PATIENCE_S = 60.0

NOT_RUN = {
    "not run: it needs the network",
    "not run: it changes the checkout",
}
"""Why a block is not run here; contrib/fresh runs what sets p2pfs up."""


def pattern_of(shown: str) -> re.Pattern[str]:
    """Return what must be shown; `...` is anything in a line, or any lines if it is alone."""
    text = re.escape(shown)
    text = re.sub(r"^\\\.\\\.\\\.\n", r"(?:.*\n)*?", text.replace("\\\n", "\n"), flags=re.MULTILINE)
    return re.compile(text.replace(r"\.\.\.", r".*?"))


def whose(block: Block) -> str:
    """Return which machine a block is typed at: what its mark says, else the first."""
    found = re.search(r"\bon the (first|second|friend)", block.mark)
    return found[1] if found else FIRST


def consoles(document: Path) -> Iterator[Block]:
    for block in blocks(document):
        if block.language == "console" and not block.mark.startswith("not run"):
            yield block


def test_every_block_is_of_a_kind_that_is_checked():
    for document in DOCUMENTS:
        text = document.read_text()
        assert not re.search(r"^(    |\t)\S", text, re.MULTILINE), f"{document.name}: indented code"
        for block in blocks(document):
            place = f"{block.document}:{block.line}"
            assert block.language in ("console", "toml", "text"), place
            assert not block.mark.startswith("not run") or block.mark in NOT_RUN, place


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.parametrize("document", [one for one in DOCUMENTS if [*consoles(one)]],
                         ids=lambda path: path.name)  # fmt: skip
def test_what_is_shown_happens(document, tmp_path):
    with machines(tmp_path, PLANS) as made:
        made[FIRST].file("holiday.mkv").write_bytes(bytes(3_000_000))
        for block in consoles(document):
            machine = made[whose(block)]
            for example in examples(block.text):
                if not is_left_out(example.command):
                    compare(machine, example, f"{block.document}:{block.line}")


def is_left_out(command: str) -> bool:
    """Return whether a command is for others to run, or of a program that is not here."""
    programs = set(re.findall(r"[\w-]+", command)) & set(OPTIONAL)
    return bool(LEFT_OUT.match(command)) or not all(map(shutil.which, programs))


def compare(machine: Machine, example: Example, place: str) -> None:
    """Type a command, and fail if it does not show what it is said to."""
    pattern, ends_at = pattern_of(example.shown), time.monotonic() + PATIENCE_S
    while not pattern.fullmatch(shown := without_padding(machine.type(example.command))):
        if not LOOKS.match(example.command) or time.monotonic() > ends_at:
            text = f"{place}: {example.command}\nis to show:\n{example.shown}but shows:\n{shown}"
            pytest.fail(text, pytrace=False)
        time.sleep(0.3)


def without_padding(shown: str) -> str:
    """Take away the blanks at the end of lines, with which tables are filled."""
    return re.sub(r" +$", "", shown, flags=re.MULTILINE)
