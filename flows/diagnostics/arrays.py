"""Arrays that come in, checked, in double precision, on the host; and functions of them that several statistics share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import FlowsError, as_key

LEAST = 10  # rows, below which no p-value can be believed
TOGETHER = 2**21  # distances that are in memory at once
RADIAL = 50  # features exp(-|z - centre|^2 / (2 width^2))
PRODUCTS = 300  # of pairs of columns, at most
COLUMNS = 64  # above which 64 principal components take their place
FAR = 8.0  # standard deviations, at which values are cut off, as their squares would outweigh all others


def as_floats(x: Any, what: str, least: int = 1, infinite: bool = False, rounded: Any = np.float64) -> np.ndarray:
    """Return a real array of at least `least` rows, in double precision, without NaN; `infinite` allows infinite values, and
    `rounded` is the precision in which values are compared."""
    if np.ma.is_masked(x):
        raise FlowsError(f"{what} have masked values; drop these rows, or fill them")
    if hasattr(x, "columns"):
        raise FlowsError(f"{what} are a table, whose order of columns is not checked here; expected table.to_numpy()")
    try:
        array = np.asarray(x)
    except ValueError:
        raise FlowsError(f"{what} are {x!r:.60}; expected numbers in rows of equal length") from None
    if not is_real(array.dtype):
        raise FlowsError(f"{what} have dtype {array.dtype}; expected real numbers, such as codes in place of names")
    if array.ndim == 0 or len(array) < least or not array.size:
        got = f"shape {array.shape}" if array.ndim == 0 or len(array) else "no rows"
        raise FlowsError(f"{what} have {got}; expected at least {least} row{'s' * (least > 1)} of numbers")
    values = array.astype(rounded).astype(np.float64)
    bad = np.isnan(values) if infinite else ~np.isfinite(values)
    if bad.any():
        at = ", ".join(map(str, np.argwhere(bad)[0]))
        expected = "numbers" if infinite else "finite numbers"
        raise FlowsError(f"{what}[{at}] is {values[bad][0]}; expected {expected}: drop that row, or find out where it is from")
    return values


def is_real(dtype: Any) -> bool:
    """Return whether a dtype, which may be one of JAX's, is of real numbers or booleans."""
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating))


def coarsest(*arrays: Any) -> Any:
    """Return the coarsest floating dtype: in it a row of float64 and the same row in float32 are equal."""
    dtypes = [np.dtype(getattr(x, "dtype", np.float64)) for x in arrays]
    return min((t for t in dtypes if jnp.issubdtype(t, jnp.floating)), key=lambda t: t.itemsize, default=np.dtype(np.float64))


def as_samples(name: str, least: int = LEAST, **samples: Any) -> list[np.ndarray]:
    """Return samples of the same columns, each (rows, columns), by their names in errors; (rows,) is one column."""
    dtype = coarsest(*samples.values())
    arrays = [as_floats(x, f"{name}: {what}", least, rounded=dtype) for what, x in samples.items()]
    if any(x.ndim > 2 or x.shape[1:] != arrays[0].shape[1:] for x in arrays):
        got = " and ".join(f"{what} of shape {x.shape}" for what, x in zip(samples, arrays, strict=True))
        raise FlowsError(f"{name}: got {got}; expected (rows, columns) with the same columns, images flattened")
    return [x.reshape(len(x), -1) for x in arrays]


def as_conditional(name: str, rows: Any, draws: Any, least: int = LEAST) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (rows, columns), and draws for each row, (rows, draws, columns); without the last axis one column."""
    dtype = coarsest(rows, draws)
    x, drawn = (as_floats(x, f"{name}: {what}", least, rounded=dtype) for what, x in (("rows", rows), ("draws", draws)))
    if x.ndim > 2 or drawn.ndim != x.ndim + 1 or drawn.shape[:1] + drawn.shape[2:] != x.shape:
        expected = ", ".join(map(str, (len(x), "draws", *x.shape[1:2])))
        raise FlowsError(
            f"{name}: rows have shape {x.shape} and draws {drawn.shape}; expected rows (rows, columns), and draws for each "
            f"row, ({expected})"
        )
    return x.reshape(len(x), -1), drawn.reshape(*drawn.shape[:2], -1)


def drawn_by_row(name: str, x: np.ndarray, drawn: np.ndarray, least: int = 1) -> bool:
    """Return whether there are draws for each row, (rows, draws, *columns), and not shared draws, (draws, *columns)."""
    by_row = drawn.ndim == x.ndim + 1 and drawn.shape[:1] + drawn.shape[2:] == x.shape
    shared = drawn.ndim == x.ndim and drawn.shape[1:] == x.shape[1:]
    if x.ndim > 2 or not (by_row or shared) or drawn.shape[by_row] < least:
        raise FlowsError(
            f"{name}: rows have shape {x.shape} and draws {drawn.shape}; expected rows (rows, columns) and draws (draws, "
            "columns), or (rows, draws, columns) for each row, both without the last axis if there is one column"
            f"{f'; at least {least} draws' * (least > 1)}"
        )
    return by_row


def generator(rng: Any) -> np.random.Generator:
    """Return NumPy's generator from a key or a seed."""
    return np.random.default_rng(np.asarray(jax.random.key_data(as_key(rng))).tolist())


def chosen(x: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """Return at most `most` rows, drawn without replacement; all of them in order if there are not more."""
    return x if len(x) <= most else x[random.choice(len(x), most, replace=False)]


def unit_of(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column, 1 where it is constant."""
    spread = x.std(0)
    return x.mean(0), np.where(spread > 0, spread, 1.0)


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the squared distances of all pairs, (rows of x, rows of y)."""
    return np.maximum((x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T, 0.0)


def features_of(sample: np.ndarray, random: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from rows to their columns, squares, products and radial features, each with mean 0 and variance 1 in
    the sample, from which all its scales and centres come."""
    low, middle, high = np.quantile(sample, [0.16, 0.5, 0.84], axis=0)
    scale = np.where(high > low, (high - low) / 2, unit_of(sample)[1])

    def columns(x: np.ndarray) -> np.ndarray:
        return np.clip((x - middle) / scale, -FAR, FAR) @ turn

    turn = np.eye(sample.shape[1])
    if len(turn) > COLUMNS:
        turn = np.linalg.eigh(np.cov(columns(sample), rowvar=False))[1][:, -COLUMNS:]
    z = columns(sample)
    first, second = chosen(np.stack(np.triu_indices(z.shape[1], 1), 1), PRODUCTS, random).T
    centres = chosen(z, RADIAL, random)
    apart = squared_distances(centres, centres)[np.triu_indices(len(centres), 1)]
    width = np.median(apart) / 4 if apart.any() else 1.0  # squared: half the usual distance

    def expanded(x: np.ndarray) -> np.ndarray:
        z = columns(x)
        radial = np.exp(-squared_distances(z, centres) / (2 * max(width, 1e-12)))
        return np.concatenate([z, z**2, z[:, first] * z[:, second], radial], 1)

    mean, spread = unit_of(expanded(sample))
    spread = np.where(spread > 1e-9, spread, 1.0)  # a constant varies by rounding
    return lambda x: (expanded(x) - mean) / spread
