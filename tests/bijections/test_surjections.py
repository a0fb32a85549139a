"""Layers that draw: the contract of `flows.surjection`, and layers by which numbers join, leave, or lose signs and order."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of
from drawing import DRAWING, NORMAL
from registry import Case

import flows
from flows.core import POSITIVE, REAL, Support
from flows.interop.numpyro import transform

LAYERS = {**DRAWING, "Dequantize": Case(flows.Dequantize(levels=4), (2,))}
BOUNDS = "Augment", "VAE", "ContinuouslyIndexed", "Dequantize", "Argmax", "Argmax, binary", "Transition"


@pytest.mark.parametrize("name", LAYERS)
def test_layers_keep_the_contract_and_are_no_bijections(name):
    layer, event = LAYERS[name].init_fun, LAYERS[name].events[-1]
    report = flows.verify(layer, event)
    assert report.passed, report
    assert report.kind == "surjection" and not layer.bijective and not flows.Flow(layer).bijective
    assert name == "Dequantize" or any(line.name == "weights fit samples" for line in report.properties)
    assert layer.likelihood == ("lower bound" if name in BOUNDS else "exact")


def test_a_conditional_coupling_is_a_bijection():
    layer = flows.ConditionalCoupling(flows.MAF(1, hidden=(4,)), 1)
    assert layer.bijective and (report := flows.verify(layer, 3)).passed, report


def test_contexts_reach_what_draws():
    layer = flows.Serial(
        flows.Augment(1, NORMAL), flows.ConditionalCoupling(flows.MAF(1, hidden=(4,)), 1), flows.Slice(2, NORMAL)
    )
    assert (report := flows.verify(layer, 2, context_dim=3)).passed, report


def test_noise_that_sees_features_of_a_context_measures_them():
    noise = flows.EmbeddedContext(flows.Flow(flows.Serial(flows.ActNorm(), flows.MAF(1, hidden=(4,)))), flows.MLP(4), 2)
    rows = 5 + 3 * np.random.default_rng(0).normal(size=(200, 2))
    params = flows.Augment(1, noise)(0, 2, init_inputs=rows).params["noise"]
    assert float(abs(params["fixed"]["mean"]).max()) > 0


def test_a_layer_that_is_inverted_draws_in_the_other_direction():
    @flows.bijection
    def Shaken():
        def direct_fun(params, x, rng=None, train=False):
            return x + (jax.random.normal(rng, x.shape) if train else 0.0), 0.0 * x.sum()

        return lambda rng, shape: ({}, direct_fun, lambda params, y: y)

    assert Shaken().part((2,), None).draws == {"direct"}
    assert flows.Invert(Shaken()).part((2,), None).draws == {"inverse"}


def folded(weight, ways="inverse", pair=None):
    @flows.surjection(draws=ways, support=Support(REAL, POSITIVE))
    def Folded():
        def init_fun(rng, shape):
            triple = {}, lambda params, x: (jnp.abs(x), weight * x.size), inverse_fun
            return triple if pair is None else flows.Layer(*triple, pair)

        def inverse_fun(params, z, rng):
            return jax.random.rademacher(rng, z.shape, z.dtype) * z

        return init_fun

    return Folded()


def test_a_wrong_weight_is_found():
    assert flows.verify(folded(-np.log(2)), 2).passed
    report = flows.verify(folded(0.0), 2)
    assert [line.name for line in report.properties if not line.passed] == ["weights fit samples"]
    assert "NOT a surjection" in str(report)


def grid(of_columns, low=-8.0, high=8.0, count=401):
    axis = np.linspace(low, high, count)
    return np.stack(np.meshgrid(*[axis] * of_columns, indexing="ij"), -1).reshape(-1, of_columns), (
        axis[1] - axis[0]
    ) ** of_columns


EXACT = {
    "Slice": flows.Slice(1, NORMAL),
    "Abs": flows.Serial(flows.Abs(flows.MLP(4, last_scale=1.0)), flows.Invert(flows.Softplus())),
    "Sort": flows.Serial(flows.Sort(), flows.FixedAffine(2.0)),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_densities_integrate_to_1(name):
    x, cell = grid(2, -12.0, 12.0, 801)
    x = x + np.array([0.25, 0.5]) * cell**0.5  # no entry is 0, and none are equal
    params, log_pdf, _ = flows.Flow(EXACT[name])(1, 2)
    assert abs(np.exp(np.asarray(log_pdf(params, x), float)).sum() * cell - 1) < 1e-3


def test_weighted_bounds_integrate_to_1_and_more_draws_close_the_gap():
    near = flows.Normal(conditioner=flows.MLP(4, last_scale=0.3))
    params, log_pdf, _ = distribution = flows.Flow(flows.VAE(near, near, 1))(0, 1)
    x, cell = grid(1)
    of_one = log_pdf(params, x, rng=1)
    several, many = (
        flows.objectives.importance_weighted_log_pdf(params, distribution, x, rng=1, num_inner=n) for n in (2, 400)
    )
    assert abs(float(jnp.exp(many).sum()) * cell - 1) < 0.05
    middle = np.abs(x[:, 0]) < 3
    assert of_one[middle].mean() < several[middle].mean() < many[middle].mean()
    traced = jax.jit(lambda params: flows.objectives.importance_weighted_log_pdf(params, distribution, x, rng=1, num_inner=2))
    close(traced(params), several, 1e-5)
    assert all(
        bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(jax.grad(lambda params: traced(params).sum())(params))
    )


NEAR = flows.Logistic(conditioner=flows.MLP(4, last_scale=0.3))
ENUMERATED = {
    "Argmax": flows.Serial(flows.Argmax(3, NEAR), flows.FixedAffine(1.0, (0.5, 0.0, -0.3, 0.0, 0.4, -0.4))),
    "binary": flows.Serial(flows.Argmax(3, NEAR, binary=True), flows.FixedAffine(1.0, (0.4, -0.2, 0.3, 0.0))),
}


@pytest.mark.parametrize("name", ENUMERATED)
def test_masses_of_codes_sum_to_1_and_are_the_shares_of_draws(name):
    params, log_pdf, sample = distribution = flows.Flow(ENUMERATED[name])(0, 2)
    grid = np.array(list(product(range(3), repeat=2)), float)
    rows = np.repeat(grid, 4000, 0)
    masses = np.exp(np.asarray(log_pdf(params, rows, rng=1), float)).reshape(9, -1)
    mean, error = masses.mean(1), masses.std(1) / masses.shape[1] ** 0.5
    assert abs(mean.sum() - 1) < 0.02 and np.median(masses, 1).mean() < 0.95 * mean.mean(), "most single draws lie below"
    shares = np.bincount((np.asarray(sample(2, params, 20_000)) @ [3, 1]).astype(int), minlength=9) / 20_000
    assert (np.abs(shares - mean) < 5 * np.hypot(error, np.sqrt(shares / 20_000))).all() and mean.max() > 1.5 * mean.min()
    assert (log_pdf(params, np.array([[3.0, 0.0], [0.5, 1.0]]), rng=1) == -np.inf).all()
    assert np.isnan(log_pdf(params, np.array([[np.nan, 0.0]]), rng=1)).all()
    assert distribution.log_pdf is log_pdf


def test_a_chain_between_layers_moves_mass_to_a_mode_that_a_bijection_misses():
    """Two modes, and a base at one of them: weights of paths give log Z, and half of the draws end in each mode."""

    def log_density(x):
        return jnp.logaddexp(-0.5 * jnp.square(x - 2).sum(1), -0.5 * jnp.square(x + 2).sum(1))

    chain = flows.Repeat(flows.Transition(log_density, flows.mcmc.metropolis(3.0)), 20)
    params, _, _ = distribution = flows.Flow(chain, flows.Normal())(0, 1)
    x, log_w = flows.objectives.importance_samples(params, distribution, log_density, 1, 8000)
    estimate = flows.objectives.log_normalizer(log_w)
    assert abs(estimate.value - np.log(2 * np.sqrt(2 * np.pi))) < 4 * estimate.standard_error < 0.25
    assert abs(float((x > 0).mean()) - 0.5) < 0.05 and float(jnp.square(x).mean()) > 3


def test_a_chain_that_stays_where_its_density_is_0_weighs_nothing():
    params, direct_fun, _ = flows.Transition(flows.Uniform(), flows.mcmc.metropolis(0.01))(0, 1)
    x = np.array([[0.5], [2.0]])
    z, log_weight = direct_fun(params, x, rng=1)
    assert (z[1] == x[1]).all() and (log_weight == 0).all()


def test_codes_pass_where_other_numbers_join_or_leave():
    pixel = flows.DiscretizedLogistic(conditioner=flows.MLP(4), low=0, high=9)
    region = flows.support(flows.Flow(flows.VAE(NORMAL, pixel, 2)), 3).inputs
    assert region.classes.tolist() == [10, 10, 10] and region.high.tolist() == [9, 9, 9]
    shift = flows.Coupling(transformer=flows.transformers.Integer(3))
    for first, classes in ((True, [3, 0]), (False, [0, 3])):
        kept = flows.Serial(flows.Slice(1, first=first), shift)
        assert flows.support(flows.Flow(kept, flows.Categorical(3)), 2).inputs.classes.tolist() == classes
    halves = flows.Serial(flows.Reverse(), flows.Slice(2, pixel), flows.Reverse(), flows.Slice(1, pixel))
    several = flows.Flow(halves, flows.DiscretizedLogistic(low=0, high=9))
    assert flows.support(several, 4).inputs.classes.tolist() == [10] * 4
    flows.fit(
        0, several, np.arange(200.0).reshape(50, 4) % 10, max_epochs=1, folds=1, validation=0.2, verbose=0, objective=loss
    )
    dropped = flows.Flow(flows.Serial(shift, flows.Slice(1)))
    assert "Slice(1) is handed codes of categories" in error_of(lambda: dropped(0, 2))
    joined = flows.Flow(flows.Augment(2), flows.Categorical(3, 3, 3))
    assert "Augment(2) before it does not make" in error_of(lambda: joined(0, 1))


def loss(params, distribution, x):
    return -distribution.log_pdf(params, x).mean()


def test_without_rng_a_draw_is_the_same_for_all_rows_and_an_inverse_asks_for_one():
    params, direct_fun, _ = flows.Augment(2, flows.Normal())(0, 1)
    z, _ = direct_fun(params, np.arange(3.0)[:, None])
    assert len({*map(tuple, np.asarray(z)[:, :2].tolist())}) == 1
    close(direct_fun(params, np.array([[2.0]]))[0][0], z[2], 0)
    other, _ = direct_fun(params, np.arange(3.0)[:, None], rng=1)
    assert len({*map(tuple, np.asarray(other)[:, :2].tolist())}) == 3
    params, _, inverse_fun = flows.Abs()(0, 1)
    assert "Abs: its inverse draws; give rng=" in error_of(lambda: inverse_fun(params, np.ones((2, 1))))


def test_draws_have_the_weight_of_their_path():
    params, log_pdf, _ = distribution = flows.Flow(flows.Serial(flows.Sort(), flows.ActNorm()))(0, 3)
    x, log_p = flows.sample_with_log_pdf(1, params, distribution, 50)
    close(log_pdf(params, x), log_p, 1e-3)
    assert len({*map(tuple, np.argsort(x).tolist())}) > 3, "all orders are drawn"


def test_a_model_is_fitted_saved_and_loaded(tmp_path):
    rng = np.random.default_rng(0)
    rows = np.sort(rng.normal(size=(400, 2)))[:, ::-1]
    model = flows.Flow(flows.Serial(flows.Augment(1), flows.RealNVP(1, hidden=(4,))))
    result = flows.fit(0, model, rows, max_epochs=2, folds=1, verbose=0)
    result.save(tmp_path / "a.flows")
    close(flows.load(tmp_path / "a.flows").log_prob(rows), result.log_prob(rows), 0)
    assert result.init_fun.likelihood == "lower bound"


two = flows.Normal()(0, 2)
bound = flows.Flow(flows.Augment(1, flows.Normal()))(0, 2)
REFUSED = {
    "invert": (lambda: flows.Invert(flows.Slice(1)), "Invert: Slice(1) cannot be undone: a layer of it draws"),
    "invert a chain": (lambda: flows.Invert(flows.Serial(flows.ActNorm(), flows.Dequantize())), "cannot be undone"),
    "layout": (lambda: flows.Through(flows.Abs(), flows.ActNorm()), "Through: the layout: Abs() cannot be undone"),
    "reversible": (lambda: flows.Reversible(flows.Sort())(0, 3), "Reversible: Sort() cannot be undone"),
    "numpyro": (lambda: transform(flows.Sort(), {}, 3), "transform: Sort() cannot be undone"),
    "several ways": (lambda: flows.surjection(draws=["direct"]), "draws is ['direct']; expected one of"),
    "repeat": (lambda: flows.Repeat(flows.Abs(), 2, reversible=True)(0, 3), "Repeat: Abs() cannot be undone"),
    "draws": (lambda: flows.surjection(draws="never"), "draws is 'never'; expected one of inverse, direct, both"),
    "names": (lambda: folded(0.0, "both", lambda params, z, rng: (z, 0.0))(0, 2), "its functions that name rng are inverse"),
    "empty": (lambda: flows.Slice(3)(0, 3), "Slice: keep is 3, of an event of 3; expected fewer"),
    "nothing": (lambda: flows.Augment(0), "Augment: size is 0"),
    "image": (lambda: flows.Augment(1)(0, (2, 2, 1)), "Augment: the event is (2, 2, 1); expected a vector"),
    "sort": (lambda: flows.Sort()(0, (2, 2)), "Sort: the event is (2, 2); expected a vector"),
    "ignored": (lambda: flows.ConditionalCoupling(flows.ActNorm(), 1)(0, 2), "ActNorm() takes no context"),
    "index": (lambda: flows.ContinuouslyIndexed(flows.ActNorm())(0, 2), "ActNorm() takes no context"),
    "all stay": (lambda: flows.ConditionalCoupling(flows.MAF(1), 2)(0, 2), "expected a vector of more than 2 numbers"),
    "codes": (lambda: flows.Argmax(1), "Argmax: num_classes is 1; expected 2 or more"),
    "noise": (lambda: flows.Argmax(3, flows.Uniform(low=(0.0, 0.0)))(0, 2), "expected a number, or the shape (6,)"),
    "rows": (lambda: flows.Transition(lambda x: x.sum())(0, 2).direct_fun({}, np.ones((4, 2)), rng=0), "one for each point"),
    "estimator": (
        lambda: flows.objectives.reverse_kl(
            bound.params, bound, lambda x: -jnp.square(x).sum(1), 0, 4, estimator="sticking_the_landing"
        ),
        'sticking_the_landing" scores each draw again',
    ),
    "inner": (
        lambda: flows.objectives.importance_weighted_log_pdf(two.params, two, np.ones((1, 2)), rng=0, num_inner=0),
        "num_inner is 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name):
    call, expected = REFUSED[name]
    assert expected in error_of(call)


def test_arguments_of_another_kind_are_refused():
    for call, expected in ((lambda: flows.Transition(3), "log_density is 3"), (lambda: flows.Transition(two, 3), "expected")):
        with pytest.raises(TypeError, match=expected):
            call()


def test_a_chain_on_a_function_is_not_saved(tmp_path):
    model = flows.Flow(flows.Transition(gaussian))
    with pytest.raises(flows.FlowsError, match="log_density is the function 'gaussian', which"):
        flows.save(tmp_path / "a.flows", model, model(0, 2).params, 2)


def gaussian(x):
    return -0.5 * jnp.square(x).sum(1)


def test_a_direct_function_that_draws_needs_the_weight_of_its_pair():
    @flows.surjection(draws="direct")
    def Jitter():
        def init_fun(rng, shape):
            return {}, lambda params, x, rng: (x + jax.random.normal(rng, x.shape), 0.0 * x.sum()), lambda params, z: z

        return init_fun

    assert "return a flows.Layer with inverse_and_log_det" in error_of(lambda: Jitter()(0, 2))
