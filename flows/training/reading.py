"""The rows that `fit` is given: read, judged, split and measured before the first step. Each refusal says what to do."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core import Array, FlowsError
from flows.core.inputs import as_array, working_dtype
from flows.core.validation import check_finite

LEAST_ROWS = 2  # of training rows; one row has no spread


class Rows(NamedTuple):
    """Rows of data, (rows, *event), with their context, (rows, *context), and their weights, (rows,); or None."""

    x: Any
    context: Any = None
    weights: Any = None


def take(rows: Rows, index: Any) -> Rows:
    return jax.tree.map(lambda array: array[index], rows)


def read(
    data: Any, context: Any, name: str = "data", of_context: str = "context", weights: Any = None
) -> tuple[Rows, np.dtype]:
    """Data, context and weights as finite NumPy arrays that keep their digits, and the dtype to work in."""
    x = _numbers(data, name)
    if x.ndim < 2:
        raise FlowsError(
            f"fit: {name} has shape {x.shape}, expected (rows, *event) with at least two axes. One column is {name}[:, None]; "
            f"a single row, {name}[None], is too little to learn from"
        )
    if 0 in x.shape[1:]:
        raise FlowsError(f"fit: {name} has shape {x.shape}: rows without entries; expected at least one column")
    dtype = working_dtype(jax.dtypes.canonicalize_dtype(x.dtype))
    check_finite(x, dtype, f"fit: {name}")
    w = None if weights is None else _weights(weights, len(x))
    if context is None:
        return Rows(x, None, w), dtype
    c = _numbers(context, of_context)
    if c.ndim < 2 or len(c) != len(x):
        raise FlowsError(
            f"fit: {of_context} has shape {c.shape}, expected ({len(x)}, *context): one row for each row of {name}. One column "
            f"is {of_context}[:, None]"
        )
    check_finite(c, dtype, f"fit: {of_context}")
    return Rows(x, c, w), dtype


def _weights(weights: Any, rows: int) -> np.ndarray:
    w = _numbers(weights, "weights")
    if w.shape != (rows,):
        raise FlowsError(f"fit: weights have shape {w.shape}, expected ({rows},): one for each row of data")
    w = w.astype(float)
    with np.errstate(invalid="ignore"):
        w = w / w.max() if w.size and 0 < w.max() < np.inf else w  # their ratios alone matter
    if not np.isfinite(w).all() or (w < 0).any() or not w.any():
        wrong = f"the one of row {np.flatnonzero(~np.isfinite(w) | (w < 0))[0]} is not so" if w.any() else "all are 0"
        raise FlowsError(f"fit: weights have to be finite and 0 or more, some above 0; {wrong}")
    return w


def as_share(validation: Any) -> float | None:
    """The share of rows to hold out; None where rows are given instead."""
    if isinstance(validation, tuple | list) or (not isinstance(validation, str) and np.ndim(validation) > 0):
        return None
    try:
        share = math.nan if isinstance(validation, bool | str) else float(validation)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 < share < 1:
        raise FlowsError(
            f"fit: validation is {validation!r:.80}; expected the share of rows to hold out, between 0 and 1, or rows"
        )
    return share


def check_names(validation: Any, names: list[str] | None) -> None:
    """A table to validate on has the columns of the data, in their order."""
    own = column_names(validation)
    if names is not None and own is not None and own != names:
        raise FlowsError(
            f"fit: validation has the columns {_shown(own)}, data has {_shown(names)}; expected the same, in order"
        )


def _shown(names: list[str]) -> str:
    return f"{', '.join(map(str, names))!s:.100}"


def read_validation(validation: Any, rows: Rows) -> Rows:
    """Given rows to validate on, or a pair of them and their context, like those to train on."""
    pair = isinstance(validation, tuple) and len(validation) == 2
    if rows.context is not None and (not pair or validation[1] is None):
        raise FlowsError("fit: validation is rows alone; expected a pair (data, context), as there is a context")
    if rows.context is None and pair and any(np.ndim(each) != rows.x.ndim - 1 for each in validation):
        raise FlowsError("fit: validation is a pair (data, context); expected rows alone, as there is no context")
    x, c = validation if rows.context is not None else (validation, None)
    if np.ndim(x) < 2:
        raise FlowsError(f"fit: validation has shape {np.shape(x)}, expected (rows, {_listed(rows.x.shape[1:])})")
    held_out = read(x, c, "validation", "the context of validation")[0]
    for name, own, like in zip(("validation", "the context of validation"), held_out, rows, strict=False):
        if own is not None and (own.shape[1:] != like.shape[1:] or not len(own)):
            raise FlowsError(f"fit: {name} has shape {own.shape}, expected (rows, {_listed(like.shape[1:])})")
    if len(rows.x) < LEAST_ROWS:
        raise FlowsError(f"fit: data has {_counted(len(rows.x))}; expected at least {LEAST_ROWS}")
    return held_out


def split(n: int, validation: float, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows to train on and of those to validate on, drawn at random."""
    held_out = max(round(n * validation), 1)
    if n - held_out < LEAST_ROWS:
        raise FlowsError(
            f"fit: data has {_counted(n)}, and validation={validation} leaves {max(n - held_out, 0)} to train on; "
            f"expected at least {LEAST_ROWS}. Give more rows, or a smaller validation"
        )
    order = np.random.default_rng(np.asarray(jax.random.key_data(key))).permutation(n)
    return order[held_out:], order[:held_out]


