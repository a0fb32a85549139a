"""Layers of vectors whose parameters are trained, plus the output of a network of the context, if there is one.

Their authors write formulas of one event and its parameters, from which `amortised` makes a layer.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.engine import conditioned
from flows.conditioners.base import check_conditioner
from flows.conditioners.network import running
from flows.core import Array, ConditionerLike, FlowsError, Layer

FLOOR = 1e-3  # of a slope


def slope_of(p: Array) -> Array:
    """A slope above 0, and 1 at p = 0: log(1 + (e - 1) exp(p)), with a floor."""
    return FLOOR + (1 - FLOOR) * jax.nn.softplus(p + np.log(np.e - 1))


def bend_of(p: Array) -> Array:
    """`slope_of(p)` - 1, with all its digits near 0."""
    near = jnp.log1p((1 - np.exp(-1)) * jnp.expm1(jnp.minimum(p, 20.0)))
    return (1 - FLOOR) * jnp.where(p < 20.0, near, jax.nn.softplus(p + np.log(np.e - 1)) - 1)


def amortised(name: str, conditioner: ConditionerLike | None, start: Callable, direct: Callable, inverse: Callable) -> Callable:
    """The init_fun of a layer, of batches: `start(rng, d)` returns a dict of parameter arrays, `direct(theta, x)` and
    `inverse(theta, y)` return one event and its log-det."""
    net: Any = None if conditioner is None else check_conditioner(conditioner, name)

    def started(rng: Array, shape: tuple[int, ...]) -> dict[str, Array]:
        if len(shape) != 1:
            raise FlowsError(f"{name}: the event is {shape}; expected a vector, such as input_dim=5")
        return start(rng, shape[0])

    def layer(params: Any, direct: Callable, pair: Callable, keywords: Iterable[str] = ()) -> Layer:
        return Layer(params, direct, lambda params, y, **call: pair(params, y, **call)[0], pair, keywords=keywords)

    def trained_init(rng, shape):
        return layer(started(rng, shape), jax.vmap(direct, (None, 0)), jax.vmap(inverse, (None, 0)))

    def make(key, shape, context, args):
        if context is None:
            raise FlowsError(f"{name}: a conditioner makes the parameters from a context; give context_dim to init_fun")
        keys, old = jax.random.split(key), args.params or {}
        layer_params = {key: old[key] for key in old if key != "conditioner"} or started(keys[0], shape)
        sizes = {name: layer_params[name].size for name in sorted(layer_params)}
        ends = np.cumsum(list(sizes.values()))
        args = args._replace(params=old.get("conditioner"))
        net_params, network = running(net, keys[1], (0,), (int(ends[-1]),), context, args)

        def theta_of(params, x, **call):
            """The parameters of each row: the trained ones plus the output of the network."""
            moves = network.run(params["conditioner"], x.T, **call)
            pieces = zip(sizes, jnp.split(moves.T, ends[:-1], axis=1), strict=True)
            return {name: params[name][None] + piece.reshape(-1, *params[name].shape) for name, piece in pieces}

        def direct_rows(params, x, **call):
            return jax.vmap(direct)(theta_of(params, x, **call), x)

        def pair(params, y, **call):
            return jax.vmap(inverse)(theta_of(params, y, **call), y)

        return layer({**layer_params, "conditioner": net_params}, direct_rows, pair, {"context", *network.keywords})

    return trained_init if net is None else conditioned(net, make)
