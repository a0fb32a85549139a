"""Models fitted to rows that are ready: one, or the members of an ensemble."""

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
    UNEQUAL,
    Array,
    BijectionInit,
    Distribution,
    DistributionInit,
    FlowsError,
    Given,
    as_dim,
    cast,
    functions_of,
    initialize,
    part_of,
    stacked,
    trainable,
    warn_user,
)
from flows.diagnostics.rows import spline_bound
from flows.distributions.gmm import GMM
from flows.distributions.mixture import Mixture
from flows.results.ensemble import EnsembleResult
from flows.results.history import History
from flows.results.result import KEPT, FitResult, Kept
from flows.training.data.base import from_gaussian, is_flow, mixing_of
from flows.training.data.columns import check_data
from flows.training.data.read import read
from flows.training.data.standardize import Prepared, prepare_folds
from flows.training.data.support import (
    check_degrees,
    check_ends_are_near,
    check_noise_once,
    curved,
    own_noise,
    region_of,
    split_off,
    tell_of_curved,
    turn_of,
)
from flows.training.data.table import Data, Rows, all_rows, take, unsplit
from flows.training.loop.checkpoint import Checkpoint, settings_of
from flows.training.loop.diagnose import cause
from flows.training.loop.epochs import Epochs, Stream
from flows.training.loop.losses import Function, Likelihood, Objective, check_keywords, has_running_statistics
from flows.training.loop.run import Training, run_epochs
from flows.training.loop.trainer import schedule_of, trainer
from flows.training.options import FEW, FOLDS, Options

MIXTURES = (GMM, Mixture)
OUTSIDE = 0.01  # of the values: what may lie outside the splines' range


def warn_of_range(model: Any, rows: Prepared, columns: np.ndarray) -> None:
    """Say where more than a hundredth of the values lie outside the splines' range, where they are the identity."""
    bound = float("inf") if rows.trained_with_layers or not columns.any() else spline_bound(model)
    values = np.abs(np.asarray(rows.train.x))[..., columns] if bound < float("inf") else np.zeros(1)
    outside = float((values > bound).mean())
    if outside > OUTSIDE:
        wide = float(np.quantile(values, 1 - OUTSIDE / 10))
        warn_user(
            f"fit: {outside:.1%} of the standardised values lie beyond +-{bound:g}, outside the range of the splines, "
            f"where these are the identity. Give a larger bound, such as {wide:.2g}, or a base with tails, such as "
            "StudentT(trainable=True)"
        )


def ready(data: Any, options: Options, key: Array, init_fun: Any) -> tuple[Prepared, Any]:
    """The rows of data for a training, read, checked, and on the device in the units of the model; and the model to train."""
    found = read(data, options, key)
    own, model = own_layers(init_fun, found, options)
    mixed = isinstance(model, DistributionInit) and any(
        each.constructor in MIXTURES for each in (model, *model.values_within())
    )
    folds = folds_of(model, found, options, key)
    region = region_of(init_fun, found)
    bent = curved(region, found)
    first = own if options.standardize is not False else _first_layers(init_fun, found)
    noisy = own_noise(init_fun, found.train.x.shape[-1])
    columns = check_data(found if folds == 1 else unsplit(found, options), options, first, mixed, bent, noisy)
    check_noise_once(init_fun, options, found, columns.steps)
    check_ends_are_near(found, own, options.support)
    tell_of_curved(bent, region, found, options)
    rows = prepare_folds(found, columns, options, key, own, folds, mixing_of(model, options))
    model = from_gaussian(model, rows, options)
    if options.standardize is not False or not first:  # else these are pixels, say, which first layers bring to the line
        warn_of_range(model, rows, ~bent)
    return rows._replace(turn=turn_of(region, found)), model


