"""A layer is added in three places: its file, the list of public names, the registry. A kind of column in its file and the two
lists of kinds. A library to work with in its file, the table of libraries, the extras. Here all are done in a copy of the tree.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIJECTION = '''"""A scale and a turn of the sign. Family: Scales and norms."""

import jax.numpy as jnp

from flows.core import bijection


@bijection
def Opposite():
    """The opposite of each entry, scaled: y_i = -exp(log_scale_i) x_i, log|det J| = sum(log_scale).

    Cost:
        Direct: O(d). Inverse: O(d).

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Opposite()(0, 2)
        >>> direct_fun(params, jnp.ones((1, 2)))[0].tolist()
        [[-1.0, -1.0]]
    """

    def init_fun(rng, shape):
        return {"log_scale": jnp.zeros(shape)}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return -x * jnp.exp(params["log_scale"]), params["log_scale"].sum()

    def inverse_fun(params, y):
        return -y * jnp.exp(-params["log_scale"])

    return init_fun
'''
DISTRIBUTION = '''"""The Gumbel distribution. Family: Numbers."""

import jax
import jax.numpy as jnp

from flows.core import distribution


@distribution
def Extreme():
    """Independent Gumbel entries: log p(x) = -sum(x + exp(-x)), in nats.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.Extreme()(0, 1)
        >>> log_pdf(params, jnp.zeros((1, 1))).tolist()
        [-1.0]
    """

    def init_fun(rng, shape):
        def log_pdf(params, x):
            return -(x + jnp.exp(-x)).sum()

        def sample(rng, params):
            return jax.random.gumbel(rng, shape, float)

        return {}, log_pdf, sample

    return init_fun
'''
TRANSFORMER = '''"""A bounded scale. Family: Affine."""

import jax.numpy as jnp

from flows.core import soft_clip
from flows.transformers.base import transformer


@transformer
def Rescale():
    """A scale: y = x exp(s), s = 2 tanh(theta[0] / 2), log dy/dx = s.

    Example:
        >>> import flows
        >>> flows.transformers.Rescale().num_params
        1
    """

    def direct(theta, x):
        s = soft_clip(theta[0], 2.0)
        return x * jnp.exp(s), jnp.broadcast_to(s, x.shape)

    def inverse(theta, y):
        s = soft_clip(theta[0], 2.0)
        return y * jnp.exp(-s), jnp.broadcast_to(-s, y.shape)

    return 1, direct, inverse
'''
KIND = '''"""Days of the week."""

from dataclasses import dataclass
from typing import Any

from flows.tables.kinds.base import one_of_values
from flows.tables.kinds.category import Codes


@dataclass(frozen=True, repr=False)
class Weekday(Codes):
    """A day of the week, 0 to 6, from Monday on.

    Example:
        >>> from flows import tables
        >>> tables.Weekday()
        Weekday()
    """

    values = tuple(range(7))

    def expected(self, name: str, field: Any, value: Any) -> tuple[str, str]:
        return one_of_values(self.values), "Correct it"
'''
USED = """
import numpy as np, pandas as pd
from flows import tables
from flows.tables.fit import joined

frame = pd.DataFrame({"day": [6, 0, 3, 3]})
schema = tables.Schema({"day": tables.Weekday()}).fitted(frame)
assert schema.encode(frame).ravel().tolist() == [6, 0, 3, 3]
pd.testing.assert_frame_equal(schema.decode(schema.encode(frame)), frame)
assert tables.Schema.from_json(schema.to_json()) == schema
params, log_pdf, sample = joined(schema)(0, 1)
np.testing.assert_allclose(np.exp(log_pdf(params, np.arange(7.0)[:, None])).sum(), 1, rtol=1e-5)
try:
    schema.encode(pd.DataFrame({"day": [7]}))
except ValueError as error:
    assert "column 'day', row 0, is 7; expected one of 0, 1, 2, 3, 4 and 2 more. Correct it" in str(error), error
else:
    raise AssertionError("a day of no week")
