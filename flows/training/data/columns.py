"""Checks of the data before the first step: what is wrong is refused, what is odd is warned of, each with what to do."""

from typing import NamedTuple

import numpy as np

from flows.core import FlowsError, Region, warn_user
from flows.training.data.box import ends_of
from flows.training.data.copies import groups_of
from flows.training.data.dependence import COARSE, check_dependence
from flows.training.data.gaussian import Scale, moments
from flows.training.data.rounding import (
    ATOM,
    UNBOUNDED,
    check_pixels,
    check_rounded,
    rows_at_noise,
    scale_before,
    some_of,
    steps_of,
    ties,
)
from flows.training.data.table import DataWarning, Split, Table
from flows.training.model_view import Layers, ModelView
from flows.training.options import Options

CLUSTERS = 20  # pieces of a column, at most, that are taken for clusters
EMPTY = 0.95  # of the range of a column: what is empty between its clusters, at least
GAP = 0.01  # of the range of a column: room between two values that is wider is a gap
CROWD = 20  # rows of a cluster, at least
FAR = 100.0  # interquartile ranges from the median: normal data reach 4, lognormal ones 60
TAILS_LEFT = "The bulk of such a column is a point to the model: take logarithms or arcsinh"


class Shared(NamedTuple):
    """What several models have in common, as the checks of columns ask a `ModelView`: columns are angles, codes or noisy where
    they are so to all."""

    curved: np.ndarray
    coded: np.ndarray
    noisy: np.ndarray
    leading: Layers = ()
    clusters: bool = False


class ColumnFacts(NamedTuple):
    """What is known of columns, or of channels of images, before they are standardised.

    Attributes:
        as_is: whether a column stays as it is.
        judged: whether it has to vary.
        curved: whether it is an angle, a coordinate of a unit vector, or a code; it then stays as it is.
        steps: by which columns are dequantised, 0 for one that is continuous; None where none is.
        ends: of the support that was given.
        of_context: the scale of the context; None where it is not standardised.
    """

    as_is: np.ndarray
    judged: np.ndarray
    curved: np.ndarray
    steps: np.ndarray | None
    ends: Region | None
    of_context: Scale | None

    def left_curved(self, curved: np.ndarray) -> "ColumnFacts":
        """The same for a model to which these columns are angles, coordinates of unit vectors, or codes."""
        return self._replace(as_is=self.as_is | curved, judged=self.judged & ~curved, curved=curved)


def check_data(split: Split, options: Options, model: Shared | ModelView) -> ColumnFacts:
    """Check the training rows and their context, for a model or several, and measure the context's columns."""
    table, columns = split.train, len(split.train.labels)
    x, context, weights = table.rows[:3]
    check_copies(split)
    as_is = model.curved.copy()
    as_is[[table.place(column, "as_is has") for column in options.as_is]] = True
    steps = steps_of(options.dequantize, table, model.coded)
    widths = np.zeros(columns) if steps is None else steps  # of the noise that columns will have, in their own units
    few = some_of(x)
    check_rounded(few, widths, table.labels)
    for own_steps, reached, before in rows_at_noise(model.leading, few):
        noise_widths = np.broadcast_to(own_steps, widths.shape)
        check_rounded(reached, noise_widths, table.labels, before)
        widths = np.maximum(widths, noise_widths * scale_before(few, reached) if before else noise_widths)
    scale = moments(x, weights)
    scale = scale._replace(std=np.hypot(scale.std, widths / 12**0.5))
    judged = ~as_is & (widths == 0)
    check_spread(table, scale, judged)
    noisy = model.noisy | (widths > 0)
    if x.ndim == 2:
        check_columns(split, scale, as_is, noisy, options.standardize, model.clusters)
    else:
        check_pixels(split, ~as_is & ~noisy, options)
    of_context = None
    if context is not None and options.standardize_context:
        of_context = scale_of_context(context, weights)
    return ColumnFacts(as_is, judged, model.curved, steps, ends_of(options.support, columns, table.names), of_context)


