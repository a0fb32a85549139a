"""Shapes in the plane: their densities against integrals done otherwise, and their samples where they should be."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of
from scipy import integrate, stats

import flows
from flows import datasets
from flows.diagnostics import enable_x64


def normal(x, centre, noise):
    return np.exp(-0.5 * np.square((x - centre) / noise).sum()) / (2 * np.pi * noise**2)


def integral(function, end, pieces):
    ends = np.linspace(0, end, pieces + 1)
    return sum(integrate.quad(function, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(ends))


def moons(x, noise):
    def at(t):
        a, b = np.cos(t), np.sin(t)
        return 0.5 * (normal(x, [a, b], noise) + normal(x, [1 - a, 0.5 - b], noise)) / np.pi

    return integral(at, np.pi, 16)


def spirals(x, noise):
    def at(t):
        arm = np.array([-t * np.cos(t), t * np.sin(t)]) / 3
        return 0.5 * (normal(x, arm, noise) + normal(x, -arm, noise)) * 2 * t / (3 * np.pi) ** 2

    return integral(at, 3 * np.pi, 160)


def rings(x, noise):
    def at(t):
        return sum(normal(x, 0.75 * k * np.array([np.cos(t), np.sin(t)]), noise) for k in (1, 2, 3, 4)) / (8 * np.pi)

    return integral(at, 2 * np.pi, 160)


@pytest.mark.parametrize(
    ("init_fun", "density", "noise"),
    [
        (datasets.TwoMoons(), moons, 0.1),
        (datasets.TwoMoons(0.02), moons, 0.02),
        (datasets.Spirals(), spirals, 0.1),
        (datasets.Rings(), rings, 0.08),
    ],
)
def test_densities_along_curves_are_the_integrals(init_fun, density, noise):
    with enable_x64():
        params, log_pdf, sample = init_fun(0, 2)
        x = np.concatenate([sample(1, params, 3), np.random.default_rng(0).normal(size=(2, 2))])
        values = np.asarray(log_pdf(params, x))
    for row, value in zip(x, values, strict=True):
        if value > -300:
            assert value == pytest.approx(np.log(density(np.asarray(row), noise)), abs=1e-11)
    assert (values > -300).sum() >= 3


@pytest.mark.parametrize("name", ["TwoMoons", "Spirals", "EightGaussians", "Checkerboard", "Rings", "Pinwheel"])
def test_densities_hold_for_the_shapes_by_default(name):
    """The mean log-density of samples is that on a fine grid: both are minus the entropy."""
    params, log_pdf, sample = getattr(datasets, name)()(0, 2)
    values = np.asarray(log_pdf(params, sample(0, params, 4000)), float)
    step = 0.1 if name == "Spirals" else 0.05
    side = np.arange(-6.5, 6.5, step) + step / 2
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
    on_grid = np.asarray(log_pdf(params, grid), float)
    mass = np.exp(on_grid) * step**2
    assert mass.sum() == pytest.approx(1, abs=2e-3)
    expected = (mass * np.where(mass > 0, on_grid, 0)).sum()
    assert values.mean() == pytest.approx(expected, abs=5 * values.std() / 4000**0.5 + 2e-3)


def test_rows_of_a_spiral_are_as_many_in_rings_of_the_same_area():
    params, _, sample = datasets.Spirals(0.01)(0, 2)
    shares = np.square(np.linalg.norm(sample(0, params, 4000), axis=1) / np.pi)
    assert stats.kstest(shares, "uniform").statistic < 0.03


def test_far_points_and_wrong_arguments():
    for name in ("TwoMoons", "Spirals", "EightGaussians", "Checkerboard", "Rings", "Pinwheel"):
        params, log_pdf, _ = getattr(datasets, name)()(0, 2)
        values = log_pdf(params, np.array([[1e30, 0.0], [np.inf, 1.0], [np.nan, 0.0]], np.float32))
        assert values[:2].tolist() == [-np.inf] * 2 and np.isnan(values[2])
        assert log_pdf(params, np.zeros((0, 2), np.float32)).shape == (0,)
        assert "use input_dim=2" in error_of(lambda name=name: getattr(datasets, name)()(0, 3))
    assert "at least 0.01" in error_of(lambda: datasets.TwoMoons(1e-3))
    assert "noise" in error_of(lambda: datasets.Spirals(-1.0))
    assert "num_rings" in error_of(lambda: datasets.Rings(0))


PIXELS = np.array([[0, 3, 2, 5], [1, 0, 4, 9], [7, 7, 0, 2]])


def test_a_picture_is_uniform_within_each_pixel_with_its_first_row_on_top():
    params, log_pdf, sample = datasets.picture(PIXELS, low=(-1.0, 2.0), high=(3.0, 3.5))
    shares = PIXELS / PIXELS.sum()
    np.testing.assert_allclose(params["fixed"]["mass"], shares, rtol=1e-6)
    rows, columns = np.mgrid[:3, :4]
    within = np.random.default_rng(0).uniform(0.01, 0.99, size=(2, 3, 4))
    x = np.stack([-1 + columns + within[0], 3.5 - (rows + within[1]) / 2], -1).reshape(-1, 2)
    np.testing.assert_allclose(np.exp(log_pdf(params, x)), (shares / 0.5).ravel(), rtol=1e-5)
    outside = np.array([[-1.01, 2.5], [3.01, 2.5], [0.0, 1.99], [0.0, 3.51], [1e30, 2.5]])
    assert log_pdf(params, outside).tolist() == [-np.inf] * 5 and np.isnan(log_pdf(params, np.array([[np.nan, 2.5]])))
    draws = np.asarray(sample(0, params, 40_000))
    assert np.isfinite(log_pdf(params, draws)).all()
    column, row = (np.floor(each).astype(int) for each in (draws[:, 0] + 1, (3.5 - draws[:, 1]) * 2))
    counts = np.zeros((3, 4))
    np.add.at(counts, (row, column), 1)
    some = shares > 0
    assert stats.chisquare(counts[some], 40_000 * shares[some]).pvalue > 1e-3 and counts[~some].sum() == 0
    assert stats.kstest(draws[:, 0] % 1, "uniform").pvalue > 1e-3 and stats.kstest(2 * draws[:, 1] % 1, "uniform").pvalue > 1e-3


def test_a_picture_of_many_pixels_has_their_masses():
    pixels = np.random.default_rng(0).integers(0, 255, size=(400, 600))
    pixels[np.random.default_rng(1).uniform(size=pixels.shape) < 0.5] = 0
    params, log_pdf, sample = datasets.picture(pixels)
    assert float(jnp.sum(params["fixed"]["mass"])) == pytest.approx(1, abs=1e-6)
    draws = np.asarray(sample(0, params, 1_000_000), float)
    column, row = (np.floor((draws.T + 1) * [[300], [200]])).astype(int)
    counts = np.bincount((399 - row) * 600 + column, minlength=240_000).reshape(400, 600)
    some, expected = pixels > 0, 1e6 * pixels / pixels.sum()
    assert stats.chi2.sf((np.square(counts - expected)[some] / expected[some]).sum(), some.sum() - 1) > 1e-3
    assert np.isfinite(log_pdf(params, draws)).all()


def test_colours_and_dark_pictures():
    assert flows.support(datasets.Picture(2, 2, high=(1.0, 4.0)), 2).inputs.high.tolist() == [1.0, 4.0]
    colours = np.stack([PIXELS, PIXELS, PIXELS + 3.0], -1)
    of_colours, of_dark = (
        datasets.picture(colours).params["fixed"]["mass"],
        datasets.picture(PIXELS, dark=True).params["fixed"]["mass"],
    )
    np.testing.assert_allclose(of_colours, (PIXELS + 1) / (PIXELS + 1).sum(), rtol=1e-6)
    np.testing.assert_allclose(of_dark, (9 - PIXELS) / (9 - PIXELS).sum(), rtol=1e-6)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: datasets.picture([[np.nan, 1.0]]), "expected finite numbers"),
    (lambda: datasets.picture([[-1, 1]]), "the least of the pixels is -1; expected numbers from 0"),
    (lambda: datasets.picture([[0, 0]]), "no pixel has mass; expected some that are brighter"),
    (lambda: datasets.picture([[1, 1]], dark=True), "no pixel has mass; expected some that are darker"),
    (lambda: datasets.picture([1, 2]), "pixels have shape (2,); expected (height, width)"),
    (lambda: datasets.picture(np.ones((2, 2, 4))), "pixels have shape (2, 2, 4); expected (height, width)"),
    (lambda: datasets.Picture(0, 2), "Picture: height is 0; expected"),
    (lambda: datasets.Picture(2, 2, low=1.0, high=0.0), "expected low < high"),
    (lambda: datasets.Picture(2, 2, low=0.0, high=(1.0, 0.0)), "expected low < high"),
    (lambda: datasets.Picture(2, 2, low=(1.0, 2.0, 3.0)), "Picture: low has shape (3,); expected a number, or the shape (2,)"),
    (lambda: datasets.Picture(2, 2, 1e8, 1e8 + 1), "pixels that float32 tells apart"),
    (lambda: datasets.Picture(2, 2)(0, 3), "use input_dim=2"),
])  # fmt: skip
def test_pictures_that_cannot_be_are_refused(call, said):
    assert said in error_of(call)
