"""Two networks side by side. Family: Several networks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditioners.base import as_network, check_conditioner, conditioner
from flows.conditioners.masked import Masked
from flows.conditioners.network import appended, measured_by
from flows.core import CALL, INIT, ConditionerLike, FlowsError, named_by, naming, select


def _runs(first: ConditionerLike, second: ConditionerLike) -> bool:
    return any(getattr(net, "running", False) for net in (first, second))


@conditioner(running=_runs)
def Pair(first: ConditionerLike, second: ConditionerLike):
    """Two networks side by side: `first` makes the first half of the outputs, `second` the other half.

    outputs = (first(x, c), second(x, c)), joined along the last axis. So an affine coupling, of any mask, or of images, has one
    network for its log-scales and one for its shifts, and an autoregressive layer has two masked networks.

    Args:
        first, second: networks such as `MLP(64)`, or functions `net(rng, input_dim, outputs) -> (params, apply_fun)`. One that
            names `context_dim` gets the context in its own way; to the inputs of another it is appended. A transformer with two
            parameters has the first of all features by `first`.

    Params:
        A pair: the params of `first` and of `second`.

    Errors:
        FlowsError: an odd number of outputs; a masked network whose order is not 0, 1, 2, ... TypeError: an argument is not a
            network.

    Source:
        Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", 2017, arXiv:1705.07057,
        section 4.2, whose RealNVP has tanh in the networks of scales and ReLU in the networks of shifts.

    Example:
        >>> import flows
        >>> net = flows.conditioners.Pair(flows.MLP(64, activation="tanh"), flows.MLP(64))
        >>> params, direct_fun, inverse_fun = flows.Coupling(net, mask="alternating")(0, 5)
        >>> len(params["conditioner"])
        2
    """
    nets = tuple(check_conditioner(net, "Pair") for net in (first, second))
    names = [named_by(net, INIT) for net in nets]

    def net(rng, input_dim, output_dim, context_dim=0, init_inputs=None, init_context=None, params=None):
        *sides, outputs = (output_dim,) if isinstance(output_dim, int) else output_dim
        if outputs % 2:
            raise FlowsError(
                f"Pair: output_dim is {output_dim}; expected an even number of outputs, of which each network makes half. "
                "Give a transformer with two parameters, such as Affine(), or one network"
            )
        half, starts, applies = (*sides, outputs // 2) if sides else outputs // 2, [], []
        for net, of_net, key, old in zip(nets, names, jax.random.split(rng), params or (None, None), strict=True):
            appends = bool(context_dim) and "context_dim" not in of_net
            if appends and not isinstance(context_dim, int):
                raise FlowsError(f"Pair: {net!r:.60} takes no context of images {context_dim}; give one that names context_dim")
            inputs = widened(input_dim, context_dim) if appends else input_dim
            data = {"init_inputs": init_inputs, "init_context": init_context, "params": old, "context_dim": context_dim or None}
            if appends and init_inputs is not None:
                data |= {"init_inputs": appended(init_inputs, init_context), "init_context": None}
            call = select(of_net, **{name: value for name, value in data.items() if value is not None})
            start, apply = as_network(net(key, inputs, half, **call), f"Pair: {net!r:.60}")
            if isinstance(apply, Masked) and not np.array_equal(apply.order, np.arange(input_dim)):
                raise FlowsError(
                    f"Pair: {net!r:.60} has another order than 0, 1, 2, ..., which two networks need; put Permute in front"
                )
            starts.append(start if old is None or measured_by(net) else old)
            applies.append(with_context(apply) if appends else apply)
        return tuple(starts), side_by_side(applies)

    return naming(net, frozenset().union(*names))


def widened(input_dim: Any, context_dim: int) -> Any:
    return input_dim + context_dim if isinstance(input_dim, int) else (*input_dim[:-1], input_dim[-1] + context_dim)


def with_context(apply: Callable) -> Callable:
    """A network that takes a context, of one whose inputs it is appended to."""

    def apply_fun(params, inputs, context=None, rng=None, train=False):
        call = select(named_by(apply, CALL), rng=rng, train=train)
        return apply(params, appended(inputs, context), **call)

    apply_fun.sees_all = getattr(apply, "sees_all", False)  # type: ignore[attr-defined]
    return naming(apply_fun, named_by(apply, CALL) | {"context"})


def side_by_side(applies: list) -> Callable:
    """The outputs of two networks, one after the other."""
    names = [named_by(apply, CALL) for apply in applies]

    def apply_fun(params, inputs, context=None, rng=None, train=False):
        keys = (None, None) if rng is None else jax.random.split(rng)
        calls = [select(of, context=context, rng=key, train=train) for of, key in zip(names, keys, strict=True)]
        of_each = zip(applies, params, calls, strict=True)
        return jnp.concatenate([apply(of_net, inputs, **call) for apply, of_net, call in of_each], axis=-1)

    apply_fun.sees_all = any(getattr(apply, "sees_all", False) for apply in applies)  # type: ignore[attr-defined]
    return naming(apply_fun, frozenset().union(*names))
