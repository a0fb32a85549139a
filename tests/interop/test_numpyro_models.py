"""The density of a program of NumPyro's, and flows fitted to it: known answers, orders, and what is refused."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from common import error_of
from numpyro import handlers
from numpyro.infer.util import potential_energy
from scipy import stats

import flows
from flows.interop.numpyro import fit_model, log_density

pytestmark = pytest.mark.usefixtures("relaxed")
QUIET = partial(flows.fit_to_density, verbose=0)

# A conjugate model: x ~ N(0, I) in the plane, y ~ N(A x, 0.5).
A = np.array([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]])
Y = np.array([1.0, -0.5, 2.0])
COVARIANCE = np.linalg.inv(np.eye(2) + A.T @ A / 0.25)
MEAN = COVARIANCE @ A.T @ Y / 0.25
LOG_Z = stats.multivariate_normal(np.zeros(3), A @ A.T + 0.25 * np.eye(3)).logpdf(Y)


def conjugate(y):
    x = numpyro.sample("x", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    numpyro.deterministic("norm", jnp.linalg.norm(x))
    numpyro.sample("y", dist.Normal(jnp.asarray(A, jnp.float32) @ x, 0.5).to_event(1), obs=y)


def mixed(y):
    """Sites of several shapes and supports, not in the order of their names, one of whose ends is another's value."""
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    top = numpyro.sample("cut", dist.Uniform(0.0, scale))
    numpyro.sample("shares", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("rows", 2):
        rows = numpyro.sample("a", dist.Normal(top, scale))
    numpyro.deterministic("twice", 2 * rows)
    numpyro.sample("y", dist.Poisson(jnp.exp(rows)), obs=y)


def conjugate_fit():
    return fit_model(0, conjugate, jnp.asarray(Y, jnp.float32), fit=QUIET)


def right(draws):
    """Whether draws are those of the conjugate posterior: means within 0.05 deviations, covariances within 5%."""
    deviations = np.sqrt(np.diag(COVARIANCE))
    assert (np.abs(draws.mean(0) - MEAN) < 0.05 * deviations).all()
    assert (np.abs(np.cov(draws.T) - COVARIANCE) < 0.05 * np.outer(deviations, deviations)).all()


def test_conjugate_posterior():
    fitted = conjugate_fit()
    assert abs(fitted.result.diagnostics.log_normalizer.value - LOG_Z) < 0.02
    for weighted in (False, True):
        draws = fitted.draw(1, 10_000, weighted=weighted)
        assert list(draws) == ["x", "norm"]
        right(np.asarray(draws["x"]))
        np.testing.assert_allclose(draws["norm"], np.linalg.norm(draws["x"], axis=1), rtol=1e-5)
    assert str(fitted).startswith("ModelFit of x (2,), norm ()\nDensityFitResult") and "log Z" in repr(fitted)


@pytest.mark.filterwarnings("ignore:fit_to_density. the model is too wide")
def test_weights_correct_a_flow_that_is_wrong():
    hardly = partial(QUIET, standardize=False, max_epochs=1, steps_per_epoch=1)
    wrong = fit_model(0, conjugate, jnp.asarray(Y, jnp.float32), flow=flows.Normal(trainable=True), fit=hardly)
    assert np.asarray(wrong.draw(1, 5_000)["x"]).std(0).min() > 0.9
    draws = np.asarray(wrong.draw(1, 10_000, weighted=True)["x"])
    right(draws)
    assert len(np.unique(draws, axis=0)) < 9_000 and (draws[1:] == draws[:-1]).all(1).mean() < 0.01


def test_density_is_numpyros_and_points_lie_in_the_order_of_the_program():
    y = jnp.array([1, 3])
    density = log_density(mixed, y)
    assert density.dim == 1 + 1 + 2 + 2
    points = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    values, sites = density.log_density(points), density.constrain(points)
    assert {name: site.shape for name, site in sites.items()} == {
        "scale": (4,), "cut": (4,), "shares": (4, 3), "a": (4, 2), "twice": (4, 2)
    }  # fmt: skip
    assert list(sites) == ["scale", "cut", "shares", "a", "twice"]
    one = dict(scale=points[0, 0], cut=points[0, 1], shares=points[0, 2:4], a=points[0, 4:])
    energy = jax.jit(lambda one: potential_energy(mixed, (y,), {}, one))(one)
    np.testing.assert_allclose(values[0], -energy, rtol=1e-6)
    np.testing.assert_allclose(sites["scale"], jnp.exp(points[:, 0]), rtol=1e-6)
    assert (sites["cut"] < sites["scale"]).all()
    jacobian = jax.jit(jax.jacrev(lambda z: density.constrain(z[None])["cut"][0]))(points[0])
    assert jacobian[0] != 0 and jacobian[1] != 0 and (jacobian[2:] == 0).all()
    np.testing.assert_allclose(jax.jit(density.log_density)(points[:1]), values[:1], rtol=1e-6)
    assert "(3, 5)" in error_of(lambda: density.log_density(jnp.ones((3, 5))))


@pytest.mark.slow
def test_neals_funnel():
    def funnel():
        neck = numpyro.sample("neck", dist.Normal(0.0, 3.0))
        numpyro.sample("x", dist.Normal(jnp.zeros(9), jnp.exp(neck / 2)).to_event(1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more epochs would gain a little
        fitted = fit_model(0, funnel, fit=QUIET)
    neck = np.asarray(fitted.draw(1, 20_000, weighted=True)["neck"])
    shares = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    assert (np.abs(np.quantile(neck, shares) - 3 * stats.norm.ppf(shares)) < 0.3).all()
    assert abs(fitted.result.diagnostics.log_normalizer.value) < 0.05


def observed():
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)


def discrete():
    k = numpyro.sample("k", dist.Poisson(2.0))
    numpyro.sample("y", dist.Normal(k, 1.0), obs=1.0)


def some_rows():
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", 100, subsample_size=10):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=jnp.zeros(10))


def not_a_number():
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("fine", dist.Normal(mean, 1.0), obs=0.0)
    numpyro.sample("y", dist.Normal(mean, 1.0).expand([3]).to_event(1), obs=jnp.array([1.0, jnp.nan, 2.0]))


def negative_scale():
    scale = numpyro.sample("scale", dist.Normal(-5.0, 0.1))
    numpyro.sample("y", dist.Normal(0.0, jnp.sqrt(scale)), obs=1.0)


def with_param():
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mean, numpyro.param("sigma", 2.0)), obs=1.0)


