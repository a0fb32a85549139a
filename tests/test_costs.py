"""What `make test` promises, by the records in costs.json; and how files are shared among processes."""

import json
from pathlib import Path

import costs
import mutants
import pytest
import shares


@pytest.fixture(scope="module")
def file():
    return json.loads(shares.COSTS.read_text())


@pytest.fixture(scope="module")
def records(file):
    tests = file["tests"]
    return {
        (name, function, case): record
        for name, functions in tests.items()
        for function, cases in functions.items()
        for case, record in cases.items()
    }


def test_quick_tests_keep_within_their_time_and_run_nearly_all_lines(file, records):
    """The lines are counted by `make costs`; a test without a record is quick, and adds to the time of none."""
    run, every = file["lines that quick tests run"]
    assert 10_000 < run <= every and run >= costs.LINES * every
    quick = [cost for cost, tier in records.values() if tier == "quick"]
    assert 1_000 < len(quick) < len(records) and sum(quick) <= costs.BUDGET
    assert shares.COSTS.stat().st_size <= 400_000


def test_every_entry_of_the_registry_has_a_quick_case_and_most_mistakes_name_a_quick_test(records):
    tests = {f"{file}::{function}[{case}]": tier for (file, function, case), (_, tier) in records.items()}
    entries, mistakes = costs.needed_by(tests)
    assert len(entries) > 150 and all(any(tests[test] == "quick" for test in of_entry) for of_entry in entries)
    alone = sum(all(tests[test] != "quick" for test in named) for named in mistakes)
    assert len(mistakes) > 800 and alone < 0.1 * len(mistakes)


def test_every_seeded_mistake_is_still_in_the_code():
    """A mistake whose text is gone is made by nobody: put it where its code is now."""
    assert [wrong for mistake in mutants.read() if (wrong := mutants.misplaced(mistake))] == []


def test_records_are_of_files_that_are_there(file):
    assert {*file["tests"]} <= {*shares.files()}


def test_no_two_files_of_tests_have_one_name():
    """pytest imports them by their name, and stops where one process has both."""
    names = [Path(file).name for file in shares.files() if file.startswith("tests/")]
    assert len(names) > 100 and len({*names}) == len(names)


@pytest.mark.parametrize("tier", ("quick", "full"))
def test_eight_processes_have_equal_shares(tier):
    of_files = shares.costs_of(tier)
    parts = shares.shares(of_files, 8)
    assert sorted(file for part in parts for file in part) == sorted(of_files)
    sums = [sum(of_files[file] for file in part) for part in parts]
    assert max(sums) <= 1.15 * sum(sums) / 8


def test_a_new_test_is_quick_wherever_it_stands(file):
    """Every file is in some share: also a new one, and one whose recorded tests are not quick."""
    tests = [{tier for cases in functions.values() for _, tier in cases.values()} for functions in file["tests"].values()]
    assert any("quick" not in tiers for tiers in tests)
    assert [*shares.costs_of("quick")] == shares.files()


def measured(folder, tests):
    """Records of tests: the seconds besides programs, the programs with their seconds, and the lines of a.py."""
    for i, (test, (besides, programs, lines)) in enumerate(tests.items()):
        record = {"test": test, "cost": besides + sum(programs.values()), "failed": False, "lines": {"a.py": lines}}
        record |= {"traced": {name: took / 2 for name, took in programs.items()}}
        record |= {"compiled": {name: took / 2 for name, took in programs.items()}}
        (folder / "tests-t.py").mkdir(exist_ok=True)
        (folder / "tests-t.py" / f"{i}.json").write_text(json.dumps(record))
    return costs.Measured(folder)


def test_tests_together_cost_what_each_does_and_every_program_once(tmp_path):
    of = measured(tmp_path, {"a": (1.0, {"p": 2.0, "q": 4.0}, [1, 2]), "b": (0.5, {"q": 4.0}, [2])})
    assert of.cost("a") == 7 and of.cost("a", {"q"}) == 3 and of.cost("b", {"q"}) == 0.5
    assert of.shared({"a", "b"}) == {"a": 5.0, "b": 2.5} and of.shared({"b"}) == {"b": 4.5}
    assert of.lines["a"].bit_count() == 2 and of.lines["b"] & of.lines["a"] == of.lines["b"]


def test_quick_tests_are_chosen_by_entries_lines_and_mistakes(tmp_path, capsys):
    """b is the entry's cheaper case; c has more new lines a second than d; e costs nothing more, as its program is there;
    mistakes name f, and g, for which there is no time."""
    a, b = "t.py::exact[a]", "t.py::exact[b]"
    tests = {
        a: (3.0, {}, [1]), b: (1.0, {"p": 1.0}, [1]), "c": (1.0, {}, [2, 3]), "d": (1.0, {}, [3]),
        "e": (0.0, {"p": 1.0}, []), "f": (2.0, {}, []), "g": (9.0, {}, []),
    }  # fmt: skip
    choice = costs.choose(measured(tmp_path, tests), [{a, b, "e"}, {b}], [{"f"}, {"g"}, {"c"}], budget=6.0)
    assert choice.tests == {b, "c", "e", "f"} and choice.total == pytest.approx(5.0, abs=0.01)
    assert choice.lines.bit_count() == 3
    assert "mistakes without a quick test: 1" in capsys.readouterr().out


def test_records_are_written_a_line_a_test():
    text = costs.written(
        {"b.py": {"f": {"": [0.1, "quick"]}}, "a.py": {"g": {"2": [1.0, "full"], "1": [2.0, "all"]}}}, {"n": [1, 2]}
    )
    assert json.loads(text) == {
        "n": [1, 2],
        "tests": {"a.py": {"g": {"1": [2.0, "all"], "2": [1.0, "full"]}}, "b.py": {"f": {"": [0.1, "quick"]}}},
    }
    assert '\n"1": [2.0, "all"],\n' in text and costs.ranges([9, 3, 4, 5]) == "3-5, 9"
    assert costs.names_of("a.py::g[1-[x]]") == ("a.py", "g", "1-[x]")
