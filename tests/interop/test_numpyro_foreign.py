"""NumPyro's transforms and distributions as layers and bases of ours."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms

import flows
from flows.core import CIRCLE, SPHERE, Region, beyond, inside, resolved
from flows.diagnostics import enable_x64
from flows.interop.numpyro import FromDistribution, FromTransform, transform

pytestmark = pytest.mark.usefixtures("relaxed")  # NumPyro is not written for the strict rules
LOW = np.array([0.0, 1.0, 2.0])
TRANSFORMS = {
    "affine": (lambda: transforms.AffineTransform(jnp.ones(3), jnp.full(3, 2.0)), {"loc", "scale"}),
    "exp": (lambda: transforms.ExpTransform(), set()),
    "log": (lambda: transforms.ExpTransform().inv, set()),
    "composed": (
        lambda: transforms.ComposeTransform([transforms.AffineTransform(jnp.array(1.0), 2.0), transforms.SigmoidTransform()]),
        {"parts"},
    ),
    "matrix": (
        lambda: transforms.LowerCholeskyAffine(jnp.zeros(3), jnp.eye(3) + jnp.tril(jnp.ones((3, 3)))),
        {"loc", "scale_tril"},
    ),
    "power": (lambda: transforms.PowerTransform(jnp.array(2.0)), {"exponent"}),
    "permuted": (lambda: transforms.PermuteTransform(jnp.array([2, 0, 1])), set()),
    "of an interval": (
        lambda: transforms.AffineTransform(jnp.array(1.0), jnp.array(3.0), domain=dist.constraints.unit_interval),
        {"fixed"},
    ),
}
DISTRIBUTIONS = {
    "gamma": (lambda: dist.Gamma(jnp.array([1.0, 2.0, 3.0]), 1.5), {"concentration"}, Region(0.0)),
    "normal of each": (lambda: dist.Normal(0.5, jnp.array(2.0)), {"scale"}, Region()),
    "beta": (lambda: dist.Beta(jnp.array(2.0), 3.0), {"concentration1"}, Region(0.0, 1.0)),
    "uniform": (lambda: dist.Uniform(jnp.asarray(LOW, float), 3.0), {"fixed"}, Region(LOW, 3.0)),
    "multivariate": (
        lambda: dist.MultivariateNormal(jnp.zeros(3), covariance_matrix=jnp.eye(3) + 0.5),
        {"loc", "scale_tril"},
        Region(),
    ),
    "von Mises": (lambda: dist.VonMises(jnp.zeros(3), 2.0), {"loc"}, CIRCLE),
    "on the sphere": (lambda: dist.ProjectedNormal(jnp.array([1.0, 2.0, 3.0])), {"concentration"}, SPHERE),
    "truncated": (lambda: dist.TruncatedNormal(jnp.array(0.5), 1.0, low=0.0), {"base_dist"}, Region(0.0)),
    "transformed": (
        lambda: dist.TransformedDistribution(dist.Normal(0.0, 1.0), transforms.AffineTransform(jnp.array(1.0), jnp.array(2.0))),
        {"transforms"},
        Region(),
    ),
    "mixture": (
        lambda: dist.MixtureSameFamily(dist.Categorical(jnp.array([0.3, 0.7])), dist.Normal(jnp.array([-1.0, 1.0]), 1.0)),
        {"mixing_distribution", "component_distribution"},
        Region(),
    ),
}
RNG = np.random.default_rng(0)
REVERSED = flows.Reverse()(0, 2).params
QUICK = ("exp", "uniform")


def marked(cases):
    return [pytest.param(*each, id=name, marks=[pytest.mark.slow] * (name not in QUICK)) for name, each in cases.items()]


@pytest.mark.parametrize(("make", "names"), marked(TRANSFORMS))
def test_a_transform_is_a_bijection(make, names):
    init_fun = FromTransform(make)
    params, direct_fun, _ = init_fun(0, 3)
    assert set(params) == names
    report = flows.verify(init_fun, 3)
    assert report.passed, report
    support, theirs = flows.support(init_fun, 3), make()
    x = inside(support.inputs, jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32))
    np.testing.assert_allclose(direct_fun(params, x)[0], theirs(x), rtol=1e-6)
    assert not beyond(support.outputs, theirs(x)).any()
    np.testing.assert_allclose(transform(init_fun, params, 3).inv(theirs(x)), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "names", "region"), marked(DISTRIBUTIONS))
def test_a_distribution_is_a_base(make, names, region):
    with enable_x64():
        init_fun = FromDistribution(make)
        theirs = make()
        params, log_pdf, sample = init_fun(0, 3)
        assert set(params) == names
        support = flows.support(init_fun, 3).inputs
        assert support == resolved(region, (3,))
        x = sample(1, params, 2_000)
        assert x.shape == (2_000, 3) and not beyond(support, x).any()
        whole = theirs if theirs.event_shape else theirs.expand((3,)).to_event(1)
        np.testing.assert_allclose(log_pdf(params, x[:5]), whole.log_prob(x[:5]), rtol=1e-12, atol=1e-12)
        expected = whole.sample(jax.random.key(2), (2_000,))
        np.testing.assert_allclose(x.mean(0), expected.mean(0), atol=0.1 * float(expected.std()) + 0.02)
        if np.isfinite(np.asarray(support.low)).all() and not support.sphere.any():
            assert log_pdf(params, x[:1] - 10.0).tolist() == log_pdf(params, x[:1] * jnp.inf).tolist() == [-np.inf]
        assert np.isnan(log_pdf(params, x[:1].at[0, 0].set(jnp.nan))).all()


def test_what_the_support_depends_on_does_not_train():
    model = flows.Flow(flows.FixedAffine(), FromDistribution(DISTRIBUTIONS["uniform"][0]))
    assert not any(jax.tree.leaves(flows.trainable(model(0, 3).params)))


@pytest.mark.slow
def test_densities_and_draws_go_by_the_same_arrays():
    """A Beta of NumPyro's keeps a Dirichlet for its draws."""
    _, log_pdf, sample = FromDistribution(DISTRIBUTIONS["beta"][0])(0, 2)
    moved = {"concentration1": jnp.array(5.0)}
    draws = sample(1, moved, 4_000)
    assert abs(float(draws.mean()) - 5 / 8) < 0.02
    np.testing.assert_allclose(log_pdf(moved, draws[:3]), dist.Beta(5.0, 3.0).log_prob(draws[:3]).sum(1), rtol=1e-5)
    full = {"loc": jnp.zeros(2), "scale_tril": jnp.array([[1.0, 9.0], [0.5, 1.0]])}  # the 9 does nothing
    base = FromDistribution(lambda: dist.MultivariateNormal(jnp.zeros(2), scale_tril=jnp.eye(2)))(0, 2)
    assert abs(float(base.sample(0, full, 4_000)[:, 0].std()) - 1) < 0.1


