"""The figures on the benchmarks' pages are those that were measured, and the index leads to them."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


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


@pytest.fixture
def one_thread():
    """Threads of trees that wait for each other take long where other processes have the cores."""
    with threadpool_limits(1):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_trees_tell_draws_from_rows_where_they_differ(made):
    import two_samples

    def table(seed, shift=0.0):
        rng = np.random.default_rng(seed)
        names = rng.choice(["a", "b"], 600)
        numbers = np.round(rng.normal(size=600) + 3 * (names == "b") + shift, 2)
        times = pd.Timestamp("2020-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 99, 600), "h")
        return pd.DataFrame({"name": names, "number": numbers, "time": times})

    alike, apart = two_samples.told_apart(table(0), table(1)), two_samples.told_apart(table(0), table(1, 3.0))
    assert abs(alike.accuracy - 0.5) < 4 * alike.error and apart.accuracy > 0.7 and apart.auc > 0.8
    moved = table(0).assign(number=table(0)["number"] + 1e-13)
    assert two_samples.told_apart(moved, table(0)).accuracy < 0.55
    seconds = table(0).astype({"time": "datetime64[s, UTC]"})
    (one, other), categories = two_samples.as_numbers(seconds, table(0))
    np.testing.assert_array_equal(one, other)
    assert categories == [0]
    numbers = [table(seed)[["number"]] for seed in (0, 1)]
    assert two_samples.learned(*numbers, table(0)["name"], table(1)["name"]) > 0.9


def test_recorded_rows_are_those_of_a_set_without_its_noise(made):
    import sets

    (noisy, _), (rows, _) = sets.SETS["rounded 5"](1), sets.recorded("rounded 5", 1)
    np.testing.assert_array_equal(rows, np.round(rows, 1))
    assert 0 < np.abs(noisy - rows).max() <= 0.05 and (sets.SETS["rounded 5"](1)[0] == noisy).all()


def test_results_have_one_record_a_line(made, tmp_path):
    import records

    found = {
        "b": {"seed 1": {"nats": -1.5, "ahead": [0.1, 2e-07]}, "seed 0": {"nats": float("inf"), "of": [[1, 2], [3]]}, "n": 3},
        "a": [{"x": None, "told": []}, {"y": {}}, [1, "two\n"]],
        "none": {},
        "flat": {"1": True},
    }
    expected = """{
 "b": {
  "seed 1": {"nats": -1.5, "ahead": [0.1, 2e-07]},
  "seed 0": {"nats": Infinity, "of": [[1, 2], [3]]},
  "n": 3
 },
 "a": [
  {"x": null, "told": []},
  {
   "y": {}
  },
  [1, "two\\n"]
 ],
 "none": {},
 "flat": {"1": true}
}
"""
    file = tmp_path / "found.json"
    assert records.read(file) == {}
    records.write(file, found)
    assert file.read_text() == expected
    assert json.dumps(records.read(file)) == json.dumps(found)
    records.write(file, {1: (2, 3)})
    assert file.read_text() == '{"1": [2, 3]}\n'


def test_results_are_as_records_writes_them(made):
    import records

    for file in (FOLDER / "results").glob("*.json"):
        assert file.read_text() == records.as_text(records.read(file)) + "\n", f"{file.name}: write it by records.write"
