"""The masked autoencoder of the original jax-flows, by the names and calls it gave it."""

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.autoregressive import Autoregressive, TwoArguments
from flows.core import ConditionerInit, FlowsError, bijection, conditioner
from flows.core.arrays import as_key
from flows.transformers import Affine, Inverse


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
