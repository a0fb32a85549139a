"""Latitude and longitude in degrees: to unit vectors and back, and what models of the sphere say of degrees."""

import jax
import numpy as np
import pandas as pd
import pytest
from common import close, error_of
from registry import small

import flows
from flows.bijections.degrees import told_of_degrees

PLACES = {  # latitude, longitude: x to 0 of either on the globe, y to 90 east, z to the north
    (0, 0): (1, 0, 0), (0, 90): (0, 1, 0), (0, -90): (0, -1, 0), (0, 180): (-1, 0, 0), (90, 17): (0, 0, 1),
    (-90, 0): (0, 0, -1), (30, 0): (0.75**0.5, 0, 0.5), (0, 30): (0.75**0.5, 0.5, 0), (45, 45): (0.5, 0.5, 0.5**0.5),
    (0, 270): (0, -1, 0),
}  # fmt: skip


def test_places_are_where_they_are():
    found = flows.from_degrees(*zip(*PLACES, strict=True))
    assert found.shape == (10, 3) and found.dtype == np.float64
    close(found, list(PLACES.values()), 1e-15)
    table = pd.DataFrame(list(PLACES), columns=["lat", "lon"])
    assert (flows.from_degrees(table["lat"], table["lon"]) == found).all()
    assert flows.from_degrees(30, np.float32(0)).shape == (1, 3)


def test_degrees_come_back():
    """At the poles and on the date line too; beyond half a turn the longitude is another of the same meridian."""
    rng = np.random.default_rng(0)
    latitude = np.r_[rng.uniform(-90, 90, 500), [90, -90, 90 - 1e-9, -90 + 1e-9, 0, 0, 0, 1e-12]]
    longitude = np.r_[rng.uniform(-180, 180, 500), [0, 0, 33, -44, 180, -180, 180 - 1e-9, -180 + 1e-9]]
    back = flows.to_degrees(flows.from_degrees(latitude, longitude))
    close(back[0], latitude, 1e-12)
    close(back[1], np.where(longitude == -180, 180, longitude), 1e-12)
    close(flows.to_degrees(flows.from_degrees([10, 10, 10], [200, 359, -190]))[1], [-160, -1, 170], 1e-12)
    assert flows.to_degrees([[-1.0, -0.0, 0.0]])[1].tolist() == [180.0]
    draws = flows.SphereUniform()(0, 3).sample(1, {}, 100)
    assert draws.dtype == np.float32
    close(flows.from_degrees(*flows.to_degrees(draws)), draws, 1e-6)


NAN = float("nan")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: flows.from_degrees([1, 95.5], [2, 100]), "latitude is 95.5 in row 1; expected degrees from -90 to 90, and 1"),
        (lambda: flows.from_degrees([1, 139.7], [2, 35.7]), "perhaps the two are swapped"),
        (lambda: flows.from_degrees([10, 20, 90.0000001], [1, 2, 3]), "latitude is 90.0000001 in row 2"),
        (lambda: flows.from_degrees([1, 2, NAN], [2, 3, 4]), "latitude is nan in row 2"),
        (lambda: flows.from_degrees([1, 2, 3], [2, NAN, 4]), "longitude is nan in row 1"),
        (lambda: flows.from_degrees([1], [361]), "longitude is 361 in row 0; expected degrees from -360 to 360"),
        (lambda: flows.from_degrees([1, 2], [3]), "latitude has shape (2,) and longitude (1,)"),
        (lambda: flows.from_degrees(1, [3]), "latitude has shape () and longitude (1,)"),
        (lambda: flows.from_degrees([[1], [2]], [[3], [4]]), "expected degrees, (n,): give latitude[:, 0]"),
        (lambda: flows.from_degrees(["35N"], [3]), "latitude is ['35N']; expected numbers"),
        (lambda: flows.from_degrees(pd.Series([2, None], dtype="Int64"), [3, 4]), "latitude is nan in row 1"),
        (lambda: flows.from_degrees(np.ma.array([1.0, 2.0], mask=[0, 1]), [3, 4]), "masked"),
        (lambda: jax.jit(flows.from_degrees)(np.ones(2), np.ones(2)), "outside of jit"),
        (lambda: flows.to_degrees([[0, 0, 1], [0, 0, 1.1]]), "row 1 is not a point of the sphere: its squares add up to 1.21"),
        (lambda: flows.to_degrees([[0, 0, NAN]]), "row 0 is not a point of the sphere"),
        (lambda: flows.to_degrees([0, 0, 1]), "a single point needs its batch axis"),
        (lambda: flows.to_degrees([[0, 1]]), "points have shape (1, 2); expected unit vectors, (n, 3)"),
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(call, said):
    assert said in error_of(call)


