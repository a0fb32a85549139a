"""The monotone piecewise-linear spline. Family: Splines and polynomials."""

import jax.numpy as jnp

from flows.core import Array
from flows.transformers import bins
from flows.transformers.base import transformer


@transformer(bound=lambda bound, **_: float(bound), shared=True)
def LinearSpline(num_bins: int = 8, bound: float = 3.0, min_bin: float = 1e-3):
    """A monotone piecewise-linear map on [-bound, bound], the identity outside: a histogram as a density.

    In the bin between the knots (x0, y0) and (x1, y1), with xi = (x - x0) / (x1 - x0):

        y         = y0 + (y1 - y0) xi
        log dy/dx = log((y1 - y0) / (x1 - x0))

    All bins have the same width. The density is constant within a bin and jumps at the knots, so the gradient of the log-det
    in x, or in y for the inverse, is 0: it is for density estimation more than for sampling. theta = 0 is the identity.

    `theta` is (num_bins, *x.shape): raw heights (a softmax, then the floor).

    Args:
        num_bins: the number of bins, at least 1.
        bound: half the side of the square that holds the spline, in the units of x.
        min_bin: the least height of a bin, in units of 2 bound; at least 1e-4 and less than 1 / num_bins.

    Errors:
        FlowsError: an argument is outside its range.

    Source:
        Müller, McWilliams, Rousselle, Gross and Novák, "Neural Importance Sampling", 2018, arXiv:1808.03856,
        piecewise-linear coupling transforms.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> spline = flows.transformers.LinearSpline(num_bins=2, bound=1.0, min_bin=0.1)
        >>> y, log_det = spline.direct(jnp.log(jnp.array([[1.0], [3.0]])), jnp.array([0.0]))
        >>> print(y, jnp.exp(log_det))  # the first bin's height is 2 (0.1 + 0.8 / 4) of 2
        [-0.4] [1.4]
    """
    num_bins, bound = bins.check_bins("LinearSpline", num_bins, bound, min_bin)
    x_axis, y_axis = bins.Axis(num_bins, bound), bins.Axis(num_bins, bound, min_bin)

    def find(theta: Array, value: Array, axis: int) -> tuple[Array, ...]:
        widths, heights = jnp.ones_like(theta), bins.weights(theta)
        k = y_axis.find(heights, value) if axis else x_axis.find(widths, value)
        return *x_axis.knots(widths, k), *y_axis.knots(heights, k)

    def forward(x: Array, x0: Array, x1: Array, y0: Array, y1: Array) -> tuple[Array, Array]:
        log_det = jnp.log((y1 - y0) / (x1 - x0))
        return bins.divide(y0, y1, *bins.fractions(x, x0, x1)), jnp.where(jnp.isnan(x), x, log_det)  # NaN in, NaN out

    def backward(y: Array, x0: Array, x1: Array, y0: Array, y1: Array) -> Array:
        return bins.divide(x0, x1, *bins.fractions(y, y0, y1))

    return num_bins, *bins.spline(bound, find, forward, backward)
