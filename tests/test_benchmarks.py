"""The figures in the benchmarks' README are those that were measured."""

import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def made(monkeypatch):
    """benchmarks/tables.py; benchmarks are scripts, no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "tables", raising=False)
    import tables

    return tables


def test_the_tables_of_the_readme_are_those_of_the_results(made):
    found = made.tables(json.loads(made.RESULTS.read_text()))
    assert {"machine", "one core", "ratios", "first calls", "first fit", "sizes", "eager", "kernels"} <= set(found)
    text = made.README.read_text()
    assert made.written(text, found) == text, "run python benchmarks/tables.py"
    assert made.written(text, {**found, "sizes": found["sizes"].replace("| first |", "| other |")}) != text
    assert text.count("<!-- end -->") == len(found), "a table without figures"


def test_a_table_that_has_no_place_is_refused(made):
    with pytest.raises(ValueError, match="<!-- weather --> stands in 0 places"):
        made.written(made.README.read_text(), {"weather": "| |"})
