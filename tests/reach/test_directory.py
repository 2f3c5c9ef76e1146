"""The directory in memory keeps to what every directory does."""

from __future__ import annotations

import pytest

from p2pfs.protocol import Address
from tests.helpers.directories import Shelf
from tests.suites.directory_suite import Directories, DirectorySuite


@pytest.fixture
def directories() -> Directories:
    shelf = Shelf()
    addresses = [Address(f"10.78.0.{number}", 4774) for number in range(1, 5)]
    return [(shelf.directory_at(address), address) for address in addresses]


class TestFakeDirectory(DirectorySuite):
    pass
