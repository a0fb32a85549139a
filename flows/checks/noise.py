"""What a model makes of rows: their noise, and how far out each layer sees them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from flows.checks.features import columns_of, features
from flows.checks.sample import EACH, Sample, flat
from flows.checks.verdicts import Finding, OneTest, worst
from flows.core import (
    Array,
    Region,
    bijection_part,
    distribution_part,
    functions_of,
    on_device,
    opened,
    params_in,
    structure_of,
)
from flows.diagnostics import ranks, uniformity
from flows.diagnostics.arrays import chosen
from flows.diagnostics.rows import spline_bound
from flows.distributions.features import blocks_within
from flows.distributions.standardized_context import standardized

MOST_COLUMNS, MOST_PAIRS = 64, 300
BASE = 10_000  # draws of the base
SHOWN = 4  # layers


class Given(NamedTuple):
    """Rows within a model: what they are given there, and a key of their own."""

    x: Array
    context: Array | None
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
    """That of a flow, or of each block of features that is one; none of mixtures, and of what has no bijection."""
    order, pieces = structure_of(opened(value))
    event, context_shape = rows.x.shape[1:], None if rows.context is None else rows.context.shape[1:]
    if order == "context" and rows.context is not None:
        seen = rows._replace(context=standardized(params["fixed"], rows.context))
        yield from _noise(pieces[-1].value, params_in(params, pieces[-1].params_at), seen)
    elif order == "flow":
        first, last = pieces
        of_first, of_base = (params_in(params, piece.params_at) for piece in pieces)
        part = bijection_part(first.value, event, context_shape)
        given: dict[str, Any] = {} if rows.context is None else {"context": rows.context}
        outputs = functions_of(part, of_first)[0](of_first, rows.x, **given, rng=rows.key)[0]
        noise = rows._replace(x=outputs)
        inner = list(_noise(last.value, of_base, noise))
        if inner or not _is_base(last.value):
            yield from inner
            return
        base = distribution_part(last.value, outputs.shape[1:], context_shape)
        sample_base, own = functions_of(base, of_base)[1], "context" in base.keywords and rows.context is not None
        if rows.context is not None:  # a base that does not look at it takes one for all
            given = {"context": jnp.repeat(rows.context, EACH, 0) if own else rows.context[0]}
        drawn = flat(sample_base(rows.key, of_base, EACH * len(outputs) if own else BASE, **given))
        yield Noise(flat(outputs), drawn.reshape(len(outputs), EACH, -1) if own else drawn, base.region)
    else:
        for block in blocks_within(value, event, context_shape):
            inside = rows._replace(x=block.of(rows.x), context=block.context(rows.x, rows.context))
            yield from _noise(block.piece.value, params_in(params, block.piece.params_at), inside)


def _is_base(value: Any) -> bool:
    """Whether there is no flow in it."""
    order, pieces = structure_of(opened(value))
    return order not in ("flow", "context") and all(_is_base(piece.value) for piece in pieces)


def beyond_splines(sample: Sample, places: np.ndarray) -> str:
    """How many of these rows lie beyond the range of the splines, layer by layer; nothing of a model that is no one chain."""
    model, contexts = sample.model, sample.all_contexts
    x = on_device(sample.all_rows[places], jnp.float32)
    if contexts is not None and not sample.conditional:
        contexts = np.broadcast_to(contexts, (len(sample.all_rows), *contexts.shape))
    value, params = model.init_fun, model.params
    context = None if contexts is None else on_device(contexts[places], x.dtype)
    order, pieces = structure_of(opened(value))
    counted, number = list[str](), 0
    while order in ("flow", "context"):
        if order == "context" and context is not None:
            context = standardized(params["fixed"], context)
        else:
            first = pieces[0]
            for layer, of_layer in _layers(first.value, params_in(params, first.params_at)):
                bound = spline_bound(layer)
                beyond = int((np.abs(flat(x)) > bound).any(1).sum())
                if beyond:
                    counted.append(f"{beyond:,} in layer {number}")
                part = bijection_part(layer, x.shape[1:], None if context is None else context.shape[1:])
                x = part.direct(of_layer, x, context if "context" in part.keywords else None, None, False)[0]
                number += 1
        value, params = pieces[-1].value, params_in(params, pieces[-1].params_at)
        order, pieces = structure_of(opened(value))
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
