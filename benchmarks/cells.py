"""Single wrong cells in tables: rows by their oddest column, beside their density and scikit-learn's detectors.

    python benchmarks/cells.py                          # five tables, five minutes of one core
    python benchmarks/cells.py --sets wine galaxies
    python benchmarks/cells.py --table                  # what was measured

Tables that ship with the project or with scikit-learn. A quarter of the rows, 100 at most, is left out, and each of these
rows gets one wrong cell, in three copies: ten times the value, a tenth of it, and a value of another row that is far off (two
standard deviations, or as far as there is). The model is the best of a Gaussian and a small NSF, or their stack. Measured are
the area under the ROC curve of right and wrong rows, by the scores that `p_value(by=)` ranks, as few rows held out make ties;
the share of wrong cells whose column `contributions` is furthest below its usual value; and the share of right rows with a
p-value by columns of 0.05 or less. The detectors of scikit-learn see standardised numbers, cosine and sine of angles, and
indicators of categories. Written to benchmarks/results/cells.json.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import records
from sets import DATA
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor

import flows
from flows import tables

RESULTS = Path(__file__).resolve().parent / "results" / "cells.json"
TRAIN, TEST = 3_000, 100
EPOCHS = 60
MODELS = {"Gaussian": flows.Normal(), "NSF": flows.Flow(flows.NSF(2, hidden=(32, 32)))}
FAR = 2.0  # standard deviations
METHODS = "columns", "density", "IsolationForest", "LOF"
SLIPS = {"ten times": 10.0, "a tenth": 0.1}
ERRORS = *SLIPS, "another row's"


def weather() -> pd.DataFrame:
    return pd.read_csv(DATA / "weather.csv", parse_dates=["time"]).dropna()


SETS = {
    "diabetes": lambda: load_diabetes(as_frame=True, scaled=False).frame,
    "household": lambda: pd.read_csv(DATA / "household_power.csv"),
    "wine": lambda: load_wine(as_frame=True).data,
    "galaxies": lambda: pd.read_csv(DATA / "galaxies.csv"),
    "weather": weather,
}


def planted(rows: pd.DataFrame, others: pd.DataFrame, names: list[str], error: str, rng: np.random.Generator) -> tuple:
    """The rows with one wrong cell each, and the names of the columns that have it."""
    wrong, where = rows.astype(dict.fromkeys(names, float)), list[str]()
    for i in range(len(rows)):
        for name in rng.permutation(names):
            value, column = wrong[name].iloc[i], others[name].to_numpy(float)
            if error in SLIPS:
                new = value * SLIPS[error]
            else:
                apart = np.abs(column - value)
                new = rng.choice(column[apart >= min(FAR * column.std(), apart.max())])
            if rows[name].dtype.kind == "i":
                new = np.round(new)
            if new != value:
                break
        wrong.loc[wrong.index[i], name] = new
        where.append(str(name))
    return wrong.astype({name: rows[name].dtype for name in names}), np.array(where)


def features(schema: tables.Schema, frame: pd.DataFrame) -> np.ndarray:
    """Rows as the detectors of scikit-learn see them."""
    x, codes, angles = schema.rows(frame, errors="coerce").x, len(schema.codes), len(schema.angles)
    turns = 2 * np.pi * x[:, codes : codes + angles] / np.array(schema.periods or [1.0])[:angles]
    indicators = [x[:, [j]] == np.arange(n) for j, n in enumerate(schema.classes)]
    return np.column_stack([*indicators, np.cos(turns), np.sin(turns), x[:, codes + angles :]]).astype(float)


def scores(result: tables.TableResult, frame: pd.DataFrame, usual: pd.Series) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores of rows by columns and by density, least where a row is odd; and the names of the odd columns."""
    below = (result.contributions(frame, errors="coerce", verbose=0) - usual).fillna(np.inf)
    by = {"columns": below.min(axis=1).to_numpy(), "density": result.log_prob(frame, errors="coerce")}
    return by, below.idxmin(axis=1).to_numpy()


def area(right: np.ndarray, wrong: np.ndarray) -> float:
    both = np.nan_to_num(np.concatenate([right, wrong]), neginf=-1e300)
    return float(roc_auc_score(np.repeat([1, 0], [len(right), len(wrong)]), both))


def measured(name: str, seed: int) -> dict:
    began = time.process_time()
    frame, rng = SETS[name](), np.random.default_rng(seed)
    order, count = rng.permutation(len(frame)), min(TEST, len(frame) // 4)
    right, train = (frame.iloc[places].reset_index(drop=True) for places in (order[:count], order[count : count + TRAIN]))
    result = tables.fit(seed, train, model=MODELS, max_epochs=EPOCHS, verbose=0)
    usual = result.contributions(result.draw(0, 256), verbose=0).median(numeric_only=True)
    seen = features(result.schema, train)
    mean, std = seen.mean(0), np.maximum(seen.std(0), 1e-9)
    detectors = {"IsolationForest": IsolationForest(random_state=seed), "LOF": LocalOutlierFactor(novelty=True)}
    for detector in detectors.values():
        detector.fit((seen - mean) / std)

    def judged(rows: pd.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray]:
        by, odd = scores(result, rows, usual)
        of_rows = (features(result.schema, rows) - mean) / std
        return by | {one: detector.score_samples(of_rows) for one, detector in detectors.items()}, odd

    of_right, _ = judged(right)
    p_values = result.p_value(right, by="columns", errors="coerce", verbose=0)
    numbers = [column for column in result.schema.numbers if frame[column].dtype.kind in "if"]
    told = {"fit": {"rows": len(train), "columns": len(result.schema.columns), "wrong rows": count}}
    told["fit"]["p at most 0.05"] = float((p_values <= 0.05).mean())
    for error in ERRORS:
        wrong, where = planted(right, train, numbers, error, rng)
        of_wrong, odd = judged(wrong)
        told[error] = {method: area(of_right[method], of_wrong[method]) for method in METHODS}
        told[error]["right column"] = float((odd == where).mean())
    told["fit"]["seconds"] = time.process_time() - began
    return told


def table(found: dict) -> str:
    lines = [["table", "wrong cell", *METHODS, "right column", "right rows with p at most 0.05"], ["---"] * 8]
    for name, told in found.items():
        fit = told["fit"]
        for at, error in enumerate(ERRORS):
            of_table = f"{name}, {fit['rows']:,} rows of {fit['columns']} columns"
            alarms = f"{fit['p at most 0.05']:.0%} of {fit['wrong rows']}"
            areas = [f"{told[error][method]:.3f}" for method in METHODS]
            cells = [of_table * (not at), error, *areas, f"{told[error]['right column']:.0%}", alarms * (not at)]
            lines.append(cells)
    for error in ERRORS:
        means = {each: np.mean([told[error][each] for told in found.values()]) for each in (*METHODS, "right column")}
        areas = [f"{means[method]:.3f}" for method in METHODS]
        lines.append(["mean" * (error == ERRORS[0]), error, *areas, f"{means['right column']:.0%}", ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=[*SETS], choices=SETS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = records.read(options.out)
    if not options.table:
        warnings.simplefilter("ignore")
        for name in options.sets:
            found[name] = measured(name, options.seed)
            print(name, found[name], flush=True)
            records.write(options.out, {each: found[each] for each in SETS if each in found})
    print(table(found))


if __name__ == "__main__":
    main()
