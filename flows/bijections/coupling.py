"""Coupling layers: some of the features decide how the others are transformed. Family: Couplings and autoregressive layers."""

from collections.abc import Sequence

import jax.numpy as jnp

from flows.bijections.engine import as_transformers, circles, conditioned
from flows.bijections.masks import MASKS, Features, Pixels
from flows.conditioners import MLP
from flows.conditioners.base import check_conditioner
from flows.conditioners.network import Squash, check_squash, running
from flows.core import ConditionerLike, FlowsError, Layer, bijection
from flows.transformers import Affine
from flows.transformers.base import Transformer


@bijection(
    batched=True,
    support=lambda transformer, unconditional, **_: circles(transformer, unconditional, "Coupling"),
)
def Coupling(
    conditioner: ConditionerLike | None = None,
    transformer: Transformer | Sequence[Transformer] | None = None,
    mask: str | Sequence[bool] = "halves",
    flip: bool = False,
    unconditional: Transformer | Sequence[Transformer] | None = None,
    squash: Squash = None,
):
    """A transformer on some of the features, with parameters that a network makes from the others.

    y_keep = x_keep, y_i = f(x_i; theta_i(x_keep, context)), log|det J| = sum_i log f'(x_i; theta_i). Features are the
    entries of the last axis. In one dimension nothing is kept, and theta depends on the context alone, or is a constant.

    Args:
        conditioner: `net(rng, input_dim, output_dim) -> (params, apply_fun)`; by default `MLP(64, 64)`. Its output is
            `(num_params, features)` flattened along the last axis: the first parameter of every feature, then the second.
            For events of several axes both dims are tuples and `apply_fun` maps batches of events.
        transformer: one of `flows.transformers`, by default `Affine()`; or a sequence of d of them, one for each feature of
            the event, with theta as wide as the widest needs. A kept feature whose transformer has a period is an angle, of
            which the network sees cos and sin.
        mask: which features are kept: "halves" (the first d // 2), "alternating" (1, 3, 5, ...), "random" (d // 2 of them,
            drawn at init), or d booleans, True for kept. Or "checkerboard", for images (H, W, C): the pixels (i, j) with
            i + j even. The network sees the image with zeros elsewhere, and one channel more, 1 where pixels are kept and 0
            elsewhere; its outputs at kept pixels are not used. `Through(Checkerboard(), Coupling(...))` is the same mask
            without the work for pixels that are kept.
        flip: keep the other features instead; a single feature is transformed in any case.
        unconditional: a transformer for the kept features too, with separate, trained parameters: y_keep = g(x_keep), whose
            log-slopes are added. The network sees x_keep.
        squash: the limit up to which the network sees x as it is; beyond, inputs flatten out within 1 more, squash + tanh(|x|
            - squash). It keeps inverses precise far from the data, where a network extrapolates; 2 or 3 times the spread of the
            data costs little. ("tanh", c) for c tanh(x / c).

    Params:
        A dict of the same keys, whatever the options. "conditioner": the network's, or `{"theta": (num_params * features,)}`
        where theta is a constant; "transformer": the weights of transformers that have some; "unconditional":
        `{"theta": (num_params, kept)}`; "fixed": `{"ranks": (d,)}` of a random mask. Unused entries are empty.

    Cost:
        Direct: a pass of the network. Inverse: the same, unless a transformer's inverse is a root.

    Errors:
        FlowsError: a mask that keeps every feature, or does not have one entry for each; a checkerboard of an event that is not
            an image, or with `unconditional`.

    Source:
        Dinh, Krueger and Bengio, "NICE: Non-linear Independent Components Estimation", 2014, arXiv:1410.8516, section 3.2;
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, equations 4-9, and
        section 3.4 for the checkerboard; the unconditional part: Durkan, Bekasov, Murray and Papamakarios, "Neural Spline
        Flows", 2019, arXiv:1906.04032, section 3.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.Coupling(flows.MLP(32), flows.transformers.RationalQuadratic(num_bins=4), mask=(True, False, True))
        >>> params, direct_fun, inverse_fun = init_fun(0, 3)
        >>> direct_fun(params, jnp.zeros((2, 3)))[1].shape
        (2,)
    """
    net = MLP(64, 64) if conditioner is None else check_conditioner(conditioner, "Coupling")
    transformers = as_transformers(Affine() if transformer is None else transformer, "Coupling")
    extra = None if unconditional is None else as_transformers(unconditional, "Coupling: unconditional")
    squash = check_squash(squash, "Coupling: squash")
    if isinstance(mask, str) and mask not in MASKS:
        raise FlowsError(f"Coupling: mask is {mask!r}; expected one of {', '.join(MASKS)}, or a boolean for each feature")
    if mask == "checkerboard" and extra is not None:
        raise FlowsError(
            "Coupling: mask='checkerboard' returns kept pixels as they are, and unconditional was given for them; expected one "
            "of the two. Give Through(Checkerboard(), Coupling(..., unconditional=...)), whose mask is the same"
        )

    def make(key, shape, context, args):
        at = Pixels(transformers, flip, shape) if mask == "checkerboard" else Features(transformers, extra, mask, flip, shape)
        columns, trained = at.columns, at.trained
        key, layer_params = at.start(key, args.params)
        data = args.init_inputs
        data = None if data is None else jnp.moveaxis(at.network_inputs(at.cut(layer_params, data)[0]), 0, -1)
        args = args._replace(init_inputs=data, params=layer_params["conditioner"])
        start, network = running(net, key, at.inputs, at.outputs, context, args, squash)

        def theta_of(params, conditioning, moved, **call):
            theta = at.used(network.run(params["conditioner"], at.network_inputs(conditioning), **call))
            theta = theta[:, :1] if network.constant else theta
            return theta.reshape(columns.num_params, moved.shape[0], *theta.shape[1:])

        def mapped(params, conditioning, moved, theta):
            """y in two parts, and the log-det."""
            moved, log_det = columns.direct(theta, moved, params["transformer"])
            total = _row_sums(at.used(log_det))
            if trained is not None:
                conditioning, log_det = trained.direct(params["unconditional"], conditioning)
                total += _row_sums(log_det)
            return conditioning, moved, total

        def solved(params, y, **call):
            """x in two parts, and theta of the moved one."""
            conditioning, moved = at.cut(params, y)
            if trained is not None:
                conditioning = trained.inverse(params["unconditional"], conditioning)[0]
            theta = theta_of(params, conditioning, moved, **call)
            return conditioning, at.used(columns.inverse(theta, moved, params["transformer"])[0]), theta

        def direct(params, x, **call):
            # Features lead and the batch follows, which is fast.
            conditioning, moved = at.cut(params, x)
            conditioning, moved, log_det = mapped(params, conditioning, moved, theta_of(params, conditioning, moved, **call))
            return at.joined(params, conditioning, moved), log_det

        def inverse(params, y, **call):
            return at.joined(params, *solved(params, y, **call)[:2])

        def inverse_and_log_det(params, y, **call):
            """The network runs once; the log-det is minus the one of `direct` at the x returned."""
            conditioning, moved, theta = solved(params, y, **call)
            return at.joined(params, conditioning, moved), -mapped(params, conditioning, moved, theta)[2]

        params = {**layer_params, "conditioner": start}
        return Layer(params, direct, inverse, inverse_and_log_det, keywords={"context", *network.keywords})

    return conditioned(net, make)


def _row_sums(log_det):
    """The sum over everything but the rows, of (features, batch, *space)."""
    return log_det.sum((0, *range(2, log_det.ndim)))
