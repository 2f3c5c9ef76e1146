"""The rules that conftest.py lays on every test."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.fixture
def run(pytester, monkeypatch, expect_log):
    """Run one test file under our conftest; return how its tests ended."""
    expect_log("oh")  # the rules hold for this test too
    monkeypatch.delenv("CI", raising=False)
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers = fuse: needs a mount")

    def run(test: str) -> dict[str, int]:
        pytester.makepyfile(test)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider").parseoutcomes()

    return run


def test_a_warning_that_was_not_announced_fails_its_test(run):
    outcome = run("import logging\ndef test(): logging.getLogger('p2pfs.x').warning('oh')")

    assert outcome == {"passed": 1, "errors": 1}


def test_a_warning_that_was_announced_is_fine(run):
    outcome = run(
        """
        import logging
        def test(expect_log):
            expect_log("^WARNING p2pfs.x oh$")
            logging.getLogger('p2pfs.x').warning('oh')
        """
    )

    assert outcome == {"passed": 1}


FUSE_TEST = "import pytest\n@pytest.mark.fuse\ndef test(): pass"


def test_without_fuse_its_tests_are_skipped(run, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")

    assert run(FUSE_TEST) == {"skipped": 1}


def test_without_fuse_its_tests_fail_in_ci(run, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CI", "true")

    assert run(FUSE_TEST) == {"errors": 1}


# What hangs.


HANGING_TASK = """
import pytest, threading, trio

async def waits_forever():
    await trio.sleep_forever()

@pytest.fixture(scope="module", autouse=True)
def _thread():
    ends = threading.Event()
    threading.Thread(target=ends.wait, name="the-other-thread").start()
    yield
    ends.set()

def test_hangs():
    trio.run(waits_forever)

def test_next():
    pass
"""


@pytest.mark.usefixtures("run")
def test_a_test_that_hangs_fails_with_all_stacks_and_the_next_is_run(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(CONFTEST.parents[1]))
    pytester.makepyfile(HANGING_TASK)

    # In a process of its own: trio does not survive in one where its run was cut short.
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--timeout=1")

    assert done.parseoutcomes() == {"failed": 1, "passed": 1}
    assert "in waits_forever" in done.stdout.str()
    assert "the-other-thread" in done.stdout.str()


def test_every_test_has_a_time_limit_and_a_last_resort(pytestconfig):
    assert float(pytestconfig.getini("timeout")) <= 600
    assert float(pytestconfig.getini("faulthandler_timeout")) <= 700
    assert pytestconfig.getini("faulthandler_exit_on_timeout") is True


def test_no_example_fails_for_its_time():
    assert settings.default.deadline is None
    assert HealthCheck.too_slow in settings.default.suppress_health_check
