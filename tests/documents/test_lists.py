"""The lists in README.md and contrib/docs are those of the code, as PROTOCOL.md's are."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import tomllib
from pathlib import Path
from types import ModuleType

import click
import pytest

from p2pfs.cli import servents as servents_module
from p2pfs.cli import verbs as verbs_module
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

EVERYWHERE = {"--help", "-h", "--json", "-q", "--quiet", "-v", "--verbose"}
ASKING = {"--mount", "-m"}
"""Options that commands.md tells of once, for all verbs and for those that ask a servent."""


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


@pytest.mark.parametrize("module", [servents_module, verbs_module])
def test_every_command_is_in_a_section_of_the_help(module: ModuleType):
    made = {one for one in vars(module).values() if isinstance(one, click.Command)}
    listed = set(cli.commands.values())
    within = {
        more for one in listed if isinstance(one, click.Group) for more in one.commands.values()
    }

    assert made <= listed | within


@pytest.mark.parametrize("row", table(section(COMMANDS, "Verbs")), ids=lambda row: verb_of(row[0]))
def test_the_options_of_each_verb_are_told(row):
    usage = row[0]
    expected = options_of(verbs()[verb_of(usage)]) - EVERYWHERE
    if expected >= ASKING:
        expected -= ASKING
    if "[OPTIONS]" in usage:
        expected -= options_of(cli.commands["serve"])

    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", usage)) == expected


def test_options_of_all_verbs_are_told():
    text = section(COMMANDS, "Verbs")
    common = {name for name in EVERYWHERE if name not in ("-h", "--help")}

    for name in common | ASKING | options_of(cli) - EVERYWHERE:
        assert re.search(rf"(?<![\w-]){name}\b", text), name


def test_the_options_are_those_of_the_command():
    listed = {row[0].split()[0] for row in table(section(COMMANDS, "Options"))}

    assert listed == options_of(cli.commands["serve"]) - EVERYWHERE


def test_config_toml_has_every_option_and_each_value_is_one(tmp_path):
    (text,) = [one.text for one in blocks(COMMANDS) if one.language == "toml"]
    (tmp_path / "config.toml").write_text(text)
    options = {name.removeprefix("--") for name in options_of(cli.commands["serve"]) - EVERYWHERE}

    assert set(tomllib.loads(text)) == options - {"state"} | {"kernel-option", "share", "groups"}
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


# --json, of verbs that are given to two servents.


def documented_keys() -> dict[str, list[set[str]]]:
    """Return for each verb the sets of keys that commands.md names, the outermost first."""
    found = {}
    for names, prints, where in _raw_table(section(COMMANDS, "JSON")):
        keys = [set(text.split()) - {"{}"} for text in _quoted(prints) + _quoted(where)[1:]]
        found |= dict.fromkeys(_quoted(names) or [names], keys)
    return found


def _raw_table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]*)`", text)


MANAGED = {"service install", "service remove"}
"""Verbs that need a systemd; tests/host asks them."""


def test_every_verb_with_json_is_listed():
    with_json = {name for name, command in verbs().items() if "--json" in options_of(command)}

    assert set(documented_keys()) == with_json | {"cache clear", "history clear", "an error"}


def given(processes: Processes) -> dict[str, object]:
    """Give every verb, and return what it prints."""
    (processes.directory / "whale.bin").write_bytes(os.urandom(3_000_000))
    answers: dict[str, object] = {}

    def give(verb: str, *words: str) -> object:
        done = processes.p2pfs(*verb.split(), "--json", *words)
        answers[verb] = json.loads(done.stdout)
        return answers[verb]

    a, b = ("-m", "a"), ("-m", "b")
    processes.start("serve", "--upload-limit", "16KiB", state="a")
    give("publish", *a, "whale.bin")
    listen = str(processes.status(*a)["listen"])
    give("serve", "--join", listen, "--listen", "127.0.0.1:0", "--state", "b")
    until(lambda: give("search", *b, "whale"))
    give("pin", *b, "whale.bin")
    until(lambda: any(row["peers"] for row in give("transfers", *b)))
    for verb in ("peers", "events"):
        until(lambda verb=verb: give(verb, *b))
    link = give("link", *b, "whale.bin")["link"]
    give("open", *b, link)
    give("status", *b)
    give("completion", "bash")
    give("cache", *b)
    give("unpin", *b, "whale.bin")
    (processes.directory / "small.txt").write_text("small")
    processes.p2pfs("publish", *a, "small.txt")
    give("get", *b, "small.txt", "-o", "copy.txt")
    give("cache clear", *b)
    until(lambda: give("history", *b))
    give("history clear", *b)
    (processes.directory / "Music").mkdir()
    give("share", *a, "Music")
    give("shares", *a)
    give("unshare", *a, "Music")
    give("set", *a, "upload-limit", "0")
    give("config", *a)
    for verb in ("pause", "resume", "leave"):
        give(verb, *b)
    give("join", *b, listen)
    give("invite", *a)
    give("unpublish", *a, "small.txt")
    give("newkey", "key")
    give("doctor", "--state", "b")
    give("unmount", "b")
    answers["an error"] = json.loads(processes.p2pfs("status", *b, "--json").stdout)
    return answers


def keys_in(answer: object) -> list[set[str]]:
    """Return the keys of records in an answer, and of the records in these."""
    records = answer if isinstance(answer, list) else [answer]
    assert records, "nothing to compare"
    found = [set(records[0])]
    for value in records[0].values():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            found += keys_in(value)
    return found


def test_the_keys_of_json_are_those_that_come(processes):
    documented = documented_keys()
    answers = given(processes)

    assert {verb: keys_in(answer) for verb, answer in answers.items()} == {
        verb: documented[verb] for verb in answers
    }
    assert documented.keys() - answers.keys() == MANAGED | {"mount", "top"}


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
