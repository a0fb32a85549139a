"""Do Markov chains agree, and how many independent draws are their draws worth?"""

import math
from typing import Any

import numpy as np
from scipy import fft
from scipy.special import ndtri
from scipy.stats import rankdata

from flows.core import FlowsError

LEAST = 4  # draws of a chain, so that each half has a variance

__all__ = ["effective_draws", "rhat"]


def rhat(draws: Any) -> np.ndarray:
    """The rank-normalised R-hat of split chains: near 1 where chains agree; above 1.01 they do not.

    Each chain is cut in two, and numbers become normal scores of their ranks. R-hat^2 = (n - 1) / n + B / W, where W is the
    mean of the variances of the n draws of each half, and B the variance of their means. The larger of two is returned: of
    the draws, and of their distances from the median, which sees chains of unlike widths.

    Args:
        draws: (chains, draws, *event), 4 draws or more. A single chain has two halves that can disagree.

    Returns:
        (*event); NaN where all draws are equal.

    Errors:
        FlowsError: another shape, or numbers that are not finite.

    Source:
        Vehtari, Gelman, Simpson, Carpenter and Buerkner, "Rank-normalization, folding, and localization: An improved R-hat for
        assessing convergence of MCMC", 2021, arXiv:1903.08008, section 4.

    Example:
        >>> import flows, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(4, 500, 2)) + [[[0, 0]], [[0, 0]], [[0, 0]], [[0, 1]]]
        >>> flows.diagnostics.rhat(x).round(1)
        array([1. , 1.1])
    """
    halves = _halves(draws, "rhat")
    distances = np.abs(halves - np.median(halves, (0, 1), keepdims=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.maximum(_rhat(_scores(halves)), _rhat(_scores(distances)))


def effective_draws(draws: Any) -> np.ndarray:
    """The number of independent draws that estimate the centre of each number as well as these draws of chains.

    It is N / tau of the normal scores of split chains: N draws, and tau = 1 + 2 (rho_1 + rho_2 + ...), with autocorrelations
    rho over all chains. The sum ends where the sum of two neighbours turns negative, and pairs may not rise [Geyer, 1992].

    Args:
        draws: (chains, draws, *event), 4 draws or more.

    Returns:
        (*event); NaN where all draws are equal. 400 are enough for most purposes. It is at most N log10(N).

    Errors:
        As `rhat`.

    Source:
        Vehtari et al., 2021, arXiv:1903.08008, section 3; Geyer, "Practical Markov Chain Monte Carlo", 1992, section 3.3.

    Example:
        >>> import flows, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(4, 500))
        >>> bool(1_600 < flows.diagnostics.effective_draws(x) < 2_400)
        True
    """
    z = _scores(_halves(draws, "effective_draws"))
    chains, n, *event = z.shape
    flat = z.reshape(chains, n, -1)
    numbers = [_effective(flat[:, :, j]) if np.ptp(flat[:, :, j]) > 0 else math.nan for j in range(flat.shape[2])]
    return np.array(numbers).reshape(event)


def _halves(draws: Any, name: str) -> np.ndarray:
    """Chains cut in two, (2 chains, draws // 2, *event)."""
    draws = np.asarray(draws)
    if draws.ndim < 2 or draws.dtype.kind not in "iuf" or draws.shape[1] < LEAST or not draws.size:
        raise FlowsError(
            f"{name}: draws have dtype {draws.dtype} and shape {draws.shape}; expected numbers (chains, draws, *event), {LEAST}"
            " draws or more; a single chain is draws[None]"
        )
    if not np.isfinite(draws).all():
        chain, draw = np.argwhere(~np.isfinite(draws))[0][:2]
        raise FlowsError(f"{name}: draw {draw} of chain {chain} is not finite; expected finite numbers")
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]]).astype(float)


def _scores(x: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks over chains and draws."""
    flat = x.reshape(x.shape[0] * x.shape[1], -1)
    scores: np.ndarray = ndtri((rankdata(flat, axis=0) - 0.375) / (len(flat) + 0.25))
    return scores.reshape(x.shape)


def _rhat(z: np.ndarray) -> np.ndarray:
    n, within = z.shape[1], z.var(1, ddof=1).mean(0)
    squares: np.ndarray = (n - 1) / n + z.mean(1).var(0, ddof=1) / within
    return np.sqrt(squares)


def _effective(z: np.ndarray) -> float:
    """Return the effective draws of one number, (chains, draws)."""
    chains, n = z.shape
    spectrum = fft.rfft(z - z.mean(1, keepdims=True), fft.next_fast_len(2 * n, real=True), axis=1)
    covariance = fft.irfft(np.abs(spectrum) ** 2, fft.next_fast_len(2 * n, real=True), axis=1)[:, :n].mean(0) / n
    within = covariance[0] * n / (n - 1)
    whole = covariance[0] + z.mean(1).var(ddof=1)
    rho = 1 - (within - covariance) / whole
    rho[0] = 1.0
    pairs = rho[: max((n - 1) // 2, 1) * 2].reshape(-1, 2).sum(1)
    ends = np.flatnonzero(pairs < 0)
    last = int(ends[0]) if len(ends) else len(pairs) - 1
    tau = 2 * np.minimum.accumulate(pairs[:last]).sum() - 1 + max(rho[2 * last], 0.0)
    return chains * n / max(tau, 1 / math.log10(chains * n))