class Scale(NamedTuple):
    """Mean and standard deviation of each feature, or each channel of an image, in float64."""

    mean: np.ndarray
    std: np.ndarray

    def apply(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) / self.std


def moments(x: np.ndarray, weights: np.ndarray | None = None) -> Scale:
    flat = x.reshape(-1, x.shape[-1])
    of_rows = None if weights is None else np.repeat(weights, len(flat) // len(x))
    mean = np.average(flat, 0, of_rows) if weights is not None else flat.mean(0, dtype=np.float64)
    far = np.abs(flat - mean).max(0)  # squares of what is divided by it neither overflow nor vanish
    far = np.where((far > 0) & np.isfinite(far), far, 1.0)
    return Scale(mean, far * np.sqrt(np.average(np.square((flat - mean) / far), 0, of_rows)))


def measure(x: np.ndarray, dtype: np.dtype, weights: np.ndarray | None = None) -> Scale:
    """The scale of training rows; what never changes, or changes by less than `dtype` can tell, is refused."""
    flat, (mean, std) = x.reshape(-1, x.shape[-1]), moments(x, weights)
    what = "column" if x.ndim == 2 else "channel"
    for j in range(len(mean)):
        if flat[0, j] == flat[:, j].max() == flat[:, j].min():
            raise FlowsError(
                f"fit: {what} {j} of data is constant ({flat[0, j]!s} in all {len(x)} training rows), so it has no density. "
                "Leave it out, or add noise the size of its recorded step"
            )
        if not np.isfinite(std[j]):
            raise FlowsError(f"fit: {what} {j} of data varies by more than {dtype.name} can hold. Rescale it")
        if std[j] < max(8 * np.finfo(dtype).eps * abs(mean[j]), np.finfo(dtype).tiny):
            raise FlowsError(
                f"fit: {what} {j} of data is {mean[j]:.9g} +- {std[j]:.3g}, values that {dtype.name} cannot tell apart. "
                "Subtract an offset first and rescale, or give float64 under jax.config.update('jax_enable_x64', True)"
            )
    return Scale(mean, std)


def _listed(shape: tuple[int, ...]) -> str:
    return str(shape)[1:-1].strip(",")


def _counted(n: int) -> str:
    return f"{n} row{'s' * (n != 1)}"


def _numbers(x: Any, what: str) -> np.ndarray:
    if np.ma.is_masked(x):
        raise FlowsError(f"fit: {what} has masked values; drop these rows, or fill them")
    x = _of_table(x, what)
    with np.errstate(over="ignore"):
        as_array(x, f"fit: {what}")  # refuses ragged rows and dtypes that are not real numbers
    return np.asarray(x)


def _of_table(x: Any, what: str) -> Any:
    """A table of pandas or polars as an array; whatever else as it is."""
    if not hasattr(x, "to_numpy"):
        return x
    if column_names(x):
        for name in x.columns:
            kind = np.asarray(x[name].to_numpy()).dtype
            if kind.kind not in "iufb":
                raise TypeError(
                    f"fit: column {name!r} of {what} holds {kind}, expected numbers without missing values. Leave it out, "
                    "encode it, or drop or fill what is missing"
                )
        # Column by column, as a table of several dtypes would become one of objects.
        return np.stack([np.asarray(x[name].to_numpy(), float) for name in x.columns], 1) if _mixed(x) else x.to_numpy()
    return x.to_numpy()


def _mixed(x: Any) -> bool:
    return np.asarray(x.to_numpy()).dtype == object and len(set(map(str, x.columns))) == len(x.columns)


def column_names(x: Any) -> list[str] | None:
    """Those of a table of pandas or polars."""
    names = getattr(x, "columns", None)
    return None if names is None or not hasattr(x, "to_numpy") else [str(name) for name in names]
