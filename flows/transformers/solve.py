"""Roots of increasing functions, elementwise: Newton's method in a bracket, with implicit gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flows.core import Array, varying

NEWTON_STEPS = 24  # after these the bracket is halved in the order of floats, which ends after one step for each bit
CLOSE = 4  # roundings of the value, or floats left in the bracket, at which an entry is solved


def solve(function: Callable, y: Array, low: Any = -np.inf, high: Any = np.inf, guess: Any = None, unit: Any = 1.0) -> Array:
    """The x in [low, high] with function(x)[0] = y, elementwise.

    Every evaluation moves one end of the bracket. The next point is Newton's if it lies inside and the step is less than half
    the step before, and halfway otherwise. After 24 steps the bracket is halved by the count of floats in it, so that any root
    takes at most 60 evaluations (92 in float64). Usually it takes 5 to 15, for all entries together.

    An entry is solved if the value is within 4 roundings of y, or 4 floats are left in the bracket. A root beyond the largest
    float is a signed inf; NaN, in y or in the function, stays NaN. Derivatives, of any order and in both modes, are the
    implicit ones, in y and in all that `function` closes over: dx = (dy - df) exp(-log f'(x)).

    Args:
        function: `x -> (f(x), log f'(x))`, elementwise, with f increasing.
        y: the values, of any shape.
        low: a bound below the root, of a shape that broadcasts to the shape of y.
        high: a bound above the root.
        guess: where to start; by default halfway.
        unit: the size of what f adds up: values closer than 4 roundings of `unit + |y|` count as equal.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> root = lambda a, y: solve(lambda x: (a * x + x**3, jnp.log(a + 3 * x**2)), y)
        >>> root(2.0, jnp.array([3.0, -12.0])).round(5).tolist()
        [1.0, -2.0]
        >>> f"{jax.grad(root)(2.0, jnp.array(3.0)):.4f}"  # dx/da = -x / (a + 3 x^2)
        '-0.2000'
    """
    low, high, unit = (jnp.broadcast_to(jnp.asarray(value, y.dtype), y.shape) for value in (low, high, unit))
    largest = float(jnp.finfo(y.dtype).max)
    low, high = jnp.clip(low, -largest, largest), jnp.clip(high, -largest, largest)
    start = (
        _halfway(low, high) if guess is None else jnp.clip(jnp.broadcast_to(jnp.asarray(guess, y.dtype), y.shape), low, high)
    )
    explicit, constants = jax.closure_convert(function, y)
    return _root(explicit, tuple(constants), y, lax.stop_gradient((low, high, start, unit)))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _root(function: Callable, constants: tuple, y: Array, search: tuple[Array, Array, Array, Array]) -> Array:
    low, high, start, unit = search
    eps, largest, bits = jnp.finfo(y.dtype).eps, float(jnp.finfo(y.dtype).max), jnp.finfo(y.dtype).bits
    enough = CLOSE * eps * (unit + jnp.abs(y))

    def step(state: tuple) -> tuple:
        x, low, high, last, _, count = state
        value, log_slope = function(x, *constants)
        residual = value - y
        low, high = jnp.where(residual < 0, x, low), jnp.where(residual > 0, x, high)
        newton = residual * jnp.exp(-log_slope)
        # The last steps go two roundings past the root, so that the bracket closes from both sides.
        rounding = eps * jnp.abs(x)
        ahead = x - newton - jnp.where(jnp.abs(newton) < 16 * rounding, 2 * rounding * jnp.sign(residual), 0.0)
        inside = (low < ahead) & (ahead < high)
        trusted = inside & (2 * jnp.abs(newton) < last)
        # Short steps that do not get shorter come from rounding in the function, or from a flat root: try its other side.
        short = inside & (16 * jnp.abs(newton) < high - low)
        other = jnp.where(short, x - 4 * newton, _halfway(low, high))
        new = jnp.where(count < NEWTON_STEPS, jnp.where(trusted, ahead, other), _middle_float(low, high))
        solved = ~(jnp.abs(residual) > enough) | _adjacent(low, high)  # also where the residual is NaN
        new = jnp.where(solved, jnp.where(jnp.isnan(residual), residual, x), new)
        return new, low, high, jnp.abs(new - x), solved, count + 1

    def unsolved(state: tuple) -> Array:
        *_, solved, count = state
        return (count < NEWTON_STEPS + bits + CLOSE) & ~solved.all()

    state = (start, low, high, jnp.full_like(y, jnp.inf), jnp.zeros(y.shape, bool))
    state = *varying(state, (y, start, constants)), jnp.int32(0)
    x = lax.while_loop(unsolved, step, state)[0]
    x = jnp.where(jnp.abs(x) > largest * (1 - 16 * eps), jnp.sign(x) * jnp.inf, x)
    return jnp.where(jnp.isinf(y), y, x)


@_root.defjvp
def _(function: Callable, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    constants = primals[0]
    x = _root(function, *primals)
    # A root beyond the largest float is a constant: its NaN must not reach gradients that it shares with other entries.
    beyond = jnp.isinf(x)
    at = jnp.where(beyond, 0.0, x)
    (_, log_slope), (change, _) = jax.jvp(function, (at, *constants), (jnp.zeros_like(at), *tangents[0]))
    return x, jnp.where(beyond, 0.0, (tangents[1] - change) * jnp.exp(-log_slope))


def _halfway(low: Array, high: Array) -> Array:
    """The middle of a bracket; of a wide one, the middle in order of magnitude."""
    near, far = jnp.minimum(jnp.abs(low), jnp.abs(high)), 0.5 * high - 0.5 * low
    wide = jnp.sinh(0.5 * (jnp.arcsinh(low) + jnp.arcsinh(high)))
    return jnp.where(far < 1 + near, 0.5 * low + 0.5 * high, jnp.clip(wide, low, high))


def _rank(x: Array) -> Array:
    """The place of a float among all floats, a whole number."""
    places = lax.bitcast_convert_type(x, jnp.dtype(f"int{jnp.finfo(x.dtype).bits}"))
    return _mirrored(places)


def _mirrored(places: Array) -> Array:
    """The bits of a negative float count downwards; this, its own inverse, makes them count upwards."""
    return jnp.where(places < 0, jnp.iinfo(places.dtype).min - places, places)


def _middle_float(low: Array, high: Array) -> Array:
    a, b = _rank(low), _rank(high)
    return lax.bitcast_convert_type(_mirrored((a & b) + ((a ^ b) >> 1)), low.dtype)  # (a + b) / 2 that cannot overflow


def _adjacent(low: Array, high: Array) -> Array:
    return (_rank(high) >> 1) - (_rank(low) >> 1) <= CLOSE // 2
