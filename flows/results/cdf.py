"""The distribution function of a model of one column, compiled and kept."""

import jax

from flows.core import COLUMN, Cdf, DistributionInit, DistributionLike, Memo, Shape, distribution_part

_kept = Memo(size=64)


def cdf_of(init_fun: DistributionLike, context: Shape | None) -> Cdf | None:
    """That of a model of one column; None where its own map does not give it."""

    def make() -> Cdf | None:
        if not isinstance(init_fun, DistributionInit):
            return None
        part = distribution_part(init_fun, COLUMN, context)
        found = None if part.cdf is None else part.cdf()
        return None if found is None else found._replace(tail=jax.jit(found.tail), point=jax.jit(found.point))

    return _kept((init_fun, context), make)