"""
LIBRARY = '''"""Numbers of as many digits as are asked for. Family: Many digits."""

from typing import Any

from flows.interop import needs

needs("mpmath")

import mpmath  # noqa: E402

__all__ = ["exact"]


def exact(x: float) -> Any:
    """A number with all its digits.

    Example:
        >>> from flows.interop.mpmath import exact
        >>> exact(0.5)
        mpf('0.5')
    """
    return mpmath.mpf(x)
'''
NAMES = {
    "bijections": ("Opposite", BIJECTION, "flows/__init__.py", "BIJECTIONS: dict[str, Case]", "Case(flows.Opposite())"),
    "distributions": (
        "Extreme", DISTRIBUTION, "flows/__init__.py", "DISTRIBUTIONS: dict[str, DistributionCase]",
        "DistributionCase(flows.Extreme(), (1,), reach=12.0)",
    ),
    "transformers": (
        "Rescale", TRANSFORMER, "flows/transformers/__init__.py", "TRANSFORMERS: dict[str, TransformerCase]",
        "TransformerCase(t.Rescale())",
    ),
}  # fmt: skip
# What holds every layer: its property tests, its page, the order of the house.
HOLDING = {
    "bijections": ("test_bijections.py", "Opposite-"),
    "distributions": ("test_distributions.py", "Extreme-"),
    "transformers": ("test_transformers.py", "Rescale"),
}


def edit(path, before, after):
    text = path.read_text()
    assert text.count(before) == 1, f"{path.name} has {before!r} {text.count(before)} times"
    path.write_text(text.replace(before, after))


@pytest.fixture
def copy(tmp_path):
    for name in ("flows", "tests", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.webp"))
    for name in ("examples", "benchmarks"):  # which are only read
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("conftest.py", "pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_three_places_for_a_layer(copy):
    paths, chosen = ["tests/pages/test_docs.py", "tests/test_architecture.py"], ["test_docs.py", "test_architecture.py"]
    for room, (name, source, names, registry, case) in NAMES.items():
        file = copy / "flows" / room / f"{name.lower()}.py"
        file.write_text(source)
        with (copy / names).open() as lines:
            first = next(line for line in lines if line.startswith(f"from flows.{room}."))
        edit(copy / names, first, f"{first}from flows.{room}.{name.lower()} import {name} as {name}\n")
        edit(copy / "tests" / "registry.py", f"{registry} = {{\n", f'{registry} = {{\n    "{name}": {case},\n')
        paths += [f"tests/{room}/{HOLDING[room][0]}", str(file.relative_to(copy))]
        chosen += [HOLDING[room][1], file.name]
    command = ["-m", "pytest", "-q", "--doctest-modules", "-p", "no:cacheprovider", *paths]
    run(copy, *command, "-k", f"({' or '.join(chosen)}) and not ceilings")


def test_three_places_for_a_kind_of_column(copy):
    (copy / "flows" / "tables" / "kinds" / "weekday.py").write_text(KIND)
    kinds, names = (copy / "flows" / "tables" / file for file in ("kinds/__init__.py", "__init__.py"))
    edit(kinds, "\nKINDS: ", "from flows.tables.kinds.weekday import Weekday\n\nKINDS: ")
    edit(kinds, "Constant, Ignored)\n", "Constant, Ignored, Weekday)\n")
    edit(names, "import Category, ", "import Weekday, Category, ")
    edit(names, '    "Schema",\n', '    "Schema",\n    "Weekday",\n')
    run(copy, "-c", USED)
    run(copy, "-m", "pytest", "-q", "--doctest-modules", "-p", "no:cacheprovider", "flows/tables/kinds/weekday.py")


def test_three_places_for_a_library(copy):
    file = copy / "flows" / "interop" / "mpmath.py"
    file.write_text(LIBRARY)
    table = copy / "flows" / "interop" / "__init__.py"
    edit(table, "LIBRARIES = {\n", 'LIBRARIES = {\n    "mpmath": "numbers of many digits",\n')
    edit(table, "import numpyro as numpyro\n", "import mpmath as mpmath, numpyro as numpyro\n")
    edit(copy / "pyproject.toml", "\nblackjax = [", '\nmpmath = ["mpmath"]\nblackjax = [')
    paths = [*(f"tests/{name}.py" for name in ("pages/test_docs", "pages/test_words", "test_architecture")), str(file)]
    chosen = "public_name or extras or imports_point or rooms_on_top or room_for_another or mpmath"
    run(copy, "-m", "pytest", "-q", "--doctest-modules", "-p", "no:cacheprovider", *paths, "-k", chosen)


def run(copy, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
