"""Circles, tori and spheres: densities that integrate to 1, samples that follow them, no seam and no hole at a pole."""

import functools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, stirred
from registry import DIRECTIONAL, small
from scipy import stats

import flows
from flows import transformers as t
from flows.bijections.sphere import _log_det
from flows.diagnostics import enable_x64
from flows.distributions.polar import draw_angle

CONTEXT = np.array([0.5, -1.0])
SAMPLES = 4096


def quadrature(case):
    """Points of the manifold and their weights, by the midpoints of angles and Gauss-Legendre in the height."""
    if not case.on_sphere or case.event == 2:
        angles = (np.arange(200) + 0.5) * 2 * np.pi / 200 - np.pi
        grid = np.stack(np.meshgrid(*[angles] * (1 if case.on_sphere else case.event), indexing="ij"), -1)
        grid = grid.reshape(-1, grid.shape[-1])
        weights = np.full(len(grid), (2 * np.pi / 200 * case.radian) ** grid.shape[1])
        return (np.concatenate([np.cos(grid), np.sin(grid)], 1) if case.on_sphere else grid * case.radian), weights
    heights, of_height = np.polynomial.legendre.leggauss(150)
    a, z = (each.ravel() for each in np.meshgrid((np.arange(200) + 0.5) * 2 * np.pi / 200, heights))
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(a), radius * np.sin(a), z], 1), np.repeat(of_height, 200) * 2 * np.pi / 200


@functools.cache
def of_case(name):
    """Everything that the tests below compare, from one compiled call."""
    case, made = DIRECTIONAL[name], []
    grid, weights = quadrature(case)
    given = {"context": CONTEXT} if case.needs_context else {}
    cut = np.linspace(-2.0, 3.0, 5 * case.event).reshape(5, case.event)
    seam = [np.where(np.arange(case.event) == 0, end * case.radian, cut) for end in (np.pi, -np.pi)]

    @jax.jit
    def program(key, grid, seam):
        made[:] = case.init_fun(key, case.event, context_dim=2 if given else 0)
        params, log_pdf, sample = stirred(made[0], by=0.4), *made[1:]
        samples = sample(1, params, SAMPLES, **given)
        gradient = jax.grad(lambda params: log_pdf(params, samples[:7], **given).sum())(params)
        return params, log_pdf(params, grid, **given), [log_pdf(params, x, **given) for x in seam], samples, gradient

    with enable_x64():
        params, values, seam, samples, gradient = program(jax.random.key(0), grid, seam)
    return SimpleNamespace(
        case=case, grid=grid, weights=weights, params=params, log_p=np.asarray(values), seam=np.asarray(seam),
        samples=np.asarray(samples), gradient=jax.tree.map(np.asarray, gradient), functions=made[1:], given=given,
    )  # fmt: skip


@pytest.mark.parametrize("name", DIRECTIONAL)
def test_the_density_integrates_to_one_and_samples_follow_it(name):
    of = of_case(name)
    p = of.weights * np.exp(of.log_p)
    assert p.sum() == pytest.approx(1, abs=1e-3)
    assert of.samples.dtype == np.float64
    if of.case.on_sphere:
        close(np.square(of.samples).sum(1), 1.0, 1e-12)
    else:
        half = np.pi * of.case.radian
        assert (of.samples >= -half).all() and (of.samples < half).all() and np.abs(of.samples).max() > 0.9 * half

    def features(x):
        x = x if of.case.on_sphere else np.concatenate([np.cos(x / of.case.radian), np.sin(x / of.case.radian)], 1)
        pairs = np.einsum("ni,nj->nij", x, x).reshape(len(x), -1)
        return np.concatenate([x, pairs, x**3], 1)

    there, drawn = features(of.grid), features(of.samples)
    mean = p @ there / p.sum()
    error = np.sqrt(np.maximum(p @ np.square(there - mean) / p.sum(), 1e-12) / SAMPLES)
    assert (np.abs(drawn.mean(0) - mean) < 4.5 * error + 1e-6).all()
    assert name.endswith("Uniform") or np.ptp(of.log_p) > 0.3, "the density is hardly any other than the uniform one"


