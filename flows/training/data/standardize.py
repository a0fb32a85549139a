"""Checked rows go through the first layers and the pipeline, are cast and put on the device; each fold has rows of its own.
`Prepared` keeps the way back: it puts the model and its fitted params behind the same layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.bijections.whiten import MOST_COLUMNS
from flows.compose import Serial, joined
from flows.core import (
    Array,
    BijectionInit,
    Given,
    Shape,
    bijection_part,
    functions_of,
    on_device,
    pieces_of,
    rows_within,
    stacked,
)
from flows.distributions.flow import Flow
from flows.distributions.standardized_context import StandardizedContext
from flows.training.data.box import check_finite_behind, check_inside
from flows.training.data.columns import check_spread
from flows.training.data.facts import Facts
from flows.training.data.gaussian import Scale, Yardstick, by_chance, closed_form_loss, moments
from flows.training.data.pipeline import Pipeline, pipeline_of
from flows.training.data.table import LOOKED_AT, Rows, Split, floating, narrow, take
from flows.training.options import Options

MEASURED = 10_000, 2**20  # rows, and numbers, at most, where layers measure data


class Prepared(NamedTuple):
    """Rows on the device in the units of the model, and how to come back to those of the data.

    The model comes after `layers`. Where these draw noise, or the rows are a stream, it is trained with them; otherwise the
    rows have gone through them once and for all. A user gets it with them, as `outer`.
    """

    split: Split  # whose rows to train on, and those held out, are on the device
    held_out_as_given: Rows
    layers: tuple[BijectionInit, ...]
    params: tuple[Any, ...]  # of the layers
    pipeline: Pipeline | None  # the last of the layers, which standardise
    of_context: Scale | None
    trained_with_layers: bool
    yardstick: Yardstick
    folds: tuple["Prepared", ...] = ()  # those of the members, where each has rows of its own; those of `split` are theirs
    turn: np.ndarray | None = None  # where that of each angle begins, as the data have it
    model: Any = None  # that is trained

    @property
    def train(self) -> Rows:
        return self.split.train.rows

    @property
    def held_out(self) -> Rows:
        return self.split.held_out.rows

    @property
    def dtype(self) -> np.dtype:
        """To work in."""
        return self.split.train.dtype

    @property
    def event(self) -> Shape:
        return self.split.whole.event

    @property
    def context(self) -> Shape | None:
        return self.split.whole.context_event

    def ready(self, rows: Rows) -> Rows:
        """Rows in the units of the data as the model's, of a stream; not yet on the device."""
        x = rows.x if self.trained_with_layers or self.pipeline is None else self.pipeline.direct(rows.x)[0]
        return _cast_rows(Rows(x, _standardized(rows.context, self.of_context), rows.weights), self.dtype)

    @property
    def given(self) -> Given:
        """What the model's init is given."""
        few = measured_of(self.train) if self.train.weights is None else _by_weight(self.train)
        return Given(*jax.tree.map(on_device, (few.x, few.context)))

    def of_member(self, member: int) -> "Prepared":
        """The rows of one member; these, where all have the same."""
        return self.folds[member] if self.folds else self

    def deviations(self, x: Array) -> np.ndarray:
        """The columns of the model's rows, in standard deviations from their means."""
        z: np.ndarray = np.asarray(x, float)
        if self.pipeline is None:
            return z
        return self.pipeline.deviations_before(z) if self.trained_with_layers else self.pipeline.deviations(z)

    def inner(self, init_fun: Any) -> Any:
        """The model that is trained on the rows here."""
        return self._behind_layers(init_fun) if self.trained_with_layers else init_fun

    def outer(self, init_fun: Any) -> Any:
        """The model of the data given."""
        return self._behind_layers(init_fun if self.of_context is None else StandardizedContext(init_fun))

    def _behind_layers(self, init_fun: Any) -> Any:
        return Flow(joined(self.layers), init_fun) if self.layers else init_fun

    @property
    def path(self) -> tuple[str, ...]:
        """Where params of the model itself are in those of `outer`."""
        return ("prior",) * bool(self.layers) + ("distribution",) * (self.of_context is not None)

    def inner_params(self, params: Any) -> Any:
        """Params of `inner` at the start, with what was measured of all rows."""
        return {**params, "bijection": self._params_of_layers} if self.layers and self.trained_with_layers else params

    def outer_params(self, params: Any, changed: Callable[[Any], Any] = lambda params: params) -> Any:
        """Params of `outer` from those of `inner`; those of the model itself are `changed`."""
        of_layers = self._params_of_layers
        if self.layers and self.trained_with_layers:  # where some may have been measured again; of members they are the same
            of_layers = jax.tree.map(lambda leaf, like: leaf.reshape(-1, *like.shape)[0], params["bijection"], of_layers)
            params = params["prior"]
        params = changed(params)
        if self.of_context is not None:
            params = {"distribution": params, "fixed": _cast(self.of_context._asdict(), self.dtype)}
        return {"bijection": of_layers, "prior": params} if self.layers else params

    @property
    def _params_of_layers(self) -> Any:
        params = jax.tree.map(partial(on_device, dtype=self.dtype), self.params)
        return params[0] if len(params) == 1 else params


