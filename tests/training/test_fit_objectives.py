"""Flow matching, and objectives of the user's own in `fit`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of

import flows
from flows import objectives
from flows.objectives.matching import paired
from flows.training.loop.losses import key_of

QUICK = {"max_epochs": 2, "batch_size": 90, "verbose": 0, "folds": 1}
MATCHED = flows.Flow(flows.Continuous(flows.MLP(8, activation="tanh"), steps=4))
ROWS = np.random.default_rng(0).normal(size=(300, 2)) * [1.0, 3.0] + 2.0


# Flow matching


def test_the_loss_is_that_of_the_definition():
    """At the velocity of a known field, by the paper's formula on the same noise; and its least value for a Gaussian."""
    distribution = flows.Flow(flows.Continuous(flows.MLP(4, activation="tanh"), steps=2))(0, 2)
    params = distribution.params
    net = flows.MLP(4, activation="tanh")(0, 3, 2)
    key = jax.random.key(7)
    _, of_noise, of_time = jax.random.split(key, 3)
    start = flows.Normal()(0, 2).sample(of_noise, {}, 300)
    t = (np.asarray(jax.random.uniform(of_time)) + np.arange(300, dtype=np.float32)) / 300
    start = np.asarray(start)
    way = (1 - t[:, None]) * start + t[:, None] * ROWS
    v = np.asarray(net.apply_fun(params["bijection"], np.concatenate([way, t[:, None]], 1).astype(np.float32)))
    expected = np.square(v - (ROWS - start)).sum(1)
    found = objectives.flow_matching(params, distribution, ROWS.astype(np.float32), rng=key)
    assert float(found) == pytest.approx(float(expected.mean()), rel=1e-5)
    weights = np.random.default_rng(1).uniform(size=300).astype(np.float32)
    weighted = objectives.flow_matching(params, distribution, ROWS.astype(np.float32), rng=key, weights=weights)
    assert float(weighted) == pytest.approx(float((weights * expected).sum() / weights.sum()), rel=1e-5)


def test_pairs_have_the_least_sum_of_squared_distances():
    rng = np.random.default_rng(0)
    start, end = (jnp.asarray(rng.normal(size=(70, 2)), jnp.float32) for _ in range(2))
    found = np.asarray(paired(start, end))
    for group in (slice(0, 64), slice(64, 70)):
        a, b, c = (np.asarray(each)[group] for each in (start, end, found))
        assert sorted(map(tuple, a)) == sorted(map(tuple, c))  # the same noise in another order
        from scipy.optimize import linear_sum_assignment

        cost = np.square(b[:, None] - a[None]).sum(2)
        best = cost[linear_sum_assignment(cost)].sum()
        assert np.square(b - c).sum() == pytest.approx(best, rel=1e-5)
        assert np.square(b - a).sum() > 1.2 * best


