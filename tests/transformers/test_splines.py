"""Splines: exact to a few roundings at any parameters, smooth at their knots, and what their papers say."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mpmath import mpf
from registry import TRANSFORMERS

import flows
from flows import transformers as t
from flows.diagnostics import enable_x64

SPLINES = ["CircularRationalQuadratic", "CubicSpline", "LinearSpline", "LinearRational", "QuadraticSpline", "RationalQuadratic"]
BINS, BOUND = 4, 2  # of those in the registry
BLOCK = 1250  # points
MOST = {"RationalQuadratic": 4.0}  # roundings of the inverse; 16 for the others
each_spline = pytest.mark.parametrize("name", SPLINES)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@functools.cache
def functions(name):
    """Direct and inverse, each one program for any number of points."""
    spline = TRANSFORMERS[name].transformer
    return in_blocks(jax.jit(spline.direct)), in_blocks(jax.jit(spline.inverse))


def in_blocks(fun):
    def call(theta, at):
        rest = -at.size % BLOCK
        blocks = [np.split(np.pad(each, [(0, 0)] * (each.ndim - 1) + [(0, rest)]), (at.size + rest) // BLOCK, -1)
                  for each in (theta, at)]  # fmt: skip
        return [np.concatenate(each)[: at.size] for each in zip(*map(fun, *blocks), strict=True)]

    return call


def draw(name, n, spread, dtype=np.float64, seed=1):
    theta = spread * np.random.default_rng(seed).normal(size=(TRANSFORMERS[name].transformer.num_params, n))
    return theta.astype(dtype)


def roundings(name, theta, y):
    return roundings_of(functions(name), theta, y)


def roundings_of(pair, theta, y):
    """How far f(f^-1(y)) is from y, in units of what a rounding of x and one of y make."""
    direct, inverse = pair
    x, _ = inverse(theta, y)
    again, log_det = direct(theta, x)
    assert np.isfinite(x).all() and np.isfinite(log_det).all()
    x, y, again, log_det = (np.asarray(each, np.float64) for each in (x, y, again, log_det))
    return np.abs(again - y) / (np.abs(y) + BOUND + (np.abs(x) + BOUND) * np.exp(log_det)) / np.finfo(theta.dtype).eps


@each_spline
@settings(max_examples=100, deadline=None)
@given(
    theta=arrays(np.float32, (4 * BINS - 1, 3), elements=st.floats(-50, 50, width=32)),
    y=arrays(np.float32, (3,), elements=st.floats(-10, 10, width=32)),
)
def test_a_spline_inverts_at_any_parameters(name, theta, y):
    theta = theta[: TRANSFORMERS[name].transformer.num_params]
    assert roundings(name, theta, y).max() <= MOST.get(name, 16.0)


@each_spline
def test_the_log_det_of_the_inverse_is_exactly_minus_the_direct_one_at_the_point_returned(name):
    spline, y = TRANSFORMERS[name].transformer, jnp.linspace(-2.2, 2.2, 999)
    theta = jnp.asarray(draw(name, 999, 10.0, np.float32))
    with jax.disable_jit():  # two compiled programs may round differently, and in a thin bin the slope is steep
        x, minus = spline.inverse(theta, y)
        np.testing.assert_array_equal(minus, -spline.direct(theta, x)[1])


def check_random(name, dtype, spread, n, pair=None):
    sides = 3 * BOUND if name == "CircularRationalQuadratic" else BOUND
    with enable_x64():
        y = np.random.default_rng(2).uniform(-sides, sides, size=n).astype(dtype)
        assert roundings_of(pair or functions(name), draw(name, n, spread, dtype), y).max() <= MOST.get(name, 16.0)


@pytest.mark.parametrize("spread", [1.0, 3.0, 10.0, 30.0])
@each_dtype
@each_spline
def test_the_inverse_of_random_splines_is_a_few_roundings_from_exact(name, dtype, spread):
    check_random(name, dtype, spread, 5_000)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [1.0, 3.0, 10.0, 30.0])
@each_dtype
@each_spline
def test_the_inverse_of_a_great_many_random_splines(name, dtype, spread, optimized):
    spline = TRANSFORMERS[name].transformer
    check_random(name, dtype, spread, 200_000, (optimized(spline.direct), optimized(spline.inverse)))


LEAST = {  # floors, as low as they may be
    "CircularRationalQuadratic": [{"min_bin": 1e-4, "min_slope": 1e-4}],
    "CubicSpline": [{"min_bin": 1e-4}],
    "LinearSpline": [{"min_bin": 1e-4}],
    "LinearRational": [
        {"min_part": 1e-3, "min_bin": 2e-3, "min_slope": 0.25},
        {"min_part": 1e-3, "min_bin": 0.01, "min_slope": 0.01},
        {"min_part": 0.4, "min_bin": 0.01, "min_slope": 0.01},
        {"min_part": 1e-3, "min_bin": 0.1, "min_slope": 1e-4},
    ],
    "QuadraticSpline": [{"min_bin": 1e-4, "min_slope": 0.01}, {"min_bin": 0.01, "min_slope": 1e-4}],
    "RationalQuadratic": [{"min_bin": 1e-4, "min_slope": 1e-4}],
}


@pytest.mark.slow
@each_spline
def test_the_least_floors_keep_the_inverse_exact(name, optimized):
    for floors in LEAST[name]:
        spline = getattr(t, name)(num_bins=BINS, bound=BOUND, **floors)
        pair = optimized(spline.direct), optimized(spline.inverse)
        for spread in (3.0, 10.0, 30.0):
            theta = spread * np.random.default_rng(3).normal(size=(spline.num_params, 200_000)).astype(np.float32)
            y = np.random.default_rng(2).uniform(-BOUND, BOUND, size=200_000).astype(np.float32)
            assert roundings_of(pair, theta, y).max() <= MOST.get(name, 16.0), (floors, spread)


# The papers' formulas at 50 digits, written down as they are: knots x and y, and y in bin k as a function of x.


def softmax(raw, floor):
    each = [mpmath.exp(r) for r in raw]
    return [2 * BOUND * (floor + (1 - BINS * floor) * e / sum(each)) for e in each]


def knots(sizes):
    return [-BOUND + mpmath.fsum(sizes[:i]) for i in range(BINS)] + [mpf(BOUND)]


def softplus(raw, floor):
    floor = mpf(floor)
    return [floor + mpmath.log1p(mpmath.exp(r + mpmath.log(mpmath.expm1(1 - floor)))) for r in raw]


def linear(raw):
    xs, ys = knots([mpf(2 * BOUND) / BINS] * BINS), knots(softmax(raw, mpf(1e-3)))
    return xs, ys, lambda k, x: ys[k] + (ys[k + 1] - ys[k]) * (x - xs[k]) / (xs[k + 1] - xs[k])


def quadratic(raw):
    """Piecewise-linear density: vertices v, of which the inner ones are scaled to the area left by the outer two."""
    w, floor = softmax(raw[:BINS], mpf(1e-3)), mpf(1e-3)
    area = [(w[i] + w[i + 1]) / 2 for i in range(BINS - 1)]
    inner = [mpmath.exp(r) for r in raw[BINS:]]
    left = 2 * BOUND - (w[0] + w[-1]) / 2 - floor * sum(area)
    scale = left / sum(a * v for a, v in zip(area, inner, strict=True))
    v = [mpf(1), *(floor + scale * each for each in inner), mpf(1)]
    xs, ys = knots(w), knots([w[i] * (v[i] + v[i + 1]) / 2 for i in range(BINS)])

    def y(k, x):
        alpha = (x - xs[k]) / w[k]
        return ys[k] + w[k] * (alpha**2 / 2 * (v[k + 1] - v[k]) + alpha * v[k])

    return xs, ys, y


def cubic(raw):
    """Powers of x - x0, with Steffen's slopes."""
    floor = mpf(1e-3)
    w, e = softmax(raw[:BINS], floor), [mpmath.exp(r) for r in raw[BINS:]]
    ends = [i in (0, BINS - 1) for i in range(BINS)]
    floors = [w[i] / 2 if end else 2 * BOUND * floor for i, end in enumerate(ends)]
    e = [e[i] * (mpf(1) / (2 * BINS) if end else mpf(1) / BINS - floor) for i, end in enumerate(ends)]
    h = [low + (2 * BOUND - sum(floors)) * each / sum(e) for low, each in zip(floors, e, strict=True)]
    s = [a / b for a, b in zip(h, w, strict=True)]
    p = [(s[i] * w[i + 1] + s[i + 1] * w[i]) / (w[i] + w[i + 1]) for i in range(BINS - 1)]
    d = [mpf(1), *(2 * min(s[i], s[i + 1], p[i] / 2) for i in range(BINS - 1)), mpf(1)]
    xs, ys = knots(w), knots(h)

    def y(k, x):
        a2, a3 = (3 * s[k] - 2 * d[k] - d[k + 1]) / w[k], (d[k] + d[k + 1] - 2 * s[k]) / w[k] ** 2
        return ys[k] + d[k] * (x - xs[k]) + a2 * (x - xs[k]) ** 2 + a3 * (x - xs[k]) ** 3

    return xs, ys, y


