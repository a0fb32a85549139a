"""A column given another: the median and the central 90% of a model against what is given, next to rows."""

from collections.abc import Callable
from typing import Any

import numpy as np

from flows.results.columns import Column
from flows.results.pictures.axes import limits, set_ticks, spread
from flows.results.pictures.comparison import Compared
from flows.results.pictures.style import colours, explained, styled

SHARES = (0.05, 0.5, 0.95)
GRID = 100  # places of the context at which these are found
FEW = 40  # distinct contexts, each of which is a place


def band(condition: Column, column: Column, compared: Compared, quantiles: Callable[[np.ndarray], Any]) -> Any:
    """The figure.

    Args:
        condition, column: what is given, and what depends on it.
        compared: rows (m, 1), or None, and their contexts (m, 1), in units of the axes.
        quantiles: a function of contexts (k,) that returns the quantiles at `SHARES`, (k, 3).
    """
    at = np.asarray(compared.context, float)[:, 0]
    rows = None if compared.rows is None else compared.rows[:, 0]
    points, distinct = np.random.default_rng(0), np.unique(at)
    ends = limits(condition, at, at)
    discrete = bool(condition.bars) or len(distinct) <= FEW
    places = distinct if discrete else np.linspace(max(ends[0], distinct[0]), min(ends[1], distinct[-1]), GRID)
    low, middle, high = np.asarray(quantiles(places), float).T
    with styled() as plt:
        figure, axes = plt.subplots(figsize=(6.4, 4.2))
        shown, handles, notes = colours(), list[Any](), list(compared.notes)
        if rows is not None:
            drawn = np.stack([spread(condition, at, points), spread(column, rows, points)], 1)
            handles.append(axes.scatter(*drawn.T, s=10, color=shown.rows, alpha=0.6, linewidths=0, rasterized=True, zorder=2.5))
            handles[-1].set_label(compared.of_rows)
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
