"""Columns of rows as numbers that statistics can compare: angles as cosine and sine, codes as zeros and ones."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from flows.core import Region

COMMON = 20  # rows and draws that have a code, below which it is too rare to be correlated with anything


class Column(NamedTuple):
    """One column of flat rows: its name, where it is, the period of an angle, or the number of classes of codes and what these
    are called."""

    name: str
    place: int
    period: float = 0.0
    classes: int = 0
    called: tuple[str, ...] = ()

    def code(self, code: float) -> str:
        """Return the name of a code."""
        known = code == int(code) and 0 <= code < len(self.called)
        return self.called[int(code)] if known else f"code {code:g}"


def columns_of(
    names: tuple[str, ...], region: Region | None, categories: Mapping[str, tuple[str, ...]] | None = None
) -> list[Column]:
    """Return the columns of the entries of an event, in order, and what codes are called, by column."""
    called = categories or {}
    count = len(names)
    period, classes = (
        np.zeros(count) if region is None else np.broadcast_to(np.asarray(field).ravel(), (count,))
        for field in (getattr(region, "period", 0), getattr(region, "classes", 0))
    )
    return [Column(name, j, float(period[j]), int(classes[j]), called.get(name, ())) for j, name in enumerate(names)]


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
