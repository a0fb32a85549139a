"""Autoregressive flows with affine transformers, MAF and IAF, and the autoregressive mixture of normals.
Family: Autoregressive."""

from typing import Literal

import jax
import jax.numpy as jnp

from flows.bijections.autoregressive import Autoregressive, InverseAutoregressive
from flows.bijections.permutation import Reverse
from flows.bijections.scaling import BatchNorm
from flows.conditioners import MaskedMLP
from flows.conditioners.network import Squash, running
from flows.core import LOG_2PI, Array, FlowsError, Traits, as_context, bijection, distribution, positive_int, soft_clip
from flows.distributions.mixture import logsumexp
from flows.distributions.normal import honest_far_out
from flows.models.stack import LOG_SCALE, UNROLLED_AFFINE, Activation, check_hidden, stack
from flows.transformers import Affine, Gated, Inverse
from flows.transformers.mixture import along, apart

BOUND = 10.0  # of the log-scales of a mixture, in nats
MAF_SQUASH = 5.0  # at 3, as in the others, MAF lost 0.1 nats of 7 columns of galaxies; inverses of few layers are precise at 5
PUBLISHED, DEEP_SQUASH = 10, 2.0  # errors of an inverse grow with depth: of 20 layers, 2 keeps rows far out that 5 loses


@bijection
def MAF(
    num_layers: int = 5,
    hidden: tuple[int, ...] = (128, 128),
    activation: Activation = "relu",
    plain: bool = False,
    dropout: float = 0.0,
    squash: Squash | Literal["auto"] = "auto",
    scan: bool | None = None,
):
    """A masked autoregressive flow: MADE layers, each followed by batch normalisation and a reversal of the order.

    y_i = (x_i - b_i(x_<i)) exp(-w_i(x_<i)) in each layer, |w| < 2 (in the paper w is free); log|det J| = minus the sum of all
    w, plus the normalisations' log-dets. A density takes one pass; samples are found feature by feature, in about the
    time of two or three. Train with `train=True`, as `RealNVP`; `flows.fit` measures the normalisations on at most 10,000
    rows, `flows.remeasure` on all it is given. With a mixture base: `flows.Flow(flows.MAF(), flows.MixtureMADE())`.

    Args:
        num_layers: autoregressive layers.
        hidden, activation: as in `NICE`.
        scan: as in `NICE`, but over single layers.
        plain: without batch normalisation.
        dropout: the share of hidden units dropped while `train=True`, which then needs `rng`.
        squash: how far out the networks see their inputs as they are, as in `Coupling`: by default 5, and 2 where there are
            more than 10 layers, whose inverses would lose digits far from the data (`benchmarks/stability.py`); None for as far
            as they go.

    Params:
        A tuple over layers and what follows each; params of a loop are stacked.

    Cost:
        Direct: a pass of each network. Inverse: two passes of each.

    Errors:
        FlowsError: an argument is outside its range; an event or a context of several axes.

    Source:
        Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", 2017, arXiv:1705.07057.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.MAF(3, hidden=(16,)))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    net = MaskedMLP(*check_hidden(hidden, "MAF"), activation=activation, dropout=dropout)
    deep = positive_int(num_layers, "MAF: num_layers", most=10_000) > PUBLISHED
    reach = (DEEP_SQUASH if deep else MAF_SQUASH) if isinstance(squash, str) and squash == "auto" else squash
    layer = Autoregressive(net, Inverse(Affine(LOG_SCALE)), squash=reach)
    step = [layer, *([] if plain else [BatchNorm()]), Reverse()]
    return stack("MAF", step, num_layers, scan, unrolled=UNROLLED_AFFINE)


@bijection
def IAF(
    num_layers: int = 5,
    hidden: tuple[int, ...] = (128, 128),
    activation: Activation = "elu",
    plain: bool = False,
    scan: bool | None = None,
):
    """An inverse autoregressive flow: a sample takes one pass, a density finds one feature after the other.

    From noise to data each layer is x_i = sigma_i y_i + (1 - sigma_i) m_i, with sigma and m made of y_<i and the context by
    a masked network; log|det dx/dy| = sum(log sigma). After each the order is reversed. It suits posteriors, whose samples
    come with their density in one pass.

    Args:
        num_layers: autoregressive layers.
        hidden, activation, scan: as in `NICE`.
        plain: affine updates, x_i = y_i exp(s_i) + m_i, |s| < 2, instead of gated ones.

    Params:
        A tuple over layers; params of a loop are stacked.

    Cost:
        Direct: two passes of each network. Inverse: a pass of each.

    Errors:
        FlowsError: an argument is outside its range; an event or a context of several axes.

    Source:
        Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", 2016, arXiv:1606.04934, algorithm 1.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.IAF(2, hidden=(16,)))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    net = MaskedMLP(*check_hidden(hidden, "IAF"), activation=activation)
    step = [InverseAutoregressive(net, Affine(LOG_SCALE) if plain else Gated()), Reverse()]
    return stack("IAF", step, num_layers, scan, unrolled=UNROLLED_AFFINE)


