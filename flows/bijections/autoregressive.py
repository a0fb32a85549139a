"""Autoregressive layers: each feature is transformed by what a masked network makes of the features before it."""

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditioners import MaskedMLP
from flows.conditioners.network import build_leading
from flows.core import ConditionerInit, FlowsError, bijection, check_transformer, conditioner
from flows.core.arrays import as_context, as_key
from flows.transformers import Affine, Inverse


@bijection(batched=True)
def Autoregressive(conditioner=None, transformer=None):
    """A transformer on each feature, with parameters that a masked network makes of the features before it.

    y_i = f(x_i; theta_i(x_0 .. x_{i-1}, context)), log|det J| = sum_i log f'(x_i; theta_i): the Jacobian is triangular. The
    direct function is one pass of the network; the inverse finds one feature after the other.

    Args:
        conditioner: `net(rng, d, num_params * d) -> (params, apply_fun)`, autoregressive by its own masks; output is
            `(num_params, d)` flattened. By default `MaskedMLP(64, 64)`.
        transformer: one of `flows.transformers`; by default `Affine()`.

    Params:
        Those of the conditioner; in one dimension without a context `{"theta": (num_params,)}`.

    Errors:
        FlowsError: an event of several axes.

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
    net = MaskedMLP(64, 64) if conditioner is None else conditioner
    transformer = check_transformer(Affine() if transformer is None else transformer, "Autoregressive")
    if not callable(net):
        raise TypeError(f"Autoregressive: the conditioner is {net!r:.60}; expected net(rng, input_dim, output_dim)")

    def init_fun(rng, shape, context_dim=0):
        if len(shape) != 1:
            raise FlowsError(f"Autoregressive: the event is {shape}; expected a vector, such as input_dim=5")
        (d,) = shape
        context = as_context(context_dim)
        ours = isinstance(net, ConditionerInit) and not isinstance(net.inner, TwoArguments)
        inputs = 0 if d == 1 and context is None and ours else d  # one feature has nothing before it
        params, run = build_leading(net, rng, inputs, transformer.num_params * d, context)

        def theta_of(params, x, context, rng, train):
            context = None if context is None else jnp.moveaxis(context, 0, -1)
            return run(params, x[:inputs], context, rng, train).reshape(transformer.num_params, d, x.shape[1])

        def direct_fun(params, x, context=None, rng=None, train=False):
            y, log_det = transformer.direct(theta_of(params, x.T, context, rng, train), x.T)
            return y.T, log_det.sum(0)

        def inverse_fun(params, y, context=None, rng=None, train=False):
            y, index = y.T, jnp.arange(d)[:, None]

            def find(i, x):
                new = transformer.inverse(theta_of(params, x, context, rng, train), y)[0]
                return jnp.where(index == i, new, x)  # later features stay 0: what they would be now is meaningless

            return jax.lax.fori_loop(0, d, find, jnp.zeros_like(y)).T

        return params, direct_fun, inverse_fun

    return init_fun


@bijection
def MADE(transform=None):
    """The affine autoregressive layer: direct in one pass, inverse feature by feature.

    y_i = (x_i - b_i) exp(-w_i), (w, b) = transform(x), log|det J| = -sum(w), with w bounded softly at 10
    (`transformers.Affine`).

    Args:
        transform: `transform(rng, input_dim) -> (params, apply_fun)`, two arguments. The network emits 2 * input_dim
            values, w then b, of which w_i and b_i depend on x_0 .. x_{i-1} alone, by its own masks (`MaskedDense`); it
            takes no context. Or a conditioner such as `MaskedMLP(64, 64)`, the default, which does.

    Params:
        Those of `transform`.

    Errors:
        FlowsError: context_dim is given, and `transform` is a function of two arguments.

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
    if transform is None or isinstance(transform, ConditionerInit):
        return Autoregressive(transform, Inverse(Affine()))
    return Autoregressive(FromTransform(transform), Inverse(Affine()))


class TwoArguments:
    """Marks a network of the original's form, `transform(rng, input_dim)`."""

    def __init__(self, transform):
        self.transform = transform

    def __call__(self, rng, input_dim, output_dim, context_dim=0):
        if context_dim:
            raise FlowsError(
                "MADE: a transform of two arguments cannot take a context, as only its author knows its masks; use "
                "MADE() or MADE(MaskedMLP(...)), which do"
            )
        return self.transform(rng, input_dim)


@conditioner
def FromTransform(transform):
    """`transform(rng, input_dim)`, as `MADE` takes it, as a conditioner."""
    if not callable(transform):
        raise TypeError(f"MADE: transform is {transform!r:.60}; expected transform(rng, input_dim)")
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
    mask = np.asarray(mask)
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
