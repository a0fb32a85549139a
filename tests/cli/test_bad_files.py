"""What a user may get wrong: a line on stderr that says where and what to do, exit status 2, and nothing half-written."""

import json
import os
import resource
import signal
import sys
import time

import numpy as np
import polars as pl
import pytest

import flows as library
from conftest import POWER, QUICK
from flows import tables
from flows.cli import show
from flows.cli.command import Mistake
from flows.cli.models import typed
from flows.cli.source import Block
from flows.cli.text import TextRows
from flows.core.extras import installs

pytestmark = pytest.mark.filterwarnings("default")
NAMES = POWER.read_text().split("\n", 1)[0].split(",")
BAD_ROWS = {  # what is done to rows, and words of the error when they are scored
    "a row too long": ({"cells": [(7, 6, "17,9")]}, "row 6 (line 8), has 8 values; expected 7, as the header has"),
    "a row too short": ({"text": "a,b\n1,2\n\n3\n"}, "row 1 (line 4), has 1 values; expected 2"),
    "another encoding": (
        {"cells": [(5, 1, "\xe9")], "encoding": "latin-1"},
        "line 6, has the byte b'\\xe9', which is not utf-8",
    ),
    "doubled names": ({"cells": [(0, 1, "voltage_v")]}, "columns of one name, 'voltage_v'; rename them"),
    "another separator": ({"text": ";".join(NAMES) + "\n"}, "has one column, 'minute_of_day;active"),
    "a column missing": ({"cells": [(0, 3, "volts")]}, "lacks 'voltage_v'; expected the columns 'minute_of_day'"),
    "text among numbers": ({"cells": [(4, 1, "abc")]}, "row 3 (line 5), column 'active_power_kw', is 'abc'; expected numbers"),
    "out of bounds": (
        {"cells": [(4, 0, "-7")]},
        "row 3 (line 5), column 'minute_of_day', is -7; expected a whole number at least 0",
    ),
    "a gap": ({"cells": [(4, 1, "NA"), (9, 1, "")]}, "row 3 (line 5), column 'active_power_kw', is a gap, the first of 2"),
    "infinite": ({"cells": [(4, 1, "inf")]}, "row 3 (line 5), column 'active_power_kw', is inf; expected a finite number"),
    "no whole number": ({"cells": [(4, 0, "1.5")]}, "row 3 (line 5), column 'minute_of_day', is 1.5; expected a whole number"),
    "an open quote": ({"cells": [(4, 1, '"1.5')]}, "row 3, which begins on line 5, is not CSV"),
    "nothing": ({"text": ""}, "is empty; expected a header and rows"),
    "a header alone": ({"text": ",".join(NAMES) + "\n"}, "has a header and no rows"),
    "no ending": (
        {"name": "rows.data"},
        "the ending does not name a format; expected .csv, .parquet or .npy, or give --format",
    ),
    "no Parquet": ({"name": "rows.parquet"}, "cannot be read as Parquet"),
    "no npy": ({"name": "rows.npy"}, "cannot be read as npy"),
}


def mistake(told, words):
    """One line, and no traceback."""
    status, _, err = told
    assert status == 2 and err.startswith("flows: ") and err.count("\n") == 1 and words in err, err


@pytest.mark.parametrize("case", list(BAD_ROWS))
def test_bad_rows_are_told_by_their_place(case, model, flows, rows, tmp_path):
    change, words = BAD_ROWS[case]
    data = rows(**change)
    told = flows("score", model, data, "-o", "scored.csv")
    mistake(told, words)
    assert data in told[2] and not (tmp_path / "scored.csv").exists()


def test_errors_beyond_the_first_block_leave_no_file(model, flows, rows, tmp_path):
    lines = POWER.read_text().splitlines()
    lines[9000] = lines[9000].replace(",", ",x", 1)
    data = rows(text="\n".join(lines))
    for output in ("scored.csv", "scored.parquet"):
        mistake(flows("score", model, data, "-o", output), "row 8999 (line 9001), column 'active_power_kw', is 'x")
    assert os.listdir(tmp_path) == ["rows.csv"]


