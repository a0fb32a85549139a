"""Objectives: what training minimises, as plain functions for one's own loop, and how far importance weights can be trusted.

    distribution = params, log_pdf, sample = init_fun(0, 2)
    loss, gradient = jax.value_and_grad(flows.objectives.reverse_kl)(params, distribution, log_density, rng, 256)

Each is `objective(params, distribution, ...)`, a number that is to fall, in nats but for `flow_matching`. q is the distribution
whose functions are in the triple `distribution`, at `params`; the params within the triple are not looked at. All can be
compiled with params, rng, data and context as arguments.

A target is `log_density(x)`: of points (n, *event) it gives (n,), the logarithm of p(x) Z in nats, where the constant Z need
not be known. If it names `context`, it is handed the context that the objective was given. Where p is 0 it is -inf.
"""

from flows.objectives.annealing import alpha_divergence, annealed_importance_samples
from flows.objectives.bridge import bridge_normalizer
from flows.objectives.importance import (
    Estimate,
    effective_sample_size,
    importance_samples,
    importance_weighted_log_pdf,
    log_normalizer,
    pareto_k,
)
from flows.objectives.losses import forward_kl, importance_weighted_bound, maximum_likelihood, reverse_kl
from flows.objectives.matching import flow_matching

__all__ = [
    "Estimate",
    "alpha_divergence",
    "annealed_importance_samples",
    "bridge_normalizer",
    "effective_sample_size",
    "flow_matching",
    "forward_kl",
    "importance_samples",
    "importance_weighted_bound",
    "importance_weighted_log_pdf",
    "log_normalizer",
    "maximum_likelihood",
    "pareto_k",
    "reverse_kl",
]