def test_equal_functions_make_equal_values():
    assert FromTransform(TRANSFORMS["exp"][0]) == FromTransform(TRANSFORMS["exp"][0])
    entrywise = flows.Serial(FromTransform(TRANSFORMS["log"][0]), flows.FixedAffine(2.0), flows.NSF())
    assert flows.support(entrywise, 2).inputs.low.tolist() == [0.0, 0.0]


class Endless(transforms.ParameterFreeTransform):
    domain = codomain = dist.constraints.real

    def __call__(self, x):
        return x**3


def test_bad_input_names_the_remedy(tmp_path):
    for call, kind, words in (
        (lambda: FromTransform(transforms.ExpTransform()), TypeError, "lambda: ..."),
        (lambda: FromTransform(lambda x: x), TypeError, r"make\(\)"),
        (lambda: FromTransform(lambda: dist.Normal(0.0, 1.0)), TypeError, "give it to FromDistribution"),
        (lambda: FromDistribution(lambda: transforms.ExpTransform()), TypeError, "give it to FromTransform"),
        (lambda: FromDistribution(lambda: flows.Normal()), TypeError, "a model of this library"),
        (lambda: FromDistribution(flows.Normal), TypeError, "constructor"),
        (lambda: FromTransform(lambda: transforms.StickBreakingTransform()), flows.FlowsError, "Simplex.*entry by entry"),
        (lambda: FromDistribution(lambda: dist.Dirichlet(jnp.ones(3))), flows.FlowsError, "Simplex"),
        (lambda: FromDistribution(lambda: dist.Poisson(3.0)), flows.FlowsError, "flows.Categorical"),
        (lambda: FromTransform(lambda: transforms.AbsTransform())(0, 2), flows.FlowsError, "forward and inverse agree"),
        (lambda: FromDistribution(lambda: dist.Gamma(jnp.ones(3), 1.0))(0, 2), flows.FlowsError, r"batch_shape \(3,\)"),
        (lambda: FromDistribution(lambda: dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))(0, 2), flows.FlowsError, "event"),
        (lambda: FromTransform(lambda: Endless())(0, 2), flows.FlowsError, "has no inverse"),
        (lambda: FromTransform(lambda: transforms.AffineTransform(float(RNG.normal()), 2.0)), flows.FlowsError, "called again"),
        (lambda: FromDistribution(lambda: dist.Delta(0.0)), flows.FlowsError, "Delta has no density"),
        (
            lambda: FromDistribution(lambda: dist.Normal(0.0, 1.0).mask(False)),
            flows.FlowsError,
            "MaskedDistribution has no density",
        ),
        (
            lambda: FromTransform(lambda: transform(flows.Reverse(), REVERSED, 2)),
            flows.FlowsError,
            "holds a model of this library",
        ),
        (lambda: flows.save(tmp_path / "x", FromTransform(TRANSFORMS["exp"][0]), {}, 2), flows.FlowsError, "make"),
    ):
        with pytest.raises(kind, match=words):
            call()