def test_bad_rows_to_fit(flows, rows, tmp_path):
    def fit(*arguments):
        return flows("fit", *arguments, "-o", "m.flows", *QUICK, "--no-cache")

    text, gap = rows("text.csv", [(4, 1, "abc")]), rows("gap.csv", [(4, 1, "NA")])
    mistake(
        fit(text), "row 3 (line 5), column 'active_power_kw', is 'abc', in a column of numbers. Correct it, name it in --gaps"
    )
    mistake(fit(gap), "row 3 (line 5), column 'active_power_kw', is a gap; expected a value of Real()")
    mistake(fit(text, "--gaps", "?,abc"), "row 3 (line 5), column 'active_power_kw', is a gap")
    mistake(fit(rows("inf.csv", [(4, 1, "inf")])), "row 3 (line 5), column 'active_power_kw', is inf; expected finite numbers")
    last = rows("last.csv", [(30, 1, "NA")])
    mistake(
        fit(last, "--rows", "20", "--seed", "1"), "row 29 (line 31), column 'active_power_kw'"
    )  # the number is that of the file
    for option in ("--condition", "--ignore", "--weights", "--groups", "--order"):
        mistake(fit(gap, option, "volts"), f"{option} is 'volts', which is not a column of gap.csv")
    mistake(fit(rows("one.csv", text="a\n1\n2\n"), "--ignore", "a"), "no column that is left to model")
    mistake(fit("gap.csv", "--minutes", "0"), "--minutes is 0; expected a number above 0")
    mistake(fit("gap.csv", "--rows", "0"), "--rows")
    mistake(fit("gap.csv", "--separator", "ab"), "--separator is 'ab'; expected one character")
    mistake(fit("gap.csv", "--encoding", "latin-77"), "--encoding 'latin-77' is not known")
    mistake(fit("gap.csv", "--format", "xml"), "--format is 'xml'; expected csv, parquet or npy")
    assert not (tmp_path / "m.flows").exists()


def test_bad_schemas(flows, rows, tmp_path):
    data = rows()
    assert flows("schema", data, "-o", "s.json")[1].endswith("hand it to flows fit --schema s.json\n")
    known = json.loads((tmp_path / "s.json").read_text())
    first, *rest = known["columns"]
    for text, words in (
        ('{"version": 1,\n "columns": }', "s.json: line 2, column 13"),
        ({"columns": [{**first, "kind": "Foo"}, *rest]}, "column 'minute_of_day' has the kind 'Foo'"),
        ({"columns": rest}, "has 'minute_of_day', which s.json lacks; add it there, or give --ignore minute_of_day"),
        ({"columns": [*known["columns"], {"name": "x", "kind": "Real"}]}, "lacks 'x', which s.json has"),
        ({"columns": [{**first, "low": 700}, *rest]}, "row 5 (line 7), column 'minute_of_day', is 73"),
        (
            {"columns": [{"name": NAMES[0], "kind": "Category", "values": ["a"]}, *rest]},
            "row 0 (line 2), column 'minute_of_day', is",
        ),
    ):
        (tmp_path / "s.json").write_text(text if isinstance(text, str) else json.dumps({**known, **text}))
        mistake(flows("fit", data, "-o", "m.flows", "--schema", "s.json", *QUICK, "--no-cache"), words)
    mistake(flows("fit", data, "-o", "m.flows", "--schema", "none.json"), "none.json cannot be read: No such file")


