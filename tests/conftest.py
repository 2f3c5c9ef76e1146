"""Fixtures that every test gets, and when a test that needs FUSE is skipped."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from p2pfs.config import ALONE_VARIABLE
from p2pfs.errors import UsageError
from p2pfs.mount import check_fuse
from tests.helpers.processes import Processes
from tests.helpers.stacks import show_trio_tasks_at_the_timeout

# A servent that a test starts on every interface sends nothing beyond this machine.
os.environ[ALONE_VARIABLE] = "1"

# No example fails for its time: a busy machine is no bug.
settings.register_profile("p2pfs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("p2pfs")


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer() -> Iterator[None]:
    """Let a test that hangs show where each of its tasks is, beside the threads' stacks."""
    was_set = yield
    show_trio_tasks_at_the_timeout()
    return was_set


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs FUSE where there is none; in CI that is a failure."""
    if item.get_closest_marker("fuse") is None:
        return
    reason = _why_no_fuse()
    if reason is None:
        return
    if os.environ.get("CI"):
        pytest.fail(f"FUSE must be there in CI: {reason}", pytrace=False)
    pytest.skip(reason)


def _why_no_fuse() -> str | None:
    try:
        check_fuse()
    except UsageError as error:
        return str(error)
    return None


class Watch(logging.Handler):
    """Collects what p2pfs logs as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._announced: list[str] = []
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{record.levelname} {record.name} {record.getMessage()}")

    def announce(self, pattern: str) -> None:
        self._announced.append(pattern)

    def unannounced(self) -> list[str]:
        return [
            line
            for line in self._lines
            if not any(re.search(pattern, line) for pattern in self._announced)
        ]


@pytest.fixture(autouse=True)
def _watch() -> Iterator[Watch]:
    watch = Watch()
    logger = logging.getLogger("p2pfs")
    logger.addHandler(watch)
    yield watch
    logger.removeHandler(watch)
    if lines := watch.unannounced():
        pytest.fail("logged without announcement:\n" + "\n".join(lines), pytrace=False)


@pytest.fixture
def expect_log(_watch: Watch) -> Callable[[str], None]:
    """Announce warnings and errors, by a pattern; a test that logs others fails."""
    return _watch.announce


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    """Real servents, which no other servent of this user sees, gone at the end."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    processes = Processes(tmp_path)
    yield processes
    processes.clean_up()
