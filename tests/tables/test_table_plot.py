"""What `TableResult.plot` draws: in the units of the frame, with bars for categories and dates on their axis."""

import datetime as dt

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from common import error_of
from frames import BOTH, GIVEN, mixed
from matplotlib.dates import num2date

import flows
from flows import tables
from flows.results.held_out import Kept
from flows.tables.fit import joined

HOURS = pd.date_range("2024-03-01 00:30", periods=300, freq="h")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def result_of(frame, condition=(), kinds=None, kept=True):
    """A table that was fitted to nothing, with these rows held out."""
    schema = tables.infer_schema(frame, condition).replace(kinds or {}).fitted(frame)
    rows, context = schema.rows(frame), schema.context_dim
    init_fun = GIVEN if condition else joined(schema, GIVEN)
    triple = init_fun(0, len(schema.columns), **({"context_dim": context} if context else {}))
    held_out = Kept(rows.x, rows.context) if kept else None
    return tables.TableResult(schema, flows.FitResult(*triple, init_fun, len(schema.columns), context, kept=held_out))


def words(figure):
    legend = [text.get_text() for each in figure.legends for text in each.get_texts()]
    return legend, figure.get_supxlabel().replace("\n", " ")


@BOTH
def test_columns_are_in_the_order_and_the_units_of_the_frame(library):
    frame = mixed(library)[["x", "town", "guests", "unit"]]
    times = HOURS if library is pd.DataFrame else pl.Series("time", HOURS.to_list())
    frame = frame.assign(time=times) if library is pd.DataFrame else frame.with_columns(times)
    result = result_of(frame)
    figure = result.plot(n=300)
    assert len(figure.axes) == 10 and words(figure)[0] == ["300 rows held out", "300 draws"]
    assert [axes.get_xlabel() for axes in figure.axes[-4:]] == ["x", "town", "guests", "time"]
    town, guests, time = figure.axes[2], figure.axes[5], figure.axes[-1]
    heights = np.array([patch.get_height() for patch in town.patches]).reshape(2, 2)
    share = np.mean(np.asarray(frame["town"]) == "Bonn")
    np.testing.assert_allclose(heights[0], [share, 1 - share])
    np.testing.assert_allclose(heights.sum(1), 1.0)
    bins = guests.patches[0].get_data().edges
    np.testing.assert_allclose(bins % 1, 0.5)  # a count in the middle of its bin
    counts = np.histogram(np.asarray(frame["guests"]), bins)[0] / 300 / np.diff(bins)
    np.testing.assert_allclose(guests.patches[0].get_data().values, counts)
    days = time.patches[0].get_data().edges
    first, last = (num2date(day).replace(tzinfo=None) for day in (days[0], days[-1]))
    assert dt.datetime(2024, 2, 20) < first <= HOURS[0] and HOURS[-1] - dt.timedelta(hours=3) < last < dt.datetime(2024, 4, 1)
    assert [text.get_text() for text in figure.axes[7].get_xticklabels()] == ["Bonn", "Oslo"]


def test_columns_rows_and_draws_can_be_chosen():
    result = result_of(mixed(), kept=False)
    figure = result.plot(mixed(rows=50, seed=3), ["x", "town"], 40)
    assert [axes.get_xlabel() for axes in figure.axes[1:]] == ["x", "town"] and len(figure.axes[1].collections) == 1
    assert words(figure)[0] == ["40 of 50 rows", "40 draws"] and len(figure.axes[1].collections[0].get_offsets()) == 80
    assert words(result.plot(n=40))[0] == ["40 draws"] and "without rows" in words(result.plot(n=40))[1]
    assert "columns has 'unit'; expected some of 'town', 'guests', 'x'" in error_of(lambda: result.plot(columns="unit"))
    assert "row 1, is 'Rome'" in error_of(lambda: result.plot(mixed(rows=2).assign(town=["Bonn", "Rome"])))
    assert "the frame lacks 'x'" in error_of(lambda: result.plot(mixed()[["town", "guests", "unit"]]))
    assert "without a condition" in error_of(lambda: result.plot(given={"x": 1.0}))


