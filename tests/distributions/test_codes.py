"""Distributions of codes: masses sum to 1, draws follow them, what is no code has none; the start, the formula, the cost."""

import functools
from itertools import product
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, stirred
from jax import export
from registry import CODES
from scipy import stats

import flows
from flows.conditioners import masked
from flows.core import one_hot_codes
from flows.core.caching import fresh_caches
from flows.diagnostics import enable_x64
from flows.distributions.categorical import _Layout

CONTEXT = np.array([0.5, -1.0])
DRAWS = 20_000
SIDE = np.linspace(-9, 9, 201)  # of numbers beside codes
NO_CODES = (0.5, -1.0, -0.5, np.inf, -np.inf, 1e9)


def cases(quick=lambda name, context: True):
    """One parameter for each case and presence of a context; what is not quick is slow."""
    for name, case in CODES.items():
        for context in (False, True) if case.conditional else (False,):
            marks = [pytest.mark.slow] * (not quick(name, context))
            yield pytest.param(name, context, id=f"{name}{'-context' * context}", marks=marks)


def representative(name, context):
    return context if name == "Categorical" else name in ("Joint of Categorical", "Flow of codes") and not context


def every(classes):
    """All codes, and numbers on a grid: (rows, columns)."""
    return np.array(list(product(*[np.arange(k) if k else SIDE for k in classes])), float)


def cell_of(classes, x):
    """Which of all combinations of codes each row has."""
    number = np.zeros(len(x), int)
    for column, k in enumerate(classes):
        number = number * k + x[:, column].astype(int) if k else number
    return number


@functools.cache
def of_case(name, with_context):
    """What the tests below compare, from one compiled call."""
    case, made = CODES[name], []
    event, grid = case.events[-1], every(case.classes)
    given = {"context": CONTEXT} if with_context else {}

    column = int(np.argmax(case.classes))
    beyond = np.tile(grid[-1], (len(NO_CODES) + 3, 1))
    beyond[:-2, column] = [*NO_CODES, case.classes[column]]
    beyond[-2, column] = np.nan
    beyond[-1, :] = [np.nan, *[0.5] * (event - 1)]  # a NaN beside what is no code

    @jax.jit
    def program(key, grid, beyond, given):
        made[:] = case.init_fun(key, event, context_dim=2 if with_context else 0)
        params, log_pdf, sample = stirred(made[0], by=0.5), *made[1:]
        samples = sample(2, params, DRAWS, **given)
        rows = jnp.concatenate([samples[:7], beyond[:-2]])  # those that are no codes change no gradient

        def loss(params):
            log_p = log_pdf(params, rows, **given)
            return jnp.where(jnp.arange(len(rows)) < 7, log_p, 0).sum()

        found = log_pdf(params, jnp.concatenate([grid, beyond]), **given)
        return params, found, samples, jax.grad(loss)(params)

    with enable_x64():
        params, found, samples, gradient = jax.tree.map(np.asarray, program(jax.random.key(0), grid, beyond, given))
    values, no_codes = np.exp(found[: len(grid)]), found[len(grid) :]
    masses = np.bincount(cell_of(case.classes, grid), values) * (SIDE[1] - SIDE[0]) ** case.classes.count(0)
    distribution = flows.Distribution(params, *made[1:])
    return SimpleNamespace(
        distribution=distribution,
        given=given,
        masses=masses,
        no_codes=no_codes,
        samples=samples,
        gradient=gradient,
        classes=case.classes,
    )


@pytest.mark.parametrize(("name", "with_context"), list(cases()))
def test_masses_sum_to_one_and_draws_follow_them(name, with_context):
    of = of_case(name, with_context)
    assert of.masses.sum() == pytest.approx(1, abs=1e-5) and of.masses.max() > 1.5 * of.masses.min()
    assert of.samples.shape == (DRAWS, len(of.classes)) and of.samples.dtype == np.float64
    codes = np.array(of.classes) > 0
    assert (of.samples == np.floor(of.samples))[:, codes].all() and not (of.samples == np.floor(of.samples))[:, ~codes].any()
    assert ((of.samples >= 0) & (of.samples < of.classes))[:, codes].all()
    counts = np.bincount(cell_of(of.classes, of.samples), minlength=len(of.masses))
    assert stats.chisquare(counts, DRAWS * of.masses / of.masses.sum()).pvalue > 1e-3


@pytest.mark.parametrize(("name", "with_context"), list(cases()))
def test_every_trained_leaf_has_a_finite_gradient_that_is_not_zero(name, with_context):
    of = of_case(name, with_context)
    for leaf, train in zip(jax.tree.leaves(of.gradient), jax.tree.leaves(flows.trainable(of.distribution.params)), strict=True):
        assert np.isfinite(leaf).all() and (leaf != 0).any() == train


