"""How alike draws and rows are: whether boosted trees tell them apart, and whether trees that learn from draws know rows.

Frames are compared as numbers: dates as seconds, categories as their places in alphabetical order, told to the trees as such.
What a column does not have is NaN.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score


class Told(NamedTuple):
    """How well a classifier tells draws from rows: 0.5 where it has to guess, 1 where it never errs."""

    accuracy: float
    error: float  # of the accuracy
    auc: float


def as_numbers(*tables: Any) -> tuple[list[np.ndarray], list[int]]:
    """Each table (rows, columns), float, and which columns are categories; arrays stay what they are."""
    if not all(isinstance(table, pd.DataFrame) for table in tables):
        return [np.asarray(table, float) for table in tables], []
    columns, categories = list(tables[0].columns), list[int]()
    found = [np.empty((len(table), len(columns))) for table in tables]
    for j, name in enumerate(columns):
        parts = [table[name] for table in tables]
        if all(pd.api.types.is_datetime64_any_dtype(part) for part in parts):
            values = [part.astype("int64") / 10 ** {"s": 0, "ms": 3, "us": 6, "ns": 9}[part.dt.unit] for part in parts]
        elif all(pd.api.types.is_numeric_dtype(part) for part in parts):
            values = [part.astype(float) for part in parts]
        else:
            names = sorted(set().union(*(part.dropna().astype(str) for part in parts)))
            places = {each: i for i, each in enumerate(names)}
            values = [part.map(str, na_action="ignore").map(places).astype(float) for part in parts]
            categories.append(j)
        for table, value in zip(found, values, strict=True):
            table[:, j] = value
        if j not in categories:  # 39.02 and 39.02 + 1e-14 are one value, however they were computed
            whole = np.concatenate([table[:, j] for table in found])
            least, width = np.nanmin(whole), np.ptp(whole[~np.isnan(whole)]) or 1.0
            for table in found:
                table[:, j] = np.round((table[:, j] - least) / width, 9)
    return found, categories


def told_apart(draws: Any, rows: Any, seed: int = 0) -> Told:
    """Of as many draws as rows: trees learn from one half of both and are asked about the other, and the other way round."""
    count = min(len(draws), len(rows))
    (a, b), categories = as_numbers(draws[:count], rows[:count])
    x, y = np.concatenate([a, b]), np.repeat([0, 1], count)
    half = np.random.default_rng(seed).permutation(2 * count) < count
    said = np.empty(2 * count)
    for asked in (half, ~half):
        model = HistGradientBoostingClassifier(categorical_features=categories, random_state=seed)
        said[asked] = model.fit(x[~asked], y[~asked]).predict_proba(x[asked])[:, 1]
    right = float(np.mean((said > 0.5) == y))
    return Told(right, float(np.sqrt(right * (1 - right) / len(y))), float(roc_auc_score(y, said)))


def learned(draws: Any, rows: Any, labels: Any, truth: Any, seed: int = 0) -> float:
    """The share of rows whose label, the truth, a classifier knows that has learned from draws and theirs."""
    (a, b), categories = as_numbers(draws, rows)
    model = HistGradientBoostingClassifier(categorical_features=categories, random_state=seed)
    return float(np.mean(model.fit(a, np.asarray(labels)).predict(b) == np.asarray(truth)))
