"""The lists in README.md and contrib/docs are those of the code, as PROTOCOL.md's are."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import tomllib
from pathlib import Path

import click
import pytest

from p2pfs.cli.commands import cli
from p2pfs.config import load_config
from p2pfs.control import ExitStatus
from p2pfs.filesystem.answers import ERRNO_OF
from tests.documents.reading import DOCUMENTS, README, ROOT, blocks, section, table
from tests.helpers.mounted import until
from tests.helpers.processes import Processes

DOCS = ROOT / "contrib" / "docs"
COMMANDS = DOCS / "commands.md"
BENCHMARKS = DOCS / "benchmarks.md"

EVERYWHERE = {"--help", "-h", "--mount", "-m", "--json"}
"""Options that commands.md tells of once, for all verbs."""


def verbs() -> dict[str, click.Command]:
    """Return every command that can be given, by its words."""
    found: dict[str, click.Command] = {}
    for name, command in cli.commands.items():
        if isinstance(command, click.Group):
            found |= {f"{name} {more}": one for more, one in command.commands.items()}
        elif not command.hidden:
            found[name] = command
    return found


def options_of(command: click.Command) -> set[str]:
    return {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def verb_of(usage: str) -> str:
    words = usage.split()
    return " ".join(words[:2] if words[0] in cli.commands and words[0] == "service" else words[:1])


# commands.md


def test_the_verbs_are_those_of_the_command():
    listed = [verb_of(row[0]) for row in table(section(COMMANDS, "Verbs"))]

    assert sorted(listed) == sorted(verbs())


@pytest.mark.parametrize("row", table(section(COMMANDS, "Verbs")), ids=lambda row: verb_of(row[0]))
def test_the_options_of_each_verb_are_told(row):
    usage = row[0]
    expected = options_of(verbs()[verb_of(usage)]) - EVERYWHERE
    if "[OPTIONS]" in usage:
        expected -= options_of(cli.commands["serve"])
    listed = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", usage)) - EVERYWHERE

    assert listed == expected


def test_the_options_are_those_of_the_command():
    listed = {row[0].split()[0] for row in table(section(COMMANDS, "Options"))}

    assert listed == options_of(cli.commands["serve"]) - EVERYWHERE


def test_config_toml_has_every_option_and_each_value_is_one(tmp_path):
    (text,) = [one.text for one in blocks(COMMANDS) if one.language == "toml"]
    (tmp_path / "config.toml").write_text(text)
    options = {name.removeprefix("--") for name in options_of(cli.commands["serve"]) - EVERYWHERE}

    assert set(tomllib.loads(text)) == options - {"state"} | {"kernel-option"}
    assert load_config({}, state_directory=str(tmp_path)).name == "ann"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_other_config_toml_can_be_read_too(document, tmp_path):
    for block in blocks(document):
        if block.language == "toml":
            (tmp_path / "config.toml").write_text(block.text)
            assert load_config({}, state_directory=str(tmp_path))


def test_the_exit_statuses_are_those_of_the_command():
    listed = [row[0] for row in table(section(COMMANDS, "Exit statuses"))]

    assert listed == [str(status.value) for status in ExitStatus]


UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@pytest.mark.parametrize("row", table(section(COMMANDS, "Limits")), ids=lambda row: row[2])
def test_the_limits_are_those_of_the_code(row):
    number, _, unit = row[1].replace(",", "").partition(" ")
    name, _, index = row[2].rstrip("]").partition("[")
    module, _, constant = name.rpartition(".")
    value = getattr(importlib.import_module(f"p2pfs.{module}"), constant)

    assert float(number) * UNITS.get(unit, 1) == (value[int(index)] if index else value)


# --json, asked of two servents.


def documented_keys() -> dict[str, list[set[str]]]:
    """Return for each verb the sets of keys that commands.md names, the outermost first."""
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", section(COMMANDS, "JSON"), re.MULTILINE)
    return {
        verb: [set(keys.split()) for keys in re.findall(r"`([^`]*)`", text) if " " in keys]
        for verb, text in rows
    }


def test_every_verb_with_json_is_listed():
    assert set(documented_keys()) == {
        name for name, command in verbs().items() if "--json" in options_of(command)
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Ask all listing verbs of a servent that reads slowly from another."""
    directory = tmp_path_factory.mktemp("answers")
    (directory / "runtime").mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(directory / "runtime"))
        processes = Processes(directory)
        try:
            yield _answers_of(processes)
        finally:
            processes.clean_up()


def _answers_of(processes) -> dict[str, object]:
    (processes.directory / "whale.bin").write_bytes(os.urandom(3_000_000))
    processes.start("serve", "--upload-limit", "16KiB", state="a")
    processes.p2pfs("publish", "-m", "a", "whale.bin")
    listen = str(processes.status("-m", "a")["listen"])
    processes.start("serve", "--join", listen, state="b")

    def ask(verb: str):
        words = ["whale"] if verb == "search" else []
        return json.loads(processes.p2pfs(verb, "-m", "b", "--json", *words).stdout)

    until(lambda: ask("search"))
    processes.p2pfs("pin", "-m", "b", "whale.bin")
    until(lambda: ask("transfers"))
    return {verb: ask(verb) for verb in documented_keys() if verb in JSON_ASKED}


JSON_ASKED = ("status", "peers", "transfers", "search", "cache", "events")


def keys_in(answer: object) -> list[set[str]]:
    """Return the keys of records in an answer, and of the records in these."""
    records = answer if isinstance(answer, list) else [answer]
    assert records, "nothing to compare"
    inner = [value for value in records[0].values() if isinstance(value, list) and value]
    found = [set(records[0])]
    for value in inner:
        if isinstance(value[0], dict):
            found += keys_in(value)
    return found


@pytest.mark.parametrize("verb", JSON_ASKED)
def test_the_keys_of_json_are_those_that_come(answers, verb):
    assert keys_in(answers[verb]) == documented_keys()[verb]


# file-system.md


def test_the_errnos_are_those_of_the_tree():
    """Of transfers that fail, and those that the tree and the mount raise themselves."""
    listed = [row[0] for row in table(section(DOCS / "file-system.md", "When a read fails"))]
    others = {"EROFS", "EACCES", "EINTR"}

    assert sorted(listed) == sorted({errno.errorcode[code] for code in ERRNO_OF.values()} | others)


# What is said in more than one place.


def bench_table(document: Path) -> list[list[str]]:
    found = re.search(r"<!-- bench -->(.*?)<!-- /bench -->", document.read_text(), re.DOTALL)
    assert found
    return table(found[1])


def test_the_figures_of_the_readme_are_among_all_figures():
    all_figures = {row[0]: row[1:] for row in bench_table(BENCHMARKS)}

    for title, *figures in bench_table(README):
        assert figures == all_figures[title][: len(figures)]


def test_links_lead_somewhere():
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)]+)\)", document.read_text()):
            path, _, anchor = link.partition("#")
            target = (document.parent / path) if path else document
            assert target.exists(), f"{document.name}: {link}"
            if anchor and target.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                assert anchor in map(anchor_of, headings), f"{document.name}: {link}"


def anchor_of(heading: str) -> str:
    """Return what a heading is called in links."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