def test_bad_models(model, flows, rows, tmp_path):
    data, whole = rows(), model.read_bytes()
    (tmp_path / "damaged.flows").write_bytes(whole[:2000] + b"x" + whole[2001:])
    result = tables.load(model).result
    result._replace(metadata={}).save(tmp_path / "array.flows")
    for name, words in (
        ("none.flows", "cannot read 'none.flows': No such file or directory"),
        ("rows.csv", "'rows.csv' is not a file that flows wrote"),
        ("damaged.flows", "'damaged.flows' is damaged or cut short"),
        ("array.flows", "has a model and no schema of a table, as it was saved by result.save; use flows.load in Python"),
    ):
        for arguments in (
            ("score", name, data),
            ("check", name, data),
            ("sample", name),
            ("show", name),
            ("compare", name, model, data),
        ):
            mistake(flows(*arguments), words)


def test_a_model_of_another_version(model, flows, rows, monkeypatch):
    from flows.persistence import models

    monkeypatch.setattr(models, "FORMAT", 99)
    mistake(flows("score", model, rows()), "version")


def test_bad_calls(model, flows, rows, tmp_path):
    data = rows()
    (tmp_path / "old.csv").touch()
    for arguments, words in (
        (("sample", model, "-n", "0"), "-n is 0; expected 1 or more"),
        (("sample", model, "-n", "-3"), "-n is -3; expected 1 or more"),
        (("sample", model, "--where", "voltage_v=240"), "the model has no condition; fit with --condition voltage_v"),
        (("sample", model, "--given", data), "the model has no condition; fit with --condition COL"),
        (("sample", model, "--json"), "give -o FILE, too"),
        (("score", model, data, "--json"), "give -o FILE, too"),
        (
            ("plot", model, "-o", "pairs.jpg"),
            "pairs.jpg: the ending does not name a format of pictures; expected .png, .svg or .pdf",
        ),
        (("plot", model, "-o", "pairs.png", "-n", "0"), "-n is 0; expected 1 or more"),
        (("plot", model, "-o", "pairs.png", "--columns", "volts"), "--columns names 'volts'; expected some of 'minute_of_day'"),
        (("score", model, data, "--oddest", "2"), "--oddest is 2; expected a share above 0"),
        (("score", model, data, "--by", "rows"), "p_value: by is 'rows'; expected one of 'density', 'columns'"),
        (("score", model, "none.csv"), "none.csv cannot be read: No such file or directory"),
        (("score", model, "."), ". is a folder; expected a file of rows"),
        (("score", model, data, "-o", "old.csv"), "old.csv exists; give --force to replace it"),
        (("score", model, "rows.csv", "-o", "./rows.csv", "--force"), "is an input of this command"),
        (("fit", "rows.csv", "-o", "rows.csv", "--force"), "give another name for the output"),
        (("sample", model, "--given", "rows.csv", "-o", "rows.csv", "--force"), "rows.csv is an input of this command"),
        (("score", model, data, "-o", "no/scored.csv"), "cannot write 'no/scored.csv': No such file or directory"),
        (("score", model, data, "-o", "/dev/full"), "cannot write '/dev/full': it is a folder, a device"),
        (
            ("score", model, data, "-o", "scored.xlsx"),
            "the ending does not name a format to write; expected .csv, .tsv or .parquet",
        ),
        (("fit", data, "-o", "no/m.flows"), "cannot write 'no/m.flows'"),
        (("fit", data, "-o", "-"), "-o is -; expected a file"),
        (("fit", data), "Missing option"),
        (("fit", data, "-o", "m.flows", "--model", "GAN"), "'NSF', 'MAF', 'RealNVP', 'Gaussian'"),
        (("compare", model, data), "expected two models or more"),
        (("sing",), "No such command 'sing'. See flows --help"),
        (("score", model, data, "--fo"), "See flows score --help"),
    ):
        mistake(flows(*arguments), words)
    assert sorted(os.listdir(tmp_path)) == ["old.csv", "rows.csv"]
    assert flows("score", model, data, "-o", "old.csv", "--force", "--quiet") == (0, "", "")


