"""Shapes in the plane: their densities against integrals done otherwise, and their samples where they should be."""

from itertools import pairwise

import numpy as np
import pytest
from common import error_of
from scipy import integrate, stats

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