def linear_rational(raw):
    """Dolatabadi et al., algorithm 1: weights w_a, w_b and w_m of the knots and of the one between."""
    widths, heights = (softmax(each, mpf(1e-2)) for each in (raw[:BINS], raw[BINS : 2 * BINS]))
    d, floor = [mpf(1), *softplus(raw[2 * BINS : 3 * BINS - 1], 0.1), mpf(1)], mpf(0.025)
    lambdas = [floor + (1 - 2 * floor) / (1 + mpmath.exp(-r)) for r in raw[3 * BINS - 1 :]]
    xs, ys = knots(widths), knots(heights)

    def y(k, x):
        phi, l, y_a, y_b = (x - xs[k]) / widths[k], lambdas[k], ys[k], ys[k + 1]
        w_a, w_b = mpf(1), mpmath.sqrt(d[k] / d[k + 1])
        w_m = (l * w_a * d[k] + (1 - l) * w_b * d[k + 1]) * widths[k] / heights[k]
        y_m = ((1 - l) * w_a * y_a + l * w_b * y_b) / ((1 - l) * w_a + l * w_b)
        if phi <= l:
            return (w_a * y_a * (l - phi) + w_m * y_m * phi) / (w_a * (l - phi) + w_m * phi)
        return (w_m * y_m * (1 - phi) + w_b * y_b * (phi - l)) / (w_m * (1 - phi) + w_b * (phi - l))

    return xs, ys, y


