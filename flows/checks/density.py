"""Does the density integrate to 1?"""

import jax
import numpy as np
from scipy.special import logsumexp, ndtr

from flows.checks.around import ellipsoids
from flows.checks.sample import Sample
from flows.checks.verdicts import Finding
from flows.diagnostics.arrays import chosen
from flows.objectives import log_normalizer, pareto_k

CENTRES = 500  # rows around which points lie
POINTS = 10_000
DEGREES = 5.0  # of freedom, of Student's t
NEAREST, FLOOR = 50, 1e-3  # few and thin, as p may be narrow between columns that go together
CONTEXTS = 20  # that are looked at, of a conditional model
MOST_COLUMNS = 64
COARSE = 0.25  # of a standard deviation, by which numbers that p is given may be rounded
MOST_K = 0.7  # of Pareto's k, above which no mean can be believed


def normalisation(sample: Sample) -> Finding:
    """log of the integral of p, by draws of a mixture of Student's t around rows; of a conditional model around draws for some
    contexts, the mean of their integrals."""
    if reason := unfit(sample):
        return Finding(reason)
    random = sample.random(30)
    log_w = np.concatenate([_weights(sample, cloud, context, random) for cloud, context in _clouds(sample, random)])
    unknown = int((np.isnan(log_w) | np.isposinf(log_w)).sum())
    if unknown or not np.isfinite(log_w).any():
        off = f"NaN or inf at {unknown:,}" if unknown else "-inf at all"
        return Finding(f"log p is {off} of {len(log_w):,} points around rows")
    k = pareto_k(log_w)
    if k > MOST_K:
        return Finding(f"Pareto's k is {k:.2f}: no such mean can be believed")
    told = log_normalizer(log_w)
    z = -np.expm1(-told.value) / max(told.standard_error, 1e-300)
    detail = f"log of the integral, {told.value:+.3f} +- {told.standard_error:.3f} nats"
    return Finding(detail, abs(told.value), float(2 * ndtr(-abs(z))))


def unfit(sample: Sample) -> str:
    """Why the score is no density of the line, or the line has too many dimensions; nothing where all is well."""
    model = sample.model
    if model.likelihood == "lower bound":
        return "the score is a lower bound, and no density"
    if model.region is not None and not model.region.flat:
        return f"rows are {model.region.words.noun}, in part or all"
    if len(sample.columns) > MOST_COLUMNS:
        return f"{len(sample.columns):,} columns: no such mean can be believed above {MOST_COLUMNS}"
    low, middle, high = np.quantile(sample.rows.astype(np.float64), [0.16, 0.5, 0.84], axis=0)
    step = np.finfo(np.float64 if jax.config.jax_enable_x64 else np.float32).eps * np.abs(middle)  # type: ignore[attr-defined]
    if (coarse := (high > low) & (step > COARSE * (high - low) / 2)).any():
        return f"{sample.columns[int(coarse.argmax())].name} is too far from 0, beside its spread, for float32"
    return ""


def _clouds(sample: Sample, random: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Points that show where p is, and the context that it has there."""
    rows, draws, contexts = sample.rows.astype(np.float64), sample.draws.astype(np.float64), sample.contexts
    if not sample.conditional or contexts is None:
        return [(rows, contexts)]
    return [(draws[i], contexts[i]) for i in chosen(np.arange(len(rows)), CONTEXTS, random)]


def _weights(sample: Sample, cloud: np.ndarray, context: np.ndarray | None, random: np.random.Generator) -> np.ndarray:
    """log p - log q of draws of the mixture q around a cloud."""
    around = ellipsoids(cloud, chosen(cloud, CENTRES, random), NEAREST, FLOOR)
    count, d = POINTS // (CONTEXTS if sample.conditional else 1), cloud.shape[1]
    ball = random.normal(size=(count, d)) / np.sqrt(random.chisquare(DEGREES, (count, 1)) / DEGREES)
    x = around.points(random.integers(len(around.centres), size=count), ball).astype(sample.rows.dtype)
    log_q = logsumexp(around.log_student(x.astype(np.float64), DEGREES), axis=0) - np.log(len(around.centres))
    return sample.model.log_p(x.reshape(-1, *sample.model.event), context) - log_q