@pytest.mark.parametrize("name", DIRECTIONAL)
def test_every_trained_leaf_has_a_finite_gradient_that_is_not_zero(name):
    of = of_case(name)
    for leaf, train in zip(jax.tree.leaves(of.gradient), jax.tree.leaves(flows.trainable(of.params)), strict=True):
        assert np.isfinite(leaf).all() and (not leaf.size or (leaf != 0).any() == train)


@pytest.mark.parametrize("name", [name for name in DIRECTIONAL if "phere" not in name and "Fisher" not in name])
def test_angles_have_no_seam(name):
    assert not DIRECTIONAL[name].on_sphere
    close(of_case(name).seam[0], of_case(name).seam[1], 1e-10)


def test_heights_of_higher_spheres_change_the_radius_of_lower_ones():
    """log|det J| = sum_k log g' + (k - 2) / 2 log(q_k' / q_k), of z_2, z_3 and z_4."""
    rng = np.random.default_rng(0)
    log_slope, new_z, q = rng.normal(size=(3, 5)), rng.uniform(-0.9, 0.9, size=(3, 5)), rng.uniform(0.1, 1, size=(3, 5))
    ratio = np.log((1 - new_z**2) / q)
    found = jax.jit(_log_det)(*np.float32([log_slope, new_z, q]))
    close(found, log_slope.sum(0) + ratio[1] / 2 + ratio[2], 1e-5)


@pytest.mark.parametrize("event", [3, 4])
def test_the_density_has_one_value_at_a_pole(event):
    """Points around a pole of the coupling, whose maps are away from the identity, agree as the radius goes to 0."""
    rng = np.random.default_rng(0)
    around = rng.normal(size=(40, event - 1))
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    layer = flows.SphereCoupling(small, t.Moebius(2))
    with enable_x64():
        params, direct_fun, _ = layer(0, event)
        params = stirred(params, 1.0)
        spread = []
        for radius in (0.5, 1e-3, 1e-6, 0.0):
            x = np.concatenate([radius * around, np.full((40, 1), -math.sqrt(1 - radius**2))], 1)
            spread.append(np.ptp(direct_fun(params, x)[1]))
    assert spread[0] > 0.05 and spread[1] < 1e-2 and spread[2] < 1e-5 and spread[3] < 1e-9


@pytest.mark.parametrize("event", [3, 5])
def test_gradients_near_a_pole_are_finite(event):
    """Points that are poles up to a rounding, as data made of cosines and sines are."""
    params, direct_fun, _ = flows.SphereCoupling(small)(0, event)
    params = stirred(params, 0.5)
    x = np.zeros((4, event), np.float32)
    x[:, 0], x[:, -1] = [0.0, 1e-20, 1e-10, 6e-17], 1.0
    gradient = jax.grad(lambda x: direct_fun(params, x)[1].sum())(jnp.asarray(x))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() < 100
    above = np.array([[0.0, 0.0, 1.00004]], np.float32)
    y, _ = flows.Cylinder()(0, 3).direct_fun({}, above)
    close(flows.Cylinder()(0, 3).inverse_fun({}, y)[0], [[0.0, 0.0, 1.0]], 1e-6)


OFF = np.array([[0.0, 0.6, 0.8], [0.0, 0.6, 0.81], [0.0, 0.6, np.nan], [0.0, 0.6, 0.80001]])


def test_what_is_off_the_sphere_is_nan_in_a_bijection():
    for layer in (flows.Cylinder(), flows.SphereCoupling(small)):
        params, direct_fun, inverse_fun = layer(0, 3)
        for y, log_det in (
            direct_fun(params, OFF),
            inverse_fun(params, OFF) if layer != flows.Cylinder() else direct_fun(params, OFF),
        ):
            assert np.isnan(y).any(1).tolist() == np.isnan(log_det).tolist() == [False, True, True, False]
    params, _, inverse_fun = flows.Cylinder()(0, 3)
    assert np.isnan(inverse_fun(params, np.array([[0.6, 0.8, 1.2], [0.6, 0.9, 0.5]]))[0]).all()