def check_copies(split: Split) -> None:
    """Warn of rows of data that are copies of others, and of rows of validation that are among data."""
    rows, validation = split.whole, split.validation
    if split.groups is not None:
        _, first, of_each = np.unique(split.groups, return_index=True, return_inverse=True)
        copies = np.flatnonzero(first[of_each.ravel()] != np.arange(len(of_each)))
        if len(copies):
            warn_user(
                f"fit: {len(copies)} of {len(of_each)} rows of data are copies of others: row {copies[0]}, say, of row "
                f"{first[of_each.ravel()[copies[0]]]}. Copies are held out together, as a row that is trained on tells nothing "
                "of others. Drop them, or keep one of each, with weights= for how often it is there",
                DataWarning,
            )
    if validation is not None and split.stream is None:
        groups = groups_of((rows.x, rows.context), (validation.x, validation.context))
        if groups is None:
            return
        of_data, of_validation = groups[: len(rows.x)], groups[len(rows.x) :]
        among = np.flatnonzero(np.isin(of_validation, of_data))
        if len(among):
            row = int(np.argmax(of_data == of_validation[among[0]]))
            warn_user(
                f"fit: {len(among)} of {len(of_validation)} rows of validation are among data: row {among[0]}, say, is row "
                f"{row} of data. Their score is that of rows trained on, and stops no fit in time. Leave them out of data, or "
                "give a share as validation",
                DataWarning,
            )


def check_spread(table: Table, scale: Scale, judged: np.ndarray, which: str = "") -> None:
    """Refuse a column that never changes, or by less than the working dtype can tell."""
    flat, (mean, std), dtype = table.x.reshape(-1, len(table.labels)), scale, table.dtype
    for j in map(int, np.flatnonzero(judged)):
        what = table.labels[j]
        if flat[0, j] == flat[:, j].max() == flat[:, j].min():
            raise FlowsError(
                f"fit: {what} of data is constant ({flat[0, j]!s} in all {len(table)} training rows{which}), so it has no "
                "density. Leave it out, or add noise the size of its recorded step"
            )
        if not np.isfinite(std[j]):
            raise FlowsError(f"fit: {what} of data varies by more than {dtype.name} can hold. Rescale it")
        if std[j] < max(8 * np.finfo(dtype).eps * abs(mean[j]), np.finfo(dtype).tiny):
            raise FlowsError(
                f"fit: {what} of data is {mean[j]:.9g} +- {std[j]:.3g}, values that {dtype.name} cannot tell apart. "
                "Subtract an offset first and rescale, or give float64 under jax.config.update('jax_enable_x64', True)"
            )


def scale_of_context(context: np.ndarray, weights: np.ndarray | None = None) -> Scale:
    """The scale of the context, of which a column may be constant, or have zeros and ones alone: it then stays as it is."""
    mean, std = moments(context, weights)
    if not np.isfinite(std).all():
        raise FlowsError(
            f"fit: column {int(np.argmin(np.isfinite(std)))} of context varies by more than can be held. Rescale it"
        )
    varies = std > 8 * np.finfo(np.float32).eps * np.abs(mean)
    classes = ((context == 0) | (context == 1)).reshape(-1, context.shape[-1]).all(0)  # so that zeros are no class
    return Scale(np.where(classes, 0.0, mean), np.where(varies & ~classes, std, 1.0))


