"""`flows impute`, and the other commands with a model of any columns given any others."""

import json
import re

import polars as pl
import pytest

CSV = "id,town,size,day\n" + "".join(
    f"{i},{['Bonn', 'Oslo', ''][i % 3]},{'' if i % 4 == 0 else f'{(i % 7) / 2:.2f}'},2024-01-{i % 28 + 1:02d}\n"
    for i in range(90)
)
QUICK = ("--max-epochs", 1, "--model", "AnySubset", "--ignore", "id", "--no-cache")


@pytest.fixture
def fitted(flows, tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    status, out, err = flows("fit", "a.csv", "-o", "a.flows", *QUICK)
    assert (status, err) == (0, "") and "gaps are taken to be at random" in out
    return flows


def test_gaps_are_filled_and_other_cells_stay_as_they_are(fitted, tmp_path):
    status, out, err = fitted("impute", "a.flows", "a.csv", "-o", "full.csv")
    assert (status, err) == (0, "") and "filled 53 gaps of 90 rows" in out
    before = [line.split(",") for line in CSV.splitlines()]
    after = [line.split(",") for line in (tmp_path / "full.csv").read_text().splitlines()]
    cells = [pair for rows in zip(before, after, strict=True) for pair in zip(*rows, strict=True)]
    assert all(new == old if old else new for old, new in cells)
    assert {row[1] for row in after[1:]} == {"Bonn", "Oslo"} and all(float(row[2]) * 2 % 1 == 0 for row in after[1:])
    _, out, err = fitted("impute", "a.flows", "full.csv")
    assert (out, err) == ((tmp_path / "full.csv").read_text(), "found no gaps, and copied its rows\n")


def test_draws_are_stacked(fitted, tmp_path):
    status, out, _ = fitted("impute", "a.flows", "a.csv", "-o", "draws.csv", "--draws", 3, "--seed", 1, "--json")
    told = {"rows": 90, "gaps": 53, "draws": 3, "file": "draws.csv", "seed": 1}
    assert status == 0 and json.loads(out) == told
    draws = pl.read_csv(tmp_path / "draws.csv")
    assert draws["draw"].to_list() == [1] * 90 + [2] * 90 + [3] * 90 and draws["size"].null_count() == 0
    one, two = draws.filter(draw=1)["size"], draws.filter(draw=2)["size"]
    assert not one.equals(two)
    err = fitted("impute", "a.flows", "draws.csv", "--draws", 2)[2]
    assert err.endswith("column 'draw' already, which would count draws; rename it\n")


def test_partial_rows_are_scored_and_drawn_from(fitted, tmp_path):
    status, out, err = fitted("score", "a.flows", "a.csv", "--oddest", 0.2)
    assert (status, err) == (0, "") and len(out.splitlines()) == 91
    assert all(line.split(",")[4] and line.split(",")[5] for line in out.splitlines())  # log_prob and p_value
    assert any(line.split(",")[6] for line in out.splitlines()[1:])
    status, out, _ = fitted("sample", "a.flows", "-n", 2, "--where", "town=Oslo")
    assert status == 0 and [line.split(",")[0] for line in out.splitlines()] == ["town", "Oslo", "Oslo"]
    (tmp_path / "given.csv").write_text("size\n1.5\nNA\n")
    status, out, _ = fitted("sample", "a.flows", "-n", 2, "--given", "given.csv")
    assert status == 0 and [line.split(",")[1] for line in out.splitlines()][1:3] == ["1.5", "1.5"]
    (tmp_path / "other.csv").write_text("z\n1\n")
    assert "expected some of the columns 'town', 'size', 'day'" in fitted("sample", "a.flows", "--given", "other.csv")[2]
    assert "the columns are town, size, day" in fitted("sample", "a.flows", "--where", "z=1")[2]


def test_other_models_say_how_to_get_one(flows, tmp_path):
    (tmp_path / "n.csv").write_text("x\n" + "".join(f"{i % 17}.{i % 9}\n" for i in range(120)))
    assert flows("fit", "n.csv", "-o", "n.flows", "--model", "Gaussian", "--max-epochs", 1, "--no-cache")[0] == 0
    status, _, err = flows("impute", "n.flows", "n.csv")
    assert status == 2 and "flows fit DATA -o MODEL --model AnySubset" in err


def test_masses_are_compared_with_masses(flows, tmp_path, monkeypatch):
    import flows as library

    asked, log_prob = [], library.tables.TableResult.log_prob

    def spied(self, frame, *, draws=None, errors="raise"):
        asked.append(draws)
        return log_prob(self, frame, draws=draws, errors=errors)

    monkeypatch.setattr(library.tables.TableResult, "log_prob", spied)
    (tmp_path / "n.csv").write_text("x\n" + "".join(f"{i % 17}.{i % 9}\n" for i in range(120)))
    for name, model in (("n", "Gaussian"), ("m", "AnySubset")):
        assert flows("fit", "n.csv", "-o", f"{name}.flows", "--model", model, "--max-epochs", 1, "--no-cache")[0] == 0
    status, out, _ = flows("compare", "n.flows", "m.flows", "n.csv", "--no-cache")
    assert status == 0 and out.count("+-") == 4 and asked == [16, 16]


def test_gaps_of_another_sort_are_not_compared(fitted, tmp_path):
    quick = ("--max-epochs", 1, "--model", "Gaussian", "--ignore", "id", "--drop-gaps", "--no-cache")
    assert fitted("fit", "a.csv", "-o", "b.flows", *quick)[0] == 0
    assert (
        "gaps of 'town' are a category in one and missing in the other" in fitted("compare", "a.flows", "b.flows", "a.csv")[2]
    )


def test_dates_are_written_as_those_next_to_them(flows, tmp_path):
    days = [f"{i % 28 + 1:02d}.0{i % 3 + 1}.2021 {i % 24:02d}:00" if i % 5 else "" for i in range(100)]
    (tmp_path / "d.csv").write_text("when,x\n" + "".join(f"{day},{i % 7 / 2}\n" for i, day in enumerate(days)))
    assert flows("fit", "d.csv", "-o", "d.flows", "--model", "AnySubset", "--max-epochs", 1, "--no-cache")[0] == 0
    status, out, _ = flows("impute", "d.flows", "d.csv", "--no-cache")
    cells = [line.split(",")[0] for line in out.splitlines()[1:]]
    assert status == 0 and all(re.fullmatch(r"\d\d\.\d\d\.\d{4} \d\d:\d\d", cell) for cell in cells)


def test_checks_leave_rows_with_gaps_out(fitted):
    status, _, err = fitted("check", "a.flows", "a.csv", "--only", "columns", "-n", 100)
    assert status in (0, 3) and "of 90 rows are left out, as they have gaps" in err
