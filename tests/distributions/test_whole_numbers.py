"""Whole numbers: `INTEGERS`, `DiscretizedLogistic`, `transformers.Integer`, and what `fit` makes of columns of them."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, stirred
from scipy import stats

import flows
from flows.core import inside
from flows.diagnostics import enable_x64
from flows.transformers import Affine, Integer


def counts(rows=600):
    rng = np.random.default_rng(0)
    first = rng.poisson(4.0, rows)
    return np.stack([first, first + rng.poisson(2.0, rows)], 1).astype(np.float32)


def shifts(*transformer, net=None):
    net = flows.MLP(4, last_scale=1.0) if net is None else net
    return flows.Serial(*(flows.Coupling(net, Integer(*transformer), flip=flip) for flip in (False, True)))


def test_masses_are_those_of_cells_and_the_ends_take_the_tails():
    params = {"loc": np.array([0.4]), "log_scale": np.array([-0.3])}
    loc, scale = 0.4, np.exp(10 * np.tanh(-0.03))
    cells = stats.logistic(loc, scale).cdf
    with enable_x64():
        _, log_pdf, _ = flows.DiscretizedLogistic(True)(0, 1)
        x = np.array([-40.0, -3.0, 0.0, 1.0, 60.0])
        close(log_pdf(params, x[1:4, None]), np.log(cells(x[1:4] + 0.5) - cells(x[1:4] - 0.5)), 1e-12)
        slope = (x[[0, 4]] - loc) / scale
        far = -np.abs(slope) + 0.5 / scale + np.log(-np.expm1(-1 / scale))
        close(log_pdf(params, x[[0, 4], None]), far, 1e-9)
        _, log_pdf, _ = flows.DiscretizedLogistic(True, low=-4, high=3)(0, 1)
        middle, unit = -0.5, 1.0
        cells = stats.logistic(middle + unit * loc, unit * scale).cdf
        x = np.arange(-4.0, 4.0)
        upper, lower = np.where(x == 3, 1.0, cells(x + 0.5)), np.where(x == -4, 0.0, cells(x - 0.5))
        close(np.exp(log_pdf(params, x[:, None])), upper - lower, 1e-12)


@pytest.mark.parametrize("ends", [(None, None), (0, None), (None, 5), (0, 6)])
def test_draws_follow_masses_and_the_distribution_function_is_theirs(ends):
    base = flows.DiscretizedLogistic(True, low=ends[0], high=ends[1])
    params, log_pdf, sample = distribution = base(0, 1)
    params = stirred(params, by=0.3)
    x = np.arange(-60.0 if ends[0] is None else ends[0], 60.0 if ends[1] is None else ends[1] + 1)
    with enable_x64():
        masses = np.exp(log_pdf(params, x[:, None]))
    assert masses.sum() == pytest.approx(1, abs=1e-6)
    drawn = np.asarray(sample(1, params, 20_000))[:, 0]
    shares = np.array([(drawn == value).mean() for value in x])
    assert np.abs(shares - masses).max() < 0.02
    model = flows.fit(0, base, drawn[:500, None], max_epochs=1, verbose=0, standardize=False)._replace(params=params)
    close(model.cdf(x[:, None]), np.cumsum(masses), 1e-5)
    u = np.linspace(0.02, 0.98, 25)
    found = np.asarray(model.quantile(u)).ravel()
    expected = x[np.searchsorted(np.cumsum(masses), u)]
    close(found, expected, 0)
    assert distribution.log_pdf is log_pdf


def test_quantiles_of_a_mixture_are_whole():
    init_fun = flows.Mixture(flows.DiscretizedLogistic(True), flows.DiscretizedLogistic(True))
    rows = np.arange(40.0)[:, None] % 7
    model = flows.fit(0, init_fun, rows, max_epochs=1, folds=1, verbose=0)
    model = model._replace(params=stirred(model.params, by=0.5))
    u = np.linspace(0.02, 0.98, 25)
    found = np.asarray(model.quantile(u)).ravel()
    assert model.cdf_by == "map" and (found == np.round(found)).all() and len(set(found)) > 3
    below, above = (np.asarray(model.cdf(found[:, None] - shift)).ravel() for shift in (1, 0))
    assert ((below < u + 1e-5) & (u < above + 1e-5)).all()


def test_quantiles_by_draws_are_whole():
    rng = np.random.default_rng(0)
    context = rng.normal(size=(100, 2)).astype(np.float32)
    base = flows.DiscretizedLogistic(conditioner=flows.MLP(4))
    model = flows.fit(0, base, counts(100)[:, :1], context=context, max_epochs=100, learning_rate=0.05, folds=1, verbose=0)
    found = np.asarray(model.quantile(np.linspace(0.01, 0.99, 197), context=context[0]))
    assert model.cdf_by == "draws" and (found == np.round(found)).all()


def test_params_start_at_the_data():
    rng = np.random.default_rng(0)
    x = np.clip(np.round(rng.logistic(50.0, 4.0, (4000, 1))), 0, 99)
    for ends in ((None, None), (0, 99)):
        params, log_pdf, _ = flows.DiscretizedLogistic(True, low=ends[0], high=ends[1])(0, 1, init_inputs=x)
        exact = stats.logistic(50, 4)
        assert -float(log_pdf(params, x).mean()) == pytest.approx(-np.log(exact.pdf(x)).mean(), abs=0.01)
    params, log_pdf, _ = flows.DiscretizedLogistic(True)(0, 1, init_inputs=np.full((10, 1), 7.0))
    assert float(log_pdf(params, np.array([[7.0]]))[0]) > -0.01


@pytest.mark.parametrize("modulus", [None, 4])
def test_shifts_are_whole_undone_and_have_the_slope_of_what_is_rounded(modulus):
    theta, x = jnp.linspace(-3.3, 3.3, 12)[None], jnp.arange(12.0) % 4
    transformer = Integer(modulus, 2.0)
    y, log_slope = transformer.direct(theta, x)
    assert (y == jnp.round(y)).all() and (log_slope == 0).all() and (y != x).any()
    assert modulus is None or ((y >= 0) & (y < modulus)).all()
    close(transformer.inverse(theta, y)[0], x, 0)
    jacobian = jax.grad(lambda theta, x: transformer.direct(theta, x)[0].sum(), (0, 1))(theta, x)
    close(jacobian[0], 2.0 * np.ones((1, 12)), 0)
    close(jacobian[1], np.ones(12), 0)
    assert float(transformer.direct(jnp.ones((1, 1)), jnp.array([jnp.inf]))[0][0]) == np.inf


def test_where_models_live_and_what_networks_see():
    model = flows.Flow(shifts(), flows.DiscretizedLogistic())
    region = flows.support(model, 2).inputs
    assert region == flows.support(flows.DiscretizedLogistic(), 2).inputs and region.whole.all() and not region.flat
    assert flows.INTEGERS.words.noun == "whole numbers" and repr(flows.INTEGERS) == "Region(whole=True)"
    close(inside(region, jnp.array([[0.6, -1.2]])), [[1.0, -1.0]], 0)
    near = flows.Coupling(flows.MLP(4, last_scale=1.0), Integer())
    far = flows.Coupling(flows.MLP(4, last_scale=1.0), Integer(None, 10.0))
    x = np.array([[30.0, 0.0], [50.0, 0.0]])
    moved = near(0, 2).direct_fun(near(0, 2).params, x / [10.0, 1.0])[0]
    ten = far(0, 2).direct_fun(far(0, 2).params, x)[0]
    assert np.abs(ten[:, 1] - 10 * moved[:, 1]).max() <= 5
    widths = [flows.Coupling(flows.MLP(4), Integer(k))(0, 2).params["conditioner"][0]["w"].shape[0] for k in (None, 5)]
    assert widths == [1, 5]


def test_couplings_by_every_mask_and_layout_have_exact_masses():
    three = flows.Reverse(), flows.Coupling(flows.MLP(4, last_scale=1.0), Integer(3), mask="random")
    model = flows.Flow(flows.Serial(*three, shifts(3)), flows.Categorical(3, 3, 3, hidden=(4,)))
    params, log_pdf, _ = model(0, 3)
    grid = np.array(list(product(range(3), repeat=3)), float)
    assert float(jnp.exp(log_pdf(stirred(params, by=0.5), grid)).sum()) == pytest.approx(1, abs=1e-5)
    image = flows.Coupling(flows.conditioners.Convolution(last_scale=0.3), Integer(3), mask="checkerboard")
    model = flows.Flow(image, flows.DiscretizedLogistic(low=0, high=2))
    params, log_pdf, _ = model(0, (2, 2, 1))
    grid = np.array(list(product(range(3), repeat=4)), float).reshape(-1, 2, 2, 1)
    assert float(jnp.exp(log_pdf(stirred(params, by=0.5), grid)).sum()) == pytest.approx(1, abs=1e-5)


def test_autoregressive_counts_have_exact_masses():
    layer = flows.Autoregressive(flows.conditioners.MaskedMLP(4, last_scale=0.5), Integer(None, 2.0))
    params, log_pdf, sample = flows.Flow(layer, flows.DiscretizedLogistic())(0, 2)
    grid = np.array(list(product(range(-30, 31), repeat=2)), float)
    assert float(jnp.exp(log_pdf(params, grid)).sum()) == pytest.approx(1, abs=1e-3)
    drawn = sample(1, params, 50)
    assert (drawn == jnp.round(drawn)).all() and jnp.isfinite(log_pdf(params, drawn)).all()


@pytest.fixture(scope="module")
def fitted():
    model = flows.Flow(shifts(), flows.DiscretizedLogistic(True))
    return flows.fit(0, model, counts(), max_epochs=4, verbose=0)


def test_counts_are_fitted_as_they_are_without_a_word(fitted, recwarn):
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]
    assert "Standardize" not in repr(fitted.init_fun) and "Dequantize" not in repr(fitted.init_fun)
    x = counts()[:50]
    bits = flows.bits_per_dim(fitted, x)
    close(bits.each, -np.asarray(fitted.log_prob(x)) / (2 * np.log(2)), 1e-5)
    gaussian = -float(fitted.history["gaussian_loss"])
    rows = counts()
    normal = stats.norm(rows.mean(0), rows.std(0))
    assert gaussian == pytest.approx(np.log(normal.cdf(rows + 0.5) - normal.cdf(rows - 0.5)).sum(1).mean(), abs=0.3)


def test_a_result_is_saved_and_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "a.flows")
    again = flows.load(tmp_path / "a.flows")
    close(again.log_prob(counts()[:5]), fitted.log_prob(counts()[:5]), 0)
    assert again.init_fun == fitted.init_fun


def test_a_mixture_of_them_starts_apart():
    x = np.concatenate([np.full(200, 3.0), np.full(200, 20.0)])[:, None] + np.arange(400)[:, None] % 3
    model = flows.Mixture(flows.DiscretizedLogistic(True), num_components=2)
    result = flows.fit(0, model, x, max_epochs=30, verbose=0)
    assert float(result.log_prob(x).mean()) > -2.6  # a single one has -3.7


def half(x):
    return x + 0.5


REFUSED = {
    "fraction": (lambda: fit(shifts(), half(counts())), "is not a whole number; expected whole numbers"),
    "code": (lambda: fit(shifts(4), counts(), high=3), "is not a code; expected whole numbers 0 to 3"),
    "end of data": (
        lambda: flows.fit(0, flows.DiscretizedLogistic(True, low=1), counts(), verbose=0),
        "which is not a value of the model; expected whole numbers from 1 to inf",
    ),
    "base": (lambda: flows.Flow(shifts(), flows.Normal())(0, 2), "makes whole numbers, and the base is of the line"),
    "base of codes": (lambda: flows.Flow(shifts(4), flows.DiscretizedLogistic())(0, 2), "whole numbers"),
    "scale": (lambda: flows.Flow(flows.ActNorm(), flows.DiscretizedLogistic())(0, 2), "the base takes whole numbers"),
    "autoregressive": (lambda: flows.Autoregressive(transformer=Integer(3))(0, 2), "expected the base Categorical"),
    "other": (lambda: flows.Coupling(transformer=Integer(), unconditional=Affine())(0, 2), "expected the same regions"),
    "ends": (lambda: flows.DiscretizedLogistic(low=3, high=3), "low is 3 and high is 3; expected low < high"),
    "end": (lambda: flows.DiscretizedLogistic(low=0.5), "low is 0.5; expected a whole number"),
    "modulus": (lambda: Integer(0), "Integer: modulus is 0"),
    "unit": (lambda: Integer(None, 0.0), "Integer: scale is 0"),
    "matching": (lambda: density(flows.Flow(shifts(), flows.DiscretizedLogistic())), "draws whole numbers, through which"),
}


def fit(layers, x, high=None):
    return flows.fit(0, flows.Flow(layers, flows.DiscretizedLogistic(low=0 if high else None, high=high)), x, verbose=0)


def density(model):
    return flows.fit_to_density(0, model, lambda x: -jnp.square(x).sum(1), 2, verbose=0)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name):
    call, expected = REFUSED[name]
    assert expected in error_of(call)