@distribution(batched=True, traits=Traits(picks=True))
def MixtureMADE(num_components: int = 10, hidden: tuple[int, ...] = (128, 128), activation: Activation = "relu"):
    """A mixture of normals for each feature, whose parameters a masked network makes of the features before it.

    log p(x) = sum_i logsumexp_k(log w_ik - log s_ik - (x_i - m_ik)^2 / (2 s_ik^2)) - d / 2 log(2 pi), in nats, with w, m and s
    made of x_<i and the context. It is a distribution, and can be a base: `flows.Flow(flows.MAF(), flows.MixtureMADE())`.

    Args:
        num_components: components for each feature.
        hidden: widths of the network.
        activation: as in `MLP`.

    Params:
        The params of `MaskedMLP`; `{"theta": (3 num_components,)}` for one feature without a context. The outputs are raw
        weights, means, offset by -1 .. 1 so that the components start apart, and log-scales, within +-10.

    Errors:
        FlowsError: an argument is outside its range; an event of several axes.

    Source:
        Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", 2017, arXiv:1705.07057, MADE
        MoG and MAF MoG; Germain, Gregor, Murray and Larochelle, "MADE", 2015, arXiv:1502.03509.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.MixtureMADE(3, hidden=(16,))(0, 2)
        >>> log_pdf(params, jnp.zeros((4, 2))).shape, sample(1, params, 3).shape
        ((4,), (3, 2))
    """
    num = positive_int(num_components, "MixtureMADE: num_components", most=10_000)
    net = MaskedMLP(*check_hidden(hidden, "MixtureMADE"), activation=activation)
    offsets = apart(num, 1.0)

    def init_fun(rng, shape, context_dim=0):
        if len(shape) != 1:
            raise FlowsError(f"MixtureMADE: the event is {shape}; expected a vector, such as input_dim=5")
        (d,) = shape
        inputs = 0 if d == 1 and not context_dim else d  # one feature has nothing before it
        params, network = running(net, rng, (inputs,), (3 * num * d,), as_context(context_dim))

        def parts(theta: Array) -> tuple[Array, Array, Array]:
            """log w, m and log s, each (components, features, batch)."""
            logits, m, log_s = jnp.split(theta, 3)
            log_s = soft_clip(log_s, BOUND)
            return jax.nn.log_softmax(logits, axis=0), m + along(offsets, m), log_s

        def log_pdf(params, x, context=None):
            def log_p_finite(x: Array) -> Array:
                x = x.T
                log_w, m, log_s = parts(network.run(params, x, context).reshape(3 * num, d, x.shape[1]))
                z = (x[None] - m) * jnp.exp(-log_s)
                return (logsumexp(log_w - log_s - 0.5 * jnp.square(z)) - 0.5 * LOG_2PI).sum(0)

            return honest_far_out(log_p_finite, x)

        def find(feature: Array, theta: Array, noise: tuple[Array, Array]) -> tuple[Array, tuple]:
            """A component by the first noise, and its value by the second."""
            log_w, m, log_s = parts(theta)
            below = jnp.cumsum(jnp.exp(log_w), axis=0)[:-1]
            k = (noise[0][None] > below).sum(0)[None]
            m, log_s = (jnp.take_along_axis(array, k, axis=0)[0] for array in (m, log_s))
            return m + jnp.exp(log_s) * noise[1], ()

        def sample(rng, params, num_samples, context=None):
            keys, dtype = jax.random.split(rng), jax.tree.leaves(params)[0].dtype
            noise = jax.random.uniform(keys[0], (d, num_samples), dtype), jax.random.normal(keys[1], (d, num_samples), dtype)
            if network.solve is None:
                theta = network.run(params, noise[1], context)  # which it does not see
                return find(jnp.zeros((), int), theta[:, None], noise)[0].T
            return network.solve(params, context, noise, find)[0].T

        return params, log_pdf, sample

    return init_fun