@pytest.mark.parametrize(("name", "with_context"), list(cases()))
def test_what_is_no_code_has_no_mass(name, with_context):
    no_codes = of_case(name, with_context).no_codes
    assert (no_codes[:-2] == -np.inf).all() and np.isnan(no_codes[-2:]).all()


@pytest.mark.parametrize(("name", "with_context"), list(cases(representative)))
def test_the_contract_of_a_distribution(name, with_context):
    of, case = of_case(name, with_context), CODES[name]
    (params, log_pdf, sample), given = of.distribution, of.given
    x = of.samples[:6]
    with enable_x64():
        values = log_pdf(params, x, **given)
        close(jax.jit(log_pdf)(params, x, **given), values, 1e-12)
        close(jax.vmap(lambda row: log_pdf(params, row[None], **given)[0])(x), values, 1e-12)
        close(np.concatenate([log_pdf(params, row[None], **given) for row in x]), values, 1e-12)
        with fresh_caches():
            other = case.init_fun(9, case.events[-1], context_dim=2 if with_context else 0)
        close(other.log_pdf(params, x, **given), values, 1e-12)
        if with_context:
            moved = np.asarray(log_pdf(params, x, context=CONTEXT + 1))
            rows = np.concatenate([np.tile(CONTEXT, (3, 1)), np.tile(CONTEXT + 1, (3, 1))])
            close(log_pdf(params, x, context=rows), np.concatenate([values[:3], moved[3:]]), 1e-12)
            assert np.abs(moved - values).min() > 1e-3
        np.testing.assert_array_equal(sample(3, params, 5, **given), sample(3, params, 5, **given))
    low = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    assert sample(0, low, 3, **given).dtype == log_pdf(low, x.astype(jnp.bfloat16), **given).dtype == jnp.float32
    close(log_pdf(low, x.astype(np.float32), **given), values, 3e-6)
    assert log_pdf(low, np.zeros((0, x.shape[1]), np.float32), **given).shape == (0,)


@pytest.mark.parametrize(("name", "with_context"), list(cases(representative)))
def test_codes_reach_from_0_to_the_last_class(name, with_context):
    case = CODES[name]
    region = flows.support(case.init_fun, case.events[-1], 2 if with_context else 0).inputs
    codes = np.array(case.classes) > 0
    assert region.classes.tolist() == list(case.classes)
    assert (region.low[codes] == 0).all() and (region.high[codes] == np.array(case.classes)[codes] - 1).all()


def test_rows_are_scored_in_pieces_that_hold_little():
    """A million rows of 300 classes, told by the compiler: the logits of all of them would be 1.2 GB."""
    for classes in ((100, 100, 100), (300,)):
        params, log_pdf, _ = flows.Categorical(*classes)(0, len(classes))
        rows = jax.ShapeDtypeStruct((1_000_000, len(classes)), jnp.float32)
        analysis = jax.jit(log_pdf).lower(params, rows).compile().memory_analysis()
        assert analysis is not None and analysis.temp_size_in_bytes < 2e8
    params, log_pdf, sample = flows.Categorical(3, 40, hidden=(4,))(0, 2)
    x = sample(1, stirred(params, 0.5), 20_000)
    close(log_pdf(params, x), np.concatenate([log_pdf(params, x[i : i + 500]) for i in range(0, 20_000, 500)]), 1e-5)


def test_programs_of_any_number_of_rows_are_exported():
    (rows,) = export.symbolic_shape("n")
    for classes in ((4,), (3, 2)):
        params, log_pdf, _ = flows.Categorical(*classes, hidden=(4,))(0, len(classes))
        shape = jax.ShapeDtypeStruct((rows, len(classes)), jnp.float32)
        exported = export.export(jax.jit(log_pdf))(
            jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), params), shape
        )
        x = np.ones((7, len(classes)), np.float32)
        close(exported.call(params, x), log_pdf(params, x), 1e-6)


# The formula and the start


def softmax_of(logits, classes, x):
    """sum_i log softmax(l_i)[x_i] of rows, by loops."""
    total, place = np.zeros(len(x)), 0
    for column, k in enumerate(classes):
        own = logits[:, place : place + k]
        total += own[np.arange(len(x)), x[:, column].astype(int)] - np.log(np.exp(own).sum(1))
        place += k
    return total


