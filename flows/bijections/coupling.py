"""Coupling layers: some of the features decide how the others are transformed."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.checkerboard import coupling_of_pixels
from flows.bijections.engine import Columns, Seen, Trained, as_transformers, circles, cut, for_each, reorder
from flows.conditioners import MLP
from flows.conditioners.base import check_conditioner
from flows.conditioners.network import Squash, build_events, build_leading, check_squash, measured_by
from flows.core import ConditionerLike, FlowsError, Given, Layer, as_context, bijection, naming, spend
from flows.transformers import Affine
from flows.transformers.base import Transformer

MASKS = ("halves", "alternating", "random", "checkerboard")


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

    y_keep = x_keep, y_i = f(x_i; theta_i(x_keep, context)), log|det J| = sum_i log f'(x_i; theta_i). Features are those of the
    last axis of the event. Where nothing is kept, in one dimension, theta depends on the context alone, or is a constant.

    Args:
        conditioner: `net(rng, input_dim, output_dim) -> (params, apply_fun)`; by default `MLP(64, 64)`. Its output is
            `(num_params, features)` flattened along the last axis: the first parameter of every feature, then the second.
            For events of several axes both dims are tuples and `apply_fun` maps batches of events.
        transformer: one of `flows.transformers`, by default `Affine()`; or a sequence of d of them, one for each feature of
            the event, with theta as wide as the widest needs. Those of kept features say whether these are angles: of a feature
            whose transformer has a period the network sees cos and sin.
        mask: which features are kept: "halves" (the first d // 2), "alternating" (1, 3, 5, ...), "random" (d // 2 of them,
            drawn at init), or d booleans, True for kept. Or "checkerboard", of images (H, W, C): the pixels (i, j) with i + j
            even. The network sees the image with zeros elsewhere, and one channel more, 1 where pixels are kept and 0
            elsewhere; what it says of kept pixels is not used. `Through(Checkerboard(), Coupling(...))` is the same mask
            without the work for pixels that are kept.
        flip: keep the others instead; a single feature has no others, and is transformed all the same.
        unconditional: a transformer for the kept features too, with trained parameters of its own: y_keep = g(x_keep), whose
            log-slopes are added. The network sees x_keep.
        squash: how far out the network sees x as it is; beyond, what it sees flattens out within 1 more, squash + tanh(|x| -
            squash). It keeps inverses precise far from the data, where a network extrapolates; 2 or 3 times the spread of the
            data costs little. ("tanh", c) for c tanh(x / c).

    Params:
        A dict of the same keys, whatever the options. "conditioner": the network's, or `{"theta": (num_params * features,)}`
        where theta is a constant; "transformer": the weights of transformers that have some; "unconditional":
        `{"theta": (num_params, kept)}`; "fixed": `{"ranks": (d,)}` of a random mask. What is not used is empty.

    Cost:
        Direct: a pass of the network. Inverse: the same, but for transformers whose inverse is a root.

    Errors:
        FlowsError: a mask that keeps every feature, or has not one entry for each; a checkerboard of what is no image, or with
            `unconditional`.

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
    of_kept = None if unconditional is None else as_transformers(unconditional, "Coupling: unconditional")
    squash = check_squash(squash, "Coupling: squash")
    if isinstance(mask, str) and mask not in MASKS:
        raise FlowsError(f"Coupling: mask is {mask!r}; expected one of {', '.join(MASKS)}, or a boolean for each feature")
    named = {"context_dim", *measured_by(net)}
    if mask == "checkerboard":
        if of_kept is not None:
            raise FlowsError(
                "Coupling: mask='checkerboard' returns kept pixels as they are, and unconditional was given for them; expected "
                "one of the two. Give Through(Checkerboard(), Coupling(..., unconditional=...)), whose mask is the same"
            )
        return naming(coupling_of_pixels(net, transformers, flip, squash), named)

    def init_fun(rng, shape, context_dim=0, init_inputs=None, init_context=None, params=None):
        d, vector = shape[-1], len(shape) == 1
        spend(size=40 * d)  # of the mask, and of the places of what is kept and moved
        keep = _kept(mask, d) ^ (flip and not (isinstance(mask, str) and d == 1))
        kept, moved = np.flatnonzero(keep), np.flatnonzero(~keep)
        if not len(moved):
            raise FlowsError(f"Coupling: the mask keeps all {d} features, and flip is {flip}; one at least must be transformed")
        order = np.concatenate([kept, moved])
        columns = _columns(transformers, moved, d)
        periods = [each.period for each in for_each(transformers, d, "Coupling")]
        seen_as = Seen([periods[i] for i in kept])
        if mask == "random" and max(len(set(transformers)), len(set(of_kept or ()))) > 1:
            raise FlowsError("Coupling: a random mask cannot tell which feature is whose transformer; give one for all")
        trained = None if of_kept is None or not len(kept) else Trained(_columns(of_kept, kept, d))
        alone = mask != "random" and trained is None and not columns.has_weights
        # Each split takes a tenth of a second to compile.
        keys = [rng] * 4 if alone else jax.random.split(rng, 4)
        outputs = columns.num_params * len(moved)

        def ordered(params, x):
            """Kept features first."""
            return reorder(x[jnp.argsort(params["fixed"]["ranks"])] if mask == "random" else x, order)

        def restored(params, y):
            y = reorder(y, np.argsort(order))
            return y[jnp.argsort(jnp.argsort(params["fixed"]["ranks"]))] if mask == "random" else y

        own = params
        if own is None:
            ranks = {"ranks": jax.random.permutation(keys[0], d).astype(float)} if mask == "random" else {}
            own = {
                "conditioner": None,
                "transformer": columns.init(keys[2]) if columns.has_weights else (),
                "unconditional": {} if trained is None else trained.init(keys[1]),
                "fixed": ranks,
            }
        context, given = as_context(context_dim), Given(None, init_context, own["conditioner"])
        if init_inputs is not None:
            seen = seen_as(ordered(own, jnp.moveaxis(init_inputs, -1, 0))[: len(kept)])
            given = given._replace(init_inputs=jnp.moveaxis(seen, 0, -1))
        if vector:
            running = build_leading(net, keys[3], seen_as.size, outputs, context, given, squash)
        else:
            running = build_events(net, keys[3], (*shape[:-1], seen_as.size), (*shape[:-1], outputs), context, given, squash)
        start, run, names, *_ = running

        def theta_of(params, kept_x, context, rng, train, inverse=False):
            if vector and context is not None:
                context = jnp.moveaxis(context, 0, -1)
            theta = columns.alone(run(params["conditioner"], seen_as(kept_x), context, rng, train), inverse)
            return theta.reshape(columns.num_params, len(moved), *kept_x.shape[1:])

        def direct_fun(params, x, context=None, rng=None, train=False):
            # Features lead, the batch follows: this is where speed is decided.
            kept_x, moved_x = cut(ordered(params, jnp.moveaxis(x, -1, 0)), len(kept), len(moved))
            theta = theta_of(params, kept_x, context, rng, train)
            y, log_det = columns.direct(theta, moved_x, params["transformer"])
            total = _of_rows(log_det)
            if trained is not None:
                kept_x, log_det = trained.direct(params["unconditional"], kept_x)
                total += _of_rows(log_det)
            return joined(params, kept_x, y), total

        def solved(params, y, context, rng, train):
            """x in two parts, and theta of what is moved."""
            kept_x, moved_y = cut(ordered(params, jnp.moveaxis(y, -1, 0)), len(kept), len(moved))
            if trained is not None:
                kept_x = trained.inverse(params["unconditional"], kept_x)[0]
            theta = theta_of(params, kept_x, context, rng, train, inverse=True)
            return kept_x, columns.inverse(theta, moved_y, params["transformer"])[0], theta

        def joined(params, kept_x, moved_x):
            return jnp.moveaxis(restored(params, jnp.concatenate([kept_x, moved_x])), 0, -1)

        def inverse_fun(params, y, context=None, rng=None, train=False):
            kept_x, moved_x, _ = solved(params, y, context, rng, train)
            return joined(params, kept_x, moved_x)

        def inverse_and_log_det(params, y, context=None, rng=None, train=False):
            """The network runs once; the log-det is that of direct_fun at the x returned."""
            kept_x, moved_x, theta = solved(params, y, context, rng, train)
            total = _of_rows(columns.direct(theta, moved_x, params["transformer"])[1])
            if trained is not None:
                total += _of_rows(trained.direct(params["unconditional"], kept_x)[1])
            return joined(params, kept_x, moved_x), -total

        params = {**own, "conditioner": start}
        return Layer(params, direct_fun, inverse_fun, inverse_and_log_det, keywords={"context", *names})

    return naming(init_fun, named)


def _kept(mask: str | Sequence[bool], d: int) -> np.ndarray:
    """Which features are kept. A random mask puts those that are first, so its are the first half."""
    if mask in ("halves", "random"):
        return np.arange(d) < d // 2
    if mask == "alternating":
        return np.arange(d) % 2 == 1
    kept = np.asarray(mask)
    if kept.shape != (d,) or kept.dtype != bool:
        raise FlowsError(f"Coupling: mask is {mask!r:.80}; expected {d} booleans, one for each feature, True for kept")
    return kept


def _columns(transformers: tuple, features: np.ndarray, d: int) -> Columns:
    each = for_each(transformers, d, "Coupling")
    return Columns(tuple(each[i] for i in features))


def _of_rows(log_det):
    """The sum over everything but the rows, of (features, batch, *space)."""
    return log_det.sum((0, *range(2, log_det.ndim)))
