"""Odd calls, drawn by a seed, of all public constructors, functions and methods of results: an answer of the right shape, or an
error for users. By hand, of other seeds: python tests/test_fuzz.py FIRST LAST."""

import inspect
import itertools
import linecache
import math
import os
import sys
import tempfile
import traceback
import types
import typing
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flows
from flows.core.constructors import is_constructor
from flows.core.errors import ELSEWHERE
from flows.results.history import History
from flows.results.result import FitResult
from flows.training import fit, fit_ensemble, fit_to_density, select

HOME = str(Path(flows.__file__).parent)
CONSTRUCTORS = {
    f"{room.__name__}.{name}": getattr(room, name)
    for room in (flows, flows.transformers, flows.conditioners, flows.datasets)
    for name in dir(room)
    if is_constructor(getattr(room, name))
}
NUMBERS = [0, 1, 2, 3, 5, -1, 0.5, -2.5, 1e-12, 1e300, float("nan"), float("inf"), 10**30, True, np.float32(0.5), np.int64(2)]
OTHERS = [None, "a", "relu", "full", b"ab", (), [], (1,), [2, 3], (0.5, 0.5), {"a": 1}, {1, 2}, object, len, lambda x: x, ...,
          "", "no", b"", 3.0, {}, [[1.0], [1.0, 2.0]], int, np.sin, jnp.tanh, math, 1j, range(3),
          Path("nowhere"), False]  # fmt: skip
ARRAYS = [np.ones(2), np.ones((2, 2)), np.zeros((0, 2)), np.array(["a"]), np.ones(2, complex), np.ma.masked_equal([1, 2], 2),
          np.array(1.0), np.array([object()]), np.array([[1.0], None], object), np.zeros(0), jnp.ones(2), np.array(True),
          np.full((3, 2), np.nan), np.array(["2020-01-01"], "datetime64[D]"), jnp.zeros((2, 1), jnp.bfloat16)]  # fmt: skip
PARTS = [
    flows.ActNorm(),
    flows.Normal(trainable=True),
    flows.Flow(flows.Reverse()),
    flows.MLP(4),
    flows.conditioners.MaskedMLP(4),
    flows.transformers.Affine(),
    flows.ActNorm,
    flows.Normal(conditioner=flows.MLP(3)),
    flows.Coupling(flows.MLP(4)),
]
ONCE = [lambda: (i for i in range(2)), lambda: iter([np.ones((4, 2))]), lambda: map(float, "ab")]  # makers of what is used up
try:
    import pandas as pd

    TABLES = [pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}), pd.DataFrame({"a": ["x", "y"]}), pd.Series([1.0, 2.0])]
except ModuleNotFoundError:
    TABLES = []
ODD = [*NUMBERS, *OTHERS, *ARRAYS, *PARTS, *TABLES, *ONCE]
EVENTS = [1, 2, 3, 4, (2,), (4, 4, 2), (1, 3), 0, -1, 2.0, "a", None, (), (2, 0), True, [3], np.int64(2), np.ones(2)]
ROWS = np.random.default_rng(0).normal(size=(40, 2))
MODEL = flows.Flow(flows.ActNorm())
TRIPLE = MODEL(0, 2)
SMALL = {"max_epochs": 1, "batch_size": 16, "verbose": 0}


def odd_rows(rng, event):
    """Rows of the event, or of something else; whether they are right."""
    event = event if isinstance(event, tuple) else (2,)
    right = rng.normal(size=(4, *event)).astype(np.float32)
    wrong = [
        right[0],
        right[..., :1] if event[-1] > 1 else np.repeat(right, 2, -1),
        right[None],
        np.float32(1.0),
        np.ones((4, *event, 1)),
        "a",
        None,
        [[1.0], [1.0, 2.0]],
        right.astype(complex),
        np.array(["a", "b"]),
        np.ma.masked_less(right, 0),
        {"x": right},
    ]
    fine = [
        right,
        right.astype(int),
        right.astype(np.float16),
        right.tolist(),
        right[:0],
        np.full_like(right, np.nan),
        right > 0,
    ]
    return (fine[rng.integers(len(fine))], True) if rng.random() < 0.4 else (wrong[rng.integers(len(wrong))], False)


