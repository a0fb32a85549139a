"""The command as people run it: in a folder of its own, with a model of the household's power that all tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.app import run

ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "data"
POWER, WEATHER = DATA / "household_power.csv", DATA / "weather.csv"
QUICK = ("--model", "Gaussian", "--max-epochs", "2")


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Programs are kept for the next process, outside the cache of whoever runs the tests."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="session")
def start(environment):
    """Start a command as a process of its own."""

    def started(folder, *arguments, before=(), **options):
        command = [*before, sys.executable, "-m", "flows", *map(str, arguments)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=folder, env=environment, **{**pipes, **options})

    return started


@pytest.fixture(scope="session")
def shell(start):
    """The exit status, and what a command printed to stdout and to stderr."""

    def ran(folder, *arguments, **options):
        with start(folder, *arguments, **options) as process:
            out, err = process.communicate(timeout=300)
        return process.returncode, (out or b"").decode(), (err or b"").decode()

    return ran


@pytest.fixture(scope="session")
def model(shell, tmp_path_factory):
    """A model of 500 rows, by `flows fit`."""
    folder = tmp_path_factory.mktemp("model")
    status, out, err = shell(folder, "fit", POWER, "-o", "m.flows", *QUICK, "--rows", 500)
    assert status == 0 and "minute_of_day      Integer(low=0)" in out and "log-likelihood" in out, err
    assert out.endswith("wrote m.flows; no limit of time ended it: an equal run gives equal bytes\n")
    return folder / "m.flows"


@pytest.fixture
def flows(tmp_path, monkeypatch, capsys):
    """The exit status, and what a command printed, in this process."""
    monkeypatch.chdir(tmp_path)

    def ran(*arguments):
        capsys.readouterr()
        status = run([*map(str, arguments)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return ran


@pytest.fixture
def rows(tmp_path):
    """The first rows of the household's power, as a file that can be changed cell by cell; by `text` as a whole."""
    lines = POWER.read_text().splitlines()[:31]

    def written(name="rows.csv", cells=(), text=None, encoding="utf-8"):
        table = [line.split(",") for line in lines]
        for row, column, value in cells:
            table[row][column] = value
        whole = "\n".join(map(",".join, table)) + "\n" if text is None else text
        (tmp_path / name).write_bytes(whole.encode(encoding))
        return name

    return written
