"""What is tried in a bare system, from the clone of the repository to the last unmount.

Each journey is a function of what is brought along and of a suite of Debian's. It ends with an
assertion, or is good.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contrib.baremachines.person import Done, Person
from contrib.baremachines.readme import EITHER, FIRST, blocks
from contrib.baremachines.system import System

FILM_BYTES: Final = 50_000_000

PATIENCE_S: Final = 60.0


@dataclass(frozen=True)
class Luggage:
    """What is brought into each system."""

    place: Path
    """Where more may be put."""
    bundle: Path
    """The repository at the commit that is checked out."""
    wheel: Path
    checks: bool
    """Whether contrib/check is run where the README says so, by one who has sudo, for minutes."""


def say(text: str) -> None:
    print(f"    {text}", flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    began = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - began:.0f} s")


# The README.


def readme_as_root(luggage: Luggage, suite: str) -> None:
    """The README, by root and an ordinary user."""
    with System(suite) as system:
        system.add_second_network()
        first = Person(system, "root")
        _follow_readme(luggage, first, Person.added(system, "bob", network=1))


def readme_as_user(luggage: Luggage, suite: str) -> None:
    """The README, by a user whose sudo asks for a password, and one without sudo."""
    with System(suite) as system:
        system.add_second_network()
        first = Person.added(system, "ann", has_sudo=True)
        said = _follow_readme(luggage, first, Person.added(system, "bob", network=1))
        before, asked, _after = said.partition("[sudo] password for ann: ")
        assert asked, said
        assert re.search(r"apt is to install: .*\blibfuse2\b.*\bfuse3\b", before), before


def _follow_readme(luggage: Luggage, first: Person, second: Person) -> str:
    """Do what the README says, and return what its first block showed."""
    system = first.system
    clean = _leftovers(system)
    for person in (first, second):
        _clone(luggage, person)
    first.run(f"head -c {FILM_BYTES} /dev/urandom >holiday.mkv").good()
    shown = []
    for block in blocks():
        for command in block.commands:
            if command.startswith("contrib/check") and not (luggage.checks and first.has_sudo):
                say(f"left out here, for its time: {command}")
                continue
            for person in _whose(block.machine, command, first, second):
                with step(f"{person.name}: {command}"):
                    shown.append(_typed(person, command))
    _assert_same_film(first, second)
    _assert_nothing_left(system, clean)
    return "".join(shown)


def _whose(machine: str, command: str, first: Person, second: Person) -> list[Person]:
    """Return who is to give a command; on either machine, who offers a file or who reads it."""
    if machine == EITHER and (" unmount " in command or _is_alias(command)):
        return [first, second]
    is_first = machine == FIRST or (machine == EITHER and "/shared/" in command)
    return [first if is_first else second]


def _typed(person: Person, command: str) -> str:
    """Give a command at a terminal, once more if a listing does not show the file yet."""
    if _is_alias(command):
        person.aliases += f"shopt -s expand_aliases\n{command}\n"
    done = person.type(command)
    ends_at = time.monotonic() + PATIENCE_S
    while command.startswith("ls ") and "holiday.mkv" not in done.output:
        assert time.monotonic() < ends_at, f"{command} shows no file: {done.output}"
        time.sleep(0.5)
        done = person.type(command)
    return done.good()


def _is_alias(command: str) -> bool:
    return command.startswith("alias ")


def _assert_same_film(first: Person, second: Person) -> None:
    one, two = (person.run("sha256sum holiday.mkv; stat -c %s holiday.mkv").good()
                for person in (first, second))  # fmt: skip
    assert one == two
    assert f"\n{FILM_BYTES}\n" in one
    say(f"{second.name} has the {FILM_BYTES // 1_000_000} MB of {first.name}, byte for byte")


# What may be missing.


def without_sudo(luggage: Luggage, suite: str) -> None:
    """A user without sudo on a machine where nothing is installed: one command, which works."""
    with System(suite) as system:
        clean = _leftovers(system)
        ann = Person.added(system, "ann")
        _clone(luggage, ann)
        mount = _first_command()

        refused = ann.run(mount)
        assert refused.status == 1, refused.output
        (command,) = re.findall(r"^    (.*apt-get install.*)$", refused.output, re.MULTILINE)
        say(f"without a terminal: {command}")
        refused = ann.type(mount)
        assert refused.status == 1, refused.output
        (command,) = re.findall(r"^    (.*apt-get install.*)$", refused.output, re.MULTILINE)
        say(f"at a terminal, root is to run: {command}")

        with step("root: that command"):
            Person(system, "root").run(command).good()
        with step(f"ann: {mount}"):
            ann.run(mount).good()
        ann.run("contrib/p2pfs doctor; contrib/p2pfs unmount ~/p2p").good()
        _assert_nothing_left(system, clean)


def without_fuse(luggage: Luggage, suite: str) -> None:
    """A machine without /dev/fuse: mount says so in one line, and serve works."""
    with System(suite, has_fuse=False) as system:
        clean = _leftovers(system)
        root = Person(system, "root")
        _clone(luggage, root)
        with step("root: contrib/p2pfs --version"):
            root.run("contrib/p2pfs --version").good()

        refused = root.run(_first_command())
        _assert_one_line(refused, "/dev/fuse is missing")
        root.run("contrib/p2pfs serve && contrib/p2pfs unmount ~/.local/share/p2pfs").good()
        _assert_nothing_left(system, clean)


def _first_command() -> str:
    return next(block for block in blocks() if block.machine == FIRST).commands[0]


# The wheel.

_WAYS: Final = {
    "pip": ("python3 -m venv v && v/bin/pip install -q {wheel}", "v/bin/p2pfs"),
    "pipx": ("tools/bin/pipx install -q {wheel}", ".local/bin/p2pfs"),
    "uv": ("tools/bin/uv tool install -q --python python3 {wheel}", ".local/bin/p2pfs"),
}


def wheel(luggage: Luggage, suite: str) -> None:
    """The wheel by pip, pipx and uv: what is missing is said in one line, and then it works."""
    with System(suite) as system:
        system.install("python3-venv")
        people = {way: Person.added(system, way) for way in _WAYS}
        for way, person in people.items():
            _install(luggage, person, way)
            refused = person.run(f"{_WAYS[way][1]} mount p2p")
            _assert_one_line(refused, "is missing: install")
        system.install("fuse3")
        _assert_one_line(
            people["pip"].run("v/bin/p2pfs mount p2p"), "libfuse 2 is missing: install"
        )
        system.install("libfuse2")
        clean = _leftovers(system)
        for way, person in people.items():
            program = _WAYS[way][1]
            person.run(f"{program} mount p2p; {program} doctor; {program} unmount p2p").good()
        _assert_nothing_left(system, clean)


def _install(luggage: Luggage, person: Person, way: str) -> None:
    place = shutil.copy(luggage.wheel, person.system.root / "srv")
    install, program = _WAYS[way]
    with step(f"installed by {way}"):
        if "tools/" in install:
            person.run(f"python3 -m venv tools && tools/bin/pip install -q {way}").good()
        person.run(install.format(wheel=f"/srv/{Path(place).name}")).good()
    version = person.run(f"{program} --version; python3 --version").good()
    say(version.replace("\n", ", ").strip(", "))


def _assert_one_line(refused: Done, text: str) -> None:
    assert refused.status == 1, refused.output
    assert refused.output.count("\n") == 1, refused.output
    assert text in refused.output, refused.output
    say(refused.output.strip())


# The package.


def package(luggage: Luggage, suite: str) -> None:
    """The Debian package: built in one system, installed in another, and taken away again."""
    with System(suite) as system:
        system.install("python3-venv")
        ann = Person.added(system, "ann")
        _clone(luggage, ann)
        with step("built"):
            say(ann.run("contrib/packaging/deb ~ 2>&1 | tail -n 1").good().strip())
        (built,) = (system.root / "home/ann").glob("*.deb")
        brought = shutil.copy(built, luggage.place)
    with System(suite) as system:
        shutil.copy(brought, system.root / "srv/p2pfs.deb")
        before = _files(system)
        with step("installed"):
            system.install("/srv/p2pfs.deb")
        system.add_second_network()
        clean = _leftovers(system)
        _carry_film(Person.added(system, "ann"), Person.added(system, "bob", network=1))
        Person(system, "root").run(_USE_PACKAGE).good()
        _assert_nothing_left(system, clean)
        system.run("apt-get purge -y -qq p2pfs >/dev/null")
        assert not (left := _files(system) - before), left


_USE_PACKAGE: Final = """
gzip -dc /usr/share/man/man1/p2pfs.1.gz | grep -q '^.TH'
bash -c '. /usr/share/bash-completion/completions/p2pfs; complete -p p2pfs' | grep -q _p2pfs
grep -q '^ExecStart=/usr/bin/p2pfs mount' /usr/lib/systemd/user/p2pfs.service
grep -q '^Exec=' /usr/share/applications/p2pfs.desktop
mount -t fuse.p2pfs p2pfs /mnt
ls /mnt/shared
umount /mnt
"""


def _files(system: System) -> set[str]:
    """Return what of the system's own has our name."""
    return set(system.run("find /etc /usr /var/lib -name '*p2pfs*'").split())


