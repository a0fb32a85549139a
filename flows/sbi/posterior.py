"""Posteriors from simulations: theta given x by a conditional flow, and the density of a posterior by a fitted likelihood."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    Array,
    DistributionLike,
    FlowsError,
    as_array,
    as_event,
    as_key,
    explained_call,
    on_device,
    pieces_of,
    warn_user,
)
from flows.distributions.embedded_context import EmbeddedContext
from flows.distributions.flow import Flow
from flows.distributions.joint import ChainRule
from flows.models.splines import NSF, circular_splines
from flows.results.columns import Inputs
from flows.results.result import FitResult
from flows.sbi.prior import Prior, Truncated
from flows.sbi.simulations import Simulations
from flows.training.fit import fit as fit_rows

FEWEST = 100  # valid rows, below which there is nothing to learn from
CONTEXTS, DRAWS = 100, 100  # of a posterior, of which the share outside a cut is counted


@explained_call("flows.sbi.fit_posterior(0, prior, simulations)")
def fit_posterior(
    rng: Any,
    prior: Prior,
    simulations: Simulations,
    *,
    model: DistributionLike | None = None,
    embedding: Any = None,
    fit: Callable[..., FitResult] = fit_rows,
) -> FitResult:
    """Fit the posterior p(theta | x) of a simulator for all x at once (neural posterior estimation), by `flows.fit` of theta
    with x as context, within the ends of the prior.

    Rows that are not finite are left out, which is right here: the posterior is of observations that are finite. Their number
    is told.

    Args:
        rng: key or seed.
        prior: the prior from which theta was drawn, or a cut of it.
        simulations: of this prior.
        model: a conditional distribution of theta; by default `Flow(NSF())`, behind circular splines of the angles.
        embedding: a network of x, any conditioner, which trains with the flow: with two features for each number of theta, or
            `(network, size)`. An x of several axes, such as an image or a set, needs one.
        fit: a function such as `flows.fit`; settings by `functools.partial`, `partial(flows.fit_ensemble, members=5)`.

    Returns:
        A `FitResult` with the names of the prior: `draw(rng, n, context=x)`, `log_prob(theta, context=x)`, `save`, and
        `flows.check(posterior, new.theta, context=new.x)`.

    Errors:
        FlowsError: theta outside the prior or of another length, fewer than 100 rows that are finite, an x of several axes
            without an embedding. Errors of `fit`.

    Source:
        Papamakarios and Murray, "Fast epsilon-free Inference of Simulation Models with Bayesian Conditional Density
        Estimation", 2016, arXiv:1605.06376; Greenberg, Nonnenmacher and Macke, 2019, arXiv:1905.07488, of the name NPE.

    Example:
        >>> import flows, functools, jax
        >>> prior = flows.sbi.Prior({"mean": flows.Normal()})
        >>> sims = flows.sbi.simulate(0, prior, lambda key, theta: theta["mean"] + jax.random.normal(key, (2,)), 300, verbose=0)
        >>> short = functools.partial(flows.fit, max_epochs=5, folds=1, verbose=0)
        >>> model = flows.Normal(trainable=True, regression=True)  # which this posterior is
        >>> posterior = flows.sbi.fit_posterior(1, prior, sims, model=model, fit=short)
        >>> posterior.draw(2, 5, context=[0.5, 0.7])["mean"].shape
        (5,)
    """
    if not isinstance(prior, Prior) or not isinstance(simulations, Simulations):
        expected = "fit_posterior(rng, prior, simulations), a Prior and Simulations"
        raise TypeError(f"fit_posterior: got {prior!r:.40} and {simulations!r:.40}; expected {expected}")
    event = simulations.x.shape[1:]
    if embedding is None and len(event) > 1:
        raise FlowsError(
            f"fit_posterior: an x has shape {event}, and networks take vectors; expected embedding=, a network of such an x "
            "(flows.conditioners.DeepSet for a set, FromEquinox or FromNNX for an image), or x flattened"
        )
    _check_theta(prior, simulations)
    whole = model or _default(prior)
    if embedding is not None:
        pair = isinstance(embedding, tuple) and len(embedding) == 2
        network, size = embedding if pair else (embedding, 2 * prior.size)
        whole = EmbeddedContext(whole, network, size)
    low, high = (np.broadcast_to(np.asarray(end, float), (prior.size,)) for end in prior.region)
    ends = {"support": (low, high)} if np.isfinite([low, high]).any() else {}
    with ExitStack() as stack:
        sims = _finite(simulations, stack)
        result = fit(rng, whole, sims.theta, context=sims.x, **ends)
        if isinstance(prior, Truncated):
            _tell_outside(rng, prior, result, sims)
    return result._replace(named=prior.named)


def _default(prior: Prior) -> DistributionLike:
    angles = prior.periods > 0
    count, flow = int(angles.sum()), Flow(NSF())
    if angles[count:].any():
        raise FlowsError("fit_posterior: angles come after numbers in this prior; give a prior by name, or model=")
    circles = circular_splines(prior.periods[:count].tolist()) if count else flow
    return ChainRule(circles, flow, sizes=(count, prior.size - count)) if 0 < count < prior.size else circles


def _check_theta(prior: Prior, simulations: Simulations) -> None:
    """Refuse parameters that the prior does not have, and name a row."""
    if simulations.theta.shape[1] != prior.size:
        raise FlowsError(f"fit_posterior: theta has shape {simulations.theta.shape}; expected (n, {prior.size}), of the prior")
    for piece in pieces_of(len(simulations), simulations.theta.shape[1:]):
        theta = np.asarray(simulations.theta[piece])
        outside = np.isneginf(np.asarray(prior.log_pdf(on_device(theta, prior.dtype))))
        if outside.any():
            row, start = int(outside.argmax()), piece.start
            raise FlowsError(
                f"fit_posterior: theta of row {start + row}, {theta[row]}, lies outside the prior: of "
                f"{len(theta):,} rows {int(outside.sum()):,} do; expected simulations of {prior!r:.80}"
            )


def _finite(simulations: Simulations, stack: ExitStack) -> Simulations:
    """Return the rows that are finite, and warn where rows are left out; of a memory map in other files, until the fit ends."""
    valid = simulations.valid
    lost = int((~valid).sum())
    if not lost and len(valid) >= FEWEST:
        return simulations
    first, count = int(valid.argmin()) if lost else None, len(simulations)
    which = f" (row {first}: theta {simulations.theta[first]})" if lost else ""
    what = f"{lost:,} of {count:,} rows are not finite{which}"
    if count - lost < FEWEST:
        raise FlowsError(f"fit_posterior: {what}; expected at least {FEWEST} that are: mend the simulator, or narrow the prior")
    warn_user(f"fit_posterior: {what}, and are left out: the posterior is of observations that are finite")
    rows = np.flatnonzero(valid)
    if not isinstance(simulations.x, np.memmap):
        return simulations[rows]
    here = simulations.x.filename and os.path.dirname(simulations.x.filename)  # /tmp may lie in memory
    folder, copies = stack.enter_context(TemporaryDirectory(dir=here)), []
    for name, array in (("theta", simulations.theta), ("x", simulations.x)):
        file = f"{folder}/{name}.npy"
        copies.append(np.lib.format.open_memmap(file, "w+", array.dtype, (len(rows), *array.shape[1:])))
        for piece in pieces_of(len(rows), array.shape[1:]):
            copies[-1][piece] = array[rows[piece]]
    return Simulations(*copies)


def _tell_outside(rng: Any, prior: Truncated, result: FitResult, sims: Simulations) -> None:
    """Warn of draws outside a cut, whose ends the model does not know."""
    key = jax.random.fold_in(as_key(rng), 1)
    drawn = Inputs(result).drawn_for(key, DRAWS, on_device(np.asarray(sims.x[:CONTEXTS]), jnp.float32))
    share = float(np.isneginf(np.asarray(prior.log_pdf(drawn.reshape(-1, prior.size)))).mean())
    if share > 0:
        warn_user(
            f"fit_posterior: {share:.1%} of draws for {min(CONTEXTS, len(sims))} of these x lie outside the cut of the prior; "
            "drop those with prior.log_prob of -inf"
        )


def log_density(prior: Prior, likelihood: FitResult, x: Any) -> Callable[[Any], Array]:
    """Return the unnormalised log-density of a posterior: log p(theta) + sum_i log p(x_i | theta), in nats.

    It is a function of parameters, a dict of arrays (n, *shape) or vectors (n, size), which returns (n,): for
    `flows.fit_to_density(rng, None, density, prior.input_dim, support=prior.support)`, `flows.interop.blackjax` and
    `flows.objectives.importance_samples`.

    Args:
        prior: a `Prior`.
        likelihood: `flows.fit(rng, model, sims.x, context=sims.theta)`. Rows that are not finite must not be dropped there:
            the likelihood would lack the probability of such rows, which depends on theta.
        x: independent observations, (rows, *event), or one, of the shape of the event.

    Errors:
        FlowsError: observations of another shape, or not finite; a likelihood whose context is not a vector of the prior.

    Example:
        >>> import flows, numpy as np
        >>> prior = flows.sbi.Prior({"mean": flows.Normal()})
        >>> rows = np.random.default_rng(0).normal(size=(300, 1))
        >>> likelihood = flows.fit(0, flows.Flow(flows.NSF(1)), rows, context=0 * rows + 1, max_epochs=1, folds=1, verbose=0)
        >>> flows.sbi.log_density(prior, likelihood, [[0.1], [0.2]])({"mean": np.zeros(3)}).shape
        (3,)
    """
    event, rows = as_event(likelihood.input_dim), as_array(x, "log_density: x")
    rows = rows[None] if rows.shape == event else rows
    if (shape := Inputs(likelihood).context_shape) != (prior.size,):
        raise FlowsError(
            f"log_density: the context of the likelihood has shape {shape}; expected {(prior.size,)}, theta:"
            " flows.fit(rng, model, sims.x, context=sims.theta)"
        )
    if rows.shape[1:] != event or not len(rows) or not np.isfinite(rows).all():
        raise FlowsError(f"log_density: x has shape {rows.shape}; expected finite numbers, (rows, {str(event)[1:]}")

    def density(theta: Any) -> Array:
        vectors = prior.vectors(theta)

        def of_row(row: Array) -> Array:
            return likelihood.log_pdf(likelihood.params, jnp.broadcast_to(row, (len(vectors), *event)), context=vectors)

        return prior.log_pdf(vectors) + jax.vmap(of_row)(rows).sum(0)

    return density
