"""How programs are made while tests and doctests run, and which tests run: those of a tier, by `tests/costs.json`."""

import ctypes
import gc
import json
import resource
from pathlib import Path

import jax
import pytest
from shares import COSTS, TIERS, names_of

import flows
from flows.training.loop import trainer

# Compiling is most of the time of tests, and each program runs a few times.
jax.config.update("jax_disable_most_optimizations", True)
trainer.SMALL = -1  # so that `fit` does not ask for more
jax.config.update("jax_traceback_in_locations_limit", 0)  # nobody reads where in the source a program comes from
# Tracing makes many objects that live on; looking for cycles among them all is a tenth of the time.
gc.freeze()
gc.set_threshold(200_000, 20, 20)


def pytest_addoption(parser):
    told = "the tests of `make test`, of `make test-full` (the default) or of `make test-all`"
    parser.addoption("--tier", choices=TIERS, default="full", help=told)


def pytest_collection_modifyitems(config, items):
    """Leave out what is of a higher tier. A test that is marked slow is of the highest; one without a record is quick."""
    highest = TIERS.index(config.getoption("--tier"))
    tests = json.loads(COSTS.read_text())["tests"]

    def tier_of(item):
        if item.get_closest_marker("slow"):
            return "all"
        file, function, case = names_of(item.nodeid)
        return tests.get(file, {}).get(function, {}).get(case, (0, "quick"))[1]

    runs = [TIERS.index(tier_of(item)) <= highest for item in items]
    config.hook.pytest_deselected(items=[item for item, run in zip(items, runs, strict=True) if not run])
    items[:] = [item for item, run in zip(items, runs, strict=True) if run]


# Bytes of a process, so that two of them need less than 4 GB. Such a process has about 6,000 mappings of the 65,530 that Linux
# gives it, a few for each program.
_memory = {"most": 1.7 * 2**30}


def pytest_runtest_teardown():
    """Forget all programs where they take much memory, and give it back to the system."""
    if _resident() > _memory["most"]:
        jax.clear_caches()
        flows.clear_caches()
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps what is free otherwise
        if trim is not None:
            trim(0)
        _memory["most"] = max(_memory["most"], _resident() + 2**29)  # else it would be every test


def _resident():
    """Bytes of memory that this process has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


@pytest.fixture(autouse=True)
def promotion(request):
    """Doctests run with JAX's usual promotion, as users' programs do; tests/conftest.py has strict rules."""
    if isinstance(request.node, pytest.DoctestItem):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            yield
    else:
        yield
