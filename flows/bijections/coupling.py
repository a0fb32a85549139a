"""Coupling layers: some of the features, chosen by a mask, decide how the others are transformed.

Inside, channels lead: a part is (features, batch), or (channels, batch, *space).
Family: Couplings and autoregressive layers."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.engine import (
    Columns,
    NetworkInputs,
    Trained,
    as_transformers,
    conditioned,
    cut,
    for_each,
    places_by,
    reorder,
)
from flows.conditioners import MLP
from flows.conditioners.base import check_conditioner
from flows.conditioners.network import Squash, check_squash, running
from flows.core import Array, ConditionerLike, FlowsError, Layer, Shape, bijection, spend
from flows.transformers import Affine
from flows.transformers.base import Transformer

MASKS = ("halves", "alternating", "random", "checkerboard")
Transformers = tuple[Transformer, ...]


class Features:
    """Features of the last axis: some condition the network, `columns` transform the others; `trained`, if any, the former."""

    def __init__(
        self, transformers: Transformers, extra: Transformers | None, mask: str | Sequence[bool], flip: bool, shape: Shape
    ):
        d = shape[-1]
        spend(size=40 * d)  # of the mask, and of the places of both parts
        keep = _conditioning(mask, d) ^ (flip and not (isinstance(mask, str) and d == 1))
        conditioning, moved = np.flatnonzero(keep), np.flatnonzero(~keep)
        if not len(moved):
            raise FlowsError(f"Coupling: the mask keeps all {d} features, and flip is {flip}; one at least must be transformed")
        self.random, self.order = mask == "random", np.concatenate([conditioning, moved])
        self.sizes = len(conditioning), len(moved)
        per_feature = for_each(transformers, d, "Coupling")
        self.columns = Columns(tuple(per_feature[i] for i in moved))
        self.network_inputs = NetworkInputs([per_feature[i] for i in conditioning])
        if self.random and max(len(set(transformers)), len(set(extra or ()))) > 1:
            raise FlowsError("Coupling: a random mask leaves open which transformer a feature gets; give one for all")
        self.trained = None
        if extra is not None and len(conditioning):
            per_feature = for_each(extra, d, "Coupling")
            self.trained = Trained(Columns(tuple(per_feature[i] for i in conditioning)))
        self.inputs = (*shape[:-1], self.network_inputs.size)
        self.outputs = (*shape[:-1], self.columns.num_params * len(moved))

    def start(self, key: Array, old: Any) -> tuple[Array, dict[str, Any]]:
        """A key for the network, and the other params, new unless there are old ones."""
        columns, trained = self.columns, self.trained
        alone = not self.random and trained is None and not columns.has_weights
        # Each split takes a tenth of a second to compile.
        keys = [key] * 4 if alone else jax.random.split(key, 4)
        if old is not None:
            return keys[3], old
        return keys[3], {
            "conditioner": None,
            "transformer": columns.init(keys[2]) if columns.has_weights else (),
            "unconditional": {} if trained is None else trained.init(keys[1]),
            "fixed": {"ranks": jax.random.permutation(keys[0], sum(self.sizes)).astype(float)} if self.random else {},
        }

    def cut(self, params: Any, x: Array) -> list[Array]:
        """Return the conditioning and the moved entries of x (batch, *event)."""
        x = jnp.moveaxis(x, -1, 0)
        x = x[jnp.argsort(params["fixed"]["ranks"])] if self.random else x
        return cut(reorder(x, self.order), *self.sizes)

    def joined(self, params: Any, conditioning: Array, moved: Array) -> Array:
        x = reorder(jnp.concatenate([conditioning, moved]), np.argsort(self.order))
        x = x[jnp.argsort(jnp.argsort(params["fixed"]["ranks"]))] if self.random else x
        return jnp.moveaxis(x, 0, -1)

    def used(self, x: Array) -> Array:
        return x


class Pixels:
    """Pixels of an image: where row and column add up to an even number they condition the network; flipped, the others.

    Both parts are whole images. In the moved part, and in its theta, conditioning pixels are 0, so that the transformer's
    results there, which are not used, cannot overflow and make a gradient NaN.
    """

    trained = None

    def __init__(self, transformers: Transformers, flip: bool, shape: Shape):
        if len(shape) != 3 or shape[0] * shape[1] < 2:
            raise FlowsError(
                f"Coupling: mask='checkerboard' is for pixels, and the event is {shape}; expected an image (H, W, C) of two or "
                "more. Give mask='alternating' for the features of a vector, or make an image of it by Reshape((H, W, C))"
            )
        h, w, c = shape
        per_feature = for_each(transformers, c, "Coupling")
        self.columns, self.channels = Columns(per_feature), NetworkInputs(per_feature)
        self.keep = (np.add.outer(np.arange(h), np.arange(w)) % 2 == (1 if flip else 0))[None, None]
        self.inputs, self.outputs = (h, w, self.channels.size + 1), (h, w, self.columns.num_params * c)

    def start(self, key: Array, old: Any) -> tuple[Array, dict[str, Any]]:
        weighted = self.columns.has_weights
        keys = jax.random.split(key) if weighted else (key, key)
        if old is not None:
            return keys[0], old
        weights = self.columns.init(keys[1]) if weighted else ()
        return keys[0], {"conditioner": None, "transformer": weights, "unconditional": {}, "fixed": {}}

    def cut(self, params: Any, x: Array) -> tuple[Array, Array]:
        x = jnp.moveaxis(x, -1, 0)
        return x, self.used(x)

    def joined(self, params: Any, conditioning: Array, moved: Array) -> Array:
        return jnp.moveaxis(jnp.where(self.keep, conditioning, moved), 0, -1)

    def network_inputs(self, x: Array) -> Array:
        """Half of the image, and a channel that is 1 on this half."""
        mask = jnp.broadcast_to(jnp.asarray(self.keep, x.dtype), (1, *x.shape[1:]))
        return jnp.concatenate([jnp.where(self.keep, self.channels(x), 0.0), mask])

    def used(self, x: Array) -> Array:
        return jnp.where(self.keep, 0.0, x)


def _conditioning(mask: str | Sequence[bool], d: int) -> np.ndarray:
    """True for features that condition the network. A random mask puts them first, so that they are the first half."""
    if mask in ("halves", "random"):
        return np.arange(d) < d // 2
    if mask == "alternating":
        return np.arange(d) % 2 == 1
    try:
        keep = np.asarray(mask)
    except ValueError:  # of lists of unequal length
        keep = np.zeros(0)
    if keep.shape != (d,) or keep.dtype != bool:
        raise FlowsError(f"Coupling: mask is {mask!r:.80}; expected {d} booleans, one for each feature, True for kept")
    return keep


@bijection(
    batched=True,
    support=lambda transformer, unconditional, **_: places_by(transformer, unconditional, "Coupling"),
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
