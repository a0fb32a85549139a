"""The layers of the original jax-flows, by their names and calls there. Family: Couplings and autoregressive layers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.autoregressive import Autoregressive, TwoArguments
from flows.bijections.coupling import Coupling
from flows.compose import Serial
from flows.conditioners import MLP, FromStax, MaskedMLP, Pair
from flows.conditioners.base import ConditionerInit, check_conditioner, conditioner
from flows.core import (
    BijectionInit,
    Composite,
    ConditionerLike,
    FlowsError,
    Shape,
    as_key,
    bijection,
    check_function,
    check_takes,
    combinator,
    positive_int,
)
from flows.transformers import Affine, Inverse, RationalQuadratic


@bijection
def AffineCoupling(transform: ConditionerLike | None = None):
    """An affine coupling: the first d // 2 features are kept, and a network of them scales and shifts the rest.

    y2 = x2 exp(s) + t, (s, t) = transform(x1), log|det J| = sum(s), with s bounded softly at 10 (`transformers.Affine`).

    Args:
        transform: `transform(rng, d // 2, 2 * (d - d // 2)) -> (params, apply_fun)`, whose output is s, then t. A context is
            appended to its inputs. By default `MLP(64, 64)`.

    Params:
        As in `Coupling`; "conditioner" holds the params of `transform`.

    Cost:
        Direct: a pass of the network. Inverse: the same.

    Errors:
        FlowsError: a network returns a wrong shape. TypeError: an argument is not a network.

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
def AffineCouplingSplit(scale: ConditionerLike | None = None, translate: ConditionerLike | None = None):
    """An affine coupling with two networks: y2 = x2 exp(scale(x1)) + translate(x1), log|det J| = sum(scale(x1)).

    The first d // 2 features are kept; the scale is bounded softly at 10 (`transformers.Affine`).

    Args:
        scale, translate: `net(rng, d // 2, d - d // 2) -> (params, apply_fun)`; by default `MLP(64, 64)` with tanh and relu.

    Params:
        As in `Coupling`; "conditioner" is a pair, the params of `scale` and of `translate`.

    Cost:
        Direct: a pass of both networks. Inverse: the same.

    Errors:
        FlowsError: a network returns a wrong shape. TypeError: an argument is not a network.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, equations 4-8.

    Example:
        >>> import flows
        >>> params, direct_fun, inverse_fun = flows.AffineCouplingSplit(flows.MLP(32), flows.MLP(32))(0, 5)
        >>> len(params["conditioner"])
        2
    """
    scale = MLP(64, 64, activation="tanh") if scale is None else scale
    translate = MLP(64, 64) if translate is None else translate
    for net in (scale, translate):
        check_conditioner(net, "AffineCouplingSplit")
    return Coupling(Pair(scale, translate), Affine())


@combinator(BijectionInit)
def NeuralSplineCoupling(K: int = 5, B: float = 3, hidden_dim: int = 8, network: Callable | None = None):
    """A rational-quadratic spline coupling of both halves: the second conditioned on the first, then the first on the second.

    y2 = spline(x2; net1(x1)), y1 = spline(x1; net2(y2)), log|det J| = the sum of the log-slopes. Splines have K bins on
    [-B, B] and are the identity outside (`transformers.RationalQuadratic`).

    Args:
        K: the number of bins.
        B: the bound.
        hidden_dim: width of the networks.
        network: `network(out_dim, hidden_dim)` returns a stax pair; by default two hidden tanh layers.

    Params:
        A pair: the params of each half's `Coupling`. In one dimension, the params of the one spline alone.

    Cost:
        Direct: a pass of both networks. Inverse: the same.

    Errors:
        FlowsError: an argument is outside its range. TypeError: network is not such a function.

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
    if network is not None:
        expected = "a function network(out_dim, hidden_dim) that returns a stax pair; of MLP(64) make Coupling(MLP(64), spline)"
        check_function(network, "NeuralSplineCoupling: network", expected)
        check_takes(network, "network(out_dim, hidden_dim)", "NeuralSplineCoupling: network")
    net = MLP(hidden_dim, hidden_dim, activation="tanh") if network is None else OfWidth(network, hidden_dim)
    halves = (Coupling(net, spline), Coupling(net, spline, flip=True))

    def part(event: Shape, context: Shape | None):
        layers = halves if event[-1] > 1 else halves[:1]  # one column has no other half
        return Serial(*layers).part(event, context)

    return Composite(part, halves)


@conditioner
def OfWidth(network, hidden_dim: int):
    """`network(out_dim, hidden_dim)`, a stax pair, as a conditioner; as in the original, its init sees one row's shape."""

    def make(out_dim):
        stax_init, stax_apply = network(out_dim, hidden_dim)
        return lambda rng, shape: stax_init(rng, shape[1:]), lambda params, inputs: stax_apply(params, inputs)

    return FromStax(make)