@pytest.mark.parametrize(
    "base", [flows.SphereUniform(), flows.VonMisesFisher(), flows.Flow(flows.SphereFlow(1, (4,)), flows.SphereUniform())],
    ids=["uniform", "von Mises-Fisher", "flow"],
)  # fmt: skip
def test_what_is_off_the_sphere_has_no_density(base):
    params, log_pdf, _ = base(0, 3)
    log_p, gradient = log_pdf(params, OFF), jax.grad(lambda x: log_pdf(params, x[:2])[0])(OFF)
    assert np.isfinite(log_p).tolist() == [True, False, False, True]
    assert log_p[1] == -np.inf and np.isnan(log_p[2]) and np.isfinite(gradient[:2]).all()


def test_infinite_angles_have_no_density():
    x = np.array([[np.inf, 0.0], [np.nan, 0.0], [np.inf, np.nan], [0.0, 1e4]])
    flow = flows.Flow(flows.Coupling(small, t.Moebius(1)), flows.CircularUniform())
    for init_fun in (flows.CircularUniform(), flows.VonMises(), flow):
        params, log_pdf, _ = init_fun(0, 2)
        log_p = log_pdf(params, x)
        assert log_p[0] == -np.inf and np.isnan(log_p).tolist() == [False, True, True, False] and np.isfinite(log_p[3])


def test_networks_see_angles_as_cos_and_sin():
    """A whole turn of any column changes nothing; half a turn does, and so does its mirror image."""
    mixed = (t.Moebius(2), t.Affine(), t.CircularRationalQuadratic(3))
    masked = flows.conditioners.MaskedMLP(8, last_scale=1.0)
    for layer in (
        flows.Coupling(small, mixed, mask=(True, True, False)),
        flows.Coupling(small, t.Moebius(2)),
        flows.Autoregressive(masked, mixed),
    ):
        params, direct_fun, inverse_fun = layer(0, 3)
        params = stirred(params, 0.3)
        x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
        for scale, turn, changes in ((1, 2 * np.pi, False), (1, np.pi, True), (-1, 0, True)):
            moved = (direct_fun(params, x * np.float32([scale, 1, 1]) + np.float32([turn, 0, 0])), direct_fun(params, x))
            assert (np.abs(moved[0][0] - moved[1][0])[:, 2].max() > 1e-3) == changes
        y, log_det = direct_fun(params, x)
        back, minus_log_det = inverse_fun(params, y)
        close(back, x, 1e-4)
        close(minus_log_det, -log_det, 1e-4)
    assert "has an order that does not fit angles" in error_of(
        lambda: flows.Autoregressive(flows.conditioners.MaskedMLP(8, order=(1, 0)), t.Moebius())(0, 2)
    )
    assert "live in (Region(period=6.28" in error_of(lambda: flows.Coupling(small, t.Moebius(), unconditional=t.Affine()))


@pytest.mark.parametrize("concentration", [1e-3, 2.0, 500.0, 5e4])
def test_von_mises_and_von_mises_fisher_equal_scipy(concentration):
    rng = np.random.default_rng(0)
    with enable_x64():
        x = rng.uniform(-3, 3, size=(50, 1))
        params, log_pdf, sample = flows.VonMises(0.5, concentration)(0, 1)
        near = sample(1, params, 500)
        for points in (x, near):
            close(log_pdf(params, points), stats.vonmises(concentration, 0.5).logpdf(np.asarray(points))[:, 0], 1e-9)
        mean = np.abs(np.exp(1j * (np.asarray(near) - 0.5)).mean())
        expected = stats.vonmises(concentration).stats("v") if concentration > 100 else None
        if expected is not None:
            assert np.var(np.asarray(near)) == pytest.approx(float(expected), rel=0.2)
        assert mean <= 1
        for dims in (2, 3, 5):
            mu = np.ones(dims) / math.sqrt(dims)
            params, log_pdf, sample = flows.VonMisesFisher(tuple(mu), concentration)(0, dims)
            draws = np.asarray(sample(1, params, 500))
            known = stats.vonmises_fisher(mu, concentration)
            close(log_pdf(params, draws), known.logpdf(draws), 1e-9)
            theirs = known.rvs(4000, random_state=1) @ mu
            assert abs((draws @ mu).mean() - theirs.mean()) < 5 * theirs.std() / math.sqrt(500)


