"""Places on the globe: latitude and longitude in degrees, and the unit vectors that models of the sphere take.
Family: Circles and spheres."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from flows.core import OFF_SPHERE, FlowsError

POLE, TURN = 90.0, 360.0  # the largest latitude, and the largest longitude of either sign
RADIANS = np.pi / 2 * (1 + 1e-6), np.pi * (1 + 1e-6)  # the same in radians, with room for rounding in float32
FEW = 0.05  # of rows: fewer latitudes beyond 90 are slips, more may be longitudes


def from_degrees(latitude: Any, longitude: Any) -> np.ndarray:
    """Places on the globe as unit vectors, x = (cos a cos b, cos a sin b, sin a), latitude a, longitude b.

    Degrees are not numbers of a line: 180 and -180 are one meridian, and near a pole a degree of longitude is short. A model
    of the sphere, such as `flows.Flow(flows.SphereFlow(), flows.SphereUniform())`, takes unit vectors, and has neither seam
    nor poles. Its densities are per unit of surface of a globe of radius 1. Computed in float64, by NumPy.

    Args:
        latitude: degrees from -90 to 90, positive in the north: a list, an array or a column of a table, (n,). Two
            numbers, one for each argument, are one place, n = 1.
        longitude: degrees from -360 to 360, positive east of Greenwich, as many as latitudes.

    Returns:
        (n, 3), float64.

    Errors:
        FlowsError: NaN, a latitude beyond 90, a longitude beyond 360, named by its row; different lengths; more than one axis.

    Example:
        >>> import flows
        >>> flows.from_degrees([0, 90, 35.7], [180, 0, 139.7]).round(3).tolist()
        [[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [-0.619, 0.525, 0.584]]
    """
    north, east = _degrees(latitude, "latitude"), _degrees(longitude, "longitude")
    if north.shape != east.shape:
        raise FlowsError(
            f"from_degrees: latitude has shape {north.shape} and longitude {east.shape}; expected one value of each for every "
            "place"
        )
    north, east = np.atleast_1d(north), np.atleast_1d(east)
    for name, values, most in (("latitude", north, POLE), ("longitude", east, TURN)):
        bad = ~(np.abs(values) <= most)
        if bad.any():
            row = int(bad.argmax())
            shown = repr(float(values[row])).removesuffix(".0")  # all digits: 90.0000001 is not 90
            remedy = "Correct such rows, or drop them"
            beyond = POLE + 1 < np.abs(north).max() <= TURN  # by more than rounding
            if name == "latitude" and beyond and bad.mean() >= FEW and (np.abs(east) <= POLE).all():
                remedy = "No longitude is beyond 90: perhaps the two are swapped, from_degrees(latitude, longitude)"
            raise FlowsError(
                f"from_degrees: {name} is {shown} in row {row}; expected degrees from -{most:g} to {most:g}, and "
                f"{int(bad.sum())} of {len(bad)} are not. {remedy}"
            )
    a, b = np.radians(north), np.radians(east)
    return np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], axis=1)


def to_degrees(points: Any) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude, in degrees, of points of the sphere: the inverse of `from_degrees`.

    latitude = atan2(z, sqrt(x^2 + y^2)) is in [-90, 90], and longitude = atan2(y, x) in (-180, 180]; at a pole, where any
    longitude is right, it is the one given to `from_degrees`, or comes from rounding. Computed in float64, by NumPy.

    Args:
        points: unit vectors (n, 3), such as draws of a model.

    Returns:
        The pair (latitude, longitude), each (n,), float64.

    Errors:
        FlowsError: rows whose squared norm differs from 1 by more than 1e-4, or that have NaN; another shape.

    Example:
        >>> import flows
        >>> latitude, longitude = flows.to_degrees(flows.from_degrees([35.7, -90], [-220.3, 0]))
        >>> latitude.round(6).tolist(), longitude.round(6).tolist()
        ([35.7, -90.0], [139.7, 0.0])
    """
    x = _numbers(points, "to_degrees: points")
    if x.ndim != 2 or x.shape[1] != 3:
        single = ": a single point needs its batch axis, points[None]" if x.shape == (3,) else ""
        raise FlowsError(f"to_degrees: points have shape {x.shape}; expected unit vectors, (n, 3){single}")
    squared = np.square(x).sum(1)
    off = ~(np.abs(squared - 1) <= OFF_SPHERE)
    if off.any():
        row = int(off.argmax())
        raise FlowsError(
            f"to_degrees: row {row} is not a point of the sphere: its squares add up to {squared[row]:.6g}; of {len(off)} rows "
            f"{int(off.sum())} are off it. Expected unit vectors, as flows.from_degrees and models of the sphere make them"
        )
    longitude = np.degrees(np.arctan2(x[:, 1], x[:, 0]))
    latitude = np.degrees(np.arctan2(x[:, 2], np.hypot(x[:, 0], x[:, 1])))
    return latitude, np.where(longitude <= -180.0, 180.0, longitude)


def as_degrees(x: np.ndarray) -> tuple[int, int, bool] | None:
    """Columns of latitude and of longitude, if the first two columns of rows (n, d) look like them, in either order, beyond
    any unit vector; and True if they look like radians. None otherwise."""
    if x.ndim != 2 or x.shape[1] not in (2, 3) or not len(x):
        return None
    most = np.abs(x[:, :2].astype(float)).max(0)
    if not most.max() <= TURN or not most.min() <= POLE or most.max() <= 2:  # up to 2 they may be vectors of another length
        return None
    radians = bool(most.min() <= RADIANS[0] and most.max() <= RADIANS[1])
    return (0, 1, radians) if most[0] <= (RADIANS[0] if radians else POLE) else (1, 0, radians)


def told_of_degrees(x: np.ndarray, names: Sequence[str]) -> str:
    """Return a remark on rows that should be unit vectors and look like degrees; otherwise nothing."""
    columns = as_degrees(x)
    if columns is None:
        return ""
    latitude, longitude = (names[i] for i in columns[:2])
    if columns[2]:
        return (
            f"{latitude} lies within +-pi/2 and {longitude} within +-pi, which look like radians: "
            "flows.from_degrees(*np.degrees([latitude, longitude])) makes unit vectors (n, 3) of them; "
            "if they are degrees, flows.from_degrees(latitude, longitude)"
        )
    turn = "0 .. 360" if (x[:, columns[1]] >= 0).all() else "+-180" if (np.abs(x[:, columns[1]]) <= 180).all() else "+-360"
    return (
        f"{latitude} lies within +-90 and {longitude} within {turn}, which look like degrees: "
        "flows.from_degrees(latitude, longitude) makes unit vectors (n, 3) of them"
    )


def _degrees(values: Any, name: str) -> np.ndarray:
    x = _numbers(values, f"from_degrees: {name}")
    if x.ndim > 1:
        column = f": give {name}[:, 0]" if x.ndim == 2 and x.shape[1] == 1 else ""
        raise FlowsError(f"from_degrees: {name} has shape {x.shape}; expected degrees, (n,){column}")
    return x


def _numbers(values: Any, what: str) -> np.ndarray:
    if isinstance(values, jax.core.Tracer):
        raise FlowsError(f"{what} is traced, and cannot be checked; call it outside of jit")
    if np.ma.is_masked(values):
        raise FlowsError(f"{what} has masked values; drop these rows, or fill them")
    try:
        array = np.asarray(values)
        x = array.astype(float) if array.dtype.kind in "iufO" else None
    except (TypeError, ValueError):
        x = None
    if x is None:
        raise FlowsError(f"{what} is {values!r:.60}; expected numbers")
    return x
