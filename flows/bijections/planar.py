"""Planar and radial maps: along one direction, or around one point. Family: Planar, radial and Sylvester maps."""

import jax
import jax.numpy as jnp

from flows.bijections.amortised import amortised, bend_of, slope_of
from flows.core import HIGHEST, Array, ConditionerLike, bijection
from flows.transformers.solve import solve

MOST = 10.0  # of log alpha


@bijection(batched=True)
def Planar(conditioner: ConditionerLike | None = None):
    """A ridge along one direction: y = x + u' tanh(w.x + b), log|det J| = log(1 + w.u' (1 - tanh(w.x + b)^2)).

    u' = u + (m - w.u) w / |w|^2 has w.u' = m above -1, so that the map has an inverse; m = log(1 + (e - 1) exp(w.u)) - 1, with
    a floor of -0.999, is 0 where w.u is 0 (in the paper m = log(1 + exp(w.u)) - 1; u = 0 is then not the identity, and u'
    grows without bound as w goes to 0). The inverse is one root, of a + m tanh(a + b) = w.y in a = w.x.

    With `Invert(Planar())` draws cost one pass, as `fit_to_density` needs it.

    Args:
        conditioner: `net(rng, context_dim, 2 d + 1) -> (params, apply_fun)`, such as `MLP(32)`: its output for the context,
            which is then required, is added to the parameters below.

    Params:
        w, u: (d,), w normal with variance 1 / d and u = 0 at init, the identity; b: (), 0; "conditioner", the network's.

    Cost:
        Direct: O(d). Inverse: O(d), and one root.

    Errors:
        FlowsError: an event of several axes; a conditioner without context_dim.

    Source:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015, arXiv:1505.05770, equations 10-12 and A.1.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Planar()(0, 3)
        >>> y, log_det = direct_fun({**params, "u": jnp.ones(3)}, jnp.ones((2, 3)))
        >>> bool(abs(inverse_fun({**params, "u": jnp.ones(3)}, y)[0] - 1).max() < 1e-5)
        True
    """

    def start(rng, d):
        return {"w": jax.random.normal(rng, (d,)) / d**0.5, "u": jnp.zeros(d), "b": jnp.zeros(())}

    def ridge(theta) -> tuple[Array, Array, Array]:
        """w, u' and 1 + w.u'."""
        w, u = theta["w"], theta["u"]
        along, size = dot(w, u), jax.lax.stop_gradient(jnp.abs(w).max())
        size = jnp.where(size > 0, size, 1.0)  # a w of 0 points nowhere
        unit = w / size
        square = dot(unit, unit)
        more = (bend_of(along) - along) / size / jnp.where(square > 0, square, 1.0)
        return w, u + more * unit, slope_of(along)

    def direct(theta, x):
        w, u, slope = ridge(theta)
        h = jnp.tanh(dot(w, x) + theta["b"])
        return x + u * h, log_slope(h, slope)

    def inverse(theta, y):
        w, u, slope = ridge(theta)
        target, b = dot(w, y), theta["b"]

        def along(a):
            h = jnp.tanh(a + b)
            return a + (slope - 1) * h, log_slope(h, slope)

        reach = jnp.abs(slope - 1)
        a = solve(along, target, target - reach, target + reach)
        h = jnp.tanh(a + b)
        return y - u * h, -log_slope(h, slope)

    return amortised("Planar", conditioner, start, direct, inverse)


@bijection(batched=True)
def Radial(conditioner: ConditionerLike | None = None):
    """A map away from a point, or towards it: y = x + beta (x - x0) / (alpha + r), r = |x - x0|.

    log|det J| = (d - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2). alpha = exp(log_alpha), within
    exp(+-10), and beta / alpha = log(1 + (e - 1) exp(p)) - 1, with a floor of -0.999, is above -1, so that the map has an
    inverse: r is the root of a quadratic in |y - x0|.

    Args:
        conditioner: as in `Planar`, with d + 2 outputs.

    Params:
        center: (d,), x0, standard normal at init; log_alpha, p: (), 0, the identity; "conditioner", the network's.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an event of several axes; a conditioner without context_dim.

    Source:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015, arXiv:1505.05770, equation 14 and A.2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Radial()(0, 3)
        >>> y, log_det = direct_fun({**params, "p": jnp.array(2.0)}, jnp.ones((2, 3)))
        >>> bool(abs(inverse_fun({**params, "p": jnp.array(2.0)}, y)[0] - 1).max() < 1e-5)
        True
    """

    def start(rng, d):
        return {"center": jax.random.normal(rng, (d,)), "log_alpha": jnp.zeros(()), "p": jnp.zeros(())}

    def alpha_of(theta) -> Array:
        return jnp.exp(jnp.clip(theta["log_alpha"], -MOST, MOST))

    def factors(theta, r, d) -> tuple[Array, Array]:
        """The factor of x - x0, and log|det J|."""
        near = 1 / (1 + r / alpha_of(theta))  # alpha / (alpha + r)
        slope = slope_of(theta["p"])  # at x0
        across, outwards = (1 - near) + slope * near, (1 - near) * (1 + near) + slope * near * near
        return across, (d - 1) * jnp.log(across) + jnp.log(outwards)

    def direct(theta, x):
        away = x - theta["center"]
        factor, log_det = factors(theta, length(away), x.size)
        return theta["center"] + factor * away, log_det

    def inverse(theta, y):
        away, alpha = y - theta["center"], alpha_of(theta)
        # In units of alpha, r^2 + (slope - far) r - far = 0.
        far = length(away) / alpha
        half = 0.5 * (far - slope_of(theta["p"]))
        root = jnp.sqrt(half * half + far)
        r = jnp.where(half > 0, half + root, far / jnp.where(half > 0, 1.0, root - half))
        factor, log_det = factors(theta, alpha * r, y.size)
        return theta["center"] + away / factor, -log_det

    return amortised("Radial", conditioner, start, direct, inverse)


def log_slope(h: Array, slope: Array) -> Array:
    """log(1 + (slope - 1) (1 - h^2)), as a sum of terms that are not negative."""
    return jnp.log(h * h + slope * (1 - h) * (1 + h))


def dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=HIGHEST)


def length(x: Array) -> Array:
    """|x|, with a gradient of 0 at 0, and without squares that over- or underflow."""
    largest = jnp.abs(x).max()
    unit = jax.lax.stop_gradient(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0))
    square = jnp.square(x / unit).sum()
    return unit * jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), square)
