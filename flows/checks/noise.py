"""What a model makes of rows: their noise, and how far out each layer sees them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from flows.checks.features import columns_of, features
from flows.checks.sample import Sample, flat
from flows.checks.verdicts import Finding
from flows.core import (
    Array,
    Region,
    bijection_part,
    distribution_part,
    functions_of,
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
    """Noise of rows, and draws of its base, (rows, columns), and where these live."""

    rows: np.ndarray
    base: np.ndarray
    region: Region | None


def latents(sample: Sample) -> Finding:
    """The noise of rows beside draws of the base: each dimension, and products of pairs."""
    init_fun = sample.model.init_fun
    if init_fun is None:
        return Finding("there is no init_fun, and so no bijection to look at")
    contexts = sample.contexts
    if contexts is not None and not sample.conditional:
        contexts = np.broadcast_to(contexts, (len(sample.rows), *contexts.shape))
    x = jnp.asarray(sample.all_rows[sample.places].astype(sample.rows.dtype))
    rows = Given(x, None if contexts is None else jnp.asarray(contexts).astype(x.dtype), sample.key(40))
    made = list(_noise(init_fun, sample.model.params, rows, BASE))
    if not made:
        return Finding("mixtures, and models without a bijection, have no one noise")
    if not all(np.isfinite(each).all() for noise in made for each in noise[:2]):
        return Finding("noise of rows, or of the base, is not finite")
    sample.kept["latents"] = np.concatenate([noise.rows for noise in made], 1)
    names, of_rows, of_base = _columns(made)
    random = sample.random(41)
    kept = np.sort(chosen(np.arange(len(names)), MOST_COLUMNS, random))
    first, second = chosen(np.stack(np.triu_indices(len(kept), 1), 1), MOST_PAIRS, random).T
    middle = of_base.mean(0)
    looked_at = [(of - middle)[:, kept] for of in (of_rows, of_base)]
    both = [np.concatenate([z, z[:, first] * z[:, second]], 1) for z in looked_at]
    told = uniformity(ranks(*both, rng=sample.key(42)), len(of_base), shared=True)
    called = [names[j] for j in kept] + [f"{names[kept[i]]} times {names[kept[j]]}" for i, j in zip(first, second, strict=True)]
    at = int(np.argmax(told.size))
    note = f"; {MOST_COLUMNS} of {len(names):,} dimensions, at random" if len(names) > MOST_COLUMNS else ""
    p = min(1.0, float(told.p.min()) * len(told.p))
    return Finding(f"Kolmogorov distance of {called[at]} from draws of the base{note}", float(told.size[at]), p)


def _columns(made: list[Noise]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """All noise with angles as cosine and sine, and what it is called."""
    names, rows, base, count = list[str](), [], [], 0
    for noise in made:
        of_block = tuple(f"noise {count + j}" for j in range(noise.rows.shape[1]))
        more, (x, y) = features(columns_of(of_block, noise.region), noise.rows, noise.base)
        count += len(of_block)
        names += more
        rows.append(x.astype(np.float64))
        base.append(y.astype(np.float64))
    return names, np.concatenate(rows, 1), np.concatenate(base, 1)


def _noise(value: Any, params: Any, rows: Given, draws: int) -> Iterator[Noise]:
    """That of a flow, or of each block of features that is one; none of mixtures, and of what has no bijection."""
    order, pieces = structure_of(opened(value))
    event, context_shape = rows.x.shape[1:], None if rows.context is None else rows.context.shape[1:]
    if order == "context":
        given = rows._replace(context=standardized(params["fixed"], rows.context))
        yield from _noise(pieces[-1].value, params_in(params, pieces[-1].params_at), given, draws)
    elif order == "flow":
        first, last = pieces
        of_first, of_base = (params_in(params, piece.params_at) for piece in pieces)
        part = bijection_part(first.value, event, context_shape)
        given = {} if rows.context is None else {"context": rows.context}
        outputs = functions_of(part, of_first)[0](of_first, rows.x, **given, rng=rows.key)[0]
        noise = rows._replace(x=outputs)
        inner = list(_noise(last.value, of_base, noise, draws))
        if inner or not _is_base(last.value):
            yield from inner
            return
        base = distribution_part(last.value, outputs.shape[1:], context_shape)
        given = {} if rows.context is None else {"context": _resized(rows.context, draws)}
        drawn = functions_of(base, of_base)[1](rows.key, of_base, draws, **given)
        yield Noise(flat(outputs), flat(drawn), base.region)
    else:
        for block in blocks_within(value, event, context_shape):
            own = rows._replace(x=block.of(rows.x), context=block.context(rows.x, rows.context))
            yield from _noise(block.piece.value, params_in(params, block.piece.params_at), own, draws)


def _resized(context: Any, rows: int) -> Any:
    return jnp.asarray(np.resize(np.asarray(context), (rows, *context.shape[1:])))


def _is_base(value: Any) -> bool:
    """Whether there is no flow in it."""
    order, pieces = structure_of(opened(value))
    return order not in ("flow", "context") and all(_is_base(piece.value) for piece in pieces)


def beyond_splines(sample: Sample, places: np.ndarray) -> str:
    """How many of these rows lie beyond the range of the splines, layer by layer; nothing of a model that is no one chain."""
    model, contexts = sample.model, sample.all_contexts
    x = jnp.asarray(sample.all_rows[places], jnp.float32)
    if contexts is not None and not sample.conditional:
        contexts = np.broadcast_to(contexts, (len(sample.all_rows), *contexts.shape))
    value, params = model.init_fun, model.params
    context = None if contexts is None else jnp.asarray(contexts[places], x.dtype)
    order, pieces = structure_of(opened(value))
    counted, number = list[str](), 0
    while order in ("flow", "context"):
        if order == "context":
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
