"""A result in words: the lines of its repr, and the same as HTML in a notebook, with the curve of its losses, without any
library.
"""

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.bijections.whiten import Whiten
from flows.core import DistributionInit, ModelValue, Shape, as_event
from flows.results.history import ends_of_curves

OF_LABELS = {
    "unbiased": "unbiased: exact without rng, with it an estimate",
    "lower bound": "lower bound with rng; without, the density at the recorded value",
}
SHOWN = 6  # columns that are named
WIDTH = 420  # of the picture, in pixels
HEIGHT = 160  # of the picture, in pixels
ROOM = 6  # around the curves, in pixels
COLORS = {"train_loss": "#b0b0b0", "validation_loss": "#2166ac"}
MARK = "display:inline-block; width:1em; height:3px; vertical-align:middle; background:"  # next to a name, which stays legible


def summary(result: Any) -> list[tuple[str, str]]:
    """Return the lines of a result's repr: names and texts."""
    history, shape = result.history, as_event(result.input_dim)
    names = "" if result.columns is None else f" ({', '.join(result.columns[:4])}{', ...' * (len(result.columns) > 4)})"
    event = f"{shape[0]} column{'s' * (shape[0] != 1)}{names}" if len(shape) == 1 else f"events {shape}"
    lines = [(type(result).__name__, f"{int(history['rows']):,} rows of {event}" if "rows" in history else event)]
    lines.append(("  model", f"{result.init_fun!r:.100}{'...' * (len(repr(result.init_fun)) > 100)}"))
    if freed := freed_columns(result.init_fun, shape, result.columns):
        lines.append(("  columns", freed))
    if isinstance(result.init_fun, ModelValue) and result.init_fun.likelihood != "exact":
        lines.append(("  likelihood", OF_LABELS[result.init_fun.likelihood]))
    if "validation_loss" in history:
        lines.append(("  fit", judged(history)))
        if "gaussian_loss" in history:
            lines.append(("  Gaussian", f"log-likelihood {-float(history['gaussian_loss']):.3f}, of the same rows"))
        lasted = "" if result.seconds is None else f", {result.seconds:.1f} s"
        if "stacked" in history:
            together = " together" if lasted else ""
            return [*lines, ("  training", f"a stack of {int(history['stacked'])} models{lasted}{together}")]
        epochs, which = np.shape(history["validation_loss"])[-1], sorted(set(np.ravel(history["best_epoch"]).tolist()))
        number = " to ".join(map(str, which[:1] + which[1:][-1:]))
        outcome = f"best epoch {number} of {epochs}" if which[-1] >= 0 else f"kept the start, of {epochs} epochs"
        lines.append(("  training", outcome + lasted))
    return lines


def judged(history: Any) -> str:
    """Return the validation loss of the best epoch in words, with the number of its rows."""
    best, error = history.best, float(np.mean(history.get("error", np.nan)))
    if "held_out" not in history:  # a fit to a density
        return f"loss {best:.3f} nats"
    spread = f" +- {error:.3f}" if np.isfinite(error) else ""
    value = f"log-likelihood {-best:.3f}{spread} nats" if history.objective is None else f"{history.objective} {best:.4g}"
    weighed = f", as good as {float(history['effective']):,.0f} of equal weight" if "effective" in history else ""
    return f"{value}, of {int(history['held_out']):,} rows held out{weighed}"


def freed_columns(init_fun: Any, event: Shape, names: Sequence[str] | None) -> str:
    """Return in words the columns that a model frees of their dependence on the columns before, or ""."""
    within = [init_fun, *init_fun.values_within()] if isinstance(init_fun, DistributionInit) else []
    layers = [value.arguments for value in within if value.constructor is Whiten]
    if not layers or len(event) != 1:
        return ""
    stay = {0}.union(set.intersection(*({*arguments["unmixed"], *arguments["as_is"]} for arguments in layers)))
    freed = [repr(names[j]) if names else str(j) for j in range(event[0]) if j not in stay]
    if 0 < len(freed) == event[0] - 1:
        return "each is freed of those before it"
    if len(freed) > SHOWN:
        return f"{len(freed)} are freed of those before them, which tell nearly all of each"
    if len(freed) == 1:
        return f"column {freed[0]} is freed of those before it"
    return f"columns {', '.join(freed)} are freed of those before them" if freed else ""


def page_of(lines: Sequence[tuple[str, str]], history: Any) -> str:
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name.strip())}</th>'
        f'<td style="text-align:left">{html.escape(text)}</td></tr>'
        for name, text in lines
    )
    return f"<div><table>{rows}</table>{_curve(history)}</div>"


def _curve(history: Any) -> str:
    """Return the losses by epoch as an SVG, cut where the first epochs are far above all others; "" without losses."""
    losses = {name: np.atleast_2d(np.asarray(history[name], float)) for name in COLORS if name in history}
    ends = ends_of_curves(*losses.values())
    epochs = max((array.shape[1] for array in losses.values()), default=0)
    if epochs < 2 or ends is None:
        return ""
    low, high = ends
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
