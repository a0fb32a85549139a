"""Pictures of draws next to rows: both as arrays; a histogram of each column, and the points of each pair; for a column given
another, the median and the central 90% of a model; and where they are images, their sheets.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError, Shape
from flows.results.columns import MANY, Column
from flows.results.frames import shortened_name
from flows.results.pictures.axes import LONG, Colours, colours, edges, explained, limits, set_heights, set_ticks, spread, styled

WIDTHS = {2: 2.7, 3: 2.2, 4: 1.9}  # of a panel by their number across, in inches
NARROWEST = 1.65
INK = 6_000  # of all points of rows, or of draws, in square points, within the sizes of points
SIZES = 3, 14  # of one point, in square points
SPIKE = 0.5  # share of rows in one of many bins, above which heights have a logarithmic scale
FEW = 0.5  # of the number of draws, below which rows lie above them
SHARES = (0.05, 0.5, 0.95)
GRID = 100  # places of the context at which these are computed
PLACES = 40  # distinct contexts, up to which each is a place
COMMONEST = 11  # categories that are drawn, next to all others together
# sheets
ACROSS = 6  # images in a line of a sheet
MOST = ACROSS * ACROSS  # in a sheet
SIDE = 3.6  # of a sheet, in inches
TALLEST = 9.0  # of a sheet, in inches
GAP = 0.08  # between images, of their width


class Compared(NamedTuple):
    """Draws next to rows.

    Attributes:
        rows: (m, *event), at most as many as draws are asked for; None where there are none.
        draws: (n, *event).
        rows_label, draws_label: their labels in a legend.
        notes: remarks below the picture.
        context: (m, *context), for the rows, or (*context,) for all draws; None without a context.
    """

    rows: Any
    draws: Any
    rows_label: str
    draws_label: str
    notes: list[str]
    context: Any = None

    def of(self, places: list[int]) -> "Compared":
        """Return these columns of vectors alone."""
        return self._replace(rows=None if self.rows is None else self.rows[:, places], draws=self.draws[:, places])


def some(rng: np.random.Generator, n: int, *arrays: Any) -> list[Any]:
    """Return the same rows of each array, at most n, in the order they were in."""
    count = len(next(array for array in arrays if array is not None))
    chosen = np.sort(rng.permutation(count)[:n])
    return [None if array is None else array[chosen] for array in arrays]


def check_finite(rows: np.ndarray, what: str) -> None:
    """Refuse rows, or contexts, that are not finite."""
    bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(1))
    if len(bad):
        raise FlowsError(
            f"plot: {len(bad)} of {len(rows)} {what} have NaN or inf, the first is row {bad[0]}; drop or fill them"
        )


def finite_of(draws: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return finite draws, and a remark on the others."""
    usable = np.isfinite(draws.reshape(len(draws), -1)).all(1)
    if usable.all():
        return draws, []
    if not usable.any():
        raise FlowsError(f"plot: none of {len(draws)} draws is finite; see result.verify(rows) for where the model fails")
    return draws[usable], [f"{int((~usable).sum()):,} draws are not finite"]


def pairs(columns: Sequence[Column], compared: Compared, weights: Any = None) -> Any:
    """Draw the figure of columns.

    Args:
        columns: the columns to draw.
        compared: rows and draws of these columns alone, (rows, columns).
        weights: a function that draws importance weights on Axes; None without weights.
    """
    count, chance = len(columns), np.random.default_rng(0)
    columns, compared = with_fewer_categories(columns, compared)
    rows, draws = compared.rows, compared.draws
    rows_ = [None] * count if rows is None else list(rows.T)
    ends = [limits(*triple) for triple in zip(columns, rows_, draws.T, strict=True)]

    def placed(values: np.ndarray) -> np.ndarray:
        return np.stack([spread(column, values[:, j], chance) for j, column in enumerate(columns)], 1)

    points = ([] if rows is None else [placed(rows)]) + [placed(draws)]
    with styled() as plt:
        shown, handles = colours(), list[Any]()
        figure, panels, corner = laid_out(plt, count, weights is not None)
        for i, column in enumerate(columns):
            for j in range(i):
                axes = panels[i, j]
                scatter(axes, [places[:, [j, i]] for places in points], shown, chance)
                axes.set(xlim=ends[j], ylim=ends[i])
                set_ticks(axes.yaxis, column, j == 0)
                set_ticks(axes.xaxis, columns[j], i == count - 1)
            handles = margin(panels[i, i], column, ends[i], rows_[i], draws[:, i], shown)
            set_ticks(panels[i, i].xaxis, column, i == count - 1)
        if weights is not None:
            weights(corner, shown)
        figure.align_labels()
        names = [compared.rows_label] * (rows is not None) + [compared.draws_label]
        for handle, name in zip(handles, names, strict=True):
            handle.set_label(name)
        explained(figure, handles, [*compared.notes, *beyond(ends, compared)], room=count > 1 and weights is None)
    return figure


