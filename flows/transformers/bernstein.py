"""Monotone Bernstein polynomials. Family: Splines and polynomials."""

import math
from itertools import accumulate, repeat
from operator import mul

import jax
import jax.numpy as jnp

from flows.core import Array, FlowsError, positive, positive_int
from flows.transformers.base import transformer
from flows.transformers.solve import solve


@transformer
def Bernstein(degree: int = 12, bound: float = 3.0, min_slope: float = 1e-3):
    """A monotone Bernstein polynomial on [-bound, bound], the identity outside.

    With n = degree, u = (bound + x) / (2 bound), the basis b_i^n(u) = binomial(n, i) u^i (1 - u)^(n - i), and slopes
    r_1 .. r_n > 0 of mean 1, which are the increments of the coefficients in units of 2 bound / n:

        y         = x + sum_i e_i b_i^n(u),     e_i = (2 bound / n) sum_{j <= i} (r_j - 1)
        log dy/dx = log sum_i r_i b_{i-1}^{n-1}(u)

    The slope is a weighted mean of the r_i, with all terms positive. r_1 and r_n are 1, so the slope at the bounds is 1 and
    the density is continuous; theta = 0 is the identity. The inverse is numerical.

    `theta` is (degree - 2, *x.shape): the raw r_2 .. r_{n-1} (a softmax, then the floor).

    Args:
        degree: the degree of the polynomial, from 4 to 50.
        bound: half the side of the square that holds the polynomial, in the units of x.
        min_slope: the least r_i; less than 1.

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Ramasinghe, Fernando, Khan and Barnes, "Robust normalizing flows using Bernstein-type polynomials", 2021,
        arXiv:2102.03509, section 3.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> bernstein = flows.transformers.Bernstein(degree=6)
        >>> theta, x = jnp.linspace(-2, 2, 4 * 3).reshape(4, 3), jnp.array([-1.0, 2.5, 7.0])
        >>> y, log_det = bernstein.direct(theta, x)
        >>> bool(abs(bernstein.inverse(theta, y)[0] - x).max() < 1e-5)
        True
    """
    n, bound = positive_int(degree, "Bernstein: degree", 50), positive(bound, "Bernstein: bound")
    if n < 4:
        raise FlowsError(f"Bernstein: degree is {n}; expected at least 4: up to 3 there are no free parameters")
    if not positive(min_slope, "Bernstein: min_slope") < 1:
        raise FlowsError(f"Bernstein: min_slope is {min_slope}; expected less than 1")

    def basis(x: Array, degree: int, first: int, last: int) -> list[Array]:
        """b_i^degree for first <= i <= last."""
        above, below = (
            list(accumulate(repeat(u, degree), mul)) for u in ((bound + x) * 0.5 / bound, (bound - x) * 0.5 / bound)
        )
        above, below = [jnp.ones_like(x), *above], [jnp.ones_like(x), *below]
        return [float(math.comb(degree, i)) * above[i] * below[degree - i] for i in range(first, last + 1)]

    def slopes(theta: Array) -> Array:
        """r_2 .. r_{n-1}, of mean 1."""
        return min_slope + (1 - min_slope) * (n - 2) * jax.nn.softmax(theta, axis=0)

    def value(r: Array, x: Array) -> Array:
        offsets = accumulate((2 * bound / n) * (slope - 1) for slope in r[:-1])  # the last is 0
        return sum((e * b for e, b in zip(offsets, basis(x, n, 2, n - 2), strict=True)), x)

    def log_slope(r: Array, x: Array) -> Array:
        first, *inner, last = basis(x, n - 1, 0, n - 1)
        return jnp.log(sum((slope * b for slope, b in zip(r, inner, strict=True)), first + last))

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        outside = jnp.abs(x) >= bound  # false for NaN, which runs through the polynomial and stays NaN
        r, inside = slopes(theta), jnp.where(outside, 0.0, x)
        return jnp.where(outside, x, value(r, inside)), jnp.where(outside, 0.0, log_slope(r, inside))

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        outside = jnp.abs(y) >= bound
        r, inside = slopes(theta), jnp.where(outside, 0.0, y)
        root = solve(lambda x: (value(r, x), log_slope(r, x)), inside, -bound, bound, guess=inside)
        x = jnp.where(outside, y, root)
        return x, -direct(theta, x)[1]

    return n - 2, direct, inverse
