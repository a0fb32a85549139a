"""Layers of vectors whose parameters are trained, and moved by what a network makes of the context alone.

Their authors write formulas of one event and its parameters; a layer is made of them here.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditioners.base import check_conditioner
from flows.conditioners.network import build_leading, measured_by
from flows.core import Array, ConditionerLike, FlowsError, Given, Layer, as_context, naming

FLOOR = 1e-3  # of a slope


def slope_of(p: Array) -> Array:
    """A slope above 0, and 1 at p = 0: log(1 + (e - 1) exp(p)), with a floor."""
    return FLOOR + (1 - FLOOR) * jax.nn.softplus(p + np.log(np.e - 1))


def bend_of(p: Array) -> Array:
    """`slope_of(p)` - 1, with all its digits near 0."""
    near = jnp.log1p((1 - np.exp(-1)) * jnp.expm1(jnp.minimum(p, 20.0)))
    return (1 - FLOOR) * jnp.where(p < 20.0, near, jax.nn.softplus(p + np.log(np.e - 1)) - 1)


def amortised(name: str, conditioner: ConditionerLike | None, start: Callable, direct: Callable, inverse: Callable) -> Callable:
    """The init_fun of a layer, of batches: `start(rng, d)` is a dict of the arrays that are its parameters, `direct(theta, x)`
    and `inverse(theta, y)` give one event and its log-det."""
    net: Any = None if conditioner is None else check_conditioner(conditioner, name)

    def started(rng: Array, shape: tuple[int, ...]) -> dict[str, Array]:
        if len(shape) != 1:
            raise FlowsError(f"{name}: the event is {shape}; expected a vector, such as input_dim=5")
        return start(rng, shape[0])

    def trained_init(rng, shape):
        def inverse_fun(params, y):
            return pair(params, y)[0]

        pair = jax.vmap(inverse, (None, 0))
        return Layer(started(rng, shape), jax.vmap(direct, (None, 0)), inverse_fun, pair)

    def conditional_init(rng, shape, context_dim=0, init_inputs=None, init_context=None, params=None):
        if not context_dim:
            raise FlowsError(f"{name}: a conditioner makes the parameters of a context; give context_dim to init_fun")
        keys, old = jax.random.split(rng), params or {}
        own = {key: old[key] for key in old if key != "conditioner"} or started(keys[0], shape)
        leaves, treedef = jax.tree.flatten(own)
        ends = np.cumsum([leaf.size for leaf in leaves])
        data = None if init_inputs is None else jnp.zeros((len(init_inputs), 0), init_inputs.dtype)
        given = Given(data, init_context, old.get("conditioner"))
        net_params, run, names, *_ = build_leading(net, keys[1], 0, int(ends[-1]), as_context(context_dim), given)

        def theta_of(params, x, context, rng, train):
            """The parameters of each row: those that are trained, and what the network adds."""
            moves = run(params["conditioner"], x.T[:0], jnp.moveaxis(context, 0, -1), rng, train)
            each = [params[key] for key in sorted(own)]
            pieces = zip(each, jnp.split(moves.T, ends[:-1], axis=1), strict=True)
            rows = [leaf[None] + piece.reshape(-1, *leaf.shape) for leaf, piece in pieces]
            return jax.tree.unflatten(treedef, rows)

        def direct_fun(params, x, context=None, rng=None, train=False):
            return jax.vmap(direct)(theta_of(params, x, context, rng, train), x)

        def pair(params, y, context=None, rng=None, train=False):
            return jax.vmap(inverse)(theta_of(params, y, context, rng, train), y)

        def inverse_fun(params, y, context=None, rng=None, train=False):
            return pair(params, y, context, rng, train)[0]

        return Layer({**own, "conditioner": net_params}, direct_fun, inverse_fun, pair, keywords={"context", *names})

    if net is None:
        return trained_init
    return naming(conditional_init, {"context_dim", *measured_by(net)})
