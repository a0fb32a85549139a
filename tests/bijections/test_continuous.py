"""Continuous flows: solvers, exact and estimated log-dets, flow matching, objectives in `fit`."""

import functools
import re
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, facts, stirred

import flows
from flows.bijections.continuous import TABLEAUX, fixed
from flows.conditioners import ConcatSquash
from flows.core.extras import installs
from flows.diagnostics import enable_x64

NET = ConcatSquash(6, last_scale=1.0)
X = np.random.default_rng(0).normal(size=(5, 2))


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


@pytest.mark.parametrize(("steps", "tolerance"), [(100, 1e-8), (None, 1e-8)])
def test_round_trips_and_log_dets(steps, tolerance):
    of = solved(steps)
    close(of.back, X, tolerance)
    close(of.log_det, of.log_volume, tolerance)
    close(of.minus, -of.log_det, tolerance)
    assert np.abs(of.log_det).max() > 0.1 and np.abs(of.y - X).max() > 0.3
    assert all(np.isfinite(leaf).all() and (leaf != 0).any() for leaf in jax.tree.leaves(of.gradient))


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
    with pytest.raises(ImportError, match=re.escape(f"{installs('continuous')}; or give steps=")):
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


def test_no_density_depends_on_the_batch():
    of = solved(None)
    with enable_x64():
        y, log_det = of.functions[0](of.params, np.concatenate([X[:1], 30 * X]))
        close(y[0], of.y[0], 1e-14)
        close(log_det[0], of.log_det[0], 1e-14)


def linear(rng, input_dim, output_dim):
    """The velocity w x, whose trace and penalties are known."""
    return {"w": jnp.eye(2)}, lambda params, inputs: inputs[:, :-1] @ params["w"].T


W = np.float32([[0.5, 0.3], [-0.1, 0.2]])
ONE_STEP = {"solver": "euler", "steps": 1}


def test_an_estimate_of_the_trace_is_a_draw_of_signs():
    """s'Ws is the trace, and the two entries beside the diagonal with the sign s_1 s_2."""
    direct_fun = flows.Continuous(linear, "hutchinson", **ONE_STEP)(0, 2).direct_fun
    drawn = np.asarray(direct_fun({"w": W}, np.ones((40, 2), np.float32), rng=0)[1])
    assert sorted({*drawn.round(5).tolist()}) == pytest.approx([-0.9, -0.5])


def test_penalties_of_one_step_are_of_training_alone():
    """|Wx|^2 and |W|^2, at the start of the step."""
    x = X.astype(np.float32)
    direct_fun = flows.Continuous(linear, kinetic=0.3, jacobian=0.2, **ONE_STEP)(0, 2).direct_fun
    close(direct_fun({"w": W}, x)[1], np.full(5, -0.7), 1e-6)
    penalty = 0.3 * np.square(x @ W.T).sum(1) + 0.2 * np.square(W).sum()
    close(direct_fun({"w": W}, x, train=True)[1], -0.7 - penalty, 1e-6)


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
        (lambda: flows.Continuous(steps=8, tolerance=1e-3), "belong to adaptive steps"),
        (lambda: flows.Continuous(steps=8, adjoint="direct"), "belong to adaptive steps"),
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
