"""Each command, as a process on real data; and what it says and writes, in this process."""

import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from common import interrupting

import flows as library
from conftest import POWER, QUICK, ROOT, WEATHER
from flows import tables
from flows.__main__ import main
from flows.cli import check, command, sample, show
from flows.cli.app import EXAMPLES
from flows.core.extras import installs
from flows.training.comparison import Candidate, as_one
from flows.training.select import Selection

pytestmark = pytest.mark.filterwarnings("default")  # which are lines on stderr here
COMMANDS = {command.__name__: example for command, example in EXAMPLES.items()}
SMALLER = {"fit": [*QUICK, "--rows", "500"], "check": ["-n", "300"]}  # than the example of the help


def test_equal_commands_write_equal_bytes(model, shell, tmp_path):
    status, out, err = shell(tmp_path, "fit", POWER, "-o", "again.flows", *QUICK, "--rows", 500, "--json")
    told = json.loads(out)
    assert (status, err, told["limited"], told["rows"]) == (0, "", False, 450)
    assert (tmp_path / "again.flows").read_bytes() == model.read_bytes()
    result = tables.load(model)
    assert told["log_prob"] == -result.result.history.best and told["model"] == repr(result.result.init_fun)
    assert told["schema"] == json.loads(result.schema.to_json())


def test_groups_and_an_order_are_columns_of_the_file(flows, tmp_path):
    rng = np.random.default_rng(0)
    days = np.datetime64("2024-01-13") + np.arange(60)
    frame = pd.DataFrame({"x": rng.normal(size=60), "who": [f"{i % 20:03}" for i in range(60)]})
    frame["day"] = pd.Series(days).dt.strftime("%d.%m.%Y")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    fit = ("fit", "rows.csv", "-o", "m.flows", "--model", "Gaussian", "--max-epochs", 1, "--no-cache", "--force")
    status, out, err = flows(*fit, "--groups", "who", "--ignore", "day")
    assert status == 0 and "of 6 rows of 2 groups held out" in out, err
    assert list(tables.load(tmp_path / "m.flows").schema.columns) == ["x"]
    status, out, err = flows(*fit, "--order", "day", "--ignore", "who")
    assert status == 0 and "of the last 6 rows held out" in out, err
    held_out = tables.load(tmp_path / "m.flows").result.scores
    assert len(held_out) == 6 and flows("score", "m.flows", "rows.csv", "-o", "scored.csv")[0] == 0
    scored = pd.read_csv(tmp_path / "scored.csv")["log_prob"]
    np.testing.assert_allclose(np.sort(held_out), np.sort(scored[-6:]), rtol=1e-4)
    assert flows("schema", "rows.csv", "-o", "s.json", "--ignore", "who", "--ignore", "day")[0] == 0
    assert flows(*fit, "--groups", "who", "--ignore", "day", "--schema", "s.json")[0] == 0
    assert "order is text, such as 000; expected" in flows(*fit, "--order", "who")[2]
    assert "groups, order and rows of validation each say" in flows(*fit, "--order", "day", "--groups", "who")[2]


def test_a_model_goes_on_from_a_file(model, flows, tmp_path):
    fit = ("fit", POWER, "--from", model, "-o", "n.flows", "--rows", 300, "--max-epochs", 1, "--no-cache")
    status, out, err = flows(*fit)
    assert status == 0 and "of 30 rows held out" in out and out.endswith("equal bytes\n"), err
    after, before = tables.load(tmp_path / "n.flows"), tables.load(model)
    assert after.schema == before.schema and after.result.init_fun == before.result.init_fun
    assert "--model is given, and the model of --from has one" in flows(*fit, "--model", "NSF", "--force")[2]
    assert "is an input of this command" in flows(*fit[:4], "-o", model, "--force")[2]