@pytest.mark.parametrize(
    ("dims", "concentration", "expected"), [(64, 1000.0, 160.18), (128, 1000.0, 323.92), (1000, 1.0, 2033.0573)]
)
def test_von_mises_fisher_in_many_dimensions(dims, concentration, expected):
    """At the mean direction; by arithmetic of many digits. Draws are as far from it as the density says."""
    params, log_pdf, sample = flows.VonMisesFisher(concentration=concentration)(0, dims)
    found = log_pdf(params, np.eye(dims, dtype=np.float32)[-1:])
    assert float(found[0]) == pytest.approx(expected, abs=0.02)
    heights = np.asarray(sample(1, params, 2_000))[:, -1]
    with enable_x64():
        step = 1e-4 * concentration
        ends = [flows.VonMisesFisher(concentration=concentration + sign * step)(0, dims) for sign in (1, -1)]
        pole = np.eye(dims)[-1:]
        slope = np.subtract(*(float(each.log_pdf({}, pole)[0]) for each in ends)) / (2 * step)
    assert heights.mean() == pytest.approx(
        1 - slope, abs=5 * float(heights.std()) / 2_000**0.5 + 1e-4
    )  # d log Z / dk = E[mu'x] - 1


def test_an_angle_is_drawn_with_the_derivative_of_its_quantile():
    """In the concentration, as by SciPy's distribution function F and density f: dt/dk = -dF/dk / f."""
    k = np.full(20, 2.0, np.float32)
    t, slope = jax.jit(lambda k: jax.jvp(lambda k: draw_angle(jax.random.key(0), k, 1), (k,), (jnp.ones_like(k),)))(k)
    above, below = (stats.vonmises(each).cdf(np.asarray(t)) for each in (2.001, 1.999))
    close(slope, -(above - below) / 0.002 / stats.vonmises(2.0).pdf(np.asarray(t)), 1e-3)
    assert np.abs(slope).min() > 1e-3


def test_draws_have_the_gradient_of_the_inverse_distribution_function():
    """Of the concentration and the mean direction, by differences at fixed noise."""
    with enable_x64():
        for init_fun, event in ((flows.VonMises(trainable=True), 1), (flows.VonMisesFisher(trainable=True), 4)):
            params, _, sample = init_fun(0, event)

            def mean(params, sample=sample):
                return (sample(1, params, 200) ** 3).sum(1).mean()

            gradient = jax.grad(mean)(params)
            for leaf, change in gradient.items():
                step = 1e-6 * np.cos(np.arange(change.size)).reshape(change.shape)
                ends = [mean({**params, leaf: params[leaf] + sign * step}) for sign in (1, -1)]
                assert float((change * step).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2, rel=1e-4, abs=1e-13)
                assert abs(change).max() > 1e-3


