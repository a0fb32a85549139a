"""Scores of the rows of a file, and their oddest columns."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest

from conftest import POWER, QUICK
from flows import tables
from flows.cli import source
from flows.tables import contributions

pytestmark = pytest.mark.filterwarnings("default")  # which are lines on stderr here


def test_a_scored_file_is_its_input_with_two_columns_more(model, shell, tmp_path):
    status, out, err = shell(tmp_path, "score", model, POWER, "-o", "scored.csv")
    assert (status, err) == (0, "") and out.startswith("wrote 20,000 rows to scored.csv, log_prob -14.")
    before, after = POWER.read_text().splitlines(), (tmp_path / "scored.csv").read_text().splitlines()
    assert [line.rsplit(",", 2)[0] for line in after] == before and after[0].endswith(",log_prob,p_value")
    frame, scored = pd.read_csv(POWER), pd.read_csv(tmp_path / "scored.csv")
    result = tables.load(model)
    np.testing.assert_allclose(scored["log_prob"], result.log_prob(frame), rtol=1e-5)
    apart = np.abs(scored["p_value"] - result.p_value(frame))  # scores that differ by a rounding may change a rank among 50
    assert (apart > 1e-3).mean() < 1e-3 and apart.max() < 1.01 / 51
    with POWER.open() as file:  # a pipe gives the same bytes
        assert shell(tmp_path, "score", model, "-", stdin=file) == (0, (tmp_path / "scored.csv").read_text(), "")


def test_a_pipe_may_close(model, start, tmp_path):
    with start(tmp_path, "score", model, POWER) as process:
        assert process.stdout.readline().endswith(b",log_prob,p_value\n")
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 0


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_are_equal_however_they_are_read(model, flows, monkeypatch, tmp_path, suffix):
    data = POWER
    if suffix == "parquet":
        data = tmp_path / "power.parquet"
        pl.read_csv(POWER).write_parquet(data)
    written = []
    for size in (1_000, 10**6):
        monkeypatch.setattr(source, "READ", size)
        monkeypatch.setattr(source, "MOST_NUMBERS", size)
        blocks = [*source.Source(str(data), source.Reading()).blocks(8_192)]
        assert [(block.numbers[0], len(block.frame)) for block in blocks] == [(0, 8_192), (8_192, 8_192), (16_384, 3_616)]
        assert flows("score", model, data, "-o", f"{size}.{suffix}", "--oddest", 0.0005, "--no-cache")[0] == 0
        written.append((tmp_path / f"{size}.{suffix}").read_bytes())
    assert written[0] == written[1]
    read = pl.read_csv if suffix == "csv" else pl.read_parquet
    assert read(tmp_path / f"1000.{suffix}").select(pl.read_csv(POWER).columns).equals(pl.read_csv(POWER))


def test_odd_rows_name_their_column(model, flows, tmp_path, rows, monkeypatch):
    monkeypatch.setattr(contributions, "USUAL_DRAWS", 64)
    data = rows(cells=[(4, 3, "300.0")])
    assert flows("score", model, data, "-o", "scored.csv", "--oddest", 0.1)[0] == 0
    scored = pl.read_csv(tmp_path / "scored.csv")
    assert scored.columns[-4:] == ["log_prob", "p_value", "odd_column", "contribution"]
    assert scored["odd_column"][3] == "voltage_v" and scored["contribution"][3] < -20
    usual = scored.filter(pl.col("p_value") > 0.1)
    assert len(usual) > 5 and usual["odd_column"].null_count() == usual["contribution"].null_count() == len(usual)


def test_rows_are_ranked_by_their_oddest_columns(model, flows, tmp_path, rows):
    data = rows(cells=[(4, 3, "300.0")])
    assert flows("fit", POWER, "-o", "by.flows", *QUICK, "--rows", 500, "--by-columns")[0] == 0
    assert flows("score", "by.flows", data, "-o", "scored.csv", "--by", "columns")[0] == 0
    scored = pl.read_csv(tmp_path / "scored.csv")
    assert scored.columns[-2:] == ["log_prob", "p_value"] and scored["p_value"].arg_min() == 3
    frame = pd.read_csv(tmp_path / data)
    np.testing.assert_array_equal(scored["p_value"], tables.load("by.flows").p_value(frame, by="columns", verbose=0))
    status, _, err = flows("score", model, data, "-o", "b.csv", "--by", "columns")
    assert status == 2 and "expected one of `flows fit --by-columns`" in err and not (tmp_path / "b.csv").exists()


def test_rows_without_a_density_are_coerced(model, flows, tmp_path, rows):
    data = rows(cells=[(2, 1, "NA"), (3, 0, "-5")])
    status, out, err = flows("score", model, data, "-o", "scored.csv", "--coerce", "--json")
    told = json.loads(out)
    assert (status, err) == (0, "") and [told[name] for name in ("rows", "scored", "outside", "gaps")] == [30, 28, 1, 1]
    scored = pl.read_csv(tmp_path / "scored.csv", null_values="NA")
    assert scored["log_prob"][2] == -np.inf and scored["log_prob"][1] is scored["p_value"][1] is None
    assert (tmp_path / "scored.csv").read_text().splitlines()[2].endswith(",NA,0.158,233.22,0,1,17,,")
    assert told["log_prob"] == pytest.approx(scored["log_prob"].drop_nulls()[[0, *range(2, 29)]].mean())
    assert "1 of 30 rows have an unknown category" in flows("score", model, data, "-o", "b.csv", "--coerce")[2]
    assert flows("score", model, data, "-o", "c.csv", "--coerce", "--quiet") == (0, "", "")
    assert flows("score", model, "scored.csv", "-o", "d.csv", "--coerce", "--prefix", "new_", "--quiet")[0] == 0
    assert pl.read_csv(tmp_path / "d.csv").columns[-4:] == ["log_prob", "p_value", "new_log_prob", "new_p_value"]