def rational_quadratic(raw, circular=False):
    """Durkan et al., equation 4."""
    widths, heights = (softmax(each, mpf(1e-3)) for each in (raw[:BINS], raw[BINS : 2 * BINS]))
    d = softplus(raw[2 * BINS :], 1e-3)
    d = [*d, d[0]] if circular else [mpf(1), *d, mpf(1)]
    xs, ys = knots(widths), knots(heights)

    def y(k, x):
        xi, s = (x - xs[k]) / widths[k], heights[k] / widths[k]
        numerator = heights[k] * (s * xi**2 + d[k] * xi * (1 - xi))
        return ys[k] + numerator / (s + (d[k + 1] + d[k] - 2 * s) * xi * (1 - xi))

    return xs, ys, y


REFERENCES = {
    "CircularRationalQuadratic": functools.partial(rational_quadratic, circular=True),
    "CubicSpline": cubic,
    "LinearSpline": linear,
    "LinearRational": linear_rational,
    "QuadraticSpline": quadratic,
    "RationalQuadratic": rational_quadratic,
}


def knots_of(name, theta):
    """The x and the y of the knots, in double precision."""
    xs, ys, _ = REFERENCES[name]([mpf(float(each)) for each in theta])
    return np.array(xs, float), np.array(ys, float)


@each_spline
def test_values_and_slopes_are_the_papers(name):
    points = np.linspace(-1.97, 1.98, 23)
    with enable_x64(), mpmath.workdps(50):
        for seed in range(4):
            theta = draw(name, 1, 1.5, seed=seed)
            xs, _, y = REFERENCES[name]([mpf(each) for each in theta[:, 0]])
            bins = np.searchsorted(np.array(xs, float), points) - 1
            expected = [(y(k, mpf(x)), mpmath.diff(functools.partial(y, k), x)) for k, x in zip(bins, points, strict=True)]
            got, log_det = functions(name)[0](np.tile(theta, (1, points.size)), points)
            np.testing.assert_allclose(got, [float(value) for value, _ in expected], rtol=1e-13, atol=1e-14)
            np.testing.assert_allclose(log_det, [float(mpmath.log(slope)) for _, slope in expected], rtol=1e-11, atol=1e-11)


