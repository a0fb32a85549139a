"""The cause of a loss or a gradient that is not finite: the row and the column, the layer, or the params."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, DistributionPart, first_nonfinite_layer, pieces_of, stop_fixed
from flows.training.data.table import Rows, Table, floating, take

SHOWN = 3  # leaves that are named
TOO_LARGE = "losses and gradients are finite, but the updates of the optimizer are too large"


def cause(
    part: DistributionPart, params: Any, table: Table, train: bool, key: Array, deviations: Callable[[Array], Any]
) -> str:
    """Say where log_pdf, or its gradient in training, is not finite among rows; `deviations` of rows are their columns in
    standard deviations from the means."""
    rows, rng = floating(table.rows), key if "rng" in part.keywords else None

    def log_pdf(params: Any, rows: Rows) -> Array:
        return part.log_pdf(stop_fixed(params), rows.x, rows.context, rng, train)

    pieces = [take(rows, piece) for piece in pieces_of(len(rows.x), rows.x.shape[1:])]
    values = np.concatenate([np.asarray(log_pdf(params, piece), float) for piece in pieces])
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        one = take(rows, bad[:1])
        layer = first_nonfinite_layer(lambda: log_pdf(params, one))
        flat = deviations(one.x).reshape(-1, one.x.shape[-1])
        far = np.unravel_index(np.abs(flat).argmax(), flat.shape)
        where = f", which {layer} is the first to return" if layer else ""
        return (
            f"log_pdf is {values[bad[0]]} at row {table.numbers[bad[0]]} of {table.source}{where}; of the row's columns, "
            f"{far[1]} is farthest out: {flat[far]:.3g} standard deviations from the mean"
        )
    if not train:
        return TOO_LARGE
    gradient = jax.grad(lambda params: -log_pdf(params, rows).mean())(params)
    leaves = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if not bool(jnp.isfinite(leaf).all())
    ]
    if leaves:
        more = f" and {len(leaves) - SHOWN} more" if len(leaves) > SHOWN else ""
        return f"the gradient is not finite in {', '.join(leaves[:SHOWN])}{more}"
    return TOO_LARGE
