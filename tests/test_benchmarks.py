"""The figures on the benchmarks' pages are those that were measured, and the index leads to them."""

import json
import re
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


def test_the_tables_of_the_pages_are_those_of_the_results(made):
    found = made.tables(json.loads(made.RESULTS.read_text()))
    assert {"machine", "one core", "ratios", "first calls", "first fit", "sizes", "eager", "kernels"} <= set(found)
    pages = made.read_pages()
    assert made.written(pages, found) == pages, "run python benchmarks/tables.py"
    assert made.written(pages, {**found, "sizes": found["sizes"].replace("| first |", "| other |")}) != pages
    assert "".join(pages.values()).count("<!-- end -->") == len(found), "a table without figures"


def test_a_table_that_has_no_place_is_refused(made):
    with pytest.raises(ValueError, match=r"<!-- weather --> stands in 0 places of speed\.md and peers\.md"):
        made.written(made.read_pages(), {"weather": "| |"})


def test_the_index_leads_to_every_program_and_page():
    index = (FOLDER / "README.md").read_text()
    for program in FOLDER.glob("*.py"):
        assert f"`{program.name}`" in index, f"benchmarks/README.md does not tell of {program.name}"
    pages = [page for page in FOLDER.glob("*.md") if page.name != "README.md"]
    for page in pages:
        assert f"]({page.name})" in index, f"benchmarks/README.md does not lead to {page.name}"
        assert (FOLDER.parent / "docs" / "benchmarks" / page.name).exists(), f"{page.name} is no page of docs/"
    for page in [FOLDER / "README.md", *pages]:
        text = page.read_text()
        assert text.count("\n") <= 400, f"{page.name} is two pages"
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (FOLDER / link).exists(), f"{page.name} links to {link}, which is not there"
