"""Every public bijection x every property of the contract."""

import functools
import json

import common
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import registry
import waves
from common import close, facts, points, stirred
from drawing import DRAWING
from registry import BIJECTIONS, CODES, DIRECTIONAL, DISTRIBUTIONS, MODELS

import flows
from flows.core import BijectionInit, DistributionInit, from_json, to_json
from flows.core.caching import fresh_caches
from flows.core.constructors import is_constructor
from flows.diagnostics import enable_x64

ROWS = 4
CONTEXT_DIM = 2


# What is published is made by the core, alike for all: plain, of batches, a combinator, an engine, of images.
REPRESENTATIVES = ("ActNorm", "BatchNorm", "Serial", "AffineCoupling", "Coupling of images")


def quick(case, event, with_context):
    """The last event, with the context where a case may take one, and another without; and an empty half that has one."""
    if not case.conditional:
        return event in (case.events[0], case.events[-1])
    if with_context:
        return event in (case.events[-1], case.one_column_of_context)
    return event == case.events[0] != case.events[-1]


def last(case, event, with_context):
    return event == case.events[-1] and with_context == case.conditional


def cases(chosen=quick):
    """One parameter for each case, event and presence of a context. What is not `chosen` takes its turn in the slow tests."""
    for name, case in BIJECTIONS.items():
        for event in case.events:
            of_context = case.conditional and event in (case.events[-1], case.one_column_of_context)
            for with_context in (False, True):
                if (with_context and not of_context) or (not with_context and case.needs_context):
                    continue
                marks = [pytest.mark.slow] * (not chosen(case, event, with_context))
                yield pytest.param(name, event, with_context, id=f"{name}-{event}{'-context' * with_context}", marks=marks)


def representatives():
    """The same, where all but five are slow."""
    five = [BIJECTIONS[name] for name in REPRESENTATIVES]
    return cases(lambda case, event, with_context: case in five and last(case, event, with_context))


def by_case(keep=lambda name: True):
    return filter(keep, BIJECTIONS)


@functools.cache
def of_case(name, event, with_context):
    """Everything that the tests below compare, from one compiled call: compile time is most of their time."""
    case, given = BIJECTIONS[name], {"context": np.array([2.0, -1.0])} if with_context else {}
    with enable_x64():
        return facts(case.init_fun, points(case, event, ROWS), functools.partial(stirred, by=case.stir), **given)


def test_every_public_constructor_is_registered():
    # A network; what draws without train, too, and what sees images, has tests of its own.
    others = {"MLP", "Dequantize", "FlowPlusPlusNoise"}
    public = {name for name in flows.__all__ if is_constructor(getattr(flows, name))} - others
    distributions = [*DISTRIBUTIONS.values(), *DIRECTIONAL.values(), *CODES.values()]
    layers = [*BIJECTIONS.values(), *DRAWING.values()]
    values = [each.init_fun for each in [*layers, *distributions]] + list(MODELS.values())
    registered = {value.constructor.__name__ for value in values}
    assert public <= registered, f"add {sorted(public - registered)} to tests/registry.py"
    assert all(isinstance(each.init_fun, BijectionInit) for each in layers)
    assert all(isinstance(each.init_fun, DistributionInit) for each in distributions)


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases()))
def test_round_trip_and_log_dets_are_exact(name, event, with_context):
    case, of = BIJECTIONS[name], of_case(name, event, with_context)
    tolerance = 1e-8 if case.loose else 1e-10
    close(of.back, of.x, tolerance)
    close(of.again[0], of.y, tolerance)
    close(of.log_det, of.log_volume, tolerance)
    close(of.back_log_det, of.back_log_volume, tolerance)
    close(of.back_log_det, -of.again[1], 1e-12)
    # Guard against vacuous points: a wrong sign or a missing term must be able to show.
    if not case.volume_preserving:
        assert np.abs(of.log_det).max() > 0.1
    if name not in ("Standardize", "Whiten", "NormalScores", "RandomFlip", "Noise") and not (
        event == 1 and case.volume_preserving
    ):
        assert of.y.shape != of.x.shape or np.abs(of.y - of.x).max() > 0.04


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases()))
def test_every_trained_leaf_has_a_finite_gradient_that_is_not_zero(name, event, with_context):
    of = of_case(name, event, with_context)
    both = jax.tree.map(lambda a, b: np.stack([a, b]), of.gradients[0], of.back_gradients[0])
    for (path, leaf), train in zip(
        jax.tree_util.tree_leaves_with_path(both), jax.tree.leaves(flows.trainable(of.bijection.params)), strict=True
    ):
        assert np.isfinite(leaf).all(), f"{jax.tree_util.keystr(path)}: {leaf}"
        assert not leaf.size or (leaf != 0).any() == train, f"{jax.tree_util.keystr(path)}: {leaf}"


