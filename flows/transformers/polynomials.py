"""Monotone polynomials: of Bernstein's form, and as the integral of a sum of squares. Family: Splines and polynomials."""

import math
from itertools import accumulate, repeat
from operator import mul

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

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


@transformer
def SumOfSquares(num_polynomials: int = 2, degree: int = 3, min_slope: float = 1e-3):
    """A polynomial that grows everywhere, as the integral of a sum of squares.

    With polynomials p_k(t) = sum_j a_kj t^j,

        y         = c + integral from 0 to x of (min_slope + sum_k p_k(t)^2) dt
        log dy/dx = log(min_slope + sum_k p_k(x)^2)

    The integrand is a polynomial of degree 2 degree. The Gauss rule of degree + 1 nodes integrates it exactly, by a sum of
    positive terms: nothing cancels. y grows like x^(2 degree + 1), so in float32 the default overflows, to a signed inf, beyond
    |x| of about 1e5; standardise the data. The inverse is numerical, in a bracket that min_slope gives.

    `theta` is (num_polynomials (degree + 1) + 1, *x.shape): the coefficients a_kj by rising j, one polynomial after the other,
    then c. The a_k0 are offset such that theta = 0 is the identity, by different amounts, as equal polynomials would get equal
    gradients and stay equal.

    Args:
        num_polynomials: how many squares are summed; any positive polynomial is a sum of two.
        degree: the degree of each p_k.
        min_slope: the least slope; less than 1.

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Jaini, Selby and Yu, "Sum-of-Squares Polynomial Flow", 2019, arXiv:1905.02325, equations 10-11.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> squares = flows.transformers.SumOfSquares(num_polynomials=1, degree=1)
        >>> y, log_det = squares.direct(jnp.array([[0.0], [1.0], [5.0]]), jnp.array([3.0]))  # 5 + 3 + 3^2 + 3^3 / 3
        >>> y.round(2).tolist()
        [26.0]
    """
    num, degree = (
        positive_int(num_polynomials, "SumOfSquares: num_polynomials"),
        positive_int(degree, "SumOfSquares: degree", 50),
    )
    if not positive(min_slope, "SumOfSquares: min_slope") < 1:
        raise FlowsError(f"SumOfSquares: min_slope is {min_slope}; expected less than 1")
    nodes, shares = (0.5 * rule for rule in np.polynomial.legendre.leggauss(degree + 1))  # on an interval of length 1
    starts = [math.sqrt((1 - min_slope) * 2 * (k + 1) / (num * (num + 1))) for k in range(num)]

    def parts(theta: Array) -> tuple[list[Array], Array]:
        """The coefficients of all polynomials together, (num_polynomials, *x.shape) for each power; and c."""
        raw = theta[:-1].reshape(num, degree + 1, *theta.shape[1:])
        offsets = jnp.asarray(starts, theta.dtype).reshape(-1, *[1] * (theta.ndim - 1))
        return [raw[:, 0] + offsets, *(raw[:, j] for j in range(1, degree + 1))], theta[-1]

    def finite(x: Array) -> Array:
        largest = float(jnp.finfo(x.dtype).max)
        return jnp.clip(x, -largest, largest)  # 0 times inf would be NaN

    # Derivatives in x run forwards: Horner's rule backwards multiplies powers of x, which overflow where the sum does not.
    @jax.custom_jvp
    def value(coefficients: list[Array], x: Array) -> Array:
        """The integral from 0 to x."""
        total = jnp.full_like(x, min_slope)
        for node, share in zip(nodes, shares, strict=True):
            t, p = (float(node) + 0.5) * finite(x)[None], coefficients[-1]
            for a in reversed(coefficients[:-1]):
                p = p * t + a
            total = total + float(share) * (p * p).sum(0)
        return x * total

    @value.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        coefficients, x = primals
        y, change = jax.jvp(lambda coefficients: value.fun(coefficients, x), (coefficients,), (tangents[0],))
        return y, change + jnp.exp(log_slope(coefficients, x)) * tangents[1]

    def normalised(p: Array, scale: Array) -> tuple[Array, Array]:
        size = lax.stop_gradient(jnp.maximum(jnp.abs(p), 1.0))
        return p / size, scale + jnp.log(size)

    @jax.custom_jvp
    def log_slope(coefficients: list[Array], x: Array) -> Array:
        """The logarithm of the integrand, also where the integrand overflows, by Horner's rule on p exp(-scale)."""
        p, scale = normalised(coefficients[-1], jnp.zeros_like(coefficients[-1]))
        for a in reversed(coefficients[:-1]):
            p, scale = normalised(p * finite(x)[None] + a * jnp.exp(-scale), scale)
        most = scale.max(0)
        total = min_slope * jnp.exp(-2 * most) + (p * p * jnp.exp(2 * (scale - most[None]))).sum(0)
        return 2 * most + jnp.log(jnp.maximum(total, jnp.finfo(x.dtype).tiny))

    @log_slope.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        coefficients, x = primals
        y, change = jax.jvp(lambda coefficients: log_slope.fun(coefficients, x), (coefficients,), (tangents[0],))
        in_x = jax.jvp(lambda x: log_slope.fun(coefficients, x), (x,), (jnp.ones_like(x),))[1]
        return y, change + in_x * tangents[1]

    def direct(theta: Array, x: Array) -> tuple[Array, Array]:
        coefficients, c = parts(theta)
        return value(coefficients, x) + c, log_slope(coefficients, x)

    def inverse(theta: Array, y: Array) -> tuple[Array, Array]:
        coefficients, c = parts(theta)
        rest = y - c
        ends = jnp.zeros_like(rest), rest * (1.001 / min_slope)
        x = solve(
            lambda x: (value(coefficients, x), log_slope(coefficients, x)),
            rest, jnp.minimum(*ends), jnp.maximum(*ends), guess=rest,
        )  # fmt: skip
        return x, -log_slope(coefficients, x)

    return num * (degree + 1) + 1, direct, inverse
