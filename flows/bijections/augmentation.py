"""Layers that change inputs in training alone: images flipped at random, and noise. Family: Noise and augmentation."""

import jax
import jax.numpy as jnp

from flows.core import BijectionAuthor, Composite, FlowsError, Support, bijection, positive


@bijection(support=Support(moves_entries=True))
def RandomFlip():
    """Images flipped from left to right with probability 1/2 under `train=True`; else as they are. log|det J| = 0.

    y[i, j, c] = x[i, W - 1 - j, c] in half of the rows of a batch, drawn from `rng`. A flip undoes itself, so the inverse flips
    the rows that the same `rng` flipped. A context that is a vector stays as it is; a context of images, which would need the
    same flips, is refused.

    Params:
        None.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an event that is not (H, W, C); a context that is not a vector; `train=True` without `rng`.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.RandomFlip()(0, (1, 2, 1))
        >>> direct_fun(params, jnp.array([[[[1.0], [2.0]]]]))[0].ravel().tolist()
        [1.0, 2.0]
    """

    def init_fun(rng, shape):
        if len(shape) != 3:
            raise FlowsError(f"RandomFlip: the event is {shape}; expected an image (H, W, C)")
        return {}, direct_fun, inverse_fun

    def direct_fun(params, x, rng=None, train=False):
        return _flipped(x, rng) if train else x, jnp.zeros((), x.dtype)

    def inverse_fun(params, y, rng=None, train=False):
        return _flipped(y, rng) if train else y

    def part(event, context):
        # Checked here, as an init_fun that names context_dim would count as one that takes a context.
        if context is not None and len(context) != 1:
            raise FlowsError(
                f"RandomFlip: context_dim is {context}, and it would flip images but not the contexts that belong to them; "
                "expected a vector. Leave RandomFlip out, and add flipped images with flipped contexts to the data instead"
            )
        return BijectionAuthor("RandomFlip", init_fun, event, context, batched=False).part()

    return Composite(part, ())


def _flipped(x, rng):
    if rng is None:
        raise FlowsError("RandomFlip: train=True draws random numbers; give rng=")
    return jnp.where(jax.random.bernoulli(rng), x[:, ::-1], x)


@bijection
def Noise(std: float):
    """Normal noise under `train=True`: y = x + std e, e from `rng`; else y = x. log|det J| = 0.

    The noise keeps a model from spikes on single rows. It is there in training alone: without `train` a model scores rows
    as they are.

    Args:
        std: standard deviation of the noise, above 0, in the units of the inputs.

    Params:
        None.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: a std that is not above 0; `train=True` without `rng`.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Noise(0.1)(0, 2)
        >>> direct_fun(params, jnp.ones((1, 2)))[0].tolist()
        [[1.0, 1.0]]
    """
    std = positive(std, "Noise: std")

    def init_fun(rng, shape):
        return {}, direct_fun, inverse_fun

    def noise(like, rng):
        if rng is None:
            raise FlowsError("Noise: train=True draws random numbers; give rng=")
        return std * jax.random.normal(rng, like.shape, like.dtype)

    def direct_fun(params, x, rng=None, train=False):
        return x + noise(x, rng) if train else x, jnp.zeros((), x.dtype)

    def inverse_fun(params, y, rng=None, train=False):
        return y - noise(y, rng) if train else y

    return init_fun