def drawn_arguments(rng, constructor):
    """Most arguments as they are by default, some odd ones; those without a default mostly of the kind that is expected."""
    found, positional = {}, []
    for name, parameter in inspect.signature(constructor).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional = [pick(rng, PARTS if rng.random() < 0.8 else ODD) for _ in range(rng.integers(3))]
        elif parameter.default is parameter.empty:
            found[name] = pick(rng, PARTS if rng.random() < 0.6 else ODD)
        elif rng.random() < 0.2:
            found[name] = pick(rng, ODD)
    return positional, found


def pick(rng, pool):
    found = pool[rng.integers(len(pool))]
    return found() if any(found is each for each in ONCE) else found


KINDS = {
    bool: (bool, np.bool_),
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
    str: (str,),
    type(None): (),
}


def is_nonsense(parameter, value):
    """Whether a value is none of those that its parameter says it takes, where it says numbers, strings, True or None."""
    said = parameter.annotation
    kinds = typing.get_args(said) or (said,)
    if typing.get_origin(said) not in (None, typing.Union, types.UnionType) or not set(kinds) <= set(KINDS):
        return False
    if parameter.kind is parameter.VAR_POSITIONAL or (isinstance(value, np.ndarray | jax.Array) and value.size == 1):
        return False
    if isinstance(value, bool | np.bool_):
        return bool not in kinds
    return not (value is None and type(None) in kinds) and not any(isinstance(value, KINDS[kind]) for kind in kinds)


def refuse_nonsense(function, positional, named):
    """What was taken is no nonsense."""
    parameters = inspect.signature(function).parameters
    given = {**inspect.signature(function).bind_partial(*positional).arguments, **named}
    wrong = {name: value for name, value in given.items() if name in parameters and is_nonsense(parameters[name], value)}
    assert not wrong, f"nonsense was taken: {wrong!r:.200}"


def of_constructor(rng):
    name = pick(rng, sorted(CONSTRUCTORS))
    positional, named = drawn_arguments(rng, CONSTRUCTORS[name])
    yield f"{name}(*{positional!r:.200}, **{named!r:.300})"
    value = CONSTRUCTORS[name](*positional, **named)
    if isinstance(value, flows.conditioners.base.ConditionerInit):
        yield "... (0, 2, 3)"
        jax.eval_shape(lambda: value(0, 2, 3).params)
    if not isinstance(value, flows.core.BijectionInit | flows.core.DistributionInit):
        refuse_nonsense(CONSTRUCTORS[name], positional, named)
    event, context = pick(rng, EVENTS[:7] if rng.random() < 0.7 else EVENTS), pick(rng, [0, 0, 0, 1, 2, (2, 2), "a", -1, None])
    if isinstance(value, flows.core.BijectionInit | flows.core.DistributionInit):
        yield f"... (0, {event!r}, context_dim={context!r})"
        kind = flows.Bijection if isinstance(value, flows.core.BijectionInit) else flows.Distribution
        functions = []

        def init():
            triple = value(0, event, context_dim=context)
            functions.extend(triple[1:])
            return triple.params

        params = jax.eval_shape(init)  # traced, not compiled
        refuse_nonsense(CONSTRUCTORS[name], positional, named)
        shape = flows.core.inputs.as_event(event)
        given = {}
        if context not in (0, None):
            given["context"] = pick(rng, [np.ones(flows.core.inputs.as_context(context)), np.ones(3), "a", None])
        x, right = odd_rows(rng, shape)
        yield f"... of {x!r:.200}, {given!r:.100}"
        if isinstance(x, np.ndarray) and x.dtype != object and x.dtype.kind in "fiub" and not np.ma.isMaskedArray(x):
            found = jax.eval_shape(lambda params, x: functions[0](params, x, **given), params, jnp.asarray(x))
        else:
            found = functions[0](jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params), x, **given)
        assert right, f"rows of another shape were taken: {np.shape(x)} for {shape}"
        log_p = found if kind is flows.Distribution else found[1]
        assert log_p.shape == (len(x),), "a number for each row"
        if kind is flows.Distribution:
            n = pick(rng, [0, 1, 3, -1, 2.0, "a", None, True, 10**15, 10**30])
            yield f"... sample {n!r}"
            drawn = jax.eval_shape(lambda params: functions[1](1, params, n, **given), params)
            assert drawn.shape == (n, *shape)


