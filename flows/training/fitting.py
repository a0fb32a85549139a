"""Prepared rows become a result. This file makes the model's params, builds the training, runs the loop, and puts the best
params behind the layers of the data as a `FitResult`, or as an `EnsembleResult` where there are folds or members.
"""

import contextlib
import math
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
    distribution_part,
    functions_of,
    refuse_closures,
    stacked,
    trainable,
    with_functions_of,
)
from flows.distributions.mixture import Mixture
from flows.results.ensemble import EnsembleResult
from flows.results.history import History
from flows.results.result import KEPT, FitResult, Kept
from flows.training.agreement import EVERY_PROCESS, agreed, digests_of
from flows.training.data.standardize import Prepared
from flows.training.data.table import Rows, take
from flows.training.loop.checkpoint import Checkpoint, settings_of
from flows.training.loop.diagnose import cause
from flows.training.loop.epochs import Epochs, StreamEpochs
from flows.training.loop.losses import Function, Likelihood, Objective, check_keywords, has_running_statistics
from flows.training.loop.placement import Placement
from flows.training.loop.run import Going, Training, run_epochs
from flows.training.loop.trainer import program_of, schedule_of, trainer
from flows.training.options import Options


def fit_prepared(rows: Prepared, options: Options, key: Array) -> FitResult:
    """Train one model, or several to folds or as members, on rows that are prepared, and give it as the user sees it."""
    if rows.folds:
        return fit_members(rows, replace(options, members=len(rows.folds)), key)
    if options.members is not None:
        return fit_members(rows, options, key)
    began = time.monotonic()
    flow = rows.outer(rows.model)
    fitted, history = train_members(rows, options, key, _publisher(flow, rows, rows.outer_params))
    return FitResult(*fitted, flow, as_dim(rows.event), as_dim(rows.context), history, **fields_of_result(rows, history, began))


def _publisher(flow: Any, rows: Prepared, outer: Callable[[Any], Any]) -> Callable[[Any, Any], Distribution]:
    """Of params that are trained, and the part that was, the triple that a user sees; `outer` makes its params."""

    def published(trained: Any, part: Any) -> Distribution:
        params, whole = outer(trained), distribution_part(flow, rows.event, rows.context)
        return Distribution(params, *functions_of(with_functions_of(whole, part), params))

    return published