def with_fewer_categories(columns: Sequence[Column], compared: Compared) -> tuple[list[Column], Compared]:
    """Reduce columns of many categories to the commonest, with a remark."""
    shown = list(columns)
    for j, column in enumerate(columns):
        if len(column.bars) > MANY:
            shown[j], placed = commonest(column, (compared.draws if compared.rows is None else compared.rows)[:, j])
            here = np.arange(len(columns)) == j
            rows, draws = (None if x is None else np.where(here, placed(x[:, [j]]), x) for x in (compared.rows, compared.draws))
            note = f"{shortened_name(column.name, LONG)}: the {COMMONEST} commonest of {len(column.bars)} categories"
            compared = compared._replace(rows=rows, draws=draws, notes=[*compared.notes, note])
    return shown, compared


def commonest(column: Column, values: np.ndarray) -> tuple[Column, Any]:
    """Return a column of many categories with the commonest of them in these values, and all others as one; and a function from
    values to their places, which puts a value that is not a code beyond the axis."""
    count = len(column.bars)
    codes = np.arange(count)
    often = np.sort(np.argsort(-(values[:, None] == codes).sum(0), kind="stable")[:COMMONEST])
    place = np.full(count, COMMONEST)
    place[often] = np.arange(COMMONEST)

    def placed(values: np.ndarray) -> np.ndarray:
        nearest = np.clip(np.rint(values), 0, count - 1).astype(int)
        return np.where(nearest == values, place[nearest], -1)

    names = (*(column.bars[code] for code in often), "others")
    return column._replace(high=COMMONEST + 0.5, called=names), placed


def laid_out(plt: Any, count: int, with_weights: bool) -> tuple[Any, dict[tuple[int, int], Any], Any]:
    """Return a figure, its panels by row and column, on and below the diagonal, and one for weights in the free corner."""
    if count == 1:
        figure, row = plt.subplots(1, 1 + with_weights, figsize=(6.2 + 1.6 * with_weights, 3.8), squeeze=False)
        return figure, {(0, 0): row[0, 0]}, row[0, -1]
    side, half = count * WIDTHS.get(count, NARROWEST), count // 2
    figure = plt.figure(figsize=(side + 0.6, side + 0.7))
    grid = figure.add_gridspec(count, count)
    panels = {(i, j): figure.add_subplot(grid[i, j]) for i in range(count) for j in range(i + 1)}
    return figure, panels, figure.add_subplot(grid[:half, count - half :]) if with_weights else None


def margin(
    axes: Any, column: Column, ends: tuple[float, float], rows: np.ndarray | None, draws: np.ndarray, shown: Colours
) -> list[Any]:
    """Draw the densities of rows and draws in the same bins, for categories their shares; return handles for a legend."""
    bins, handles = edges(column, ends, rows, draws), list[Any]()
    wide, heights = np.diff(bins), list[np.ndarray]()
    for values, colour, filled in ((rows, shown.rows, True), (draws, shown.draws, rows is None)):
        if values is None:
            continue
        heights.append(np.histogram(values, bins)[0] / (len(values) * wide))
        outline = {"edgecolor": colour, "linewidth": 1.6}
        looks = {"facecolor": (colour, 0.5 if filled else 0.0), **(outline if values is draws else {})}
        if column.bars:
            thick = 0.8 if values is rows else 0.56
            handles.append(axes.bar((bins[1:] + bins[:-1]) / 2, heights[-1], thick, **looks))
        else:
            handles.append(axes.stairs(heights[-1], bins, fill=True, **looks))
    axes.set_xlim(ends)
    most = heights[0] * wide
    spiked = not column.bars and len(wide) > 3 and most.max() > SPIKE * most.sum()
    set_heights(axes, (0.5 / len(draws) / wide[0], 3 * np.max(heights)) if spiked else None)
    return handles


def scatter(axes: Any, parts: list[np.ndarray], shown: Colours, rng: np.random.Generator) -> Any:
    """Draw points of rows, if there are any, and of draws, in one random order, so that neither hide the others; few rows lie
    above."""
    *rows, draws = parts
    points, counts = np.concatenate([draws, *rows]), np.array([len(draws), *map(len, rows)])
    colour = np.repeat([shown.draws, shown.rows][: len(parts)], counts)
    size = np.repeat(np.clip(INK / counts, *SIZES), counts)
    few = counts[-1] < FEW * counts[0]
    order = np.arange(len(points)) if few else rng.permutation(len(points))
    return axes.scatter(*points[order].T, s=size[order], c=colour[order], alpha=0.6, linewidths=0, rasterized=True)


