"""Models and tables that the tests of all engines share: 200,000 rows in 17 parts of unlike lengths, one of them empty."""

import contextlib
import functools
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd

import flows
from flows import tables
from flows.large import Scorer

ROWS = 200_000
LENGTHS = (0, 1, 7, 300, 2_064, 2_065, 5_000, 8_257, 9_000, 11_111, 12_000, 16_512, 16_513, 20_000, 25_000, 30_000)
LENGTHS = (*LENGTHS[1:9], 0, *LENGTHS[9:], ROWS - sum(LENGTHS))
ENDS = np.cumsum(LENGTHS)
QUICK = {"max_epochs": 1, "folds": 1, "verbose": 0}
NETWORK = flows.conditioners.MLP(4)
MAP = flows.Flow(flows.MAF(1, hidden=(4,)))  # whose quantiles are exact, given a condition
SHARES = [0.05, 0.5]


@functools.cache
def numbers(rows=ROWS):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3))
    return pd.DataFrame(x + x[:, :1], columns=["a", "b", "c"]).assign(name="text")[["c", "name", "b", "a"]]


@functools.cache
def typed(rows=ROWS):
    rng = np.random.default_rng(1)
    hours = rng.integers(0, 700 * 24, rows)
    return pd.DataFrame(
        {
            "more": rng.random(rows),
            "size": rng.lognormal(size=rows),
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, "h"),
            "town": rng.choice(["Bonn", "Oslo", "Rome"], rows),
            "wind": rng.integers(0, 36, rows) * 10.0,
        }
    )


KINDS = {
    "town": tables.Category(),
    "wind": tables.Circular(period=360, step=10),
    "when": tables.DateTime(step=3600),
    "size": tables.Real(low=0),
}


def table_fit(names, model, condition=()):
    frame = typed(2_000)[names]
    schema = tables.Schema({name: KINDS[name] for name in names}, condition)
    return tables.fit(0, frame, schema, model=model, **QUICK)


@functools.cache
def model(scene):
    """The fitted model of a scene."""
    few = numbers(1_000)
    if scene == "plain":
        return flows.fit(0, flows.Flow(flows.RealNVP(2, hidden=(4,))), few[["a", "b", "c"]], **QUICK)
    if scene == "conditional":
        return flows.fit(0, MAP, few[["a"]], context=few[["b", "c"]], **QUICK)
    if scene == "ensemble":
        return flows.fit(0, flows.Normal(trainable=True), few[["a", "b"]], **{**QUICK, "folds": 2})
    if scene == "typed":
        return table_fit(["town", "wind", "when", "size"], flows.Normal(conditioner=NETWORK))
    return table_fit(["size", "town", "wind"], MAP, ["town", "wind"])


ADDED = {
    "plain": ["log_prob", "p_value"],
    "conditional": ["log_prob", "p_value", *SHARES],
    "ensemble": ["log_prob", "p_value"],
    "typed": ["log_prob", "p_value"],
    "quantiles": SHARES,
}


def rows_of(scene):
    """The table of a scene; quantiles need no column but their condition."""
    if scene in ("typed", "quantiles"):
        return typed() if scene == "typed" else typed().drop(columns="size")
    return numbers()


def parts_of(frame):
    """The frame in parts."""
    return [frame.iloc[end - length : end] for length, end in zip(LENGTHS, ENDS, strict=True)]


@functools.cache
def expected(scene):
    """What the result says of all rows in one piece."""
    fitted, frame, said = model(scene), rows_of(scene), {}
    if scene == "quantiles":
        quantiles = fitted.quantile(SHARES, given=frame[["town", "wind"]])
        return {name: quantiles[name].to_numpy() for name in quantiles}
    if scene == "conditional":
        given = frame[["b", "c"]].to_numpy()
        said = dict(zip(("log_prob", "p_value"), fitted.log_prob_and_p_value(frame[["a"]], context=given), strict=True))
        quantiles = np.asarray(fitted.quantile(SHARES, context=given))
        return said | {f"q{share}": quantiles[:, j] for j, share in enumerate(SHARES)}
    own = frame[list(Scorer(fitted).columns)]
    return dict(zip(("log_prob", "p_value"), fitted.log_prob_and_p_value(own), strict=True))


def as_scored(scene, scored):
    """Hold a table of all rows, in order, to the rows and what the result says of them: to 4 units of the last place."""
    frame, said = rows_of(scene), expected(scene)
    assert len(frame) == ROWS and list(scored.columns) == [*frame.columns, *said]
    for name in frame:
        assert (scored[name].to_numpy() == frame[name].to_numpy()).all(), name
    for name, values in said.items():
        values, got = np.asarray(values, np.float32), scored[name].to_numpy(np.float64)
        scale = np.maximum(np.abs(values), 1) if name[0] == "q" else np.abs(values)  # a quantile is a sum that may be near 0
        assert np.ptp(values) > 0 and (np.abs(got - values) <= 4 * np.spacing(scale)).all(), name


class Mortal(Scorer):
    """A scorer whose worker is killed at its fifth frame, once for a marker."""

    def __init__(self, marker, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.marker, self.calls = str(marker), 0

    def appended(self, *arguments):
        self.calls += len(arguments[0]) > 0
        if self.calls == 5:
            with contextlib.suppress(FileExistsError):
                Path(self.marker).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().appended(*arguments)
