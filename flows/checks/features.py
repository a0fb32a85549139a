"""Columns of rows as numbers that statistics can compare: angles as cosine and sine, codes as zeros and ones."""

from typing import Any

import numpy as np

from flows.results.columns import Column

COMMON = 20  # rows and draws that have a code, below which it is too rare to be correlated with anything


def as_numbers(column: Column, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the numbers that stand for a column of flat rows (..., columns), by name."""
    values = x[..., column.place]
    if column.classes:
        return {f"{column.name} = {column.code(code)}": (values == code).astype(np.float32) for code in range(column.classes)}
    if column.period:
        turned = 2 * np.pi / column.period * values
        return {f"cos {column.name}": np.cos(turned), f"sin {column.name}": np.sin(turned)}
    return {column.name: values}


def features(columns: list[Column], *samples: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    """All columns of flat samples as numbers, (..., features), and what these are; without codes that are rare, and without the
    last of those that are not, which the others tell."""
    names, found = list[str](), list[list[np.ndarray]]()
    for column in columns:
        each = [as_numbers(column, x) for x in samples]
        kept: list[Any] = list(each[0])
        if column.classes:
            kept = [name for name in kept if all(of[name].sum() >= COMMON for of in each)]
            kept = kept[: max(len(kept) - 1, 1)]
        names += kept
        found += [[of[name] for of in each] for name in kept]
    return names, [np.stack([of[i] for of in found], -1) if found else x[..., :0] for i, x in enumerate(samples)]
