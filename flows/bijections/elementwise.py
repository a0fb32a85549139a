"""A transformer on every entry of an event, each by itself. Family: Bounds and scalar maps."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax

from flows.bijections.engine import Columns, Trained, as_transformers, circles, conditioned, for_each
from flows.conditioners.base import check_conditioner
from flows.conditioners.network import running
from flows.core import ConditionerLike, FlowsError, Layer, bijection, size
from flows.transformers.base import Transformer


@bijection(batched=True, support=lambda transformer, **_: circles(transformer, name="Elementwise"))
def Elementwise(transformer: Transformer | Sequence[Transformer], conditioner: ConditionerLike | None = None):
    """A transformer on every entry of the event, with parameters that are trained, or that a network makes of the context.

    y_i = f(x_i; theta_i), log|det J| = sum_i log f'(x_i; theta_i).

    Args:
        transformer: one of `flows.transformers`, or a sequence with one for each entry of the event.
        conditioner: `net(rng, context_dim, num_params * entries) -> (params, apply_fun)`, such as `MLP(32)`: theta is its
            output for the context, which is then required. By default theta is a trained param, one for each entry.

    Params:
        `{"theta": (num_params, entries)}`, which starts at 0; with a conditioner "conditioner" instead of "theta"; "weights" of
        transformers that have some.

    Cost:
        Direct: O(d), and a pass of the network of the context. Inverse: the same, unless a transformer's inverse is a root.

    Errors:
        FlowsError: a conditioner without context_dim.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Elementwise(flows.transformers.RationalQuadratic(num_bins=4))(0, 3)
        >>> params["theta"].shape, direct_fun(params, jnp.ones((2, 3)))[0].tolist()
        ((11, 3), [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    """
    transformers = as_transformers(transformer, "Elementwise")
    net: Any = None if conditioner is None else check_conditioner(conditioner, "Elementwise")

    def layer(params, direct, inverse, keywords=()):
        """Make a layer of functions of (entries, batch), which return the log-slope of each entry."""

        def leading(x):
            return x.reshape(x.shape[0], size(x.shape[1:])).T

        def direct_rows(params, x, **call):
            y, log_slope = direct(params, leading(x), **call)
            return y.T.reshape(x.shape), log_slope.sum(0)

        def inverse_rows(params, y, **call):
            return inverse(params, leading(y), **call)[0].T.reshape(y.shape)

        return Layer(params, direct_rows, inverse_rows, keywords=keywords)

    def trained_init(rng, shape):
        trained = Trained(Columns(for_each(transformers, size(shape), "Elementwise")))
        return layer(trained.init(rng), trained.direct, trained.inverse)

    def make(key, shape, context, args):
        if context is None:
            raise FlowsError("Elementwise: a conditioner makes the parameters from a context; give context_dim to init_fun")
        columns = Columns(for_each(transformers, size(shape), "Elementwise"))
        keys, old = jax.random.split(key), args.params or {}
        args = args._replace(params=old.get("conditioner"))
        start, network = running(net, keys[0], (0,), (columns.num_params * size(shape),), context, args)
        layer_params = {"conditioner": start}
        if columns.has_weights:
            layer_params["weights"] = old["weights"] if old else columns.init(keys[1])

        def apply(step, params, x, **call):
            theta = network.run(params["conditioner"], x, **call)
            return step(theta.reshape(columns.num_params, *x.shape), x, params.get("weights"))

        on_each = partial(apply, columns.direct), partial(apply, columns.inverse)
        return layer(layer_params, *on_each, keywords={"context", *network.keywords})

    return trained_init if net is None else conditioned(net, make)
