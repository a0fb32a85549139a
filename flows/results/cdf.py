"""The distribution function of a model of one column, compiled and kept."""

from collections.abc import Callable
from typing import Any

import jax

from flows.core import (
    COLUMN,
    Array,
    Cdf,
    DistributionInit,
    DistributionLike,
    Memo,
    Shape,
    distribution_part,
    filled,
    first,
    grown,
    in_pieces,
)

_cdfs = Memo(size=64)


def cdf_of(init_fun: DistributionLike, context: Shape | None) -> Cdf | None:
    """That of a model of one column; None where its own map does not give it."""

    def make() -> Cdf | None:
        if not isinstance(init_fun, DistributionInit):
            return None
        part = distribution_part(init_fun, COLUMN, context)
        cdf = None if part.cdf is None else part.cdf()
        return None if cdf is None else cdf._replace(tail=_by_pieces(cdf.tail), point=_by_pieces(cdf.point))

    return _cdfs((init_fun, context), make)


def _by_pieces(function: Callable) -> Callable:
    """The function compiled for few numbers of rows, many of them in pieces, as densities are."""

    @jax.jit
    def compiled(params: Any, rows: tuple[Array, ...]) -> Array:
        def piece(params: Any, x: Array, upper: Array, context: Any = None) -> Array:
            return function(params, x, context, upper)

        return in_pieces(piece, params, *rows, event=COLUMN)

    def run(params: Any, x: Array, context: Array | None, upper: Array) -> Array:
        rows = (x, upper) if context is None else (x, upper, context)
        if not len(x) or any([isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, rows))]):
            return compiled(params, rows)
        return first(compiled(params, tuple(grown(each, filled(len(x))) for each in rows)), len(x))

    return run
