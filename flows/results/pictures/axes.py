"""Axes of pictures: their looks, by one style, in flows.mplstyle next to this file, whatever the user has; and columns on axes:
their ends, bins and ticks, and points that would hide each other moved apart."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError, lacking
from flows.results.columns import Column
from flows.results.frames import shortened_name

STYLE = str(Path(__file__).with_name("flows.mplstyle"))
LETTERS = 15  # of a remark, in an inch
SHOWN = 6  # columns by default
MOST = 12  # columns of one picture
TAIL = 0.005  # of the rows, beyond each end of an axis
ROOM = 0.04  # of the width of an axis, at each end
BINS = 12, 40  # of a histogram
REPEATED = 0.5  # distinct values of a column, as a share of all, above which it is not looked at as rounded
FEW = 5  # distinct values, up to which these have to be multiples of their step
ON_STEP = 0.01  # of a step, by which values of rounded columns may miss
CELL = 0.35  # on each side of a category, where its points lie
SHORT = 14  # characters of the name of a category
LONG = 22  # characters of the name of a column
NARROW = 1e-4  # of its values, below which the ticks of an axis would have many equal digits: they get an offset
NAMED = 12  # categories on an axis that are named
LETTER = 5.4  # points, of a digit of a tick
PANEL = 65  # points of an inch of a figure that its panels have, across


class Colours(NamedTuple):
    """The first colours of the style, by their use."""

    rows: str
    draws: str
    third: str


def pyplot() -> Any:
    """Return matplotlib.pyplot, which is an extra."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(lacking("plot", "matplotlib", "plot")) from error
    return plt


def colours() -> Colours:
    """Return the colours of the style, also where another one is in use."""
    cycle = pyplot().matplotlib.rc_params_from_file(STYLE, use_default_template=False)["axes.prop_cycle"]
    return Colours(*(f"#{colour.lstrip('#')}" for colour in cycle.by_key()["color"][:3]))


@contextmanager
def styled() -> Iterator[Any]:
    """Return pyplot, within the style."""
    plt = pyplot()
    with plt.style.context(STYLE):
        yield plt


def explained(figure: Any, handles: list[Any], notes: list[str], room: bool = False) -> None:
    """Add a legend above a figure, or where there is room in its corner at the right; and remarks below it."""
    if handles:
        where = {"loc": "upper right"} if room else {"loc": "outside upper left", "ncols": len(handles)}
        figure.legend(handles=handles, **where)
    if notes:
        lines = textwrap.wrap("; ".join(notes), int(LETTERS * figure.get_figwidth()))
        figure.supxlabel(literal("\n".join(lines)), x=0.01, ha="left", fontsize=8.5)


def literal(text: str) -> str:
    """Return text that is drawn as it is, as matplotlib would read what is between two $ as a formula."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text).replace("$", r"\$")


def places_of(columns: Any, names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the places of the columns to draw, and remarks on them."""
    count = len(names)
    if columns is None:
        more = [f"the first {SHOWN} of {count} columns, columns= names others"] if count > SHOWN else []
        return list(range(min(count, SHOWN))), more
    several = isinstance(columns, Iterable) and not isinstance(columns, str)
    places = list[int]()
    for column in columns if several else [columns]:
        place = names.index(column) if isinstance(column, str) and column in names else column
        if isinstance(place, bool) or not isinstance(place, int | np.integer) or not -count <= place < count:
            known = ", ".join(map(repr, names[:SHOWN])) + (", ..." if count > SHOWN else "")
            raise FlowsError(f"plot: columns has {column!r:.60}; expected some of {known}, or places from 0 to {count - 1}")
        places.append(int(place) % count)
    if not places or len(set(places)) < len(places) or len(places) > MOST:
        raise FlowsError(f"plot: columns is {columns!r:.80}; expected 1 to {MOST} columns, each once")
    return places, []


def step_of(values: np.ndarray) -> float:
    """Return the step to which values were rounded; 0 where they repeat too rarely to show one, or do not lie on one.

    Few values have to be whole numbers of steps, as any two or three are nearly on some.
    """
    distinct = np.unique(values)
    if len(distinct) < 2 or len(distinct) > REPEATED * len(values):
        return 0.0
    step = np.diff(distinct).min()
    whole = (distinct - (distinct[0] if len(distinct) > FEW else 0.0)) / step
    if np.abs(whole - np.round(whole)).max() > ON_STEP:
        return 0.0
    return float((distinct[-1] - distinct[0]) / np.round((distinct[-1] - distinct[0]) / step))


def rounded_to(column: Column, values: np.ndarray) -> float:
    """Return the step of a column, or of its values where it is not known."""
    return step_of(values) if column.step is None else column.step


