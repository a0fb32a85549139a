"""Runs each test in a process of its own, for costs.py: its CPU seconds, the programs that it asks for, the lines that it runs.

The process is forked from one that has imported the libraries and the file of the test. So what is written down does not depend
on the tests before it. Lines are those of functions of flows/; traced code runs in Python, so it counts.
What several tests share is counted once: programs, fixtures of a module or of the session, and cached functions of test files.
"""

import contextlib
import functools
import importlib
import json
import os
import pkgutil
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import shares

ROOT = shares.ROOT
FOUND = ROOT / "out" / "costs"
BEFORE = "before.json"  # beside the records of a file's tests: what was compiled when it was measured before
RAISED = 2  # as pytest ends where it cannot begin
MOST = 100.0  # seconds of the clock of a test


def folder_of(file: str) -> Path:
    """Where the records of a file's tests are: a file of JSON for each test."""
    return FOUND / file.replace("/", "-")


def import_libraries() -> None:
    """What every process of tests would import; not hypothesis, which pytest has to see first, and not polars or flows."""
    for name in ("numpyro", "pandas", "sklearn.ensemble", "matplotlib.pyplot", "mpmath", "coverage", "optax", "typer", "rich"):
        importlib.import_module(name)


def import_flows() -> None:
    """All modules of flows, and polars, of which some need it."""
    importlib.import_module("polars")
    for module in pkgutil.walk_packages(["flows"], "flows."):
        if not module.name.endswith(("__main__", "blackjax")):  # blackjax starts JAX, and then nothing may be forked
            importlib.import_module(module.name)


def spent() -> float:
    """CPU seconds of this process, and of those that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def forked(function: Callable[[], None]) -> int:
    """The number of a process that runs a function and ends; its status is RAISED where that raises."""
    if not (process := os.fork()):
        status = RAISED
        try:
            function()
            status = 0
        except BaseException:  # which must not go on in what is a copy of the caller
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return process


def ended(process: int, seconds: float = MOST) -> int | None:
    """The exit status of a process, or None: it took longer than so many seconds, and was ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        number, status = os.waitpid(process, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):  # no group of its own
        os.killpg(process, signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


class Shared:
    """What a process makes that others can use: the seconds to trace each program, and to compile it where it was new.

    Fixtures and cached functions stand among the programs, with the seconds besides the programs that they ask for.
    """

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

    def seconds(self) -> float:
        return sum(self.traced.values()) + sum(self.compiled.values())

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[None]:
        """What is done here is made once."""
        before, began = self.seconds(), spent()
        yield
        self.traced[name] = max(spent() - began - (self.seconds() - before), 0.0)

    def cached(self, function: Callable) -> Callable:
        """`functools.cache`."""

        def make(*args: Any, **keywords: Any) -> Any:
            with self.making(f"{function.__module__}.{function.__qualname__}{args, keywords}"):
                return function(*args, **keywords)

        return functools.update_wrapper(functools.lru_cache(maxsize=None)(make), function)


class Recorder:
    """A plugin of pytest that runs each test in a process of its own, and writes down its costs and the lines that it runs."""

    def __init__(self, folder: Path):
        self.folder, self.left, self.failed, self.shared = folder, list[str](), False, Shared()
        functools.cache = self.shared.cached  # before the file of tests is imported

    def pytest_runtestloop(self, session: Any) -> bool:
        from jax._src import xla_bridge

        if len(session.items) == 1:
            self.record(session.items[0])
        elif xla_bridge._backends:  # by what the file does when it is imported: then nothing may be forked
            self.left = [item.nodeid for item in session.items]
        else:
            for i, item in enumerate(session.items):
                if ended(forked(lambda item=item: self.record(item))) is None:
                    # polars hangs in a process that was forked after it started threads, as importing a file may do
                    self.left = [each.nodeid for each in session.items[i:]]
                    break
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
        if fixturedef.scope == "function":
            return (yield)
        with self.shared.making(f"{fixturedef.baseid}::{fixturedef.argname}[{request.param_index}]"):
            return (yield)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed |= report.failed

    def record(self, item: Any) -> None:
        import coverage

        lines = coverage.Coverage(data_file=None, source=[str(ROOT / "flows")], config_file=False)
        lines.set_option("run:disable_warnings", ["no-data-collected"])  # a test may do all in another process
        lines.start()
        began = spent()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        cost = spent() - began
        lines.stop()
        data = lines.get_data()
        found = {str(Path(file).relative_to(ROOT)): sorted(data.lines(file)) for file in data.measured_files()}
        told = {"test": item.nodeid, "cost": cost, "failed": self.failed, "lines": found}
        told |= {"traced": self.shared.traced, "compiled": self.shared.compiled}
        path = self.folder / f"{time.monotonic_ns()}.json"
        path.write_text(json.dumps(told))


def run(what: str, folder: Path) -> list[str]:
    """Run a file, or a test; returns the tests that need a process each before the file is imported."""
    recorder = Recorder(folder)
    options = ["-q", "--tier", "full", "-p", "no:cacheprovider", "--basetemp", str(folder / "temporary"), "--doctest-modules"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what was imported before the fork
    pytest.main([str(ROOT / what), *options], plugins=[recorder])
    return recorder.left


def measure(files: Iterable[str], jobs: int) -> None:
    """Run each test of files in a process of its own, `jobs` files at a time."""

    def of_file(file: str) -> None:
        folder, compiled = folder_of(file), dict[str, float]()
        for path in folder.glob("*.json"):  # as what is in the cache is not compiled again
            compiled |= json.loads(path.read_text())["compiled"]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / BEFORE).write_text(json.dumps({"compiled": compiled}))
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        left = folder / "left"
        os.waitpid(forked(lambda: left.write_text(json.dumps(run(file, folder))) and None), 0)
        for test in json.loads(left.read_text()):
            if ended(forked(lambda test=test: run(test, folder) and None)) is None:
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
