"""Bridge sampling: log Z between the draws of a sampler and the draws of a distribution."""

import math
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from flows.core import FlowsError, positive
from flows.objectives.importance import Estimate, numbers_of


def bridge_normalizer(log_w_of_draws: Any, log_w_of_proposals: Any, *, effective: float | None = None) -> Estimate:
    """log Z by draws x of p and draws y of q, with log w = log_density - log q at both, in nats.

    Z solves mean(s w(y) / (s w(y) + (1 - s) Z)) = mean(s Z / (s w(x) + (1 - s) Z)), the bridge of least variance, where s is
    the share of the draws of p. Unlike `log_normalizer` it is precise where either of p and q covers the other. The squared
    error is the sum of the relative variances of the two means, divided by their numbers of independent draws.

    Args:
        log_w_of_draws: (n,), at the draws of a sampler of p; finite.
        log_w_of_proposals: (m,), at draws of q, which were not used to fit q to p; -inf where p is 0.
        effective: how many independent draws the n draws are worth, by `flows.diagnostics.effective_draws`; by default n.

    Returns:
        `Estimate(value, standard_error)`.

    Errors:
        FlowsError: another shape, NaN, inf, fewer than two of either, draws of p where p is 0, effective above n or below 1.

    Source:
        Meng and Wong, "Simulating ratios of normalizing constants via a simple identity", 1996, equation 4.1; Bennett, 1976;
        the error: Fruehwirth-Schnatter, 2004. With flows: Jia and Seljak, "Normalizing Constant Estimation with Gaussianized
        Bridge Sampling", 2019, arXiv:1912.06073.

    Example:
        >>> import flows, numpy as np
        >>> x, y = np.random.default_rng(0).normal(size=(2, 4000)) * [[1.0], [2.0]]            # of p and of q, log Z = 3
        >>> log_w = lambda x: 3 - 0.5 * x**2 + 0.5 * (x / 2) ** 2 + np.log(2)
        >>> estimate = flows.objectives.bridge_normalizer(log_w(x), log_w(y))
        >>> abs(estimate.value - 3) < 4 * estimate.standard_error < 0.1
        True
    """
    name = "bridge_normalizer"
    at_p, at_q = numbers_of(log_w_of_draws, name), numbers_of(log_w_of_proposals, name)
    if min(len(at_p), len(at_q)) < 2 or not np.isfinite(at_p).all():
        why = (
            "log_w_of_draws holds -inf: a draw of p where p is 0" if len(at_p) > 1 else f"there are {len(at_p)} and {len(at_q)}"
        )
        raise FlowsError(f"{name}: {why}; expected two weights or more of each, finite ones of the draws of p")
    n, m = len(at_p) if effective is None else positive(effective, f"{name}: effective", 1.0, len(at_p)), len(at_q)
    shift = math.log(m / n)

    def shares(log_z: float) -> tuple[np.ndarray, np.ndarray]:
        """q / (s p + (1 - s) q) at draws of p, and p / (s p + (1 - s) q) at draws of q, up to constants."""
        return expit(log_z + shift - at_p), expit(at_q - log_z - shift)

    def excess(log_z: float) -> float:
        by_q, by_p = shares(log_z)
        return float(n * by_q.mean() - m * by_p.mean())

    finite = np.concatenate([at_p, at_q[np.isfinite(at_q)]])
    room = 50.0 + abs(shift) + math.log(len(finite))
    log_z = float(brentq(excess, finite.min() - room, finite.max() + room, xtol=1e-10))
    squares = [part.var(ddof=1) / part.mean() ** 2 / count for part, count in zip(shares(log_z), (n, m), strict=True)]
    return Estimate(log_z, float(math.sqrt(sum(squares))))