def test_a_slip_is_not_told_as_columns_that_are_swapped():
    east = np.linspace(-40, 40, 100)
    for latitude in (np.r_[np.zeros(96), [139.7] * 4], np.r_[np.zeros(90), [90.0000001] * 10], np.r_[np.zeros(90), [999] * 10]):
        assert "Correct such rows" in error_of(lambda latitude=latitude: flows.from_degrees(latitude, east))
    assert "swapped" in error_of(lambda: flows.from_degrees(np.r_[np.zeros(95), [139.7] * 5], east))


def test_what_looks_like_degrees():
    rng = np.random.default_rng(0)
    north, east = rng.uniform(-80, 80, 50), rng.uniform(-179, 179, 50)
    names = ("column 'a'", "column 'b'")
    assert told_of_degrees(np.stack([north, east], 1), names).startswith(
        "column 'a' lies within +-90 and column 'b' within +-180"
    )
    assert told_of_degrees(np.stack([east, north, east], 1), names).startswith("column 'b' lies within +-90 and column 'a'")
    assert "column 'b' within 0 .. 360" in told_of_degrees(np.stack([north, east + 180], 1), names)
    radians = np.radians(np.stack([[*north, 90], [*east, 180]], 1), dtype=np.float32)
    for x, ours in ((radians, names), (radians[:, ::-1], names[::-1]), (-radians, names)):
        said = told_of_degrees(x, ours)
        assert said.startswith("column 'a' lies within +-pi/2 and column 'b' within +-pi, which look like radians")
        assert "flows.from_degrees(*np.degrees([latitude, longitude]))" in said
    for x in (radians * [1, 1.01], radians * [1.01, 1]):
        assert "look like degrees" in told_of_degrees(x, names)
    for x in (
        flows.from_degrees(north, east) * 1.5,
        np.stack([north, 3 * east], 1),
        np.stack([2 * north, east], 1),
        north[:, None],
    ):
        assert not told_of_degrees(x, names)


def test_models_of_the_sphere_say_what_to_do_with_degrees():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"lon": rng.uniform(100, 179, 200), "lat": rng.uniform(-80, 80, 200)})
    flow = flows.Flow(flows.SphereCoupling(small), flows.SphereUniform())
    remedy = "flows.from_degrees(latitude, longitude) makes unit vectors"
    for fit in (flows.fit, lambda rng, model, *rest, **more: flows.select(rng, [model], *rest, **more)):
        said = error_of(lambda fit=fit: fit(0, flow, table, verbose=0))
        assert "data has 2 columns, and Flow(" in said and remedy in said
        assert "column 'lat' lies within +-90 and column 'lon' within 0 .. 360" in said
    said = error_of(lambda: flows.fit(0, flow, table.assign(depth=rng.normal(size=200)), verbose=0))
    assert "is not a point of the sphere" in said and remedy in said
    assert "divide each row by its norm" in error_of(
        lambda: flows.fit(0, flow, 1.5 * flow(0, 3).sample(0, flow(0, 3).params, 90))
    )
    params, log_pdf, _ = flow(0, 3)
    for call in (lambda: log_pdf(params, table.to_numpy()), lambda: flow(0, 2)):
        assert "flows.from_degrees(latitude, longitude)" in error_of(call)
    assert "from_degrees" not in error_of(lambda: log_pdf(params, np.ones((2, 4))))
