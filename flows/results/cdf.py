"""The distribution function of a model of one column, compiled and kept."""

import jax

from flows.core import COLUMN, Cdf, DistributionInit, DistributionLike, Memo, Shape, distribution_part

_cdfs = Memo(size=64)


def cdf_of(init_fun: DistributionLike, context: Shape | None) -> Cdf | None:
    """That of a model of one column; None where its own map does not give it."""

    def make() -> Cdf | None:
        if not isinstance(init_fun, DistributionInit):
            return None
        part = distribution_part(init_fun, COLUMN, context)
        cdf = None if part.cdf is None else part.cdf()
        return None if cdf is None else cdf._replace(tail=jax.jit(cdf.tail), point=jax.jit(cdf.point))

    return _cdfs((init_fun, context), make)