def prepare_one(split: Split, facts: Facts, options: Options, key: Array, like: Pipeline | None = None) -> Prepared:
    """Rows that were read and checked, for the training of a model. What is chosen is chosen as it was in a pipeline that is
    given; what is measured is measured on these rows."""
    columns, before, event, dtype = facts.columns, facts.first, split.train.event, split.train.dtype
    check_inside(split, before)
    inside = bool(before) and (split.stream is not None or any(layer.likelihood != "exact" for layer in before))
    # Of images that go through layers again while they are trained on, some tell how these are to be scaled.
    train, held_out, log_dets, params = _through(before, _some(split) if inside and len(event) > 1 else split, key)
    as_it_is = options.standardize is False or (columns.curved.any() and columns.as_is.all())
    pipeline = None
    if not as_it_is and like is not None:
        pipeline = like.again(train.x, train.weights)
    elif not as_it_is:
        pipeline = pipeline_of(train, columns, options, facts.view.mixing, dtype)
    gaussian = None
    if len(event) == 1 and event[0] <= MOST_COLUMNS and options.objective is None and _kept(split, train, columns.curved):
        gaussian = closed_form_loss(train, held_out, facts.view.region)
        gaussian = None if gaussian is None else gaussian - _mean(log_dets[1], held_out.weights)
    layers = before
    if pipeline is not None:
        layers, params = (*layers, *pipeline.layers), (*params, *pipeline.params)
    if inside:
        train, held_out, log_dets = split.train.rows, split.held_out.rows, (np.zeros(1), np.zeros(1))
    elif pipeline is not None:
        (x, of_train), (of_others, of_held_out) = pipeline.direct(train.x), pipeline.direct(held_out.x)
        log_dets = log_dets[0] + of_train, log_dets[1] + of_held_out
        train, held_out = train._replace(x=x), held_out._replace(x=of_others)
    means = (0.0, 0.0)  # an objective is no log-density, to which log-dets could be added
    if options.objective is None:
        means = _mean(log_dets[0], train.weights), _mean(log_dets[1], held_out.weights)
        if len(log_dets[1]) > 1:
            held_out = held_out._replace(log_det=log_dets[1] - means[1])
    prepared = []
    for table, rows in zip(split.tables, (train, held_out), strict=True):
        w = None if rows.weights is None else rows.weights / rows.weights.mean()
        rows = rows._replace(context=_standardized(rows.context, columns.of_context), weights=w)
        rows = _cast_rows(rows, dtype)
        prepared.append(table.with_rows(rows if options.mesh is not None else jax.tree.map(on_device, rows)))
    chance = by_chance(len(split.held_out), held_out.weights)
    closed_form = "Gaussian beside frequencies of codes and uniform angles" if columns.curved.any() else "Gaussian"
    yardstick = Yardstick(means, gaussian, closed_form, chance, split.held_out.numbers, split.held_out.source)
    as_given, split = split.held_out.rows, replace(split, train=prepared[0], held_out=prepared[1])
    return Prepared(split, as_given, layers, params, pipeline, columns.of_context, inside, yardstick)