def check_columns(
    split: Split, scale: Scale, as_is: np.ndarray, noisy: np.ndarray, standardize: bool | str, clusters: bool = False
) -> None:
    """Warn of odd columns of a table, and refuse those that have no density, or have none once they are standardised."""
    table, x, std = split.train, split.train.x, scale.std
    dtype, names = table.dtype, table.names
    everywhere, places = x, table.numbers
    if len(split.others):  # an outlier may be in the share that is held out, whose score it would decide
        everywhere, places = np.concatenate([x, split.held_out.x]), np.concatenate([places, split.others])
    standardized, transformed = standardize is not False, standardize is True
    said: dict[str, list[str]] = {}
    sample = some_of(x)
    check_dependence(table, scale, np.flatnonzero(~as_is & ~noisy))
    steps_by_name: dict[str, float] = {}
    for j in map(int, np.flatnonzero(~as_is)):
        column, label = sample[:, j], table.labels[j]
        far = _farthest(column, everywhere[:, j])
        if far is not None:
            row, times, spread, rare = far
            value = f"{everywhere[row, j] + table.offset(j):.9g} in row {places[row]}"
            if standardized and rare and spread < 64 * np.finfo(dtype).eps * std[j]:
                raise FlowsError(
                    f"fit: {label} of data is {value}, so far from all others that {dtype.name} "
                    "cannot tell those apart once the column is standardised. Drop or clip that row, or transform the column"
                )
            said.setdefault("tails", []).append(f"{label} ({value}, {times:.3g} of these ranges)")
        if abs(scale.mean[j]) * np.finfo(dtype).eps > COARSE * std[j]:
            said.setdefault("offset", []).append(label)
        pieces = 0 if noisy[j] or clusters else _clusters(column)
        if pieces:
            said.setdefault("clusters", []).append(f"{label} ({pieces} of them)")
        text, step = ("", None) if noisy[j] else ties(column, table.offset(j))
        if step is not None:
            said.setdefault("ties", []).append(f"{label} {text}")
            key = names[j] if names else str(j)
            steps_by_name[repr(key) if names else key] = step
        elif text:
            said.setdefault("atoms", []).append(f"{label} {text}")
    if "ties" in said:
        dictionary = "{" + ", ".join(f"{key}: {step:.9g}" for key, step in steps_by_name.items()) + "}"
        warn_user(
            f"fit: {'; '.join(said['ties'])}. {UNBOUNDED}. Give dequantize={dictionary} to spread each over the width of its "
            "step, or model these columns apart",
            DataWarning,
        )
    if "clusters" in said and "ties" not in said:
        warn_user(
            f"fit: clusters that are narrow beside the room between them: {', '.join(said['clusters'])} of data. A flow draws "
            "bridges between them, and its samples lie on these too; give it a mixture for its base, "
            "Flow(NSF(), GMM(num_components=3)), and compare by flows.select",
            DataWarning,
        )
    if "atoms" in said:
        warn_user(
            f"fit: {'; '.join(said['atoms'])} of data, and continuous elsewhere. A density is unbounded on a value that "
            "repeats, so a better fit may be no better model; dequantize= is no help, as it would spread the whole column. Fit "
            "the rows beside that value alone, and its share apart, as a number or as a label in the context",
            DataWarning,
        )
    if "tails" in said:
        what = "fit takes arcsinh of columns with such tails" if transformed else TAILS_LEFT
        warn_user(
            f"fit: values farther than {FAR:g} interquartile ranges from the median: {'; '.join(said['tails'])}. {what}; drop "
            "or clip what is an error",
            DataWarning,
        )
    if "offset" in said:
        warn_user(
            f"fit: {', '.join(said['offset'])} of data lies so far from 0 that {dtype.name} keeps few digits of how it varies. "
            "Subtract an offset, in the data and wherever log_pdf is asked later",
            DataWarning,
        )


def _clusters(column: np.ndarray) -> int:
    """In how many pieces the values of a column fall that leave nearly all of its range empty; 0 where they do not."""
    values = np.sort(column)
    width = values[-1] - values[0]
    cuts = np.flatnonzero(np.diff(values) > GAP * width) + 1
    pieces = [piece for piece in np.split(values, cuts) if len(piece) >= max(CROWD, ATOM * len(values))]
    rows, filled = sum(map(len, pieces)), sum(float(piece[-1] - piece[0]) for piece in pieces)
    narrow = width > 0 and 2 <= len(pieces) <= CLUSTERS and filled < (1 - EMPTY) * width
    return len(pieces) if narrow and rows > (1 - ATOM) * len(values) else 0


def _farthest(sample: np.ndarray, column: np.ndarray) -> tuple[int, float, float, bool] | None:
    """The row that is too far out, by how many interquartile ranges, that range, and whether few rows are so far out."""
    low, middle, high = np.quantile(sample, [0.25, 0.5, 0.75])
    spread = float(high - low)
    distance = np.abs(column - middle)
    row = int(distance.argmax())
    if not spread or distance[row] <= FAR * spread:
        return None
    return row, float(distance[row] / spread), spread, bool((distance > FAR * spread).mean() < ATOM)
