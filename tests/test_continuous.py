"""Continuous flows: solvers, exact and estimated log-dets, flow matching, objectives in `fit`."""

import functools
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, facts, stirred

import flows
from flows import objectives
from flows.bijections.solvers import TABLEAUX, fixed
from flows.conditioners import ConcatSquash
from flows.diagnostics import enable_x64
from flows.objectives.matching import paired
from flows.training.objective import Function

NET = ConcatSquash(6, last_scale=1.0)
X = np.random.default_rng(0).normal(size=(5, 2))
QUICK = {"max_epochs": 2, "batch_size": 90, "verbose": 0, "folds": 1}
MATCHED = flows.Flow(flows.Continuous(flows.MLP(8, activation="tanh"), steps=4))
ROWS = np.random.default_rng(0).normal(size=(300, 2)) * [1.0, 3.0] + 2.0


@pytest.mark.parametrize("name", TABLEAUX)
def test_methods_have_their_order(name):
    """Of dy/dt = -2 t y^2, whose solution is known: half the step divides the error by 2 to the power of the order."""
    order = {"euler": 1, "midpoint": 2, "heun": 2, "bosh3": 3, "rk4": 4, "dopri5": 5, "tsit5": 5}[name]
    with enable_x64():
        found = [fixed(name, lambda t, y: -2 * t * y * y, jnp.ones(()), 0.0, 1.0, steps) for steps in (16, 32)]
        errors = [abs(float(each) - 0.5) for each in found]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.35)


@pytest.mark.parametrize("context_dim", [0, 2])
def test_concat_squash_is_its_formula(context_dim):
    """Of two layers, (W h + b) sigmoid(G s + g) + S s, s the time and the context."""
    rng = np.random.default_rng(0)
    x, context = rng.normal(size=(4, 3)), rng.normal(size=(4, context_dim))
    with enable_x64():
        params, apply_fun = NET(0, 3, 2, context_dim=context_dim)
        params = stirred(params, 0.5)
        found = apply_fun(params, x, **({"context": context} if context_dim else {}))
    h, s = x[:, :2], np.concatenate([x[:, 2:], context], 1)
    for i, each in enumerate(jax.tree.map(np.asarray, params)):
        h = np.logaddexp(h, 0) if i else h
        h = (h @ each["w"] + each["b"]) / (1 + np.exp(-(s @ each["gate"] + each["gate_b"]))) + s @ each["shift"]
    close(found, h, 1e-12)


@functools.cache
def solved(steps, trace="exact", context_dim=0):
    """What a continuous layer does at a few points, in float64."""
    layer, made = flows.Continuous(NET, trace, "rk4" if steps else "tsit5", steps), []
    given = {"context": np.array([2.0, -1.0])} if context_dim else {}

    @jax.jit
    def program(key, x):
        made[:] = layer(key, 2, context_dim=context_dim)
        params, direct_fun, inverse_fun = stirred(made[0], 0.5), *made[1:]
        y, log_det = direct_fun(params, x, **given)
        back, minus = inverse_fun(params, y, **given)
        jacobian = jax.vmap(lambda row: jax.jacrev(lambda row: direct_fun(params, row[None], **given)[0][0])(row))(x)
        gradient = jax.grad(lambda params: direct_fun(params, x, **given)[1].sum())(params)
        return params, y, log_det, back, minus, jnp.linalg.slogdet(jacobian)[1], gradient

    with enable_x64():
        params, *found = jax.tree.map(np.asarray, program(jax.random.key(0), X))
    names = ("y", "log_det", "back", "minus", "log_volume", "gradient")
    return SimpleNamespace(params=params, functions=made[1:], given=given, **dict(zip(names, found, strict=True)))


@pytest.mark.xdist_group("adaptive")
@pytest.mark.parametrize(("steps", "tolerance"), [(100, 1e-8), (None, 1e-8)])
def test_round_trips_and_log_dets(steps, tolerance):
    of = solved(steps)
    close(of.back, X, tolerance)
    close(of.log_det, of.log_volume, tolerance)
    close(of.minus, -of.log_det, tolerance)
    assert np.abs(of.log_det).max() > 0.1 and np.abs(of.y - X).max() > 0.3
    assert all(np.isfinite(leaf).all() and (leaf != 0).any() for leaf in jax.tree.leaves(of.gradient))


@pytest.mark.xdist_group("adaptive")
def test_equal_and_adaptive_steps_solve_the_same():
    equal, own = solved(100), solved(None)
    close(equal.y, own.y, 1e-8)
    close(equal.log_det, own.log_det, 1e-8)
    for a, b in zip(jax.tree.leaves(equal.gradient), jax.tree.leaves(own.gradient), strict=True):
        close(a, b, 1e-6)


