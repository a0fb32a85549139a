"""The workloads in flowjax."""

import equinox as eqx
import jax
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import StandardNormal
from flowjax.flows import coupling_flow, masked_autoregressive_flow
from with_jax import model
from workloads import Model, Work


def flow(work: Work):
    if len(set(work.hidden)) != 1:
        raise NotImplementedError("flowjax: hidden layers of several widths")
    make = coupling_flow if work.kind == "coupling" else masked_autoregressive_flow
    # It counts inner knots, one fewer than bins, and makes the slopes at the two ends too: a spline has 3 bins + 1 parameters.
    spline = RationalQuadraticSpline(knots=work.bins - 1, interval=work.bound)
    return make(
        jax.random.key(0),
        base_dist=StandardNormal((work.d,)),
        transformer=None if work.transformer == "affine" else spline,
        flow_layers=work.layers,
        nn_width=work.hidden[0],
        nn_depth=len(work.hidden),
    )


def build(work: Work) -> Model:
    # As its own training loop does; masks and permutations stay out of the parameters.
    params, static = eqx.partition(
        flow(work), eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )

    def whole(params):
        return paramax.unwrap(eqx.combine(params, static))

    return model(
        params,
        lambda params, x: whole(params).log_prob(x),
        lambda params, key, n: whole(params).sample(key, (n,)),
    )