def with_key():
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mean + jax.random.normal(numpyro.prng_key()), 1.0), obs=1.0)


def on_sphere():
    numpyro.sample("u", dist.ProjectedNormal(jnp.ones(3)))


def nothing():
    numpyro.sample("u", dist.Normal(jnp.zeros(0), 1.0).to_event(1))


def nan_scale():
    numpyro.sample("u", dist.Normal(0.0, jnp.nan))


def a_point():
    numpyro.sample("u", dist.Delta(1.0))


REFUSED = {
    observed: ("no latents", "obs="),
    discrete: ("'k' is discrete (Poisson)", "MixtureSameFamily"),
    some_rows: ("plate 'rows' draws 10 of 100", "AutoFlow"),
    not_a_number: ("'y' (observed, and 1 of its 3 values are NaN)", "handlers.mask"),
    negative_scale: ("'y' (observed) is NaN", "its Normal"),
    with_param: ("'sigma'", "handlers.substitute"),
    with_key: ("prng_key", "outside of the model"),
    on_sphere: ("'u' lives on", "ProjectedNormalReparam"),
    nothing: ("no latents",),
    nan_scale: ("'u' (a latent) is NaN", "its Normal"),
    a_point: ("'u' is a point (Delta)", "deterministic"),
}


@pytest.mark.parametrize("model", REFUSED, ids=lambda model: model.__name__)
def test_models_without_such_a_density_are_refused(model):
    for call, name in ((log_density, "log_density"), (partial(fit_model, 0), "fit_model")):
        message = error_of(lambda call=call: call(model))
        assert message.startswith(f"{name}: ") and all(part in message for part in REFUSED[model]), message


def test_handlers_give_what_a_model_lacks():
    substituted = handlers.substitute(with_param, data={"sigma": 3.0})
    at = jnp.zeros((1, 1))
    expected = stats.norm(0, 1).logpdf(0) + stats.norm(0, 3).logpdf(1)
    np.testing.assert_allclose(log_density(substituted).log_density(at), expected, rtol=1e-6)
    conditioned = handlers.condition(discrete, data={"k": 2})
    assert "no latents" in error_of(lambda: log_density(conditioned))


def test_a_fit_that_is_none_and_a_density_without_end():
    with pytest.raises(TypeError, match="expected a DensityFitResult"):
        fit_model(0, conjugate, jnp.asarray(Y, jnp.float32), fit=lambda *_: None)
    with pytest.raises(TypeError, match="the model is 3"):
        log_density(3)
    with pytest.raises(TypeError, match="fit is 3"):
        fit_model(0, conjugate, jnp.asarray(Y, jnp.float32), fit=3)

    def improper():
        a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("endless", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.sample("y", dist.Normal(a[0], 1.0), obs=0.0)

    message = error_of(lambda: fit_model(0, improper, fit=QUIET))
    assert "number 2 of a point" in message and "'a' 0 to 1, 'endless' 2" in message
