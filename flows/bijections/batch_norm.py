"""Batch normalisation as a bijection, without hidden state. Family: Scales and norms."""

import jax.numpy as jnp

from flows.bijections.scaling import channel_moments
from flows.core import FlowsError, Traits, along, bijection, joined_moments, number, size

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
