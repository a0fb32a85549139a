"""`flows.fit_ensemble`: how far models of the same data differ."""

from collections.abc import Callable
from typing import Any

import optax

from flows.core import DistributionLike, as_key, explained_call
from flows.results.ensemble import EnsembleResult
from flows.training.fitting import EnsembleOptions, fit_members, ready
from flows.training.options import EMA, LEARNING_RATE, check_distribution


@explained_call("flows.fit_ensemble(0, flow, data, members=8)")
def fit_ensemble(
    rng: Any,
    init_fun: DistributionLike,
    data: Any,
    *,
    members: int = 8,
    context: Any = None,
    weights: Any = None,
    objective: Callable | None = None,
    validation: Any = None,
    batch_size: int | None = None,
    max_epochs: int | None = None,
    steps_per_epoch: int | None = None,
    max_minutes: float | None = None,
    patience: int | None = None,
    learning_rate: float = LEARNING_RATE,
    weight_decay: float = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    standardize: bool | str = True,
    standardize_context: bool = True,
    support: Any = None,
    as_is: Any = (),
    dequantize: Any = None,
    ema: float | None = EMA,
    accumulate: int = 1,
    matmul_dtype: str | None = None,
    remat: bool = False,
    checkpoint: Any = None,
    checkpoint_every: float = 10.0,
    callbacks: Any = (),
    verbose: int = 1,
) -> EnsembleResult:
    """Fit several models to the same data at once, each from an init and with batches of its own.

    log p(x) = logsumexp_m log p_m(x) - log members. All members train in one compiled program on the same training rows,
    and each keeps the params that were best on the same held-out rows; the fit ends when none has become better for
    `patience` epochs. The spread of `log_pdfs` over members is large where the data said little.

    Args:
        members: how many.
        member: the model of one, as a constructor's value.
        path: where the mixture of the members is in params.
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
    options, key = EnsembleOptions.of(locals()), as_key(rng)
    check_distribution(init_fun, options.caller)
    rows, model = ready(data, options, key, init_fun)
    return fit_members(key, model, rows, options)
