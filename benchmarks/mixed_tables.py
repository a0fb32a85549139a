"""Typed tables: one exact density of numbers, categories, counts, angles and dates, beside a flow of the encoded numbers.

    python benchmarks/mixed_tables.py                                  # both tables, one core: an hour
    python benchmarks/mixed_tables.py --sets household --methods NSF,tables
    python benchmarks/mixed_tables.py --ratios                         # encoding, scores and draws of a million rows: minutes
    python benchmarks/mixed_tables.py --table

"NSF": `fit(0, Flow(NSF()), rows, dequantize=steps)` of the rows as the schema encodes them, codes among them. "typed NSF":
`tables.fit(0, frame, model=Flow(NSF()))`, the same flow for the numbers alone, behind categories and angles. "tables":
`tables.fit(0, frame)`. All are scored by the mean over 16 points of each cell, as of `TableResult.log_prob(draws=16)`, on a fifth
of the rows. Written to benchmarks/results/mixed_tables.json.
"""

import argparse
import json
import os
import resource
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import records
from scipy.special import logsumexp
from scipy.stats import qmc

import flows
from flows import tables

ROOT = Path(__file__).resolve().parent
RESULTS, DATA = ROOT / "results" / "mixed_tables.json", ROOT.parent / "examples" / "data"
METHODS = ("NSF", "typed NSF", "tables")
DRAWS, SHARE = 16, 0.2


def household():
    """Minutes on a circle, voltage, power and energies, as they were recorded."""
    frame = pd.read_csv(DATA / "household_power.csv")
    return frame, tables.infer_schema(frame).replace({"minute_of_day": tables.Circular(1440, step=1)})


def weather():
    """Hours at three airports: times, wind directions on a circle, rain that is mostly 0; without the rows that have gaps."""
    frame = pd.read_csv(DATA / "weather.csv", parse_dates=["time"]).dropna().reset_index(drop=True)
    frame = frame[frame["wind_speed_mph"] < 200].reset_index(drop=True)  # one recorded value is 1,048
    return frame, tables.infer_schema(frame).replace({"wind_direction": tables.Circular(360, step=10)})


SETS = {"household": household, "weather": weather}


def split(frame, seed):
    order = np.random.default_rng(seed).permutation(len(frame))
    test = int(SHARE * len(frame))
    return frame.iloc[order[test:]].reset_index(drop=True), frame.iloc[order[:test]].reset_index(drop=True)


def of_cells(score, x, steps):
    """The log of the mean density over points of each cell."""
    moves = np.zeros((DRAWS, len(steps)))
    moves[:, steps > 0] = (qmc.Halton(int((steps > 0).sum()), seed=0).random(DRAWS) - 0.5) * steps[steps > 0]
    return logsumexp([np.asarray(score(x + move), float) for move in moves], axis=0) - np.log(DRAWS)


def scored(method, train, test, schema, seed, minutes):
    """Scores of test rows, and what was fitted."""
    if method == "NSF":
        rows, tests = schema.encode(train), schema.encode(test)
        steps = np.array([*[1.0] * len(schema.codes), *schema.angle_steps, *schema.steps])
        result = flows.fit(seed, flows.Flow(flows.NSF()), rows, dequantize=steps, verbose=0)
        return of_cells(result.log_prob, tests, steps), result
    model = {"typed NSF": flows.Flow(flows.NSF()), "tables": "auto"}[method]
    result = tables.fit(seed, train, schema, model=model, total_minutes=minutes, verbose=0)
    if result.selection is not None:
        print(result.selection, flush=True)
    return result.log_prob(test, draws=DRAWS), result