@pytest.mark.parametrize("event", [3, (2, 2, 3)])
@pytest.mark.parametrize("name", ["BatchNorm", "FixedInvertibleLinear", "Standardize"])
def test_log_dets_are_those_of_the_leaves_stored(name, event):
    """Fixed leaves are moved too: no log-det may rest on what they are at the start, such as 1 or orthogonal."""
    case, rng = BIJECTIONS[name], np.random.default_rng(4)

    def move(params):
        return jax.tree.map(lambda leaf: leaf + 0.3 * np.abs(rng.normal(size=leaf.shape)), params)

    with enable_x64():
        of = facts(case.init_fun, points(case, event, ROWS), move, ("x", "log_det", "jacobian", "back"))
    close(of.log_det, np.linalg.slogdet(of.jacobian)[1], 1e-10)
    assert np.abs(of.log_det).min() > 0.1
    close(of.back, of.x, 1e-10)


@pytest.mark.parametrize("name", ["FixedInvertibleLinear", "InvertibleLinear"])
def test_linear_maps_start_as_rotations(name):
    params, direct_fun, _ = BIJECTIONS[name].init_fun(3, 5)
    w = direct_fun(params, np.eye(5, dtype=np.float32))[0]
    close(w @ w.T, np.eye(5), 1e-5)
    assert np.abs(w - np.eye(5)).max() > 0.1


@pytest.mark.parametrize("name", ["Autoregressive, every option", "BlockAutoregressive", "FromFunction"])
def test_derivatives_of_the_inverse_are_those_of_the_inverse_function(name):
    """inverse(params, direct(params, x)) is x whatever the params: its derivative in them is 0, and the identity in x."""
    case = BIJECTIONS[name]

    @jax.jit
    def derived(key, x):
        params, direct_fun, inverse_fun = case.init_fun(key, 3)
        at = stirred(params, case.stir), x
        along = jax.tree.map(lambda leaf: np.cos(np.arange(leaf.size)).reshape(leaf.shape), at)
        return *jax.jvp(lambda params, x: inverse_fun(params, direct_fun(params, x)[0])[0], at, along), along[1]

    with enable_x64():
        x = points(case, 3, ROWS)
        back, change, expected = derived(jax.random.key(3), x)
    close(back, x, 1e-8)
    close(change, expected, 1e-7)


@pytest.mark.parametrize(("name", "event", "with_context"), list(representatives()))
def test_eager_compiled_and_row_by_row_agree(name, event, with_context):
    of = of_case(name, event, with_context)
    (params, direct_fun, inverse_fun), given = of.bijection, of.given
    derivative = jax.jacrev if "eversible" in repr(BIJECTIONS[name].init_fun) else jax.jacfwd

    @jax.jit
    def row_by_row(fun, points):
        """Each row on its own: outputs, log-dets and derivatives, forward where they are."""

        def one(row):
            def outputs(row):
                y, log_det = fun(row[None])
                return y.ravel(), (y[0], log_det[0])

            jacobian, (y, log_det) = derivative(outputs, has_aux=True)(row)
            return y, log_det, jacobian.reshape(row.size, row.size)

        return jax.vmap(one)(points)

    with enable_x64():
        for function, at, jacobian, expected in (
            (direct_fun, of.x, of.jacobian, (of.y, of.log_det)),
            (inverse_fun, of.y, of.back_jacobian, (of.back, of.back_log_det)),
        ):
            rows = row_by_row(jax.tree_util.Partial(function, params, **given), at)
            steepest = max(np.abs(jacobian).max(), 1.0)  # by which roundings grow
            for eager, row, compiled in zip(function(params, at, **given), rows, expected, strict=False):
                close(eager, compiled, 1e-12 * steepest)
                close(row, eager, 1e-12 * steepest)
            close(rows[2], jacobian, 1e-10)
        if with_context:  # one context for each row
            shared = np.tile(given["context"], (ROWS, 1))
            close(direct_fun(params, of.x, context=shared)[0], of.y, 1e-12)
            mixed = direct_fun(params, of.x, context=shared + (np.arange(ROWS) > 0)[:, None])[0]
            close(mixed[0], of.y[0], 1e-12)
            assert np.abs(mixed[1:] - of.y[1:]).max() > 1e-3, "the context changes nothing"


@pytest.mark.parametrize(("name", "event", "with_context"), list(representatives()))
def test_functions_are_the_same_for_every_init(name, event, with_context):
    """With caches bypassed: another key gives functions with the same program and the same constants."""
    case, of = BIJECTIONS[name], of_case(name, event, with_context)
    (params, *functions), given = of.bijection, of.given
    with enable_x64(), fresh_caches():
        _, *others = case.init_fun(99, event, context_dim=CONTEXT_DIM if with_context else 0)
        assert others[0] is not functions[0]
        for a, b, at in zip(others, functions, (of.x, of.y), strict=True):
            a, b = (jax.make_jaxpr(lambda params, at, f=f: f(params, at, **given))(params, at) for f in (a, b))
            assert str(a.jaxpr) == str(b.jaxpr) and len(a.consts) == len(b.consts)
            assert all(np.array_equal(u, v) for u, v in zip(a.consts, b.consts, strict=True))