def prepare_folds(split: Split, facts: Facts, options: Options, key: Array) -> Prepared:
    """The rows of members that each hold out another part of them, with an axis of members in front; of one, as they are."""
    if facts.folds == 1:
        return prepare_one(split, facts, options, key)
    of_folds = split.folds(options, key, facts.folds)
    every = prepare_one(split.unsplit(options), facts, options, key)
    for i, fold in enumerate(of_folds):
        table = fold.train
        check_spread(table, moments(table.x, table.weights), facts.columns.judged, f" without fold {i}")
    prepared = tuple(prepare_one(fold, facts, options, key, every.pipeline) for fold in of_folds)
    yardsticks = [rows.yardstick for rows in prepared]
    gaussians = [of.gaussian for of in yardsticks if of.gaussian is not None]
    log_dets = [of.log_dets for of in yardsticks]
    of_train, of_held_out = np.array(log_dets).T
    yardstick = every.yardstick._replace(
        log_dets=(of_train, of_held_out),
        gaussian=float(np.mean(gaussians)) if len(gaussians) == facts.folds else None,
        held_out=np.stack([of.held_out for of in yardsticks]),
    )
    first = prepared[0].split
    train, held_out = (stacked([getattr(rows, name) for rows in prepared]) for name in ("train", "held_out"))
    first = replace(first, train=first.train.with_rows(train), held_out=first.held_out.with_rows(held_out))
    return prepared[0]._replace(split=first, yardstick=yardstick, folds=prepared)


def measured_of(rows: Rows) -> Rows:
    """The rows by which layers measure data."""
    return floating(take(rows, slice(rows_within(*MEASURED, rows.x.shape[1:]))))


def _by_weight(rows: Rows) -> Rows:
    """As many rows as layers measure, each as often as its weight says."""
    total = np.cumsum(np.asarray(rows.weights, float))
    count = rows_within(*MEASURED, rows.x.shape[1:])
    return floating(take(rows, np.searchsorted(total, total[-1] * (np.arange(count) + 0.5) / count)))


def _some(split: Split) -> Split:
    """As many of the training rows as a stream is looked at by, from all over, and the first of those held out."""
    every = slice(None, None, -(-len(split.train) // rows_within(*LOOKED_AT, split.train.event)))
    return replace(split, train=split.train.take(every), held_out=split.held_out.take(slice(1)))


def _kept(split: Split, train: Rows, curved: np.ndarray) -> bool:
    """Whether the first layers keep columns that are no numbers of the line."""
    before = split.train.x
    return not curved.any() or train.x is before or bool((train.x[:, curved] == before[:, curved]).all())


def _mean(values: np.ndarray, weights: np.ndarray | None) -> float:
    """Of values, one a row or one for all."""
    return float(values[0]) if len(values) == 1 else float(np.average(values, weights=weights))


def _through(
    before: Sequence[BijectionInit], split: Split, key: Array
) -> tuple[Rows, Rows, tuple[np.ndarray, np.ndarray], tuple]:
    """All rows as the layers make them, noise included; the log-dets, of each row or one for all; and the layers' params."""
    if not before:
        return split.train.rows, split.held_out.rows, (np.zeros(1), np.zeros(1)), ()
    part, dtype = bijection_part(Serial(*before), split.train.event, None), split.train.dtype
    params = part.init(key, Given(on_device(measured_of(split.train.rows).x, dtype)))
    direct, _ = functions_of(part, params)  # of equal layers the same, so that a second fit compiles nothing
    results, log_dets = [], []
    for table, of_table in zip(split.tables, jax.random.split(key), strict=True):
        x = table.x
        starts = pieces_of(len(x), table.event)
        keys = jax.random.split(of_table, len(starts))
        pairs = zip(starts, keys, strict=True)
        made = [direct(params, on_device(x[piece], dtype), rng=piece_key, train=True) for piece, piece_key in pairs]
        of_y = float if x.ndim == 2 else dtype
        y, log_det = (np.concatenate([np.asarray(pair[i], kind) for pair in made]) for i, kind in enumerate((of_y, float)))
        check_finite_behind(table, y, before)
        results.append(table.rows._replace(x=y))
        log_dets.append(log_det)
    return results[0], results[1], (log_dets[0], log_dets[1]), params


def _standardized(x: Any, scale: Scale | None) -> Any:
    return x if scale is None else (x - scale.mean) / scale.std


def _cast(tree: Any, dtype: np.dtype) -> Any:
    return jax.tree.map(partial(np.asarray, dtype=dtype), tree)


def _cast_rows(rows: Rows, dtype: np.dtype) -> Rows:
    """Rows in the dtype to work in; whole numbers of few bytes stay."""
    return _cast(rows._replace(x=None), dtype)._replace(x=rows.x if narrow(rows.x) else _cast(rows.x, dtype))