def test_a_folder_that_may_not_be_written_to(model, flows, rows, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    tmp_path.chmod(0o755)
    asked = ("score", model, rows(), "--quiet", "-o")
    assert flows(*asked, "first.csv")[0] == 0
    user = os.geteuid()
    os.seteuid(user or 65534)  # as root is refused nothing
    try:
        told = flows(*asked, "shut/scored.csv")
    finally:
        os.seteuid(user)
    mistake(told, "cannot write 'shut/scored.csv': Permission denied")


def test_models_that_cannot_be_compared(model, flows, rows, tmp_path):
    data = rows()
    frame = pl.read_csv(tmp_path / data)
    schema = tables.infer_schema(frame)
    normal = library.Normal(conditioner=library.MLP(2))
    given = tables.fit(0, frame, schema, condition=["voltage_v"], model=normal, max_epochs=1, folds=1, verbose=0)
    given.save(tmp_path / "given.flows")
    told = flows("compare", model, "given.flows", data)
    mistake(told, "given.flows cannot be compared: their conditions are unlike, in 'voltage_v'")
    told = flows("plot", "given.flows", "-o", "pairs.png")
    mistake(told, "given.flows depends on voltage_v, and has no rows to take it from; give a file")
    coded = schema.replace({"kitchen_wh": tables.Category()}).fitted(frame)
    pooled = schema.replace({"kitchen_wh": tables.Category(other=-1)}).fitted(frame)
    fault = show._fault
    assert fault(schema, coded) == "'kitchen_wh' is a category in one and a number in the other"
    assert fault(schema, schema.ignoring("kitchen_wh")) == "their columns are unlike, in 'kitchen_wh'"
    assert "rare values of the category 'kitchen_wh' are pooled" in fault(coded, pooled)
    assert fault(schema, schema.replace({"kitchen_wh": tables.Real()}).fitted(frame)) == fault(pooled, pooled) == ""


def test_pictures_say_how_matplotlib_is_installed(model, flows, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    mistake(
        flows("plot", model, "-o", "pairs.png"),
        f"flows plot needs the package matplotlib: {installs('plot')}",
    )


def test_bugs_ask_for_a_report_and_debug_shows_where(model, flows, rows, monkeypatch):
    monkeypatch.setattr(TextRows, "_header", lambda self, names: 1 / 0)
    status, _, err = flows("score", model, rows())
    assert status == 1 and err.count("\n") == 1
    assert (
        err == "flows: ZeroDivisionError: division by zero. This is a bug of flows. Please report it, with what --debug shows\n"
    )
    assert "Traceback" in flows("score", model, rows(), "--debug")[2]


def test_texts_are_written_back_as_they_were_read(flows, tmp_path):
    """Semicolons, another encoding, lines of Windows, quotes, names with quotes and line ends, zeros first, spaces, digits."""
    text = (
        'code;"si""ze";"a\nb";town;flag;note\r\n'
        + "".join(
            f'{n:03};{n % 7}.50;{n};{("Bonn", "Lomé", "")[n % 3]};{("True", "false")[n % 2]};"x;{n}"\r\n' for n in range(40)
        )
        + "\r\n"
    )
    (tmp_path / "odd.csv").write_bytes(text.encode("cp1252"))
    how = ("--separator", ";", "--encoding", "cp1252")
    status, _, err = flows("fit", "odd.csv", "-o", "m.flows", *how, *QUICK, "--no-cache")
    assert status == 0, err
    assert tables.load(tmp_path / "m.flows").schema["code"] == tables.Ignored()
    assert flows("score", "m.flows", "odd.csv", "-o", "scored.csv")[0] == 0  # the model knows how it is read
    found = (tmp_path / "scored.csv").read_bytes().decode("cp1252")
    expected = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    assert [line.startswith(before) for line, before in zip(found.split("\n"), expected, strict=False)] == [True] * 42
    read = pl.read_csv(tmp_path / "odd.csv", separator=";", encoding="cp1252", infer_schema=False)
    scored = pl.read_csv(tmp_path / "scored.csv", separator=";", encoding="cp1252", infer_schema=False)
    assert scored.select(read.columns).equals(read[:40]) and scored.columns[-2:] == ["log_prob", "p_value"]


def test_marks_tabs_and_arrays(flows, tmp_path):
    values = np.random.default_rng(0).normal(size=(50, 2))
    lines = [f"{a:.3f}\t{b:.3f}" for a, b in values]
    (tmp_path / "rows.tsv").write_bytes(("\ufeffa\tb\r" + "\r".join(lines)).encode())
    np.save(tmp_path / "rows.npy", values.astype(">f4"))
    for data, output in (("rows.tsv", "t.flows"), ("rows.npy", "n.flows")):
        assert flows("fit", data, "-o", output, *QUICK, "--no-cache")[0] == 0
    assert tables.load(tmp_path / "t.flows").schema.columns == ("a", "b")
    assert tables.load(tmp_path / "n.flows").schema.columns == ("0", "1")
    assert flows("score", "t.flows", "rows.tsv", "-o", "scored.tsv")[0] == 0
    assert (tmp_path / "scored.tsv").read_text().splitlines()[1].startswith(lines[0] + "\t")
    assert flows("score", "n.flows", "rows.npy", "-o", "scored.parquet")[0] == 0
    scored, model = pl.read_parquet(tmp_path / "scored.parquet"), tables.load(tmp_path / "n.flows")
    np.testing.assert_array_equal(scored.select("0", "1").to_numpy(), values.astype(np.float32))
    np.testing.assert_allclose(scored["log_prob"], model.log_prob(scored.select("0", "1")), rtol=1e-5)


def test_dates_with_a_format_of_their_own(flows, tmp_path):
    days = [f"{1 + n % 28:02}.{1 + n % 12:02}.2024" for n in range(60)]
    (tmp_path / "days.csv").write_text("day,n\n" + "".join(f"{day},{n}\n" for n, day in enumerate(days)))
    columns = [{"name": "day", "kind": "DateTime", "format": "%d.%m.%Y"}, {"name": "n", "kind": "Integer"}]
    (tmp_path / "s.json").write_text(json.dumps({"version": 1, "columns": columns}))
    assert flows("fit", "days.csv", "-o", "m.flows", "--schema", "s.json", *QUICK, "--no-cache")[0] == 0
    assert flows("score", "m.flows", "days.csv", "-o", "scored.csv")[0] == 0
    status, out, _ = flows("sample", "m.flows", "-n", 5)
    assert status == 0 and all(line[2] == line[5] == "." for line in out.splitlines()[1:])


# What only a process shows


def test_a_full_disk(model, flows, shell, tmp_path):
    with open("/dev/full", "wb") as full:
        told = shell(tmp_path, "score", model, POWER, stdout=full)
    mistake(told, "No space left on device")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, most))
    try:
        told = [flows("score", model, POWER, "-o", f"scored.{ending}", "--no-cache") for ending in ("csv", "parquet")]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    mistake(told[0], "cannot write 'scored.csv': File too large")
    mistake(told[1], "cannot write 'scored.parquet'")
    assert os.listdir(tmp_path) == []


