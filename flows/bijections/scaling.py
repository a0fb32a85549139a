"""A scale for each feature, with a shift set from data in activation and batch normalisation and in standardisation.
Family: Scales and norms."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from flows.core import Array, FlowsError, Support, Traits, along, bijection, joined_moments, number, size


@bijection
def ActNorm(per: str = "channel"):
    """A trained scale and shift for each feature, or each channel or entry of an image, set from data at init.

    y = (x - shift) exp(log_scale), log|det J| = places * sum(log_scale), where `places` is the number of entries that share
    a channel (1 for vectors). From `init_inputs`: shift = mean, log_scale = -log(std + 1e-6), so that y has mean 0 and
    standard deviation 1; without them both are 0.

    Args:
        per: "channel", the last axis of the event, or "entry", each place of an image by itself.

    Params:
        log_scale, shift: (channels,), or the shape of the event.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an unknown `per`.

    Source:
        Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018, arXiv:1807.03039, section 3.1.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> x = jnp.array([[1.0], [3.0]])
        >>> params, direct_fun, inverse_fun = flows.ActNorm()(0, 1, init_inputs=x)
        >>> direct_fun(params, x)[0].round(3).tolist()
        [[-1.0], [1.0]]
    """

    if per not in ("channel", "entry"):
        raise FlowsError(f"ActNorm: per is {per!r:.60}; expected 'channel' or 'entry'")

    def init_fun(rng, shape, init_inputs=None):
        stored = shape if per == "entry" else shape[-1:]
        mean, std = jnp.zeros(stored), jnp.ones(stored)
        if init_inputs is not None:
            # To channel_moments entries are channels of an event without further axes.
            x = init_inputs.reshape(init_inputs.shape[0], -1) if per == "entry" else init_inputs
            mean, variance = (moment.reshape(stored) for moment in channel_moments(x))
            std = jnp.sqrt(variance) + 1e-6
        return {"log_scale": -jnp.log(std), "shift": mean}, direct_fun, inverse_fun

    def direct_fun(params, x):
        shift, log_scale = (_like(params[name], x) for name in ("shift", "log_scale"))
        return (x - shift) * jnp.exp(log_scale), params["log_scale"].sum() * (x.size // params["log_scale"].size)

    def inverse_fun(params, y):
        shift, log_scale = (_like(params[name], y) for name in ("shift", "log_scale"))
        return y * jnp.exp(-log_scale) + shift

    return init_fun


def _like(v: Array, x: Array) -> Array:
    """One number for each channel, or entry, with the rank of x."""
    return v if v.shape == x.shape else along(v, x)


@bijection
def Scale():
    """A trained scale for each feature, or each channel of an image, which starts at 1.

    y = x exp(log_scale), log|det J| = places * sum(log_scale), where `places` is the number of entries that share a channel (1
    for vectors).

    Params:
        log_scale: (channels,), the last axis of the event.

    Cost:
        Direct: O(d). Inverse: O(d).

    Source:
        Dinh, Krueger and Bengio, "NICE: Non-linear Independent Components Estimation", 2014, arXiv:1410.8516, section 3.3.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Scale()(0, 2)
        >>> direct_fun({"log_scale": jnp.log(jnp.array([2.0, 3.0]))}, jnp.ones((1, 2)))[0].round(4).tolist()
        [[2.0, 3.0]]
    """

    def init_fun(rng, shape):
        return {"log_scale": jnp.zeros(shape[-1:])}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return x * jnp.exp(along(params["log_scale"], x)), params["log_scale"].sum() * size(x.shape[:-1])

    def inverse_fun(params, y):
        return y * jnp.exp(-along(params["log_scale"], y))

    return init_fun


def scaling_support(as_is: Any, name: str) -> Support:
    """Return the support of a layer that scales all features but the ones of `as_is`."""
    leaves = check_features(as_is, name, "as_is")
    return Support(leaves=leaves)


MEASURED = Traits(unit=lambda params: (params["fixed"]["mean"], params["fixed"]["std"]))


@bijection(support=lambda as_is: scaling_support(as_is, "Standardize"), traits=MEASURED)
def Standardize(as_is: Sequence[int] = ()):
    """Mean 0 and standard deviation 1 for each feature, or each channel, measured from data and not trained.

    y = (x - mean) / std, log|det J| = -places * sum(log std). Without `init_inputs` the mean is 0 and std 1. A column that
    never changes keeps std 1. `flows.remeasure` measures it again.

    Args:
        as_is: numbers of the features, or channels, that stay as they are.

    Params:
        fixed: mean, std: (channels,), the last axis of the event.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: as_is has features that do not exist.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> x = jnp.array([[1.0, 5.0], [3.0, 9.0]])
        >>> params, direct_fun, inverse_fun = flows.Standardize()(0, 2, init_inputs=x)
        >>> outputs, log_det = direct_fun(params, x)
        >>> outputs.tolist(), log_det.round(4).tolist()
        ([[-1.0, -1.0], [1.0, 1.0]], [-0.693..., -0.693...])
    """

    as_is = check_features(as_is, "Standardize", "as_is")

    def init_fun(rng, shape, init_inputs=None, params=None):
        fixed = {"mean": jnp.zeros(shape[-1:]), "std": jnp.ones(shape[-1:])}
        alone = named(as_is, shape[-1], "Standardize", "as_is")
        if init_inputs is not None:
            fixed = left_as_is(channel_scale(init_inputs), alone)
        elif params is not None:
            return params, direct_fun, inverse_fun
        return {"fixed": fixed}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return scaled(params["fixed"], x, size(x.shape[:-1]))

    def inverse_fun(params, y):
        return unscaled(params["fixed"], y)

    return init_fun


def scaled(fixed: Any, x: Any, places: int, xp: Any = jnp) -> tuple[Any, Any]:
    """An event, or rows, in standard deviations from the mean of each channel, and log|det J|, where `places` entries of an
    event share a channel; `xp` is jax.numpy or NumPy."""
    mean, std = fixed["mean"], fixed["std"]
    centred = x - along(mean, x)
    if xp is np:
        centred /= along(std, x)  # in place, as new memory for all rows takes longer than the division
    return centred if xp is np else centred / along(std, x), -xp.log(std).sum() * places


def unscaled(fixed: Any, y: Any) -> Any:
    """The inverse of `scaled`."""
    return y * along(fixed["std"], y) + along(fixed["mean"], y)


def check_features(features: Sequence[int], name: str, argument: str) -> tuple[int, ...]:
    numbers = tuple(features) if isinstance(features, list | tuple) else (features,)
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
        raise FlowsError(f"{name}: {argument} is {features!r:.80}; expected numbers of features, 0 or more, such as (0, 3)")
    return numbers


def named(features: Sequence[int], count: int, name: str, argument: str) -> np.ndarray:
    """A mask of `count` features, True for these numbers."""
    if features and max(features) >= count:
        raise FlowsError(f"{name}: {argument} names feature {max(features)}, but there are {count}, counted from 0")
    return np.isin(np.arange(count), features)


def left_as_is(scale: dict[str, Array], alone: np.ndarray) -> dict[str, Array]:
    """The scale, with mean 0 and std 1 for features that stay as they are."""
    return {"mean": jnp.where(alone, 0.0, scale["mean"]), "std": jnp.where(alone, 1.0, scale["std"])}


def channel_scale(x: Array) -> dict[str, Array]:
    """Mean and standard deviation of each channel; 1 for one that never changes."""
    mean, variance = channel_moments(x)
    std, least = jnp.sqrt(variance), 4 * jnp.finfo(mean.dtype).eps * jnp.abs(mean)  # the std of a constant is a rounding
    return {"mean": mean, "std": jnp.where(std > least, std, jnp.ones_like(std))}


def channel_moments(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel of (batch, *event), over everything but the last axis."""
    flat = x.reshape(-1, x.shape[-1])
    mean = flat.mean(0)
    return mean, jnp.square(flat - mean[None]).mean(0)