@pytest.mark.parametrize(("name", "event", "with_context"), list(cases(last)))
def test_init_can_be_vmapped_and_functions_are_made_once(name, event, with_context):
    case, context_dim = BIJECTIONS[name], CONTEXT_DIM if with_context else 0
    with enable_x64():  # not that of `of_case`, as caches may have been cleared since
        params, *functions = case.init_fun(0, event, context_dim=context_dim)
    modules = {"networks": networks, "common": common, "registry": registry, "waves": waves}
    twin = eval(repr(case.init_fun), {**vars(flows), **vars(registry), **modules})
    assert twin == case.init_fun

    def init(key):
        again, *same = twin(key, event, context_dim=context_dim)
        assert same == functions
        return again

    with enable_x64():
        many = jax.eval_shape(jax.vmap(init), jax.random.split(jax.random.key(0), 3))
    assert jax.tree.structure(many) == jax.tree.structure(params)
    assert [leaf.shape for leaf in jax.tree.leaves(many)] == [(3, *leaf.shape) for leaf in jax.tree.leaves(params)]


@pytest.mark.parametrize(("name", "event", "with_context"), list(representatives()))
def test_dtypes_and_batch_sizes(name, event, with_context):
    case = BIJECTIONS[name]
    params, direct_fun, inverse_fun = case.init_fun(3, event, context_dim=CONTEXT_DIM if with_context else 0)
    given = {"context": np.ones(CONTEXT_DIM, np.float32)} if with_context else {}

    def there_and_back(x):
        y, log_det = direct_fun(params, x, **given)
        return y, log_det, *inverse_fun(params, y, **given)

    for dtype, rows in ((np.float32, 0), (np.float32, 1), (np.float32, ROWS), (jnp.bfloat16, ROWS), (np.float16, ROWS)):
        x = points(case, event, rows, dtype=dtype)
        y, log_det, back, back_log_det = jax.eval_shape(there_and_back, x)
        assert (y.dtype, back.dtype, back.shape) == (x.dtype, x.dtype, x.shape)
        assert log_det.dtype == back_log_det.dtype == jnp.float32
        assert log_det.shape == back_log_det.shape == (rows,)
    whole = np.ones((ROWS, *x.shape[1:]), np.int32)
    assert jax.eval_shape(there_and_back, whole)[0].dtype == jnp.float32
    x = points(case, event, 1, dtype=np.float32)
    close(jax.jit(there_and_back)(x)[2], x, 1e-4)
    empty = direct_fun(params, x[:0], **given)
    assert empty[0].shape[0] == 0 and empty[1].shape == (0,)


@pytest.mark.parametrize("name", list(by_case(lambda name: "init_inputs" in BIJECTIONS[name].init_fun.keywords)))
def test_data_can_be_given_to_init(name):
    case = BIJECTIONS[name]
    event = case.events[-1]
    with enable_x64():
        x = points(case, event, 20, seed=2)
        params, direct_fun, inverse_fun = case.init_fun(3, event, init_inputs=x)
        close(inverse_fun(params, direct_fun(params, x)[0])[0], x, 1e-7)
        other = case.init_fun(3, event).params
        assert any((a != b).any() for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True))
        kept = flows.remeasure(case.init_fun, params, x)
        for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(params), strict=True):
            close(a, b, 1e-9)


@pytest.mark.parametrize("name", list(by_case(lambda name: "context_dim" not in BIJECTIONS[name].init_fun.keywords)))
def test_a_context_that_nothing_takes_is_an_error(name):
    case = BIJECTIONS[name]
    of = of_case(name, case.events[-1], False)
    with enable_x64():
        with pytest.raises(TypeError, match="context"):
            jax.eval_shape(lambda: case.init_fun(0, case.events[-1], context_dim=2).params)
        with pytest.raises(TypeError, match="context"):
            of.bijection.direct_fun(of.bijection.params, of.x, context=np.ones(2))


@pytest.mark.parametrize("name", [*BIJECTIONS, *DRAWING, *DISTRIBUTIONS, *CODES, *MODELS])
def test_values_go_to_json_and_back(name):
    init_fun = MODELS[name] if name in MODELS else {**BIJECTIONS, **DRAWING, **DISTRIBUTIONS, **CODES}[name].init_fun
    if "FromFunction" in repr(init_fun):
        with pytest.raises(flows.FlowsError, match=r"FromFunction\.fun is the function"):
            to_json(init_fun)
        return
    text = json.dumps(to_json(init_fun))
    again = from_json(json.loads(text), (registry.SmallConv,))
    assert again == init_fun and hash(again) == hash(init_fun) and repr(again) == repr(init_fun)