@each_dtype
@each_spline
def test_a_spline_is_monotone_and_its_density_continuous_at_knots_and_bounds(name, dtype):
    with enable_x64():
        for seed in range(5):
            theta = draw(name, 1, 1.0, dtype, seed)
            at = knots_of(name, theta[:, 0])[0]
            gap = 4 * np.finfo(dtype).eps
            x = np.unique(np.concatenate([np.linspace(-2.5, 2.5, 1000), at - gap, at + gap]).astype(dtype))
            y, log_det = functions(name)[0](np.tile(theta, (1, x.size)), x)
            assert (np.diff(y) >= 0).all() and np.abs(log_det).max() > 0.1
            near = np.diff(x) <= 3 * gap
            jumps = np.abs(np.diff(log_det))[near]
            assert near.sum() == BINS + 1
            # What a thin bin's slope changes by within the gap; 2e-11 in float64.
            assert jumps.max() > 0.1 if name == "LinearSpline" else jumps.max() < 1e5 * np.finfo(dtype).eps


@each_dtype
@each_spline
def test_a_spline_at_knots_bounds_and_beyond(name, dtype):
    """Values, log-dets and gradients are finite; inf stays inf and NaN stays NaN."""
    spline = TRANSFORMERS[name].transformer

    @jax.jit
    def program(theta, at):
        def values_and_gradients(function, at):
            if dtype == np.float64:
                return function(theta, at), ()
            values, pull = jax.vjp(function, theta, at)  # the harder one
            return values, pull(jax.tree.map(jnp.ones_like, values))

        return values_and_gradients(spline.direct, at[0]), values_and_gradients(spline.inverse, at[1])

    far = np.array([0.0, 1e-38, -1e-38, 1e30, -1e30, 3e38, -3e38], dtype)
    rest = np.array([BOUND, -BOUND, np.inf, -np.inf, np.nan], dtype)
    with enable_x64():
        for seed, spread in ((0, 0.0), (1, 1.0), (2, 3.0), (3, 10.0)):
            theta = draw(name, 1, spread, dtype, seed)
            knots = np.stack(knots_of(name, theta[:, 0])).astype(dtype)
            near = [np.nextafter(knots, to) for to in (knots, dtype(-9), dtype(9))]
            at = np.concatenate([np.tile(far, (2, 1)), *near, np.tile(rest, (2, 1))], 1)
            for (out, log_det), gradients in jax.tree.map(np.asarray, program(np.tile(theta, at.shape[1:]), at)):
                for each in (out, log_det, *gradients):
                    assert np.isfinite(each[..., :-3]).all()
                np.testing.assert_array_equal(out[-5:], rest)
                np.testing.assert_array_equal(log_det[-3:], [0.0, 0.0, np.nan])


@each_spline
def test_extreme_floors_and_parameters_stay_finite(name):
    """The thinnest bins that are allowed, in float32, at parameters of any size."""
    spline = getattr(t, name)(num_bins=BINS, bound=BOUND, **LEAST[name][0])
    theta = draw(name, 2000, 100.0, np.float32)
    at = np.random.default_rng(4).uniform(-2, 2, 2000).astype(np.float32)
    for out, log_det in jax.jit(lambda *given: (spline.direct(*given), spline.inverse(*given)))(theta, at):
        assert (np.abs(out) <= BOUND).all() and np.isfinite(log_det).all()


