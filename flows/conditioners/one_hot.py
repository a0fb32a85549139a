"""Labels as contexts. Family: Labels."""

from typing import Any

import jax
import numpy as np

from flows.core import Array, FlowsError, default_dtype, on_device, positive_int


def one_hot(labels: Any, classes: int) -> Array:
    """Labels 0 .. classes - 1 as rows of zeros with a single one: the context of a model of classes.

    To a network, a column of labels would be a number: class 4 would be twice class 2, and class 99 of 10 would have a density.
    A context of zeros stands for no class, with `standardize_context` too.

    Args:
        labels: whole numbers, (rows,).
        classes: the number of classes.

    Returns:
        (rows, classes), floating.

    Errors:
        FlowsError: labels that are not whole numbers from 0 to classes - 1, or not of one axis.

    Example:
        >>> import flows
        >>> flows.one_hot([2, 0], 3).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    classes = positive_int(classes, "one_hot: classes")
    if isinstance(labels, jax.core.Tracer):
        raise FlowsError("one_hot: labels are traced, and cannot be checked; call it outside of jit")
    try:
        values = np.asarray(labels)
    except ValueError as error:
        raise TypeError(f"one_hot: labels cannot be read as one array ({error}); expected whole numbers, (rows,)") from None
    if values.ndim != 1:
        column = ": give labels[:, 0]" if values.ndim == 2 and values.shape[1] == 1 else ""
        raise FlowsError(f"one_hot: labels have shape {values.shape}; expected (rows,){column}")
    if values.dtype.kind not in "iuf" or not (np.isfinite(values) & (values == np.trunc(values))).all():
        raise FlowsError(f"one_hot: labels are {values[:5]!r:.80}; expected whole numbers from 0 to {classes - 1}")
    outside = (values < 0) | (values >= classes)
    if outside.any():
        row = int(outside.argmax())
        raise FlowsError(f"one_hot: the label of row {row} is {values[row]!s}; expected whole numbers from 0 to {classes - 1}")
    return on_device(values[:, None] == np.arange(classes), default_dtype())
