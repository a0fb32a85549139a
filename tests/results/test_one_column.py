"""Of one column: distribution functions, quantiles and intervals, by a model's own map or by draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
from common import AFFINE, QUICK, ROWS, close, error_of
from jax.scipy.stats import norm
from scipy import stats

import flows
from flows.diagnostics import enable_x64
from flows.distributions.cdf import weighted
from flows.training import fit

GAMMA = np.random.default_rng(2).gamma(2.0, 1.5, size=(300, 1))
CONTEXT = np.random.default_rng(3).normal(size=(300, 1))


def test_a_model_of_one_column_by_draws_or_by_its_map():
    data = 2 * CONTEXT + 0.5 * ROWS[:, :1]
    result = fit(0, flows.Normal(conditioner=flows.MLP(8)), data, context=CONTEXT, **QUICK)
    assert result.cdf_by == "draws", "its parameters are made by a network"
    low, high = result.interval(0.8, context=CONTEXT[:3])
    assert low.shape == high.shape == (3,) and bool((low < high).all())
    shares = result.cdf(np.asarray(low)[:, None], context=CONTEXT[:3])
    np.testing.assert_allclose(shares, 0.1, atol=0.02)
    moved = flows.Flow(flows.Autoregressive(flows.conditioners.MaskedMLP(8)))
    by_map = fit(0, moved, data, context=CONTEXT, **QUICK)
    assert by_map.cdf_by == "map"
    q = by_map.quantile([0.1, 0.5, 0.9], context=CONTEXT[:4])
    assert q.shape == (4, 3)
    for j, share in enumerate((0.1, 0.5, 0.9)):
        np.testing.assert_allclose(by_map.cdf(q[:, j : j + 1], context=CONTEXT[:4]), share, atol=1e-5)
    assert by_map.quantile(0.5, context=[1.0]).shape == ()
    draws = np.asarray(by_map.draw(0, 4_000, context=[1.0]))
    np.testing.assert_allclose(np.quantile(draws, 0.9), by_map.quantile(0.9, context=[1.0]), atol=0.15)


def as_result(init_fun):
    return flows.FitResult(*init_fun(0, 1), init_fun, 1)


# Distribution functions

LINES = {
    "falls": (flows.Flow(flows.FixedAffine(shift=1.0, scale=-2.0)), stats.norm(0.5, 0.5)),
    "logistic": (flows.Flow(flows.FixedAffine(scale=0.5), flows.Logistic()), stats.logistic(0, 2)),
    "laplace": (flows.Laplace(), stats.laplace()),
    "uniform": (flows.Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
    "bounded": (flows.Flow(flows.Unconstrain(0.0, float("inf"))), stats.lognorm(1.0)),
}


@pytest.mark.parametrize("name", LINES)
def test_distribution_functions_are_those_of_the_model(name):
    init_fun, truth = LINES[name]
    result = flows.FitResult(*init_fun(0, 1), init_fun, 1)
    assert result.cdf_by == "map"
    x = truth.ppf([0.02, 0.3, 0.9]).astype(np.float32)
    np.testing.assert_allclose(result.cdf(x[:, None]), truth.cdf(x), atol=1e-6)
    q = np.array([[0.02, 0.3], [0.5, 0.9]])
    np.testing.assert_allclose(result.quantile(q), truth.ppf(q), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.stack(result.interval(0.5)), truth.ppf([0.25, 0.75]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.quantile([0.0, 1.0]), truth.ppf([0.0, 1.0]), rtol=1e-5, atol=1e-30)
    assert np.isnan(result.cdf([[np.nan]])).all()
    if np.isfinite(truth.support()[0]):
        assert result.cdf([[truth.support()[0] - 1]]).tolist() == [0.0]


def test_a_continuous_flow_has_quantiles():
    result = as_result(flows.Flow(flows.Continuous(flows.MLP(4), steps=4)))
    x = result.quantile([0.1, 0.9])
    np.testing.assert_allclose(result.cdf(x[:, None]), [0.1, 0.9], atol=1e-3)


def test_a_map_whose_inverse_knows_no_infinity_has_ends():
    """It falls, so that each end of the base is the other's."""

    @flows.bijection
    def Found():
        def init_fun(rng, shape):
            return {}, lambda params, x: (-2 * x, jnp.log(2.0)), lambda params, y: jnp.where(jnp.isinf(y), jnp.nan, -y / 2)

        return init_fun

    assert as_result(flows.Flow(Found())).quantile([0.0, 0.5, 1.0]).tolist() == [-np.inf, 0.0, np.inf]