def _carry_film(first: Person, second: Person) -> None:
    first.run(f"head -c {FILM_BYTES} /dev/urandom >holiday.mkv; p2pfs mount ~/p2p").good()
    second.run("p2pfs mount ~/p2p --join first-machine:4774").good()
    first.run("p2pfs doctor; cp holiday.mkv ~/p2p/shared/").good()
    _typed(second, "ls -l ~/p2p/network/")
    second.run("cp ~/p2p/network/holiday.mkv .").good()
    _assert_same_film(first, second)
    for person in (first, second):
        person.run("p2pfs unmount ~/p2p").good()


# What all have in common.


def _clone(luggage: Luggage, person: Person) -> None:
    shutil.copy(luggage.bundle, person.system.root / "srv/p2pfs.bundle")
    person.run("git clone -q -c advice.detachedHead=false /srv/p2pfs.bundle p2pfs").good()
    person.at = "~/p2pfs"


def _leftovers(system: System) -> set[str]:
    """Return the mounts of ours, the processes and the temporary files in a system.

    What pytest keeps of its last three runs is its own.
    """
    script = r"""
    grep ' fuse' /proc/mounts || true
    find /tmp /var/tmp /run /dev/shm ! -type d ! -path '/run/sudo/*' ! -path '/tmp/pytest-of-*'
    for one in /proc/[0-9]*; do
        [ "$one" = "/proc/$$" ] || [ "$one" = /proc/1 ] || tr '\0' ' ' <"$one/cmdline" || true
        echo
    done 2>/dev/null
    """
    lines = {line.strip() for line in system.run(script).splitlines()}
    return {line for line in lines if line and not line.startswith(("sleep ", "tr ", "sh -ec"))}


def _assert_nothing_left(system: System, clean: set[str]) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while left := _leftovers(system) - clean:
        assert time.monotonic() < ends_at, f"left behind: {left}"
        time.sleep(0.5)
    say("nothing is left: no mount, no process, no temporary file")


Journey = Callable[[Luggage, str], None]

JOURNEYS: Final[list[Journey]] = [
    readme_as_root, readme_as_user, without_sudo, without_fuse, wheel, package,
]  # fmt: skip
