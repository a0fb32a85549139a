"""Fixed permutations of an axis: features of a vector, channels of an image. log|det J| = 0.
Family: Permutations and layouts."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import FlowsError, Support, bijection, numbers


@bijection(batched=True, support=Support(moves_entries=True))
def Reverse(axis: int = -1):
    """An axis in reverse order, by default the last: y_i = x_{n-1-i} of its n entries, log|det J| = 0.

    Args:
        axis: an axis of the event; negative numbers count from the last: -1 for features or channels; 0 for the rows of
            images, 1 for their columns; 0 for the order of tokens (T, C).

    Params:
        fixed: ranks: (n,), the order as floats, as in the other permutations; it is known, and not read.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an axis that is not a whole number, or that the event does not have.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Reverse()(0, 3)
        >>> direct_fun(params, jnp.array([[1.0, 2.0, 3.0]]))[0].tolist()
        [[3.0, 2.0, 1.0]]
    """
    if type(axis) is not int:
        raise FlowsError(f"Reverse: axis is {axis!r:.60}; expected a whole number, such as -1 for the last axis")

    def init_fun(rng, shape):
        if not -len(shape) <= axis < len(shape):
            raise FlowsError(
                f"Reverse: axis is {axis}, and the event is {shape}; expected a number from {-len(shape)} to {len(shape) - 1}, "
                "where 0 is the first axis and -1 the last"
            )
        ranks = jnp.arange(shape[axis], 0, -1, dtype=float)
        return {"fixed": {"ranks": ranks}}, direct_fun, inverse_fun

    # A flip, as the gradient of a gather is a scatter, which is slow for a few rows.
    def inverse_fun(params, y):
        return moved(lambda y: jnp.flip(y, 0), y, axis if axis < 0 else axis + 1)

    def direct_fun(params, x):
        return inverse_fun(params, x), jnp.zeros(x.shape[0], x.dtype)

    return init_fun


@bijection(batched=True, support=Support(moves_entries=True))
def Shuffle():
    """The last axis in an order drawn at init: y_i = x_{p(i)} with p = argsort(ranks), log|det J| = 0.

    Params:
        fixed: ranks: (channels,), the order as floats, so that it lives among float params and survives weight decay.

    Cost:
        Direct: O(d). Inverse: O(d).

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Shuffle()(0, 5)
        >>> x = jnp.arange(5.0)[None]
        >>> inverse_fun(params, direct_fun(params, x)[0])[0].tolist() == x.tolist()
        True
    """

    def init_fun(rng, shape):
        return {"fixed": {"ranks": jax.random.permutation(rng, shape[-1]).astype(float)}}, permute, unpermute

    return init_fun


@bijection(batched=True, support=Support(moves_entries=True))
def Permute(order: Sequence[int]):
    """The last axis in a given order: y_i = x_{order[i]}, log|det J| = 0.

    Args:
        order: the features 0 .. d - 1, each once.

    Params:
        fixed: ranks: (channels,), the place of each feature, as floats.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an order that leaves a feature out or has one twice, or of another number of features.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Permute((2, 0, 1))(0, 3)
        >>> direct_fun(params, jnp.array([[1.0, 2.0, 3.0]]))[0].tolist()
        [[3.0, 1.0, 2.0]]
    """
    places = numbers(order, "Permute: order")
    if places.ndim != 1 or not places.size or not np.array_equal(np.sort(places), np.arange(places.size)):
        raise FlowsError(f"Permute: order is {order!r:.80}; expected the features 0, 1, 2, ..., each once")

    def init_fun(rng, shape):
        if shape[-1] != len(places):
            raise FlowsError(f"Permute: order has {len(places)} features, but the event {shape} has {shape[-1]}")
        return {"fixed": {"ranks": jnp.asarray(np.argsort(places), float)}}, permute, unpermute

    return init_fun


def permute(params, x):
    order = jnp.argsort(params["fixed"]["ranks"])
    return moved(lambda x: jnp.take(x, order, axis=0), x), jnp.zeros(x.shape[0], x.dtype)


def unpermute(params, y):
    order = jnp.argsort(jnp.argsort(params["fixed"]["ranks"]))
    return moved(lambda y: jnp.take(y, order, axis=0), y)


def moved(function, x, axis=-1):
    """Apply the function with this axis in front: next to an engine, whose features lead, both moves cancel."""
    return jnp.moveaxis(function(jnp.moveaxis(x, axis, 0)), 0, axis)
