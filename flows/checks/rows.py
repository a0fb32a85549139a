"""Can each row be trusted, and are these rows like those that were held out?"""

import jax
import jax.numpy as jnp
import numpy as np

from flows.checks.noise import beyond_splines
from flows.checks.sample import Sample
from flows.checks.verdicts import Finding
from flows.core import FlowsError, on_device
from flows.diagnostics import enable_x64, uniformity
from flows.diagnostics.arrays import chosen

DOUBLE = 1_000  # rows, at most, that are computed in float64 beside float32


def rows(sample: Sample) -> Finding:
    """`result.verify` of all rows, and their log p in float64."""
    model = sample.model
    if model.result is None:
        reason, count = "a triple has no bijection to look at", len(sample.log_p)
        lost = int((~np.isfinite(sample.log_p)).sum())
        return Finding(f"log p of {lost:,} of {count:,} rows is not finite", lost / count) if lost else Finding(reason)
    report = sample.report
    beyond = [each.row for each in report.rows if each.beyond]
    off = len(report.rows) - len(beyond)
    told = [f"{off:,} of {report.looked_at:,} rows are off" if off else "all round trips hold"]
    if beyond:
        layers = beyond_splines(sample, np.array(beyond))
        told.append(f"{len(beyond):,} lie beyond the splines' range{layers}")
    change = _in_double(sample)
    told.append("log p was not computed in float64" if change is None else f"log p in float64 is up to {change:.1e} off")
    return Finding("; ".join(told), off / report.looked_at, minor=bool(beyond))


def _in_double(sample: Sample) -> float | None:
    """The largest change of a row's log p, in nats, where all is computed in float64; None where that is not possible."""
    model, random = sample.model, sample.random(2)
    there = chosen(np.arange(len(sample.all_rows)), DOUBLE, random)
    contexts = sample.all_contexts
    try:
        with enable_x64():
            params = jax.tree.map(lambda leaf: on_device(np.asarray(leaf, np.float64)), model.params)
            given = contexts[there] if sample.conditional and contexts is not None else contexts
            keywords = {} if given is None else {"context": on_device(given, jnp.float64)}
            exact = np.asarray(model.log_pdf(params, on_device(sample.all_rows[there], jnp.float64), **keywords))
    except (TypeError, FlowsError):
        return None
    with np.errstate(invalid="ignore"):
        change = np.abs(exact - sample.log_p[there])
    known = change[np.isfinite(change)]
    return float(known.max()) if len(known) else None


def shift(sample: Sample) -> Finding:
    """Are scores of these rows like those of rows held out in the fit? Ranks among them, whatever the model."""
    result = sample.model.result
    if result is None or not result.has_scores:
        return Finding("the model has no scores of rows held out")
    contexts = sample.all_contexts
    given = {} if contexts is None else {"context": contexts}
    scores = np.atleast_2d(np.asarray(result.scores_of(sample.all_rows, given.get("context")), float))
    known = np.atleast_2d(result.scores)
    weights = np.ones(known.shape) if result.score_weights is None else np.atleast_2d(result.score_weights)
    effective = max(int(weights.sum() ** 2 / np.square(weights).sum()), 1)
    if np.isnan(scores).any() or np.isnan(known).any() or effective < 10:
        return Finding("scores are NaN" if effective >= 10 else f"{effective} rows held out")
    random = sample.random(3)
    member = random.integers(len(known), size=scores.shape[1])  # after folds each row is ranked by one of the members
    shares = np.empty(scores.shape[1])
    for i, (held_out, weight) in enumerate(zip(known, weights, strict=True)):
        mine, order = member == i, np.argsort(held_out)
        below = np.concatenate([[0.0], np.cumsum(weight[order])])
        first, last = (below[np.searchsorted(held_out[order], scores[i, mine], side=side)] for side in ("left", "right"))
        one = np.square(weight).sum() / weight.sum()  # the row itself
        shares[mine] = (first + random.uniform(size=mine.sum()) * (last - first + one)) / (below[-1] + one)
    ranks = np.minimum(np.floor(shares * (effective + 1)), effective)
    told = uniformity(ranks, effective, shared=True)
    side = "lower" if told.terms[0] < 0 else "higher"
    return Finding(
        f"Kolmogorov distance of scores, {side} than of {known.size:,} rows held out", float(told.size), float(told.p)
    )
