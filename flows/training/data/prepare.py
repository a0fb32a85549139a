"""Checked rows go through the first layers, are scored by the closed-form Gaussian, standardised, and put on the device in the
units of the model. Layers are chosen on all rows and measured on the training rows; each fold measures the same choice on its
rows. `Prepared` also has the way back: it puts the model and its fitted params behind the same layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any

import jax
import numpy as np

from flows.bijections.whiten import MOST_COLUMNS
from flows.compose import Serial, joined
from flows.core import (
    MOST_TURNS,
    NEAR_END,
    Array,
    BijectionInit,
    Given,
    Region,
    bijection_part,
    blocks_of,
    functions_of,
    on_device,
    pieces_of,
    rows_within,
    stacked,
    warn_user,
)
from flows.diagnostics.rows import spline_bound
from flows.distributions.flow import Flow
from flows.distributions.standardized_context import StandardizedContext
from flows.training.data.facts import Facts
from flows.training.data.gaussian import Scale, Yardstick, by_chance, check_spread, closed_form_loss, moments
from flows.training.data.region import check_finite_behind
from flows.training.data.standardization import Choice, Pipeline, choose, measure
from flows.training.data.table import LOOKED_AT, Rows, Split, floating, narrow, take
from flows.training.options import Options

MEASURED = 10_000, 2**20  # rows, and numbers, at most, that layers measure
ONE_SIDE = 0.7  # the length of the mean of unit vectors, from which a flow starts at their von Mises-Fisher
OUTSIDE = 0.01  # of the values may lie outside the range of the splines


@dataclass(frozen=True, eq=False)
class Prepared:
    """Rows on their way to the device and the units of the model, and the way back to the units of the data.

    The model comes after `layers`. If these draw noise, or if the rows are a stream, it is trained with them; otherwise the
    rows have gone through them once before the training. A user gets the model with the layers, as `outer`.
    """

    split: Split  # its rows are at their present stage, with the log-dets of the layers so far
    raw_held_out: Rows  # in the units of the data
    context_scale: Scale | None
    yardstick: Yardstick
    layers: tuple[BijectionInit, ...] = ()
    params: tuple[Any, ...] = ()  # of the layers
    pipeline: Pipeline = field(default_factory=Pipeline)  # the last layers, which standardise
    trained_with_layers: bool = False
    folds: tuple["Prepared", ...] = ()  # the members, if they have separate rows; `split` then has the rows of all
    turn: np.ndarray | None = None  # where the turn of each angle begins in the data
    model: Any = None  # to train
    start: Any = None  # params of the model, where a fit goes on from a result
    portions: tuple[int, ...] = ()  # the numbers of rows of the fits that led to the result

    train = property(attrgetter("split.train.rows"))
    held_out = property(attrgetter("split.held_out.rows"))
    dtype = property(attrgetter("split.train.dtype"))
    event = property(attrgetter("split.whole.event"))
    context = property(attrgetter("split.whole.context_event"))

    def with_rows(self, train: Rows, held_out: Rows) -> "Prepared":
        """Replace the rows by the same rows at a later stage."""
        tables = replace(self.split.train, rows=train), replace(self.split.held_out, rows=held_out)
        return replace(self, split=replace(self.split, train=tables[0], held_out=tables[1]))

    def ready(self, rows: Rows) -> Rows:
        """Return rows of a stream in the units of the model, from the units of the data; not yet on the device."""
        x = rows.x if self.trained_with_layers else self.pipeline.direct(rows.x)[0]
        return in_units(Rows(x, rows.context, rows.weights), self.context_scale, self.dtype)

    @property
    def init_data(self) -> Given:
        """The argument of the model's init: rows to measure, each as often as its weight says."""
        rows, chosen = self.train, np.arange(rows_within(*MEASURED, self.train.x.shape[1:]))
        if rows.weights is not None:
            total = np.cumsum(np.asarray(rows.weights, float))
            rows = take(rows, np.searchsorted(total, total[-1] * (chosen + 0.5) / len(chosen)))
        few = measured_of(rows)
        return Given(*jax.tree.map(on_device, (few.x, few.context)))

    def member(self, number: int) -> "Prepared":
        """Return the rows of one member, or these if all members have the same."""
        return self.folds[number] if self.folds else self

    def deviations(self, x: Array) -> np.ndarray:
        """Return the columns of the model's rows, in standard deviations from their means."""
        return self.pipeline.deviations(np.asarray(x, float), behind=not self.trained_with_layers)

    def inner(self, init_fun: Any) -> Any:
        """Return the model that is trained on these rows."""
        return self._behind_layers(init_fun) if self.trained_with_layers else init_fun

    def outer(self, init_fun: Any) -> Any:
        """Return the model of the data."""
        return self._behind_layers(init_fun if self.context_scale is None else StandardizedContext(init_fun))

    def _behind_layers(self, init_fun: Any) -> Any:
        return Flow(joined(self.layers), init_fun) if self.layers else init_fun

    @property
    def path(self) -> tuple[str, ...]:
        """The path of the params of the model itself in the params of `outer`."""
        return ("prior",) * bool(self.layers) + ("distribution",) * (self.context_scale is not None)

    def inner_params(self, params: Any) -> Any:
        """Return params of `inner` at the start, with the measured params of the layers."""
        if self.start is not None:
            params = {"prior": self.start} if self.trained_with_layers else self.start
        return {**params, "bijection": self._params_of_layers} if self.trained_with_layers else params

    def outer_params(self, params: Any, changed: Callable[[Any], Any] = lambda params: params) -> Any:
        """Return params of `outer` from params of `inner`; `changed` maps the params of the model itself."""
        layer_params = self._params_of_layers
        if self.trained_with_layers:  # some may have been measured again; members have the same
            layer_params = jax.tree.map(lambda leaf, like: leaf.reshape(-1, *like.shape)[0], params["bijection"], layer_params)
            params = params["prior"]
        params = changed(params)
        if self.context_scale is not None:
            params = {"distribution": params, "fixed": _cast(self.context_scale._asdict(), self.dtype)}
        return {"bijection": layer_params, "prior": params} if self.layers else params

    @property
    def _params_of_layers(self) -> Any:
        params = jax.tree.map(partial(on_device, dtype=self.dtype), self.params)
        return params[0] if len(params) == 1 else params


