"""Autoregressive layers: a masked network makes the transformer's parameters from the features before.
Family: Couplings and autoregressive layers."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from flows.bijections.engine import Columns, NetworkInputs, as_transformers, conditioned, for_each, places_by
from flows.compose import Invert
from flows.conditioners import MaskedMLP
from flows.conditioners.base import ConditionerInit, check_conditioner
from flows.conditioners.network import Squash, check_squash, running
from flows.core import ConditionerLike, FlowsError, Layer, bijection
from flows.transformers import Affine, Gated
from flows.transformers.base import Transformer


@bijection(batched=True, support=lambda transformer, **_: places_by(transformer, name="Autoregressive"))
def Autoregressive(
    conditioner: ConditionerLike | None = None,
    transformer: Transformer | Sequence[Transformer] | None = None,
    random_order: bool = False,
    squash: Squash = None,
):
    """A transformer on each feature, with parameters that a masked network makes of the features before it.

    y_i = f(x_i; theta_i(x_0 .. x_{i-1}, context)), log|det J| = sum_i log f'(x_i; theta_i): the Jacobian is triangular. The
    direct function is one pass of the network. The inverse finds one feature after the other: with a masked network of ours
    it computes each hidden unit once, which costs about one pass more; any other network takes a pass for each feature.

    Args:
        conditioner: `net(rng, d, num_params * d) -> (params, apply_fun)`, made autoregressive by masks; its output
            is `(num_params, d)` flattened. By default `MaskedMLP(64, 64)`. Only networks of ours may have another order than
            0, 1, 2, ...: `MaskedResidual(order=(2, 0, 1))`.
        transformer: one of `flows.transformers`, by default `Affine()`; or a sequence of d of them, one for each feature. Where
            one has a period, its feature is an angle: the network then has two inputs for each feature, cos and sin of an
            angle, or a number and 0, and its outputs for the first of the two are used.
        random_order: True for an order drawn at init, in front of the order of the network.
        squash: the limit up to which the network sees x as it is, as in `Coupling`.

    Params:
        A dict of the same keys, whatever the options. "conditioner": the network's, or `{"theta": (num_params,)}` in one
        dimension without a context; "transformer": the weights of transformers that have some; "fixed": `{"ranks": (d,)}` of
        a random order. Entries that are not used are empty.

    Cost:
        Direct: a pass of the network. Inverse: two passes with a masked network of ours, else, or with angles, d passes.

    Errors:
        FlowsError: an event of several axes; several transformers under a random order, or not one for each feature; a
            network of ours that is not masked, or that has an `order` where there are angles. TypeError: an argument that is
            not a conditioner or not a transformer.

    Source:
        Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", 2017, arXiv:1705.07057,
        section 3; Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", 2016, arXiv:1606.04934.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.Autoregressive(transformer=flows.transformers.RationalQuadratic())
        >>> params, direct_fun, inverse_fun = init_fun(0, 3)
        >>> direct_fun(params, jnp.zeros((2, 3)))[1].shape
        (2,)
    """
    net = MaskedMLP(64, 64) if conditioner is None else check_conditioner(conditioner, "Autoregressive")
    transformers = as_transformers(Affine() if transformer is None else transformer, "Autoregressive")
    squash = check_squash(squash, "Autoregressive: squash")
    if random_order and len(set(transformers)) > 1:
        raise FlowsError("Autoregressive: a random order leaves open which transformer a feature gets; give one for all")

    def make(key, shape, context, args):
        if len(shape) != 1:
            raise FlowsError(f"Autoregressive: the event is {shape}; expected a vector, such as input_dim=5")
        (d,) = shape
        per_feature, keys = for_each(transformers, d, "Autoregressive"), jax.random.split(key, 3)
        columns, network_inputs = Columns(per_feature), NetworkInputs(per_feature)

        def ordered(params, x):
            return x[jnp.argsort(params["fixed"]["ranks"])] if random_order else x

        def restored(params, x):
            return x[jnp.argsort(jnp.argsort(params["fixed"]["ranks"]))] if random_order else x

        layer_params = args.params
        if layer_params is None:
            ranks = {"ranks": jax.random.permutation(keys[0], d).astype(float)} if random_order else {}
            transformer = columns.init(keys[1]) if columns.has_weights else ()
            layer_params = {"conditioner": None, "transformer": transformer, "fixed": ranks}
        pairs = bool(network_inputs.angles.any())
        if pairs and d > 1 and isinstance(net, ConditionerInit) and net.arguments.get("order") is not None:
            raise FlowsError(f"Autoregressive: {net!r:.60} has an order that does not fit angles; put Permute in front instead")
        if network_inputs.classes:
            raise FlowsError(
                "Autoregressive: a transformer maps codes; expected the base Categorical, which is autoregressive, with a mass "
                "for each code, or a Coupling"
            )
        see, width = (network_inputs.in_pairs, 2 * d) if pairs else (network_inputs, d)
        data = None if args.init_inputs is None else see(ordered(layer_params, args.init_inputs.T)).T
        args = args._replace(init_inputs=data, params=layer_params["conditioner"])
        ours = isinstance(net, ConditionerInit) and not isinstance(net.inner, TwoArguments)
        alone = d == 1 and context is None and ours  # one feature has nothing before it
        inputs, width = (0, 1) if alone else (width, width)
        start, network = running(net, keys[2], (inputs,), (columns.num_params * width,), context, args, squash)
        if not alone and network.sees_all:
            raise FlowsError(
                f"Autoregressive: each output of {net!r:.120} depends on all inputs; expected a masked network, such as "
                "MaskedMLP(64)"
            )

        def theta_of(params, x, **call):
            theta = network.run(params["conditioner"], see(x), **call)
            theta = theta[:, :1] if network.constant else theta
            return theta.reshape(columns.num_params, width, theta.shape[1])[:, :: width // d]

        def direct(params, x, **call):
            x = ordered(params, x.T)
            y, log_det = columns.direct(theta_of(params, x, **call), x, params["transformer"])
            return restored(params, y).T, log_det.sum(0)

        def solved(params, y, with_slope, **call):
            """x, one feature after the other, and each log dy/dx, by the theta that solves for it."""
            weights, y = params["transformer"], ordered(params, y.T)

            def find(feature, theta, y):
                return columns.inverse_of_one(feature, theta, y, weights, with_slope)

            if network.solve is not None and network_inputs.plain and not (call.get("train") and network.keywords):
                x, log_slope = network.solve(params["conditioner"], call.get("context"), y, find)
            else:
                x, log_slope = one_by_one(lambda x: theta_of(params, x, **call), find, y)
            return restored(params, x).T, log_slope

        def inverse(params, y, **call):
            return solved(params, y, False, **call)[0]

        def inverse_and_log_det(params, y, **call):
            x, log_slope = solved(params, y, True, **call)
            return x, -log_slope.sum(0)

        params = {**layer_params, "conditioner": start}
        return Layer(params, direct, inverse, inverse_and_log_det, keywords={"context", *network.keywords})

    return conditioned(net, make)


def one_by_one(theta_of, find, y):
    """x, and the other results of `find`: x_i, others_i = find(i, theta_i(x), y_i), by a whole pass for each feature."""

    def step(x, i):
        theta = jax.lax.dynamic_slice_in_dim(theta_of(x), i, 1, axis=1)
        new, others = find(i, theta, jax.lax.dynamic_slice_in_dim(y, i, 1))
        # Later features stay 0, as they are not known yet.
        return jax.lax.dynamic_update_slice_in_dim(x, new, i, 0), jax.tree.map(lambda leaf: leaf[0], others)

    return jax.lax.scan(step, jnp.zeros_like(y), jnp.arange(y.shape[0]))


@bijection
def InverseAutoregressive(
    conditioner: ConditionerLike | None = None,
    transformer: Transformer | Sequence[Transformer] | None = None,
    random_order: bool = False,
    squash: Squash = None,
):
    """An inverse autoregressive layer: a sample takes one pass, a density computes one feature after the other.

    x_i = f(y_i; theta_i(y_0 .. y_{i-1}, context)) from noise y to data x, log|det dy/dx| = -sum_i log f'(y_i; theta_i): the
    inverse of `Autoregressive`. By default f is the gated update of inverse autoregressive flow, x_i = sigma_i y_i +
    (1 - sigma_i) m_i (`transformers.Gated`).

    Args:
        conditioner, random_order, squash: as in `Autoregressive`.
        transformer: by default `Gated()`.

    Params:
        As in `Autoregressive`.

    Cost:
        Direct: two passes with a masked network of ours, else d passes. Inverse: a pass of the network.

    Errors:
        FlowsError: as in `Autoregressive`.

    Source:
        Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", 2016, arXiv:1606.04934, equations
        9-14.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.InverseAutoregressive()(0, 3, context_dim=2)
        >>> inverse_fun(params, jnp.zeros((4, 3)), context=jnp.ones(2))[0].shape
        (4, 3)
    """
    transformer = Gated() if transformer is None else transformer
    return Invert(Autoregressive(conditioner, transformer, random_order, squash))


class TwoArguments:
    """A network in the form of the original jax-flows, `transform(rng, input_dim)`."""

    def __init__(self, transform):
        self.transform = transform

    def __call__(self, rng, input_dim, output_dim, context_dim=0):
        if context_dim:
            raise FlowsError(
                "MADE: a transform of two arguments cannot take a context, as only its author knows its masks; use "
                "MADE() or MADE(MaskedMLP(...)), which do"
            )
        return self.transform(rng, input_dim)
