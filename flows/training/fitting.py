"""From prepared rows to a result. This file makes the model's params, builds the training, runs the loop, and puts the best
params behind the layers of the data as a `FitResult`, or as an `EnsembleResult` where there are folds or members.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    Array,
    Distribution,
    FlowsError,
    as_dim,
    cast,
    declares,
    distribution_part,
    functions_of,
    refuse_closures,
    stacked,
    trainable,
    with_functions_of,
)
from flows.distributions.mixture import Mixture
from flows.results.ensemble import EnsembleResult
from flows.results.held_out import Kept
from flows.results.history import History
from flows.results.result import KEPT, FitResult
from flows.training.data.prepare import Prepared
from flows.training.data.table import Rows, take
from flows.training.fingerprint import digest_of, settings_of
from flows.training.loop.driver import drive
from flows.training.loop.epochs import Epochs, StreamEpochs
from flows.training.loop.losses import Likelihood, Objective, RowsProblem, check_keywords, has_running_statistics, key_of
from flows.training.loop.trainer import trainer
from flows.training.options import Options


def fit_prepared(rows: Prepared, options: Options, key: Array) -> FitResult:
    """Train one model, or several on folds or as members, on prepared rows, and return the result for the user."""
    began, members = time.monotonic(), len(rows.folds) or options.members

    def several(model: Any) -> Any:
        return model if members is None else Mixture(model, num_components=members, trainable=False)

    def mixed(components: Any) -> Any:
        if members is None:
            return components
        dtype = next((leaf.dtype for leaf in jax.tree.leaves(components)), jnp.float32)
        return {"components": components, "fixed": {"logits": jnp.full(members, -np.log(members), dtype)}}

    def outer(trained: Any) -> Any:
        if not rows.folds:
            return rows.outer_params(trained, mixed)
        fold_params = [fold.outer_params(jax.tree.map(itemgetter(i), trained)) for i, fold in enumerate(rows.folds)]
        return mixed(stacked(fold_params))

    # This may be refused, so it comes before the training.
    flow = several(rows.outer(rows.model)) if rows.folds else rows.outer(several(rows.model))
    fields, counts = facts_of_result(rows, options)
    fitted, history = train_members(rows, replace(options, members=members), key, flow, outer)
    history.update(counts)
    arguments = *fitted, flow, as_dim(rows.event), as_dim(rows.context), history
    fields["seconds"] = time.monotonic() - began
    if members is None:
        return FitResult(*arguments, **fields)
    return EnsembleResult(*arguments, path=() if rows.folds else rows.path, **fields)


def train_members(
    rows: Prepared, options: Options, key: Array, flow: Any, outer: Callable[[Any], Any]
) -> tuple[Distribution, History]:
    """Train one model, or the members of an ensemble; return the best distribution for the user, and the history.

    Params of members have a leading axis, and each member has a separate init and order of rows. The user gets `flow`, whose
    params `outer` makes from the trained params.
    """
    members, split, inner = options.members, rows.split, rows.inner(rows.model)
    options = options.settled(split.batch_size, split.steps, declares(rows.model, "roles"))
    keys = key if members is None else jax.random.split(key, members)
    part = distribution_part(inner, rows.event, rows.context)
    if members is not None:
        refuse_closures(part, f"fit: {members} models are to be trained as one")
    starts = list[Any]()
    for i, member_key in enumerate([key] if members is None else keys):
        member_rows = rows.member(i)
        params = None if rows.start is not None else part.init(member_key, member_rows.init_data)
        starts.append(cast(member_rows.inner_params(params), rows.dtype))
    if rows.context is not None and "context" not in part.keywords:
        raise TypeError(
            f"fit: context was given, but no layer of {rows.model!r} takes one; leave it out, or give a model "
            "that takes one, such as Flow(NSF()) or Normal(conditioner=MLP(32))"
        )
    if not any(jax.tree.leaves(trainable(starts[0]))):
        options = replace(options, max_epochs=1)
    compiled = trainer(_problem(inner, part, rows, options), starts[0], options, rows.dtype, bool(rows.folds))
    source = (Epochs if split.stream is None else StreamEpochs)(rows, compiled, options, keys)

    def published(trained: Any) -> Distribution:
        params, whole = outer(trained), distribution_part(flow, rows.event, rows.context)
        return Distribution(params, *functions_of(with_functions_of(whole, part), params))

    def settings() -> dict[str, Any]:
        data = split.whole.rows, split.validation, split.groups if options.holding else None
        start = {} if rows.start is None else {"start": digest_of(starts)}
        return settings_of(rows.outer(rows.model), key, data, options, **start)

    with contextlib.nullcontext() if part.compiled else jax.disable_jit():  # a model that runs row by row is never traced
        best, history = drive(source, starts[0] if members is None else stacked(starts), published, settings)
    return published(best), history


def _problem(model: Any, part: Any, rows: Prepared, options: Options) -> RowsProblem:
    """Return the problem of rows that a step and a validation minimise."""
    placement, held_out = options.placement, len(rows.held_out.x)
    alone = placement.shares > 1 and options.rows == "split"  # whether each device has separate rows
    if alone and rows.folds:
        raise FlowsError(f"fit: rows is 'split', and each of {len(rows.folds)} folds has separate rows; give folds=1")
    batch, dealt, split = rows.split.batch_size // options.accumulate, alone, held_out if alone else 0
    if rows.split.stream is not None:
        dealt, split = placement.shares > 1 and options.members is None, 0
    common = part, batch, options.precision, has_running_statistics(model), dealt, split
    if options.objective is None:
        return Likelihood(*common, exact=getattr(model, "likelihood", "exact") == "unbiased")
    check_keywords(options.objective, rows.train, options.caller)
    if 0 < split < placement.shares:
        raise FlowsError(
            f"fit: rows is 'split' over {placement.shares} devices, and {held_out} rows are held out; expected at "
            f"least one for each device, for the {options.measure}"
        )
    return Objective(*common, function=options.objective, key=key_of(options.objective))


def facts_of_result(rows: Prepared, options: Options) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the fields of a result that describe the rows, and the numbers of rows for the history."""
    split, held_out = rows.split, [fold.raw_held_out for fold in rows.folds or (rows,)]
    others = len(split.others) if rows.folds else 0  # each row trains some fold
    counts = {"rows": np.array(split.total + others), "held_out": np.array(sum(len(part.x) for part in held_out))}
    if rows.portions:
        counts["portions"] = np.array([*rows.portions, counts["rows"] + counts["held_out"]])
    if options.holding:
        numbers, whole = np.concatenate([fold.split.others for fold in rows.folds or (rows,)]), split.whole
        counts[options.holding] = np.array(len(np.unique(np.asarray(split.groups)[numbers])))
        if rows.folds:
            counts["rows"] = np.array(len(whole) if whole.weights is None else np.count_nonzero(whole.weights))
            counts["unscored"] = np.array(counts["rows"] - len(numbers))
    if held_out[0].weights is not None:
        weights = np.concatenate([part.weights for part in held_out])
        counts["effective"] = np.array(np.square(weights.sum()) / np.square(weights).sum())
    few = [kept_of(part, KEPT // len(held_out)) for part in held_out]
    held_out_rows = jax.tree.map(lambda *arrays: np.stack(arrays), *few) if rows.folds else few[0]
    table, context_table = split.whole.headers
    return {"table": table, "context_table": context_table, "kept": held_out_rows, "turn": rows.turn}, counts


def kept_of(rows: Rows, most: int) -> Kept:
    """Return at most this many held-out rows, with their weights.

    Of more rows, the rows of the highest w / u remain, u uniform on (0, 1), and each also has the weight of others: the sum of
    weights over any subset of all rows is right on average (priority sampling: Duffield, Lund and Thorup, "Priority sampling
    for estimation of arbitrary subset sums", 2007).
    """
    rng, n, weights = np.random.default_rng(0), len(rows.x), None
    if rows.weights is None:
        chosen = np.sort(rng.permutation(n)[:most])
    else:
        priority = rows.weights / (1 - rng.random(n))
        order = np.argsort(-priority)
        chosen = np.sort(order[:most])
        weights = np.maximum(rows.weights[chosen], priority[order[most]] if n > most else 0.0)
    few = take(rows, chosen)
    return Kept(np.array(few.x), None if few.context is None else np.array(few.context), weights)
