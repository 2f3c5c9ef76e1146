"""The house: its map tells what is there, and its walls hold for modules yet to be written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import p2pfs

PROJECT = Path(__file__).parents[1]
HOUSE = PROJECT / "p2pfs"
CONFIG = PROJECT / "pyproject.toml"
PACKAGES = sorted(path.parent.name for path in HOUSE.glob("*/__init__.py"))
TOOLS = sorted(path.parent.name for path in (PROJECT / "contrib").glob("*/__init__.py"))
LAYERS = next(
    contract["layers"]
    for contract in tomllib.loads(CONFIG.read_text())["tool"]["importlinter"]["contracts"]
    if contract["name"] == "imports go downward only"
)


def rooms_of(map_of: str) -> list[str]:
    """Return the names in the first column of a map."""
    return re.findall(r"^    ([a-z_]+)/?   *\S", map_of, re.MULTILINE)


def modules_in(package: Path) -> set[str]:
    return {
        path.stem
        for path in package.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists())
        and not path.stem.startswith("__")
    }


def test_the_map_of_the_house_names_every_part_in_the_order_of_the_layers():
    rooms = rooms_of(p2pfs.__doc__ or "")

    assert set(rooms) == modules_in(HOUSE)
    order = [name for layer in LAYERS for name in layer.split(" | ")]
    floors = {name: floor for floor, layer in enumerate(LAYERS) for name in layer.split(" | ")}
    assert sorted(order) == sorted(rooms)
    assert [floors[room] for room in rooms] == sorted(floors.values())


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_of_a_package_names_every_module(package: str):
    face = (HOUSE / package / "__init__.py").read_text()

    named = set(re.findall(r"[a-z_]+", face.split('"""')[1]))
    assert modules_in(HOUSE / package) <= named


@pytest.mark.parametrize("package", TOOLS)
def test_the_map_of_a_tool_names_every_module(package: str):
    face = (PROJECT / "contrib" / package / "__init__.py").read_text()

    named = set(re.findall(r"^([a-z_]+)  ", face.split('"""')[1], re.MULTILINE))
    assert modules_in(PROJECT / "contrib" / package) == named


FOREIGN = {
    "fuse": "mount",
    "noise": "protocol",
    "socket": "link",
    "ifaddr": "link",
    "zeroconf": "reach",
    "jeepney": "host",
    "sqlite3": "library",
    "inotify_simple": "library",
    "click": "cli",
    "rich": "cli",
}
"""Each foreign world, and the package that has the one place which may know it."""

INTRUDERS = [
    *(
        (package, f"import {world}")
        for world, home in FOREIGN.items()
        for package in PACKAGES
        if package != home
    ),
    *(
        (package, "from p2pfs.cli.commands import main")
        for package in PACKAGES
        if package not in ("cli", "host")
    ),
    *(
        (package, "from p2pfs.protocol.codec import Data")
        for package in PACKAGES
        if package != "protocol"
    ),
    ("cli", "from p2pfs.link.live import Link"),
    ("protocol", "import trio"),
    ("protocol", "import os"),
]


CLIMBS = [
    ("upstream", "swarm"),
    ("upstream", "swarms"),
    ("picker", "transfers"),
    ("transfers", "swarm"),
    ("swarm", "reader"),
]
"""Steps up the way of a read: who would import whom, in download/."""


@pytest.fixture(scope="module")
def broken_contracts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the contracts say of a copy where each intruder is a new module of its package."""
    copy = tmp_path_factory.mktemp("house")
    shutil.copytree(HOUSE, copy / "p2pfs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CONFIG, copy)
    for number, (package, line) in enumerate(INTRUDERS):
        (copy / "p2pfs" / package / f"intruder{number}.py").write_text(f"{line}\n")
    for lower, higher in CLIMBS:
        with (copy / "p2pfs" / "download" / f"{lower}.py").open("a") as module:
            module.write(f"import p2pfs.download.{higher}\n")
    with (copy / "p2pfs" / "link" / "live.py").open("a") as module:
        module.write("import p2pfs.link.pool\n")
    program = Path(sys.executable).with_name("lint-imports")
    if not program.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [program, "--no-cache"], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    return done.stdout


@pytest.mark.parametrize(
    ("number", "package", "line"),
    [(number, package, line) for number, (package, line) in enumerate(INTRUDERS)],
)
def test_a_new_module_is_behind_the_walls_by_being_there(
    broken_contracts: str, number: int, package: str, line: str
):
    assert re.search(rf"p2pfs\.{package}\.intruder{number}\b", broken_contracts), line


@pytest.mark.parametrize(("lower", "higher"), CLIMBS)
def test_no_call_of_a_read_climbs(broken_contracts: str, lower: str, higher: str):
    named = rf"p2pfs\.download\.{lower} -> p2pfs\.download\.{higher}\b"
    assert re.search(named, broken_contracts)


def test_no_request_climbs_from_a_link(broken_contracts: str):
    assert "p2pfs.link.live -> p2pfs.link.pool" in broken_contracts


@pytest.mark.parametrize("folder", ["p2pfs", "tests", "contrib"])
def test_no_text_leans_on_a_document_that_is_not_here(folder: str):
    texts = {
        path.relative_to(PROJECT): path.read_text()
        for path in (PROJECT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".toml", ".service") and path != Path(__file__)
    }

    assert len(texts) > 5
    assert [str(path) for path, text in texts.items() if "DESIGN" in text] == []
