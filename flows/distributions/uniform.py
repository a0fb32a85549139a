"""The uniform distribution on a box. Family: Numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, Cdf, FlowsError, Numbers, Region, Shape, Support, check_fits, distribution, numbers


def _cdf(arguments: Any, context: Shape | None) -> Cdf:
    low, high = (float(np.ravel(arguments[name])[0]) for name in ("low", "high"))

    def tail(params: Any, x: Array, context: Any, upper: Array) -> Array:
        return jnp.clip(jnp.where(upper, high - x, x - low) / (high - low), 0, 1)

    def point(params: Any, u: Array, context: Any, upper: Array) -> Array:
        return jnp.where(upper, high - u * (high - low), low + u * (high - low))

    return Cdf(tail, point, (low, high))


def box_of(low: Numbers, high: Numbers) -> Support:
    box = Region(np.asarray(low, float), np.asarray(high, float))
    return Support(box, box)


@distribution(batched=True, cdf=_cdf, support=box_of)
def Uniform(low: Numbers = 0.0, high: Numbers = 1.0):
    """Uniform on a box, its faces included: log p(x) = -sum(log(high - low)) inside and -inf outside, in nats.

    Args:
        low, high: numbers, or arrays of the shape of the event or of its last axis; low < high, also in float32.

    Params:
        None.

    Support:
        [low, high], for each entry.

    Errors:
        FlowsError: numbers that are not finite or not in order, or a shape that does not fit the event.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.Uniform(low=-1.0, high=(0.0, 3.0))(0, 2)
        >>> log_pdf(params, jnp.array([[-0.5, 2.0], [-0.5, 3.5]])).round(4).tolist()
        [-1.386..., -inf]
    """
    a, b = numbers(low, "Uniform: low"), numbers(high, "Uniform: high")
    try:
        ordered = a.astype(np.float32) < b.astype(np.float32)
    except ValueError:
        raise FlowsError(f"Uniform: low has shape {a.shape} and high {b.shape}; expected the same, or a number") from None
    if not ordered.all():
        raise FlowsError(f"Uniform: low is {low} and high is {high}; expected low < high, also in float32")

    def init_fun(rng, shape):
        check_fits(a, shape, "Uniform: low")
        check_fits(b, shape, "Uniform: high")
        box = np.stack(np.broadcast_arrays(a, b, np.zeros(shape))[:2])
        inside = -float(np.log(box[1] - box[0]).sum())

        def log_pdf(params, x):
            faces = jnp.asarray(box, x.dtype)
            within = (x >= faces[0][None]) & (x <= faces[1][None])
            axes = tuple(range(1, x.ndim))
            density = jnp.where(within.all(axes), jnp.asarray(inside, x.dtype), -jnp.inf)
            return jnp.where(jnp.isnan(x).any(axes), jnp.nan, density)

        def sample(rng, params, num_samples):
            faces = jnp.asarray(box, float)
            return jax.random.uniform(rng, (num_samples, *shape), faces.dtype, faces[0][None], faces[1][None])

        return {}, log_pdf, sample

    return init_fun