def test_matching_goes_through_layers_that_do_not_train_and_refuses_others():
    net = flows.Continuous(flows.MLP(4), steps=2)
    x = np.random.default_rng(0).uniform(0.1, 0.9, size=(20, 2)).astype(np.float32)
    for before in (flows.Logit(), flows.Whiten(), flows.Dequantize(0.1), flows.FixedAffine(2.0)):
        distribution = flows.Flow(flows.Serial(before, net))(0, 2)
        gradient = jax.grad(objectives.flow_matching)(distribution.params, distribution, x, rng=1)
        leaves = jax.tree.leaves(gradient["bijection"][1])
        assert all(np.isfinite(leaf).all() for leaf in leaves) and any((leaf != 0).any() for leaf in leaves)
        nested = flows.Flow(before, flows.Flow(net))(0, 2)
        assert np.isfinite(objectives.flow_matching(nested.params, nested, x, rng=1))

    def refused(init_fun, **given):
        distribution = init_fun(0, 2)
        return error_of(lambda: objectives.flow_matching(distribution.params, distribution, x, rng=1, **given))

    assert "no continuous layer" in refused(flows.Flow(flows.ActNorm()))
    assert "ActNorm comes before the continuous layer and trains" in refused(flows.Flow(flows.Serial(flows.ActNorm(), net)))
    assert "ActNorm comes before" in refused(flows.Flow(flows.ActNorm(), flows.Flow(net)))
    assert "one continuous layer, and that the last" in refused(flows.Flow(flows.Serial(net, net)))
    assert "one continuous layer, and that the last" in refused(flows.Flow(flows.Serial(net, flows.Reverse())))
    for wrapped in (flows.Invert(net), flows.Repeat(net, 2), flows.FactorOut(net)):  # whose time or params are others
        assert "no continuous layer" in refused(flows.Flow(wrapped))
    assert "the base Normal(trainable=True) trains" in refused(flows.Flow(net, flows.Normal(trainable=True)))
    assert "expected None or 'optimal transport'" in refused(flows.Flow(net), pairing="best")
    assert "with weights" in refused(flows.Flow(net), pairing="optimal transport", weights=np.ones(20))
    assert "not negative" in refused(flows.Flow(net), weights=-np.ones(20))
    assert "weights have shape (3,)" in refused(flows.Flow(net), weights=np.ones(3))
    conditional = flows.Flow(net)(0, 2, context_dim=1)
    given = {"rng": 1, "context": np.ones((20, 1), np.float32)}
    assert np.isfinite(objectives.flow_matching(conditional.params, conditional, x, **given))
    assert "with a context" in error_of(
        lambda: objectives.flow_matching(conditional.params, conditional, x, pairing="optimal transport", **given)
    )


def test_a_layer_of_ones_own_can_offer_its_velocity():
    @flows.bijection
    def Shift():
        """dx/dt = a: x(0) = x(1) - a."""

        def init_fun(rng, shape):
            return flows.Layer({"a": jnp.zeros(shape)}, direct_fun, inverse_fun, velocity=velocity)

        def direct_fun(params, x):
            return x - params["a"], jnp.zeros((), x.dtype)

        def inverse_fun(params, y):
            return y + params["a"]

        def velocity(params, t, x):
            return params["a"] + 0 * t

        return init_fun

    assert flows.verify(Shift(), 2).passed
    distribution = flows.Flow(Shift())(0, 2)
    gradient = jax.grad(objectives.flow_matching)(distribution.params, distribution, ROWS.astype(np.float32), rng=1)
    close(gradient["bijection"]["a"], -2 * ROWS.mean(0), 0.5)


# Objectives in fit


@functools.cache
def matched(kind="one"):
    fit = flows.fit if kind == "one" else functools.partial(flows.fit_ensemble, members=2)
    given = {name: value for name, value in QUICK.items() if kind == "one" or name != "folds"}
    return fit(0, MATCHED, ROWS, objective=objectives.flow_matching, **given)


def test_fit_minimises_an_objective_and_says_what_its_losses_are():
    result = matched()
    history = result.history
    assert history.objective == history.unit == "flow_matching" and "gaussian_loss" not in history
    assert history["validation_loss"].shape == (2,) and history["validation_loss"][1] < history["start_loss"]
    assert "fit          flow_matching " in repr(result) and "nats" not in repr(result)
    # The value itself, on the standardised rows: no log-det is added.
    assert 2.6 < history["start_loss"] < 3.6  # some 4, in the mean over other rows
    assert result.log_pdf(result.params, ROWS[:3]).shape == (3,)
    again = flows.fit(0, MATCHED, ROWS, objective=objectives.flow_matching, **QUICK)
    assert (again.history["validation_loss"] == history["validation_loss"]).all()
    assert matched("several").history["validation_loss"].shape == (2, 2)


def test_validation_has_the_same_noise_in_every_epoch():
    frozen = flows.fit(0, MATCHED, ROWS, objective=objectives.flow_matching, learning_rate=1e-12, ema=None, **QUICK)
    close(frozen.history["validation_loss"], np.full(2, frozen.history["start_loss"]), 1e-5)
    assert abs(np.diff(frozen.history["train_loss"])).max() > 1e-4


