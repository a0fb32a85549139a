"""Facts of the rows and the model before anything is prepared. Faults are refused here, in this order: points that the model
does not take, folds, columns, noise that would be added twice, ends of a support, rows outside of it. Odd columns are warned
of, with a remedy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np

from flows.bijections.noise import Dequantize, trains_noise
from flows.core import OFF_SPHERE, Array, FlowsError, Given, Region, refuse_closures, warn_user
from flows.training.data.copies import COARSE, MOST_COMBINED, check_copies, check_dependence
from flows.training.data.gaussian import Scale, check_spread, moments
from flows.training.data.region import (
    box_layer,
    check_ends_are_near,
    check_inside,
    check_noise_once,
    check_points,
    check_turns,
    defined,
    ends_of,
)
from flows.training.data.rounding import ATOM, check_rounded, noise_added, sampled, some_of, steps_of, ties
from flows.training.data.table import Split, warn_of_data
from flows.training.model_view import Layers, ModelView, has_flow, num_trained
from flows.training.options import FEW, FOLDS, Options

LEAST_HELD_OUT = 2  # rows, below which a fit without folds cannot tell when to stop
CLUSTERS = 20  # pieces of a column that count as clusters, at most
EMPTY = 0.95  # of the range of a column is empty between its clusters, at least
GAP = 0.01  # of the range of a column: a wider distance between neighbouring values is a gap
CROWD = 20  # rows of a cluster, at least
FAR = 100.0  # interquartile ranges from the median: normal data reach 4, lognormal ones 60


class ColumnFacts(NamedTuple):
    """Facts of columns, or of channels of images, before they are standardised."""

    as_is: np.ndarray  # whether a column stays as it is; a column that is curved in the model does so as well
    judged: np.ndarray  # whether a column has to vary, if it is not curved
    steps: np.ndarray | None  # by which columns are dequantised, 0 for a continuous column; None if all are continuous
    ends: Region | None  # of `support=`
    context_scale: Scale | None  # None where the context is not standardised


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts of the rows and of the model."""

    view: ModelView
    columns: ColumnFacts
    folds: int = 1  # the number of models in the average

    @cached_property
    def first(self) -> Layers:
        """The layers that rows go through before they are standardised: noise and a box of the options, then layers of the
        model."""
        steps, ends = self.columns.steps, self.columns.ends
        noise = () if steps is None else (Dequantize(tuple(steps)),)
        box = () if ends is None else (box_layer(ends, steps),)
        return (*noise, *box, *self.view.first)

    @cached_property
    def region(self) -> Region:
        """The region where these layers are defined."""
        return defined(self.first, self.view.event)


def check(view: ModelView, split: Split, options: Options, key: Array) -> Facts:
    """Check the rows that were read, for a model."""
    check_points(view, split)
    folds, table = folds_of(view, split, options, key), split.train
    whole = split.for_folds(folds, options)
    facts = Facts(view, check_data(whole, options, view), folds)
    check_noise_once(view, table.labels, facts.columns.ends, facts.columns.steps)
    check_ends_are_near(table, view.first, facts.columns.ends)
    check_turns(view.region, table)
    check_inside(whole, facts.region)
    return facts


def check_candidate(view: ModelView, split: Split, columns: ColumnFacts, options: Options, folds: int) -> Facts:
    """Check one of several models, for rows that were checked without a model."""
    check_points(view, split)
    check_noise_once(view, split.train.labels, columns.ends, columns.steps)
    refuse_trained_noise(view, folds)
    if folds > 1:
        one = "(give rows as validation= for one model)"
        refuse_closures(view.rest_part, f"{folds} models of folds are to be trained as one {one}")
    facts = Facts(view, columns, folds)
    check_inside(split.for_folds(folds, options), facts.region)
    return facts


