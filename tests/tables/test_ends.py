"""Ends that show: which are guessed, and bounds of dates."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from common import error_of
from frames import BOTH, NORMAL, fitted, same

from flows.core import FlowsError
from flows.sklearn import NormalizingFlow
from flows.tables import DateTime, Integer, Real, Schema, fit, infer_schema

RNG = np.random.default_rng(0)
DAY = np.datetime64("2024-01-01", "us")
DAYS = RNG.integers(0, 365, 1200).astype("m8[D]")


def guessed(values, library=pd.DataFrame, condition=()):
    return infer_schema(library({"x": values, "y": np.arange(len(values)) / 7}), condition)["x"]


@BOTH
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (RNG.integers(0, 1440, 9000), Integer(low=0, high=1439)),
        (RNG.integers(0, 1440, 9000) - 1439, Integer(low=-1439, high=0)),
        (np.round(RNG.uniform(1, 10, 2000), 1), Real(low=1.0, high=10.0, step=0.1)),
        (RNG.uniform(0, 100, 1000), Real(low=0, high=100.0)),
        (RNG.uniform(-1, 1, 1000), Real(low=-1.0, high=1.0)),
        (RNG.beta(0.5, 3, 1000) / 2, Real(low=0)),
        (np.minimum(np.rint(RNG.normal(40, 9, 1000)), 47), Integer(high=47)),
        (np.maximum(np.round(RNG.normal(4, 2, 1000), 1), 2.5), Real(low=2.5, step=0.1)),
        (RNG.integers(31, 90, 2000).astype(float), Integer(low=31, high=89)),
        (np.append(RNG.integers(301, 999, 1500), [301, 999]), Integer(high=999)),
    ],
    ids=["minutes", "turned", "ratings", "percent", "both signs", "of_0", "cut", "cut below", "many of a value", "inside"],
)
def test_ends_that_show(library, values, kind):
    assert guessed(values, library) == kind


TAILS = {
    "normal": RNG.normal(size=3000),
    "rounded": np.round(RNG.normal(size=3000), 1),
    "counts": RNG.poisson(30, 3000),
    "heavy": RNG.standard_t(2, 3000),
    "falls linearly": RNG.triangular(10, 20, 30, 3000),
    "falls linearly, rounded": np.rint(RNG.triangular(100, 200, 300, 3000)),
    "an outlier at a round number": np.append(np.rint(RNG.normal(400, 40, 3000)), 1000),
    "no round number near": RNG.uniform(0.37, 7.7, 1000),
    "no round number": RNG.integers(12_347, 98_761, 3000),
    "steps of many rows": np.repeat(np.arange(3, 33), np.append(700, np.ceil(5000 * 0.6 ** np.arange(29))).astype(int)),
    "spikes": RNG.choice(np.array([39, 51, 75, 94, 108, 129, *range(131, 311, 9), 339]), 3000),
    "thin ends": np.repeat(np.arange(11, 52), np.where(abs(np.arange(41) - 20) < 13, 200, 25)),
    "few rows": RNG.integers(1, 100, 499),
}


@pytest.mark.parametrize("name", TAILS)
def test_where_rows_become_rare_no_end_shows(name):
    kind = guessed(TAILS[name])
    assert (kind.low, kind.high) == (None, None)


def test_tails_have_no_ends_and_what_does_not_fall_has():
    wrong, missed = 0, 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        for tail in (rng.normal(size=1000), rng.exponential(size=1000), rng.gamma(5, size=1000), rng.logistic(size=1000)):
            high = guessed(np.round(tail * 10)).high
            wrong += high is not None
        missed += guessed(rng.integers(200, 300, 1000)).high != 299
    assert wrong <= 2 and missed <= 5  # 1% and 10%


def test_ends_of_the_condition_are_not_guessed():
    minutes = RNG.integers(0, 1440, 9000)
    assert guessed(minutes, condition=["x"]) == Integer(low=0)
    assert guessed(DAY + DAYS, condition=["x"]) == DateTime(step=86_400)


def test_the_schema_says_what_it_saw():
    printed = repr(infer_schema(pd.DataFrame({"x": RNG.integers(10, 60, 1100), "t": DAY + np.arange(1100).astype("m8[D]")})))
    assert "whole numbers, not rarer next to 10 and 59" in printed
    assert "times, not rarer next to 2024-01-01 and 2027-01-04, in days" in printed


@BOTH
def test_dates_that_begin_or_end_abruptly(library):
    growing = np.sort((300 - RNG.exponential(60, 1200)).round()).astype("m8[D]")
    assert guessed(DAY + DAYS, library) == DateTime(low="2024-01-01", high="2024-12-30", step=86_400)
    assert guessed(DAY + growing, library) == DateTime(high="2024-10-27", step=86_400)
    assert guessed(DAY - growing, library) == DateTime(low="2023-03-07", step=86_400)
    assert guessed(DAY + np.rint(RNG.normal(0, 1e4, 1200)).astype("m8[m]"), library) == DateTime(step=60)
    assert guessed(DAY + DAYS[:999], library) == DateTime(step=86_400), "of 999 rows, a tail of which may look like an end"
    text = np.array([day.strftime("%d.%m.%Y") for day in (DAY + DAYS).tolist()])
    assert guessed(text, library) == DateTime(low="2024-01-01", high="2024-12-30", step=86_400, format="%d.%m.%Y")


@BOTH
def test_bounds_of_dates(library):
    times = DAY + np.array([3, 5, 9]).astype("m8[D]")
    schema, frame = fitted(library, DateTime(low="2024-01-02", high=dt.date(2024, 1, 12)), times)
    assert schema["x"] == DateTime(low="2024-01-02", high="2024-01-12", step=86_400)
    day = 86_400
    assert schema.supports == ((-2 * day, 8 * day),) and schema.encode(frame)[:, 0].tolist() == [0, 2 * day, 6 * day]
    same(schema.decode(schema.encode(frame)), frame)
    drawn = schema.decode(np.array([[-9.0 * day], [day], [99.0 * day]]))["x"]
    assert [str(time)[:10] for time in drawn] == ["2024-01-02", "2024-01-05", "2024-01-12"], "within the bounds"
    assert Schema.from_json(schema.to_json()) == schema
    late = library({"x": DAY + np.array([1, 12, 11]).astype("m8[D]")})
    assert schema.rows(late, errors="coerce").outside.tolist() == [False, True, False]
    assert error_of(lambda: schema.encode(late)) == (
        "encode: column 'x', row 1, is '2024-01-13T00:00:00'; expected a date from 2024-01-02 up to 2024-01-12. Correct it, "
        "or widen the bounds: schema.replace({'x': DateTime()})"
    )


@BOTH
def test_bounds_of_dates_between_steps_with_gaps_and_as_text(library):
    noon = DAY + np.array([12, 132]).astype("m8[h]")
    schema, _ = fitted(library, DateTime(low="2024-01-01T06:00", high="2024-01-09T18:00", step=86_400), noon)
    assert schema.supports == ((0.0, 8 * 86_400.0),), "whole steps within the bounds"
    schema, frame = fitted(library, DateTime(low="2024-01-01", high="2024-03-01", format="%Y%m%d"), ["20240131", None])
    assert np.isnan(schema.rows(frame, errors="coerce").x[1, 0]) and not schema.rows(frame, errors="coerce").outside.any()
    late = error_of(lambda: schema.encode(library({"x": ["20240302"]})))
    assert (
        "'20240302'; expected a date from 2024-01-01 up to 2024-03-01. Correct it" in late
        and "DateTime(format='%Y%m%d')})" in late
    )
    assert "expected a date written as '%Y%m%d'" in error_of(lambda: schema.encode(library({"x": ["2024-3-2"]})))


@BOTH
def test_bounds_are_by_universal_time_where_there_is_a_zone(library):
    times = pd.Series(pd.date_range("2024-01-01 00:00", periods=1200, freq="h", tz="Europe/Berlin"))
    schema = infer_schema(library({"x": times}))
    assert schema["x"] == DateTime(low="2023-12-31T23:00:00Z", high="2024-02-19T22:00:00Z", step=3600)
    assert schema.supports == ((0.0, 1199 * 3600.0),)


def test_odd_bounds_of_dates_are_refused():
    for message, make in (
        ("DateTime: low is 'today'; expected a date as in '2024-01-31', or None", lambda: DateTime(low="today")),
        ("DateTime: high is 5; expected a date", lambda: DateTime(high=5)),
        ("expected low < high", lambda: DateTime(low="2024-01-02", high="2024-01-02")),
    ):
        assert message in error_of(make)


def test_far_bounds_count_as_far_as_float32_can():
    far = DateTime(high="2034-01-01T00:00:00")
    schema = Schema({"x": far}).fitted(pd.DataFrame({"x": DAY + np.array([0, 1]).astype("m8[s]")}))
    assert schema["x"].step == 3600 and "float32" in repr(schema)


def test_draws_lie_within_the_ends_that_show():
    frame = pd.DataFrame({"minute": RNG.integers(0, 1440, 9000), "day": DAY + RNG.integers(0, 365, 9000).astype("m8[D]")})
    result = fit(0, frame, model=NORMAL, max_epochs=1, verbose=0)
    draws = result.draw(1, 2000)
    assert draws["minute"].between(0, 1439).all() and draws["minute"].max() > 1400
    assert draws["day"].between("2024-01-01", "2024-12-30").all()
    assert np.isfinite(result.log_prob(frame[:50])).all()
    late = pd.DataFrame({"minute": [5], "day": [pd.Timestamp("2025-01-01")]})
    with pytest.warns(UserWarning, match="1 of 1 rows have an unknown category or a value out of bounds"):
        assert np.isneginf(result.log_prob(late, errors="coerce")).all()


def test_rows_that_come_later_are_not_beyond_a_guessed_end():
    """With a frame of validation, and in estimators, no ends are guessed: what is scored there may lie beyond."""
    days = pd.date_range("2024-01-01", periods=1100)
    frame = pd.DataFrame({"day": days, "x": np.random.default_rng(0).normal(size=1100)})
    assert infer_schema(frame[:1000])["day"].high is not None
    assert infer_schema(frame[:1000], ends=False)["day"].high is None
    result = fit(0, frame[:1000], model=NORMAL, validation=frame[1000:], max_epochs=1, verbose=0)
    assert np.isfinite(result.log_prob(frame[1000:])).all()
    estimator = NormalizingFlow(NORMAL, max_epochs=1).fit(frame[:1000])
    assert np.isfinite(estimator.score_samples(frame[1000:])).all()


@pytest.mark.parametrize("end", ["20241231", "12345678901", "-5", "2024-06-01T00:00+01:00", "2024-1-1", "2024-02-30"])
def test_an_end_of_dates_is_written_as_a_schema_writes_it(end):
    with pytest.raises(FlowsError, match="expected a date as in '2024-01-31'"):
        DateTime(high=end)
