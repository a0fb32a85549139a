"""Typed tables: one exact density of numbers, categories, counts, angles and dates, beside a flow of the encoded numbers.

    python benchmarks/mixed_tables.py                                  # both tables, one core: an hour
    python benchmarks/mixed_tables.py --sets household --methods NSF,tables
    python benchmarks/mixed_tables.py --draws                          # beside synthesisers of tables: half an hour
    python benchmarks/mixed_tables.py --ratios                         # encoding, scores and draws of a million rows: minutes
    python benchmarks/mixed_tables.py --table

"NSF": `fit(0, Flow(NSF()), rows, dequantize=steps)` of the rows as the schema encodes them, codes among them. "typed NSF":
`tables.fit(0, frame, model=Flow(NSF()))`, the same flow for the numbers alone, behind categories and angles. "no ends": the
same without the ends of numbers that are guessed. "tables": `tables.fit(0, frame)`. All are scored by the mean over 16 points
of each cell, as of `TableResult.log_prob(draws=16)`, on a fifth of the rows. Written to benchmarks/results/mixed_tables.json.

`--draws`: `tables.fit(0, frame, total_minutes=)` beside TVAE and CTGAN of ctgan and the Gaussian copula of copulas at their
defaults, which `make .venv-tables/.stamp` installs. How well boosted trees tell draws from the rows held out (0.5 where they
have to guess), and how many labels of these rows they know that have learned from draws: of household power whether the heater
is off, waiting or at work, of the weather the airport. Draws of the others are rounded to the steps of the columns and kept
within the range of the rows, as SDV does it around them; "as drawn", trees may tell them by their digits.
"""

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import records
from scipy.special import logsumexp
from scipy.stats import qmc
from two_samples import learned, told_apart

import flows
from flows import tables
from flows.tables.fit import angles as of_angles

ROOT = Path(__file__).resolve().parent
RESULTS, DATA = ROOT / "results" / "mixed_tables.json", ROOT.parent / "examples" / "data"
METHODS = ("NSF", "typed NSF", "no ends", "tables")
SYNTHESIZERS, PYTHON = ("TVAE", "CTGAN", "copula"), ROOT.parent / ".venv-tables" / "bin" / "python"
DRAWN = ("rows", "tables", *SYNTHESIZERS)
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


NUMBERS = tables.Real | tables.Integer
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
    if method == "no ends":
        ends = {name: replace(kind, low=None, high=None) for name, kind in schema.kinds.items() if isinstance(kind, NUMBERS)}
        schema = schema.replace(ends).fitted(train)
    model = "auto" if method == "tables" else flows.Flow(flows.NSF())
    result = tables.fit(seed, train, schema, model=model, total_minutes=minutes, verbose=0)
    if result.selection is not None:
        print(result.selection, flush=True)
    return result.log_prob(test, draws=DRAWS), result


def measured(name, methods, seed, minutes):
    frame, schema = SETS[name]()
    train, test = split(frame, seed)
    schema = schema.fitted(train)
    found, scores = {}, {}
    for method in methods:
        start = time.process_time()
        scores[method], _ = scored(method, train, test, schema, seed, minutes)
        found[method] = {
            "nats": float(scores[method].mean()),
            "ahead": ahead(scores[method], scores.get("NSF")),
            "seconds": time.process_time() - start,
        }
        print(f"{name}, {method}: {json.dumps(found[method])}", flush=True)
    return found


def ahead(scores, of_nsf):
    """By how much a method is ahead of "NSF", and its paired standard error."""
    if of_nsf is None:
        return None
    difference = scores - of_nsf
    return [float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))]


def heater(frame):
    """Water heater and air conditioner: off, waiting, or at work."""
    return frame["heating_wh"], np.digitize(frame["heating_wh"], [1, 10])


LABELS = {"household": heater, "weather": lambda frame: (frame["airport"], frame["airport"])}


def synthesised(method, train, schema, seed):
    """As many draws as rows, on their steps and as they were drawn, and the seconds of both parts."""
    dates = [name for name, kind in schema.kinds.items() if isinstance(kind, tables.DateTime)]
    discrete = [name for name, kind in schema.kinds.items() if isinstance(kind, tables.Category)]
    epoch, second = pd.Timestamp(0, tz="UTC"), pd.Timedelta(1, "s")
    plain = train.assign(**{name: (train[name] - epoch) / second for name in dates})
    with tempfile.TemporaryDirectory() as folder:
        plain.to_csv(Path(folder) / "rows.csv", index=False)
        (Path(folder) / "discrete.json").write_text(json.dumps(discrete))
        script = ROOT / "peers" / "synthesizer.py"
        subprocess.run([PYTHON, script, method, folder, str(len(train)), str(seed)], check=True)
        raw = pd.read_csv(Path(folder) / "draws.csv")
        seconds = json.loads((Path(folder) / "seconds.json").read_text())
    draws = raw.copy()
    for name, kind in schema.kinds.items():
        if name not in discrete:
            least, step = plain[name].min(), getattr(kind, "step", None) or (1 if isinstance(kind, tables.Integer) else 0)
            draws[name] = draws[name].clip(least, plain[name].max())
            draws[name] = least + ((draws[name] - least) / step).round() * step if step else draws[name]
    return [frame.assign(**{name: epoch + frame[name] * second for name in dates}) for frame in (draws, raw)], seconds


