"""Margins and pairs of columns, draws beside rows: a histogram of each column, and the points of each two; and of a fit to a
density its importance weights.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.results.columns import MANY, Column
from flows.results.frames import shortened_name
from flows.results.pictures.columns import COMMONEST, Compared, commonest, edges, limits, spread
from flows.results.pictures.style import Colours, colours, dated, explained, styled

WIDTHS = {2: 2.7, 3: 2.2, 4: 1.9}  # of a panel by their number across, in inches
OF_MORE = 1.65
INK = 6_000  # of all points of rows, or of draws, in square points, as far as each is
SIZES = 3, 14  # of one point, in square points
SPIKE = 0.5  # of all rows in one of many bins, from which on its height is told on a logarithmic scale
FEW = 0.5  # of the draws: so few rows lie above them
SHORT = 14  # characters of the name of a category
LONG = 22  # characters of the name of a column
NARROW = 1e-4  # of its values, an axis whose ticks would be alike to many digits: they are told from an offset
NAMED = 12  # categories on an axis that are named
WEIGHT_BINS = 40
LEAST_ROOM = 0.05  # nats on each side of the weights, as rounding alone is no shape
TAIL = 0.002  # of the weights, beyond each end of the axis


def pairs(columns: Sequence[Column], compared: Compared, weights: Any = None) -> Any:
    """The figure.

    Args:
        columns: those that are drawn.
        compared: rows and draws of these columns alone, (rows, columns).
        weights: a function that draws on Axes what importance weights say; None where there are none.
    """
    count, chance = len(columns), np.random.default_rng(0)
    columns, compared = with_fewer_categories(columns, compared)
    rows, draws = compared.rows, compared.draws
    ends = [limits(column, None if rows is None else rows[:, j], draws[:, j]) for j, column in enumerate(columns)]

    def placed(values: np.ndarray) -> np.ndarray:
        return np.stack([spread(each, values[:, j], chance) for j, each in enumerate(columns)], 1)

    points_of_rows, points_of_draws = None if rows is None else placed(rows), placed(draws)
    with styled() as plt:
        shown, handles = colours(), list[Any]()
        figure, panels, of_weights = laid_out(plt, count, weights is not None)
        for i, column in enumerate(columns):
            for j in range(i):
                axes, pair = panels[i, j], [j, i]
                scatter(
                    axes, None if points_of_rows is None else points_of_rows[:, pair], points_of_draws[:, pair], shown, chance
                )
                axes.set(xlim=ends[j], ylim=ends[i])
                told(axes.yaxis, column, j == 0)
                told(axes.xaxis, columns[j], i == count - 1)
            handles = margin(panels[i, i], column, ends[i], None if rows is None else rows[:, i], draws[:, i], shown)
            told(panels[i, i].xaxis, column, i == count - 1)
        if weights is not None:
            weights(of_weights, shown)
        figure.align_labels()
        names = [compared.of_rows] * (rows is not None) + [compared.of_draws]
        for handle, name in zip(handles, names, strict=True):
            handle.set_label(name)
        explained(figure, handles, [*compared.notes, *beyond(ends, compared)], room=count > 1 and weights is None)
    return figure


def with_fewer_categories(columns: Sequence[Column], compared: Compared) -> tuple[list[Column], Compared]:
    """Keep of a column of many categories the commonest alone, which is remarked."""
    shown = list(columns)
    for j, column in enumerate(columns):
        if len(column.bars) > MANY:
            shown[j], placed = commonest(column, (compared.draws if compared.rows is None else compared.rows)[:, j])
            of_j = np.arange(len(columns)) == j
            rows, draws = (
                None if each is None else np.where(of_j, placed(each[:, [j]]), each) for each in (compared.rows, compared.draws)
            )
            note = f"{shortened_name(column.name, LONG)}: the {COMMONEST} commonest of {len(column.bars)} categories"
            compared = compared._replace(rows=rows, draws=draws, notes=[*compared.notes, note])
    return shown, compared


def laid_out(plt: Any, count: int, with_weights: bool) -> tuple[Any, dict[tuple[int, int], Any], Any]:
    """A figure, its panels by row and column, on and below the diagonal, and one for weights in the corner that is left."""
    if count == 1:
        figure, row = plt.subplots(1, 1 + with_weights, figsize=(6.2 + 1.6 * with_weights, 3.8), squeeze=False)
        return figure, {(0, 0): row[0, 0]}, row[0, -1]
    side, half = count * WIDTHS.get(count, OF_MORE), count // 2
    figure = plt.figure(figsize=(side + 0.6, side + 0.7))
    grid = figure.add_gridspec(count, count)
    panels = {(i, j): figure.add_subplot(grid[i, j]) for i in range(count) for j in range(i + 1)}
    return figure, panels, figure.add_subplot(grid[:half, count - half :]) if with_weights else None


def margin(
    axes: Any, column: Column, ends: tuple[float, float], rows: np.ndarray | None, draws: np.ndarray, shown: Colours
) -> list[Any]:
    """The densities of rows and draws in the same bins, of categories their shares; what stands for each in a legend."""
    bins, handles = edges(column, ends, rows, draws), list[Any]()
    wide, heights = np.diff(bins), list[np.ndarray]()
    for values, colour, filled in ((rows, shown.rows, True), (draws, shown.draws, rows is None)):
        if values is None:
            continue
        heights.append(np.histogram(values, bins)[0] / (len(values) * wide))
        of_draws = {"edgecolor": colour, "linewidth": 1.6}
        looks = {"facecolor": (colour, 0.5 if filled else 0.0), **(of_draws if values is draws else {})}
        if column.bars:
            thick = 0.8 if values is rows else 0.56
            handles.append(axes.bar((bins[1:] + bins[:-1]) / 2, heights[-1], thick, **looks))
        else:
            handles.append(axes.stairs(heights[-1], bins, fill=True, **looks))
    axes.set_xlim(ends)
    most = heights[0] * wide
    if not column.bars and len(wide) > 3 and most.max() > SPIKE * most.sum():
        axes.set_yscale("log")
        axes.set_ylim(0.5 / len(draws) / wide[0], 3 * max(each.max() for each in heights))
        axes.text(0.98, 0.97, "log scale", transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.set_yticks([])
    axes.minorticks_off()
    axes.spines["left"].set_visible(False)
    return handles


def scatter(axes: Any, rows: np.ndarray | None, draws: np.ndarray, shown: Colours, rng: np.random.Generator) -> Any:
    """Points of rows and draws in one random order, so that neither hide the others; few rows lie above."""
    parts = [(shown.draws, draws)] if rows is None else [(shown.draws, draws), (shown.rows, rows)]
    points = np.concatenate([values for _, values in parts])
    counts = np.array([len(values) for _, values in parts])
    colour, size = (np.repeat(each, counts) for each in ([each for each, _ in parts], np.clip(INK / counts, *SIZES)))
    few = rows is not None and len(rows) < FEW * len(draws)
    order = np.arange(len(points)) if few else rng.permutation(len(points))
    return axes.scatter(*points[order].T, s=size[order], c=colour[order], alpha=0.6, linewidths=0, rasterized=True)


def told(axis: Any, column: Column, named: bool) -> None:
    """Ticks of a column, as few as there is room for; and its name, at the edge of the figure."""
    if column.bars:
        step = max(1, -(-len(column.bars) // NAMED))
        codes = range(0, len(column.bars), step)
        shown = [shortened_name(name, SHORT) for name in column.bars[::step]]
        axis.set_ticks(codes, shown if named else [""] * len(shown))
        if axis.axis_name == "x" and named and sum(map(len, shown)) > SHORT:
            axis.set_tick_params(rotation=90)
    elif column.dates:
        dated(axis, column.zone)
    else:
        axis.get_major_locator().set_params(nbins=4, integer=column.step == 1)
        low, high = axis.get_view_interval()
        axis.get_major_formatter().set_useOffset(bool(high - low < NARROW * max(abs(low), abs(high))))
    axis.set_tick_params(**{"labelbottom" if axis.axis_name == "x" else "labelleft": named})
    axis.get_offset_text().set_visible(named)
    if named:
        axis.set_label_text(shortened_name(column.name, LONG), **({"fontsize": 8.5} if len(column.name) > SHORT else {}))


def beyond(ends: Sequence[tuple[float, float]], compared: Compared) -> list[str]:
    """How many points have no place in the picture."""
    low, high = np.array(ends).T
    said = []
    for word, values in (("rows", compared.rows), ("draws", compared.draws)):
        outside = 0 if values is None else int(((values < low) | (values > high)).any(1).sum())
        said += [f"{outside:,} of {len(values):,} {word}"] if outside else []
    return [f"beyond the axes: {', '.join(said)}"] if said else []


def importance(axes: Any, log_weights: np.ndarray, diagnostics: Any, shown: Colours) -> None:
    """A histogram of log w - log Z in nats, 0 where model and target agree, with what is to be read off it."""
    finite = log_weights[np.isfinite(log_weights)] - diagnostics.log_normalizer.value
    low, high = np.quantile(finite, (TAIL, 1 - TAIL))
    room = max(0.1 * (high - low), LEAST_ROOM)
    low, high = min(low, 0.0) - room, max(float(finite.max()), 0.0) + room  # the largest are what spoils estimates
    bins = np.linspace(low, high, WEIGHT_BINS + 1)
    heights = np.histogram(finite, bins)[0] / (len(log_weights) * np.diff(bins))
    axes.set_yscale("log")  # as few large weights are what matters
    axes.stairs(heights, bins, fill=True, color=shown.third, alpha=0.6)
    axes.axvline(0.0, color=shown.third, linewidth=1.0, linestyle="--")
    axes.set(xlim=(low, high), ylim=(0.5 / len(log_weights) / (bins[1] - bins[0]), 2 * heights.max()), yticks=[])
    axes.set_xlabel("log w - log Z, nats")
    axes.text(0.98, 0.97, "log scale", transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.minorticks_off()
    axes.spines["left"].set_visible(False)
    axes.get_xaxis().get_major_locator().set_params(nbins=4)
    axes.set_title(
        f"importance weights, Pareto k {diagnostics.pareto_k:.2f}\neffective sample size "
        f"{diagnostics.effective_sample_size:.0%}",
        fontsize=9,
    )
