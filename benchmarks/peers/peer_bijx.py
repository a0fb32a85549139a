"""The workloads in bijx."""

import bijx
import numpy as np
from flax import nnx
from with_jax import model
from workloads import Model, Work


def build(work: Work) -> Model:
    if work.kind != "coupling":
        raise NotImplementedError("bijx: a masked autoregressive layer")
    rngs, kept = nnx.Rngs(0), work.d // 2
    inputs, *hidden, outputs = work.widths
    affine = work.transformer == "affine"
    # `knots` is the number of bins.
    element = bijx.AffineLinear(rngs=rngs) if affine else bijx.MonotoneRQSpline(work.bins, (), rngs=rngs)
    template = bijx.ModuleReconstructor(element)
    # Of 2 n + 1 features n stay as they are, first the left ones, then the right ones, which saves reversals.
    right = np.arange(work.d) >= kept
    masks = [bijx.BinaryMask.from_boolean_mask(changed) for changed in (right, right[::-1])]

    def layer(i: int):
        net = bijx.nn.nets.MLP(
            inputs, outputs, hidden, activation=nnx.relu, final_kernel_init=nnx.initializers.normal(1e-2), rngs=rngs
        )
        by_feature = nnx.Sequential(net, lambda theta: theta.reshape(*theta.shape[:-1], work.d - kept, work.per_feature))
        return bijx.GeneralCouplingLayer(by_feature, masks[i % 2], template)

    layers = [layer(i) for i in range(work.layers)]
    if not affine:
        # Its splines lie on [0, 1]. The log-determinants of the maps there and back cancel.
        there = bijx.MetaLayer(lambda x: x / (2 * work.bound) + 0.5, lambda x: (x - 0.5) * (2 * work.bound))
        layers = [there, *layers, there.invert()]
    # From data to noise is the direction that needs no root of a quadratic.
    flow = bijx.Transformed(bijx.IndependentNormal((work.d,)), bijx.Chain(*layers).invert())
    graph, params, rest = nnx.split(flow, nnx.Param, ...)

    def whole(params):
        return nnx.merge(graph, params, rest)

    return model(
        params,
        lambda params, x: whole(params).log_density(x),
        lambda params, key, n: whole(params).sample((n,), rng=key)[0],
    )
