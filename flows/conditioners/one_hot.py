"""Labels as contexts. Family: Labels."""

from typing import Any

import jax
import numpy as np

from flows.core import Array, FlowsError, default_dtype, on_device, positive_int


def one_hot(labels: Any, classes: int) -> Array:
    """Labels 0 .. classes - 1 as rows of zeros with a one: the context of a model of classes.

    A column of labels would be a number to a network, of which class 4 is twice class 2, and class 99 of 10 has a density. The
    context of zeros stands for no class, under `standardize_context` too.

    Args:
        labels: whole numbers, (rows,).
        classes: how many there are.

    Returns:
        (rows, classes), floating.

    Errors:
        FlowsError: labels that are no whole numbers from 0 to classes - 1, or not of one axis.

    Example:
        >>> import flows
        >>> flows.one_hot([2, 0], 3).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    classes = positive_int(classes, "one_hot: classes")
    if isinstance(labels, jax.core.Tracer):
        raise FlowsError("one_hot: labels are traced, and cannot be checked; call it outside of jit")
    try:
        given = np.asarray(labels)
    except ValueError as error:
        raise TypeError(f"one_hot: labels cannot be read as one array ({error}); expected whole numbers, (rows,)") from None
    if given.ndim != 1:
        column = ": give labels[:, 0]" if given.ndim == 2 and given.shape[1] == 1 else ""
        raise FlowsError(f"one_hot: labels have shape {given.shape}; expected (rows,){column}")
    if given.dtype.kind not in "iuf" or not (np.isfinite(given) & (given == np.trunc(given))).all():
        raise FlowsError(f"one_hot: labels are {given[:5]!r:.80}; expected whole numbers from 0 to {classes - 1}")
    outside = (given < 0) | (given >= classes)
    if outside.any():
        row = int(outside.argmax())
        raise FlowsError(f"one_hot: the label of row {row} is {given[row]!s}; expected whole numbers from 0 to {classes - 1}")
    return on_device(given[:, None] == np.arange(classes), default_dtype())