def limits(column: Column, rows: np.ndarray | None, draws: np.ndarray) -> tuple[float, float]:
    """Return the ends of an axis for rows, and for draws unless they are much further out, without the outermost of both."""
    if np.isfinite([column.low, column.high]).all():
        before = 0.0 if column.bars else (column.step or 0.0) / 2  # where the cell of the first value begins
        return column.low - before, column.high - before
    ends = [np.quantile(values, (TAIL, 1 - TAIL)) for values in (rows, draws) if values is not None and len(values)]
    (low, high), (least, largest) = ends[0], ends[-1]
    reach = (high - low) / 2 or max(abs(low) / 100, 0.5)
    low, high = max(min(low, least), low - reach), min(max(high, largest), high + reach)
    room = max(ROOM * (high - low), 0.6 * rounded_to(column, draws if rows is None else rows)) or reach
    return low - room, high + room


def edges(column: Column, ends: tuple[float, float], rows: np.ndarray | None, draws: np.ndarray) -> np.ndarray:
    """Return edges of the bins of rows and draws alike; where values are rounded, each bin has as many of their steps."""
    low, high = ends
    if column.bars:
        return np.arange(len(column.bars) + 1) - 0.5
    values = draws if rows is None else rows
    bins = int(np.clip(3 * min(len(values), len(draws)) ** (1 / 3), *BINS))
    step = rounded_to(column, values)
    if not step:
        return np.linspace(low, high, bins + 1)
    steps = max(1, int(np.ceil((high - low) / step / bins)))
    if np.isfinite(column.high):  # the turn of an angle, which has a whole number of bins, if there is one
        cells = round((high - low) / step)
        steps = next((k for k in range(steps, 2 * steps) if cells % k == 0), steps)
    wide, first = step * steps, (low if np.isfinite(column.low) else float(values.min()) - step / 2)
    first += wide * np.floor((low - first) / wide)
    return first + wide * np.arange(int(np.ceil((high - first) / wide - 1e-9)) + 1)


def spread(column: Column, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return places of points: rounded values are spread over their cells, and codes around their places."""
    noise = rng.uniform(-1, 1, len(values))
    if column.bars:
        return values + CELL * noise
    step = rounded_to(column, values)
    if not step:
        return values
    steps = (values - values.min()) / step
    return values + step / 2 * noise if np.abs(steps - np.round(steps)).max() < ON_STEP else values


def set_ticks(axis: Any, column: Column, named: bool) -> None:
    """Set the ticks of a column, as few as there is room for, and its name, at the edge of the figure."""
    if column.bars:
        step = max(1, -(-len(column.bars) // NAMED))
        codes = range(0, len(column.bars), step)
        shown = [literal(shortened_name(name, SHORT)) for name in column.bars[::step]]
        axis.set_ticks(codes, shown if named else [""] * len(shown))
        if axis.axis_name == "x" and named and sum(map(len, shown)) > SHORT:
            axis.set_tick_params(rotation=90)
    elif column.dates:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=2, maxticks=5, tz=column.zone)
        axis.set_major_locator(locator)
        axis.set_major_formatter(ConciseDateFormatter(locator, tz=column.zone))
    else:
        axis.get_major_locator().set_params(nbins=4, integer=column.step == 1)
        low, high = axis.get_view_interval()
        axis.get_major_formatter().set_useOffset(bool(high - low < NARROW * max(abs(low), abs(high))))
        if axis.axis_name == "x":
            thin_out(axis, low, high)
    axis.set_tick_params(**{"labelbottom" if axis.axis_name == "x" else "labelleft": named})
    axis.get_offset_text().set_visible(named)
    if named:
        axis.set_label_text(
            literal(shortened_name(column.name, LONG)), **({"fontsize": 8.5} if len(column.name) > SHORT else {})
        )


def thin_out(axis: Any, low: float, high: float) -> None:
    """Remove ticks of numbers whose labels would touch each other or labels of the next panel."""
    ticks = np.array([tick for tick in axis.get_majorticklocs() if low <= tick <= high])
    across = axis.axes.get_subplotspec().get_gridspec().ncols
    unit = PANEL * axis.get_figure().get_figwidth() / across / (high - low)  # in points
    labels = LETTER * np.array([len(label) for label in axis.get_major_formatter().format_ticks(ticks)])
    inner = ticks[np.minimum(ticks - low, high - ticks) * unit >= (labels / 2 - 0.8 * LETTER) * (across > 1)]
    room = (labels.max(initial=0) + LETTER) / unit
    thinned = (inner if len(inner) > 1 else ticks)[:: int(np.ceil(room / np.diff(ticks).min(initial=high - low)))]
    if len(thinned) < len(ticks):
        axis.set_ticks(thinned if len(thinned) > 1 else ticks[[0, -1]])


def set_heights(axes: Any, log_ends: tuple[float, float] | None) -> None:
    """Remove the ticks of densities, on a logarithmic scale where its ends are not None."""
    if log_ends is not None:
        axes.set(yscale="log", ylim=log_ends)
        axes.text(0.98, 0.97, "log scale", transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.set_yticks([])
    axes.minorticks_off()
    axes.spines["left"].set_visible(False)
