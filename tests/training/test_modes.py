"""Fits to densities of several modes: all are found, with their masses; and parameters that have names."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of

import flows
from flows.training import History, fit_to_density
from flows.training.density import variational
from flows.training.density.figures import Verdict
from flows.training.density.modes import Gaussian, modes_of, spread_points
from flows.training.density.start import begin
from flows.training.density.target import Target, box_of
from flows.training.density.variational import default_model

BIJECTION = flows.Invert(flows.MAF(2, hidden=(16,)))
IAF = flows.Flow(BIJECTION)
ROWS = jnp.arange(4.0)  # as many as a density of two parameters is tried with
QUICK = {"max_epochs": 3, "steps_per_epoch": 20, "num_samples": 64, "num_held_out": 200, "num_weights": 2_000, "verbose": 0}


def wells(d, count):
    """Normals of unlike widths 8 from 0, of mass 1, 2, .. count by their sum, and where they are; the constant is 1."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(count, d))
    means *= 8 / np.linalg.norm(means, axis=1, keepdims=True)
    scales, shares = np.exp(0.3 * rng.normal(size=count)), np.arange(1, count + 1) / sum(range(1, count + 1))

    def log_density(x):
        z = (x[:, None] - jnp.asarray(means, x.dtype)[None]) / jnp.asarray(scales, x.dtype)[None, :, None]
        heights = np.log(shares) - d * np.log(scales) - 0.5 * d * np.log(2 * np.pi)
        return jax.nn.logsumexp(jnp.asarray(heights, x.dtype)[None] - 0.5 * jnp.square(z).sum(2), axis=1)

    return log_density, means, scales, shares


def found(log_density, d, starts=32, seed=0):
    return modes_of(np.random.default_rng(seed), Target(log_density, (d,), jnp.float32), starts)


@pytest.mark.parametrize(("d", "count"), [(2, 2), (2, 4), (5, 4), (10, 2), (10, 4)])
def test_all_wells_are_found_with_their_masses(d, count):
    log_density, means, scales, shares = wells(d, count)
    for seed in range(2):
        modes = found(log_density, d, seed=seed)
        which = np.linalg.norm(modes.means[:, None] - means[None], axis=2).argmin(1)
        assert sorted(which) == list(range(count)), "each of them once"
        np.testing.assert_allclose(modes.shares, shares[which], atol=0.03)
        np.testing.assert_allclose(modes.means, means[which], atol=1e-2)
        widths = np.sqrt(np.einsum("kij,kij->ki", modes.factors, modes.factors))
        np.testing.assert_allclose(widths, np.broadcast_to(scales[which, None], widths.shape), rtol=0.06)
        assert modes.effective > 0.9 and modes.shares.sum() == pytest.approx(1)


def test_modes_of_a_support_are_where_the_model_starts():
    """Modes are found on the line that stands for a support; the layers of a model take points of the support."""

    def log_density(x):  # half of the mass is around e^-3, half around e^3
        y = jnp.log(x)
        return (jnp.logaddexp(-50 * jnp.square(y + 3), -50 * jnp.square(y - 3)) - y).sum(1)

    model, box = flows.Flow(flows.RealNVP(1, hidden=(4,))), box_of((0, None), None, (1,))
    start = begin(np.random.default_rng(0), model, log_density, box, 8, True)
    params, _, sample = start.init_fun(0, (1,))
    y = np.log(sample(1, start.set(params, jnp.float32), 1_000))
    assert len(start.base.shares) == 2
    np.testing.assert_allclose([y[y < 0].mean(), y[y > 0].mean()], [-3, 3], atol=0.05)
    np.testing.assert_allclose([y[y < 0].std(), y[y > 0].std()], 0.1, rtol=0.2)


def test_the_tails_of_a_mode_count():
    def log_density(x):  # half of the mass is normal, half of t with 2 degrees, whose Gaussian has less
        normal = (-0.5 * jnp.square(x - 6) - 0.5 * np.log(2 * np.pi)).sum(1)
        return jnp.logaddexp(normal, jax.scipy.stats.t.logpdf(x + 6, 2).sum(1))

    modes = found(log_density, 2)
    assert sorted(np.sign(modes.means[:, 0])) == [-1, 1]
    np.testing.assert_allclose(modes.shares, 0.5, atol=0.03)