def test_few_steps_are_further_from_the_truth_and_need_no_diffrax(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    flows.clear_caches()
    errors = []
    with enable_x64():
        for steps in (2, 8):
            _, direct_fun, _ = flows.Continuous(NET, solver="rk4", steps=steps)(0, 2)
            errors.append(float(np.abs(direct_fun(solved(100).params, X)[1] - solved(100).log_det).max()))
    assert errors[1] < 1e-4 < errors[0] < 0.1
    with pytest.raises(ImportError, match=r"pip install 'jax-flows\[continuous\]', or pip install -e \.\[continuous\]"):
        flows.Continuous(NET)(0, 2)


def test_a_density_by_few_steps_integrates_to_one_as_well_as_it_solves():
    with enable_x64():
        params = flows.Flow(flows.Continuous(NET, steps=1))(0, 2).params
        params["bijection"] = solved(100).params
        side = np.linspace(-14, 14, 281)
        grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
        masses = []
        for solver, steps in (("euler", 2), ("euler", 8), ("rk4", 8)):
            log_pdf = flows.Flow(flows.Continuous(NET, solver=solver, steps=steps))(0, 2).log_pdf
            masses.append(float(jnp.exp(log_pdf(params, grid)).sum()) * 0.01)
    off = np.abs(np.array(masses) - 1)
    assert off[2] < 1e-4 < off[1] < off[0] < 0.5


@pytest.mark.xdist_group("adaptive")
def test_no_density_depends_on_the_batch():
    of = solved(None)
    with enable_x64():
        y, log_det = of.functions[0](of.params, np.concatenate([X[:1], 30 * X]))
        close(y[0], of.y[0], 1e-14)
        close(log_det[0], of.log_det[0], 1e-14)


@pytest.mark.parametrize("trace", ["hutchinson", "hutchinson-normal"])
def test_estimates_of_the_trace_are_unbiased_and_exact_without_rng(trace):
    exact = solved(100)
    layer = flows.Continuous(NET, trace, steps=10)
    assert layer.likelihood == "unbiased" and flows.Continuous(NET, steps=10).likelihood == "exact"
    with enable_x64():
        _, direct_fun, _ = layer(0, 2)
        close(direct_fun(exact.params, X)[1], exact.log_det, 1e-5)

        @jax.jit
        def draws(keys):
            def one(key):
                y, log_det = direct_fun(exact.params, X, rng=key)
                slope = jax.grad(lambda x: direct_fun(exact.params, x, rng=key)[1].sum())(jnp.asarray(X))
                return y, log_det, slope

            return jax.vmap(one)(keys)

        y, log_dets, slopes = map(np.asarray, draws(jax.random.split(jax.random.key(1), 2000)))
        true_slope = np.asarray(jax.grad(lambda x: direct_fun(exact.params, x)[1].sum())(jnp.asarray(X)))
    close(y[0], exact.y, 1e-5)
    assert log_dets.std(0).min() > 0.01
    for found, expected in ((log_dets, exact.log_det), (slopes, true_slope)):
        assert (np.abs(found.mean(0) - expected) < 4.5 * found.std(0) / 2000**0.5 + 1e-5).all()


@pytest.mark.slow
@pytest.mark.parametrize(("adjoint", "tolerance"), [("direct", 1e-8), ("backsolve", 1e-5)])
def test_adjoints_have_the_same_gradient(adjoint, tolerance):
    of = solved(None)
    with enable_x64():
        _, direct_fun, _ = flows.Continuous(NET, adjoint=adjoint)(0, 2)
        gradient = jax.jit(jax.grad(lambda params: direct_fun(params, X)[1].sum()))(of.params)
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(of.gradient), strict=True):
            close(a, b, tolerance)
        if adjoint == "direct":  # which has a forward mode too
            tangent = jax.tree.map(np.ones_like, of.params)
            along = jax.jvp(lambda params: direct_fun(params, X)[1].sum(), (of.params,), (tangent,))[1]
            assert float(along) == pytest.approx(sum(leaf.sum() for leaf in jax.tree.leaves(of.gradient)), rel=1e-7)


