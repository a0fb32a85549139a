"""Coupling layers: one half of the features decides how the other half is transformed."""

import jax
import jax.numpy as jnp

from flows.compose import Serial
from flows.conditioners import MLP
from flows.conditioners.network import build_events, build_leading
from flows.core import (
    Array,
    BijectionInit,
    Composite,
    FlowsError,
    Given,
    Shape,
    bijection,
    check_transformer,
    combinator,
    conditioner,
    positive_int,
    vocabulary,
)
from flows.core.arrays import as_context, size
from flows.transformers import Affine, RationalQuadratic


@bijection(batched=True)
def Coupling(conditioner=None, transformer=None, flip: bool = False):
    """A transformer on one half of the features, with parameters that a network makes from the other half.

    y_keep = x_keep, y_i = f(x_i; theta_i(x_keep, context)), log|det J| = sum_i log f'(x_i; theta_i). The first d // 2
    features are kept (with `flip` the last d - d // 2), along the last axis of the event. Where nothing is kept, in
    one dimension, theta depends on the context alone, or is a constant.

    Args:
        conditioner: `net(rng, input_dim, output_dim) -> (params, apply_fun)`; by default `MLP(64, 64)`. Its output is
            `(num_params, features)` flattened along the last axis: the first parameter of every feature, then the second.
            For events of several axes both dims are tuples and `apply_fun` maps batches of events.
        transformer: one of `flows.transformers`; by default `Affine()`.
        flip: exchange the halves.

    Params:
        Those of the conditioner; `{"theta": (num_params * features,)}` where theta is a constant.

    Source:
        Dinh, Krueger and Bengio, "NICE: Non-linear Independent Components Estimation", 2014, arXiv:1410.8516, section 3.2;
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, equations 4-8.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.Coupling(flows.MLP(32), flows.transformers.RationalQuadratic(num_bins=4))
        >>> params, direct_fun, inverse_fun = init_fun(0, 3)
        >>> direct_fun(params, jnp.zeros((2, 3)))[1].shape
        (2,)
    """
    net = MLP(64, 64) if conditioner is None else conditioner
    transformer = check_transformer(Affine() if transformer is None else transformer, "Coupling")
    if not callable(net):
        raise TypeError(f"Coupling: the conditioner is {net!r:.60}; expected net(rng, input_dim, output_dim)")

    def init_fun(rng, shape, context_dim=0):
        context = as_context(context_dim)
        d = shape[-1]
        cut = d // 2
        kept, moved = (slice(cut, None), slice(0, cut)) if flip else (slice(0, cut), slice(cut, None))
        keep, move = len(range(d)[kept]), len(range(d)[moved])
        if not move:
            raise FlowsError(f"Coupling: with flip=True an event of {d} has no feature to transform; use flip=False")

        def joined(old: Array, new: Array, axis: int) -> Array:
            return jnp.concatenate([new, old] if flip else [old, new], axis=axis)

        if len(shape) == 1:
            params, run = build_leading(net, rng, keep, transformer.num_params * move, context)

            def theta_of(params, x, context, rng, train):
                context = None if context is None else jnp.moveaxis(context, 0, -1)
                return run(params, x[kept], context, rng, train).reshape(transformer.num_params, move, x.shape[1])

            def apply(step, params, x, context, rng, train):
                x = x.T  # features lead, the batch trails: this is where speed is decided
                new, log_det = step(theta_of(params, x, context, rng, train), x[moved])
                return joined(x[kept], new, 0).T, log_det.sum(0)

        else:
            out = (*shape[:-1], transformer.num_params * move)
            params, run = build_events(net, rng, (*shape[:-1], keep), out, context)

            def apply(step, params, x, context, rng, train):
                raw = run(params, x[..., kept], context, rng, train)
                theta = jnp.moveaxis(raw.reshape(*x.shape[:-1], transformer.num_params, move), -2, 0)
                new, log_det = step(theta, x[..., moved])
                return joined(x[..., kept], new, -1), log_det.reshape(len(x), size(shape[:-1]) * move).sum(1)

        def direct_fun(params, x, context=None, rng=None, train=False):
            return apply(transformer.direct, params, x, context, rng, train)

        def inverse_fun(params, y, context=None, rng=None, train=False):
            return apply(transformer.inverse, params, y, context, rng, train)[0]

        return params, direct_fun, inverse_fun

    return init_fun