def folds_of(model: Any, found: Data, options: Options, key: Array) -> int:
    """Over how many folds models are averaged: by default where few rows have to train more numbers than they are."""
    if options.folds is not None or options.validation is not None or found.source.chunks is not None:
        return options.folds or 1
    x, context, _ = found.train
    rows = len(all_rows(found))
    if rows >= FEW or rows < 2 * FOLDS or not is_flow(model) or model.likelihood == "lower bound":
        return 1
    part = part_of(model, key, x.shape[1:], None if context is None else context.shape[1:])
    return FOLDS if num_trained(jax.eval_shape(lambda: part.init(key, Given()))) > rows else 1


def num_trained(params: Any) -> int:
    """How many numbers are trained."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(trainable(params)), strict=True)
    return sum(int(leaf.size) for leaf, trains in pairs if trains)


def own_layers(init_fun: Any, data: Data, options: Options) -> tuple[tuple[BijectionInit, ...], Any]:
    """The layers of a model that the rows go through before they are standardised, and the model that is left."""
    check_degrees(init_fun, data, options.caller)
    if options.standardize is False:
        return (), init_fun
    x, context, _ = data.train
    return split_off(init_fun, x.shape[1:], None if context is None else context.shape[1:])


def _first_layers(init_fun: Any, data: Data) -> tuple[BijectionInit, ...]:
    """Those that the rows would go through before they were standardised, which they are not; none where that cannot be."""
    x, context, _ = data.train
    try:
        return split_off(init_fun, x.shape[1:], None if context is None else context.shape[1:])[0]
    except FlowsError:
        return ()


def fit_rows(key: Array, init_fun: Any, rows: Prepared, options: Options) -> FitResult:
    """Fit one model, or several to folds or as members, to rows that are ready, and give it as the user sees it."""
    if rows.folds:
        return fit_members(key, init_fun, rows, replace(options, members=len(rows.folds)))
    if options.members is not None:
        return fit_members(key, init_fun, rows, options)
    began = time.monotonic()
    flow = rows.outer(init_fun)
    fitted, history = train_members(key, init_fun, rows, options, _publisher(flow, key, rows, rows.outer_params))
    return FitResult(*fitted, flow, as_dim(rows.event), as_dim(rows.context), history, **told(rows, history, began))


def _publisher(flow: Any, key: Array, rows: Prepared, outer: Callable[[Any], Any]) -> Callable[[Any], Distribution]:
    """Of params that are trained, the triple that a user sees; `outer` makes its params."""

    def published(trained: Any) -> Distribution:
        params = outer(trained)
        return Distribution(params, *functions_of(part_of(flow, key, rows.event, rows.context), params))

    return published


def told(rows: Prepared, history: History, began: float) -> dict[str, Any]:
    """What a result knows of its rows; how many there were goes to the history."""
    source, held_out = rows.source, [each.source.held_out for each in rows.folds or (rows,)]
    others = 0 if not rows.folds or source.others is None else len(source.others)  # all rows are trained on by some fold
    history["rows"] = np.array((len(source.numbers) if source.rows is None else source.rows) + others)
    history["held_out"] = np.array(sum(len(each.x) for each in held_out))
    if held_out[0].weights is not None:
        weights = np.concatenate([each.weights for each in held_out])
        history["effective"] = np.array(np.square(weights.sum()) / np.square(weights).sum())
    few = [kept_of(each, KEPT // len(held_out)) for each in held_out]
    kept = jax.tree.map(lambda *each: np.stack(each), *few) if rows.folds else few[0]
    tables = {"table": source.table, "context_table": source.context_table}
    return {**tables, "kept": kept, "turn": rows.turn, "seconds": time.monotonic() - began}


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
    key: Array,
    init_fun: Any,
    rows: Prepared,
    options: Options,
    published: Callable[[Any], Distribution],
) -> tuple[Distribution, History]:
    """Train one model, or the members of an ensemble: the best as a user sees it, and the history.

    Params of members have a leading axis, and each member has an init and an order of rows of its own. `published` makes of
    params that are trained the triple that a user sees.
    """
    members, source, inner = options.members, rows.source, rows.inner(init_fun)
    options = options.settled(source.batch_size, source.steps)
    keys = key if members is None else jax.random.split(key, members)
    key_of_member = [key] if members is None else list(keys)
    starts, parts = list[Any](), list[Any]()
    for i, each in enumerate(key_of_member):
        own = rows.of_member(i)
        start, part = initialize(inner, each, rows.event, rows.context, own.given)
        starts.append(cast(own.inner_params(start), source.dtype))
        parts.append(part)
    part, start = parts[0], starts[0]
    if rows.context is not None and "context" not in part.keywords:
        raise TypeError(f"{options.caller}: context was given, but no layer of {init_fun!r} takes one; leave it out")
    another = part_of(inner, jax.random.fold_in(key, 1), rows.event, rows.context)  # as that of the result will be
    if part.compiled and any(each is not part for each in (*parts, another)):
        raise FlowsError(UNEQUAL.format(name=f"{options.caller}: the functions of {init_fun!r:.80}"))
    params = start if members is None else stacked(starts)
    if not any(jax.tree.leaves(trainable(start))):
        options = replace(options, max_epochs=1)

    problem = _problem(inner, part, start, rows, options)
    compiled = trainer(problem, start, options, source.dtype, bool(rows.folds))
    schedule = schedule_of(options, options.max_epochs * source.steps)
    epochs: Any = Epochs(rows, compiled, schedule, keys)
    if source.chunks is not None:
        epochs = Stream(rows, compiled, schedule, keys, source.chunks)
    saved = None
    if options.checkpoint is not None:
        saved = Checkpoint(options, settings_of(rows.outer(init_fun), key, source.given, options, batch_size=source.batch_size))

    def why(params: Any, number: int, step: int | None, member: int) -> str:
        if options.objective is not None:
            return f"the {options.measure}, or its gradient, is not finite there"
        own = rows.of_member(member)
        suspects = own.suspects() if step is None else epochs.suspects(number, step, member)
        return cause(part, params, suspects, key_of_member[member], own.deviations)

    with contextlib.nullcontext() if part.compiled else jax.disable_jit():  # what runs row by row is never traced
        size = math.prod(rows.event)
        training = Training(compiled, params, epochs.run, epochs.score, why, published, size, rows.yardstick, saved)
        best, history = run_epochs(training, options)
    return published(best), history


def _problem(model: Any, part: Any, params: Any, rows: Prepared, options: Options) -> Any:
    """What a step and a validation minimise."""
    batch, statistics = rows.source.batch_size // options.accumulate, has_running_statistics(params)
    if options.objective is None:
        exact = getattr(model, "likelihood", "exact") == "unbiased"
        return Likelihood(part, batch, options.precision, statistics, exact)
    check_keywords(options.objective, rows.train, options.caller)
    return Objective(part, Function(options.objective), batch, options.precision, statistics)


def fit_members(key: Array, model: Any, rows: Prepared, options: Options) -> EnsembleResult:
    """Fit an ensemble to rows that are ready, and give it as the user sees it."""
    members, began = options.members or 1, time.monotonic()

    def mixed(components: Any) -> Any:
        dtype = next((leaf.dtype for leaf in jax.tree.leaves(components)), jnp.float32)
        return {"components": components, "fixed": {"logits": jnp.full(members, -np.log(members), dtype)}}

    def outer(trained: Any) -> Any:
        if not rows.folds:
            return rows.outer_params(trained, mixed)
        own = [jax.tree.map(itemgetter(i), trained) for i in range(members)]
        return mixed(stacked([fold.outer_params(each) for fold, each in zip(rows.folds, own, strict=True)]))

    def several(model: Any) -> Any:
        return Mixture(model, num_components=members, trainable=False)

    flow = several(rows.outer(model)) if rows.folds else rows.outer(several(model))  # before the training, as it may be refused
    fitted, history = train_members(key, model, rows, options, _publisher(flow, key, rows, outer))
    dims, path = (as_dim(rows.event), as_dim(rows.context)), () if rows.folds else rows.path
    own = {"path": path, **told(rows, history, began)}
    return EnsembleResult(*fitted, flow, *dims, history, **own)