@bijection
def MADE(transform: ConditionerLike | None = None, translate: ConditionerLike | None = None):
    """The affine autoregressive layer: direct in one pass, inverse feature by feature.

    y_i = (x_i - b_i) exp(-w_i), (w, b) = transform(x), log|det J| = -sum(w), with w bounded softly at 10
    (`transformers.Affine`). With two networks, w = transform(x) and b = translate(x); the inverse then takes a pass of both for
    each feature.

    Args:
        transform: `transform(rng, input_dim) -> (params, apply_fun)`, two arguments. The network emits 2 * input_dim
            values, w then b, of which w_i and b_i depend on x_0 .. x_{i-1} alone, by its masks (`MaskedDense`); it takes no
            context. Or a conditioner that takes one, such as `MaskedMLP(64, 64)`, the default.
        translate: a second network, in the same form, for b. Each then emits input_dim values.

    Params:
        As in `Autoregressive`; "conditioner" holds the params of `transform`, or a pair, of `transform` and of `translate`.

    Cost:
        Direct: a pass of the network. Inverse: two passes with a masked network of ours, else d passes.

    Errors:
        FlowsError: context_dim is given, and a network is a function of two arguments; a network of ours is not masked.

    Source:
        Germain, Gregor, Murray and Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", 2015,
        arXiv:1502.03509; Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", 2017,
        arXiv:1705.07057, equations 3-5.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.MADE()(0, 3)
        >>> y, log_det = direct_fun(params, jnp.ones((2, 3)))
        >>> bool(abs(inverse_fun(params, y)[0] - 1).max() < 1e-5)
        True
    """

    def masked(net):
        return net if net is None or isinstance(net, ConditionerInit) else FromTransform(net)

    if translate is None:
        return Autoregressive(masked(transform), Inverse(Affine()))
    return Autoregressive(Pair(masked(transform) or MaskedMLP(64, 64), masked(translate)), Inverse(Affine()))


@conditioner
def FromTransform(transform):
    """`transform(rng, input_dim)`, as `MADE` takes it, as a conditioner."""
    check_function(transform, "MADE: the network", "a masked one, MaskedMLP(64), or a function transform(rng, input_dim)")
    check_takes(transform, "transform(rng, input_dim)", "MADE: the network")
    return TwoArguments(transform)


def MaskedDense(mask):
    """A dense layer with weights multiplied by a mask, as a stax pair `(init_fun, apply_fun)`.

    outputs = inputs (W * mask) + b. Weights and biases are drawn from U(-1 / sqrt(inputs), 1 / sqrt(inputs)).

    Args:
        mask: (inputs, outputs), zeros and ones.

    Returns:
        `init_fun(rng, input_shape) -> (output_shape, (W, b))` and `apply_fun(params, inputs)`.

    Example:
        >>> import flows, jax, jax.numpy as jnp
        >>> init_fun, apply_fun = flows.MaskedDense(jnp.array([[1.0, 0.0]]))
        >>> output_shape, params = init_fun(jax.random.key(0), (1,))
        >>> output_shape, apply_fun(params, jnp.ones((4, 1))).shape
        ((2,), (4, 2))
    """
    try:
        mask = np.asarray(mask)
    except ValueError:
        raise FlowsError(f"MaskedDense: the mask is {mask!r:.60}; expected rows of equal length, (inputs, outputs)") from None
    if mask.ndim != 2:
        raise FlowsError(f"MaskedDense: the mask has shape {mask.shape}, expected (inputs, outputs)")

    def init_fun(rng, input_shape):
        if input_shape[-1] != mask.shape[0]:
            raise FlowsError(f"MaskedDense: inputs have {input_shape[-1]} features, but the mask is {mask.shape}")
        k1, k2 = jax.random.split(as_key(rng))
        edge = 1 / mask.shape[0] ** 0.5
        w = jax.random.uniform(k1, mask.shape, minval=-edge, maxval=edge)
        b = jax.random.uniform(k2, mask.shape[1:], minval=-edge, maxval=edge)
        return (*input_shape[:-1], mask.shape[1]), (w, b)

    def apply_fun(params, inputs, **kwargs):
        w, b = params
        return jnp.matmul(inputs, w * mask.astype(w.dtype)) + b

    return init_fun, apply_fun