EPSILON = 1e-5


@bijection(traits=Traits(running=True, joins=True), batched=True)
def BatchNorm(momentum: float = 0.9):
    """Normalisation by statistics, then a trained scale and shift, for each feature or channel.

    y = (x - mean) / sqrt(var + 1e-5) * exp(log_gamma) + beta, log|det J| = places * sum(log_gamma - log(var + 1e-5) / 2).
    With `train=True` mean and var are measured on the batch; otherwise they are in params. The functions return no state:
    `init_inputs` sets the statistics, `flows.remeasure(init_fun, params, x)` replaces them by the exact ones of x, and
    `remeasure(..., moving=True)` moves them by `momentum`, new = momentum * old + (1 - momentum) * measured.

    Args:
        momentum: the share of the old statistics that a moving calibration keeps, in [0, 1).

    Params:
        log_gamma, beta: (channels,), the last axis of the event. fixed: mean, var: (channels,), and momentum: ().

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: the inverse with train=True, since the statistics of the inputs cannot be known from the outputs; a
            momentum outside [0, 1).

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, section 3.7;
        Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", 2017, arXiv:1705.07057,
        appendix B.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.BatchNorm()(0, 1)
        >>> x = jnp.array([[2.0], [4.0]])
        >>> direct_fun(params, x, train=True)[0].round(2).tolist(), direct_fun(params, x)[0].round(2).tolist()
        ([[-1.0], [1.0]], [[2.0], [4.0]])
    """
    momentum = number(momentum, "BatchNorm: momentum", lambda x: 0 <= x < 1, "a number in [0, 1)")

    def init_fun(rng, shape, init_inputs=None, params=None):
        channels = shape[-1:]
        fixed = {"mean": jnp.zeros(channels), "var": jnp.ones(channels), "momentum": jnp.asarray(momentum)}
        trained = {"log_gamma": jnp.zeros(channels), "beta": jnp.zeros(channels)}
        if params is not None:
            trained = {name: params[name] for name in trained}
            fixed = params["fixed"]
        if init_inputs is not None:
            mean, var = channel_moments(init_inputs)
            fixed = {**fixed, "mean": mean, "var": var}
        return {**trained, "fixed": fixed}, direct_fun, inverse_fun

    def direct_fun(params, x, train=False):
        mean, var = params["fixed"]["mean"], params["fixed"]["var"]
        if train:
            mean, var = joined_moments(*channel_moments(x))
        s = log_scale(params, var)
        y = (x - along(mean, x)) * jnp.exp(along(s, x)) + along(params["beta"], x)
        return y, jnp.broadcast_to(s.sum() * size(x.shape[1:-1]), x.shape[0])

    def inverse_fun(params, y, train=False):
        if train:
            raise FlowsError(
                "BatchNorm: the inverse with train=True would need the statistics of its result; call it with "
                "train=False, after flows.remeasure(init_fun, params, x)"
            )
        s = log_scale(params, params["fixed"]["var"])
        return (y - along(params["beta"], y)) * jnp.exp(-along(s, y)) + along(params["fixed"]["mean"], y)

    def log_scale(params, var):
        return params["log_gamma"] - 0.5 * jnp.log(var + EPSILON)

    return init_fun
