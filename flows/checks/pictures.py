"""Pictures of checks: differences of distribution functions in their band, pairs of columns, and all of these on one sheet."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from flows.checks.verdicts import OneTest
from flows.core import FlowsError
from flows.diagnostics import ecdf_band
from flows.diagnostics.uniformity import Band
from flows.results.frames import shortened_name
from flows.results.pictures import comparison
from flows.results.pictures.axes import LONG, colours, limits, literal, set_ticks, styled

CURVES = "columns", "ranks", "latents", "coverage", "tarp", "shift"  # checks with curves; `pairs` has points
ACROSS = {  # and up is the share of rows less this share
    "columns": "share of draws below a value, %",
    "ranks": "share of a row's draws below it, %",
    "latents": "share of the base below a value, %",
    "coverage": "region that holds this share of draws, %",
    "tarp": "ball that holds this share of draws, %",
    "shift": "share of scores held out below a score, %",
}
MOST = 8  # curves in a picture, those that differ most
PAIRED = 4  # columns of a picture of pairs
POINTS = 2_000  # of a scatter plot
SURE = 0.05  # the share of right models that have a curve outside its band
GREY = "#7a7a7a"
SIZE = 4.4, 3.1  # of a picture, in inches
EDGES = {"left": 0.14, "right": 0.97, "bottom": 0.14, "top": 0.9, "hspace": 0.35}  # to look for room is twice as slow


def plot(checks: Any, name: str | None) -> Any:
    """Return the figure; arguments as in `Checks.plot`."""
    names = [name for name in checks if checks.details.tests.get(name)]
    if has_pairs(checks):
        names.append("pairs")
    if not names:
        raise FlowsError(f"plot: of these checks none has a picture: {', '.join(checks)}")
    if name is not None and (not isinstance(name, str) or name not in names):
        why = "has no picture" if isinstance(name, str) and name in checks else "was not run"
        raise FlowsError(f"plot: {name!r:.60} {why}; expected one of {', '.join(names)}, or None for all")
    if name == "pairs":
        return pairs(checks)
    drawn = [name] if name is not None else names
    across = min(len(drawn), 3)
    down = -(-len(drawn) // across)
    with styled() as plt:
        layout = {"layout": "none", "gridspec_kw": EDGES} if len(drawn) == 1 else {}
        whole = SIZE[0] * across, SIZE[1] * down + 0.3
        figure, panels = plt.subplots(down, across, squeeze=False, figsize=whole, **layout)
        for axes, check in zip(panels.flat, map(checks.__getitem__, drawn), strict=False):
            (_points if check.name == "pairs" else curves)(axes, checks, check.name)
            size = "" if check.size is None else f", {check.size:.3f}, up to {check.tolerance:g}"
            axes.set_title(f"{check.name}: {check.verdict}{size}")
        for axes in panels.flat[len(drawn) :]:
            axes.set_axis_off()
    return figure


def pairs(checks: Any) -> Any:
    """Draw up to four columns whose correlations or margins differ most."""
    places = list(checks.details.differ[:PAIRED])
    rows, draws = (in_units(checks, which, places, POINTS) for which in ("rows", "draws"))
    labels = f"{len(rows):,} rows", f"{len(draws):,} draws"
    return comparison.pairs(
        [checks.details.axes[j].column for j in places], comparison.Compared(rows, draws, *labels, _left_out(checks, places))
    )


def has_pairs(checks: Any) -> bool:
    """Return whether two columns or more were compared in pairs; codes of one column are, too."""
    return "pairs" in checks and checks["pairs"].size is not None and len(checks.details.axes) > 1


def _left_out(checks: Any, places: Sequence[int]) -> list[str]:
    count = len(checks.details.axes)
    return [f"the {len(places)} of {count} columns that differ most"] if len(places) < count else []


def in_units(checks: Any, which: str, places: Sequence[int], most: int) -> np.ndarray:
    """Return at most `most` rows, or draws, of these columns in their units, at random; always the same."""
    numbers = checks.arrays[which]
    numbers = numbers.reshape(-1, numbers.shape[-1])
    if len(numbers) > most:
        numbers = numbers[np.sort(np.random.default_rng(0).choice(len(numbers), most, replace=False))]
    return np.stack([np.asarray(checks.details.axes[j].in_units(numbers[:, j]), float) for j in places], 1)


def column(checks: Any, place: int, rows: np.ndarray, draws: np.ndarray, name: str, tests: Sequence[OneTest]) -> Any:
    """Draw the margin of a column, rows next to draws, and its curves in the band of a check."""
    both = comparison.Compared(rows[:, None], draws[:, None], "", "", [])
    (shown,), both = comparison.with_fewer_categories([checks.details.axes[place].column], both)
    rows, draws = both.rows[:, 0], both.draws[:, 0]
    with styled() as plt:
        layout = {} if shown.bars else {"layout": "none", "gridspec_kw": {**EDGES, "top": 0.98, "bottom": 0.1}}
        figure, panels = plt.subplots(
            1 + bool(tests), squeeze=False, figsize=(SIZE[0], SIZE[1] * (0.7 + bool(tests))), **layout
        )
        ends = limits(shown, rows, draws)
        handles = comparison.margin(panels[0, 0], shown, ends, rows, draws, colours())
        set_ticks(panels[0, 0].xaxis, shown, True)
        panels[0, 0].legend(handles, ["rows", "draws"], fontsize=8)
        if tests:
            curves(panels[1, 0], checks, name, tests)
    return figure


def _points(axes: Any, checks: Any, name: str) -> None:
    """Draw the pair of columns that differs most, as points."""
    places = list(checks.details.differ[:2])
    rows, draws = (in_units(checks, which, places, POINTS) for which in ("rows", "draws"))
    comparison.scatter(axes, [rows, draws], colours(), np.random.default_rng(0))
    for i, axis in enumerate((axes.xaxis, axes.yaxis)):
        shown = checks.details.axes[places[i]].column
        axes.set(**{f"{axis.axis_name}lim": limits(shown, rows[:, i], draws[:, i])})
        set_ticks(axis, shown, True)
    for which, colour in zip(("rows", "draws"), colours(), strict=False):
        axes.scatter([], [], s=12, color=colour, label=which)
    axes.legend(fontsize=8)


def curves(axes: Any, checks: Any, name: str, tests: Sequence[OneTest] | None = None) -> None:
    """Draw the curves of a check in their band: grey inside it, coloured and named outside."""
    of_check = checks.details.tests[name]
    shown = sorted(of_check if tests is None else tests, key=lambda test: -np.abs(test.curve).max())[:MOST]
    band, colour = band_of(checks, name), iter((*colours(), *["C3", "C4", "C5"] * MOST))
    at = 100 * np.concatenate([[0.0], band.at, [1.0]])
    low, high = (100 * np.pad(edge - band.at, 1) for edge in (band.lower, band.upper))
    axes.fill_between(at, low, high, color=GREY, alpha=0.2, linewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.8)
    for test in shown:
        curve = 100 * np.pad(test.curve, 1)
        outside = is_outside(test, band)
        label = literal(f"{shortened_name(test.name, LONG)}: {test.fault}" if len(of_check) > 1 else test.fault)
        looks = {"color": next(colour), "label": label} if outside else {"color": GREY, "linewidth": 1.0}
        axes.plot(at, curve, **looks)
    axes.set(xlim=(0, 100), xlabel=ACROSS[name], ylabel="share of rows, less that")
    axes.margins(y=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def is_outside(test: OneTest, band: Band) -> bool:
    """Return whether a curve leaves its band anywhere."""
    values = test.curve + band.at
    return bool(((values < band.lower - 1e-9) | (values > band.upper + 1e-9)).any())


def band_of(checks: Any, name: str) -> Band:
    """Return the band of a check, which holds all curves of any check at once."""
    test, count = checks.details.tests[name][0], max(map(len, checks.details.tests.values()))
    return _band(test.rows, test.draws, test.shared, 1 - SURE / count)


@lru_cache(64)
def _band(rows: int, draws: int | None, shared: bool, level: float) -> Band:
    return ecdf_band(rows, draws, shared=shared, level=level)
