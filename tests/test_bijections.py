"""Every public bijection x every property of the contract."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import registry
from common import stirred
from registry import BIJECTIONS, DISTRIBUTIONS, MODELS, points

import flows
from flows.core import BijectionInit, DistributionInit, from_json, to_json
from flows.core.caching import fresh_caches
from flows.core.constructors import is_constructor
from flows.diagnostics import enable_x64

ROWS = 4
CONTEXT = 2


def ends(case, event, with_context):
    """The last event, and the first where it costs little or has a path of its own."""
    return event == case.events[-1] or (event == case.events[0] and (not case.conditional or case.one_column_of_context))


def last(case, event, with_context):
    return event == case.events[-1] and with_context == case.conditional


def cases(conditional=(False, True), quick=ends):
    """One parameter for each case, event and presence of a context; those of one case run in one process and share compiles.

    What is not `quick` takes its turn in the slow tests.
    """
    for name, case in BIJECTIONS.items():
        for event in case.events:
            of_context = case.conditional and event in (case.events[-1], case.one_column_of_context)
            for with_context in conditional:
                if (with_context and not of_context) or (not with_context and case.needs_context):
                    continue
                marks = [pytest.mark.xdist_group(name)] + [pytest.mark.slow] * (not quick(case, event, with_context))
                yield pytest.param(name, event, with_context, id=f"{name}-{event}{'-context' * with_context}", marks=marks)


def by_case(keep=lambda name: True):
    return [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in BIJECTIONS if keep(name)]


def with_context_if_needed(name):
    if BIJECTIONS[name].needs_context:
        return {"context_dim": CONTEXT}, {"context": np.ones(CONTEXT, np.float32)}
    return {}, {}


@functools.cache
def built(name, event, with_context):
    """Case, params, functions and keywords, in float64."""
    case = BIJECTIONS[name]
    with enable_x64():
        keywords = {"context_dim": CONTEXT} if with_context else {}
        params, direct_fun, inverse_fun = case.init_fun(3, event, **keywords)
        given = {"context": jnp.asarray([2.0, -1.0])} if with_context else {}
        return case, stirred(params, case.stir), direct_fun, inverse_fun, given


@functools.cache
def facts(name, event, with_context):
    """Everything that the tests below compare, from one compiled call: compile time is most of their time."""
    case, params, direct_fun, inverse_fun, given = built(name, event, with_context)

    def row_by_row(fun, x):
        """Each row on its own: outputs, log-dets and log|det| of the autodiff Jacobian."""

        def one(row):
            def flat(row):
                y, log_det = fun(row[None])
                return y.ravel(), (y[0], log_det[0])

            jacobian, (y, log_det) = jax.jacfwd(flat, has_aux=True)(row)
            return y, log_det, jnp.linalg.slogdet(jacobian.reshape(row.size, row.size))[1]

        return jax.vmap(one)(x)

    def waves(like):
        return tuple(jnp.cos(jnp.arange(each.size, dtype=each.dtype)).reshape(each.shape) for each in like)

    @jax.jit
    def everything(params, x):
        (y, log_det), pull_direct = jax.vjp(lambda params: direct_fun(params, x, **given), params)
        (back, back_log_det), pull_inverse = jax.vjp(lambda params: inverse_fun(params, y, **given), params)
        gradients = pull_direct(waves((y, log_det)))[0], pull_inverse(waves((back, back_log_det)))[0]
        again, again_log_det = direct_fun(params, back, **given)
        return {
            "x": x, "y": y, "log_det": log_det, "back": back, "back_log_det": back_log_det,
            "again": again, "again_log_det": again_log_det, "gradients": gradients,
            "rows": row_by_row(lambda x: direct_fun(params, x, **given), x),
            "back_rows": row_by_row(lambda y: inverse_fun(params, y, **given), y),
        }  # fmt: skip

    with enable_x64():
        return jax.tree.map(np.asarray, everything(params, points(case, event, ROWS)))


def close(a, b, tolerance):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


def test_every_public_constructor_is_registered():
    others = {"MLP", "Dequantize"}  # a network, and noise, which has tests of its own
    public = {name for name in flows.__all__ if is_constructor(getattr(flows, name))} - others
    values = [each.init_fun for each in [*BIJECTIONS.values(), *DISTRIBUTIONS.values()]] + list(MODELS.values())
    registered = {value.constructor.__name__ for value in values}
    assert public <= registered, f"add {sorted(public - registered)} to tests/registry.py"
    assert all(isinstance(each.init_fun, BijectionInit) for each in BIJECTIONS.values())
    assert all(isinstance(each.init_fun, DistributionInit) for each in DISTRIBUTIONS.values())


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases()))
def test_round_trip_and_log_dets_are_exact(name, event, with_context):
    case, of = BIJECTIONS[name], facts(name, event, with_context)
    tolerance = 1e-8 if case.loose else 1e-10
    close(of["back"], of["x"], tolerance)
    close(of["again"], of["y"], tolerance)
    close(of["log_det"], of["rows"][2], tolerance)
    close(of["back_log_det"], of["back_rows"][2], tolerance)
    close(of["back_log_det"], -of["again_log_det"], 1e-12)
    # Guard against vacuous points: a wrong sign or a missing term must be able to show.
    if not case.volume_preserving:
        assert np.abs(of["log_det"]).max() > 0.1
    if name != "Standardize" and not (event == 1 and case.volume_preserving):
        assert of["y"].shape != of["x"].shape or np.abs(of["y"] - of["x"]).max() > 0.05


@pytest.mark.parametrize("event", [3, (2, 2, 3)])
@pytest.mark.parametrize("name", ["BatchNorm", "FixedInvertibleLinear", "Standardize"])
def test_log_dets_are_those_of_the_leaves_stored(name, event):
    """Fixed leaves are moved too: no log-det may rest on what they are at the start, such as 1 or orthogonal."""
    case = BIJECTIONS[name]
    with enable_x64():
        params, direct_fun, inverse_fun = case.init_fun(3, event)
        rng = np.random.default_rng(4)
        params = jax.tree.map(lambda leaf: leaf + 0.3 * np.abs(rng.normal(size=leaf.shape)), params)
        x = points(case, event, 1)
        y, log_det = direct_fun(params, x)
        jacobian = jax.jacfwd(lambda row: direct_fun(params, row.reshape(x.shape))[0].ravel())(x.ravel())
        close(log_det[0], np.linalg.slogdet(jacobian)[1], 1e-10)
        assert abs(float(log_det[0])) > 0.1
        close(inverse_fun(params, y)[0], x, 1e-10)


@pytest.mark.parametrize("name", ["FixedInvertibleLinear", "InvertibleLinear"])
def test_linear_maps_start_as_rotations(name):
    params, direct_fun, _ = BIJECTIONS[name].init_fun(3, 5)
    w = direct_fun(params, np.eye(5, dtype=np.float32))[0]
    close(w @ w.T, np.eye(5), 1e-5)
    assert np.abs(w - np.eye(5)).max() > 0.1


@pytest.mark.parametrize("name", ["Autoregressive, every option", "BlockAutoregressive", "FromFunction"])
def test_derivatives_of_the_inverse_are_those_of_the_inverse_function(name):
    """inverse(params, direct(params, x)) is x whatever the params: its derivative in them is 0, and the identity in x."""
    case, params, direct_fun, inverse_fun, given = built(name, 3, False)
    with enable_x64():
        x = points(case, 3, ROWS)
        tangents = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), (params, x))
        there_and_back = jax.jit(lambda params, x: inverse_fun(params, direct_fun(params, x, **given)[0], **given)[0])
        back, change = jax.jvp(there_and_back, (params, x), tangents)
        close(back, x, 1e-8)
        close(change, tangents[1], 1e-7)


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases(quick=last)))
def test_eager_compiled_and_row_by_row_agree(name, event, with_context):
    _, params, direct_fun, inverse_fun, given = built(name, event, with_context)
    of = facts(name, event, with_context)
    with enable_x64():
        eager, eager_inverse = direct_fun(params, of["x"], **given), inverse_fun(params, of["y"], **given)
        pairs = zip((*eager, *eager_inverse), (of["y"], of["log_det"], of["back"], of["back_log_det"]), strict=True)
        for got, expected in pairs:
            close(got, expected, 1e-12)
        for rows, batch in ((of["rows"], eager), (of["back_rows"], eager_inverse)):
            close(rows[0], batch[0], 1e-12)
            close(rows[1], batch[1], 1e-12)
        if with_context:  # one context for each row
            shared = jnp.tile(given["context"], (ROWS, 1))
            close(direct_fun(params, of["x"], context=shared)[0], of["y"], 1e-12)
            mixed = direct_fun(params, of["x"], context=shared.at[1:].add(1.0))[0]
            close(mixed[0], of["y"][0], 1e-12)
            assert np.abs(mixed[1:] - of["y"][1:]).max() > 1e-3, "the context changes nothing"


@pytest.mark.parametrize("name", by_case())
def test_functions_are_the_same_for_every_init(name):
    """With caches bypassed: another key gives functions with the same program and the same constants."""
    case = BIJECTIONS[name]
    event = case.events[-1]
    keywords, given = with_context_if_needed(name)
    params, *functions = case.init_fun(3, event, **keywords)
    x = points(case, event, ROWS, dtype=np.float32)
    y = jax.eval_shape(lambda x: functions[0](params, x, **given)[0], x)
    with fresh_caches():
        _, *others = case.init_fun(99, event, **keywords)
        assert others[0] is not functions[0]
        for a, b, at in zip(others, functions, (x, y), strict=True):
            a, b = (jax.make_jaxpr(lambda params, at, f=f: f(params, at, **given))(params, at) for f in (a, b))
            assert str(a.jaxpr) == str(b.jaxpr) and len(a.consts) == len(b.consts)
            assert all(np.array_equal(u, v) for u, v in zip(a.consts, b.consts, strict=True))


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases(conditional=(False,))))
def test_init_can_be_vmapped_and_functions_are_made_once(name, event, with_context):
    case = BIJECTIONS[name]
    params = case.init_fun(5, event).params
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.eval_shape(jax.vmap(lambda key: case.init_fun(key, event).params), keys)
    assert jax.tree.structure(many) == jax.tree.structure(params)
    assert [leaf.shape for leaf in jax.tree.leaves(many)] == [(3, *leaf.shape) for leaf in jax.tree.leaves(params)]
    first, second = case.init_fun(1, event), case.init_fun(2, event)
    assert first.direct_fun is second.direct_fun and first.inverse_fun is second.inverse_fun
    twin = eval(repr(case.init_fun), {**vars(flows), **vars(registry), "registry": registry})
    assert twin == case.init_fun and twin(0, event).direct_fun is first.direct_fun


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases()))
def test_every_trained_leaf_has_a_finite_gradient_that_is_not_zero(name, event, with_context):
    params = built(name, event, with_context)[1]
    direct, inverse = facts(name, event, with_context)["gradients"]
    both = jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda a, b: np.stack([a, b]), direct, inverse))
    for (path, leaf), train in zip(both, jax.tree.leaves(flows.trainable(params)), strict=True):
        assert np.isfinite(leaf).all(), f"{jax.tree_util.keystr(path)}: {leaf}"
        assert not leaf.size or (leaf != 0).any() == train, f"{jax.tree_util.keystr(path)}: {leaf}"


@pytest.mark.parametrize("name", by_case())
def test_dtypes_and_batch_sizes(name):
    case = BIJECTIONS[name]
    event = case.events[-1]
    keywords, given = with_context_if_needed(name)
    params, direct_fun, inverse_fun = case.init_fun(3, event, **keywords)
    for dtype in (np.float32, jnp.bfloat16, np.float16):
        for rows in (0, 1, ROWS):
            x = points(case, event, rows, dtype=dtype)
            y, log_det = jax.eval_shape(lambda x: direct_fun(params, x, **given), x)
            back, back_log_det = jax.eval_shape(lambda y: inverse_fun(params, y, **given), y)
            assert (y.dtype, back.dtype, back.shape) == (x.dtype, x.dtype, x.shape)
            assert log_det.dtype == back_log_det.dtype == jnp.float32
            assert log_det.shape == back_log_det.shape == (rows,)
    whole = np.ones((ROWS, *x.shape[1:]), np.int32)
    assert jax.eval_shape(lambda x: direct_fun(params, x, **given), whole)[0].dtype == jnp.float32
    x = points(case, event, 1, dtype=np.float32)
    close(inverse_fun(params, direct_fun(params, x, **given)[0], **given)[0], x, 1e-4)
    empty = direct_fun(params, x[:0], **given)
    assert empty[0].shape[0] == 0 and empty[1].shape == (0,)


@pytest.mark.parametrize("name", by_case(lambda name: "init_inputs" in BIJECTIONS[name].init_fun.keywords))
def test_data_can_be_given_to_init(name):
    case = BIJECTIONS[name]
    event = case.events[-1]
    with enable_x64():
        x = points(case, event, 20, seed=2)
        params, direct_fun, inverse_fun = case.init_fun(3, event, init_inputs=x)
        close(inverse_fun(params, direct_fun(params, x)[0])[0], x, 1e-7)
        other = case.init_fun(3, event).params
        assert any((a != b).any() for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True))
        kept = flows.calibrate(case.init_fun, params, x)
        for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(params), strict=True):
            close(a, b, 1e-9)


@pytest.mark.parametrize("name", list(BIJECTIONS))
def test_a_context_that_nothing_takes_is_an_error(name):
    case = BIJECTIONS[name]
    event = case.events[-1]
    if "context_dim" not in case.init_fun.keywords:
        with pytest.raises(TypeError, match="context"):
            case.init_fun(0, event, context_dim=2)
        triple = case.init_fun(0, event)
        with pytest.raises(TypeError, match="context"):
            triple.direct_fun(triple.params, points(case, event, 2), context=np.ones(2))


@pytest.mark.parametrize("name", [*BIJECTIONS, *DISTRIBUTIONS, *MODELS])
def test_values_go_to_json_and_back(name):
    init_fun = MODELS[name] if name in MODELS else {**BIJECTIONS, **DISTRIBUTIONS}[name].init_fun
    if "FromFunction" in repr(init_fun):
        with pytest.raises(flows.FlowsError, match=r"FromFunction\.fun is the function"):
            to_json(init_fun)
        return
    text = json.dumps(to_json(init_fun))
    again = from_json(json.loads(text), (registry.SmallConv,))
    assert again == init_fun and hash(again) == hash(init_fun) and repr(again) == repr(init_fun)
