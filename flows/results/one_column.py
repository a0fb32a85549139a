"""Answers of a model of one column: distribution function, quantiles, intervals, by its exact map or by draws."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    COLUMN,
    Array,
    Cdf,
    DistributionInit,
    DistributionLike,
    FlowsError,
    Memo,
    Shape,
    as_array,
    as_context,
    as_event,
    as_key,
    cast,
    default_dtype,
    distribution_part,
    filled,
    first,
    grown,
    in_pieces,
    positive,
    working_dtype,
)
from flows.results.columns import Inputs
from flows.results.frames import as_numbers

DRAWS = 10_000  # of each context, where a distribution function is counted
PIECE = 2_000_000  # numbers drawn together for that

_cdfs = Memo(size=64)


class OneColumn:
    """The part of a result that is for events of a single column."""

    init_fun: Any
    input_dim: Any
    context_dim: Any
    params: Any

    @property
    def cdf_by(self) -> str:
        """The method of `cdf`, `quantile` and `interval`: "map", the exact map of the model, or "draws"."""
        return "draws" if self._map is None else "map"

    def cdf(self, x: Any, *, context: Any = None, rng: Any = 0) -> Array:
        """P(X <= x) of one column: (n,) for rows x, (n, 1); for an angle P(low <= X <= x), on the turn of the data.

        The turn [low, low + period) begins at `turn`; for a model that was not fitted to data it is [-period / 2, period / 2).
        An x elsewhere is moved there first; the result is 0 at low, and 1 at low + period.

        The map of the model gives it where it is monotone, otherwise the share of 10,000 draws (`cdf_by` says which); NaN where
        the direction of the map is not known, or a draw is NaN.

        Args:
            x: (n, 1), or a table of one column.
            context: (n, *context), (*context,) or a table.
            rng: key or seed, of the draws.

        Errors:
            FlowsError: a model of several columns.
        """
        self._check_column("cdf")
        inputs = Inputs(self)
        x, keywords = as_array(inputs.rows(x), "x"), inputs.context(context)
        if x.ndim != 2 or x.shape[1:] != COLUMN:
            raise FlowsError(f"cdf: x has shape {x.shape}; expected (rows, 1)")
        n, dtype = x.shape[0], working_dtype(x.dtype)
        x, contexts = inputs.on_turn(x.astype(dtype))[:, 0], inputs.row_contexts(keywords, n)
        if self._map is not None:
            contexts = None if contexts is None else contexts.astype(dtype)
            return self._map.tail(cast(self.params, dtype), x, contexts, jnp.zeros(n, bool))
        values, shares = np.asarray(x), np.zeros(n)
        for piece, draws in self._draws(as_key(rng), keywords, n):
            rows = np.sort(draws, axis=1)  # NaN comes last
            pairs = zip(rows, values[piece, None], strict=True) if inputs.batched(keywords) else [(rows[0], values)]
            counts = [np.searchsorted(row, value, side="right") for row, value in pairs]
            unknown = np.isnan(values[piece]) | np.isnan(rows[:, -1])
            shares[piece] = np.where(unknown, np.nan, np.concatenate(counts) / DRAWS)
        return jnp.asarray(shares, dtype)

    def quantile(self, q: Any, *, context: Any = None, rng: Any = 0) -> Array:
        """Quantiles of one column, x with P(X <= x) = q: of the shape of q, or (n, *q.shape) for n contexts. Angles are on the
        turn of the data, as in `cdf`.

        Args:
            q: between 0 and 1, a number or an array.
            context: (*context,) for one, (n, *context), or a table.
            rng: key or seed, of the draws where `cdf_by` is "draws".

        Errors:
            FlowsError: a model of several columns, or q outside [0, 1].
        """
        self._check_column("quantile")
        inputs, q = Inputs(self), as_numbers(q, "q")
        keywords = inputs.context(context)
        if isinstance(q, jax.core.Tracer):
            shares: Any = q
        else:  # on the host in float64, so that 1 - q keeps the digits of what is near 1
            shares = shares_of(q)
        rows, many = (keywords["context"].shape[0], True) if inputs.batched(keywords) else (1, False)
        leaves = jax.tree.leaves(self.params)
        dtype = working_dtype(jnp.result_type(*leaves)) if leaves else default_dtype()
        if self._map is None:
            quantiles: Any = np.zeros((rows, *shares.shape))
            method: Any = "inverted_cdf" if inputs.region is not None and inputs.region.discrete.any() else "linear"
            for piece, draws in self._draws(as_key(rng), keywords, rows):
                quantiles[piece] = np.moveaxis(np.quantile(draws, shares, axis=1, method=method), -1, 0)
        else:
            contexts, upper = inputs.row_contexts(keywords, rows), shares > 0.5
            where: Any = jnp.where if isinstance(shares, jax.core.Tracer) else np.where
            near = [jnp.tile(jnp.ravel(jnp.asarray(array)), rows) for array in (where(upper, 1 - shares, shares), upper)]
            contexts = None if contexts is None else jnp.repeat(contexts.astype(dtype), shares.size, 0)
            quantiles = self._map.point(cast(self.params, dtype), near[0].astype(dtype), contexts, near[1])
            quantiles = quantiles.reshape(rows, *shares.shape)
        return jnp.asarray(quantiles if many else quantiles[0], dtype)

    def interval(self, share: float = 0.9, *, context: Any = None, rng: Any = 0) -> tuple[Array, Array]:
        """Central interval: ends between which one column lies with probability `share`, with equal probability on both sides;
        each (n,) for n contexts. Angles are on the turn of the data, as in `cdf`: other values lie between its ends and these.

        Args:
            share: the probability of the interval, in (0, 1).
            context, rng: as in `quantile`.

        Errors:
            FlowsError: a model of several columns, or a share outside (0, 1).
        """
        both = self.quantile(ends_of(share), context=context, rng=rng)
        return both[..., 0], both[..., 1]

    @property
    def _map(self) -> Cdf | None:
        return cdf_of(self.init_fun, as_context(self.context_dim)) if as_event(self.input_dim) == COLUMN else None

    def _check_column(self, what: str) -> None:
        if as_event(self.input_dim) != COLUMN:
            raise FlowsError(f"{what}: the event of this model is {as_event(self.input_dim)}; expected a single column, (1,)")

    def _draws(self, key: Array, keywords: dict[str, Any], rows: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield draws of one column, (rows of a piece, DRAWS); or (1, DRAWS) for all rows, unless each row has a context."""
        inputs = Inputs(self)
        if not inputs.batched(keywords):
            yield slice(None), np.asarray(inputs.drawn(key, DRAWS, keywords)).reshape(1, DRAWS)
            return
        step = max(PIECE // DRAWS, 1)
        for i in range(0, rows, step):
            few = keywords["context"][i : i + step]
            drawn = inputs.drawn(jax.random.fold_in(key, i), DRAWS * len(few), {"context": jnp.repeat(few, DRAWS, 0)})
            yield slice(i, i + len(few)), np.asarray(drawn).reshape(-1, DRAWS)


def shares_of(q: Any) -> np.ndarray:
    """Return the q of `quantile` as an array, of numbers from 0 to 1."""
    as_array(q, "q")
    shares = np.asarray(q, np.float64)
    if not shares.size:
        raise FlowsError("quantile: q is empty; expected numbers from 0 to 1")
    if not ((shares >= 0) & (shares <= 1)).all():
        raise FlowsError(f"quantile: q is {q!r:.80}; expected numbers from 0 to 1")
    return shares


def ends_of(share: Any) -> list[float]:
    """Return the q at both ends of `interval`."""
    if not 0 < (share := positive(share, "interval: share")) < 1:
        raise FlowsError(f"interval: share is {share}; expected a number between 0 and 1, such as 0.9")
    return [(1 - share) / 2, (1 + share) / 2]


def cdf_of(init_fun: DistributionLike, context: Shape | None) -> Cdf | None:
    """Return the distribution function of a model of one column; None where its map does not give it."""

    def make() -> Cdf | None:
        if not isinstance(init_fun, DistributionInit):
            return None
        part = distribution_part(init_fun, COLUMN, context)
        cdf = None if part.cdf is None else part.cdf()
        return None if cdf is None else cdf._replace(tail=_by_pieces(cdf.tail), point=_by_pieces(cdf.point))

    return _cdfs((init_fun, context), make)


def _by_pieces(function: Callable) -> Callable:
    """Compile a function for few numbers of rows, and for many rows in pieces, like densities."""

    @jax.jit
    def compiled(params: Any, rows: tuple[Array, ...]) -> Array:
        def piece(params: Any, x: Array, upper: Array, context: Any = None) -> Array:
            return function(params, x, context, upper)

        return in_pieces(piece, params, *rows, event=COLUMN)

    def run(params: Any, x: Array, context: Array | None, upper: Array) -> Array:
        rows = (x, upper) if context is None else (x, upper, context)
        if not len(x) or any([isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, rows))]):
            return compiled(params, rows)
        return first(compiled(params, tuple(grown(array, filled(len(x))) for array in rows)), len(x))

    return run
