"""Looks of pictures: one style, in flows.mplstyle next to this file, whatever the user has."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

STYLE = str(Path(__file__).with_name("flows.mplstyle"))

LETTERS = 15  # of a remark, in an inch


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
        raise ImportError("plot needs the package matplotlib: pip install 'jax-flows[plot]'") from error
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
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8.5)


def dated(axis: Any, zone: Any) -> None:
    """Set ticks of dates, for values in days since 1970, by the clock of a zone."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=2, maxticks=5, tz=zone)
    axis.set_major_locator(locator)
    axis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))
