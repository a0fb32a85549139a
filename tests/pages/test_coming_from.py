"""The page for those who know another library: programs, what they printed, and whose each name is."""

import ast
import json
import re
import runpy
from pathlib import Path

import pytest

from flows.elsewhere import CALLED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "coming_from.md").read_text()
PROGRAMS = {path.stem: path for path in (ROOT / "docs" / "coming_from").glob("*.py")}
FOUND = json.loads((ROOT / "benchmarks" / "results" / "coming_from.json").read_text())


@pytest.fixture(scope="module")
def coming_from():
    return runpy.run_path(str(ROOT / "docs" / "coming_from.py"))["coming_from"]


def test_each_program_was_run_and_is_on_the_page(coming_from):
    assert PROGRAMS.keys() == FOUND.keys() - {"parity"} and len(PROGRAMS) == 6
    for name, path in PROGRAMS.items():
        assert f'{{{{ coming_from("{name}") }}}}' in PAGE
        assert (path.read_text() if name != "flows" else "data/galaxies.csv") in coming_from(name)
        if name != "flows":
            assert f"It printed `{FOUND[name]['printed']}`." in coming_from(name) and PROGRAMS[
                "flows"
            ].read_text() in coming_from(name)
    assert coming_from("flows").startswith("```python\n") and "examples/" not in coming_from("flows")
    assert all(f'{{{{ coming_from("{table}") }}}}' in PAGE for table in ("scores", "agree", "words"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_has_at_most_thirty_lines_and_fits_a_page(name):
    text = PROGRAMS[name].read_text()
    imported = sum(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(text).body)
    lines = [line for line in text.split("\n") if line]
    assert len(lines) - imported <= 30 and max(map(len, lines)) <= 88


def test_no_score_is_typed_and_the_best_comes_first(coming_from):
    rows = coming_from("scores").split("\n\n")[0].split("\n")[2:]
    scores = [float(row.split(" | ")[1]) for row in rows]
    assert len(rows) == len(PROGRAMS) and scores == sorted(scores, reverse=True)
    assert not re.search(r"\d\.\d", PAGE.replace("0.0.1", "")), "figures come from benchmarks/results/coming_from.json"


def test_both_libraries_compute_the_same_density(coming_from):
    fixtures = {path.stem for path in (ROOT / "tests" / "fixtures" / "parity").glob("*.json")} - {"normflows"}
    assert FOUND["parity"].keys() == fixtures and all(each["difference"] < 1e-12 for each in FOUND["parity"].values())
    assert all(f"{each['theirs']:.9f} | {each['ours']:.9f}" in coming_from("agree") for each in FOUND["parity"].values())


def test_each_word_says_whose_it_is(coming_from):
    rows = coming_from("words").split("\n")[2:]
    assert len(rows) == len([whose for whose, _ in CALLED.values() if not whose.startswith("flows")])
    assert "| `Chain` | flowjax, distrax, TFP, bijx, pzflow | `flows.Serial` |" in rows
    assert "| `DiagGaussian` | normflows | `flows.Normal()`, with params `flows.Normal(trainable=True)` |" in rows