def folds_of(view: ModelView, split: Split, options: Options, key: Array) -> int:
    """Return the number of folds: by default 1, but several where few rows train a flow of more numbers than rows."""
    refuse_trained_noise(view, max(options.folds or 1, options.members or 1))
    if options.folds is not None or options.validation is not None or split.stream is not None:
        return options.folds or 1
    rows = len(split.numbers())
    few = 2 * FOLDS <= rows < FEW and split.suits_folds(FOLDS, options)
    if not few or not has_flow(view.rest) or view.rest.likelihood == "lower bound":
        return 1
    if trains_noise(view.init_fun):
        return 1
    part = view.rest_part
    if closures := part.closures:
        warn_user(
            f"fit: on {rows} rows {FOLDS} models are better than one, but {view.rest!r:.80} has "
            f"{closures[0].kind} in it, so one is trained. {closures[0].remedy.partition(',')[0]}"
        )
        return 1
    return FOLDS if num_trained(jax.eval_shape(lambda: part.init(key, Given()))) > rows else 1


def refuse_trained_noise(view: ModelView, models: int) -> None:
    """Refuse several models of which each would train the noise of the first layers, which they have in common."""
    if models > 1 and trains_noise(view.init_fun):
        raise FlowsError(
            f"fit: {models} models were asked for, members or folds, which would share the noise of Dequantize, which trains; "
            "fit them one by one, with folds=1, or leave noise= out, for uniform noise"
        )


class Shared(NamedTuple):
    """Facts of several models in place of a `ModelView`: a column is an angle, a code or noisy if it is so in all models."""

    curved: np.ndarray
    coded: np.ndarray
    noisy: np.ndarray
    leading: Layers = ()
    clusters: bool = False
    prepares: bool = False


def check_data(split: Split, options: Options, model: Shared | ModelView) -> ColumnFacts:
    """Check the training rows and their context, for a model or several, and measure the context's columns."""
    check_copies(split, options.holding)
    data = Examined(split, options, model)
    for noise in data.noise:
        check_rounded(noise, data.labels)
    check_spread(data.table, data.scale, data.judged)
    if data.table_columns:
        check_dependence(data.table, data.scale, np.flatnonzero(data.free))
    for check in CHECKS:
        check(data)
    context_scale, (_, context, weights, _) = None, split.train.rows
    if context is not None and options.standardize_context:
        context_scale = scale_of_context(context, weights)
    ends = ends_of(options.support, len(data.labels), split.train.names)
    return ColumnFacts(data.as_is, data.judged, data.steps, ends, context_scale)


def scale_of_context(context: np.ndarray, weights: np.ndarray | None = None) -> Scale:
    """Return the scale of the context; a column that is constant, or that has only zeros and ones, stays as it is."""
    mean, std = moments(context, weights)
    if not np.isfinite(std).all():
        raise FlowsError(
            f"fit: column {int(np.argmin(np.isfinite(std)))} of context varies by more than floats can hold. Rescale it"
        )
    varies = std > 8 * np.finfo(np.float32).eps * np.abs(mean)
    classes = ((context == 0) | (context == 1)).reshape(-1, context.shape[-1]).all(0)  # so that 0 and 1 stay
    return Scale(np.where(classes, 0.0, mean), np.where(varies & ~classes, std, 1.0))