def beyond(ends: Sequence[tuple[float, float]], compared: Compared) -> list[str]:
    """Return a remark on points outside the picture."""
    low, high = np.array(ends).T
    said = []
    for word, values in (("rows", compared.rows), ("draws", compared.draws)):
        outside = 0 if values is None else int(((values < low) | (values > high)).any(1).sum())
        said += [f"{outside:,} of {len(values):,} {word}"] if outside else []
    return [f"beyond the axes: {', '.join(said)}"] if said else []


def band(condition: Column, column: Column, compared: Compared, quantiles: Callable[[np.ndarray], Any]) -> Any:
    """Draw the figure of one column given another.

    Args:
        condition, column: the given column, and the column that depends on it.
        compared: rows (m, 1), or None, and their contexts (m, 1), in units of the axes.
        quantiles: a function of contexts (k,) that returns the quantiles at `SHARES`, (k, 3).
    """
    at = np.asarray(compared.context, float)[:, 0]
    rows = None if compared.rows is None else compared.rows[:, 0]
    points, distinct = np.random.default_rng(0), np.unique(at)
    ends = limits(condition, at, at)
    discrete = bool(condition.bars) or len(distinct) <= PLACES
    places = distinct if discrete else np.linspace(max(ends[0], distinct[0]), min(ends[1], distinct[-1]), GRID)
    low, middle, high = np.asarray(quantiles(places), float).T
    with styled() as plt:
        figure, axes = plt.subplots(figsize=(6.4, 4.2))
        shown, handles, notes = colours(), list[Any](), list(compared.notes)
        if rows is not None:
            drawn = np.stack([spread(condition, at, points), spread(column, rows, points)], 1)
            handles.append(axes.scatter(*drawn.T, s=10, color=shown.rows, alpha=0.6, linewidths=0, rasterized=True, zorder=2.5))
            handles[-1].set_label(compared.rows_label)
            inside = (rows >= np.interp(at, places, low)) & (rows <= np.interp(at, places, high))
            notes.append(f"{inside.mean():.0%} of the rows lie in the band")
        if condition.bars or len(places) == 1:
            wide = 0.8 if condition.bars else 0.8 * (ends[1] - ends[0])
            handles.append(axes.bar(places, high - low, wide, low, facecolor=shown.draws, alpha=0.25))
            handles.append(axes.hlines(middle, places - wide / 2, places + wide / 2, color=shown.draws, linewidth=2, zorder=3))
        else:
            handles.append(axes.fill_between(places, low, high, color=shown.draws, alpha=0.25, linewidth=0))
            handles.append(axes.plot(places, middle, color=shown.draws, linewidth=2, zorder=3)[0])
        handles[-2].set_label("90% of the model")
        handles[-1].set_label("its median")
        axes.set(xlim=ends, ylim=limits(column, rows, np.concatenate([low, high])))
        set_ticks(axes.xaxis, condition, True)
        set_ticks(axes.yaxis, column, True)
        explained(figure, handles, notes)
    return figure


def check_images(event: Shape) -> None:
    """Refuse events that are neither vectors nor images."""
    if len(event) not in (2, 3) or event[2:] not in ((), (1,), (3,)):
        raise FlowsError(f"plot: the event is {event}; expected a vector, or an image of 1 or 3 channels, (height, width, 3)")


def sheets(compared: Compared) -> Any:
    """Draw the figure, in which the darkest and the lightest value of the rows, or else of the draws, are black and white."""
    parts = [(compared.rows_label, compared.rows), (compared.draws_label, compared.draws)][compared.rows is None :]
    low, high = float(parts[0][1].min()), float(parts[0][1].max())
    with styled() as plt:
        height, width = compared.draws.shape[1:3]
        figure, panels = plt.subplots(
            1, len(parts), squeeze=False, figsize=(SIDE * len(parts), min(SIDE * height / width, TALLEST) + 0.4)
        )
        figure.get_layout_engine().set(wspace=0.06)
        for axes, (name, images) in zip(panels[0], parts, strict=True):
            axes.imshow(mosaic(np.clip((images - low) / ((high - low) or 1.0), 0.0, 1.0)))
            axes.set_anchor("N")
            axes.set_title(name)
            axes.axis("off")
        explained(figure, [], compared.notes)
    return figure


def mosaic(images: np.ndarray) -> np.ndarray:
    """Put images in [0, 1], (n, height, width) or with channels, in lines: (height, width, 4), clear between them."""
    channels = images.reshape(*images.shape[:3], -1)
    n, height, width, _ = channels.shape
    gap = max(1, round(GAP * width))
    lines = -(-n // ACROSS)
    whole = np.zeros((lines * (height + gap) - gap, min(n, ACROSS) * (width + gap) - gap, 4))
    for k, image in enumerate(channels):
        top, left = (height + gap) * (k // ACROSS), (width + gap) * (k % ACROSS)
        whole[top : top + height, left : left + width, :3] = image
        whole[top : top + height, left : left + width, 3] = 1.0
    return whole
