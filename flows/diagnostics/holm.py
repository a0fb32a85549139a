"""Holm's rule for several tests at once."""

from typing import Any

import numpy as np

from flows.core import FlowsError, on_a_line


def holm(p: Any) -> np.ndarray:
    """Raise p-values of several tests, so that by chance any of them is below a level with at most this probability:

        adjusted p_(i) = max_{j <= i} min(1, (tests - j + 1) p_(j)),   p_(1) <= p_(2) <= ...

    whatever the tests have in common.

    Args:
        p: p-values, (tests,); NaN is a test without a result, which does not count.

    Returns:
        Adjusted p-values, (tests,), in their order.

    Errors:
        FlowsError: values outside [0, 1]; more than one axis.

    Source:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.

    Example:
        >>> import flows
        >>> flows.diagnostics.holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
        [0.03, 0.06, 0.06, 0.02]
    """
    try:
        values = np.asarray(p, float)
    except (TypeError, ValueError):
        values = np.full((1, 1), np.nan)
    if values.ndim != 1 or (values < 0).any() or (values > 1).any():
        raise FlowsError(f"holm: p is {on_a_line(p)}; expected p-values from 0 to 1, of shape (tests,)")
    order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()]  # NaN is last
    adjusted = np.full(values.shape, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return adjusted