@pytest.mark.parametrize(
    ("constructor", "loc", "event", "given"),
    [
        (flows.VonMises, 3.0, 1, {}),
        (flows.VonMises, 3.0, 1, {"period": 24.0}),
        (flows.VonMisesFisher, (0.0, 3.0, 4.0), 3, {}),
    ],
    ids=["angles", "hours", "directions"],
)
def test_where_bases_are_measured(constructor, loc, event, given):
    with enable_x64():
        init_fun, trained = constructor(loc, 20.0, **given), constructor(trainable=True, **given)
        x = init_fun(0, event).sample(1, {}, 4000)
        params, log_pdf, _ = trained(0, event, init_inputs=x)
        truth = init_fun(0, event).log_pdf({}, x).mean()
        assert log_pdf(params, x).mean() == pytest.approx(float(truth), abs=0.01)
        assert log_pdf(trained(0, event).params, x).mean() < truth - 0.5


def test_circles_and_spheres_meet_their_kind_alone():
    line, circle, sphere = flows.ActNorm(), flows.Rotation(), flows.SphereFlow(1)
    for bijection, base, said in (
        (
            circle,
            flows.Normal(),
            "makes angles, and the base is of the line; give one that lives there, such as CircularUniform",
        ),
        (sphere, flows.Normal(), "such as SphereUniform()"),
        (line, flows.VonMises(), "the base takes angles"),
        (flows.Serial(line, circle), flows.VonMises(), "takes angles, which ActNorm() before it does not make"),
        (flows.Serial(circle, line), flows.VonMises(), "is handed angles, which it does not keep"),
        (flows.Rotation(period=1.0), flows.VonMises(), "the base takes angles"),
        (circle, flows.SphereUniform(), "takes points of a sphere"),
    ):
        assert said in error_of(lambda bijection=bijection, base=base: flows.Flow(bijection, base)(0, 3))
    kept = flows.Serial(flows.Reverse(), circle, flows.FixedAffine(scale=-1.0, shift=0.5))
    assert flows.support(flows.Flow(kept, flows.CircularUniform()), 2).inputs.period.tolist() == [2 * np.pi] * 2
    halves = flows.Serial(flows.FixedAffine(scale=2.0), circle)  # turns of half the length
    close(flows.support(halves, 2).inputs.period, [np.pi] * 2, 1e-6)
    assert flows.support(flows.Flow(flows.Householder(2), flows.SphereUniform()), 3).inputs.sphere.tolist() == [1, 1, 1]
    both = flows.Joint(flows.SphereUniform(), flows.Normal(), flows.SphereUniform(), sizes=(3, 1, 2))
    assert flows.support(both, 6).inputs.sphere.tolist() == [1, 1, 1, 0, 2, 2]
    mixed = flows.Flow(flows.Whiten(as_is=(0,)), flows.Joint(flows.VonMises(), flows.Normal()))
    assert flows.support(mixed, 2).inputs.period.tolist() == [2 * np.pi, 0.0]
    looped = flows.Flow(flows.Repeat(flows.Coupling(small, t.Moebius(1)), 2), flows.CircularUniform())
    assert flows.support(looped, 2).inputs.period.tolist() == [2 * np.pi] * 2
    assert "some components live on a circle" in error_of(lambda: flows.Mixture(flows.VonMises(), flows.Normal())(0, 1))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: flows.VonMises(concentration=0.0), "from 0.00001 to 100,000"),
        (lambda: flows.VonMises(period=-1.0), "VonMises: period"),
        (lambda: flows.VonMises(loc=(1.0, 2.0))(0, 3), "expected numbers, or arrays of the event, (3,)"),
        (lambda: flows.VonMisesFisher(loc=(0.0, 0.0, 0.0)), "expected a direction"),
        (lambda: flows.VonMisesFisher(loc=(1.0, 0.0))(0, 3), "expected the shape of the event, (3,)"),
        (lambda: flows.VonMisesFisher()(0, 1), "expected a vector of two entries or more"),
        (lambda: flows.SphereUniform()(0, (3, 3)), "expected a vector of two entries"),
        (lambda: flows.Cylinder()(0, 2), "expected (3,)"),
        (lambda: flows.SphereCoupling(circle=t.Affine()), "expected a transformer of period 2 pi"),
        (lambda: flows.SphereCoupling(interval=t.RationalQuadratic()), "takes [-1, 1] onto itself"),
        (lambda: flows.CircularUniform(period=0.0), "period"),
        (lambda: flows.Rotation(period=-1.0), "period"),
        (lambda: t.RationalQuadratic(ends="loose"), 'expected "fixed" or "free"'),
        (lambda: t.Moebius(0), "num_centers"),
        (lambda: flows.VonMises(conditioner=small)(0, 1), "context_dim"),
        (lambda: flows.VonMises(2.0, conditioner=small), "was given with a conditioner"),
        (lambda: flows.VonMisesFisher(concentration=2.0, conditioner=small), "was given with a conditioner"),
    ],
)
def test_bad_arguments_are_refused(call, said):
    assert said in error_of(call)