class Examined:
    """Rows, options and a model, or several, as the checks examine them. Options that name columns or steps which the data do
    not have are refused."""

    def __init__(self, split: Split, options: Options, model: Shared | ModelView):
        self.split, self.options, self.model, table = split, options, model, split.train
        self.table, self.labels, self.eps = table, table.labels, np.finfo(table.dtype).eps
        self.as_is = model.curved.copy()
        self.as_is[[table.place(column, "as_is has") for column in options.as_is]] = True
        self.few = some_of(table.x)
        self.steps = steps_of(options.dequantize, table, self.few, model.coded)
        self.noise = list(noise_added(self.steps, model.leading, self.few))
        self.widths = np.max([np.zeros(len(table.labels)), *(noise.widths for noise in self.noise)], 0)
        self.judged = ~self.as_is & (self.widths == 0)
        self.free = ~self.as_is & ~(model.noisy | (self.widths > 0))  # columns that are modelled as recorded
        self.table_columns = np.flatnonzero(~self.as_is).tolist() if table.x.ndim == 2 else []  # empty for images

    @cached_property
    def scale(self) -> Scale:
        """Mean and standard deviation of columns with their noise."""
        mean, std = moments(self.table.x, self.table.weights)
        return Scale(mean, np.hypot(std, self.widths / 12**0.5))

    @cached_property
    def ties(self) -> dict[int, tuple[str, float | None]]:
        """Texts on columns, or channels, whose values repeat, and the step to spread them by."""
        values = sampled(self.few)
        texts = {j: ties(values[:, j], self.table.offset(j)) for j in np.flatnonzero(self.free).tolist()}
        return {j: (text, step) for j, (text, step) in texts.items() if text}

    @cached_property
    def outliers(self) -> dict[int, tuple[str, float, float, bool]]:
        """Columns with values too far out: the farthest value, its distance in interquartile ranges, this range, and whether
        few values are so far out. Held-out rows count, as such a value would decide the score."""
        outliers = dict[int, tuple[str, float, float, bool]]()
        tables = self.split.tables if len(self.split.others) else self.split.tables[:1]
        places = np.concatenate([table.numbers for table in tables])
        for j in self.table_columns:
            column = np.concatenate([table.x[:, j] for table in tables])
            low, middle, high = np.quantile(self.few[:, j], [0.25, 0.5, 0.75])
            spread, distances = float(high - low), np.abs(column - middle)
            row = int(distances.argmax())
            if spread and distances[row] > FAR * spread:
                value = f"{column[row] + self.table.offset(j):.9g} in row {places[row]}"
                few = bool((distances > FAR * spread).mean() < ATOM)
                outliers[j] = value, float(distances[row] / spread), spread, few
        return outliers

    def warn(self, message: str, texts: Mapping[int, str], between: str = "; ") -> None:
        """Warn of columns, if there are any, with a text on each; they replace the first * of the message."""
        if texts:
            listed = between.join(f"{self.labels[j]} {text}".rstrip() for j, text in texts.items())
            warn_of_data("fit: " + message.replace("*", listed, 1))


def outliers(data: Examined) -> None:
    """Refuse a value so far out that it leaves no digits to the others."""
    for j, (value, _, spread, few) in data.outliers.items():
        if data.options.standardize is not False and few and spread < 64 * data.eps * data.scale.std[j]:
            raise FlowsError(
                f"fit: {data.labels[j]} of data is {value}, so far from all others that {data.table.dtype.name} "
                "cannot distinguish these once the column is standardised. Drop or clip that row, or transform the column"
            )


def rounded(data: Examined) -> None:
    """Warn of columns, or channels, that were rounded, with the steps to dequantise them by."""
    steps, names = {j: step for j, (_, step) in data.ties.items() if step is not None}, data.table.names
    argument = "{" + ", ".join(f"{names[j] if names else j!r}: {step:.9g}" for j, step in steps.items()) + "}"
    remedy, support = " to spread each over the width of its step, or model these columns separately", ""
    if not data.table_columns:
        if len(steps) == len(data.labels) and len(set(steps.values())) == 1:
            argument, images = f"{steps[0]:.9g}", [table.x for table in data.split.tables]
            low, high = min(*(float(x.min()) for x in images), 0), max(float(x.max()) for x in images)
            support = f", and support=({low:.6g}, {high:.6g}), the least and the largest possible value, here of the data"
        remedy = f", the step of the pixels{support * (data.options.support is None)}; or a model with flows.Dequantize first"
    unbounded = "A density is unbounded on values that repeat, so a better fit may not be a better model"
    steps_of_kinds = "Give each its step, as in flows.conditionals.Number(step=0.1), so that its masses are exact"
    remedy = steps_of_kinds if data.model.prepares else f"Give dequantize={argument}{remedy}"
    data.warn(f"*. {unbounded}. {remedy}", {j: data.ties[j][0] for j in steps})


def _clusters(column: np.ndarray) -> int:
    """Return the number of clusters of a column, pieces that leave nearly all of its range empty; 0 without clusters."""
    values = np.sort(column)
    width = values[-1] - values[0]
    cuts = np.flatnonzero(np.diff(values) > GAP * width) + 1
    pieces = [piece for piece in np.split(values, cuts) if len(piece) >= max(CROWD, ATOM * len(values))]
    rows, filled = sum(map(len, pieces)), sum(float(piece[-1] - piece[0]) for piece in pieces)
    narrow = width > 0 and 2 <= len(pieces) <= CLUSTERS and filled < (1 - EMPTY) * width
    return len(pieces) if narrow and rows > (1 - ATOM) * len(values) else 0


