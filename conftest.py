"""How programs are made while tests and doctests run, and which tests run: those of a tier, by `tests/costs.json`."""

import gc
import json
from pathlib import Path

import jax
import pytest

from flows.training.loop import trainer

# Compiling is most of the time of tests, and each program runs a few times.
jax.config.update("jax_disable_most_optimizations", True)
trainer.SMALL = -1  # so that `fit` does not ask for more
jax.config.update("jax_traceback_in_locations_limit", 0)  # nobody reads where in the source a program comes from
# Tracing makes many objects that live on; looking for cycles among them all is a tenth of the time.
gc.freeze()
gc.set_threshold(200_000, 20, 20)


COSTS = Path(__file__).parent / "tests" / "costs.json"
TIERS = ("quick", "full", "all")  # of `make test`, `make test-full` and `make test-all`


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
        file, _, name = item.nodeid.partition("::")
        function, _, case = name.partition("[")
        return tests.get(file, {}).get(function, {}).get(case.removesuffix("]"), (0, "quick"))[1]

    runs = [TIERS.index(tier_of(item)) <= highest for item in items]
    config.hook.pytest_deselected(items=[item for item, run in zip(items, runs, strict=True) if not run])
    items[:] = [item for item, run in zip(items, runs, strict=True) if run]


@pytest.fixture(autouse=True)
def promotion(request):
    """Doctests run with JAX's usual promotion, as users' programs do; tests/conftest.py has strict rules."""
    if isinstance(request.node, pytest.DoctestItem):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            yield
    else:
        yield
