"""Three servents that a module of tests shares: the module says what each has.

A module may define `SHARED`, files by the name of their owner and then by their path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.helpers.mounted import Servent, Servents, open_servents


@pytest.fixture(scope="module")
def servents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servents]:
    with open_servents(tmp_path_factory.mktemp("servents")) as servents:
        yield servents


@pytest.fixture(scope="module")
def anna(request: pytest.FixtureRequest, servents: Servents) -> Servent:
    return _with_files(request, servents.start("anna"))


@pytest.fixture(scope="module")
def ben(request: pytest.FixtureRequest, servents: Servents, anna: Servent) -> Servent:
    return _with_files(request, servents.start("ben", joins=[anna]))


@pytest.fixture(scope="module")
def cleo(
    request: pytest.FixtureRequest, servents: Servents, anna: Servent, ben: Servent
) -> Servent:
    return _with_files(request, servents.start("cleo", joins=[anna, ben]))


def _with_files(request: pytest.FixtureRequest, servent: Servent) -> Servent:
    shared: Mapping[str, Mapping[str, bytes]] = getattr(request.module, "SHARED", {})
    for path, content in shared.get(servent.name, {}).items():
        servent.share(path, content)
    return servent
