"""Rows by themselves: can each be trusted, are they like rows held out in the fit, do they depend on the rows before, and are
they, or draws, among the training rows? And rows as a model sees them: their noise, and how far out they lie at each layer."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

from flows.checks.model import flat
from flows.checks.sample import PER_ROW, Sample, features
from flows.checks.verdicts import Finding, OneTest, one_test, rank_test, worst
from flows.core import (
    FlowsError,
    Region,
    bijection_part,
    distribution_part,
    functions_of,
    leading,
    on_device,
    opened,
    params_in,
    stages,
    structure_of,
)
from flows.diagnostics import enable_x64, nearest_rows, uniformity
from flows.diagnostics.arrays import LEAST, chosen, unit_of
from flows.diagnostics.rows import spline_bound
from flows.results.columns import columns_of

DOUBLE = 1_000  # rows, at most, that are computed in float64 next to float32
MOST_COPIES = 2_000  # rows, and draws, whose nearest training row is found
MOST_ORDERED = 100_000  # first rows, which are tested for dependence on the rows before
LEVEL = 1e-4  # of the smallest p-value times the number of columns
FADED = 0.05  # correlation, below which rows count as independent
# latents
MOST_COLUMNS, MOST_PAIRS = 64, 300
BASE = 10_000  # draws of the base
SHOWN = 4  # layers
DRAWN = 10_000  # ranks of scores, of which a picture has the curve


def rows(sample: Sample) -> Finding:
    """Run `result.verify` on all rows, and compute their log p in float64."""
    if sample.model.result is None:
        reason, count = "a triple has no bijection to look at", len(sample.log_p)
        lost = int((~np.isfinite(sample.log_p)).sum())
        return Finding(f"log p of {lost:,} of {count:,} rows is not finite", lost / count) if lost else Finding(reason)
    report = sample.report
    beyond = [row.row for row in report.rows if row.beyond]
    off = len(report.rows) - len(beyond)
    parts = [f"{off:,} of {report.looked_at:,} rows are off" if off else "all round trips hold"]
    if beyond:
        parts.append(f"{len(beyond):,} lie beyond the splines' range{beyond_splines(sample, np.array(beyond))}")
    change = _in_double(sample)
    parts.append("log p was not computed in float64" if change is None else f"log p in float64 is up to {change:.1e} off")
    return Finding("; ".join(parts), off / report.looked_at, minor=bool(beyond))


def _in_double(sample: Sample) -> float | None:
    """Return the largest change of a row's log p in float64, in nats; None where the model does not compute in float64."""
    model, places = sample.model, chosen(np.arange(len(sample.all_rows)), DOUBLE, sample.random(2))
    contexts = sample.contexts_at(places)
    try:
        with enable_x64():
            params = jax.tree.map(lambda leaf: on_device(np.asarray(leaf, np.float64)), model.params)
            keywords = {} if contexts is None else {"context": on_device(contexts, jnp.float64)}
            exact = np.asarray(model.log_pdf(params, on_device(sample.all_rows[places], jnp.float64), **keywords))
    except (TypeError, FlowsError):
        return None
    with np.errstate(invalid="ignore"):
        change = np.abs(exact - sample.log_p[places])
    known = change[np.isfinite(change)]
    return float(known.max()) if len(known) else None


def shift(sample: Sample) -> Finding:
    """Test whether these rows have scores like the rows held out in the fit, by ranks, whatever the model."""
    result = sample.model.result
    if result is None or not result.has_scores:
        return Finding("the model has no scores of rows held out")
    scores = np.atleast_2d(np.asarray(result.scores_of(sample.all_rows, sample.all_contexts), float))
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
    ranks = np.minimum(np.floor(shares * (effective + 1)), effective).astype(int)
    test = uniformity(ranks, effective, shared=True)
    sample.arrays["shift"] = result.p_values_of(scores)
    side = "lower" if test.terms[0] < 0 else "higher"
    curve = one_test(test, "scores", chosen(ranks, DRAWN, random), effective, True)
    sample.tests["shift"] = [curve._replace(fault=f"scores are {side}")]
    detail = f"Kolmogorov distance of scores, {side} than of {known.size:,} rows held out"
    return Finding(detail, float(test.size), float(test.p))