def result_of(init_fun, columns, context=0):
    """What a fit would return, without its fit."""
    return FitResult(*init_fun(0, columns, context_dim=context), init_fun, columns, context, History())


ONE, TWO = result_of(flows.Normal(), 1), result_of(flows.Normal(conditioner=flows.MLP(4)), 2, 1)
FUNCTIONS = [
    (fit, (0, MODEL, ROWS), SMALL),
    (fit_ensemble, (0, MODEL, ROWS), {**SMALL, "members": 2}),
    (select, (0, [MODEL], ROWS), {"max_epochs": 1, "batch_size": 16, "verbose": 0, "validation": 0.2}),
    (fit_to_density, (0, flows.Normal(trainable=True), lambda x: -(x**2).sum(1), 2),
     {"max_epochs": 1, "steps_per_epoch": 1, "num_weights": 100, "num_held_out": 20, "verbose": 0, "standardize": False}),
    (flows.remeasure, (MODEL, TRIPLE.params, ROWS), {}),
    (flows.support, (flows.Logit(), 2), {}),
    (flows.trainable, (TRIPLE.params,), {}),
    (flows.describe, ("nowhere",), {}),
    (flows.load, ("nowhere",), {}),
    (flows.save, ("model", MODEL, TRIPLE.params, 2), {}),
    (flows.revise, (flows.Normal(), ), {"temperature": 0.5}),
    (flows.one_hot, ([0, 1], 3), {}),
    (flows.bits_per_dim, (np.zeros(3), 2), {}),
    (flows.bijection, (lambda: lambda rng, shape: None,), {}),
    (flows.distribution, (lambda: lambda rng, shape: None,), {}),
    (flows.conditioner, (lambda: lambda rng, i, o: None,), {}),
    (flows.transformers.transformer, (lambda: None,), {}),
    (flows.MaskedDense, (np.ones((2, 2)),), {}),
    (flows.models.preset, ("nowhere",), {}),
    (flows.objectives.importance_weighted_bound, (TRIPLE.params, TRIPLE, lambda x: -(x**2).sum(1), 0, 5), {}),
    (ONE.cdf, (np.zeros((3, 1)),), {}),
    (ONE.quantile, ([0.1, 0.5],), {}),
    (ONE.interval, (0.9,), {}),
    (ONE.draw, (0, 3), {}),
    (ONE.save, ("result",), {}),
    (TWO.log_prob, (np.zeros((3, 2)),), {"context": np.ones((3, 1))}),
    (TWO.draw, (0, 3), {"context": np.ones(1)}),
    (TWO.p_value, (np.zeros((3, 2)),), {"context": np.ones((3, 1))}),
    (flows.sample_with_log_pdf, (0, TRIPLE.params, TRIPLE, 3), {}),
    (flows.objectives.maximum_likelihood, (TRIPLE.params, TRIPLE, ROWS), {}),
    (flows.objectives.forward_kl, (TRIPLE.params, TRIPLE, lambda x: -(x**2).sum(1), 0, 5), {}),
    (flows.objectives.reverse_kl, (TRIPLE.params, TRIPLE, lambda x: -(x**2).sum(1), 0, 5), {}),
    (flows.objectives.effective_sample_size, (np.zeros(5),), {}),
    (flows.objectives.log_normalizer, (np.zeros(5),), {}),
    (flows.objectives.pareto_k, (np.zeros(500),), {}),
    (TRIPLE.log_pdf, (TRIPLE.params, ROWS), {}),
    (TRIPLE.sample, (0, TRIPLE.params, 3), {}),
]  # fmt: skip
CHEAP = FUNCTIONS[4:]
EXECUTES = ("checkpoint", "callbacks", "optimizer")  # an odd one may be taken, as it is called


