"""Why a loss or a gradient is not finite: which row and column, which layer, which of the params."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, DistributionPart
from flows.core.params import stop_fixed
from flows.core.watch import first_not_finite
from flows.training.data import Rows, take

SHOWN = 3  # leaves that are named


def cause(part: DistributionPart, params: Any, rows: Rows, numbers: np.ndarray, key: Array) -> str:
    """`rows` are those of a step that was not taken, standardised; `numbers` are theirs in the data given."""
    rng = key if "rng" in part.keywords else None

    def log_pdf(params: Any, rows: Rows) -> Array:
        return part.log_pdf(stop_fixed(params), rows.x, rows.context, rng, True)

    values = np.asarray(log_pdf(params, rows), float)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        one = take(rows, bad[:1])
        layer = first_not_finite(lambda: log_pdf(params, one))
        flat = np.asarray(one.x, float).reshape(-1, one.x.shape[-1])
        far = np.unravel_index(np.abs(flat).argmax(), flat.shape)
        where = f", which {layer} is the first to return" if layer else ""
        return (
            f"log_pdf is {values[bad[0]]} at row {numbers[bad[0]]} of data{where}; of the row's columns, {far[1]} is farthest "
            f"out: {flat[far]:.3g} standard deviations from the mean"
        )
    gradient = jax.grad(lambda params: -log_pdf(params, rows).mean())(params)
    leaves = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if not bool(jnp.isfinite(leaf).all())
    ]
    if leaves:
        more = f" and {len(leaves) - SHOWN} more" if len(leaves) > SHOWN else ""
        return f"the gradient is not finite in {', '.join(leaves[:SHOWN])}{more}"
    return "losses and gradients are finite, but the updates of the optimizer are too large"