def copies(sample: Sample) -> Finding:
    """Compare distances to the nearest training row, of draws and of rows: has the model learnt training rows by heart?"""
    if sample.train is None:
        return Finding("train= was not given")
    train, context = sample.train
    if len(train) < LEAST:
        return Finding(f"{len(train)} training rows; at least {LEAST} are enough to be near to")
    random = sample.random(15)
    places = [chosen(np.arange(len(x)), MOST_COPIES, random) for x in (sample.rows, sample.ones)]
    rows, draws = sample.rows[places[0]], sample.ones[places[1]]
    numbers = features(sample.columns, rows, draws, train)[1]
    if sample.conditional:
        contexts = *(flat(sample.contexts)[at] for at in places), context
        numbers = [np.concatenate(pair, 1) for pair in zip(numbers, contexts, strict=True)]
    if not numbers[0].shape[1]:
        return Finding("no column that varies")
    test = nearest_rows(*numbers)
    copied = int(np.isin(_keys(draws), _keys(train)).sum())
    equal = f"; {copied:,} of {len(draws):,} draws are training rows" if copied else ""
    detail = f"draws are nearer to a training row than rows are in {test.size + 0.5:.1%} of pairs{equal}"
    return Finding(detail, max(test.size, 0.0), test.p)


def in_train(sample: Sample) -> tuple[np.ndarray, float]:
    """Return which of all rows are training rows, with equal contexts, and the share of draws that are, as codes and rounded
    numbers may be by chance."""
    if sample.train is None:
        return np.zeros(0, int), 0.0
    (train, context), rows, draws = sample.train, flat(sample.all_rows), sample.ones
    if sample.conditional:
        rows, train = np.concatenate([rows, flat(sample.all_contexts)], 1), np.concatenate([train, context], 1)
        draws = np.concatenate([draws, flat(sample.contexts)], 1)
    known = _keys(train)
    return np.flatnonzero(np.isin(_keys(rows), known)), float(np.isin(_keys(draws), known).mean()) if len(draws) else 0.0


def _keys(rows: Any) -> np.ndarray:
    """Rows as values that are equal where rows are, in float32."""
    plain = np.ascontiguousarray(rows, np.float32) + np.float32(0)  # -0 is 0
    return plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1]))).ravel()