@pytest.mark.parametrize("classes", [(2, 5, 3), (4, 4), (3, 2, 3, 2)])
def test_a_linear_one_is_its_formula(classes):
    """Weights are those of codes of earlier columns and of the context, in the order of the columns."""
    params, log_pdf, _ = flows.Categorical(*classes, hidden=())(0, len(classes), context_dim=2)
    params = stirred(params, 0.5)
    w, b = (np.asarray(params[0][name], float) for name in ("w", "b"))
    of_output = np.repeat(np.arange(len(classes)), classes)
    of_input = np.concatenate([of_output[: -classes[-1]], [-1, -1]])
    assert w.shape == (len(of_input), len(of_output))
    x = every(classes)
    seen = np.concatenate(
        [np.eye(k)[x[:, i].astype(int)] for i, k in enumerate(classes[:-1])] + [np.tile(CONTEXT, (len(x), 1))], 1
    )
    logits = seen @ (w * (of_input[:, None] < of_output)) + b
    close(log_pdf(params, x, context=CONTEXT), softmax_of(logits, classes, x), 1e-5)


@pytest.mark.parametrize("with_context", [False, True])
@pytest.mark.parametrize("classes", [(4,), (3, 2, 4)])
def test_it_starts_at_the_frequencies(classes, with_context):
    rng = np.random.default_rng(0)
    x = np.stack([rng.binomial(k - 1, 0.3, 500) for k in classes], 1).astype(np.float32)
    given = {"context_dim": 2, "init_context": rng.normal(size=(500, 2))} if with_context else {}
    init_fun = flows.Categorical(*classes, hidden=(8,))
    params, log_pdf, _ = init_fun(0, len(classes), init_inputs=x, **given)
    counts = [np.bincount(x[:, i].astype(int), minlength=k) for i, k in enumerate(classes)]
    expected = sum(np.log((n + 1) / (500 + len(n)))[x[:, i].astype(int)] for i, n in enumerate(counts))
    context = {"context": given["init_context"]} if with_context else {}
    close(log_pdf(params, x, **context), expected, 1e-6 if classes == (4,) and not with_context else 0.1)
    again = init_fun(1, len(classes), init_inputs=x[::-1], params=params, **given).params  # what trains stays
    jax.tree.map(np.testing.assert_array_equal, again, params)
    params, log_pdf, _ = init_fun(0, len(classes), context_dim=2 if with_context else 0)
    close(log_pdf(params, x, **context), -np.log(classes).sum(), 0.1)


def test_start_counts_codes_alone():
    x = np.array([[0.0], [0.0], [1.0], [2.0], [0.5], [-1.0]])
    params, log_pdf, _ = flows.Categorical(2)(0, 1, init_inputs=x)
    close(log_pdf(params, np.array([[0.0], [1.0]])), np.log([3 / 5, 2 / 5]), 1e-6)


def test_copies_in_a_mixture_are_not_alike():
    params, log_pdf, _ = flows.Mixture(flows.Categorical(3, 2, hidden=()), num_components=2)(0, 2)
    x = np.array([[0.0, 1.0], [2.0, 0.0]])
    gradient = jax.grad(lambda params: log_pdf(params, x).sum())(params)["components"]
    assert float(jnp.abs(gradient[0]["w"][0] - gradient[0]["w"][1]).max()) > 0


def test_it_learns_which_codes_go_together():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 2000)
    x = np.stack([a, (a + (rng.random(2000) < 0.1)) % 3], 1).astype(np.float32)
    result = flows.fit(0, flows.Categorical(3, 3, hidden=(16,)), x, max_epochs=30, standardize=False, verbose=0)
    best = -np.log(3) + 0.9 * np.log(0.9) + 0.1 * np.log(0.1)
    assert float(np.mean(result.log_prob(x))) > best - 0.1


# Draws


def drawn_by_network(classes, hidden, context_dim):
    """Codes that a masked network draws column by column, the log-masses it told, and those of the codes in one pass."""
    layout = _Layout(classes)
    degrees = masked.degrees_of_several(layout.inputs, layout.outputs, hidden, context_dim)
    params, network = masked.masked_mlp("own", jax.random.key(0), degrees, jax.nn.tanh, 1.0, 0.0, as_they_come=True)
    params = stirred(params, 0.3)
    context = jax.random.normal(jax.random.key(1), (context_dim, 50)) if context_dim else None

    def find(column, logits, noise):
        own = (jnp.arange(len(logits)) < jnp.asarray(classes)[column])[:, None, None]
        log_p = jax.nn.log_softmax(jnp.where(own, logits, -jnp.inf), axis=0)
        code = jnp.floor(noise * jnp.asarray(classes, noise.dtype)[column])
        return code, jnp.take_along_axis(log_p, code.astype(int)[None], axis=0)[0]

    noise = jax.random.uniform(jax.random.key(2), (len(classes), 50))
    c, log_p = network.solve(params, context, noise, find, layout.one_hot_alone)
    return c, log_p.sum(0), layout.log_masses(network.leading(params, layout.one_hot(c), context), c)


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("hidden", [(), (7, 9)])
def test_columns_of_any_number_of_classes_are_found_one_after_the_other(hidden, context_dim):
    classes = (2, 40, 2, 2, 3, 2, 3, 30, 2)
    assert masked._cut(np.array([2, 2, 2, 50, 3])) == [5, 4, 3, 0] and masked._cut(np.full(9, 4)) == [9, 0]
    with enable_x64():
        c, told, at_once = jax.jit(functools.partial(drawn_by_network, classes, hidden, context_dim))()
    assert (np.asarray(c).max(1) > 0).all() and (np.asarray(c).max(1) < classes).all()
    close(told, at_once, 1e-10)