def prepare(split: Split, facts: Facts, options: Options, key: Array) -> Prepared:
    """Prepare checked rows for training, and warn of values outside the range of splines."""
    rows = with_model(prepare_folds(split, facts, options, key), split, facts, options)
    if options.standardize is False and facts.view.leading:  # pixels, which layers bring to the line
        return rows
    columns = ~facts.view.curved
    bound = float("inf") if rows.trained_with_layers or not columns.any() else spline_bound(rows.model)
    values = np.abs(np.asarray(rows.train.x))[..., columns] if bound < float("inf") else np.zeros(1)
    if (outside := float((values > bound).mean())) > OUTSIDE:
        wide = float(np.quantile(values, 1 - OUTSIDE / 10))
        warn_user(
            f"fit: {outside:.1%} of the standardised values lie beyond +-{bound:g}, outside the range of the splines, "
            f"where these are the identity. Give a larger bound, such as {wide:.2g}, or a base with tails, such as "
            "StudentT(trainable=True)"
        )
    return rows


def with_model(rows: Prepared, split: Split, facts: Facts, options: Options) -> Prepared:
    """Return the rows with the turn of angles and the model to train. By default the base of a flow starts at the normal of its
    rows, as layers without a network leave them, or at the von Mises of its angles."""
    model = facts.view.rest
    started = rows.pipeline.steps or facts.view.curved.any()
    if started and options.standardize is True and options.objective is None:
        model = facts.view.started(rows.pipeline.shrinkage or None, _concentrated(facts.view.region, split))
    return replace(rows, turn=turn_of(facts.view.region, split), model=model)


def _concentrated(region: Region | None, split: Split) -> bool:
    """Tell whether some unit vectors are on one side of the sphere: their mean is long. Others are as well fitted from the
    uniform."""
    blocks = [] if region is None else blocks_of(region.sphere)
    return any(np.linalg.norm(np.asarray(split.train.x, float)[:, block].mean(0)) > ONE_SIDE for block in blocks)