def dependence(sample: Sample) -> str:
    """Return a remark on rows that are correlated with the row before, as fewer of these are independent; "" where they are not
    correlated."""
    names, (numbers,) = features(sample.columns, flat(sample.all_rows[:MOST_ORDERED]))
    n = len(numbers)
    if n < 3 or not names:
        return ""
    ranks = rankdata(numbers, axis=0)
    middle, spread = unit_of(ranks)
    ranks = (ranks - middle) / spread
    before = (ranks[1:] * ranks[:-1]).mean(0)
    at = int(before.argmax())
    if ndtr(-before[at] * np.sqrt(n)) * len(names) > LEVEL:
        return ""
    lags = np.fft.irfft(np.abs(np.fft.rfft(ranks[:, at], 2 * n)) ** 2)[: n // 2] / n
    faded = int(np.argmax(lags < FADED)) if (lags < FADED).any() else len(lags)
    return (
        f"rows depend on those before them ({names[at]} correlates by {before[at]:.2f} with the row before): p-values are too "
        f"small. About one row in {max(faded, 2)} is independent: check data[::{max(faded, 2)}]"
    )


class Noise(NamedTuple):
    """Noise of rows, (rows, columns), draws of the base, (draws, columns), or (rows, 99, columns) for a base with a context,
    and the region where both live."""

    rows: np.ndarray
    base: np.ndarray
    region: Region | None


def latents(sample: Sample) -> Finding:
    """Compare the noise of rows with draws of the base, or for rounded values with the noise of draws: each dimension, and
    products of pairs."""
    if sample.model.init_fun is None:
        return Finding("there is no init_fun, and so no bijection to look at")
    noises = list(_noise(sample, sample.all_rows[sample.places], 40))
    if not noises:
        return Finding("mixtures, and models without a bijection, have no one noise")
    others = "draws of the base"
    if sample.model.likelihood == "lower bound":  # numbers drawn within a cell do not follow the density there
        draws_ = _noise(sample, sample.ones, 43)
        noises, others = [a._replace(base=b.rows) for a, b in zip(noises, draws_, strict=True)], "that of draws"
    if not all(np.isfinite(numbers).all() for noise in noises for numbers in noise[:2]):
        return Finding("noise of rows, or of the base, is not finite")
    sample.arrays["latents"] = np.concatenate([noise.rows for noise in noises], 1)
    random, tests, left_out, count = sample.random(41), list[OneTest](), 0, 0
    for noise in noises:
        named = tuple(f"noise {count + j}" for j in range(noise.rows.shape[1]))
        count += len(named)
        names, (z, base) = features(columns_of(named, noise.region), noise.rows, noise.base)
        middle = base.reshape(-1, base.shape[-1]).mean(0)
        some = np.sort(chosen(np.arange(len(names)), MOST_COLUMNS, random))
        left_out += len(names) - len(some)
        tests += (single := [rank_test(z[:, j], base[..., j], random, names[j]) for j in some])
        sample.tests.setdefault("latents", []).extend(single)
        for i, j in chosen(some[np.stack(np.triu_indices(len(some), 1), 1)], MOST_PAIRS, random):
            rows_, base_ = ((x[..., i] - middle[i]) * (x[..., j] - middle[j]) for x in (z, base))
            tests.append(rank_test(rows_, base_, random, f"{names[i]} times {names[j]}"))
    note = f"; {left_out:,} dimensions, drawn at random, were left out" if left_out else ""
    return worst(tests, f"{{0.unit}} of {{0.name}} from {others}{note}")


def _noise(sample: Sample, x: np.ndarray, purpose: int) -> Iterator[Noise]:
    """Yield the noise, at rows or as many draws, of a flow, or of each block of features that is a flow; nothing for mixtures
    of flows, and without a bijection."""
    model, key = sample.model, sample.key(purpose)
    rows = on_device(x.reshape(-1, *model.event).astype(sample.rows.dtype))
    contexts = model.row_contexts(sample.contexts, len(rows))
    contexts = None if contexts is None else on_device(contexts).astype(rows.dtype)
    for *way, base in stages(model.init_fun, model.params, model.event, None if contexts is None else contexts.shape[1:]):
        last = takewhile(lambda stage: stage.kind != "block", way[::-1])  # stages after the last block
        if any(stage.kind == "component" for stage in way) or all(stage.kind == "context" for stage in last):
            continue
        z, context = rows, cast(Any, contexts)
        for stage in way:
            if stage.kind == "context":
                context = stage.part.embed(stage.params, context)
            elif stage.kind == "block":
                z, context = stage.value.of(z), stage.value.context(z, context)
            else:
                direct = functions_of(bijection_part(stage.value, stage.event, stage.context), stage.params)[0]
                z = direct(stage.params, z, **({} if context is None else {"context": context}), rng=key)[0]
        part, keywords, draws = distribution_part(base.value, base.event, base.context), dict[str, Any](), BASE
        conditional = "context" in part.keywords and context is not None
        if conditional:
            keywords, draws = {"context": jnp.repeat(context, PER_ROW, 0)}, PER_ROW * len(rows)
        elif context is not None:  # a base that ignores it takes one for all
            keywords = {"context": context[0]}
        drawn = flat(functions_of(part, base.params)[1](key, base.params, draws, **keywords))
        yield Noise(flat(z), drawn.reshape(len(rows), PER_ROW, -1) if conditional else drawn, part.region)


def beyond_splines(sample: Sample, places: np.ndarray) -> str:
    """Return in words how many of these rows lie beyond the range of the splines, by layer; "" where none do."""
    model, x = sample.model, on_device(sample.all_rows[places], jnp.float32)
    contexts = model.row_contexts(sample.contexts_at(places), len(places))
    context: Any = None if contexts is None else on_device(contexts, x.dtype)
    counted, number = list[str](), 0
    for stage in leading(model.init_fun, model.params, model.event, None if context is None else context.shape[1:])[:-1]:
        if stage.kind == "context":
            context = stage.part.embed(stage.params, context)
            continue
        for layer, params in _layers(stage.value, stage.params):
            beyond = int((np.abs(flat(x)) > spline_bound(layer)).any(1).sum())
            if beyond:
                counted.append(f"{beyond:,} in layer {number}")
            part = bijection_part(layer, x.shape[1:], None if context is None else context.shape[1:])
            x = part.direct(params, x, context if "context" in part.keywords else None, None, False)[0]
            number += 1
    more = f" and {len(counted) - SHOWN} more layers" if len(counted) > SHOWN else ""
    return f" ({', '.join(counted[:SHOWN])}{more})" if counted else ""


def _layers(value: Any, params: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each layer of a bijection with its params; layers of a loop one after the other."""
    structure = structure_of(opened(value))
    if not structure.forwards:
        yield value, params
        return
    for piece in structure.pieces:
        for copy in [None] if piece.copies is None else range(piece.copies):
            yield from _layers(piece.value, params_in(params, piece.params_at, copy))
