"""contrib/setup.sh, which the first command of the README runs, on machines that lack much."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.baremachine import PASSWORD, PROJECT, BareMachine

SHELL_FILES = ["contrib/setup.sh", "contrib/check", "contrib/p2pfs", "contrib/demo"]

NEEDED = "libfuse2 fuse3 python3 python3-venv"

INSTALL = f"apt-get install -y --no-install-recommends {NEEDED}"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="here all runs as an ordinary user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody reaches, unlike pytest's own."""
    place = Path(tempfile.mkdtemp(prefix="p2pfs-setup-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def bare(place: Path) -> BareMachine:
    """An ordinary user's."""
    return BareMachine(place, is_root=False)


@pytest.fixture
def roots(place: Path) -> BareMachine:
    return BareMachine(place, is_root=True)


@pytest.mark.parametrize("file", SHELL_FILES)
def test_no_function_hides_a_variable_of_the_file_from_those_that_it_calls(file: str) -> None:
    text = (PROJECT / file).read_text() + (PROJECT / "contrib/setup.sh").read_text()
    of_the_file = set(re.findall(r"^(?:readonly )?(\w+)=", text, re.MULTILINE))
    declared = re.findall(r"^\s+local (.*)$", text, re.MULTILINE)
    local = {name for line in declared for name in re.findall(r"(?:^| )(\w+)(?==|\s|$)", line)}

    assert of_the_file
    assert local
    assert local & of_the_file == set()


@needs_root
def test_root_gets_all_that_is_missing_and_p2pfs_is_run(roots: BareMachine) -> None:
    done = roots.run("contrib/p2pfs", "mount", "p2p")

    assert (done.returncode, done.stdout) == (0, "ran p2pfs mount p2p\n"), done.stderr
    assert roots.asked[0].endswith(" update")
    assert roots.asked[1].endswith(f" {NEEDED}")
    lines = done.stderr.splitlines()
    assert all(line.startswith("p2pfs: ") for line in lines), lines
    assert f"p2pfs: installing with apt: {NEEDED}" in lines
    assert "Unpacking fuse3" in roots.log


@needs_root
def test_what_is_set_up_is_not_set_up_again(roots: BareMachine) -> None:
    roots.run("contrib/p2pfs", "mount", "p2p")
    asked = roots.asked

    again = roots.run("contrib/p2pfs", "mount", "p2p")

    assert (again.stdout, again.stderr) == ("ran p2pfs mount p2p\n", "")
    assert roots.asked == asked


@needs_root
def test_a_failure_of_apt_shows_the_end_of_its_log(roots: BareMachine) -> None:
    roots.mark("broken")

    done = roots.run("contrib/p2pfs", "mount", "p2p")

    assert done.returncode == 1
    assert "    E: broken mirror\n" in done.stderr
    assert f"the whole log is {roots.checkout}/.set-up.log\n" in done.stderr


@needs_root
def test_a_failure_of_pip_shows_the_end_of_its_log(roots: BareMachine) -> None:
    roots.mark("no-index")

    done = roots.run("contrib/p2pfs", "mount", "p2p")

    assert done.returncode == 1
    assert "    ERROR: no index\n" in done.stderr


@needs_root
def test_what_it_does_is_shown_while_it_does_it(roots: BareMachine) -> None:
    slow = roots.mark("slow")

    with roots.at_a_terminal("contrib/p2pfs", "mount", "p2p") as terminal:
        terminal.wait_for(" s: Unpacking libfuse2")
        slow.unlink()
        assert terminal.wait() == 0

    assert terminal.seen.endswith("ran p2pfs mount p2p\r\n")


def test_a_user_is_asked_for_the_password_by_sudo_and_knows_what_for(bare: BareMachine) -> None:
    with bare.at_a_terminal("contrib/p2pfs", "mount", "p2p") as terminal:
        terminal.wait_for("[sudo] password: ")
        assert terminal.seen.count(NEEDED) == 1
        assert bare.asked == []
        terminal.type(f"{PASSWORD}\n")
        assert terminal.wait() == 0

    assert terminal.seen.endswith("ran p2pfs mount p2p\r\n")
    assert bare.asked[1].endswith(f" {NEEDED}")


def test_a_user_whom_sudo_does_not_know_is_told_what_root_is_to_do(bare: BareMachine) -> None:
    with bare.at_a_terminal("contrib/p2pfs", "mount", "p2p") as terminal:
        terminal.wait_for("[sudo] password: ")
        terminal.type("anything\n")
        assert terminal.wait() == 1

    assert f"as root:\r\n    apt-get update && {INSTALL}\r\n" in terminal.seen


def test_without_a_terminal_one_command_is_said_and_it_works(bare: BareMachine) -> None:
    refused = bare.run("contrib/p2pfs", "mount", "p2p")

    assert (refused.returncode, refused.stdout) == (1, "")
    command = f"    sudo sh -c 'apt-get update && {INSTALL}'"
    assert command in refused.stderr.splitlines()
    assert refused.stderr.count("apt-get install") == 1

    bare.mark("may-sudo")
    assert bare.run("sh", "-c", command).returncode == 0
    (bare.directory / "may-sudo").unlink()
    assert bare.run("contrib/p2pfs", "mount", "p2p").stdout == "ran p2pfs mount p2p\n"


def test_sudo_that_needs_no_password_is_used_without_a_terminal(bare: BareMachine) -> None:
    bare.mark("may-sudo")

    assert bare.run("contrib/p2pfs", "mount", "p2p").stdout == "ran p2pfs mount p2p\n"


def test_without_apt_what_is_missing_is_named(bare: BareMachine) -> None:
    (bare.directory / "bin" / "apt-get").unlink()

    refused = bare.run("contrib/p2pfs", "mount", "p2p")

    assert refused.returncode == 1
    assert "libfuse 2, fusermount, Python 3.11" in refused.stderr


@pytest.mark.parametrize("words", [("serve",), ("doctor",)])
def test_what_does_not_mount_goes_on_without_fuse(
    bare: BareMachine, words: tuple[str, ...]
) -> None:
    shutil.move(bare.directory / "uninstalled/python3", bare.directory / "bin/python3")
    (bare.directory / "installed").write_text("python3-venv\n")

    done = bare.run("contrib/p2pfs", *words)

    assert done.stdout == f"ran p2pfs {words[0]}\n"
    assert "libfuse2 fuse3'\n" in done.stderr
    assert "p2pfs: missing: libfuse2 fuse3\n" in done.stderr
    assert "p2pfs: going on: `p2pfs mount` needs them, nothing else does\n" in done.stderr


@needs_root
def test_fusermount3_alone_is_not_enough(roots: BareMachine) -> None:
    roots.add_program("fusermount3", "")

    roots.run("contrib/p2pfs", "mount", "p2p")

    assert " fuse3 " in roots.asked[1]
