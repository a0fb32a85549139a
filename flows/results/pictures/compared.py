"""What a picture shows: draws of a model beside rows, as arrays, and what has to be said of them."""

from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError


class Compared(NamedTuple):
    """Draws beside rows.

    Attributes:
        rows: (m, *event), at most as many as draws are asked for; None where there are none.
        draws: (n, *event).
        of_rows, of_draws: what they are, for a legend.
        notes: remarks below the picture.
        context: (m, *context), of the rows, or (*context,) of all draws; None without.
    """

    rows: Any
    draws: Any
    of_rows: str
    of_draws: str
    notes: list[str]
    context: Any = None

    def of(self, places: list[int]) -> "Compared":
        """These columns of vectors alone."""
        return self._replace(rows=None if self.rows is None else self.rows[:, places], draws=self.draws[:, places])


def some(rng: np.random.Generator, n: int, *arrays: Any) -> list[Any]:
    """The same rows of each array, at most n, in the order they were in."""
    count = len(next(array for array in arrays if array is not None))
    chosen = np.sort(rng.permutation(count)[:n])
    return [None if array is None else array[chosen] for array in arrays]


def counted(shown: int, total: int, what: str) -> str:
    return f"{total:,} {what}" if shown == total else f"{shown:,} of {total:,} {what}"


def check_finite(rows: np.ndarray, what: str) -> None:
    """Refuse rows, or contexts, that have no place."""
    bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(1))
    if len(bad):
        raise FlowsError(
            f"plot: {len(bad)} of {len(rows)} {what} have NaN or inf, the first is row {bad[0]}; drop or fill them"
        )


def finite_of(draws: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Draws that have a place, and a remark on others."""
    usable = np.isfinite(draws.reshape(len(draws), -1)).all(1)
    if usable.all():
        return draws, []
    if not usable.any():
        raise FlowsError(f"plot: none of {len(draws)} draws is finite; see result.verify(rows) for where the model fails")
    return draws[usable], [f"{int((~usable).sum()):,} draws are not finite"]