def band_of(figure):
    """The places of the band, its lower and its upper end, and the points of rows."""
    scatter, band = figure.axes[0].collections[:2]
    outline = band.get_paths()[0].vertices
    at = figure.axes[0].get_lines()[0].get_xdata()
    ends = np.array([[end(outline[np.isclose(outline[:, 0], place), 1]) for end in (min, max)] for place in at])
    return at, *ends.T, np.asarray(scatter.get_offsets())


CONDITIONS = {  # the kind of a condition, and values of it
    "a number": (tables.Real(), np.random.default_rng(1).normal(50.0, 9.0, 200)),
    "above 3": (tables.Real(low=3.0), 3.0 + np.random.default_rng(1).exponential(size=200)),
    "below 3": (tables.Real(high=3.0), 3.0 - np.random.default_rng(1).exponential(size=200)),
    "a share": (tables.Real(low=0.0, high=1.0), np.random.default_rng(1).beta(2, 2, 200)),
    "an angle": (tables.Circular(360.0, low=-180.0), np.random.default_rng(1).uniform(-180.0, 180.0, 200)),
    "a count": (tables.Integer(low=0), np.random.default_rng(1).poisson(3.0, 200)),
}


@pytest.mark.parametrize("kind", list(CONDITIONS))
def test_one_number_is_drawn_against_its_condition(kind):
    known, values = CONDITIONS[kind]
    frame = pd.DataFrame({"y": 100.0 + np.random.default_rng(0).normal(size=200), "given": values})
    result = result_of(frame, ["given"], {"given": known})
    figure = result.plot(n=300)
    at, low, high, points = band_of(figure)
    x = np.round(points[:, 0]) if kind == "a count" else points[:, 0]  # which lie anywhere in their cells
    order, expected = np.argsort(points[:, 1]), frame.sort_values("y")
    np.testing.assert_allclose(points[order, 1], expected["y"], rtol=1e-6)
    np.testing.assert_allclose(x[order], expected["given"], rtol=1e-5, atol=1e-4)
    k = len(at) // 2
    draws = result.draw(3, 2_000, given={"given": at[k]})["y"]
    assert np.mean((draws > low[k]) & (draws < high[k])) == pytest.approx(0.9, abs=0.06)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("given", "y") and "of the rows lie in the band" in words(figure)[1]


def test_a_condition_of_categories_has_a_band_for_each():
    result = result_of(mixed()[["town", "x"]], ["town"])
    axes = result.plot(n=500).axes[0]
    bars = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches]
    assert len(bars) == 2 and [label.get_text() for label in axes.get_xticklabels()] == ["Bonn", "Oslo"]
    draws = result.draw(3, 2_000, given={"town": "Oslo"})["x"]
    assert np.mean((draws > bars[1][0]) & (draws < bars[1][1])) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(("periods", "word"), [(20, None), (60, "day"), (400, "week")])
def test_dates_of_many_days_or_weeks_are_taken_together(periods, word):
    times = pd.date_range("2024-01-01", periods=4 * periods, freq="6h")
    frame = pd.DataFrame({"time": times, "y": np.random.default_rng(0).normal(size=len(times))})
    figure = result_of(frame, ["time"]).plot(n=100)
    at, low, high, points = band_of(figure)
    assert (f"all times of the {word} around a date" in words(figure)[1]) == (word is not None) and (low < high).all()
    days = np.sort(frame["time"].to_numpy().astype("M8[s]").astype(float) / 86_400)
    rows = np.sort(points[:, 0])
    assert days[0] - 0.2 < min(rows[0], at[0]) and max(rows[-1], at[-1]) < days[-1] + 0.2
    assert np.abs(rows[:, None] - days).min(1).max() <= 0.125 + 1e-3, "each in the cell of its six hours"


def test_a_condition_has_to_be_there():
    result = result_of(mixed()[["town", "x"]], ["town"], kept=False)
    assert "the table has a condition, 'town', and a file has no rows" in error_of(result.plot)
    assert "rows and given are there" in error_of(lambda: result.plot(mixed()[["town", "x"]], given={"town": "Oslo"}))
    figure = result.plot(n=50, given={"town": "Oslo"})
    assert words(figure)[0] == ["50 draws"] and figure.axes[0].get_xlabel() == "x"
    assert len(result.plot(n=50, given=pd.DataFrame({"town": ["Oslo", "Bonn"]})).axes[0].patches) == 2