def drawn(method, train, schema, seed, minutes):
    """The same of `tables.fit`, whose draws are on steps, and of the rows themselves."""
    if method in SYNTHESIZERS:
        return synthesised(method, train, schema, seed)
    if method == "rows":
        return (train, train), {"fit": 0.0, "draw": 0.0}
    start = time.process_time()
    with mock.patch.object(time, "monotonic", time.process_time):  # minutes of the CPU, as other work may share the core
        result = tables.fit(seed, train, schema, total_minutes=minutes, verbose=0)
    print(result.selection, flush=True)
    fitted, pieces, refused = time.process_time(), [], []
    while 1_000 * len(pieces) < len(train):
        try:
            pieces.append(result.draw(1_000 * seed + len(pieces) + len(refused), 1_000))
        except flows.FlowsError as error:  # a draw that is infinite, of a column without an upper bound
            refused.append(str(error))
            print(error, flush=True)
            if len(refused) > 20:
                raise
    draws = pd.concat(pieces, ignore_index=True)[: len(train)]
    return (draws, draws), {"fit": fitted - start, "draw": time.process_time() - fitted, "refused": len(refused)}


def compared(name, methods, seed, minutes):
    """What boosted trees say of each method's draws. Angles are compared within one turn, as 0 and 360 degrees are one."""
    frame, schema = SETS[name]()
    train, test = split(frame, seed)
    schema, found = schema.fitted(train), {}
    circles = {column: kind.period for column, kind in schema.kinds.items() if isinstance(kind, tables.Circular)}

    def turned(table):
        return table.assign(**{column: np.mod(table[column], period) for column, period in circles.items()})

    rows, (hidden, truth) = turned(test), LABELS[name](test)
    for method in methods:
        (draws, raw), seconds = drawn(method, train, schema, seed, minutes)
        told, labels = told_apart(turned(draws), rows, seed), LABELS[name](draws)[1]
        found[method] = {
            "C2ST": told.accuracy,
            "error": told.error,
            "AUC": told.auc,
            "C2ST as drawn": told_apart(turned(raw), rows, seed).accuracy,
            "learned": learned(turned(draws).drop(columns=hidden.name), rows.drop(columns=hidden.name), labels, truth, seed),
            **seconds,
        }
        print(f"{name}, {method}: {json.dumps(found[method])}", flush=True)
    return found


def million():
    """A million rows of ten columns of all kinds."""
    rng, n = np.random.default_rng(0), 1_000_000
    frame = {f"category {i}": rng.choice(["red", "green", "blue", "grey"], n) for i in range(3)}
    frame |= {"direction": rng.integers(0, 36, n) * 10.0, "count": rng.poisson(4.0, n)}
    frame |= {f"number {i}": rng.normal(size=n) for i in range(3)}
    frame |= {"price": rng.lognormal(size=n).round(2)}
    frame |= {"time": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 10_000, n), "h")}
    return pd.DataFrame(frame)


