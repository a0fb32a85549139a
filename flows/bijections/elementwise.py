"""Maps of every entry of an event, each by itself: fixed formulas, and transformers. Family: Bounds and scalar maps."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.engine import Columns, Trained, as_transformers, conditioned, for_each, places_by
from flows.conditioners.base import check_conditioner
from flows.conditioners.network import running
from flows.core import (
    POSITIVE,
    REAL,
    Array,
    ConditionerLike,
    FlowsError,
    Layer,
    Numbers,
    Support,
    bijection,
    check_fits,
    number,
    numbers,
    positive,
    size,
)
from flows.transformers.base import Transformer


def scalar_map(direct: Callable, log_slope: Callable, inverse: Callable) -> Callable:
    """The init_fun of a map without params: y = direct(x) entry by entry, log|det J| = sum(log_slope(x))."""

    def init_fun(rng, shape):
        return {}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return direct(x), log_slope(x).sum()

    def inverse_fun(params, y):
        return inverse(y)

    return init_fun


@bijection(support=Support(REAL, POSITIVE, entrywise=True))
def Exp():
    """The real line to the positive half line: y = e^x, log|det J| = sum(x).

    `Invert(Exp())` takes the logarithm of positive data.

    Params:
        None.

    Support:
        Inputs: the real line. Outputs: (0, inf); 0 comes back as -inf, and numbers below 0 as NaN.

    Cost:
        Direct: O(d). Inverse: O(d).

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Exp()(0, 1)
        >>> inverse_fun(params, jnp.array([[1.0], [0.0], [-1.0]]))[0].tolist()
        [[0.0], [-inf], [nan]]
    """
    return scalar_map(jnp.exp, lambda x: x, jnp.log)


@bijection(support=Support(REAL, POSITIVE, entrywise=True))
def Softplus():
    """The real line to the positive half line: y = log(1 + e^x), log|det J| = -sum(log(1 + e^-x)).

    Linear far to the right, where `Exp` overflows; x = y + log(1 - e^-y) keeps every digit of large and of small y.

    Params:
        None.

    Support:
        Inputs: the real line. Outputs: (0, inf); 0 comes back as -inf, and numbers below 0 as NaN.

    Cost:
        Direct: O(d). Inverse: O(d).

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Softplus()(0, 1)
        >>> direct_fun(params, jnp.array([[0.0], [50.0]]))[0].round(4).tolist()
        [[0.693...], [50.0]]
    """
    return scalar_map(jax.nn.softplus, lambda x: -jax.nn.softplus(-x), lambda y: y + jnp.log(-jnp.expm1(-y)))


@bijection(support=Support(REAL, (-1.0, 1.0), entrywise=True))
def Tanh():
    """The real line to (-1, 1): y = tanh(x), log|det J| = sum(2 (log 2 - |x| - log(1 + e^(-2|x|)))).

    The form of the log-det is log(1 - tanh(x)^2) without its cancellation. Beyond |x| = 9 y rounds to 1 in float32.

    Params:
        None.

    Support:
        Inputs: the real line. Outputs: (-1, 1); the ends come back as -inf and inf, and numbers outside as NaN.

    Cost:
        Direct: O(d). Inverse: O(d).

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Tanh()(0, 1)
        >>> direct_fun(params, jnp.array([[0.0], [50.0]]))[1].round(3).tolist()
        [0.0, -98.61...]
    """

    def log_slope(x: Array) -> Array:
        return 2 * (math.log(2) - jnp.abs(x) - jnp.log1p(jnp.exp(-2 * jnp.abs(x))))

    return scalar_map(jnp.tanh, log_slope, jnp.arctanh)


@bijection(support=Support(entrywise=True))
def LeakyReLU(slope: float = 0.01):
    """Two half lines: y = x where x >= 0 and slope x elsewhere, log|det J| = log(slope) * (the number of entries below 0).

    Args:
        slope: of the negative half, above 0.

    Params:
        None.

    Support:
        The real line, inputs and outputs.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: the slope is not above 0.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.LeakyReLU(0.5)(0, 2)
        >>> direct_fun(params, jnp.array([[-4.0, 3.0]]))[0].tolist()
        [[-2.0, 3.0]]
    """
    slope = positive(slope, "LeakyReLU: slope")
    log_of_slope = math.log(slope)
    return scalar_map(
        lambda x: jnp.where(x < 0, slope * x, x),
        lambda x: jnp.where(x < 0, log_of_slope, jnp.where(x >= 0, 0.0, x)),  # NaN stays NaN
        lambda y: jnp.where(y < 0, y / slope, y),
    )


@bijection(support=Support(POSITIVE, POSITIVE, entrywise=True))
def Power(exponent: float):
    """The positive half line to itself: y = x^p, log|det J| = sum(log|p| + (p - 1) log(x)).

    Negative inputs are outside its support for every p, odd whole numbers included: a power is meant for positive data.
    For data of both signs write another map with `FromFunction`.

    Args:
        exponent: p, not 0; below 0 the map decreases.

    Params:
        None.

    Support:
        (0, inf), inputs and outputs. 0 gives the limit, 0 or inf, and numbers below 0 give NaN.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: the size of the exponent is not between 1e-30 and 1e30.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Power(3)(0, 1)
        >>> direct_fun(params, jnp.array([[2.0], [0.0], [-2.0]]))[0].tolist()
        [[8.0], [0.0], [nan]]
    """
    p = number(exponent, "Power: the exponent", lambda x: 1e-30 < abs(x) < 1e30, "a number of size between 1e-30 and 1e30")

    def on_half_line(x: Array) -> Array:
        return jnp.where(x >= 0, x, jnp.nan)

    def power(x: Array, p: float) -> Array:
        y = on_half_line(x) ** p
        return jnp.abs(y) if p < 0 else y  # 0 may come as -0.0

    def log_slope(x: Array) -> Array:
        x = on_half_line(x)
        return math.log(abs(p)) + (p - 1) * jnp.log(x) if p != 1 else jnp.where(jnp.isnan(x), x, 0.0)

    return scalar_map(lambda x: power(x, p), log_slope, lambda y: power(y, 1 / p))


@bijection(support=Support(entrywise=True))
def FixedAffine(scale: Numbers = 1.0, shift: Numbers = 0.0):
    """A scale and a shift that are constants: y = scale x + shift, log|det J| = sum(log|scale|).

    For units, and for ranges known beforehand. `ActNorm` has a trained scale, and `transformers.Affine` in a coupling a
    scale that a network makes.

    Args:
        scale, shift: numbers, or arrays of the shape of the event or of its last axis (one for each channel).

    Params:
        None.

    Support:
        The real line, inputs and outputs.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: a scale of 0, a number that is not finite or that float32 does not hold, a shape that does not fit.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.FixedAffine(scale=2.0, shift=(-1.0, 1.0))(0, 2)
        >>> direct_fun(params, jnp.array([[0.5, 0.5]]))[0].tolist()
        [[0.0, 2.0]]
    """
    a, b = numbers(scale, "FixedAffine: scale"), numbers(shift, "FixedAffine: shift")
    if not (np.abs(a) > 1e-37).all():
        raise FlowsError(f"FixedAffine: scale is {scale}; expected numbers of size above 1e-37")

    def init_fun(rng, shape):
        check_fits(a, shape, "FixedAffine: scale")
        check_fits(b, shape, "FixedAffine: shift")
        log_det = float(np.log(np.abs(np.broadcast_to(a, shape))).sum())
        factor, offset = np.broadcast_to(a, shape), np.broadcast_to(b, shape)

        def direct_fun(params, x):
            return x * jnp.asarray(factor, x.dtype) + jnp.asarray(offset, x.dtype), jnp.asarray(log_det, x.dtype)

        def inverse_fun(params, y):
            return (y - jnp.asarray(offset, y.dtype)) / jnp.asarray(factor, y.dtype)

        return {}, direct_fun, inverse_fun

    return init_fun


@bijection(batched=True, support=lambda transformer, **_: places_by(transformer, name="Elementwise"))
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
