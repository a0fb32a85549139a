"""Sheets of images: draws beside rows."""

from typing import Any

import numpy as np

from flows.core import FlowsError, Shape
from flows.results.pictures.columns import Compared
from flows.results.pictures.style import explained, styled

ACROSS = 6  # images in a line of a sheet
MOST = ACROSS * ACROSS  # in a sheet
SIDE = 3.6  # of a sheet, in inches
TALLEST = 9.0  # of a sheet, in inches
GAP = 0.08  # between images, of their width


def check_images(event: Shape) -> None:
    """Refuse events that are neither vectors nor images."""
    if len(event) not in (2, 3) or event[2:] not in ((), (1,), (3,)):
        raise FlowsError(f"plot: the event is {event}; expected a vector, or an image of 1 or 3 channels, (height, width, 3)")


def sheets(compared: Compared) -> Any:
    """The figure, in which the darkest and the lightest value of the rows, or else of the draws, are black and white."""
    parts = [(compared.of_rows, compared.rows)] if compared.rows is not None else []
    scale = compared.draws if compared.rows is None else compared.rows
    low, high = float(scale.min()), float(scale.max())
    parts.append((compared.of_draws, compared.draws))
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
    """Images in [0, 1], (n, height, width) or with channels, in lines: (height, width, 4), clear between them."""
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