@pytest.mark.parametrize(
    ("layer", "ends"),
    [
        (flows.ResidualBlock(), [-np.inf, np.inf]),
        (flows.Serial(flows.ResidualBlock(log_det="unbiased"), flows.FixedAffine(scale=-1.0)), [-np.inf, np.inf]),
        (flows.Serial(flows.Logit(), flows.ResidualBlock()), [0.0, 1.0]),
    ],
    ids=["a block", "falls, unbiased", "in a box"],
)
def test_a_residual_block_has_ends(layer, ends):
    """Its inverse takes steps, and finds no point of infinity."""
    init_fun = flows.Flow(layer)
    result = flows.FitResult(*init_fun(0, 1), init_fun, 1)
    assert result.cdf_by == "map"
    found = result.quantile([0.0, 0.5, 1.0])
    np.testing.assert_array_equal(found[::2], ends)
    assert ends[0] < found[1] < ends[1]


@pytest.mark.parametrize("copies", [True, False])
def test_distribution_functions_of_mixtures(copies):
    normals = [stats.norm(-1.0, 0.5), stats.norm(2.0, 1.5)]
    shifts = [flows.Flow(flows.FixedAffine(shift=-n.mean() / n.std(), scale=1 / n.std())) for n in normals]
    mixtures = [
        flows.GMM([[n.mean()] for n in normals], [[[n.var()]] for n in normals], [0.25, 0.75]),
        flows.Mixture(*shifts, weights=[0.25, 0.75], trainable=False),
    ]
    init_fun = mixtures[copies]
    result = flows.FitResult(*init_fun(0, 1), init_fun, 1)
    x = np.array([-2.0, -1.0, 0.5, 3.0], np.float32)
    expected = 0.25 * normals[0].cdf(x) + 0.75 * normals[1].cdf(x)
    np.testing.assert_allclose(result.cdf(x[:, None]), expected, atol=1e-6)
    np.testing.assert_allclose(result.quantile(expected), x, atol=1e-4)
    assert result.quantile([0.0, 1.0]).tolist() == [-np.inf, np.inf]


def test_tails_keep_their_digits():
    """Of maps that fall, too, and of mixtures of unlike components."""
    falls = as_result(flows.Flow(flows.FixedAffine(scale=-1.0)))
    q = np.array([1e-10, 1e-30, 1 - 1e-12])
    np.testing.assert_allclose(falls.quantile(q), stats.norm.ppf(q), rtol=1e-4)
    np.testing.assert_allclose(falls.cdf([[-8.0]]), stats.norm.cdf(-8.0), rtol=1e-4)
    np.testing.assert_allclose(as_result(flows.Laplace()).quantile(q), stats.laplace.ppf(q), rtol=1e-5)
    for parts in ((flows.Normal(), flows.Laplace()), (flows.Laplace(), flows.Normal())):
        x = np.asarray(as_result(flows.Mixture(*parts, trainable=False)).quantile([1e-8, 1e-9, 1 - 1e-9]), float)
        expected = (stats.norm.cdf(x) + stats.laplace.cdf(x)) / 2
        np.testing.assert_allclose(expected[:2], [1e-8, 1e-9], rtol=1e-4)
        np.testing.assert_allclose(x[2], -x[1], rtol=1e-5)


def test_ends_of_a_mixture_are_those_of_its_widest_component():
    """Of a uniform number and a normal one, from below and from above."""

    def tails(params, x, context, upper, known):
        below = jnp.stack([jnp.clip(x, 0, 1), norm.cdf(x)])
        return jnp.where(upper, 1 - below, below)

    def points(params, u, context, upper, known):
        below = jnp.where(upper, 1 - u, u)
        return jnp.stack([below, norm.ppf(below)])

    both = weighted(lambda params: jnp.full(2, 0.5), tails, points)
    found = jax.jit(lambda u, upper: both.point((), u, None, upper))(np.float32([0, 1, 0, 1]), np.arange(4) > 1)
    assert found.tolist() == [-np.inf, np.inf, np.inf, -np.inf]


def test_quantiles_of_a_mixture_are_its_own_at_the_ends():
    for bounded in (flows.Uniform(0.0, 1.0), flows.Flow(flows.Unconstrain(0.0, 1.0))):
        for parts in ((bounded, flows.Normal()), (flows.Normal(), bounded)):
            result = as_result(flows.Mixture(*parts, trainable=False))
            assert result.quantile([0.0, 1.0]).tolist() == [-np.inf, np.inf]
            q = np.array([1e-6, 0.2, 0.7, 0.999])
            np.testing.assert_allclose(result.cdf(np.asarray(result.quantile(q))[:, None]), q, rtol=1e-4)


def test_which_way_a_map_runs_is_told_where_float32_sees_one_point():
    near_one = as_result(flows.Flow(flows.Serial(flows.Logit(), flows.FixedAffine(shift=-30.0))))
    assert near_one.quantile([0.0, 1.0]).tolist() == [0.0, 1.0] and near_one.cdf([[0.3]]).tolist() == [0.0]
    far = as_result(flows.Flow(flows.FixedAffine(shift=1e8)))
    assert far.quantile([0.0, 1.0]).tolist() == [-np.inf, np.inf] and far.cdf([[-np.inf], [np.inf]]).tolist() == [0.0, 1.0]


