"""Bases against SciPy and fifty-digit arithmetic, at infinity, conditional, and in mixtures and joins."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import error_of
from scipy import stats

import flows
from flows.core import from_json, to_json
from flows.diagnostics import enable_x64

X = np.random.default_rng(0).normal(size=(20, 2)) * 3
LOC, LOG_SCALE = np.array([1.0, -2.0]), np.array([-0.7, 1.1])
SCALE = np.exp(10 * np.tanh(LOG_SCALE / 10))
TRIL = np.array([0.8])
FACTOR = SCALE[:, None] * np.array([[1.0, 0.0], [1e4 * np.tanh(TRIL[0] / 1e4), 1.0]])
C = np.array([0.5, -1.0, 2.0], np.float32)


def theta(**more):
    return {name: jnp.asarray(value) for name, value in {"loc": LOC, "log_scale": LOG_SCALE, **more}.items()}


# Standard and trained base, its further params, and what SciPy makes of the same numbers.
FAMILIES = {
    "Normal": (flows.Normal, {}, stats.norm),
    "Laplace": (flows.Laplace, {}, stats.laplace),
    "Logistic": (flows.Logistic, {}, stats.logistic),
    "StudentT": (
        functools.partial(flows.StudentT, 3.0),
        {"log_df": np.array([0.5, -1.0])},
        functools.partial(stats.t, 3 * np.exp(5 * np.tanh(np.array([0.5, -1.0]) / 5))),
    ),
}


@flows.conditioner
def Constants(values):
    """A network that makes the same numbers of every context, but for a weight that starts at 0."""

    def net(rng, input_dim, output_dim):
        assert (input_dim, output_dim) == (len(C), len(values))
        params = {"w": jnp.zeros((input_dim, output_dim)), "b": jnp.asarray(np.array(values), float)}
        return params, lambda params, inputs: inputs @ params["w"] + params["b"][None]

    return net


@pytest.mark.parametrize("name", FAMILIES)
def test_location_scale_bases_equal_scipy(name):
    make, more, family = FAMILIES[name]
    with enable_x64():
        standard = stats.t(3.0) if name == "StudentT" else family
        np.testing.assert_allclose(make()(0, 2).log_pdf({}, X), standard.logpdf(X).sum(1), rtol=1e-12)
        params, log_pdf, sample = make(trainable=True)(0, 2)
        assert {leaf: value.shape for leaf, value in params.items()} == dict.fromkeys(theta(**more), (2,))
        np.testing.assert_allclose(log_pdf(params, X), standard.logpdf(X).sum(1), rtol=1e-12)
        scaled = family(loc=LOC, scale=SCALE)
        expected = scaled.logpdf(X).sum(1)
        np.testing.assert_allclose(log_pdf(theta(**more), X), expected, rtol=1e-12)
        for draws, cdf in zip(np.asarray(sample(1, theta(**more), 2048)).T, np.eye(2, dtype=bool), strict=True):
            assert stats.kstest(draws, lambda x, cdf=cdf: scaled.cdf(x[:, None])[:, cdf][:, 0]).pvalue > 1e-3
        # The same numbers, made of a context; of an event of two axes.
        values = np.concatenate([LOC, LOG_SCALE, *more.values()])
        of_context = make(conditioner=Constants(values))(0, (1, 2), context_dim=3)
        np.testing.assert_allclose(of_context.log_pdf(of_context.params, X[:, None], context=C), expected, rtol=1e-12)
        assert of_context.sample(0, of_context.params, 5, context=C).shape == (5, 1, 2)
        slopes = jax.grad(lambda params: of_context.log_pdf(params, X[:, None], context=C).sum())(of_context.params)
        assert bool((slopes["w"] != 0).all())
        with pytest.raises(flows.FlowsError, match="context_dim="):
            make(conditioner=flows.MLP(4))(0, 2)
        with pytest.raises(TypeError, match="no layer of it takes a context"):
            make(trainable=True)(0, 2, context_dim=3)


def test_a_full_covariance_equals_scipy_trained_and_conditional():
    normal = stats.multivariate_normal(LOC, FACTOR @ FACTOR.T)
    with enable_x64():
        params, log_pdf, sample = flows.Normal(trainable=True, covariance="full")(0, 2)
        np.testing.assert_allclose(log_pdf(params, X), stats.norm.logpdf(X).sum(1), rtol=1e-12)
        np.testing.assert_allclose(log_pdf(theta(tril=TRIL), X), normal.logpdf(X), rtol=1e-12)
        draws = np.asarray(sample(0, theta(tril=TRIL), 20_000))
        np.testing.assert_allclose(np.cov(draws.T), normal.cov, atol=0.04 * np.abs(normal.cov).max())
        values = np.concatenate([LOC, LOG_SCALE, TRIL])
        params, log_pdf, sample = flows.Normal(covariance="full", conditioner=Constants(values))(0, 2, context_dim=3)
        rows = jnp.tile(C.astype(float), (len(X), 1))
        np.testing.assert_allclose(log_pdf(params, X, context=rows), normal.logpdf(X), rtol=1e-12)
        # A context of its own for each row: the network's outputs differ, and so do the triangles.
        params = {**params, "w": jnp.ones((3, 5)) * 0.1}
        rows = rows.at[0].add(1.0)
        moved = values + 0.1 * np.asarray(rows.sum(1))[:, None]
        s = np.exp(10 * np.tanh(moved[:, 2:4] / 10))
        factor = s[0][:, None] * np.array([[1.0, 0.0], [1e4 * np.tanh(moved[0, 4] / 1e4), 1.0]])
        expected = stats.multivariate_normal(moved[0, :2], factor @ factor.T).logpdf(X[0])
        np.testing.assert_allclose(log_pdf(params, X, context=rows)[0], expected, rtol=1e-12)
        assert sample(0, params, 20, context=rows).shape == (20, 2)


def test_samples_of_a_gmm_have_its_covariance():
    covariance = FACTOR @ FACTOR.T
    params, _, sample = flows.GMM([LOC, LOC], [covariance, covariance], [0.5, 0.5])(0, 2)
    np.testing.assert_allclose(np.cov(sample(0, params, 20_000).T), covariance, atol=0.04 * np.abs(covariance).max())


def test_a_network_that_measures_sees_the_context():
    @flows.conditioner
    def Centred():
        def net(rng, input_dim, output_dim, init_inputs=None, params=None):
            mean = jnp.zeros(input_dim) if init_inputs is None else init_inputs.mean(0)
            w = jnp.ones((input_dim, output_dim)) if params is None else params["w"]
            return {"w": w, "fixed": {"mean": mean}}, lambda own, x: (x - own["fixed"]["mean"][None]) @ own["w"]

        return net

    init_fun, context = flows.Normal(conditioner=Centred()), X[:, :1].astype(np.float32)
    params = init_fun(0, 2, context_dim=1, init_inputs=X, init_context=context).params
    np.testing.assert_allclose(params["fixed"]["mean"], context.mean(0), rtol=1e-5)
    moved = flows.remeasure(init_fun, params, X.astype(np.float32), context=context + 1)
    np.testing.assert_allclose(moved["fixed"]["mean"], context.mean(0) + 1, rtol=1e-5)


def test_student_t_keeps_its_digits():
    def at(init_fun, z, dtype):
        return float(init_fun(0, 1).log_pdf({}, np.array([[z]], dtype))[0])

    cases = [  # df, z, fifty-digit log density
        (0.1, 0.0, -1.909920741368282046),
        (3.0, 1.5, -2.120120425494355083),
        (2.0, 1e30, -207.2326583694641116),
        (1e6, 2.5, -4.043932142610597071),
        (500.0, 0.7, -1.164808321303154921),
    ]
    for df, z, expected in cases:
        np.testing.assert_allclose(at(flows.StudentT(df), z, np.float32), expected, rtol=1e-6)
        with enable_x64():
            np.testing.assert_allclose(at(flows.StudentT(df), z, np.float64), expected, rtol=2e-14)


def test_tails_train():
    """The degrees of freedom of each column find those of the data."""
    data = np.stack([stats.t(2.0).rvs(4000, random_state=1), stats.t(20.0).rvs(4000, random_state=2)], axis=1)
    params, log_pdf, _ = flows.StudentT(df=5.0, trainable=True)(0, 2)
    params = descend(log_pdf, params, data, steps=300)
    df = 5 * np.exp(5 * np.tanh(np.asarray(params["log_df"]) / 5))
    assert 1.8 < df[0] < 2.25 and 12 < df[1] < 40


@pytest.mark.parametrize(
    "init_fun",
    [
        flows.Normal(trainable=True),
        flows.Normal(trainable=True, covariance="full"),
        flows.Laplace(trainable=True),
        flows.Logistic(trainable=True),
        flows.StudentT(trainable=True),
        flows.Uniform(-1.0, 1.0),
        flows.GMM(np.eye(2), np.stack([np.eye(2)] * 2), [0.5, 0.5]),
        flows.GMM(np.eye(2), np.stack([np.eye(2)] * 2), [0.5, 0.5], trainable=True),
        flows.Mixture(flows.Normal(trainable=True), flows.Uniform()),
        flows.Mixture(flows.StudentT(trainable=True), flows.Normal(trainable=True, covariance="full")),
        flows.Mixture(flows.Laplace(trainable=True), num_components=2),
    ],
    ids=lambda init_fun: repr(init_fun)[:30],
)
def test_the_ends_of_float32_are_honest(init_fun):
    params, log_pdf, _ = init_fun(0, 2)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    inf, huge = np.inf, 3e38
    x = np.array([[0, 0], [1.2e-38, -1e-30], [1e30, 1], [-huge, huge], [inf, 0], [-inf, inf], [np.nan, inf]], np.float32)
    values = np.asarray(log_pdf(params, x))
    assert np.isfinite(values[:2]).all() and not np.isnan(values[:6]).any() and np.isnan(values[6])
    assert (values[4:6] == -inf).all()
    slopes = jax.jit(jax.vmap(jax.grad(lambda params, x: log_pdf(params, x[None])[0], argnums=(0, 1)), (None, 0)))(params, x)
    assert not any(np.isnan(leaf[:6]).any() for leaf in jax.tree.leaves(slopes))


def test_a_part_that_is_impossible_leaves_the_gradients_of_a_mixture_alone():
    params, log_pdf, _ = flows.Mixture(flows.Normal(trainable=True), flows.Laplace(trainable=True))(0, 1)
    x = np.array([[3e38]], np.float32)
    assert log_pdf(params, x)[0] == np.float32(-3e38)
    slopes = jax.grad(lambda params, x: log_pdf(params, x)[0], argnums=(0, 1))(params, x)
    assert slopes[1][0, 0] == -1 and slopes[0]["components"][0]["log_scale"][0] == 0


def test_a_full_covariance_never_overflows():
    params, log_pdf, _ = flows.Normal(trainable=True, covariance="full")(0, 3)
    params |= {"tril": jnp.array([1e20, 0.0, 1e20])}
    np.testing.assert_allclose(log_pdf(params, np.zeros((1, 3), np.float32)), -1.5 * np.log(2 * np.pi), rtol=1e-6)


def test_scales_never_overflow():
    params = jax.tree.map(lambda leaf: leaf + jnp.array([1e3, -1e3]), flows.Normal(trainable=True)(0, 2).params)
    values, slopes = jax.value_and_grad(lambda p: flows.Normal(trainable=True)(0, 2).log_pdf(p, X.astype(np.float32)).sum())(
        params
    )
    assert np.isfinite(values) and all(np.isfinite(leaf).all() for leaf in slopes.values())


def test_uniform_is_a_box_with_its_faces():
    init_fun = flows.Uniform(low=[-1.0, 0.1], high=(1.0, 0.5))
    params, log_pdf, sample = init_fun(0, 2)
    x = np.array([[0.0, 0.2], [-1.0, 0.1], [1.0, 0.5], [0.0, 0.6], [-1.1, 0.2], [np.nan, 9.0]], np.float32)
    inside = -np.log(2 * 0.4)
    np.testing.assert_allclose(log_pdf(params, x), [inside] * 3 + [-np.inf] * 2 + [np.nan], rtol=1e-6)
    draws = sample(1, params, 2000)
    assert np.isfinite(log_pdf(params, draws)).all()
    assert stats.kstest(draws[:, 1], stats.uniform(0.1, 0.4).cdf).pvalue > 1e-3
    assert flows.Uniform(-1, 1)(0, (2, 2)).log_pdf({}, np.zeros((3, 2, 2), np.float32)).tolist() == pytest.approx(
        [-np.log(16)] * 3
    )


def test_first_draws_do_not_depend_on_how_many():
    for init_fun in (flows.Normal(), flows.StudentT(), flows.Uniform(), flows.Laplace()):
        sample = init_fun(0, 3).sample
        np.testing.assert_array_equal(sample(0, {}, 100)[:3], sample(0, {}, 3))


def test_a_mixture_is_the_sum_of_its_components():
    with enable_x64():
        init_fun = flows.Mixture(flows.Normal(True), flows.Laplace(True), flows.Uniform(-2.0, 2.0), weights=(0.5, 0.3, 0.2))
        params, log_pdf, sample = init_fun(0, 1)
        params = {**params, "components": ({"loc": jnp.ones(1), "log_scale": jnp.zeros(1)}, *params["components"][1:])}
        loc = float(params["components"][1]["loc"][0])

        parts = [(0.5, stats.norm(1)), (0.3, stats.laplace(loc)), (0.2, stats.uniform(-2, 4))]
        x = np.linspace(-5, 5, 21)
        expected = sum(weight * part.pdf(x) for weight, part in parts)
        np.testing.assert_allclose(np.exp(log_pdf(params, x[:, None])), expected, rtol=1e-12)
        draws = np.asarray(sample(3, params, 4000))[:, 0]
        assert stats.kstest(draws, lambda x: sum(weight * part.cdf(x) for weight, part in parts)).pvalue > 1e-3
    fixed = flows.Mixture(flows.Normal(), flows.Laplace(), trainable=False)(0, 1).params
    assert flows.trainable(fixed) == {"components": ({}, {}), "fixed": {"logits": False}}


def test_copies_are_the_components_one_by_one():
    together, apart = flows.Mixture(flows.Normal(True), num_components=3), flows.Mixture(*[flows.Normal(True)] * 3)
    a, b = together(5, 2), apart(5, 2)
    own = [jax.tree.map(lambda leaf, k=k: leaf[k], a.params["components"]) for k in range(3)]
    b = b._replace(params={**a.params, "components": tuple(own)})
    np.testing.assert_allclose(a.log_pdf(a.params, X), b.log_pdf(b.params, X), rtol=1e-5)
    np.testing.assert_allclose(a.sample(1, a.params, 9), b.sample(1, b.params, 9), rtol=1e-5)
    assert flows.Mixture(flows.Uniform(), num_components=2)(0, 1).log_pdf is not None  # without any params
    refreshed = flows.remeasure(together, a.params, X.astype(np.float32))
    jax.tree.map(np.testing.assert_array_equal, refreshed, a.params)
    assert from_json(to_json(together)) == together and repr(together) == "Mixture(Normal(trainable=True), num_components=3)"


BIMODAL = (np.where(np.arange(400)[:, None] % 2, -3.0, 3.0) + np.random.default_rng(1).normal(size=(400, 2))).astype(np.float32)


def descend(log_pdf, params, data, steps, rate=3e-2, context=None):
    given = {} if context is None else {"context": context}
    optimizer = optax.masked(optax.adam(rate), flows.trainable)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            gradients = jax.grad(lambda params: -log_pdf(params, data, **given).mean())(params)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[0][0]

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return run(params)


@pytest.mark.parametrize("component", [flows.Normal(True), flows.Normal(True, covariance="full"), flows.StudentT(5.0, True)])
def test_equal_components_start_apart_and_separate(component):
    init_fun = flows.Mixture(component, num_components=2)
    params, log_pdf, _ = init_fun(0, 2)
    assert (np.ptp(params["components"]["loc"], axis=0) > 0.01).all() and not np.ptp(params["components"]["log_scale"])
    other = init_fun(1, 2).params["components"]["loc"]
    assert (other != params["components"]["loc"]).all()
    params = descend(log_pdf, params, BIMODAL, steps=300, rate=0.1)
    np.testing.assert_allclose(np.sort(params["components"]["loc"][:, 0]), [-3, 3], atol=0.3)


def test_with_data_components_start_at_rows():
    init_fun = flows.Mixture(flows.Normal(True), flows.Laplace(True), flows.Normal(), flows.Normal(True))
    params = init_fun(0, 2, init_inputs=BIMODAL).params["components"]
    starts = np.stack([params[k]["loc"] for k in (0, 1, 3)])
    nearest = np.linalg.norm(starts[:, None] - BIMODAL[None], axis=-1)
    assert (nearest.min(1) < 0.2).all() and len(set(nearest.argmin(1))) == 3
    twin = flows.Mixture(flows.Normal(True), num_components=2)(0, 2, init_inputs=np.ones((1, 2), np.float32)).params
    assert np.isfinite(twin["components"]["loc"]).all()
    # The prior of a flow sees the data as its bijection maps them.
    flow = flows.Flow(flows.Standardize(), flows.Mixture(flows.Normal(True), num_components=2))
    loc = flow(0, 2, init_inputs=100 + BIMODAL).params["prior"]["components"]["loc"]
    assert np.abs(loc).max() < 4


def test_a_mixture_density_network_separates():
    context = np.linspace(-1, 1, len(BIMODAL), dtype=np.float32)[:, None]
    data = BIMODAL * (1 + context)
    init_fun = flows.Mixture(flows.Normal(conditioner=flows.MLP(16)), num_components=2)
    params, log_pdf, sample = init_fun(0, 2, context_dim=1)
    params = descend(log_pdf, params, data, steps=400, context=context)
    one = flows.Normal(conditioner=flows.MLP(16))(0, 2, context_dim=1)
    best_of_one = descend(one.log_pdf, one.params, data, steps=400, context=context)
    gain = log_pdf(params, data, context=context).mean() - one.log_pdf(best_of_one, data, context=context).mean()
    assert gain > 0.5
    assert sample(0, params, 10, context=jnp.ones(1)).shape == (10, 2)


def test_impossible_components_leave_gradients_finite():
    init_fun = flows.Mixture(flows.Uniform(), flows.Flow(flows.FixedAffine(2.0), flows.Uniform()), flows.Normal(True))
    params, log_pdf, _ = init_fun(0, 1)
    x = np.array([[0.5], [2.0], [1e30]], np.float32)
    slopes = jax.vmap(jax.grad(lambda params, x: log_pdf(params, x[None])[0]), (None, 0))(params, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert log_pdf(params, x)[2] == -np.inf  # beyond what float32 can say
    none = flows.Mixture(flows.Uniform(), flows.Uniform(2.0, 3.0))(0, 1)
    value, slope = jax.value_and_grad(lambda params: none.log_pdf(params, np.array([[5.0]], np.float32))[0])(none.params)
    assert value == -np.inf and not slope["logits"].any()


def test_a_join_adds_log_densities_and_puts_samples_side_by_side():
    init_fun = flows.Joint(
        flows.Normal(True), flows.Uniform(-9.0, 9.0), flows.Laplace(conditioner=flows.MLP(4)), sizes=(2, 1, 1)
    )
    params, log_pdf, sample = init_fun(0, 4, context_dim=3)
    x = np.concatenate([X, X], axis=1).astype(np.float32) / 2
    last = flows.Laplace(conditioner=flows.MLP(4))(0, 1, context_dim=3)
    expected = stats.norm.logpdf(x[:, :2]).sum(1) - np.log(18) + last.log_pdf(params[2], x[:, 3:], context=C)
    np.testing.assert_allclose(log_pdf(params, x, context=C), expected, rtol=1e-5)
    draws = np.asarray(sample(0, params, 500, context=C))
    assert draws.shape == (500, 4) and np.abs(draws[:, 2]).max() > 5 and np.abs(draws[:, 0]).max() < 5
    assert params[0]["loc"].shape == (2,) and params[1] == {}
    tails = flows.Joint(flows.StudentT(2.0), flows.Normal())  # one feature each
    expected = stats.t(2).logpdf(X[:, 0]) + stats.norm.logpdf(X[:, 1])
    np.testing.assert_allclose(tails(0, 2).log_pdf(({}, {}), X), expected, rtol=1e-5)
    inside = flows.Joint(flows.Mixture(flows.Normal(True), num_components=2), flows.Normal(), sizes=(1, 1))
    loc = inside(0, 2, init_inputs=100 + BIMODAL).params[0]["components"]["loc"]
    assert (loc > 90).all()


def test_bases_are_priors_and_can_be_fitted_through():
    for prior in (
        flows.StudentT(4.0, True),
        flows.Normal(covariance="full", conditioner=flows.MLP(4)),
        flows.Mixture(flows.Normal(True), num_components=2),
    ):
        keywords = {"context_dim": 3} if "conditioner=MLP" in repr(prior) else {}
        given = {"context": C} if keywords else {}
        params, log_pdf, sample = flows.Flow(flows.ActNorm(), prior)(0, 2, **keywords)
        assert np.isfinite(log_pdf(params, X, **given)).all() and sample(0, params, 4, **given).shape == (4, 2)


def test_errors_say_what_was_expected():
    normal = flows.Normal()
    assert '"diagonal" or "full"' in error_of(lambda: flows.Normal(covariance="tied"))
    assert "stay the identity" in error_of(lambda: flows.Normal(covariance="full"))
    assert "number above 0" in error_of(lambda: flows.StudentT(df=0.0))
    assert "low < high" in error_of(lambda: flows.Uniform(1.0, 1.0))
    assert "expected finite" in error_of(lambda: flows.Uniform(0.0, np.inf))
    assert "expected the same" in error_of(lambda: flows.Uniform([0.0, 1.0], [2.0, 3.0, 4.0]))
    assert "high has shape (3,)" in error_of(lambda: flows.Uniform(0.0, [2.0, 3.0, 4.0])(0, 2))
    assert "2 positive numbers" in error_of(lambda: flows.Mixture(normal, normal, weights=[1.0, 0.0]))
    assert "2 positive numbers" in error_of(lambda: flows.Mixture(normal, normal, weights=[1.0]))
    assert "whole number" in error_of(lambda: flows.Mixture(normal, num_components=0))
    assert "add up to 2" in error_of(lambda: flows.Joint(normal, normal)(0, 3))
    assert "one size for each" in error_of(lambda: flows.Joint(normal, normal, sizes=(1, 2, 3)))
    assert "whole number" in error_of(lambda: flows.Joint(normal, normal, sizes=(1, 1.5)))
    for call in (
        lambda: flows.Normal(conditioner=3),
        lambda: flows.Mixture(),
        lambda: flows.Mixture(normal, normal, num_components=2),
        lambda: flows.Mixture(flows.ActNorm()),
        lambda: flows.Joint(),
        lambda: flows.Joint(normal, flows.Reverse),
    ):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("name", ["Normal", "Laplace", "Logistic", "StudentT"])
def test_calls_as_in_other_libraries_are_answered_by_code_that_works(name):
    base = getattr(flows, name)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'loc'; .* hold loc and scale: ") as caught:
        base(loc=2.0, scale=5.0)
    scope = {"flows": flows, "np": np, "loc": 2.0, "scale": 5.0}
    exec(str(caught.value).partition("hold loc and scale: ")[2], scope)
    x = np.array([[-1.0], [2.0], [9.5]], np.float32)
    standard, log_pdf, _ = base()(0, 1)
    expected = log_pdf(standard, (x - 2) / 5) - np.log(5)
    np.testing.assert_allclose(scope["log_pdf"](scope["params"], x), expected, rtol=1e-5)
    with pytest.raises(TypeError, match="'mu'") as caught:
        flows.VonMises(mu=1.0)
    assert "hold loc" not in str(caught.value)