def regression(w):
    """Robust regression with four weights: half of 40 rows follow one line, half another, and each may be an outlier.

    By 1.6 million draws of a wide mixture of normals log Z is -97.613, and 71.7% of the mass has a positive first weight.
    """
    rng = np.random.default_rng(9)
    x = np.concatenate([np.ones((40, 1)), rng.normal(size=(40, 3))], 1)
    lines = np.array([[1.0, 2.0, -1.0, 0.5], [-2.0, -1.0, 2.0, 1.0]])
    y = np.where(np.arange(40) < 20, x @ lines[0], x @ lines[1]) + 0.3 * rng.normal(size=40)
    rest = jnp.asarray(y, w.dtype)[None] - jnp.matmul(w, jnp.asarray(x.T, w.dtype), precision="highest")
    parts = [np.log(share / scale) - 0.5 * jnp.square(rest / scale) for share, scale in ((0.6, 0.3), (0.4, 5.0))]
    prior = -0.5 * jnp.square(w / 5) - 0.5 * np.log(2 * np.pi * 25)
    return (jnp.logaddexp(*parts) - 0.5 * np.log(2 * np.pi)).sum(1) + prior.sum(1)


def test_both_lines_of_a_regression_with_outliers_are_found():
    modes = found(regression, 4)
    assert len(modes.shares) == 2 and (modes.means[:, 0] > 0).tolist() == [True, False]
    assert modes.shares[0] == pytest.approx(0.717, abs=0.03)


def test_a_saddle_does_not_join_the_modes_beside_it():
    def log_density(x):
        return jnp.logaddexp(-3 * jnp.square(x - 2).sum(1), -3 * jnp.square(x + 2).sum(1))

    for d in (1, 2):
        modes = found(log_density, d)
        assert len(modes.shares) == 2 and np.allclose(np.abs(modes.means), 2, atol=1e-2)
        assert len(found(log_density, d, starts=np.stack([np.full(d, at) for at in (-1.0, 0.0, 1.0)])).shares) == 2


def test_what_one_ridge_joins_is_one_mode_and_a_flat_top_has_a_width():
    def ring(x):
        return -0.5 * jnp.square((jnp.sqrt(jnp.square(x).sum(1) + 1e-12) - 3) / 0.3)

    assert len(found(ring, 2).shares) == 1
    flat = found(lambda x: -jnp.power(x / 2, 8).sum(1), 2)
    assert len(flat.shares) == 1 and np.allclose(np.sqrt(np.square(flat.factors).sum(2)), 2 * 0.5 ** (1 / 8), rtol=0.4)


def test_points_of_ones_own_are_where_it_starts_and_what_is_nowhere_finite_has_no_mode():
    log_density, means, _, _ = wells(2, 4)
    assert len(found(log_density, 2, starts=1).shares) == 1
    assert len(found(log_density, 2, starts=means[:3] + 0.5).shares) == 3
    assert found(lambda x: jnp.nan * x[:, 0], 2) is None
    far = found(lambda x: -0.5 * jnp.square(x - 1e6).sum(1), 2, starts=np.zeros((1, 2)))
    np.testing.assert_allclose(far.means, 1e6, rtol=1e-3)
    with pytest.warns(UserWarning, match=r"no maximum that \d+ starts could find: it still rises at"):
        assert found(lambda x: x.sum(1), 2) is None


def test_a_fit_has_all_modes_with_their_masses_and_says_how_many():
    log_density, means, _, shares = wells(2, 2)
    result = fit_to_density(0, IAF, log_density, 2, **QUICK)
    x = np.asarray(result.draw(1, 20_000))
    which = np.linalg.norm(x[:, None] - means[None], axis=2).argmin(1)
    np.testing.assert_allclose(np.bincount(which) / len(x), shares, atol=0.03)
    assert result.diagnostics.modes == 2 and "2 modes found" in repr(result)
    assert abs(result.diagnostics.log_normalizer.value) < 0.01 and result.diagnostics.effective_sample_size > 0.97
    assert result.init_fun == flows.Flow(flows.Whiten(), flows.Flow(BIJECTION, flows.GMM(num_components=2, trainable=True)))


def test_a_fit_that_needs_no_epoch_has_none_and_is_a_result_like_any_other(tmp_path):
    def gauss(x):
        return -0.5 * jnp.square((x - 3) / 2).sum(1)

    result = fit_to_density(0, IAF, gauss, 2, **QUICK)
    assert len(result.history["train_loss"]) == 0 and result.history["best_epoch"] == -1
    assert result.history.best == pytest.approx(-np.log(2 * np.pi * 4), abs=0.01)
    assert result.diagnostics.effective_sample_size > 0.99 and "kept the start" in repr(result)
    result.save(tmp_path / "q.flows")
    again = flows.load(tmp_path / "q.flows")
    assert again.diagnostics == result.diagnostics and again.diagnostics.modes == 1
    assert again.history.best == result.history.best


def test_a_mode_that_the_model_has_left_is_told():
    log_density = wells(2, 2)[0]
    model = flows.Normal(trainable=True)
    told = r"has left 1 of 2 modes: at \[.*\] lie 3\d\.\d% of the mass, and 0\.\d%"
    with pytest.warns(UserWarning, match=told), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit_to_density: Pareto k")
        result = fit_to_density(0, model, log_density, 2, **{**QUICK, "max_epochs": 10, "learning_rate": 0.1})
    assert result.diagnostics.effective_sample_size < 0.5, "counted with the Gaussians at the modes, it shows"
    assert result.diagnostics.log_normalizer.value == pytest.approx(0.0, abs=0.2), "and so does its mass"


