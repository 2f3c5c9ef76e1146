"""The rules that conftest.py lays on every test."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parent.parent / "conftest.py"


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