def test_a_map_that_does_not_reach_all_of_its_base_is_none():
    assert [as_result(flows.Flow(each)).cdf_by for each in (flows.Power(3.0), flows.Tanh())] == ["draws", "draws"]
    reached = as_result(flows.Flow(flows.Tanh(), flows.Uniform(-0.5, 0.5)))
    assert reached.cdf_by == "map"
    np.testing.assert_allclose(reached.quantile([0.0, 0.25, 1.0]), np.arctanh([-0.5, -0.25, 0.5]), rtol=1e-5)


def test_distribution_functions_by_draws():
    data, model = 2 * CONTEXT + 0.5 * ROWS[:, :1], flows.Normal(conditioner=flows.MLP(8))
    result = fit(0, model, data, context=CONTEXT, **QUICK)
    assert result.cdf_by == "draws"
    found = np.asarray(result.cdf(data[:2], context=[[np.nan], [0.0]]))
    assert np.isnan(found[0]) and 0 < found[1] < 1, "no NaN is hidden"
    assert result.quantile([[0.1, 0.9]], context=CONTEXT[:4]).shape == (4, 1, 2)
    assert result.cdf(data[:0], context=CONTEXT[:0]).shape == result.quantile(0.5, context=CONTEXT[:0]).shape == (0,)
    message = error_of(lambda: result.cdf(data[:5], context=CONTEXT[:3]))
    assert message == "context has shape (3, 1); expected (5, 1), a row for each of 5, or (1,), one for all rows"
    assert "context is missing" in error_of(lambda: result.cdf(data[:5]))
    one = result.cdf(data[:7], context=CONTEXT[3])
    np.testing.assert_allclose(one, result.cdf(data[:7], context=np.repeat(CONTEXT[3:4], 7, 0)), atol=0.03)


def test_dtypes_of_distribution_functions():
    result = as_result(flows.Flow(flows.FixedAffine(scale=2.0)))
    x = np.array([[1.0], [2.0]])
    for dtype in (np.float16, np.float32, int):
        assert result.cdf(x.astype(dtype)).dtype == np.float32
    with enable_x64():
        trained = fit(0, flows.Flow(flows.Elementwise(flows.transformers.Affine())), GAMMA, **QUICK)
        assert [trained.cdf(x.astype(each)).dtype for each in (np.float32, int, float)] == [np.float32, np.float32, np.float64]
        np.testing.assert_allclose(trained.cdf(np.asarray(trained.quantile([1e-12]))[:, None]), 1e-12, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(result.quantile)(jnp.array([0.5, 0.1])), result.quantile([0.5, 0.1]), atol=1e-6)
    np.testing.assert_allclose(result.quantile(pandas.Series([0.5, 0.1])), result.quantile([0.5, 0.1]), atol=1e-6)


def test_refusals_of_distribution_functions():
    of_table = fit(0, AFFINE, ROWS, **QUICK)
    for call in (lambda: of_table.cdf(ROWS), lambda: of_table.quantile(0.5), lambda: of_table.interval()):
        assert "expected a single column" in error_of(call)
    init_fun = flows.Normal()
    result = flows.FitResult(*init_fun(0, 1), init_fun, 1)
    for q in (-0.1, 1.5, np.nan):
        assert "quantile: q is" in error_of(lambda q=q: result.quantile(q))
    for call in (
        lambda: result.quantile(0.5, context=[1.0]),
        lambda: result.cdf([[0.0]], context=[1.0]),
        lambda: result.log_prob([[0.0]], context=[1.0]),
        lambda: result.draw(0, 1, context=[1.0]),
        lambda: result.verify([[0.0]], context=[1.0]),
    ):
        with pytest.raises(TypeError, match="context was given, but this model was fitted without one"):
            call()
    assert "interval: share" in error_of(lambda: result.interval(1.0))
    assert "cdf: x has shape (3,)" in error_of(lambda: result.cdf(np.zeros(3)))


def test_a_standardised_context_is_seen_standardised():
    init_fun = flows.StandardizedContext(flows.Normal(trainable=True, regression=True))
    params = init_fun(0, 1, context_dim=1).params
    params["fixed"] = {"mean": jnp.array([3.0]), "std": jnp.array([2.0])}
    params["distribution"] = jax.tree.map(jnp.ones_like, params["distribution"]) | {"log_scale": jnp.zeros(1)}
    result = flows.FitResult(params, *init_fun(0, 1, context_dim=1)[1:], init_fun, 1, 1)
    assert result.cdf_by == "map"
    close(result.quantile(0.5, context=[7.0]), 1.0 + (7.0 - 3.0) / 2.0, 1e-5)
    close(result.cdf(np.array([[3.0]]), context=[7.0]), [0.5], 1e-5)
