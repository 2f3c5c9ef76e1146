"""contrib/bench puts its figures where the documents have marks for them."""

from __future__ import annotations

import sys

import pytest

from tests.documents.reading import README, ROOT, table


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "contrib"))
    from benchmarks import report  # noqa: PLC0415 - contrib is no package of ours

    yield report
    for name in [one for one in sys.modules if one.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


def test_the_tables_are_those_of_the_figures(report, tmp_path):
    results = report.Results()
    results.add("p2pfs", {"cold": 700.0, "visible": 0.2})
    results.add("sshfs", {"cold": 500.0})
    results.add("alone", {"cold": 1500.0})
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- bench -->\n| stale |\n<!-- /bench -->\nafter\n")

    report.put_between_marks(document, report.markdown_in_short(results))
    report.put_between_marks(document, report.markdown_in_short(results))

    text = document.read_text()
    assert (text[:7], text[-6:]) == ("before\n", "after\n")
    assert table(text) == [["sequential read, cold (MB/s)", "700", "500"]]
    assert "stale" not in text
    assert ["from cp to a neighbour's ls (s)", "0.2", "-", "-"] in table(report.markdown(results))


def test_the_readme_has_one_pair_of_marks(report, tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text())

    report.put_between_marks(copy, "| x |")

    assert "\n\n| x |\n\n" in copy.read_text()
    copy.write_text("no marks")
    with pytest.raises(ValueError, match="has not one pair of marks"):
        report.put_between_marks(copy, "")
