"""Rows as a model sees them: their noise, and how far out they lie at each layer."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import numpy as np

from flows.checks.sample import PER_ROW, Sample, features, flat
from flows.checks.verdicts import Finding, OneTest, rank_test, worst
from flows.core import (
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
from flows.diagnostics.arrays import chosen
from flows.diagnostics.rows import spline_bound
from flows.distributions.standardized_context import standardized
from flows.results.columns import columns_of

MOST_COLUMNS, MOST_PAIRS = 64, 300
BASE = 10_000  # draws of the base
SHOWN = 4  # layers


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
        tests += [rank_test(z[:, j], base[..., j], random)[0]._replace(name=names[j]) for j in some]
        for i, j in chosen(some[np.stack(np.triu_indices(len(some), 1), 1)], MOST_PAIRS, random):
            rows_, base_ = ((x[..., i] - middle[i]) * (x[..., j] - middle[j]) for x in (z, base))
            tests.append(rank_test(rows_, base_, random)[0]._replace(name=f"{names[i]} times {names[j]}"))
    note = f"; {left_out:,} dimensions, drawn at random, were left out" if left_out else ""
    return worst(tests, f"Kolmogorov distance of {{}} from {others}{note}")


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
                context = standardized(stage.params, context)
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
            context = standardized(stage.params, context)
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
    order, pieces = structure_of(opened(value))
    if order not in ("chain", "loop") or any(piece.inverted for piece in pieces):
        yield value, params
        return
    for piece in pieces:
        for copy in [None] if piece.copies is None else range(piece.copies):
            yield from _layers(piece.value, params_in(params, piece.params_at, copy))
