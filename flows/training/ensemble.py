"""`flows.fit_ensemble`: how far models of the same data differ."""

from typing import Any, Unpack, cast

from flows.core import DistributionLike, explained_call
from flows.results.ensemble import EnsembleResult
from flows.training.fit import fit
from flows.training.keywords import FitKeywords, hands_on


@explained_call("flows.fit_ensemble(0, flow, data, members=8)")
@hands_on(fit, FitKeywords.__annotations__)
def fit_ensemble(
    rng: Any, init_fun: DistributionLike, data: Any, *, members: int = 8, **keywords: Unpack[FitKeywords]
) -> EnsembleResult:
    """Fit several models to the same data at once, each from an init and with batches of its own.

    log p(x) = logsumexp_m log p_m(x) - log members. All members train in one compiled program on the same training rows,
    and each keeps the params that were best on the same held-out rows; the fit ends when none has become better for
    `patience` epochs. The spread of `log_pdfs` over members is large where the data said little.

    Args:
        members: how many.
        rng, init_fun, data and all others: as of `flows.fit`.

    Returns:
        An `EnsembleResult`, which unpacks as `params, log_pdf, sample`, and has `.log_pdfs(params, inputs)`.

    Errors:
        As of `flows.fit`; an error in one member says which.

    Source:
        Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
        2017, arXiv:1612.01474.

    Example:
        >>> import flows, jax
        >>> data = jax.random.normal(jax.random.key(0), (200, 2))
        >>> result = flows.fit_ensemble(0, flows.Flow(flows.ActNorm()), data, members=3, max_epochs=2, verbose=0)
        >>> result.log_pdfs(result.params, data[:5]).shape
        (3, 5)
    """
    return cast(EnsembleResult, fit(rng, init_fun, data, members=members, **keywords))
