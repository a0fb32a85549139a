"""Rows as a model sees them: their noise, and how far out each layer sees them."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from flows.checks.features import features
from flows.checks.sample import EACH, Sample, flat
from flows.checks.verdicts import Finding, OneTest, worst
from flows.core import (
    Array,
    Region,
    Stage,
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
from flows.diagnostics import ranks, uniformity
from flows.diagnostics.arrays import chosen
from flows.diagnostics.rows import spline_bound
from flows.distributions.standardized_context import standardized
from flows.results.columns import columns_of

MOST_COLUMNS, MOST_PAIRS = 64, 300
BASE = 10_000  # draws of the base
SHOWN = 4  # layers


class Given(NamedTuple):
    """Rows within a model: what they are given there, and a key of their own."""

    x: Array
    context: Any
    key: Any


class Noise(NamedTuple):
    """Noise of rows, (rows, columns), draws of its base, (draws, columns), or (rows, 99, columns) of one that has a context,
    and where these live."""

    rows: np.ndarray
    base: np.ndarray
    region: Region | None


def latents(sample: Sample) -> Finding:
    """The noise of rows beside draws of the base, or of rounded values beside that of draws: each dimension, and products of
    pairs."""
    init_fun = sample.model.init_fun
    if init_fun is None:
        return Finding("there is no init_fun, and so no bijection to look at")
    made = list(_noise(init_fun, sample.model.params, _given(sample, sample.all_rows[sample.places], 40)))
    if not made:
        return Finding("mixtures, and models without a bijection, have no one noise")
    beside = "draws of the base"
    if sample.model.likelihood == "lower bound":  # what is drawn within a cell does not follow the density there
        of_draws = _noise(init_fun, sample.model.params, _given(sample, sample.ones, 43))
        made, beside = [a._replace(base=b.rows) for a, b in zip(made, of_draws, strict=True)], "that of draws"
    if not all(np.isfinite(each).all() for noise in made for each in noise[:2]):
        return Finding("noise of rows, or of the base, is not finite")
    sample.kept["latents"] = np.concatenate([noise.rows for noise in made], 1)
    random, tests, left_out, count = sample.random(41), list[OneTest](), 0, 0
    for noise in made:
        named = tuple(f"noise {count + j}" for j in range(noise.rows.shape[1]))
        count += len(named)
        names, (z, base) = features(columns_of(named, noise.region), noise.rows, noise.base)
        middle = base.reshape(-1, base.shape[-1]).mean(0)
        kept = np.sort(chosen(np.arange(len(names)), MOST_COLUMNS, random))
        left_out += len(names) - len(kept)
        tests += [_beside(names[j], z[:, j], base[..., j], random) for j in kept]
        for i, j in chosen(kept[np.stack(np.triu_indices(len(kept), 1), 1)], MOST_PAIRS, random):
            of_rows, of_base = ((each[..., i] - middle[i]) * (each[..., j] - middle[j]) for each in (z, base))
            tests.append(_beside(f"{names[i]} times {names[j]}", of_rows, of_base, random))
    note = f"; {left_out:,} dimensions, drawn at random, were left out" if left_out else ""
    return worst(tests, f"Kolmogorov distance of {{}} from {beside}{note}")


def _given(sample: Sample, x: np.ndarray, purpose: int) -> Given:
    """Rows, or as many draws, with the contexts of the sample."""
    contexts, rows = sample.contexts, on_device(x.reshape(-1, *sample.model.event).astype(sample.rows.dtype))
    if contexts is not None and not sample.conditional:
        contexts = np.broadcast_to(contexts, (len(rows), *contexts.shape))
    return Given(rows, None if contexts is None else on_device(contexts).astype(rows.dtype), sample.key(purpose))


def _beside(name: str, rows: np.ndarray, base: np.ndarray, random: np.random.Generator) -> OneTest:
    """Noise of rows (rows,), beside draws of the base, (draws,), or (rows, 99) of those of each row."""
    own = base.ndim > 1
    found = ranks(rows, base, rng=int(random.integers(2**32)))
    told = uniformity(found, base.shape[-1], shared=not own)
    return OneTest(float(told.p), float(told.size), name)


def _noise(value: Any, params: Any, rows: Given) -> Iterator[Noise]:
    """The noise of a flow, or of each block of features that is one; none of mixtures of flows, and without a bijection."""
    context_shape = None if rows.context is None else rows.context.shape[1:]
    for *way, base in stages(value, params, rows.x.shape[1:], context_shape):
        last = takewhile(lambda stage: stage.kind != "block", way[::-1])  # what lies behind the last block
        if any(stage.kind == "component" for stage in way) or all(stage.kind == "context" for stage in last):
            continue
        here = rows
        for stage in way:
            if stage.kind == "context":
                here = here._replace(context=standardized(stage.params, here.context))
            elif stage.kind == "block":
                here = here._replace(x=stage.value.of(here.x), context=stage.value.context(here.x, here.context))
            else:
                part = bijection_part(stage.value, stage.event, stage.context)
                given = {} if here.context is None else {"context": here.context}
                here = here._replace(x=functions_of(part, stage.params)[0](stage.params, here.x, **given, rng=here.key)[0])
        yield Noise(flat(here.x), *_draws_of_base(base, here))


def _draws_of_base(base: Stage, rows: Given) -> tuple[np.ndarray, Region | None]:
    """Draws of a base, for each row of its own where it looks at the context, and where they live."""
    part, given = distribution_part(base.value, base.event, base.context), dict[str, Any]()
    own, n = "context" in part.keywords and rows.context is not None, len(rows.x)
    if rows.context is not None:  # a base that does not look at it takes one for all
        given = {"context": jnp.repeat(rows.context, EACH, 0) if own else rows.context[0]}
    drawn = flat(functions_of(part, base.params)[1](rows.key, base.params, EACH * n if own else BASE, **given))
    return (drawn.reshape(n, EACH, -1) if own else drawn), part.region


def beyond_splines(sample: Sample, places: np.ndarray) -> str:
    """How many of these rows lie beyond the range of the splines, layer by layer; nothing of a model that is no one chain."""
    model, contexts = sample.model, sample.all_contexts
    x = on_device(sample.all_rows[places], jnp.float32)
    if contexts is not None and not sample.conditional:
        contexts = np.broadcast_to(contexts, (len(sample.all_rows), *contexts.shape))
    context: Any = None if contexts is None else on_device(contexts[places], x.dtype)
    counted, number = list[str](), 0
    for stage in leading(model.init_fun, model.params, x.shape[1:], None if context is None else context.shape[1:])[:-1]:
        if stage.kind == "context":
            context = standardized(stage.params, context)
            continue
        for layer, of_layer in _layers(stage.value, stage.params):
            bound = spline_bound(layer)
            beyond = int((np.abs(flat(x)) > bound).any(1).sum())
            if beyond:
                counted.append(f"{beyond:,} in layer {number}")
            part = bijection_part(layer, x.shape[1:], None if context is None else context.shape[1:])
            x = part.direct(of_layer, x, context if "context" in part.keywords else None, None, False)[0]
            number += 1
    more = f" and {len(counted) - SHOWN} more layers" if len(counted) > SHOWN else ""
    return f" ({', '.join(counted[:SHOWN])}{more})" if counted else ""


def _layers(value: Any, params: Any) -> Iterator[tuple[Any, Any]]:
    """Each layer of a bijection with its params, those of a loop one after the other."""
    order, pieces = structure_of(opened(value))
    if order not in ("chain", "loop") or any(piece.inverted for piece in pieces):
        yield value, params
        return
    for piece in pieces:
        for copy in [None] if piece.copies is None else range(piece.copies):
            yield from _layers(piece.value, params_in(params, piece.params_at, copy))