def test_a_fit_that_left_modes_returns_its_start(monkeypatch):
    def lost(source, params, *rest):
        of_flow = params["prior"]
        logits = of_flow["prior"]["logits"] + jnp.array([0.0, -20.0])
        return {**params, "prior": {**of_flow, "prior": {**of_flow["prior"], "logits": logits}}}, History({"train_loss": []})

    log_density, means, _, shares = wells(2, 2)
    monkeypatch.setattr(variational, "drive", lost)
    monkeypatch.setattr(Verdict, "enough", property(lambda self: False))
    with pytest.warns(UserWarning, match="the training lost modes that its start had, so the result is the start"):
        result = fit_to_density(0, IAF, log_density, 2, **QUICK)
    assert result.history["best_epoch"] == -1 and result.diagnostics.effective_sample_size > 0.97
    which = np.linalg.norm(np.asarray(result.draw(1, 2_000))[:, None] - means[None], axis=2).argmin(1)
    np.testing.assert_allclose(which.mean(), shares[1], atol=0.05)


def test_a_result_says_how_modes_were_looked_for(tmp_path):
    log_density, means, *_ = wells(2, 2)
    results = [fit_to_density(0, None, log_density, 2, starts=starts, **QUICK) for starts in (8, means.astype(np.float32))]
    assert "2 modes found from 8 starts, at most 8 sd away" in repr(results[0])
    assert repr(results[1]).endswith("2 modes found") and results[1].diagnostics.starts == 0
    for result in results:
        result.save(tmp_path / "q.flows")
        assert flows.load(tmp_path / "q.flows").diagnostics == result.diagnostics
    starts = {"mu": np.zeros(3, np.float32), "scale": np.ones((3, 2), np.float32)}
    by_name = fit_to_density(0, IAF, named, NAMES, support={"scale": (0, None)}, starts=starts, **QUICK)
    assert by_name.diagnostics.starts == 0 and repr(by_name).endswith("1 mode found")
    flow = flows.Flow(flows.IAF(4, hidden=(32, 32), plain=True), flows.GMM(num_components=2, trainable=True))
    assert results[0].init_fun == flows.Flow(flows.Whiten(), flow)


def test_the_default_model_suits_the_event():
    assert default_model((1,)) == flows.Flow(flows.NSF())
    assert [default_model((d,)).arguments["bijection"].arguments["hidden"][0] for d in (2, 50, 1_000)] == [32, 50, 256]
    told = error_of(lambda: fit_to_density(0, None, lambda x: -x.sum((1, 2)), (2, 3)))
    assert "a point has shape (2, 3), and None is a model of vectors" in told


NAMES = {"mu": (), "scale": (2,)}


def named(p):
    """mu is N(1, 1), log(scale) are N(0, 0.5^2); the constant is 1."""
    of_scale = -0.5 * jnp.square(jnp.log(p["scale"]) / 0.5) - jnp.log(p["scale"]) - np.log(0.5 * np.sqrt(2 * np.pi))
    return -0.5 * jnp.square(p["mu"] - 1) - 0.5 * np.log(2 * np.pi) + of_scale.sum(1)


def test_parameters_have_names(tmp_path):
    result = fit_to_density(0, IAF, named, NAMES, support={"scale": (0, None)}, **QUICK)
    assert result.parameters == NAMES and result.input_dim == 3
    assert abs(result.diagnostics.log_normalizer.value) < 0.01
    drawn = result.draw(1, 4_000)
    assert {name: each.shape for name, each in drawn.items()} == {"mu": (4_000,), "scale": (4_000, 2)}
    assert drawn["scale"].min() > 0 and float(jnp.log(drawn["scale"]).std()) == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(result.log_prob(drawn)[:50], named(drawn)[:50], atol=0.2)
    x = result.sample(1, result.params, 4_000)
    np.testing.assert_array_equal(x[:, 0], drawn["mu"])
    np.testing.assert_array_equal(result.log_prob(drawn), result.log_prob(x))
    result.save(tmp_path / "q.flows")
    again = flows.load(tmp_path / "q.flows")
    assert again.parameters == NAMES
    np.testing.assert_array_equal(again.draw(1, 3)["scale"], result.draw(1, 3)["scale"])
    assert "expected a dict of arrays 'mu': (n,), 'scale': (n, 2)" in error_of(lambda: result.log_prob({"mu": np.zeros(3)}))
    assert "x has shapes" in error_of(lambda: result.log_prob({"mu": np.zeros(3), "scale": np.ones((2, 2))}))
    wrong = {"mu": np.zeros(3), "scale": np.ones((3, 1))}
    assert "x has shapes 'mu': (3,), 'scale': (3, 1)" in error_of(lambda: result.log_prob(wrong))