@bijection
def AffineCoupling(transform=None):
    """An affine coupling: the first d // 2 features are kept, the rest are scaled and shifted by what a network makes of them.

    y2 = x2 exp(s) + t, (s, t) = transform(x1), log|det J| = sum(s), with s bounded softly at 10 (`transformers.Affine`).

    Args:
        transform: `transform(rng, d // 2, 2 * (d - d // 2)) -> (params, apply_fun)`, whose output is s, then t. A context is
            appended to its inputs. By default `MLP(64, 64)`.

    Params:
        Those of `transform`.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, equations 4-8.

    Example:
        >>> import flows
        >>> from jax.example_libraries import stax
        >>> def transform(rng, input_dim, output_dim):
        ...     init_fun, apply_fun = stax.serial(stax.Dense(64), stax.Relu, stax.Dense(output_dim))
        ...     return init_fun(rng, (input_dim,))[1], apply_fun
        >>> params, direct_fun, inverse_fun = flows.AffineCoupling(transform)(0, 5)
    """
    return Coupling(transform, Affine())


@bijection
def AffineCouplingSplit(scale=None, translate=None):
    """An affine coupling with two networks: y2 = x2 exp(scale(x1)) + translate(x1), log|det J| = sum(scale(x1)).

    The first d // 2 features are kept; the scale is bounded softly at 10 (`transformers.Affine`).

    Args:
        scale, translate: `net(rng, d // 2, d - d // 2) -> (params, apply_fun)`; by default `MLP(64, 64)` with tanh and relu.

    Params:
        A pair: those of `scale`, those of `translate`.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, equations 4-8.

    Example:
        >>> import flows
        >>> params, direct_fun, inverse_fun = flows.AffineCouplingSplit(flows.MLP(32), flows.MLP(32))(0, 5)
        >>> len(params)
        2
    """
    scale = MLP(64, 64, activation="tanh") if scale is None else scale
    translate = MLP(64, 64) if translate is None else translate
    return Coupling(Pair(scale, translate), Affine())


@combinator(BijectionInit)
def NeuralSplineCoupling(K: int = 5, B: float = 3, hidden_dim: int = 8, network=None):
    """A rational-quadratic spline coupling of both halves: the second given the first, then the first given the new second.

    y2 = spline(x2; net1(x1)), y1 = spline(x1; net2(y2)), log|det J| = the sum of the log-slopes. Splines have K bins on
    [-B, B] and are the identity outside (`transformers.RationalQuadratic`).

    Args:
        K: bins.
        B: bound.
        hidden_dim: width of the networks.
        network: `network(out_dim, hidden_dim)` returns a stax pair; by default two hidden tanh layers.

    Params:
        A pair: those of each half's network. In one dimension, those of the one spline.

    Source:
        Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, section 3.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.NeuralSplineCoupling(K=4)(0, 3)
        >>> direct_fun(params, jnp.full((1, 3), 5.0))[0].tolist()       # outside [-B, B]
        [[5.0, 5.0, 5.0]]
    """
    spline = RationalQuadratic(num_bins=K, bound=B)
    hidden_dim = positive_int(hidden_dim, "NeuralSplineCoupling: hidden_dim")
    net = MLP(hidden_dim, hidden_dim, activation="tanh") if network is None else FromStax(network, hidden_dim)
    halves = (Coupling(net, spline), Coupling(net, spline, flip=True))

    def build(key, event: Shape, given: Given):
        layers = halves if event[-1] > 1 else halves[:1]  # one column has no other half
        return Serial(*layers).build(key, event, given)

    return Composite(build, halves)


@conditioner
def Pair(first, second):
    """Two networks side by side, each making half of the outputs; params are a pair."""

    def net(rng, input_dim, output_dim):
        half = output_dim // 2 if isinstance(output_dim, int) else (*output_dim[:-1], output_dim[-1] // 2)
        keys = jax.random.split(rng)
        made = [each(key, input_dim, half) for each, key in zip((first, second), keys, strict=True)]
        params, applies = tuple(own for own, _ in made), [apply for _, apply in made]

        def apply_fun(params, inputs, rng=None, train=False):
            given = [vocabulary.select(vocabulary.named_by(each, vocabulary.CALL), rng=rng, train=train) for each in applies]
            outputs = [each(own, inputs, **keys) for each, own, keys in zip(applies, params, given, strict=True)]
            return jnp.concatenate(outputs, axis=-1)

        return params, apply_fun

    return net


@conditioner
def FromStax(network, hidden_dim: int):
    """`network(out_dim, hidden_dim)`, a stax pair, as a conditioner."""

    def net(rng, input_dim, output_dim):
        stax_init, stax_apply = network(output_dim, hidden_dim)
        return stax_init(rng, (input_dim,))[1], lambda params, inputs: stax_apply(params, inputs)

    return net