def test_a_result_remembers_its_objective_in_a_file(tmp_path):
    matched().save(tmp_path / "model.flows")
    loaded = flows.load(tmp_path / "model.flows")
    assert loaded.history.objective == "flow_matching" and loaded.init_fun == matched().init_fun


def test_an_objective_is_handed_what_it_names_and_sees_all_rows_held_out():
    seen = []

    def mean_of_rows(params, distribution, x, *, weights, context, train):
        seen.append((x.shape, weights is None, None if context is None else context.shape, train))
        return x[:, 0].mean() + 0 * distribution.log_pdf(params, x, context=context).mean()

    x = np.arange(200.0).reshape(100, 2) % 37 + np.random.default_rng(0).normal(size=(100, 2))
    model = flows.Flow(flows.AffineCoupling(flows.MLP(4)))
    result = flows.fit(
        0, model, x[:70], objective=mean_of_rows, context=x[:70, :1], validation=(x[70:], x[70:, :1]), standardize=False,
        standardize_context=False, max_epochs=1, batch_size=8, verbose=0, folds=1,
    )  # fmt: skip
    assert result.history["validation_loss"][0] == pytest.approx(x[70:, 0].mean(), rel=1e-5)
    assert {each[0] for each in seen} == {(8, 2), (6, 2)} and {each[3] for each in seen} == {False, True}
    assert all(each[1] and each[2] == (each[0][0], 1) for each in seen)


@pytest.mark.parametrize(
    ("objective", "error", "said"),
    [
        (3, TypeError, "expected a function objective"),
        (flows.Normal(), TypeError, "expected a function objective"),
        (lambda params, distribution: 0.0, TypeError, "cannot be called in this way"),
        (lambda params, distribution, x, *, beta: 0.0, TypeError, "cannot be called in this way"),
        (lambda params, distribution, x: distribution.log_pdf(params, x), flows.FlowsError, "expected a floating scalar"),
        (lambda params, distribution, x: 0.0, flows.FlowsError, "expected a floating scalar"),
        (lambda params, distribution, x, *, rng: jnp.float32(0.0), TypeError, "weights was given, but the objective"),
    ],
)
def test_objectives_of_another_form_are_refused(objective, error, said):
    weights = np.ones(300) if "weights" in said else None
    with pytest.raises(error) as caught:
        flows.fit(0, MATCHED, ROWS, objective=objective, weights=weights, **QUICK)
    assert said in str(caught.value)


def test_the_likelihood_as_an_objective_is_the_likelihood():
    model = flows.Flow(flows.ActNorm())
    named = flows.fit(0, model, ROWS, objective=objectives.maximum_likelihood, **QUICK)
    plain = flows.fit(0, model, ROWS, **QUICK)
    assert named.history.objective is None and (named.history["validation_loss"] == plain.history["validation_loss"]).all()


def test_an_objective_that_is_never_finite_is_named():
    def nowhere(params, distribution, x, *, rng):
        return jnp.log(-jnp.abs(distribution.log_pdf(params, x)).mean())

    with pytest.raises(flows.FitError, match="no value of nowhere is finite at the initial params"):
        flows.fit(0, flows.Flow(flows.ActNorm()), ROWS, objective=nowhere, **QUICK)


def test_a_checkpoint_knows_its_objective(tmp_path):
    given = {**QUICK, "max_epochs": 1, "checkpoint": tmp_path}
    flows.fit(0, MATCHED, ROWS, objective=objectives.flow_matching, **given)
    paired = functools.partial(objectives.flow_matching, pairing="optimal transport")
    assert "it is of another fit: objective was" in error_of(lambda: flows.fit(0, MATCHED, ROWS, objective=paired, **given))


def test_equal_partials_share_a_program():
    a, b, c = (
        key_of(functools.partial(objectives.flow_matching, pairing=pairing))
        for pairing in ("optimal transport", "optimal transport", None)
    )
    assert a == b and hash(a) == hash(b) and a != c
