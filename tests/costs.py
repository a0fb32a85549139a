"""What every test and doctest costs, and which tests are quick: measures, chooses, and writes tests/costs.json (`make costs`).

    python tests/costs.py                     # 45 minutes of two cores
    python tests/costs.py --only tests/cli    # these files again; the others as they were measured last
    python tests/costs.py --choose            # chooses again from what was measured last

measure.py runs each test by itself, and writes down the programs that it asks for, and what it takes to trace and compile each.
Tests together cost what each does besides, and every program once.

Quick is one case of each entry of the registry, by the function that runs the most lines; then as many tests as it takes to run
LINES of the lines that all tests run, the most new lines a second first, where a seeded mistake that names the test is WORTH
some lines; then every test that adds at most CHEAP seconds; then those that most mistakes name; within BUDGET. A test is in
`make test-all` alone where it is marked slow, or recorded so.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import shares
from measure import BEFORE, FOUND, folder_of, import_flows, import_libraries, measure
from shares import COSTS, ROOT, names_of

CHEAP, LINES, BUDGET = 0.05, 0.98, 525.0  # CPU seconds of a test; a share; CPU seconds of all quick tests
WORTH = 4  # lines
FREE = 0.01  # CPU seconds of a quick test that needs no record, as a test without one is quick
Tests = dict[str, dict[str, dict[str, list]]]  # by file, function and case: CPU seconds and the tier


class Measured:
    """All tests as they were measured.

    Attributes:
        programs: the programs of each test.
        seconds: what it takes to trace and compile each program.
        besides: the CPU seconds of each test without its programs.
        lines: the lines that each test runs, as the bits of a number; `places` are files and lines by bit.
        failed: tests that failed.
    """

    def __init__(self, folder: Path = FOUND):
        found = [json.loads(path.read_text()) for path in sorted(folder.glob("*/*[0-9].json"))]
        self.failed = [each["test"] for each in found if each["failed"]]
        self.programs = {each["test"]: {*each["traced"]} for each in found}
        traced, compiled = dict[str, float](), dict[str, float]()
        for path in folder.glob(f"*/{BEFORE}"):
            compiled |= json.loads(path.read_text())["compiled"]
        self.besides, self.lines = dict[str, float](), dict[str, int]()
        bits = dict[tuple[str, int], int]()
        for each in found:
            for program, seconds in each["traced"].items():
                traced[program] = min(seconds, traced.get(program, seconds))
            compiled |= each["compiled"]
            own = each["cost"] - sum(each["traced"].values()) - sum(each["compiled"].values())
            self.besides[each["test"]] = max(own, 0.001)
            run = {file: lines for file, lines in each["lines"].items() if folder != FOUND or (ROOT / file).exists()}
            mine = {bits.setdefault((file, line), len(bits)) for file, lines in run.items() for line in lines}
            self.lines[each["test"]] = sum(1 << bit for bit in mine)
        self.seconds = {program: seconds + compiled.get(program, 0.0) for program, seconds in traced.items()}
        self.places = list(bits)
        self.every = (1 << len(bits)) - 1  # the lines that all tests run

    def cost(self, test: str, made: Iterable[str] = ()) -> float:
        """CPU seconds of a test where some programs are made."""
        return self.besides[test] + sum(self.seconds[program] for program in self.programs[test].difference(made))

    def shared(self, tests: Iterable[str]) -> dict[str, float]:
        """CPU seconds of tests that run together, each with its part of the programs that several ask for."""
        users = Counter(program for test in tests for program in self.programs[test])
        return {
            test: self.besides[test] + sum(self.seconds[program] / users[program] for program in self.programs[test])
            for test in tests
        }


class Choice:
    """Quick tests, chosen one after the other: the programs that they make, their lines and their CPU seconds."""

    def __init__(self, measured: Measured, of_mistakes: list[set[str]]):
        self.measured = measured
        self.notices = dict[str, set[int]]()  # mistakes by test
        for i, tests in enumerate(of_mistakes):
            for test in tests:
                self.notices.setdefault(test, set()).add(i)
        self.unnoticed = {i for i, tests in enumerate(of_mistakes) if tests}
        self.tests, self.programs, self.lines, self.total = set[str](), set[str](), 0, 0.0
        self.rest = {*measured.besides}

    def take(self, test: str) -> None:
        self.total += self.measured.cost(test, self.programs)
        self.programs |= self.measured.programs[test]
        self.lines |= self.measured.lines[test]
        self.unnoticed -= self.notices.get(test, set())
        self.tests.add(test)
        self.rest.remove(test)

    def mistakes(self, test: str) -> int:
        """How many mistakes name this test, and none that is chosen."""
        return len(self.unnoticed & self.notices.get(test, set()))

    def take_best(self, worth: Callable[[str], float], budget: float = BUDGET) -> bool:
        """Take the test that is worth most a second, if there is time for it; False where none is worth anything."""
        best, most = "", 0.0
        for test in sorted(self.rest):
            if gain := worth(test):
                cost = self.measured.cost(test, self.programs)
                if gain / cost > most and self.total + cost <= budget:
                    best, most = test, gain / cost
        if best:
            self.take(best)
        return bool(best)


def choose(measured: Measured, of_entries: list[set[str]], of_mistakes: list[set[str]], budget: float = BUDGET) -> Choice:
    """The quick tests. Of the tests of each entry one is quick, and of those that each mistake names, if there is time."""
    choice, told = Choice(measured, of_mistakes), list[str]()
    every = measured.every

    def tell(what: str) -> None:
        told.append(
            f"{what}: {len(choice.tests)} tests, {choice.total:.0f} s, {choice.lines.bit_count() / every.bit_count():.2%}"
        )

    for tests in of_entries:
        # The function that runs the most lines is the one that shows whether the entry is right.
        function = names_of(max(sorted(tests), key=lambda test: measured.lines[test].bit_count()))[:2]
        cases = [test for test in sorted(tests) if names_of(test)[:2] == function and test not in choice.tests]
        if cases and not any(names_of(test)[:2] == function for test in tests & choice.tests):
            choice.take(min(cases, key=lambda test: measured.cost(test, choice.programs)))
    tell("entries")
    while choice.lines.bit_count() < LINES * every.bit_count():
        if not choice.take_best(
            lambda test: (measured.lines[test] & ~choice.lines).bit_count() + WORTH * choice.mistakes(test), budget
        ):
            break
    tell("lines")
    for test in sorted(choice.rest, key=measured.cost):
        cost = measured.cost(test, choice.programs)
        if cost <= CHEAP and choice.total + cost <= budget:
            choice.take(test)
    tell("cheap ones")
    while choice.take_best(choice.mistakes, budget):
        pass
    tell("mistakes")
    print(*told, f"mistakes without a quick test: {len(choice.unnoticed)}", sep="\n", flush=True)
    return choice


READ_REGISTRY = """
import json, registry
print(json.dumps([name for table in vars(registry) if table.isupper() for name in getattr(registry, table)]))
"""


def entries() -> list[str]:
    """The names in the registry, read in another process: its models start JAX, and then nothing may be forked."""
    command = [sys.executable, "-c", READ_REGISTRY]
    told = subprocess.run(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(told)


def needed_by(tests: Iterable[str]) -> tuple[list[set[str]], list[set[str]]]:
    """For each entry of the registry the tests of a case of it, and for each seeded mistake the tests that it names."""
    import mutants
    from _pytest.mark.expression import Expression

    tests = [*tests]
    of_entries = [{test for test in tests if re.match(rf"{re.escape(entry)}(-|$)", names_of(test)[2])} for entry in entries()]
    by_file: dict[str, list[str]] = {}
    for test in tests:
        by_file.setdefault(Path(names_of(test)[0]).name, []).append(test)

    def selects(select: str) -> Callable[[str], bool]:
        if "[" in select:
            return lambda test: test.partition("::")[2] == select
        expression = Expression.compile(select)
        return lambda test: expression.evaluate(lambda word, **_: word.lower() in test.rpartition("/")[2].lower())

    of_mistakes = [set(filter(selects(each.select), by_file.get(each.tests, []))) for each in mutants.read()]
    return [*filter(None, of_entries)], [*filter(None, of_mistakes)]


def written(tests: Tests, summary: dict[str, Any]) -> str:
    """JSON with a line for each test."""
    lines = [f'"{name}": {json.dumps(value)},' for name, value in summary.items()]
    files = []
    for file, functions in sorted(tests.items()):
        of_file = []
        for function, cases in sorted(functions.items()):
            rows = [f"{json.dumps(case, ensure_ascii=False)}: {json.dumps(record)}" for case, record in sorted(cases.items())]
            of_file.append(f"  {json.dumps(function)}: {{\n" + ",\n".join(rows) + "}")
        files.append(f" {json.dumps(file)}: {{\n" + ",\n".join(of_file) + "}")
    return "{" + "\n".join(lines) + '\n"tests": {\n' + ",\n".join(files) + "}}\n"


def ranges(lines: Iterable[int]) -> str:
    """Line numbers as "3-5, 9"."""
    runs = list[list[int]]()
    for line in sorted(lines):
        if runs and runs[-1][1] == line - 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="files or folders that are measured again")
    parser.add_argument("--choose", action="store_true", help="measure nothing again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    before: Tests = json.loads(COSTS.read_text())["tests"] if COSTS.exists() else {}
    if not options.choose:
        import_libraries()
        import_flows()
        files = [file for file in shares.files() if not options.only or file.startswith(tuple(options.only))]
        measure(files, options.jobs)
    missing = [file for file in shares.files() if not folder_of(file).exists()]
    if missing:
        raise SystemExit(f"{len(missing)} files, such as {missing[0]}, are not measured yet. Run python tests/costs.py for all")
    measured = Measured()
    of_entries, of_mistakes = needed_by(measured.besides)
    choice, kept = choose(measured, of_entries, of_mistakes), set().union(*of_entries)
    tests: Tests = {}
    for file, functions in before.items():
        for function, cases in functions.items():
            slow = {case: record for case, record in cases.items() if record[1] == "all"}
            if slow and (ROOT / file).exists() and function in (ROOT / file).read_text():
                tests.setdefault(file, {})[function] = slow
    costs = measured.shared(measured.besides) | measured.shared(choice.tests)
    for test, cost in costs.items():
        if cost < FREE and test in choice.tests - kept:
            continue
        file, function, case = names_of(test)
        tests.setdefault(file, {}).setdefault(function, {})[case] = [
            round(cost, 2),
            "quick" if test in choice.tests else "full",
        ]
    every, missed = measured.every, dict[str, list[int]]()
    for bit, (file, line) in enumerate(measured.places):
        if (every & ~choice.lines) >> bit & 1:
            missed.setdefault(file, []).append(line)
    summary = {
        "lines that quick tests run": [choice.lines.bit_count(), every.bit_count()],
        "others": {file: ranges(numbers) for file, numbers in sorted(missed.items())},
    }
    COSTS.write_text(written(tests, summary))
    if measured.failed:
        raise SystemExit("\n".join(f"{test} fails" for test in measured.failed))


if __name__ == "__main__":
    main()