def test_penalties_are_subtracted_in_training_alone():
    layer = flows.Continuous(NET, steps=10, kinetic=0.3, jacobian=0.2)
    with enable_x64():
        _, direct_fun, _ = layer(0, 2)
        params = solved(100).params
        log_det, penalised = (np.asarray(direct_fun(params, X, train=train)[1]) for train in (False, True))
        close(log_det, solved(100).log_det, 1e-6)
        alone = [
            log_det - np.asarray(flows.Continuous(NET, steps=10, **{name: 1.0})(0, 2).direct_fun(params, X, train=True)[1])
            for name in ("kinetic", "jacobian")
        ]
    close(penalised, log_det - 0.3 * alone[0] - 0.2 * alone[1], 1e-9)
    assert min(each.min() for each in alone) > 0.01
    # On the way of a linear field v = a x, |v|^2 integrates in closed form, and |dv/dx|^2 is d a^2.
    a = 0.5

    def linear(rng, input_dim, output_dim):
        return {"a": jnp.asarray(a)}, lambda params, inputs: params["a"] * inputs[:, :-1]

    layer = flows.Continuous(linear, steps=20, kinetic=1.0), flows.Continuous(linear, steps=20, jacobian=1.0)
    with enable_x64():
        kinetic, jacobian = (
            np.subtract(*(each(0, 2).direct_fun({"a": jnp.asarray(a)}, X, train=train)[1] for train in (False, True)))
            for each in layer
        )
    close(kinetic, np.square(X).sum(1) * a * (1 - np.exp(-2 * a)) / 2, 1e-6)
    close(jacobian, np.full(5, 2 * a * a), 1e-8)


def test_a_row_that_takes_too_many_steps_is_nan_and_others_are_not():
    def stiff(rng, input_dim, output_dim):
        return {"a": jnp.asarray(1.0)}, lambda params, inputs: jnp.where(
            inputs[:, :1] > 5, jnp.sin(1e7 * inputs[:, -1:]) * 1e4, params["a"] * inputs[:, :1]
        )

    params, log_pdf, _ = flows.Flow(flows.Continuous(stiff, tolerance=1e-4))(0, 1)
    found = log_pdf(params, np.array([[0.5], [9.0]]))
    assert np.isfinite(found).tolist() == [True, False] and np.isnan(found[1])


def test_conditional_and_of_images():
    of = solved(10, context_dim=2)
    with enable_x64():
        y, _ = of.functions[0](of.params, X, context=np.tile([2.0, -1.0], (5, 1)))
        close(y, of.y, 1e-12)
        assert np.abs(of.functions[0](of.params, X, context=np.zeros(2))[0] - of.y).max() > 1e-3

    @flows.conditioner
    def Conv():
        def net(rng, input_dim, output_dim):
            w = jax.random.normal(rng, (3, 3, input_dim[-1], output_dim[-1])) / 4

            def apply_fun(params, inputs):
                layout = ("NHWC", "HWIO", "NHWC")
                return jnp.tanh(jax.lax.conv_general_dilated(inputs, params, (1, 1), "SAME", dimension_numbers=layout))

            return w, apply_fun

        return net

    x = np.random.default_rng(0).normal(size=(3, 2, 2, 1))
    with enable_x64():
        of = facts(
            flows.Continuous(Conv(), solver="rk4", steps=100), x, lambda params: params, ("back", "log_det", "log_volume")
        )
    close(of.back, x, 1e-8)
    close(of.log_det, of.log_volume, 1e-8)
    assert np.abs(of.log_det).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("layer", [flows.Continuous(NET, "hutchinson", steps=24), flows.FFJORD(hidden=(4,), steps=24)])
def test_verify_passes_an_estimate(layer):
    report = flows.verify(layer, 2, rows=8)
    assert report.passed, report


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: flows.Continuous(trace="exakt"), "expected one of 'exact', 'hutchinson'"),
        (lambda: flows.Continuous(solver="rk4"), "solver without steps is 'rk4'"),
        (lambda: flows.Continuous(solver="dopri8", steps=3), "solver with steps is 'dopri8'"),
        (lambda: flows.Continuous(steps=0), "steps"),
        (lambda: flows.Continuous(steps=8, tolerance=1e-3), "are of adaptive steps"),
        (lambda: flows.Continuous(steps=8, adjoint="direct"), "are of adaptive steps"),
        (lambda: flows.Continuous(tolerance=0.0), "tolerance"),
        (lambda: flows.Continuous(kinetic=-1.0), "kinetic"),
        (lambda: flows.Continuous(flows.MLP(4, dropout=0.1), steps=2)(0, 2), "names rng, train"),
        (lambda: ConcatSquash(4)(0, 0, 2), "the last entry is the time"),
        (lambda: ConcatSquash(4)(0, (2, 2, 1), (2, 2, 1)), "the last entry is the time"),
        (lambda: flows.FFJORD(0), "num_layers"),
    ],
)
def test_bad_arguments_are_refused(call, said):
    assert said in error_of(call)


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
            return {"a": jnp.zeros(shape)}, direct_fun, inverse_fun, None, velocity

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
        (lambda params, distribution: 0.0, TypeError, "cannot be called so"),
        (lambda params, distribution, x, *, beta: 0.0, TypeError, "cannot be called so"),
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
        Function(functools.partial(objectives.flow_matching, pairing=pairing))
        for pairing in ("optimal transport", "optimal transport", None)
    )
    assert a == b and hash(a) == hash(b) and a != c
