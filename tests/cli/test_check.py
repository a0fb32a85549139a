"""`flows check`: the table of `flows.check`, an exit status for scripts, and what a user may get wrong."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import flows as library
from conftest import POWER
from flows import tables
from flows.cli import check as command
from flows.cli.app import app

pytestmark = pytest.mark.filterwarnings("default")  # which are lines on stderr here
SOME = ("--only", "columns", "--only", "pairs", "-n", 500, "--no-cache")


def part(tmp_path, start, stop, name):
    """Rows of the household's power, as a file and as a frame."""
    header, *lines = POWER.read_text().splitlines()
    (tmp_path / name).write_text("\n".join([header, *lines[start:stop]]) + "\n")
    return name, pd.read_csv(tmp_path / name)


@pytest.fixture(scope="module")
def drawn(model, tmp_path_factory):
    """Rows of the model itself."""
    path = tmp_path_factory.mktemp("drawn") / "drawn.csv"
    tables.load(model).draw(7, 400).write_csv(path)
    return path


def test_a_fail_is_an_exit_status_of_its_own(model, shell, flows, tmp_path):
    data, frame = part(tmp_path, 0, 400, "new.csv")
    expected = library.check(tables.load(model), frame, samples=500, only=["columns", "pairs"], level=0.02, rng=3)
    status, out, err = shell(tmp_path, "check", model, data, *SOME, "--level", 0.02, "--seed", 3, "--json")
    assert (status, err) == (3, "") and not expected.passed
    told = json.loads(out)
    assert told.keys() == expected.figures.keys() and [*told["checks"]] == ["columns", "pairs"]
    assert told["level"] == 0.02 and told["remarks"] == expected.figures["remarks"] and told["passed"] is False
    for name, check in expected.items():
        assert told["checks"][name]["verdict"] == check.verdict
        assert told["checks"][name]["size"] == pytest.approx(check.size, abs=1e-3)
    status, out, err = flows("check", model, data, *SOME, "--level", 0.02, "--seed", 3)
    assert (status, out, err) == (3, f"{expected}\n", "")


def test_options_are_those_of_the_library(flows, rows, monkeypatch, tmp_path):
    data, asked = rows(), []
    table = SimpleNamespace(schema=tables.infer_schema(pd.read_csv(tmp_path / data)), metadata={}, any_given_any=False)

    def check(table, rows, **options):
        asked.append((len(rows), options))
        return SimpleNamespace(passed=options["level"] < 0.1, figures={"level": options["level"]})

    monkeypatch.setattr(command, "loaded", lambda path: table)
    monkeypatch.setattr(library, "check", check)
    for level, status in ((0.02, 0), (0.2, 3)):
        given = ("--level", level, "--seed", 3, "--json")
        assert flows("check", "m.flows", data, *SOME, *given) == (status, f'{{"level": {level}}}\n', "")
        options = {"train": None, "rng": 3, "samples": 500, "level": level, "only": ["columns", "pairs"]}
        assert asked.pop() == (30, options)


def test_rows_of_the_model_itself_pass(model, flows, drawn):
    status, out, err = flows("check", model, drawn, *SOME)
    assert (status, err) == (0, "") and "columns  pass" in out and "FAIL" not in out


def test_a_page_is_written_next_to_the_table(model, flows, drawn, tmp_path):
    plain, page = flows("check", model, drawn, *SOME), tmp_path / "check.html"
    with_page = flows("check", model, drawn, *SOME, "--html", "check.html")
    assert with_page == plain, with_page[2]
    text = page.read_text()
    assert "<bdi>m.flows, checked by drawn.csv</bdi>" in text.replace(model.name, "m.flows") and "The oddest rows" in text
    status, out, err = flows("check", model, drawn, *SOME, "--html", "check.html", "--no-rows")
    assert (status, out) == (2, "") and "check.html exists" in err and "--force" in err
    assert flows("check", model, drawn, *SOME, "--html", "check.html", "--no-rows", "--force")[0] == 0
    assert "The oddest rows" not in page.read_text()
    assert "--no-rows is of the page that --html writes" in flows("check", model, drawn, *SOME, "--no-rows")[2]
    status, out, err = flows("check", model, drawn, *SOME, "--html", "/dev/full")
    assert status == 2 and "/dev/full" in err


