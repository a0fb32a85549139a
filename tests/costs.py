"""What every test and doctest costs, and which tests are quick: measures, chooses, and writes tests/costs.json (`make costs`).

    python tests/costs.py                     # 45 minutes of two cores
    python tests/costs.py --only tests/cli    # these files again; the other records stay
    python tests/costs.py --choose            # chooses again from what was measured last

Each test runs in a process of its own, forked from one that has imported the libraries and its file: so what it costs and the
lines of functions of flows/ that it runs do not depend on the tests before it (traced code runs in Python, so it counts). It
writes down the programs that it asks for, and what it takes to trace and compile each. Tests together cost what each does
besides, and every program once.

Quick is one case of each entry of the registry, by the function that runs the most lines; then as many tests as it takes to run
LINES of the lines that all tests run, the most new lines a second first; then every test that adds at most CHEAP seconds; then
those that most seeded mistakes name; within BUDGET. A test is in `make test-all` alone where it is marked slow, or recorded so.
"""

import argparse
import importlib
import json
import os
import pkgutil
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import shares

ROOT = shares.ROOT
FILE, FOUND = ROOT / "tests" / "costs.json", ROOT / "out" / "costs"
CHEAP, LINES, BUDGET = 0.05, 0.98, 430.0  # CPU seconds of a test; a share; CPU seconds of all quick tests
MOST = 100.0  # seconds of the clock of a test
Tests = dict[str, dict[str, dict[str, list]]]  # by file, function and case: CPU seconds and the tier