def seconds_of(run, times=3):
    """CPU time of a call, the least of several."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)
    return min(spent)


def ratios():
    """What is asked of a million rows, and of draws of codes, as multiples of each other."""
    frame = million()
    schema = tables.infer_schema(frame).replace({"direction": tables.Circular(360, step=10)}).fitted(frame)
    small = frame.iloc[:5_000].reset_index(drop=True)
    result = tables.fit(0, small, schema, model=flows.Flow(flows.NSF()), max_epochs=1, folds=1, verbose=0)
    rows = schema.encode(frame)
    of_model = seconds_of(lambda: np.asarray(result.result.log_prob(rows)), 2)
    found = {
        "encode of log_prob": seconds_of(lambda: schema.encode(frame)) / of_model,
        "decode of log_prob": seconds_of(lambda: schema.decode(rows)) / of_model,
    }
    whole = rows[:100_000]
    alone = sum(seconds_of(run) for run in blocks_alone(schema, whole))
    found["log_prob of its blocks alone"] = seconds_of(lambda: np.asarray(result.result.log_prob(whole))) / alone
    params, log_pdf, sample = flows.Categorical(*[10] * 20)(0, 20)
    codes = np.random.default_rng(0).integers(0, 10, (10_000, 20)).astype(np.float32)
    score, draw = (lambda: np.asarray(log_pdf(params, codes))), (lambda: np.asarray(sample(1, params, 10_000)))
    score(), draw()
    found["10,000 draws of 20 codes of their log_prob"] = seconds_of(draw, 9) / seconds_of(score, 9)
    return found


def blocks_alone(schema, rows):
    """The calls of the blocks by themselves, with as many numbers of context as they have in the whole."""
    d, angles = len(schema.codes), len(schema.angles)
    seen = sum(schema.classes)
    codes = flows.Categorical(*schema.classes)(0, d)
    turns = of_angles(schema.periods)(0, angles, context_dim=seen)
    numbers = flows.Flow(flows.NSF())(0, len(schema.numbers), context_dim=seen + 2 * angles)
    x = np.random.default_rng(0).normal(size=(len(rows), len(schema.numbers))).astype(np.float32)
    context = np.zeros((len(rows), seen + 2 * angles), np.float32)
    calls = [
        lambda: np.asarray(codes.log_pdf(codes.params, rows[:, :d])),
        lambda: np.asarray(turns.log_pdf(turns.params, rows[:, d : d + angles], context=context[:, :seen])),
        lambda: np.asarray(numbers.log_pdf(numbers.params, x, context=context)),
    ]
    for call in calls:
        call()
    return calls


def memory():
    """MiB that scores of a million rows take beside the frame, where one category has 300 values and a condition as many."""
    rng, n = np.random.default_rng(0), 1_000_000
    names = np.array([f"town {i}" for i in range(300)])
    frame = pd.DataFrame(
        {"from": names[rng.integers(0, 300, n)], "to": names[rng.integers(0, 300, n)], "fare": rng.lognormal(size=n)}
    )
    small = frame.iloc[:20_000].reset_index(drop=True)
    result = tables.fit(0, small, model=flows.Flow(flows.NSF()), condition=["from"], max_epochs=1, folds=1, verbose=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result.log_prob(frame)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def as_table(found):
    methods = [method for method in METHODS if any(method in runs for runs in found.values())]
    lines = ["| nats a row | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for name, runs in found.items():
        cells = []
        for method in methods:
            told = runs.get(method)
            text = "" if told is None else f"{told['nats']:.3f}"
            if told is not None and told["ahead"] is not None and method != "NSF":
                text += f", ahead {told['ahead'][0]:+.3f} +- {told['ahead'][1]:.3f}"
            cells.append(text + ("" if told is None else f", {told['seconds']:.0f} s"))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draws_as_table(found):
    heads = ("C2ST", "its AUC", "C2ST as drawn", "labels known", "seconds of the fit", "of as many draws as rows")
    lines = ["| draws | | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    for name, runs in found.items():
        for method, of in runs.items():
            cells = [f"{of['C2ST']:.3f} +- {of['error']:.3f}", f"{of['AUC']:.3f}", f"{of['C2ST as drawn']:.3f}"]
            cells += [f"{of['learned']:.3f}", f"{of['fit']:.0f}", f"{of['draw']:.1f}"]
            lines.append(f"| {name} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS), help="of " + ", ".join(SETS))
    parser.add_argument("--methods", help="of " + ", ".join(METHODS) + "; of --draws: " + ", ".join(DRAWN))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0, help="for each choice among models; of the CPU for --draws")
    parser.add_argument("--draws", action="store_true", help="draws beside those of synthesisers")
    parser.add_argument("--ratios", action="store_true", help="encoding, scores and draws beside each other")
    parser.add_argument("--memory", action="store_true", help="what scores of a million rows take")
    parser.add_argument("--table", action="store_true", help="print what was measured")
    options = parser.parse_args()
    found = records.read(RESULTS)
    if options.table:
        print(as_table(found.get("scores", {})))
        print(draws_as_table(found.get("draws", {})))
        print("\n".join(f"{name}: {value:.3g}" for name, value in found.get("ratios", {}).items()))
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    warnings.simplefilter("ignore")
    if options.ratios or options.memory:
        new = ratios() if options.ratios else {"MiB beside a million rows of 300 classes": memory()}
        found["ratios"] = found.get("ratios", {}) | new
        print(json.dumps(new, indent=1))
    else:
        kind, measure, methods = ("draws", compared, DRAWN) if options.draws else ("scores", measured, METHODS)
        methods = options.methods.split(",") if options.methods else methods
        for name in options.sets.split(","):
            new = measure(name, methods, options.seed, options.minutes)
            found = records.read(RESULTS)  # again, as another run may have written meanwhile
            found.setdefault(kind, {}).setdefault(name, {}).update(new)
            records.write(RESULTS, found)
    records.write(RESULTS, found)


if __name__ == "__main__":
    main()