def test_rows_that_were_trained_on_are_found(model, flows, drawn, tmp_path):
    given = ("--only", "copies", "-n", 500, "--no-cache", "--json")
    told = json.loads(flows("check", model, drawn, "--train", drawn, *given)[1])
    assert [*told["checks"]] == ["copies"] and "400 of 400 rows are in train" in told["remarks"][0]
    status, out, _ = flows("check", model, drawn, "--train", part(tmp_path, 0, 400, "train.csv")[0], *given)
    assert status == 0 and json.loads(out)["checks"]["copies"]["verdict"] == "pass"


def test_a_condition_is_read_from_the_file(flows, tmp_path):
    rng = np.random.default_rng(0)
    dose = rng.normal(size=600).round(3)
    frame = pd.DataFrame({"dose": dose, "effect": dose + rng.normal(size=600)})
    normal = library.Normal(trainable=True, regression=True)
    result = tables.fit(0, frame[:300], condition=["dose"], model=normal, max_epochs=100, folds=1, verbose=0)
    result.save(tmp_path / "given.flows")
    frame[300:].to_csv(tmp_path / "right.csv", index=False)
    frame[300:].assign(dose=-dose[300:]).to_csv(tmp_path / "wrong.csv", index=False)
    found = {}
    for name in ("right", "wrong"):
        status, out, err = flows("check", "given.flows", f"{name}.csv", "--only", "ranks", "--no-cache", "--json")
        found[name] = status, json.loads(out)["checks"]["ranks"]["verdict"], err
    assert found == {"right": (0, "pass", ""), "wrong": (3, "FAIL", "")}


def test_what_is_refused(model, flows, rows, tmp_path):
    data, gap = rows(), rows("gap.csv", [(4, 1, "NA")])
    bad, low = rows("bad.csv", [(9, 1, "abc")]), rows("low.csv", [(7, 0, "-5")])
    for arguments, words in (
        ((data, "--only", "colums"), "--only is 'colums'; expected one of shift, rows, normalisation"),
        ((data, "--level", "1"), "--level is 1; expected a share between 0 and 1, such as 0.01"),
        ((data, "--level", "nan"), "--level is nan; expected a share"),
        ((data, "-n", "99"), "-n is 99; expected 100 or more"),
        (("-", "--train", "-"), "DATA and --train are both stdin; give a file for one of them"),
        ((gap,), "gap.csv, row 3 (line 5), column 'active_power_kw', is a gap"),
        ((data, "--train", gap), "gap.csv, row 3 (line 5), column 'active_power_kw', is a gap"),
        ((data, "--train", bad), "bad.csv, row 8 (line 10), column 'active_power_kw', is 'abc'; expected numbers"),
        ((low,), "low.csv, row 6 (line 8), column 'minute_of_day', is -5; expected a whole number at least 0"),
        ((data, "--train", low), "low.csv, row 6 (line 8), column 'minute_of_day', is -5"),
        (("none.csv",), "none.csv cannot be read: No such file or directory"),
        ((data, "--train", "none.csv"), "none.csv cannot be read"),
    ):
        status, out, err = flows("check", model, *arguments, "--no-cache")
        assert (status, out, err.count("\n")) == (2, "", 1) and err.startswith("flows: ") and words in err, err


def test_gaps_are_left_out_and_few_rows_have_no_verdict(model, flows, rows):
    gap = rows("gap.csv", [(4, 1, "NA")])
    status, out, err = flows("check", model, gap, "--drop-gaps", *SOME)
    assert status == 0 and err == "warning: 1 of 30 rows are left out, as they have gaps\n"
    assert out.count("cannot tell") == 2 and "29 rows; at least 100 make a p-value" in out
    assert flows("check", model, gap, "--drop-gaps", "--quiet", *SOME)[2] == ""


def test_the_help_names_the_exit_status():
    (command,) = [each for each in app.registered_commands if each.name == "check"]
    assert "exit status 3 for a FAIL" in command.callback.__doc__
