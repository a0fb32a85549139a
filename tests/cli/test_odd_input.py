"""Files, names, options and streams that nobody expects, each of which is told in one line, or just works."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import flows.__main__ as entry
from conftest import QUICK
from flows import tables

pytestmark = pytest.mark.filterwarnings("default")
FIT = (*QUICK, "--no-cache", "--force")


def mistake(told, words):
    """One line, and no traceback."""
    status, _, err = told
    assert status == 2 and err.startswith("flows: ") and err.count("\n") == 1 and words in err, err


def numbers(header, separator=","):
    return f"{header}\n" + "".join(f"{n}{separator}{n * n % 17}.5\n" for n in range(30))


def test_an_empty_name_stays_empty(flows, rows, tmp_path):
    """As pandas writes the numbers of rows; empty lines before the header are none of it."""
    data = rows(text="\n\n" + numbers(",b"))
    assert flows("fit", data, "-o", "m.flows", "--condition", "", *FIT)[0] == 0
    assert tables.load(tmp_path / "m.flows").schema.condition == ("",)
    assert flows("score", "m.flows", data, "-o", "scored.parquet", "--no-cache")[0] == 0
    assert pl.read_parquet(tmp_path / "scored.parquet").columns == ["", "b", "log_prob", "p_value"]
    status, out, _ = flows("sample", "m.flows", "--where", "=3", "--no-cache")
    assert status == 0 and out.splitlines()[1].startswith("3,")
    mistake(flows("sample", "m.flows", "--where", "=3", "--where", "=4"), "--where names '' twice; expected each column once")


def test_encodings(model, flows, rows):
    data = rows(text=numbers("ä,b"), encoding="utf-8")
    for encoding in ("nope", "rot13", "x\0"):
        for command in (("fit", data, "-o", "m.flows"), ("score", model, data), ("sample", model)):
            mistake(
                flows(*command, "--encoding", encoding), f"--encoding {encoding!r} is not known; expected one such as utf-8"
            )
    mistake(flows("fit", data, "-o", "m.flows", *FIT, "--encoding", "utf-16"), "is not utf-16")
    assert flows("fit", data, "-o", "m.flows", *FIT)[0] == 0
    mistake(flows("sample", "m.flows", "--encoding", "ascii"), "ascii has no 'ä'; give --encoding utf-8")


def test_numbers_beyond_float32_are_told_by_their_row(model, flows, rows):
    data = rows(cells=[(4, 1, "1e39")])
    mistake(
        flows("fit", data, "-o", "m.flows", *FIT),
        "row 3 (line 5), column 'active_power_kw', is 1e+39; expected numbers up to 3e+38",
    )
    status, _, err = flows("score", model, data, "-o", "scored.csv", "--no-cache")
    assert status == 0 and err.startswith("warning: 1 of 30 rows") and err.count("\n") == 1


def test_outputs_that_are_refused_before_there_is_work(model, flows, rows, tmp_path):
    data, long = rows(), "y" * 300
    (tmp_path / "m.flows").write_bytes(model.read_bytes())
    for command in (("score", "m.flows", data), ("sample", "m.flows")):
        mistake(flows(*command, "-o", "m.flows", "--force"), "m.flows is an input of this command")
    for command, ending in ((("fit", data), "flows"), (("score", model, data), "csv")):
        mistake(flows(*command, "-o", f"{long}.{ending}"), "File name too long")
    assert sorted(os.listdir(tmp_path)) == ["m.flows", data]


def test_large_options(model, flows, monkeypatch):
    from flows.cli import sample

    blocks = sample._asked_for(tables.load(model), 10**20, [], None, None)
    assert next(blocks) == next(blocks) == (8_192, None)  # and no list of all of them
    mistake(flows("sample", model, "--seed", 2**63), "Invalid value for '--seed'")
    assert flows("sample", model, "--seed", 2**63 - 1, "--no-cache")[0] == 0


def test_text_in_parquet_and_objects_in_npy(model, flows, rows, tmp_path):
    pl.read_csv(tmp_path / rows()).cast({"voltage_v": pl.String}).write_parquet(tmp_path / "text.parquet")
    mistake(flows("score", model, "text.parquet"), "text.parquet, column 'voltage_v', is of text; expected numbers")
    mistake(
        flows("fit", "rows.csv", "-o", "m.flows", "--format", "npy"),
        "rows.csv cannot be read as npy: it does not hold numbers alone",
    )
    np.save(tmp_path / "objects.npy", np.array([[{}, 1]], object), allow_pickle=True)
    mistake(flows("fit", "objects.npy", "-o", "m.flows"), "objects.npy cannot be read as npy: it does not hold numbers alone")


def test_times_that_are_gaps_or_lack_a_zone(flows, rows, tmp_path):
    lines = [f"2024-01-{1 + n % 28:02}T00:00:00Z,{n * n % 17}.5\n" for n in range(30)]
    data = rows(text="at,b\n" + "".join(lines))
    assert flows("fit", data, "-o", "m.flows", *FIT)[0] == 0
    gaps = rows("gaps.csv", text="at,b\n,1\n,2\n")
    mistake(flows("score", "m.flows", gaps, "--no-cache"), "gaps.csv, row 0 (line 2), column 'at', is a gap, the first of 2")
    assert flows("score", "m.flows", gaps, "--coerce", "--no-cache")[1].endswith(",1,,\n,2,,\n")
    plain = rows("plain.csv", text="at,b\n2024-01-01T00:00:00,1\n")
    mistake(flows("score", "m.flows", plain), "plain.csv, column 'at': expected times with a zone, as in the model")


def test_schemas_of_editors(flows, rows, tmp_path):
    data = rows()
    known = json.loads(flows("schema", data)[1])
    (tmp_path / "s.json").write_text("\ufeff" + json.dumps(known))
    assert flows("fit", data, "-o", "m.flows", "--schema", "s.json", *FIT)[0] == 0
    first, *rest = known["columns"]
    for change, words in (
        ({"low": 10**400}, "column 'minute_of_day': Integer: low is 1000"),
        (
            {"kind": "DateTime", "format": "%H", "least": 3},
            "least is 3; expected a time in ISO 8601, such as '2024-01-31T12:00:00', or none",
        ),
    ):
        (tmp_path / "s.json").write_text(json.dumps({**known, "columns": [{**first, **change}, *rest]}))
        mistake(flows("fit", data, "-o", "m.flows", "--schema", "s.json", *FIT), words)


def test_closed_and_full_streams(monkeypatch, tmp_path):
    def full(text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    for arguments, status, err in (
        (["--version"], 0, None),
        (["show", str(tmp_path)], 2, None),
        (["show", str(tmp_path)], 2, SimpleNamespace(write=full, flush=lambda: None, close=lambda: None)),
    ):
        for name, stream in (("stdin", None), ("stdout", None), ("stderr", err)):
            monkeypatch.setattr(sys, name, stream)
        monkeypatch.setattr(sys, "argv", ["flows", *arguments])
        with pytest.raises(SystemExit) as ended:
            entry.main()
        assert ended.value.code == status
        for opened in (sys.stdin, sys.stdout, sys.stderr):
            opened.close()


def test_a_ctrl_c_that_python_could_not_raise_comes_again():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as it is ignored by what is started in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            entry.interrupt_again(SimpleNamespace(exc_type=KeyboardInterrupt))
            time.sleep(10)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("odd", ["3O", "0x10", "1_000"])
def test_a_number_that_is_mistyped_is_told_by_row_and_column(flows, rows, odd):
    cells = [f"{n % 36},{n}.5\n" for n in range(300)]
    cells[70] = f"{odd},70.5\n"
    told = flows("schema", rows(text="n,x\n" + "".join(cells)))
    mistake(
        told,
        f"row 70 (line 72), column 'n', is {odd!r}, in a column of numbers. Correct it, name it in --gaps, give --ignore n, or",
    )
    grades = "".join(f"{'123A'[n % 4]},{n}.5\n" for n in range(300))
    assert flows("schema", rows(text="grade,x\n" + grades))[0] == 0


def test_names_that_are_counted_are_no_row_of_data(flows, rows):
    cells = "".join(f"{n / 7},{n % 30},{'ab'[n % 2]}\n" for n in range(1, 61))
    mistake(flows("schema", rows(text="1.5,1.5\n" * 20)), "rename them, or give --no-header if the first row is one of data")
    assert json.loads(flows("schema", rows(text=cells), "--header")[1])["columns"][1]["name"] == "1"
    for names in ("0,1,2", "2019,2020,c", "x,7,c"):
        assert flows("schema", rows(text=f"{names}\n{cells}"))[0] == 0
    for names in ("0,1", "2019,2020"):
        assert flows("schema", rows(text=f"{names}\n" + "".join(f"{n / 7},{n % 30}\n" for n in range(60))))[0] == 0


def test_a_file_without_a_header_is_asked_about(flows, rows, tmp_path):
    cells = "".join(f"{n / 7},{n % 30},{'ab'[n % 2]}\n" for n in range(1, 61))
    mistake(flows("schema", rows(text=cells)), "'b', read like the rows below them. Give --no-header if")
    data = rows(text=cells)
    assert flows("fit", data, "-o", "m.flows", "--no-header", *FIT)[0] == 0
    assert flows("score", "m.flows", data, "-o", "scored.csv", "--no-cache")[0] == 0
    scored = pl.read_csv(tmp_path / "scored.csv")
    assert scored.columns[:3] == ["0", "1", "2"] and len(scored) == 60
    quoted = rows(text=cells.replace(",a", ',"a"'))
    assert flows("score", "m.flows", quoted, "-o", "quoted.csv", "--no-cache")[0] == 0
    assert pl.read_csv(tmp_path / "quoted.csv").equals(scored)


INTERRUPTED = """
import os, signal, sys

class AtImport:
    def find_spec(self, name, *_):
        if name == "flows.core":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, AtImport())
sys.argv[0] = sys.argv[1]
import flows
"""


@pytest.mark.parametrize(
    ("name", "last"), [("/bin/flows", "flows: stopped; nothing was written"), ("/bin/x", "KeyboardInterrupt")]
)
def test_ctrl_c_while_flows_is_imported(name, last):
    told = subprocess.run([sys.executable, "-c", INTERRUPTED, name], capture_output=True, text=True)
    assert told.returncode in (130, -signal.SIGINT) and told.stderr.splitlines()[-1] == last
    assert (told.returncode == 130 and told.stderr.count("\n") == 1) or name == "/bin/x"