def fields_of_result(rows: Prepared, history: History, began: float) -> dict[str, Any]:
    """What a result knows of its rows; how many there were goes to the history."""
    split, held_out = rows.split, [fold.held_out_as_given for fold in rows.folds or (rows,)]
    others = len(split.others) if rows.folds else 0  # all rows are trained on by some fold
    history["rows"] = np.array(split.total + others)
    history["held_out"] = np.array(sum(len(part.x) for part in held_out))
    if held_out[0].weights is not None:
        weights = np.concatenate([part.weights for part in held_out])
        history["effective"] = np.array(np.square(weights.sum()) / np.square(weights).sum())
    few = [kept_of(part, KEPT // len(held_out)) for part in held_out]
    held_out_rows = jax.tree.map(lambda *arrays: np.stack(arrays), *few) if rows.folds else few[0]
    tables = {"table": split.whole.header, "context_table": split.whole.context_header}
    return {**tables, "kept": held_out_rows, "turn": rows.turn, "seconds": time.monotonic() - began}


def kept_of(rows: Rows, most: int) -> Kept:
    """So many rows held out, at most, with their weights.

    Of more, those of the highest w / u, u uniform on (0, 1), where each stands for the weight of others, too: the sum of
    weights of any of the rows is right on average (priority sampling: Duffield, Lund and Thorup, "Priority sampling for
    estimation of arbitrary subset sums", 2007).
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


def train_members(
    rows: Prepared, options: Options, key: Array, published: Callable[[Any, Any], Distribution]
) -> tuple[Distribution, History]:
    """Train one model, or the members of an ensemble: the best as a user sees it, and the history.

    Params of members have a leading axis, and each member has an init and an order of rows of its own. `published` makes of
    params that are trained, and their part, the triple that a user sees.
    """
    init_fun, members, split = rows.model, options.members, rows.split
    inner = rows.inner(init_fun)
    options = options.settled(split.batch_size, split.steps)
    keys = key if members is None else jax.random.split(key, members)
    key_of_member = [key] if members is None else list(keys)
    part = distribution_part(inner, rows.event, rows.context)
    if members is not None:
        refuse_closures(part, f"{options.caller}: {members} models are to be trained as one")
    starts = list[Any]()
    for i, member_key in enumerate(key_of_member):
        member_rows = rows.of_member(i)
        starts.append(cast(member_rows.inner_params(part.init(member_key, member_rows.given)), rows.dtype))
    start = starts[0]
    if rows.context is not None and "context" not in part.keywords:
        raise TypeError(
            f"{options.caller}: context was given, but no layer of {init_fun!r} takes one; leave it out, or give a model that "
            "takes one, such as Flow(NSF()) or Normal(conditioner=MLP(32))"
        )
    params = start if members is None else stacked(starts)
    if not any(jax.tree.leaves(trainable(start))):
        options = replace(options, max_epochs=1)

    problem = _problem(inner, part, rows, options)
    compiled = trainer(problem, start, options, rows.dtype, bool(rows.folds))
    schedule = schedule_of(options, options.max_epochs * split.steps)
    epochs: Any = None
    going = None
    if split.stream is None:
        epochs = Epochs(rows, compiled, schedule, keys)
    else:
        epochs = StreamEpochs(rows, compiled, schedule, keys, split.stream)
        going = Going(lambda: epochs.state, split.stream.restore)
    agree_on_settings(rows, options, key, start)
    saved = None
    if options.checkpoint is not None:
        data = split.whole.rows, split.validation
        saved = Checkpoint(
            options,
            settings_of(rows.outer(init_fun), key, data, options, batch_size=split.batch_size),
        )

    def why(params: Any, number: int, step: int | None, member: int) -> str:
        if options.objective is not None:
            return f"the {options.measure}, or its gradient, is not finite there"
        member_rows = rows.of_member(member)
        table = member_rows.split.held_out if step is None else epochs.suspects(number, step, member)
        return cause(part, params, table, step is not None, key_of_member[member], member_rows.deviations)

    def of_user(trained: Any) -> Distribution:
        return published(trained, part)

    with contextlib.nullcontext() if part.compiled else jax.disable_jit():  # what runs row by row is never traced
        size = math.prod(rows.event)
        training = Training(
            compiled, params, epochs.run, epochs.score, why, of_user, size, rows.yardstick, saved, epochs.ready, going
        )
        best, history = run_epochs(training, options)
    return of_user(best), history


def agree_on_settings(rows: Prepared, options: Options, key: Array, params: Any) -> None:
    """Processes that share a mesh have the same model, data, seed and options, and the same versions."""
    if agreed().processes == 1:
        return
    plain = replace(options, objective=None)  # what a function holds on to is not always to be told
    data = rows.split.whole.rows, rows.split.validation
    settings = settings_of(rows.outer(rows.model), key, data, plain, batch_size=rows.split.batch_size)
    told = {**settings, "objective": options.objective_name, "mesh": options.mesh.size, "patience": options.patience}
    told["checkpoint"] = options.checkpoint is not None
    if options.optimizer is not None:
        told["optimizer"] = program_of(options.optimizer, params)
    agreed().same(digests_of(told), EVERY_PROCESS)


def _problem(model: Any, part: Any, rows: Prepared, options: Options) -> Any:
    """What a step and a validation minimise."""
    batch, statistics = rows.split.batch_size // options.accumulate, has_running_statistics(model)
    placement, in_memory = Placement.of(options), rows.split.stream is None
    alone = placement.shares > 1 and options.rows == "split"  # rows that no other device has
    if alone and rows.folds:
        raise FlowsError(
            f"{options.caller}: rows is 'split', and each of {len(rows.folds)} folds has rows of its own; give folds=1"
        )
    dealt = alone if in_memory else placement.of_batches and options.members is None
    apart = dealt, len(rows.held_out.x) if alone and in_memory else 0
    if options.objective is None:
        exact = getattr(model, "likelihood", "exact") == "unbiased"
        return Likelihood(part, batch, options.precision, statistics, exact, *apart)
    check_keywords(options.objective, rows.train, options.caller)
    if 0 < apart[1] < placement.shares:
        raise FlowsError(
            f"{options.caller}: rows is 'split' over {placement.shares} devices, and {apart[1]} rows are held out; expected as "
            f"many as devices, for the {options.measure}"
        )
    return Objective(part, Function(options.objective), batch, options.precision, statistics, *apart)


def fit_members(rows: Prepared, options: Options, key: Array) -> EnsembleResult:
    """Train an ensemble on rows that are prepared, and give it as the user sees it."""
    members, began = options.members or 1, time.monotonic()

    def mixed(components: Any) -> Any:
        dtype = next((leaf.dtype for leaf in jax.tree.leaves(components)), jnp.float32)
        return {"components": components, "fixed": {"logits": jnp.full(members, -np.log(members), dtype)}}

    def outer(trained: Any) -> Any:
        if not rows.folds:
            return rows.outer_params(trained, mixed)
        params_of_folds = [jax.tree.map(itemgetter(i), trained) for i in range(members)]
        return mixed(stacked([fold.outer_params(params) for fold, params in zip(rows.folds, params_of_folds, strict=True)]))

    def several(model: Any) -> Any:
        return Mixture(model, num_components=members, trainable=False)

    flow = (
        several(rows.outer(rows.model)) if rows.folds else rows.outer(several(rows.model))
    )  # before the training, as it may be refused
    fitted, history = train_members(rows, options, key, _publisher(flow, rows, outer))
    dims, path = (as_dim(rows.event), as_dim(rows.context)), () if rows.folds else rows.path
    fields = {"path": path, **fields_of_result(rows, history, began)}
    return EnsembleResult(*fitted, flow, *dims, history, **fields)