def clustered(data: Examined) -> None:
    if data.model.clusters or any(step is not None for _, step in data.ties.values()):
        return
    pieces = {j: _clusters(data.few[:, j]) for j in data.table_columns if data.free[j]}
    data.warn(
        "clusters that are narrow next to the room between them: * of data. A flow draws some of its samples there (see "
        "docs/guide/topology.md): give it a mixture as base, Flow(NSF(), GMM(num_components=3)), and compare by flows.select",
        {j: f"({number} of them)" for j, number in pieces.items() if number},
        between=", ",
    )


def atoms(data: Examined) -> None:
    data.warn(
        "* of data, and continuous elsewhere. A density is unbounded on a value that repeats, so a better fit may not be a "
        "better model; dequantize= does not help, as it would spread the whole column. Fit the other rows alone, and the share "
        "of that value separately, as a number or as a label in the context",
        {j: text for j, (text, step) in data.ties.items() if step is None and data.table_columns},
    )


def tails(data: Examined) -> None:
    left = "Most of such a column is almost one point to the model: take logarithms or arcsinh"
    left = "fit takes arcsinh of columns with such tails" if data.options.standardize is True else left
    data.warn(
        f"values farther than {FAR:g} interquartile ranges from the median: *. {left}; drop or clip values that are errors",
        {j: f"({value}, {distance:.3g} of these ranges)" for j, (value, distance, *_) in data.outliers.items()},
    )


def offsets(data: Examined) -> None:
    (mean, std), dtype = data.scale, data.table.dtype.name
    data.warn(
        f"* of data lies so far from 0 that {dtype} keeps few digits of how it varies. Subtract an offset, in the data and "
        "wherever log_pdf is called later",
        {j: "" for j in data.table_columns if abs(mean[j]) * data.eps > COARSE * std[j]},
        between=", ",
    )


def _of_unit_length(x: np.ndarray) -> bool:
    return bool((np.abs(np.square(np.clip(np.asarray(x, float), -2, 2)).sum(1) - 1) <= OFF_SPHERE).all())


def unit_vectors(data: Examined) -> None:
    """Warn of columns whose squares sum to 1 in all rows: two of them, wherever they are, or several side by side."""
    columns = np.flatnonzero(data.free) if data.table_columns else np.zeros(0, int)
    if len(columns) > MOST_COMBINED:
        return
    first = np.square(np.clip(np.asarray(data.table.x[0, columns], float), -2, 2))  # as none of a unit vector is above 1
    totals, left = np.concatenate([[0.0], np.cumsum(first)]), set(range(len(columns)))
    for a in range(len(columns) - 1):
        pairs = [(a, a + 1 + b) for b in np.flatnonzero(np.abs(first[a] + first[a + 1 :] - 1) <= OFF_SPHERE).tolist()]
        ends = a + 3 + np.flatnonzero(np.abs(totals[a + 3 :] - totals[a] - 1) <= OFF_SPHERE)
        for block in [*pairs, *(tuple(range(a, end)) for end in ends.tolist())]:
            if left.issuperset(block) and _of_unit_length(data.table.x[:, columns[list(block)]]):
                left -= set(block)
                which = ", ".join(data.labels[columns[i]].removeprefix("column ") for i in block)
                remedy = "their angle, arctan2 of the two, behind circular transformers or as tables.Circular(2 * np.pi)"
                if len(block) > 2:
                    remedy = "flows.Flow(flows.SphereFlow(), flows.SphereUniform()), for these columns alone"
                warn_of_data(
                    f"fit: the squares of columns {which} of data sum to 1 in all rows, so these are unit vectors, which have "
                    f"no density in {len(block)} columns, and a better fit may not be a better model. Give {remedy}"
                )


# In the order of their warnings.
def few_held_out(data: Examined) -> None:
    rows = len(data.split.held_out)
    if data.options.folds == 1 and data.options.validation is None and rows < LEAST_HELD_OUT:
        warn_of_data(
            f"fit: {rows} row is held out, too few to tell when to stop, or how good the model is. Leave folds at its default, "
            "or give validation="
        )


CHECKS = outliers, rounded, clustered, atoms, tails, offsets, unit_vectors, few_held_out
