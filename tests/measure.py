"""Runs each test in a process of its own, for costs.py: its CPU seconds, the programs that it asks for, the lines that it runs.

The process is forked from one that has imported the libraries and the file of the test. So what is written down does not depend
on the tests before it. Lines are those of functions of flows/; traced code runs in Python, so it counts.
"""

import importlib
import json
import os
import pkgutil
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import shares

ROOT = shares.ROOT
FOUND = ROOT / "out" / "costs"
MOST = 100.0  # seconds of the clock of a test


def folder_of(file: str) -> Path:
    """Where the records of a file's tests are: a file of JSON for each test."""
    return FOUND / file.replace("/", "-")


def import_libraries() -> None:
    """What every process of tests would import; not hypothesis, which pytest has to see first."""
    for name in ("numpyro", "pandas", "polars", "sklearn", "matplotlib.pyplot", "mpmath", "coverage", "pytest"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(["flows"], "flows."):
        if not module.name.endswith(("__main__", "blackjax")):  # blackjax starts JAX, and then nothing may be forked
            importlib.import_module(module.name)


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


def ends(process: int) -> bool:
    """Wait for a process; end it where it takes longer than MOST seconds, and say so."""
    until = time.monotonic() + MOST
    while not os.waitpid(process, os.WNOHANG)[0]:
        if time.monotonic() > until:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return False
        time.sleep(0.005)
    return True


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

        if len(session.items) == 1:
            self.record(session.items[0])
        elif xla_bridge._backends:  # by what the file does when it is imported: then nothing may be forked
            self.left = [item.nodeid for item in session.items]
        else:  # polars hangs in a process that was forked after it started threads, as importing a file may do
            self.left = [item.nodeid for item in session.items if not ends(forked(lambda item=item: self.record(item)))]
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
        folder = folder_of(file)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        left = folder / "left"
        os.waitpid(forked(lambda: left.write_text(json.dumps(run(file, folder))) and None), 0)
        for test in json.loads(left.read_text()):
            if not ends(forked(lambda test=test: run(test, folder) and None)):
                print(f"{test} takes more than {MOST} s, and has no record")
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
