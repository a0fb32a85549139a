"""Layers that are random: noise for values that were rounded, and noise and flipped images in training alone.
Family: Noise and augmentation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.learned_noise import learned, within_cell
from flows.core import (
    BijectionAuthor,
    Composite,
    DistributionLike,
    FlowsError,
    Region,
    Rounding,
    Shape,
    Support,
    Traits,
    Value,
    along,
    bijection,
    numbers,
    positive,
    positive_int,
    traits_by,
)


def _support(step: float | Sequence[float], levels: int | None, noise: Any) -> Support:
    steps = numbers(step, "Dequantize: step")
    leaves = tuple(np.flatnonzero(steps == 0).tolist()) if steps.ndim == 1 else ()
    if levels is None:
        return Support(entrywise=True, leaves=leaves)
    top = positive_int(levels, "Dequantize: levels") - 1
    if not top:
        raise FlowsError("Dequantize: levels is 1, and a column of one value has no density; expected 2 or more")
    bounded = steps > 0

    def values(event: Shape) -> Region:
        return Region(np.where(bounded, 0.0, -np.inf), np.where(bounded, top * steps, np.inf))

    def noisy(event: Shape) -> Region:
        return Region(np.where(bounded, -steps / 2, -np.inf), np.where(bounded, (top + 0.5) * steps, np.inf))

    return Support(values, noisy, entrywise=True, leaves=leaves)


def _traits(step: float | Sequence[float], levels: int | None, noise: Any) -> Traits:
    return Traits(rounding=Rounding(step, levels, noise is not None))


@bijection(likelihood="lower bound", support=_support, traits=_traits)
def Dequantize(step: float | Sequence[float] = 1.0, levels: int | None = None, noise: DistributionLike | None = None):
    """Noise as wide as the step to which values were rounded: y = x + step (u - 1/2), u uniform on [0, 1), or learned.

    log|det J| = 0, and y is inside its cell, whatever its rounding (float16 is computed in float32 and rounded again). The mean
    of log p(y) over u is a lower bound on log(P(x) / prod(step)), where P(x) is the mass that p gives to the cell around x, in
    nats; so a model of y is a model of x, and cannot gain by spikes on single values. Each entry of u is drawn from `rng`;
    without `rng` it is 1/2, and log p is the density at the recorded value, neither bound nor mass. The inverse rounds to the
    possible values, offset + k step: the layer is not a bijection, and has no exact density.

    With `noise`, u is drawn from q(u | x), which trains with the model, and log|det J| = -log q(u | x): the bound becomes
    tighter the nearer q is to how p spreads over the cell. The inverse has the log-det log q(u | x), u being what it rounds
    away. `fit` then trains a single model: members and folds share such first layers.

    Args:
        step: the distance of neighbouring values, one for all columns (the last axis of the event) or one each; 0 for a
            continuous column.
        levels: the number of possible values, 0, step, 2 step, ..., such as 256 for pixels of images: samples have no other
            value, and points outside have no density. None where values have no bounds.
        noise: q, a conditional distribution of the same event on (0, 1), such as `FlowPlusPlusNoise()` for images. Its context
            are the recorded values: scaled to [-1, 1] with `levels`, else standardised. None for uniform noise.

    Params:
        fixed: offset, (channels,), a value of each column: 0, or the least of `init_inputs`; with levels always 0. With noise
        also "noise", and without levels mean and std, (channels,), under fixed.

    Cost:
        Direct: O(d). Inverse: O(d). With noise: a draw of it, with its density.

    Errors:
        FlowsError: a step below 0 or not finite, or not one for each column; fewer than two levels; noise that is not on (0, 1)
            or takes no context, or a step of 0 next to it.

    Source:
        Theis, van den Oord and Bethge, "A note on the evaluation of generative models", 2016, arXiv:1511.01844, section 3.1;
        learned noise: Ho, Chen, Srinivas, Duan and Abbeel, "Flow++", 2019, arXiv:1902.00275, section 3.1.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Dequantize((1.0, 0.0))(0, 2)
        >>> inverse_fun(params, jnp.array([[1.75, 1.75]]))[0].tolist()
        [[2.0, 1.75]]
    """
    steps = numbers(step, "Dequantize: step")
    if steps.ndim > 1 or not np.isfinite(steps).all() or (steps < 0).any():
        raise FlowsError(f"Dequantize: step is {step!r:.80}; expected a number above 0, or one for each column (0: continuous)")

    def init_fun(rng, shape, init_inputs=None, params=None):
        channels = shape[-1:]
        if steps.shape not in ((), channels):
            raise FlowsError(f"Dequantize: {len(steps)} steps for {channels[0]} columns; expected one, or one for each")
        widths = np.broadcast_to(steps, channels)

        def direct_fun(params, x, rng=None):
            if rng is None:
                return x, jnp.zeros((), x.dtype)
            size = along(jnp.asarray(widths, x.dtype), x)
            y = x + size * (jax.random.uniform(rng, x.shape, x.dtype) - 0.5)
            return within_cell(x, y, size), jnp.zeros((), x.dtype)

        def inverse_fun(params, y):
            size = along(jnp.asarray(widths, y.dtype), y)
            offset, divisor = along(params["fixed"]["offset"], y), jnp.where(size > 0, size, jnp.ones_like(size))
            k = jnp.round((y - offset) / divisor)
            return jnp.where(size > 0, offset + size * (k if levels is None else jnp.clip(k, 0, levels - 1)), y)

        offset = jnp.zeros(channels)
        if init_inputs is not None and levels is None:
            offset = init_inputs.min(tuple(range(init_inputs.ndim - 1)))
        elif params is not None:
            offset = params["fixed"]["offset"]
        return {"fixed": {"offset": offset}}, direct_fun, inverse_fun

    return init_fun if noise is None else learned(steps, levels, noise, init_fun)


def trains_noise(model: Any) -> bool:
    """Tell whether a model adds noise that trains to rounded values."""
    roundings = [traits_by(value).rounding for value in (model, *model.values_within())] if isinstance(model, Value) else []
    return any(rounding is not None and rounding.trains for rounding in roundings)


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
