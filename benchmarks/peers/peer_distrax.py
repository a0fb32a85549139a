"""The workloads in distrax, which leaves the network to its user."""

from itertools import pairwise

import distrax
import jax
import jax.numpy as jnp
from with_jax import model
from workloads import Model, Work


def network(key, widths):
    """Weights and biases; the last weights are small, so that a layer begins near the identity."""
    sizes = list(pairwise(widths))
    scales = [(2 / before) ** 0.5 for before, _ in sizes[:-1]] + [1e-2]
    return [
        (scale * jax.random.normal(key, size), jnp.zeros(size[1]))
        for key, size, scale in zip(jax.random.split(key, len(sizes)), sizes, scales, strict=True)
    ]


def apply(layers, x):
    for w, b in layers[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = layers[-1]
    return x @ w + b


def build(work: Work) -> Model:
    if work.kind != "coupling":
        raise NotImplementedError("distrax: a masked autoregressive bijector")
    kept = work.d // 2

    def transformer(theta):
        if work.transformer == "affine":
            shift, log_scale = jnp.split(theta, 2, axis=-1)
            return distrax.ScalarAffine(shift, log_scale=log_scale)
        theta = theta.reshape(*theta.shape[:-1], work.d - kept, work.per_feature)
        # It takes slopes at the two ends as well, and with "identity" ignores them.
        unused = jnp.zeros_like(theta[..., :1])
        theta = jnp.concatenate([theta[..., : 2 * work.bins], unused, theta[..., 2 * work.bins :], unused], axis=-1)
        return distrax.RationalQuadraticSpline(theta, -work.bound, work.bound, boundary_slopes="identity")

    def flow(params):
        layers = [
            # Of 2 n + 1 features n stay as they are, first the left ones, then the right ones, which saves reversals.
            distrax.SplitCoupling(
                work.d - kept if i % 2 else kept, 1, lambda x, net=net: apply(net, x), transformer, bool(i % 2)
            )
            for i, net in enumerate(params)
        ]
        base = distrax.MultivariateNormalDiag(jnp.zeros(work.d), jnp.ones(work.d))
        # From data to noise is the direction that needs no root of a quadratic.
        return distrax.Transformed(base, distrax.Inverse(distrax.Chain(layers)))

    return model(
        [network(key, work.widths) for key in jax.random.split(jax.random.key(0), work.layers)],
        lambda params, x: flow(params).log_prob(x),
        lambda params, key, n: flow(params).sample(seed=key, sample_shape=(n,)),
    )