def turn_of(region: Region | None, split: Split) -> np.ndarray | None:
    """Return where the turn of each angle begins in the data, of the shape of the event, 0 elsewhere; None without angles.

    The turn is the first of these that holds all rows: [0, period), [-period / 2, period / 2), another that begins at a
    multiple of half a period, one that begins at the least value. If rows span more than a turn, it is around 0.
    """
    if region is None or not np.any(region.period):
        return None
    rows = [np.asarray(table.x) for table in split.tables]
    least = np.min([x.min(0) for x in rows], 0).astype(float)
    most = np.max([x.max(0) for x in rows], 0).astype(float)
    period = np.where(region.period > 0, region.period, 1.0)
    slack, half = NEAR_END * period, period / 2
    turn = -half
    for low in (least, np.floor((least + slack) / half) * half, -half, np.zeros_like(half)):  # the last that holds all
        turn = np.where((least >= low - slack) & (most <= low + period + slack), low, turn)
    known = (region.period > 0) & (np.abs(turn) <= MOST_TURNS * period)
    return np.where(region.period > 0, np.where(known, turn, -half), 0.0)


def prepare_folds(split: Split, facts: Facts, options: Options, key: Array) -> Prepared:
    """Prepare the rows of folds, with an axis of members in front; the rows of one model without this axis."""
    if facts.folds == 1:
        return prepare_one(split, facts, options, key)
    folds, whole = split.folds(options, key, facts.folds), split.for_folds(facts.folds, options)
    choice = choose(through_first(whole, facts, key).train, facts, options)
    for i, fold in enumerate(folds):
        table = fold.train
        check_spread(table, moments(table.x, table.weights), facts.columns.judged & ~facts.view.curved, f" without fold {i}")
    members = tuple(prepare_one(fold, facts, options, key, choice) for fold in folds)
    yardsticks = [member.yardstick for member in members]
    gaussians = [yardstick.gaussian for yardstick in yardsticks if yardstick.gaussian is not None]
    yardstick = yardsticks[0]._replace(
        log_dets=tuple(np.array([yardstick.log_dets for yardstick in yardsticks]).T),
        gaussian=float(np.mean(gaussians)) if len(gaussians) == facts.folds else None,
        by_chance=by_chance(len(whole.train), whole.train.weights),
        held_out=np.stack([yardstick.held_out for yardstick in yardsticks]),
    )
    rows = (stacked([getattr(member, name) for member in members]) for name in ("train", "held_out"))
    return replace(members[0].with_rows(*rows), yardstick=yardstick, folds=members)


def prepare_one(split: Split, facts: Facts, options: Options, key: Array, choice: Choice | None = None) -> Prepared:
    """Prepare checked rows for the training of one model: layers are measured on them, and chosen by them unless there is a
    `choice`."""
    rows = scored_by_gaussian(through_first(split, facts, key), split, facts, options)
    x, weights = rows.train.x, rows.train.weights
    if choice is None:
        x = np.asarray(x, float) if x.ndim == 2 else x
        choice = choose(rows.train._replace(x=x), facts, options)
    return placed(standardized(rows, split, measure(choice, x, weights, rows.dtype)), options)


def through_first(split: Split, facts: Facts, key: Array, known: tuple[Any, ...] | None = None) -> Prepared:
    """Return rows behind the first layers, with their noise; the params of the layers are measured, unless they are known."""
    first, event, dtype, others = facts.first, split.train.event, split.train.dtype, split.held_out
    closed_form = "Gaussian with frequencies of codes and von Mises angles" if facts.view.curved.any() else "Gaussian"
    chance = by_chance(len(others), others.weights)
    yardstick = Yardstick((0.0, 0.0), None, closed_form, chance, others.numbers, others.source)
    scale = facts.columns.context_scale
    scale = scale and Scale(*(np.asarray(numbers, dtype).astype(float) for numbers in scale))  # as in the params
    rows = Prepared(split, others.rows, scale, yardstick)
    if not first:
        return rows
    inside = split.stream is not None or any(layer.likelihood != "exact" for layer in first)
    # Images that go through layers again in training: some are enough to measure the scale.
    some = _some(split) if inside and len(event) > 1 else split
    part = bijection_part(Serial(*first), event, None)
    params = known or part.init(key, Given(on_device(measured_of(some.train.rows).x, dtype)))
    direct, _ = functions_of(part, params)  # the same for equal layers, so that a second fit compiles nothing
    made = list[Rows]()
    for table, table_key in zip(some.tables, jax.random.split(key), strict=True):
        pieces = pieces_of(len(table), event)
        keys = zip(pieces, jax.random.split(table_key, len(pieces)), strict=True)
        pairs = [direct(params, on_device(table.x[piece], dtype), rng=piece_key, train=True) for piece, piece_key in keys]
        kinds = enumerate((float if len(event) == 1 else dtype, float))
        y, log_det = (np.concatenate([np.asarray(pair[i], kind) for pair in pairs]) for i, kind in kinds)
        check_finite_behind(table, y, facts.region)
        made.append(table.rows._replace(x=y, log_det=log_det))
    return replace(rows, split=some, layers=first, params=params, trained_with_layers=inside).with_rows(*made)


