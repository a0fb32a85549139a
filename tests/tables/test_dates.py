"""Dates and times as seconds on their steps, with and without a zone, as text, and as what repeats in a condition."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from frames import BOTH, fitted, same

import flows
from flows.tables import DateTime, Real, Schema

STEPS = {"s": 1, "m": 60, "h": 3600, "D": 86_400}


@BOTH
@pytest.mark.parametrize("unit", STEPS)
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_dates_are_seconds_at_the_coarsest_step_that_all_have(library, unit, zone):
    times = (np.datetime64("2024-03-08T07:30:15") + np.array([5, 0, 9, 4, 14], f"m8[{unit}]")).astype("M8[us]")
    frame = library({"t": times})
    if zone and library is pd.DataFrame:
        frame["t"] = frame["t"].dt.tz_localize("UTC").dt.tz_convert(zone)
    elif zone:
        frame = frame.with_columns(pl.col("t").dt.replace_time_zone("UTC").dt.convert_time_zone(zone))
    schema = Schema({"t": DateTime()}).fitted(frame)
    assert schema["t"].step == STEPS[unit] and schema.steps == (STEPS[unit],)
    assert schema.encode(frame)[:, 0].tolist() == [5 * STEPS[unit], 0, 9 * STEPS[unit], 4 * STEPS[unit], 14 * STEPS[unit]]
    same(schema.decode(schema.encode(frame).astype(np.float32)), frame)


@BOTH
def test_a_step_that_float32_cannot_tell_apart_becomes_the_next_that_fits(library):
    long = np.array(["1990-01-01T00:00:00", "2024-01-01T00:00:01"], "M8[us]")
    schema, frame = fitted(library, DateTime(), long)
    assert schema["x"] == DateTime(step=3600) and "rounded to hours, as float32 tells 4,194,304 steps apart" in repr(schema)
    assert schema.encode(frame)[1] == 34 * 365 * 86_400 + 9 * 86_400 - 86_400
    schema, frame = fitted(library, DateTime(), long + np.timedelta64(71, "m"))
    back = np.array(schema.decode(schema.encode(frame))["x"], "M8[m]")
    assert back.astype(str).tolist() == ["1990-01-01T01:00", "2024-01-01T01:00"], "whole hours"
    assert fitted(library, DateTime(step=30), long)[0]["x"].step == 3600
    assert fitted(library, DateTime(), long[:1] + np.array([0, 2**22], "m8[s]"))[0]["x"].step == 1
    assert fitted(library, DateTime(), long[:1] + np.array([0, 2**22 + 1], "m8[s]"))[0]["x"].step == 60


@BOTH
@pytest.mark.parametrize(
    ("format", "values"),
    [
        ("%Y%m%d", [20240131, 20231205, 20240229]),
        ("%Y%m%d", ["20240131", "09990228"]),
        ("%d.%m.%Y %H:%M", ["31.01.2024 08:30", "05.12.2023 00:00"]),
    ],
)
def test_dates_of_text_and_of_whole_numbers_come_back(library, format, values):
    schema, frame = fitted(library, DateTime(format=format), values)
    assert schema["x"].step == (86_400 if format == "%Y%m%d" else 60)
    same(schema.decode(schema.encode(frame)), frame)
    message = r"column 'x', row 1, is .*2024.*; expected a date written as '%"
    with pytest.raises(flows.FlowsError, match=message):
        schema.encode(
            library(
                {
                    "x": [
                        values[0],
                        {int: 20241331, str: "20241331"}[type(values[0])] if format == "%Y%m%d" else "31.02.2024 08:30",
                    ]
                }
            )
        )
    gap = library({"x": [str(values[0]), None]})
    assert np.isnan(schema.rows(gap, errors="coerce").x[1, 0])


@BOTH
@pytest.mark.parametrize(
    ("format", "start"), [("%Y-%m-%d %H:%M:%S.%f", "2024-12-31 01:02:03."), ("%Y%m%d%H%M%S%f", "20241231010203")]
)
def test_fractions_of_seconds_in_text_are_read(library, format, start):
    schema, frame = fitted(library, DateTime(format=format), [f"{start}500000", f"{start}750000"])
    assert schema["x"].step == 0.001 and schema.encode(frame)[:, 0].tolist() == [0.0, 0.25]
    same(schema.decode(schema.encode(frame)), frame)


@BOTH
def test_times_in_another_unit_are_read_beyond_the_years_that_nanoseconds_reach(library):
    times = np.array(["1000-01-01T00", "1000-01-03T00"], "M8[us]")
    schema, _ = fitted(library, DateTime(), times)
    later = library({"x": np.array(["2024-01-01"], "M8[ns]")})
    assert schema.encode(later)[0, 0] == (np.datetime64("2024-01-01") - np.datetime64("1000-01-01")) / np.timedelta64(1, "s")


@BOTH
def test_days_go_by_the_clock_of_the_zone_that_was_fitted_to(library):
    zones = ["Europe/Berlin", "UTC", "America/New_York"]
    times = pd.Series(pd.date_range("2024-03-25", periods=300, freq="h", tz="UTC"))
    frames = [library({"x": np.arange(300) * 0.37, "t": times.dt.tz_convert(zone)}) for zone in zones]
    schema = Schema({"x": Real(), "t": DateTime()}, ["t"]).fitted(frames[0])
    expected = schema.context(frames[0])
    assert expected.shape == (300, 5) and np.allclose(expected[23, 1:3], [1, 0]), "midnight in Berlin"
    for frame in frames[1:]:
        np.testing.assert_array_equal(schema.context(frame), expected)
    other = pd.DataFrame if library is pl.DataFrame else pl.DataFrame
    np.testing.assert_array_equal(schema.context(other({"t": times.dt.tz_convert("UTC")})), expected)


@BOTH
def test_days_go_by_the_clock_of_the_zone_and_cycles_need_steps_and_a_span(library):
    def width(times):
        return (
            Schema({"t": DateTime(), "y": Real()}, ["t"])
            .fitted(library({"t": times, "y": np.arange(len(times)) / 2}))
            .context_dim
        )

    start = np.datetime64("2024-01-01T00:00", "us")
    assert width(start + np.array([0, 1, 5], "m8[m]")) == 1, "minutes of one hour have no cycle"
    assert width(start + np.array([0, 1, 48], "m8[h]")) == 3, "hours of two days: the day"
    assert width(start + np.array([0, 1, 400], "m8[D]")) == 5, "days of a year: the week and the year"
    assert width(start + np.array([0, 1, 24 * 400], "m8[h]")) == 7
    times = start + np.array([12, 48, 24 * 200 + 11], "m8[h]")  # noon in Berlin, at winter's and at summer's clock
    frame = library({"t": times - np.array([1, 1, 1], "m8[h]"), "y": [1.0, 2.0, 3.0]})
    if library is pd.DataFrame:
        frame["t"] = frame["t"].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    else:
        frame = frame.with_columns(pl.col("t").dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Berlin"))
    context = Schema({"t": DateTime(), "y": Real()}, ["t"]).fitted(frame).context(frame)
    np.testing.assert_allclose(context[[0, 2], 1:3], [[-1, 0], [-1, 0]], atol=1e-9)
