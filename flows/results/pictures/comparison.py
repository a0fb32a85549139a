"""Draws next to rows: both as arrays, and where they are images, their sheets."""

from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError, Shape
from flows.results.pictures.style import explained, styled

ACROSS = 6  # images in a line of a sheet
MOST = ACROSS * ACROSS  # in a sheet
SIDE = 3.6  # of a sheet, in inches
TALLEST = 9.0  # of a sheet, in inches
GAP = 0.08  # between images, of their width


class Compared(NamedTuple):
    """Draws next to rows.

    Attributes:
        rows: (m, *event), at most as many as draws are asked for; None where there are none.
        draws: (n, *event).
        rows_label, draws_label: their labels in a legend.
        notes: remarks below the picture.
        context: (m, *context), for the rows, or (*context,) for all draws; None without a context.
    """

    rows: Any
    draws: Any
    rows_label: str
    draws_label: str
    notes: list[str]
    context: Any = None

    def of(self, places: list[int]) -> "Compared":
        """Return these columns of vectors alone."""
        return self._replace(rows=None if self.rows is None else self.rows[:, places], draws=self.draws[:, places])


def some(rng: np.random.Generator, n: int, *arrays: Any) -> list[Any]:
    """Return the same rows of each array, at most n, in the order they were in."""
    count = len(next(array for array in arrays if array is not None))
    chosen = np.sort(rng.permutation(count)[:n])
    return [None if array is None else array[chosen] for array in arrays]


def check_finite(rows: np.ndarray, what: str) -> None:
    """Refuse rows, or contexts, that are not finite."""
    bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(1))
    if len(bad):
        raise FlowsError(
            f"plot: {len(bad)} of {len(rows)} {what} have NaN or inf, the first is row {bad[0]}; drop or fill them"
        )


def finite_of(draws: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return finite draws, and a remark on the others."""
    usable = np.isfinite(draws.reshape(len(draws), -1)).all(1)
    if usable.all():
        return draws, []
    if not usable.any():
        raise FlowsError(f"plot: none of {len(draws)} draws is finite; see result.verify(rows) for where the model fails")
    return draws[usable], [f"{int((~usable).sum()):,} draws are not finite"]


def check_images(event: Shape) -> None:
    """Refuse events that are neither vectors nor images."""
    if len(event) not in (2, 3) or event[2:] not in ((), (1,), (3,)):
        raise FlowsError(f"plot: the event is {event}; expected a vector, or an image of 1 or 3 channels, (height, width, 3)")


def sheets(compared: Compared) -> Any:
    """Draw the figure, in which the darkest and the lightest value of the rows, or else of the draws, are black and white."""
    parts = [(compared.rows_label, compared.rows), (compared.draws_label, compared.draws)][compared.rows is None :]
    low, high = float(parts[0][1].min()), float(parts[0][1].max())
    with styled() as plt:
        height, width = compared.draws.shape[1:3]
        figure, panels = plt.subplots(
            1, len(parts), squeeze=False, figsize=(SIDE * len(parts), min(SIDE * height / width, TALLEST) + 0.4)
        )
        figure.get_layout_engine().set(wspace=0.06)
        for axes, (name, images) in zip(panels[0], parts, strict=True):
            axes.imshow(mosaic(np.clip((images - low) / ((high - low) or 1.0), 0.0, 1.0)))
            axes.set_anchor("N")
            axes.set_title(name)
            axes.axis("off")
        explained(figure, [], compared.notes)
    return figure


def mosaic(images: np.ndarray) -> np.ndarray:
    """Put images in [0, 1], (n, height, width) or with channels, in lines: (height, width, 4), clear between them."""
    channels = images.reshape(*images.shape[:3], -1)
    n, height, width, _ = channels.shape
    gap = max(1, round(GAP * width))
    lines = -(-n // ACROSS)
    whole = np.zeros((lines * (height + gap) - gap, min(n, ACROSS) * (width + gap) - gap, 4))
    for k, image in enumerate(channels):
        top, left = (height + gap) * (k // ACROSS), (width + gap) * (k % ACROSS)
        whole[top : top + height, left : left + width, :3] = image
        whole[top : top + height, left : left + width, 3] = 1.0
    return whole