def test_codes_are_seen_as_zeros_with_a_one():
    x = jnp.array([[1.0, 0.0, 5.0], [2.0, 0.5, 0.0], [0.0, 1.0, jnp.nan]])
    expected = [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert one_hot_codes(x, (2, 3, 2)).tolist() == np.array(expected)[[0, 1, 2, 3, 4, 5, 6]].tolist()
    assert one_hot_codes(x[:, 0], (2, 3, 2)).tolist() == [0, 1, 0, 0, 1, 1, 0]
    assert one_hot_codes(x[:0], ()).shape == (0, 3)


def test_dropout_needs_rng_and_drops_other_units_in_each_row():
    params, log_pdf, _ = flows.Categorical(3, 3, dropout=0.5)(0, 2)
    params, x = stirred(params, 0.1), np.ones((20_000, 2), np.float32)
    assert "give rng=" in error_of(lambda: log_pdf(params, x, train=True))
    plain, some = np.asarray(log_pdf(params, x)), np.asarray(log_pdf(params, x, rng=0, train=True))
    assert len(np.unique(plain.round(4))) == 1 and len(np.unique(some)) > 10_000  # in pieces that drop the same, 2,064
    np.testing.assert_array_equal(log_pdf(params, x, rng=0), plain)


# Where it fits, and what it refuses


def test_layers_that_would_scale_or_mix_codes_are_refused():
    for layer, classes in ((flows.AffineCoupling(), (3, 4)), (flows.Standardize(), (3, 3)), (flows.Reverse(), (3, 4))):
        said = error_of(lambda layer=layer, classes=classes: flows.Flow(layer, flows.Categorical(*classes))(0, 2))
        assert "codes of categories" in said and repr(layer)[:6] in said.replace("Coupling(", "AffineCoupling(")
    columns = flows.Joint(flows.Categorical(3, 2), flows.Normal(), sizes=(2, 1))
    init_fun = flows.Flow(flows.Standardize(as_is=(0, 1)), columns)
    x = np.array([[2.0, 1.0, 50.0], [0.0, 0.0, 70.0]])
    params, log_pdf, sample = init_fun(0, 3, init_inputs=x)
    assert set(np.unique(sample(1, params, 50)[:, :2])) == {0.0, 1.0, 2.0} and np.isfinite(log_pdf(params, x)).all()
    assert "same for all" in error_of(lambda: flows.Mixture(flows.Categorical(3), flows.Normal())(0, 1))


def test_codes_lie_behind_noise_on_other_columns():
    columns = flows.Joint(flows.Categorical(3, 2), flows.Normal(), sizes=(2, 1))
    region = flows.support(flows.Flow(flows.Dequantize((0.0, 0.0, 1.0)), columns), 3).inputs
    assert region.classes.tolist() == [3, 2, 0] and region.high.tolist() == [2, 1, np.inf]
    said = error_of(lambda: flows.support(flows.Flow(flows.Dequantize((0.0, 1.0, 1.0)), columns), 3))
    assert "codes of categories" in said and "Dequantize" in said


def test_bad_arguments_are_told():
    assert "no classes were given" in error_of(lambda: flows.Categorical())
    for wrong in (0, -1, 2.5, "a", True, None):
        assert "Categorical: a number of classes is" in error_of(lambda wrong=wrong: flows.Categorical(3, wrong))
    assert "Categorical: hidden is 4" in error_of(lambda: flows.Categorical(3, hidden=4))
    assert "Categorical: dropout is 1" in error_of(lambda: flows.Categorical(3, dropout=1))
    for event in (1, 3, (2, 1)):
        assert "expected (2,)" in error_of(lambda event=event: flows.Categorical(3, 2)(0, event))
    assert "flatten the context" in error_of(lambda: flows.Categorical(3, 2)(0, 2, context_dim=(2, 2)))
    with pytest.raises(TypeError, match="context_dim"):
        flows.Categorical(3)(0, 1).log_pdf({"theta": jnp.zeros(3)}, np.zeros((1, 1)), context=np.ones(2))
    assert repr(flows.Categorical(3, 2, hidden=())) == "Categorical(3, 2, hidden=())"
