"""`flows.evidence`: the normalizer of a density by the draws of any sampler, bridged to a flow that is fitted to them."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core import FlowsError, as_key, check_function, warn_user
from flows.diagnostics import effective_draws, rhat
from flows.distributions.flow import Flow
from flows.models.splines import NSF
from flows.objectives import Estimate, bridge_normalizer, effective_sample_size, log_normalizer
from flows.results.density import Parameters
from flows.training.fit import fit as fit_of_rows

FEWEST = 100  # draws
MIXED = 1.01  # the largest R-hat of chains that agree
APART = 3.0  # standard errors between the halves
LOOSE = 0.3  # nats: a standard error of a half above which draws and flow hardly overlap


class Evidence(NamedTuple):
    """log Z in nats.

    Attributes:
        value, standard_error: by both bridges.
        halves: the `Estimate` of each bridge, whose flow was fitted to the other half.
        weighted: the `Estimate` by importance weights of the draws of both flows.
        effective: the number of independent draws that the draws are worth.
    """

    value: float
    standard_error: float
    halves: tuple[Estimate, Estimate]
    weighted: Estimate
    effective: float


def evidence(rng: Any, draws: Any, log_density: Callable, *, flow: Any = None, fit: Callable | None = None) -> Evidence:
    """log Z of an unnormalised density, the evidence of a model, by draws of any sampler.

    A flow q is fitted to the first half of each chain, and `flows.objectives.bridge_normalizer` compares the second half with
    as many draws of q; then the other way round, and the result is the mean. log_density is never differentiated.

    Args:
        rng: key or seed.
        draws: of the density, (n, d), (chains, n, d), or a dict of arrays (n, *shape); 100 or more, in the order of sampling.
        log_density: log(p Z), (n,), of points (n, d) or of a dict of arrays, in NumPy or JAX.
        flow: a distribution whose densities of points are fast; by default `Flow(NSF())`.
        fit: called `fit(rng, flow, rows)`; by default `flows.fit` without a bar; `partial(flows.fit, support=...)` for bounds.

    Returns:
        An `Evidence`. It warns where chains do not mix, where the halves disagree by more than three standard errors, and where
        draws and flow hardly overlap.

    Errors:
        FlowsError: draws of another shape, fewer than 100, constant, or not finite; log_density that is not one finite number
            for each draw.

    Source:
        Jia and Seljak, "Normalizing Constant Estimation with Gaussianized Bridge Sampling", 2019, arXiv:1912.06073.

    Example:
        >>> import flows, functools, numpy as np
        >>> draws = 3 + 2 * np.random.default_rng(0).normal(size=(400, 1))
        >>> log_density = lambda x: -0.5 * ((x[:, 0] - 3) / 2) ** 2                      # log Z = log(2 sqrt(2 pi)) = 1.612
        >>> found = flows.evidence(0, draws, log_density, flow=flows.Normal(trainable=True))
        >>> abs(found.value - 1.612) < 0.05
        True
    """
    chains, natural = _chains(draws)
    check_function(log_density, "evidence: log_density", "a function of points (n, d), or of a dict of arrays")
    _check_mixing(chains)
    flow = Flow(NSF()) if flow is None else flow
    fit = (lambda *arguments: fit_of_rows(*arguments, verbose=0)) if fit is None else fit
    count, n, d = chains.shape
    halves = chains[:, : n // 2], chains[:, n - n // 2 :]
    estimates, weights, effectives = [], [], []
    for half, key in enumerate(jax.random.split(as_key(rng))):
        fit_key, draw_key = jax.random.split(key)
        rows, others = halves[half].reshape(-1, d), halves[1 - half]
        result = fit(fit_key, flow, rows)
        proposals = np.asarray(result.draw(draw_key, others.shape[0] * others.shape[1]))
        at_p, at_q = (
            _log_p(log_density, natural, x, allow) - np.asarray(result.log_prob(x), float)
            for x, allow in ((others.reshape(-1, d), False), (proposals, True))
        )
        effective = float(np.nanmin([effective_draws(at_p.reshape(count, -1)), np.nanmin(effective_draws(others))]))
        effective = min(max(effective, 1.0), float(len(at_p)))
        estimates.append(bridge_normalizer(at_p, at_q, effective=effective))
        weights.append(at_q)
        effectives.append(effective)
    first, second = estimates
    error = math.hypot(first.standard_error, second.standard_error)
    if abs(first.value - second.value) > APART * error:
        warn_user(
            f"evidence: log Z is {first.value:.3f} +- {first.standard_error:.3f} by one half of the draws and "
            f"{second.value:.3f} +- {second.standard_error:.3f} by the other; sample for longer"
        )
    if max(first.standard_error, second.standard_error) > LOOSE:
        share = min(effective_sample_size(w) / len(w) for w in weights)
        warn_user(
            f"evidence: the standard errors of the halves are {first.standard_error:.2f} and {second.standard_error:.2f} nats, "
            f"as draws and flow hardly overlap (effective sample size {share:.3f} of the flow's draws); give more draws, or "
            "support= to fit"
        )
    value = (first.value + second.value) / 2
    return Evidence(value, error / 2, (first, second), log_normalizer(np.concatenate(weights)), sum(effectives))


def _chains(draws: Any) -> tuple[np.ndarray, Callable]:
    """Draws as (chains, n, d), and the function that makes of rows what log_density takes."""
    natural: Callable = np.asarray
    if isinstance(draws, Mapping):
        named = Parameters.of({name: np.shape(x)[1:] for name, x in draws.items()}, "evidence")
        draws, natural = np.asarray(named.packed(draws, "evidence: draws")), named.natural
    x = np.asarray(draws)
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3 or x.dtype.kind not in "iuf" or x.shape[0] * x.shape[1] < FEWEST:
        raise FlowsError(
            f"evidence: draws have dtype {x.dtype} and shape {np.shape(draws)}; expected {FEWEST} draws or more, (n, d), "
            "(chains, n, d), or a dict of arrays (n, *shape)"
        )
    if not np.isfinite(x).all() or (constant := np.flatnonzero(np.ptp(x, (0, 1)) == 0)).size:
        why = "are not all finite" if not np.isfinite(x).all() else f"are constant in number {constant[0]}"
        raise FlowsError(f"evidence: draws {why}; expected draws of a density of all their numbers")
    return x.astype(float), natural


def _check_mixing(chains: np.ndarray) -> None:
    worst = rhat(chains)
    if (worst > MIXED).any():
        j = int(np.argmax(worst))
        warn_user(
            f"evidence: R-hat of number {j} of a draw is {worst[j]:.3f}, above {MIXED}: chains, or halves of one, do not "
            "agree, so the evidence cannot be trusted. Sample for longer"
        )


def _log_p(log_density: Callable, natural: Callable, x: np.ndarray, allow: bool) -> np.ndarray:
    """The log-density of rows on the host; where `allow`, it may be -inf."""
    log_p = np.asarray(log_density(natural(x)))
    if log_p.shape != x.shape[:1] or log_p.dtype.kind != "f":
        raise FlowsError(
            f"evidence: log_density of {len(x)} draws has dtype {log_p.dtype} and shape {log_p.shape}; expected floating "
            f"numbers, ({len(x)},), one for each draw: jax.vmap(log_density) if it takes one"
        )
    bad = np.isnan(log_p) | (log_p == np.inf) | (not allow and log_p == -np.inf)
    if bad.any():
        row = int(np.argmax(bad))
        raise FlowsError(
            f"evidence: log_density is {log_p[row]} at {x[row]!s:.100} ({bad.sum()} of {len(x)}); expected finite numbers at "
            "draws, and numbers or -inf elsewhere"
        )
    return log_p.astype(float)
