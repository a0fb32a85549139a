"""The map of a box, whose sides may be open, to the whole line. Family: Bounds and scalar maps."""

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import REAL, Array, FlowsError, Numbers, Support, bijection, check_fits, next_float


def _ends(low: Numbers, high: Numbers) -> tuple[np.ndarray, np.ndarray]:
    ends = []
    for name, end in (("low", low), ("high", high)):
        try:
            ends.append(np.asarray(end, float))
        except (TypeError, ValueError):
            raise FlowsError(f"Unconstrain: {name} is {end!r:.80}; expected numbers, infinite where there is no end") from None
    if any(np.asarray(end).dtype == bool for end in (low, high)):
        raise FlowsError(f"Unconstrain: low is {low!r:.60} and high is {high!r:.60}; expected numbers, not True or False")
    if any(np.isnan(end).any() for end in ends):
        raise FlowsError(f"Unconstrain: low is {low!r:.60} and high is {high!r:.60}; expected no NaN: an open side is infinite")
    try:
        a, b = np.broadcast_arrays(*ends)
    except ValueError:
        raise FlowsError(
            f"Unconstrain: low has shape {ends[0].shape} and high {ends[1].shape}; expected the same, or a number"
        ) from None
    with np.errstate(over="ignore"):
        if not (a.astype(np.float32) < b.astype(np.float32)).all() or np.isposinf(a).any() or np.isneginf(b).any():
            raise FlowsError(f"Unconstrain: low is {low!r:.60} and high is {high!r:.60}; expected low < high, also in float32")
    return a, b


def _support(low: Numbers, high: Numbers) -> Support:
    ends = _ends(low, high)
    open_sides = np.isinf(ends[0]) & np.isinf(ends[1])
    leaves = tuple(np.flatnonzero(open_sides).tolist()) if open_sides.ndim == 1 else ()
    return Support(ends, REAL, entrywise=True, leaves=leaves)


@bijection(support=_support)
def Unconstrain(low: Numbers = -np.inf, high: Numbers = np.inf):
    """The inside of a box to the whole line, by an increasing map of each entry.

    y = log(x - low) where there is a low end alone, -log(high - x) where there is a high end alone, log((x - low) / (high - x))
    where there are both, and x where there is none; log|det J| = the sum of -y, y, log((high - low) / ((x - low) (high - x)))
    and 0. The inverse returns points inside, whatever the rounding.

    Args:
        low, high: numbers, or arrays of the shape of the event or of its last axis; -inf and inf where a side is open.

    Params:
        None.

    Support:
        Inputs: (low, high); the ends are mapped to -inf and inf, and values outside to NaN. Outputs: the real line.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: ends that are not in order, also in float32, or NaN, or whose shape does not fit.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Unconstrain(low=(0.0, -1.0), high=(jnp.inf, 1.0))(0, 2)
        >>> direct_fun(params, jnp.array([[1.0, 0.0]]))[0].tolist()
        [[0.0, 0.0]]
    """
    a, b = _ends(low, high)

    def init_fun(rng, shape):
        for end, name in ((a, "low"), (b, "high")):
            if end.ndim:
                check_fits(end, shape, f"Unconstrain: {name}")
        from_low, to_high = (np.broadcast_to(np.isfinite(end), shape) for end in (a, b))
        both = from_low & to_high

        def ends(dtype) -> tuple[Array, Array]:
            """The ends, and 0 in place of an end at infinity."""
            left, right = (np.broadcast_to(np.where(np.isfinite(end), end, 0.0), shape) for end in (a, b))
            return jnp.asarray(left, dtype), jnp.asarray(right, dtype)

        def direct_fun(params, x):
            left, right = ends(x.dtype)
            # Logarithms of 1 where a side is open: the branch that is not taken has a gradient, too.
            log_left = jnp.log(jnp.where(from_low, x - left, 1.0))
            log_right = jnp.log(jnp.where(to_high, right - x, 1.0))
            y = log_left - log_right + jnp.where(from_low | to_high, 0.0, x)
            slope = -log_left - log_right + jnp.where(both, jnp.log(jnp.where(both, right - left, 1.0)), 0.0)
            return y, slope.sum()

        def inverse_fun(params, y):
            left, right = ends(y.dtype)
            within = jnp.where(both, (right - left) * jax.nn.sigmoid(y), 0.0)
            x = jnp.where(
                both, left + within, jnp.where(from_low, left + jnp.exp(y), jnp.where(to_high, right - jnp.exp(-y), y))
            )
            least = jnp.where(from_low, next_float(left, 1.0), -jnp.inf)
            most = jnp.where(to_high, next_float(right, -1.0), jnp.inf)
            return jnp.clip(x, least, most)

        return {}, direct_fun, inverse_fun

    return init_fun
