"""Kinds of columns, each with its distribution given any other columns. Family: Kinds of columns for `AnySubset`."""

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Protocol

import jax.numpy as jnp
import numpy as np
from jax import lax

from flows.core import Array, Region, Value, decorated, refuse_argument

P = ParamSpec("P")
QUANTILES = 64  # by which a mean is taken


class Group(Protocol):
    """Columns of one kind, which are computed together, features leading: entries x are (columns, batch), theta is (num_params,
    columns, batch), and `known` is (columns, batch), or (columns, 1) for all rows. `c` has the constants and the params of the
    columns by name, each (columns, ...), so that a slice of it is one column."""

    num_params: int  # outputs of the network for a column
    widths: tuple[int, ...]  # how many numbers the network sees of each column
    extra: int = 0  # how many it sees of all together, "seen" of `started`
    constants: dict[str, np.ndarray]  # (columns, 1) each

    def regions(self) -> Region:
        """Return where entries live, fields of (columns,)."""

    def init(self, x: Array, there: Array) -> tuple[Any, Array]:
        """Return params measured where entries are there, and the theta (num_params, columns) at which a network starts."""

    def inside(self, c: Any, x: Array) -> Array:
        """Tell which entries have a density or a mass."""

    def safe(self, c: Any) -> Array:
        """Return an entry of each column that has a density, (columns, 1)."""

    def shown(self, c: Any, x: Array) -> Array:
        """Return what the network sees of entries, (sum(widths), batch)."""

    def begun(self, c: Any, x: Array, known: Array) -> Any:
        """Return the state of rows: what all columns tell of each other, where some are known."""
        return ()

    def learnt(self, c: Any, state: Any, place: Any, x: Array, now: Array) -> Any:
        """Return the state of rows which know one more column, of which `c` and x (batch,) are, where `now` is true."""
        return state

    def started(self, c: Any, state: Any, known: Array) -> Any:
        """Return `c` with what the columns start at given the known ones, and what the network sees of that, "seen"."""
        return c

    def log_p(self, c: Any, theta: Array, x: Array) -> Array:
        """Return the log-density or log-mass of entries that are inside."""

    def draw(self, c: Any, theta: Array, u: Array) -> Array:
        """Return entries at uniform numbers u."""

    def expected(self, c: Any, theta: Array) -> Array:
        """Return means of numbers, masses of codes, means of cosines and sines of angles, (sum(widths), batch)."""


class Kind(Value):
    """A kind of column, a constructor's value; `inner` is a tuple of its numbers whose class makes a `Group` of several."""

    def group(self, columns: Sequence["Kind"], num_bins: int) -> Group:
        """Return columns of this kind as one group."""
        return self.inner.together([column.inner for column in columns], num_bins)

    @property
    def step(self) -> float:
        """The distance of neighbouring values; 0 if they are not rounded."""
        return getattr(self.inner, "step", 0.0)


def mean_of_draws(draw: Callable[[Array], Array], shape: tuple[int, ...], dtype: Any) -> Array:
    """Return the mean of draw(u) over the middles of QUANTILES equal parts of the unit interval."""
    middles = (jnp.arange(QUANTILES, dtype=dtype) + 0.5) / QUANTILES
    return jnp.mean(lax.map(lambda u: draw(jnp.full(shape, u)), middles), 0)


def kind(function: Callable[P, Any]) -> Callable[P, Kind]:
    """Turn a function that returns the numbers of a kind of column into its constructor."""
    return decorated(function, Kind, "kind", "the numbers of a kind of column")


def check_kind(x: Any, name: str) -> Kind:
    """`x`, if it is a kind of column."""
    if not isinstance(x, Kind):
        refuse_argument(x, name, "one of flows.conditionals, such as Number() or Category(3)")
    return x