def of_function(rng, heavy):
    function, arguments, named = pick(rng, FUNCTIONS if heavy and rng.random() < 0.5 else CHEAP)
    arguments, named, name = list(arguments), dict(named), getattr(function, "__name__", "function")
    required = sum(each.default is each.empty for each in inspect.signature(function).parameters.values())
    optional = [
        each
        for each, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty and each not in (*EXECUTES, "verbose")
    ][max(len(arguments) - required, 0) :]
    for _ in range(rng.integers(1, 3)):
        if optional and rng.random() < 0.5:
            named[pick(rng, optional)] = pick(rng, ODD)
        else:
            arguments[rng.integers(len(arguments))] = pick(rng, ODD)
    yield f"{name}(*{arguments!r:.300}, **{named!r:.300})"
    function(*arguments, **named)
    refuse_nonsense(function, arguments, named)


def in_another_way(rng, heavy):
    """A good call with its arguments in another order, one too many or too few, or a keyword of another library."""
    function, arguments, named = pick(rng, FUNCTIONS if heavy else CHEAP)
    arguments, named, name = list(arguments), dict(named), getattr(function, "__name__", "function")
    way = pick(rng, ["order", "keyword", "keyword", "few", "many"])
    if way == "order":
        orders = [each for each in itertools.permutations(arguments) if any(map(unlike, each, arguments))]
        arguments = list(pick(rng, orders)) if orders else [*arguments, *arguments]
    elif way == "keyword":
        named[pick(rng, [*ELSEWHERE, "foo", "data", "n", "model", "temperature "])] = pick(rng, ODD)
    elif way == "few":
        arguments = arguments[: rng.integers(len(arguments))]
    else:
        arguments += [pick(rng, ODD)] * 9
    yield f"{name}(*{arguments!r:.300}, **{named!r:.300})"
    function(*arguments, **named)
    parameters = inspect.signature(function).parameters
    unknown, needed = set(named) - set(parameters), sum(each.default is each.empty for each in parameters.values())
    assert (way == "keyword" and not unknown) or (way == "few" and len(arguments) >= needed), f"it was taken: {way}"


def unlike(a, b):
    return type(a) is not type(b)


def obscure(error):
    """Whether an error is not one for users: of another kind, or raised somewhere in a library."""
    if isinstance(error, flows.FlowsError):
        return False
    inner = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, TypeError) and inner[-1][0] == __file__:  # Python's own, of a call that does not fit a signature
        return False
    ours = inner[-1][0].startswith(HOME) and linecache.getline(*inner[-1]).strip().startswith("raise")
    return not (ours and isinstance(error, TypeError | OSError | ImportError | AttributeError))


def call(seed, heavy=False):
    """The account of a call that went wrong, or ""."""
    rng, said = np.random.default_rng(seed), []
    try:
        with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            warnings.simplefilter("ignore")
            kind = rng.random()
            for step in of_constructor(rng) if kind < 0.5 else (of_function if kind < 0.85 else in_another_way)(rng, heavy):
                said.append(step)
    except AssertionError as error:
        return f"seed {seed}: {'; '.join(said)}: {error}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename.rpartition('site-packages/')[2]}:{last.lineno}"
        return f"seed {seed}: {'; '.join(said)}: {type(error).__name__}: {error!s:.300} at {where}" if obscure(error) else ""
    return ""


@pytest.fixture(autouse=True)
def whole_tracebacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some calls write a file
    before = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    yield
    jax.config.update("jax_traceback_filtering", before)


def test_odd_calls_end_in_an_answer_or_an_error_for_users():
    wrong = [told for seed in range(200) if (told := call(seed))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_many_odd_calls_end_in_an_answer_or_an_error_for_users(part):
    wrong = [told for seed in range(1000 * part, 1000 * (part + 1)) if (told := call(seed, heavy=True))]
    assert not wrong, "\n".join(wrong)


if __name__ == "__main__":
    jax.config.update("jax_traceback_filtering", "off")
    first, last = map(int, sys.argv[1:])
    os.chdir(tempfile.mkdtemp())
    found = [told for seed in range(first, last) if (told := call(seed, heavy=True))]
    print(*found, f"{last - first} calls, {len(found)} obscure", sep="\n")
