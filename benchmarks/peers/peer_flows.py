"""The workloads in this library: the plain models, which are like the peers' in every layer."""

import jax
from with_jax import model
from workloads import Model, Work

import flows


def flow(work: Work, scan: bool | None = None):
    """The constructor's value."""
    shape = {"num_layers": work.layers, "hidden": work.hidden, "plain": True, "scan": scan}
    if work.transformer == "spline":
        spline = {"num_bins": work.bins, "bound": work.bound}
        return flows.Flow(flows.NSF(**shape, **spline, autoregressive=work.kind == "autoregressive"))
    return flows.Flow((flows.RealNVP if work.kind == "coupling" else flows.MAF)(**shape))


def build(work: Work, scan: bool | None = None) -> Model:
    params, log_pdf, sample = flow(work, scan)(0, work.d)
    built = model(params, log_pdf, lambda params, key, n: sample(key, params, n))
    trained = zip(jax.tree.leaves(params), jax.tree.leaves(flows.trainable(params)), strict=True)
    return built._replace(num_params=sum(leaf.size for leaf, trains in trained if trains))