@pytest.mark.parametrize("name", ["CubicSpline", "RationalQuadratic"])
def test_second_derivatives_of_the_inverse(name):
    """d2x / dy2 is that of the inverse function, -f'' / f'^3, and mixed ones are symmetric."""
    direct, inverse = jax.jit(TRANSFORMERS[name].transformer.direct), jax.jit(TRANSFORMERS[name].transformer.inverse)

    def slope(function):
        return lambda theta, at: jax.grad(lambda at: function(theta, at)[0].sum())(at).sum()

    @jax.jit
    def program(theta, x):
        y, log_det = direct(theta, x)
        second = jax.grad(slope(direct), 1)(theta, x)
        mixed, second_back = jax.grad(slope(inverse), (0, 1))(theta, y)
        by_theta = jax.grad(lambda theta, y: inverse(theta, y)[0].sum())
        mixed_otherwise = jax.jvp(lambda y: by_theta(theta, y), (y,), (jnp.ones_like(y),))[1]
        return log_det, second, second_back, mixed, mixed_otherwise

    with enable_x64():
        found = program(draw(name, 6, 1.0), np.linspace(-1.7, 1.6, 6))
        log_det, second, second_back, *mixed = map(np.asarray, found)
    np.testing.assert_allclose(second_back, -second * np.exp(-3 * log_det), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(*mixed, rtol=1e-8, atol=1e-8)


def test_a_cubic_is_solved_at_all_slopes_up_to_twice_the_mean():
    from flows.transformers.polynomial_splines import odds, solve

    rng, n = np.random.default_rng(5), 100_000
    with enable_x64():
        d0, d1 = (jnp.asarray(2 * rng.choice([1.0, rng.uniform(), 1e-3, 1e-9], n) ** rng.uniform(0, 1, n)) for _ in range(2))
        small, s = jnp.asarray(10 ** -rng.uniform(0, 20, n) / 2), jnp.ones(n)
        for up in (jnp.asarray(rng.uniform(0, 1, n)), small, 1 - small):
            xi = jax.jit(solve)(up, 1 - up, s, d0, d1)
            m, n_ = odds(xi, 1 - xi, s, d0, d1)
            assert float(jnp.abs(m / (m + n_) - up).max()) < 4 * np.finfo(float).eps


@each_dtype
def test_a_circular_spline_is_one_of_the_circle_and_of_the_line(dtype):
    spline, period, eps = t.CircularRationalQuadratic(), 2 * np.pi, np.finfo(dtype).eps
    theta = np.random.default_rng(6).normal(size=(spline.num_params, 1)).astype(dtype)
    x = np.linspace(-np.pi, np.pi, 200).astype(dtype)
    turns = np.array([0, -40, -1, 1, 7])
    around = np.sort(np.concatenate([np.nextafter(dtype(np.pi), dtype(s)) * np.ones(1, dtype) for s in (0, np.pi, 9)]))
    seam = np.concatenate([-around[::-1], around, 3 * around])
    huge = np.array([1e3, 1e5, 1e7, 1e9, 1e18, 1e30, -1e30, 3e38], dtype)
    at = np.concatenate([*((x + n * period).astype(dtype) for n in turns), seam, huge])

    def split(values):
        there, of_seam, of_huge = np.split(np.asarray(values), [turns.size * x.size, -huge.size])
        return there.reshape(turns.size, x.size), of_seam, of_huge

    with enable_x64():
        thetas = np.tile(theta, at.shape)
        (there, at_seam, far), (log_dets, slopes, far_log_det) = map(split, jax.jit(spline.direct)(thetas, at))
        back, back_log_det = (split(each)[2] for each in jax.jit(spline.inverse)(thetas, at))
    for n, y, log_det in zip(turns, there, log_dets, strict=True):
        scale = 4 * eps * period * abs(n) * (1 + np.exp(log_dets[0]))
        assert n == 0 or (np.abs(y - (there[0] + dtype(n * period))) < scale).all()
        np.testing.assert_allclose(log_det, log_dets[0], atol=1e5 * eps)
    assert np.diff(at_seam).min() >= 0 and np.abs(slopes - slopes[0]).max() < 1e4 * eps
    assert np.abs(log_dets[0]).max() > 0.1 < np.abs(slopes[0])
    for out, log_det in ((far, far_log_det), (back, back_log_det)):
        assert np.isfinite(log_det).all() and np.isfinite(out).all()
        assert (np.abs(out - huge) <= period + np.spacing(np.abs(huge))).all()
        np.testing.assert_array_equal(out[-4:], huge[-4:])


@pytest.mark.parametrize("call", [
    *(lambda name=name, **k: getattr(t, name)(num_bins=0) for name in SPLINES),
    *(lambda name=name: getattr(t, name)(bound=float("inf")) for name in SPLINES),
    *(lambda name=name: getattr(t, name)(num_bins=8, min_bin=0.2) for name in SPLINES),
    *(lambda name=name: getattr(t, name)(min_slope=1.0) for name in SPLINES if name not in ("LinearSpline", "CubicSpline")),
    *(lambda name=name: getattr(t, name)(bound=1e-20) for name in SPLINES),
    *(lambda name=name: getattr(t, name)(min_bin=9e-5) for name in SPLINES),
    lambda: t.LinearSpline(min_bin=1e-7), lambda: t.QuadraticSpline(min_bin=1e-4), lambda: t.LinearRational(min_part=0.5),
    lambda: t.LinearRational(min_slope=9e-3), lambda: t.RationalQuadratic(min_slope=9e-5),
    lambda: t.CubicSpline(bound="wide"), lambda: t.LinearRational(min_part=0.0),
])  # fmt: skip
def test_arguments_out_of_range_are_refused(call):
    with pytest.raises(flows.FlowsError, match="expected"):
        call()