def test_fit_leaves_angles_and_unit_vectors_as_they_are_without_a_word():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.vonmises(2.0, 4.0, 300), 100 + 5 * rng.normal(size=300)], 1)
    net = flows.Coupling(flows.MLP(4), (t.Moebius(1), t.Affine()))
    model = flows.Flow(net, flows.Joint(flows.CircularUniform(), flows.Normal()))
    quick = {"max_epochs": 2, "batch_size": 90, "verbose": 0, "folds": 1}
    result = flows.fit(0, model, rows, **quick)  # a warning would be an error here
    assert result.init_fun.arguments["bijection"] == flows.Standardize(as_is=(0,))
    fixed = result.params["bijection"]["fixed"]
    assert fixed["std"][0] == 1 and fixed["mean"][0] == 0 and fixed["std"][1] == pytest.approx(5, rel=0.2)
    assert 0.6 + 2.9 < result.history["gaussian_loss"] < 1.0 + 3.2  # a von Mises next to a normal
    turned = result.log_pdf(result.params, rows[:9] + np.array([2 * np.pi, 0.0]))
    close(turned, result.log_pdf(result.params, rows[:9]), 1e-3)
    sphere = flows.VonMisesFisher(concentration=5.0)(0, 3).sample(1, {}, 300)
    for asked in ({}, {"as_is": (0, 1, 2)}):
        result = flows.fit(0, flows.VonMisesFisher(trainable=True), sphere, **asked, **quick)
        assert result.init_fun == flows.VonMisesFisher(trainable=True) and "gaussian_loss" not in result.history
    off = np.array(sphere)
    off[17] *= 1.01
    with pytest.warns(UserWarning, match="are these degrees"):
        flows.fit(0, flows.VonMises(trainable=True), np.rad2deg(rows[:, :1]), **quick)
    assert "row 17 of data is not a point of the sphere" in error_of(
        lambda: flows.fit(0, flows.VonMisesFisher(trainable=True), off, **quick)
    )
    same = np.tile([0.6, 0.0, 0.8], (300, 1))
    assert "columns 0, 1, 2 of data are constant, the unit vector (0.6, 0, 0.8) in all 270 training rows" in error_of(
        lambda: flows.fit(0, flows.VonMisesFisher(trainable=True), same, as_is=(0, 1, 2), **quick)
    )


def test_moebius_of_one_centre_is_the_closed_form_and_its_inverse():
    """In the complex plane: z -> (z - w) / (1 - conj(w) z)."""
    with enable_x64():
        theta = jnp.tile(jnp.array([0.7, -1.3, 0.0])[:, None], (1, 9))
        x = jnp.linspace(-7.0, 7.0, 9)
        y, log_det = t.Moebius(1).direct(theta, x)
        v = 0.7 - 1.3j
        w = 0.99 * v / math.sqrt(1 + abs(v) ** 2)
        z = np.exp(1j * np.asarray(x))
        close(np.exp(1j * np.asarray(y)), (z - w) / (1 - np.conj(w) * z), 1e-12)
        assert (np.diff(y) > 0).all() and np.abs(y - x).max() < np.pi and np.abs(log_det).max() > 0.5
        close(t.Moebius(1).inverse(theta, y)[0], x, 1e-12)
