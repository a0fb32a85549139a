"""What importance weights say of a fit to a density: how far each draw's is from what it were if the model were the target."""

from typing import Any

import numpy as np

from flows.results.pictures.style import Colours

BINS = 40
LEAST = 0.05  # nats on each side, as rounding alone is no shape
TAIL = 0.002  # of the weights, beyond each end of the axis


def importance(axes: Any, log_weights: np.ndarray, diagnostics: Any, shown: Colours) -> None:
    """A histogram of log w - log Z in nats, 0 where model and target agree, with what is to be read off it."""
    finite = log_weights[np.isfinite(log_weights)] - diagnostics.log_normalizer.value
    low, high = np.quantile(finite, (TAIL, 1 - TAIL))
    room = max(0.1 * (high - low), LEAST)
    low, high = min(low, 0.0) - room, max(float(finite.max()), 0.0) + room  # the largest are what spoils estimates
    bins = np.linspace(low, high, BINS + 1)
    heights = np.histogram(finite, bins)[0] / (len(log_weights) * np.diff(bins))
    axes.set_yscale("log")  # as few large weights are what matters
    axes.stairs(heights, bins, fill=True, color=shown.third, alpha=0.6)
    axes.axvline(0.0, color=shown.third, linewidth=1.0, linestyle="--")
    axes.set(xlim=(low, high), ylim=(0.5 / len(log_weights) / (bins[1] - bins[0]), 2 * heights.max()), yticks=[])
    axes.set_xlabel("log w - log Z, nats")
    axes.text(0.98, 0.97, "log scale", transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.minorticks_off()
    axes.spines["left"].set_visible(False)
    axes.get_xaxis().get_major_locator().set_params(nbins=4)
    axes.set_title(
        f"importance weights, Pareto k {diagnostics.pareto_k:.2f}\neffective sample size "
        f"{diagnostics.effective_sample_size:.0%}",
        fontsize=9,
    )