def spent() -> float:
    """CPU seconds of this process, and of those that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def forked(function: Callable[[], None]) -> int:
    """The number of a process that runs a function and ends."""
    if not (process := os.fork()):
        function()
        sys.stdout.flush()
        os._exit(0)
    return process


class Programs:
    """The programs that a process asks for, and the seconds that it took to trace each, and to compile it where it was new."""

    def __init__(self) -> None:
        import jax
        from jax._src import compilation_cache

        self.traced, self.compiled = dict[str, float](), dict[str, float]()
        self.tracing, self.new = 0.0, ""
        jax.monitoring.register_event_duration_secs_listener(self.add)
        self.get = compilation_cache.get_executable_and_time
        compilation_cache.get_executable_and_time = self.asked

    def add(self, event: str, seconds: float, **_: Any) -> None:
        if event.endswith(("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration")):
            self.tracing += seconds
        if event.endswith("backend_compile_duration") and self.new:
            self.compiled[self.new] = seconds

    def asked(self, key: str, *rest: Any) -> Any:
        found = self.get(key, *rest)
        self.traced[key], self.tracing, self.new = self.tracing, 0.0, key if found[0] is None else ""
        return found


class Recorder:
    """A plugin of pytest that runs each test in a process of its own, and writes down its costs and the lines that it runs."""

    def __init__(self, folder: Path):
        self.folder, self.left, self.failed = folder, list[str](), False

    def pytest_runtestloop(self, session: Any) -> bool:
        from jax._src import xla_bridge

        if xla_bridge._backends:  # by what a file does when it is imported: then nothing may be forked
            if len(session.items) == 1:
                self.record(session.items[0])
            else:
                self.left = [item.nodeid for item in session.items]
            return True
        for item in session.items:
            process = forked(lambda item=item: self.record(item))
            until = time.monotonic() + MOST
            while not (ended := os.waitpid(process, os.WNOHANG)[0]) and time.monotonic() < until:
                time.sleep(0.005)
            if not ended:  # polars hangs in a process that was forked after it started threads, as importing a file may do
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                self.left.append(item.nodeid)
        return True

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed |= report.failed

    def record(self, item: Any) -> None:
        import coverage

        programs, lines = Programs(), coverage.Coverage(data_file=None, source=[str(ROOT / "flows")], config_file=False)
        lines.start()
        began = spent()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        cost = spent() - began
        lines.stop()
        data = lines.get_data()
        found = {str(Path(file).relative_to(ROOT)): sorted(data.lines(file)) for file in data.measured_files()}
        told = {"test": item.nodeid, "cost": cost, "failed": self.failed, "lines": found}
        told |= {"traced": programs.traced, "compiled": programs.compiled}
        path = self.folder / f"{time.monotonic_ns()}.json"
        path.write_text(json.dumps(told))


def run(what: str, folder: Path) -> list[str]:
    """Run a file, or a test; returns the tests that need a process each before the file is imported."""
    import pytest

    recorder = Recorder(folder)
    options = ["-q", "--tier", "full", "-p", "no:cacheprovider", "--basetemp", str(folder / "temporary"), "--doctest-modules"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what was imported before the fork
    pytest.main([str(ROOT / what), *options], plugins=[recorder])
    return recorder.left


def measure(files: Iterable[str], jobs: int) -> None:
    """Run each test of files in a process of its own, `jobs` files at a time."""

    def of_file(file: str) -> None:
        folder = FOUND / file.replace("/", "-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        left = folder / "left"
        os.waitpid(forked(lambda: left.write_text(json.dumps(run(file, folder))) and None), 0)
        for test in json.loads(left.read_text()):
            os.waitpid(forked(lambda test=test: run(test, folder) and None), 0)
        shutil.rmtree(folder / "temporary", ignore_errors=True)

    import jax

    jax.config.update("jax_compilation_cache_dir", str(FOUND / "cache"))
    running, begun = 0, time.monotonic()
    for i, file in enumerate(files):
        if running == jobs:
            os.wait()
            running -= 1
        print(f"{time.monotonic() - begun:5.0f} s: {i}, {file}", flush=True)
        forked(lambda file=file: of_file(file))
        running += 1
    for _ in range(running):
        os.wait()


def names_of(test: str) -> tuple[str, str, str]:
    """File, function and case."""
    file, _, name = test.partition("::")
    function, _, case = name.partition("[")
    return file, function, case.removesuffix("]")


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
        self.besides, self.lines = dict[str, float](), dict[str, int]()
        bits = dict[tuple[str, int], int]()
        for each in found:
            for program, seconds in each["traced"].items():
                traced[program] = min(seconds, traced.get(program, seconds))
            compiled |= each["compiled"]
            own = each["cost"] - sum(each["traced"].values()) - sum(each["compiled"].values())
            self.besides[each["test"]] = max(own, 0.001)
            mine = {bits.setdefault((file, line), len(bits)) for file, lines in each["lines"].items() for line in lines}
            self.lines[each["test"]] = sum(1 << bit for bit in mine)
        self.seconds = {program: seconds + compiled.get(program, 0.0) for program, seconds in traced.items()}
        self.places = list(bits)

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

    def __init__(self, measured: Measured):
        self.measured = measured
        self.tests, self.programs, self.lines, self.total = set[str](), set[str](), 0, 0.0
        self.rest = {*measured.besides}

    def take(self, test: str) -> None:
        self.total += self.measured.cost(test, self.programs)
        self.programs |= self.measured.programs[test]
        self.lines |= self.measured.lines[test]
        self.tests.add(test)
        self.rest.remove(test)

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
    choice, told = Choice(measured), list[str]()
    every = 0
    for lines in measured.lines.values():
        every |= lines

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
        if not choice.take_best(lambda test: (measured.lines[test] & ~choice.lines).bit_count(), budget):
            break
    tell("lines")
    for test in sorted(choice.rest, key=measured.cost):
        cost = measured.cost(test, choice.programs)
        if cost <= CHEAP and choice.total + cost <= budget:
            choice.take(test)
    tell("cheap ones")
    while choice.take_best(lambda test: sum(test in tests and not tests & choice.tests for tests in of_mistakes), budget):
        pass
    tell("mistakes")
    print(
        *told, f"mistakes without a quick test: {sum(not tests & choice.tests for tests in of_mistakes)}", sep="\n", flush=True
    )
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
            rows = [
                f"   {json.dumps(case, ensure_ascii=False)}: {json.dumps(record)}" for case, record in sorted(cases.items())
            ]
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


def import_libraries() -> None:
    """What every process of tests would import; not hypothesis, which pytest has to see first."""
    for name in ("numpyro", "pandas", "polars", "sklearn", "matplotlib.pyplot", "mpmath", "coverage", "pytest"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(["flows"], "flows."):
        if not module.name.endswith(
            ("__main__", "blackjax")
        ):  # the library blackjax starts JAX, and then nothing may be forked
            importlib.import_module(module.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="files or folders that are measured again")
    parser.add_argument("--choose", action="store_true", help="measure nothing again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    before: Tests = json.loads(FILE.read_text())["tests"] if FILE.exists() else {}
    if not options.choose:
        import_libraries()
        files = [file for file in shares.files() if not options.only or file.startswith(tuple(options.only))]
        measure(files, options.jobs)
    measured = Measured()
    choice = choose(measured, *needed_by(measured.besides))
    tests: Tests = {}
    for file, functions in before.items():
        for function, cases in functions.items():
            slow = {case: record for case, record in cases.items() if record[1] == "all"}
            if slow and (ROOT / file).exists() and function in (ROOT / file).read_text():
                tests.setdefault(file, {})[function] = slow
    costs = measured.shared(measured.besides) | measured.shared(choice.tests)
    for test, cost in costs.items():
        file, function, case = names_of(test)
        tests.setdefault(file, {}).setdefault(function, {})[case] = [
            round(cost, 2),
            "quick" if test in choice.tests else "full",
        ]
    every, missed = 0, dict[str, list[int]]()
    for lines in measured.lines.values():
        every |= lines
    for bit, (file, line) in enumerate(measured.places):
        if (every & ~choice.lines) >> bit & 1:
            missed.setdefault(file, []).append(line)
    summary = {
        "lines that quick tests run": [choice.lines.bit_count(), every.bit_count()],
        "others": {file: ranges(numbers) for file, numbers in sorted(missed.items())},
    }
    FILE.write_text(written(tests, summary))
    print(*(f"fails: {test}" for test in measured.failed), sep="\n")


if __name__ == "__main__":
    main()
