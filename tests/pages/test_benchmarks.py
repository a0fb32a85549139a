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


def test_wrong_models_are_wrong_in_what_they_say_alone(made):
    """Densities integrate to 1 and are those of the draws, but where that is what is wrong."""
    from wrong_models import MODELS

    side = np.linspace(-8, 8, 160)
    grid, cell = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2), (side[1] - side[0]) ** 2
    for name, model in MODELS.items():
        of = model.make(0, 4)
        shared = {"context": np.array([0.5, -0.5])} if model.conditional else {}
        for which, (params, log_pdf, sample) in {"right": of.right, "wrong": of.wrong}.items():
            if "training rows" in name and which == "wrong":
                continue  # peaks that no grid holds
            density = np.exp(log_pdf(params, grid, **shared))
            raised = np.exp(0.1) if name == "log_pdf + 0.1" and which == "wrong" else 1.0
            np.testing.assert_allclose(density.sum() * cell, raised, rtol=1e-3, err_msg=name)
            draws = sample(1, params, 20_000, **shared)
            told = log_pdf(params, draws, **shared) - (density * np.log(np.maximum(density, 1e-300))).sum() * cell / raised
            same = abs(told.mean()) < 5 * told.std() / len(draws) ** 0.5
            assert same != (name.startswith("sampler") and which == "wrong"), (name, which, told.mean())


def test_a_ring_has_the_columns_of_a_disc(made):
    from scipy.stats import kstest
    from wrong_models import ring

    params, log_pdf, sample = ring()
    draws = sample(0, params, 20_000)
    assert max(kstest(column, "norm").statistic for column in draws.T) < 0.015  # by chance in one of 4,000
    assert (np.hypot(*draws.T) < 0.3).mean() < 0.01  # 0.044 of a disc
    assert log_pdf(params, np.array([[0.01, 0.0], [1.0, 1.0]])) @ [-1, 1] > 10


def test_tables_of_checks_tell_shares_of_seeds():
    from runpy import run_path

    checked = run_path(str(FOLDER.parent / "docs" / "checked.py"))["checked"]
    one = {"FAIL": ["columns"], "small": ["pairs"], "meant": [["columns", 0.06], ["pairs", 0.01]], "seconds": 1.0}
    other = {"FAIL": [], "small": ["columns"], "meant": [["columns", 0.02], ["pairs", None]], "seconds": 1.0}
    well = {"FAIL": [], "small": ["energy"], "meant": [], "seconds": 1.0}
    score = {"wrong": [0.9, 0.9, None], "right": [0.95, 0.95, None]}
    check = {"name": "columns", "verdict": "FAIL", "p": 0.001, "size": 0.05, "tolerance": 0.03, "detail": "of column <1>"}
    figures = {
        "rows": 9,
        "draws": 10_000,
        "log_likelihood": -1.5,
        "standard_error": 0.1,
        "without_density": 0,
        "remarks": [],
        "crps": {},
    }
    found = {
        "cost": {"fit": {"cpu": 30.0, "MiB": [1, 900]}, "500": {"all": {"cpu": [9.0, 2.0], "MiB": [300, 500, 510]}}},
        "found": {"too wide": {"2000": {"0": one, "1": other}, "500": {"0": other}}, "right: normal": {"500": {"0": well}}},
        "quality": {"too wide": {"500": {"0": score, "1": score}}},
        "fits": {
            "galaxies": {
                "figures": {**figures, "checks": {"columns": check}},
                "cpu": {"fit": 30.0, "check": 5.0},
            }
        },
    }
    power = checked("power", found).splitlines()
    assert power[0] == "| what is wrong | check | 500 rows | 2,000 rows |"
    assert power[2:] == [
        "| too wide | columns | 0%, small 100%; 0.020 | 50%, small 50%; 0.040 |",
        "|  | pairs | 0% | 0%, small 50%; 0.010 |",
        "|  | any | 0% | 50% |",
    ]
    assert checked("right", found).splitlines()[-1] == "| normal | 0%, 100% |"
    assert checked("quality", found).splitlines()[-1] == "| too wide | 0.900, 0.950 |"
    assert "| all | 9.0 s, 2.0 s; 510 MiB |" in checked("cost", found) and "30 s, 900 MiB" in checked("cost", found)
    lines = checked("galaxies", found).splitlines()
    assert lines[0] == "```{raw} html" and lines[-1] == "```"
    assert "9 rows, 10,000 draws, log-likelihood -1.500 +- 0.100" in lines[1]
    assert re.findall(r">([^<>]+)</bd?i?>", "".join(lines))[-6:] == [
        "columns",
        "FAIL",
        "0.001",
        "0.0500",
        "0.03",
        "of column &lt;1&gt;",
    ]


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


def test_tables_of_guides_and_of_a_funnel_tell_what_was_measured():
    from runpy import run_path

    worth = run_path(str(FOLDER.parent / "docs" / "worth.py"))["worth"]
    guide = {"elbo": [-1.0, -2.0], "beside AutoIAFNormal": 3.0}
    names = ("IAF", "AutoIAFNormal", "AutoBNAFNormal", "AutoMultivariateNormal")
    found = {"one": {name: guide for name in names}, "other": {name: {**guide, "beside AutoIAFNormal": 4.0} for name in names}}
    lines = worth("guides", found).splitlines()
    assert lines[0] == "| guide | one | other | time of a step |" and len(lines) == 6
    assert lines[2] == "| `AutoFlow` | -1.50 | -1.50 | 3.5 |"
    run = {"mean": 0.7, "deviation": 2.5, "seconds": 10, "divergences": 30, "draws": 1e4}
    run |= {"effective draws": 50.0, "gradients": 1e5}
    lines = worth("funnel", {"plain": {"0": run, "1": run}, "RealNVP, by default": {"0": run}}).splitlines()
    assert lines[2] == "| as it is | 0.70 | 2.50 | 0.5 | 5 | 3.0 |" and lines[3].startswith("| in the noise of a flow | 0.70 |")