def scored_by_gaussian(rows: Prepared, split: Split, facts: Facts, options: Options) -> Prepared:
    """Return rows with the loss of the closed-form Gaussian on the held-out rows, in the units of the data, unless the first
    layers changed columns of angles, unit vectors or codes."""
    before, behind, curved = split.train.x, rows.train.x, facts.view.curved
    if before.ndim != 2 or before.shape[1] > MOST_COLUMNS or options.objective is not None or facts.view.has_roles:
        return rows
    if curved.any() and behind is not before and not (behind[:, curved] == before[:, curved]).all():
        return rows
    loss = closed_form_loss(rows.train, rows.held_out, facts.view.region)
    loss = None if loss is None else loss - _mean_log_det(rows.held_out)
    return replace(rows, yardstick=rows.yardstick._replace(gaussian=loss))


def standardized(rows: Prepared, split: Split, pipeline: Pipeline) -> Prepared:
    """Return rows behind the layers that standardise them, or the raw rows if these are trained with their layers."""
    layers, params = (*rows.layers, *pipeline.layers), (*rows.params, *pipeline.params)
    rows = replace(rows, layers=layers, params=params, pipeline=pipeline)
    if rows.trained_with_layers:
        return replace(rows, split=split)
    made = list[Rows]()
    for part in (rows.train, rows.held_out):
        x, log_det = pipeline.direct(part.x)
        made.append(part._replace(x=x, log_det=log_det if part.log_det is None else part.log_det + log_det))
    return rows.with_rows(*made)


def placed(rows: Prepared, options: Options) -> Prepared:
    """Return rows on the device in the units of the model; the log-dets of held-out rows are less their mean."""
    means, log_det = (0.0, 0.0), None  # log-dets cannot be added to an objective, which is not a log-density
    if options.objective is None:
        means, log_det = (_mean_log_det(rows.train), _mean_log_det(rows.held_out)), rows.held_out.log_det
    log_det = None if log_det is None or len(log_det) == 1 else log_det - means[1]
    both = rows.train._replace(log_det=None), rows.held_out._replace(log_det=log_det)
    units = [in_units(part, rows.context_scale, rows.dtype) for part in both]
    rows = rows.with_rows(*(units if options.mesh is not None else jax.tree.map(on_device, units)))
    return replace(rows, yardstick=rows.yardstick._replace(log_dets=means))


def in_units(rows: Rows, context_scale: Scale | None, dtype: np.dtype) -> Rows:
    """Return rows with weights of mean 1 and a standardised context, in the working dtype; small integers stay as they are."""
    x, context, weights, _ = rows
    context = context if context_scale is None else (context - context_scale.mean) / context_scale.std
    weights = None if weights is None else weights / weights.mean()
    rows = _cast(rows._replace(x=None, context=context, weights=weights), dtype)
    return rows._replace(x=x if narrow(x) else _cast(x, dtype))


def measured_of(rows: Rows) -> Rows:
    """Return the rows that layers measure."""
    return floating(take(rows, slice(rows_within(*MEASURED, rows.x.shape[1:]))))


def _some(split: Split) -> Split:
    """Return some training rows from all over, as many as the first look at a stream takes, and the first held-out row."""
    every = slice(None, None, -(-len(split.train) // rows_within(*LOOKED_AT, split.train.event)))
    return replace(split, train=split.train.take(every), held_out=split.held_out.take(slice(1)))


def _mean_log_det(rows: Rows) -> float:
    """Return the mean of log-dets, of each row or one for all."""
    log_det = np.zeros(1) if rows.log_det is None else rows.log_det
    return float(np.average(log_det, weights=rows.weights if len(log_det) > 1 else None))


def _cast(tree: Any, dtype: np.dtype) -> Any:
    return jax.tree.map(partial(np.asarray, dtype=dtype), tree)
