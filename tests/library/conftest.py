"""A library, and one that runs."""

from __future__ import annotations

import pytest

from tests.helpers.libraries import World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
async def running(world):
    async with world.running():
        yield world
