"""The man page: what the command says of itself, in the language of groff."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from p2pfs.cli import cli
from p2pfs.control import ExitStatus

PACKAGING = Path(__file__).parents[2] / "contrib" / "packaging"
PAGE = PACKAGING / "p2pfs.1"


@pytest.fixture(scope="module")
def manual():
    spec = importlib.util.spec_from_file_location("manual", PACKAGING / "manual.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shown() -> str:
    """The page as people see it, in one line."""
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    command = ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=500n", str(PAGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return " ".join(done.stdout.split())


def test_the_page_is_what_the_command_says_of_itself(manual):
    assert PAGE.read_text() == manual.page(), "run: python contrib/packaging/manual.py"


def test_a_version_has_one_page(manual):
    assert manual.STATUSES.keys() == set(ExitStatus)
    assert manual.page() == manual.page()


def commands(group: click.Group, *above: str) -> list[tuple[str, click.Command]]:
    found = []
    for name, command in group.commands.items():
        path = (*above, name)
        if isinstance(command, click.Group):
            found += commands(command, *path)
        else:
            found.append((" ".join(path), command))
    return found


@pytest.mark.parametrize(("path", "command"), commands(cli, "p2pfs"))
def test_every_command_is_told_with_all_of_its_options(shown, path, command):
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    assert usage in shown
    told = shown[shown.index(usage) :]
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            assert " ".join(record[0].split()) in shown
            assert " ".join(record[1].split()) in (shown if parameter.opts[-1] in shown else told)
    summary = re.split(r"\n\n", command.help or "")[0]
    assert " ".join(summary.split()) in told


def test_no_word_is_a_request_or_an_escape(manual):
    assert manual.escaped(".SH it's `a` back\\slash --and dashes") == (
        r"\&.SH it\(aqs \(gaa\(ga back\eslash \-\-and dashes"
    )