def one_point(x):
    return -0.5 * jnp.dot(x, x)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_to_density(0, IAF, one_point, 3, **QUICK), "takes a single point, (3,); .* give jax.vmap(log_density)"),
        (lambda: fit_to_density(0, IAF, lambda p: -p["mu"] @ p["mu"], {"mu": (3,)}, **QUICK), "takes a single point"),
        (lambda: fit_to_density(0, IAF, named, {}, **QUICK), "0 parameters of 0 numbers"),
        (lambda: fit_to_density(0, IAF, named, {"mu": (0,)}, **QUICK), "the shape of 'mu' is (0,)"),
        (lambda: fit_to_density(0, IAF, named, {3: ()}, **QUICK), "a parameter is called 3"),
        (
            lambda: fit_to_density(0, IAF, named, NAMES, support={"sigma": (0, 1)}, **QUICK),
            "support has 'sigma'; the parameters",
        ),
        (lambda: fit_to_density(0, IAF, named, NAMES, support=(0, 1), **QUICK), "expected a dict by parameter"),
        (lambda: fit_to_density(0, IAF, named, NAMES, support={"scale": 0}, **QUICK), "the support of 'scale' is 0"),
        (
            lambda: fit_to_density(0, IAF, named, NAMES, support={"scale": (np.zeros(3), None)}, **QUICK),
            r"expected a pair (low, high), of numbers or arrays (2,)",
        ),
        (
            lambda: fit_to_density(0, IAF, lambda p: p["nu"], NAMES, **QUICK),
            "log_density asks for 'nu'; the parameters are mu, scale",
        ),
        (lambda: fit_to_density(0, IAF, lambda p: -(p["mu"] ** 2) - (p["scale"] ** 2).sum(), NAMES, **QUICK), "next to others"),
        (
            lambda: fit_to_density(0, IAF, lambda p: p["mu"] - ((ROWS - p["nu"]) ** 2).sum(), {"mu": (), "nu": ()}, **QUICK),
            "jax.vmap",
        ),
        (lambda: fit_to_density(0, IAF, lambda x: 1e9 - (x**2).sum(1), 2, **QUICK), "float32 has steps of 1.2e+02 nats"),
        (lambda: fit_to_density(0, IAF, named, NAMES, support={"scale": (1, 0)}, **QUICK), "low < high"),
        (lambda: fit_to_density(0, IAF, named, NAMES, support={"scale": ("0", "1")}, **QUICK), "the support of 'scale'"),
        (lambda: fit_to_density(0, IAF, named, NAMES, support={"scale": (0, 1e39)}, **QUICK), "the support of 'scale'"),
        (
            lambda: fit_to_density(0, IAF, lambda p: -p["mu"].sum(1), {"mu": (2,)}, starts={"mu": 1.0}, **QUICK),
            "expected 'mu': (n, 2)",
        ),
        (lambda: fit_to_density(0, IAF, lambda x: -x.sum(1), 2, starts=0, **QUICK), "starts is 0"),
        (lambda: fit_to_density(0, IAF, lambda x: -x.sum(1), 2, starts=np.zeros((3, 1)), **QUICK), "starts have shape (3, 1)"),
        (
            lambda: fit_to_density(0, IAF, lambda x: -x.sum(1), 2, starts=-np.ones((3, 2)), support=(0, None), **QUICK),
            "outside the support",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    first, _, second = words.partition(".*")
    told = error_of(call)
    assert first in told and second in told


def test_a_box_takes_points_there_and_back():
    box = box_of({"scale": (0, None), "mu": (-1, 1)}, flows.results.density.Parameters.of(NAMES, "test"), (3,))
    x = np.array([[0.5, 2.0, 3.0]])
    y, log_det = box.outside(x)
    np.testing.assert_allclose(y, [[np.log(1.5 / 0.5), np.log(2), np.log(3)]], rtol=1e-6)
    np.testing.assert_allclose(box.back(jnp.asarray(y)), x, rtol=1e-6)
    np.testing.assert_allclose(log_det, [np.log(2 / (1.5 * 0.5)) - np.log(6)], rtol=1e-6)


def test_points_of_every_scale_lie_around_the_nearest_gaussian():
    nearest = Gaussian.of(np.full(2, 1e6), np.eye(2))
    points = spread_points(np.random.default_rng(0), 64, Target(lambda x: x.sum(1), (2,), jnp.float32), nearest)
    around = np.flatnonzero(points[:, 0] > 1e5)
    assert len(around) == 16 and np.bincount(around % 4).tolist() == [4, 4, 4, 4]
    assert (around < 8).sum() == 2, "some of the first starts, too"