def test_ctrl_c_before_the_first_epoch_leaves_nothing(start, tmp_path):
    code = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    heeded = (sys.executable, "-c", code)  # as Ctrl-C is ignored by what is started in the background
    with start(tmp_path, "fit", POWER, "-o", "m.flows", "--model", "NSF", before=heeded) as process:
        assert process.stdout.readline() == b"20,000 rows of " + str(POWER).encode() + b"\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, b"flows: stopped; nothing was written\n") and os.listdir(tmp_path) == []


def test_a_kill_in_between_leaves_the_old_file(model, start, tmp_path):
    (tmp_path / "scored.csv").write_text("old")
    header, rows = POWER.read_text().split("\n", 1)
    (tmp_path / "rows.csv").write_text(header + "\n" + 20 * rows)
    with start(tmp_path, "score", model, "rows.csv", "-o", "scored.csv", "--force") as process:
        end = time.monotonic() + 120
        while not any(file.stat().st_size for file in tmp_path.glob(".flows-*.tmp")) and time.monotonic() < end:
            time.sleep(0.02)
        assert process.poll() is None
        process.kill()
    assert (tmp_path / "scored.csv").read_text() == "old"


# A process counts the memory of the one that starts it, here of all tests before: so it is started by a small one.
MEASURED = """import resource, subprocess, sys
subprocess.check_call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""


@pytest.mark.slow
def test_files_may_exceed_memory(model, start, tmp_path):
    """A file of 1 GB, by a process that never had more than 2 GB: what was used, as a limit would count what JAX reserves."""
    line = POWER.read_text().splitlines()
    with (tmp_path / "rows.csv").open("w") as file:
        file.write(line[0] + ",note\n")
        for i in range(500_000):
            file.write(f"{line[1 + i % 20_000]},{i:02000}\n")
    assert (tmp_path / "rows.csv").stat().st_size > 1e9
    with start(tmp_path, "score", model, "rows.csv", "-o", "scored.csv", before=(sys.executable, "-c", MEASURED)) as process:
        out, err = process.communicate()
    assert process.returncode == 0 and int(out.split()[-1]) * 1024 < 2e9, err
    with (tmp_path / "scored.csv").open() as file:
        assert sum(1 for _ in file) == 500_001


def read(tmp_path, text, rows=9, header=None):
    (tmp_path / "rows.csv").write_text(text, newline="")
    return [*TextRows(str(tmp_path / "rows.csv"), "rows.csv", ",", "utf-8", header).pieces(rows)]


def test_empty_lines_are_no_rows(tmp_path):
    (frame,) = read(tmp_path, "a,b\n1,2\n\n3,4\n")
    assert frame.rows() == [("1", "2"), ("3", "4")]


def test_rows_without_quotes_are_read_as_those_with_them(tmp_path):
    plain, quoted = read(tmp_path, 'a,b\r\n1, x\r\n,#\r\n"1"," x"\r\n,"#"', rows=2)
    assert plain.equals(quoted) and plain.rows() == [("1", " x"), (None, "#")]
    with pytest.raises(Mistake, match=r"row 2 \(line 4\), has 1 values; expected 2"):
        read(tmp_path, "a,b\n1,2\n3,4\n5\n6,7,8\n", rows=2)


@pytest.mark.parametrize("first", ["1,a", '1,"a"', '\n"1",a'])
def test_without_a_header_the_first_row_is_one_of_data(tmp_path, first):
    for rows in (2, 9):
        blocks = read(tmp_path, f"{first}\n2,b\n3,c\n", rows, header=False)
        assert pl.concat(blocks).rows(named=True) == [{"0": n, "1": text} for n, text in ("1a", "2b", "3c")]


def test_gaps_may_be_numbers():
    schema = tables.Schema({"a": tables.Real()})
    for gaps, expected in ((("", "-9"), [1.5, None, None]), (("",), [1.5, -9.0, None])):
        block = Block(pl.DataFrame({"a": ["1.5", "-9", None]}), range(1, 4), "rows", gaps)
        assert typed(block, schema).frame["a"].to_list() == expected


def test_a_row_is_named_with_the_line_on_which_it_begins(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,"two\nlines"\n\n2,x\n3,y\n')
    text = TextRows(str(path), "rows.csv", ",", "utf-8")
    assert [text.line_of(number) for number in range(4)] == [2, 5, 6, None]
    assert TextRows(str(path), "rows.csv", ",", "utf-8", header=False).line_of(0) == 1
