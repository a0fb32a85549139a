"""A result in a notebook: what its repr says, and the curve of its losses, as HTML without any library."""

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

WIDTH = 420  # of the picture, in pixels
HEIGHT = 160  # of the picture, in pixels
ROOM = 6  # around the curves, in pixels
COLORS = {"train_loss": "#b0b0b0", "validation_loss": "#2166ac"}
MARK = "display:inline-block; width:1em; height:3px; vertical-align:middle; background:"  # beside a name, which stays legible


def page_of(lines: Sequence[tuple[str, str]], history: Any) -> str:
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name.strip())}</th>'
        f'<td style="text-align:left">{html.escape(text)}</td></tr>'
        for name, text in lines
    )
    return f"<div><table>{rows}</table>{_curve(history)}</div>"


def _curve(history: Any) -> str:
    """The losses by epoch as an SVG, cut where the first epochs are far above all others; "" where there are none."""
    losses = {name: np.atleast_2d(np.asarray(history[name], float)) for name in COLORS if name in history}
    shown = np.concatenate([array.ravel() for array in losses.values()]) if losses else np.zeros(0)
    shown = shown[np.isfinite(shown)]
    epochs = max((array.shape[1] for array in losses.values()), default=0)
    if epochs < 2 or not len(shown):
        return ""
    low, high = float(shown.min()), float(np.quantile(shown, 0.95))
    high += (high - low) / 10 or 0.1

    def line(values: np.ndarray, color: str) -> str:
        wide, tall = (WIDTH - 2 * ROOM) / (epochs - 1), (HEIGHT - 2 * ROOM) / (high - low)
        points = [
            f"{ROOM + wide * i:.1f},{ROOM + tall * (high - value):.1f}"
            for i, value in enumerate(np.minimum(values, high))
            if math.isfinite(value)
        ]
        return f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="1.5"/>'

    curves = "".join(line(values, COLORS[name]) for name, array in losses.items() for values in array)
    key = ", ".join(f'<span style="{MARK}{COLORS[name]}"></span> {name.replace("_", " ")}' for name in losses)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" style="max-width:100%" role="img" '
        f'aria-label="losses by epoch">{curves}</svg>'
        f"<div>{key}: {history.unit} by epoch, from {low:.3f} to {high:.3f}</div>"
    )