def test_a_sampled_file_has_header_order_and_dtypes_of_the_data(model, shell, flows, tmp_path):
    status, out, err = shell(tmp_path, "sample", model, "-n", 16_384, "-o", "drawn.csv")
    assert (status, out, err) == (0, "wrote 16,384 rows to drawn.csv\n", "")
    drawn, data = pl.read_csv(tmp_path / "drawn.csv"), pl.read_csv(POWER)
    assert drawn.schema == data.schema and len(drawn) == 16_384
    assert not drawn[:8192].equals(drawn[8192:])
    assert flows("sample", model, "-n", 16_384, "-o", "drawn.parquet", "--no-cache")[0] == 0
    assert flows("sample", model, "-n", 16_384, "-o", "again.parquet", "--no-cache")[0] == 0
    assert (tmp_path / "drawn.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    assert pl.read_parquet(tmp_path / "drawn.parquet").schema == data.schema
    _, out, _ = flows("sample", model, "-n", 16_384, "--seed", 1, "--json", "-o", "other.csv", "--no-cache")
    assert json.loads(out) == {"rows": 16_384, "file": "other.csv", "seed": 1, "columns": data.columns}
    assert not drawn.equals(pl.read_csv(tmp_path / "other.csv"))


def test_each_block_of_draws_has_a_key_of_its_own():
    keys = []

    def draw(key, n):
        keys.append(key)
        return pl.DataFrame({"x": np.zeros(n)})

    table = SimpleNamespace(schema=SimpleNamespace(condition=()), draw=draw, any_given_any=False)
    assert [len(block) for block in sample.drawn(table, 20_000, [], None, 3, None)] == [8_192, 8_192, 3_616]
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == 3


def test_models_come_in_the_order_of_their_means_and_are_compared_with_the_best(flows, rows, monkeypatch, tmp_path):
    known = tables.infer_schema(pl.read_csv(tmp_path / rows()))
    scores = dict(zip("abc", np.random.default_rng(0).normal([[-20.0], [-10.0], [-30.0]], size=(3, 30)), strict=True))

    def table(path):
        return SimpleNamespace(schema=known, metadata={}, any_given_any=False, log_prob=lambda frame, draws: scores[path])

    monkeypatch.setattr(show, "loaded", table)
    told = json.loads(flows("compare", "a", "b", "c", rows(), "--json", "--no-cache")[1])
    assert told["rows"] == 30 and [each["model"] for each in told["models"]] == ["b", "a", "c"]
    for each in told["models"]:
        own, apart = scores[each["model"]], scores["b"] - scores[each["model"]]
        assert [each["log_prob"], each["error"]] == pytest.approx([own.mean(), own.std() / np.sqrt(30)])
        assert each["behind"] == pytest.approx([apart.mean(), apart.std() / np.sqrt(30)])


def test_show_and_compare(model, shell, flows, tmp_path, rows):
    status, out, err = shell(tmp_path, "show", model, "--json")
    told, result = json.loads(out), tables.load(model)
    assert (status, err) == (0, "") and told["bytes"] == model.stat().st_size and told["likelihood"] == "lower bound"
    assert told["gaussian"] == -float(result.result.history["gaussian_loss"]) and told["best_epoch"] == [-1]
    out = flows("show", model)[1]
    assert "best epoch     none, as the start was kept" in out
    assert repr(result.result.init_fun) in out and "log-likelihood" in out and "voltage_v          Real()" in out

    assert flows("fit", rows(), "-o", "few.flows", *QUICK, "--no-cache")[0] == 0
    status, out, err = shell(tmp_path, "compare", "few.flows", model, rows(), "--json")
    told = json.loads(out)
    scores = {path: tables.load(path).log_prob(pd.read_csv(tmp_path / rows())) for path in (str(model), tmp_path / "few.flows")}
    best, other = sorted(scores.values(), key=np.mean)[::-1]
    assert (status, err, told["rows"]) == (0, "", 30)
    assert [each["log_prob"] for each in told["models"]] == pytest.approx([best.mean(), other.mean()], rel=1e-5)
    expected = [(best - other).mean(), (best - other).std() / np.sqrt(30)]
    assert told["models"][1]["behind"] == pytest.approx(expected, rel=1e-3)
    assert flows("compare", "few.flows", model, rows(), "--no-cache")[1].count(" +- ") == 4


def test_a_picture_of_draws_beside_rows(model, shell, flows, rows, tmp_path):
    chosen = ("--columns", "voltage_v", "--columns", "minute_of_day", "-n", 50)
    status, out, err = shell(tmp_path, "plot", model, POWER, "-o", "pairs.png", *chosen)
    assert (status, err) == (0, "") and out == f"wrote pairs.png: 50 draws, next to 50 of 20,000 rows of {POWER}\n"
    assert (tmp_path / "pairs.png").read_bytes().startswith(b"\x89PNG")
    for name in ("a.svg", "b.svg", "a.pdf"):
        status, out, _ = flows("plot", model, "-o", name, *chosen, "--json", "--no-cache")
        assert json.loads(out) == {"file": name, "draws": 50, "rows": None, "seed": 0}
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"without rows" in (tmp_path / "a.svg").read_bytes() and (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    gap = rows("gap.csv", [(4, 1, "NA")])
    status, out, err = flows("plot", model, gap, "-o", "c.svg", *chosen, "--drop-gaps", "--no-cache")
    assert status == 0 and "next to 29 of 29 rows of gap.csv" in out and "1 of 30 rows are left out" in err


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_example_of_each_help_runs(command, model, flows, tmp_path):
    status, out, _ = flows(command, "--help")
    example = COMMANDS[command]
    assert status == 0 and example in " ".join(out.split())
    shutil.copy(POWER, tmp_path / "power.csv")
    for name in ("power.flows", "small.flows", "large.flows")[command == "fit" :]:
        shutil.copy(model, tmp_path / name)
    (tmp_path / "new.csv").write_text("\n".join(POWER.read_text().splitlines()[:301]) + "\n")
    asked = [*shlex.split(example)[1:], *SMALLER.get(command, []), *([] if command in ("schema", "show") else ["--no-cache"])]
    # Two epochs of a Gaussian are a poor model, and take no gaps.
    assert flows(*asked)[0] == {"check": check.FAILED, "impute": 2}.get(command, 0)


def test_the_lines_of_the_readme_run_in_order(flows, tmp_path):
    """Word for word, in a folder where the data lie as in the repository."""
    section = re.search(r"## In a shell\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    lines = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    assert [line.split()[:2] for line in lines] == [["flows", each] for each in ("fit", "sample", "score", "show")]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for line in lines:
        status, _, err = flows(*shlex.split(line, comments=True)[1:])
        assert status == 0, err


def test_help_and_schema_start_no_device(environment, tmp_path):
    code = f"""
import jax, sys
from jax._src import xla_bridge
from flows.cli.app import run
print(run(["--version"]), run(["--help"]), run(["plot", "--help"]), {{"matplotlib", "flows.tables"}} & {{*sys.modules}})
print(run(["schema", {str(POWER)!r}, "-o", "s.json", "--quiet"]), xla_bridge._backends)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(f"flows {library.__version__}, Python 3.") and done.stdout.endswith("0 {}\n"), done.stderr
    assert "\n0 0 0 set()\n" in done.stdout, "help needs neither pictures nor tables"
    assert tables.Schema.from_json((tmp_path / "s.json").read_text()) == tables.infer_schema(pl.read_csv(POWER))


def test_a_command_has_the_shared_options_that_it_names():
    """In the signature and in the annotations, of which typer reads both."""

    @command.command("no_cache", "seed")
    def run(shared: command.Shared, data: command.Data) -> None:
        read.append((shared, data))

    read = []
    names = ["data", "seed", "json", "quiet", "debug", "no_cache"]
    assert list(inspect.signature(run).parameters) == list(run.__annotations__) == names
    assert run(data="a.csv", seed=3, json=True, quiet=False, debug=False, no_cache=True) == 0
    assert read == [(command.Shared(seed=3, json=True, no_cache=True), "a.csv")]


def test_without_the_extra_it_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    for name in [name for name in sys.modules if name.startswith("flows.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as ended:
        main()
    expected = f"flows: the command flows needs the package typer: {installs('cli')}\n"
    assert (ended.value.code, capsys.readouterr().err) == (2, expected)


def test_a_command_is_a_short_file():
    for file in (ROOT / "flows" / "cli").glob("*.py"):
        assert file.read_text().count("\n") <= 200, f"{file.name} is two files"


def weather(tmp_path, rows=300, name="weather.csv"):
    lines = WEATHER.read_text().splitlines()[: rows + 1]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    return name


def test_a_condition_is_given_by_values_or_by_a_file(flows, tmp_path):
    data = weather(tmp_path)
    status, _, err = flows(
        "fit", data, "-o", "w.flows", *QUICK, "--condition", "airport", "--condition", "time", "--drop-gaps", "--no-cache"
    )
    assert status == 0 and "5 of 300 rows are left out" in err
    given = ("--where", "airport=JFK", "--where", "time=2013-01-02T03:00:00Z")
    status, out, err = flows("sample", "w.flows", "-n", 3, *given)
    lines = out.splitlines()
    assert (status, err) == (0, "") and lines[0] == WEATHER.read_text().split("\n", 1)[0]
    assert [line.split(",")[:2] for line in lines[1:]] == [["2013-01-02T03:00:00+00:00", "JFK"]] * 3
    assert flows("sample", "w.flows", "--given", data, "-n", 2, "-o", "given.parquet")[0] == 0
    drawn, read = pl.read_parquet(tmp_path / "given.parquet"), pl.read_csv(tmp_path / data)
    assert drawn["airport"].to_list() == np.repeat(read["airport"].to_list(), 2).tolist()
    assert str(drawn.schema["time"]) == "Datetime(time_unit='us', time_zone='UTC')"
    for asked, words in (
        ((), "give --where airport=... --where time=..."),
        (given[:2], "lacks time"),
        ((*given[:2], "--where", "rain_in=0"), "fit with --condition rain_in"),
        (("--where", "airport"), "expected COL=VALUE"),
        (("--where", "airport=XYZ", *given[2:]), "'XYZ'; expected one of 'EWR', 'JFK', 'LGA'"),
        ((*given[:2], "--where", "time=noon"), "is 'noon'; expected times"),
        ((*given, "--given", data), "expected one of them"),
    ):
        status, _, err = flows("sample", "w.flows", *asked)
        assert status == 2 and words in err, err


def test_what_columns_hold_is_guessed_from_all_values(flows, tmp_path):
    rows = [
        {
            "code": f"{n:04}",
            "whole": str(n),
            "late": f"{n}.5" if n == 150 else str(n),
            "flag": ("True", "false")[n % 2],
            "day": f"2024-01-{1 + n % 28:02}",
            "time": f"2024-01-01 {n % 24:02}:00",
            "zoned": f"2024-01-01T{n % 24:02}:00:00+02:00",
            "gaps": ("NA", " null ", "7.25", "1e3")[n % 4],
        }
        for n in range(200)
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "rows.csv")
    status, out, _ = flows("schema", "rows.csv")
    found = {column["name"]: (column["kind"], column.get("dtype")) for column in json.loads(out)["columns"]}
    assert status == 0 and found == {
        "code": ("Ignored", None),
        "whole": ("Integer", "Int64"),
        "late": ("Real", "Float64"),
        "flag": ("Category", "Boolean"),
        "day": ("DateTime", "Date"),
        "time": ("DateTime", "Datetime(time_unit='us', time_zone=None)"),
        "zoned": ("DateTime", "Datetime(time_unit='us', time_zone='UTC')"),
        "gaps": ("Category", "Float64"),
    }


def test_models_of_python_are_used_in_a_shell(flows, tmp_path):
    """Fitted to pandas, with all kinds of columns; scored from text."""
    rng, n = np.random.default_rng(0), 60
    frame = pd.DataFrame(
        {
            "code": rng.choice(["007", "010"], n),
            "flag": rng.random(n) < 0.5,
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 90, n), "D"),
            "at": pd.Timestamp("2024-01-01", tz="Europe/Berlin") + pd.to_timedelta(rng.integers(0, 5000, n), "h"),
            "size": rng.gamma(3.0, size=n),
            "level": pd.Categorical(rng.choice(["low", "high"], n)),
        }
    )
    result = tables.fit(0, frame, model=library.Normal(conditioner=library.MLP(4)), max_epochs=1, folds=1, verbose=0)
    result.save(tmp_path / "python.flows")
    frame.to_csv(tmp_path / "frame.csv", index=False)
    assert flows("score", "python.flows", "frame.csv", "-o", "scored.csv")[0] == 0
    np.testing.assert_allclose(pd.read_csv(tmp_path / "scored.csv")["log_prob"], result.log_prob(frame), rtol=1e-4)
    status, _, _ = flows("sample", "python.flows", "-n", 5, "-o", "drawn.csv")
    drawn = pl.read_csv(tmp_path / "drawn.csv", schema_overrides={"code": pl.String})
    assert status == 0 and drawn.columns == list(frame.columns) and set(drawn["code"]) <= {"007", "010"}
    assert flows("score", "python.flows", "drawn.csv", "-o", "again.csv")[0] == 0


def test_ctrl_c_saves_the_best_so_far(flows, tmp_path, monkeypatch):
    interrupting(monkeypatch, after=2)
    given = ("--model", "Gaussian", "--rows", 500, "--condition", "minute_of_day", "--no-cache", "--json")
    status, out, err = flows("fit", POWER, "-o", "half.flows", *given)
    assert status == 130 and err.endswith("flows: stopped; the best so far is in half.flows\n")
    assert tables.load(tmp_path / "half.flows").result.history.interrupted and json.loads(out)["file"] == "half.flows"


@pytest.mark.parametrize(("ahead", "written"), [(0.041, True), (-0.01, False)])
def test_the_stack_is_written_where_it_comes_first(ahead, written, flows, rows, monkeypatch, tmp_path):
    frame, error = pd.read_csv(tmp_path / rows()), np.zeros(9)
    table = tables.fit(0, frame, model=library.Normal(), max_epochs=1, folds=1, verbose=0)
    stack = as_one([table.result, table.result], np.array([0.6, 0.4]), error, 0.1, 1)
    one = Candidate("NSF", table.result.init_fun, table.result, -9.0, 0.1, (0.0, 0.0), 5, "", error, 1.0)
    both = one._replace(name="stack", result=stack, nats=-9.0 + ahead, behind=(-ahead, 0.03))
    selection = Selection((one, one._replace(name="MAF")), np.arange(9), 1, {"NSF": 0.6, "MAF": 0.4}, both)
    fitted = tables.TableResult(table.schema, selection.best, selection)
    assert fitted.result is table.result, "which Python keeps: the stack is ahead by chance"
    monkeypatch.setattr(tables, "fit", lambda *_, **__: fitted)
    status, out, err = flows("fit", rows(), "-o", "best.flows", "--no-cache")
    lead = "wrote best.flows, the stack, 0.041 +- 0.030 nats a row ahead of the best single model; "
    assert (status, lead in out) == (0, written), err
    status, out, _ = flows("fit", rows(), "-o", "best.flows", "--no-cache", "--json", "--force")
    assert json.loads(out)["stack"] == written
    assert tables.load(tmp_path / "best.flows").result.init_fun == (stack if written else table.result).init_fun
    status, out, _ = flows("show", "best.flows")
    assert (status, "a stack of 2 models" in out, "best epoch     none, as it is a stack" in out) == (0, written, written)
    assert flows("sample", "best.flows", "-n", 3, "--no-cache")[0] == 0
    assert flows("score", "best.flows", rows(), "-o", "scored.csv", "--no-cache")[0] == 0
    scores = pl.read_csv(tmp_path / "scored.csv")["log_prob"].to_numpy()
    np.testing.assert_allclose(scores, table.log_prob(frame), rtol=1e-4)  # of equal models
