"""A fit that goes on from a result: it begins where the result ended, with the same rows, layers and programs."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flows
from flows.core import as_key
from flows.training.data.continued import Before, prepare_again
from flows.training.data.facts import check
from flows.training.data.prepare import prepare
from flows.training.data.read import read
from flows.training.data.table import split_numbers
from flows.training.model_view import ModelView
from flows.training.options import Options

RNG = np.random.default_rng(0)
QUICK = {"max_epochs": 3, "batch_size": 20, "learning_rate": 0.02, "folds": 1, "verbose": 0}
NSF = flows.Flow(flows.NSF(1, hidden=(4,), num_bins=3))
WIDE = np.stack([RNG.normal(size=200), 1e6 + 100 * RNG.normal(size=200), RNG.standard_t(1.2, size=200)], 1)
WIDE[:, 0] = 0.1 * WIDE[:, 0] + np.abs(WIDE[:, 2]).clip(0, 3)
PAIRS = RNG.normal(size=(200, 2)).astype(np.float32)
CODES = np.repeat(RNG.integers(0, 3, (200, 1)), 2, 1)
CONTEXT = 50 + 4 * RNG.normal(size=(200, 3))
IMAGES = RNG.integers(0, 4, (60, 4, 4, 1)).astype(np.uint8)
ANGLES = RNG.vonmises(0, 8, (200, 1)) + np.pi * RNG.integers(0, 2, (200, 1))
CIRCLE = flows.Flow(
    flows.Autoregressive(flows.MLP(4), flows.transformers.CircularRationalQuadratic(2)), flows.CircularUniform()
)
PIXELS = flows.Flow(flows.Serial(flows.Dequantize(1.0, 4), flows.ActNorm()))


class Batches:
    def __iter__(self):
        return iter([WIDE[i : i + 20] for i in range(0, 160, 20)])


CASES = {  # the model, its rows, and settings of the first fit alone, and of both
    "wide": (NSF, WIDE, {"as_is": [0]}, {}),
    "bounds, noise and a context": (NSF, np.abs(PAIRS).round(2), {"support": (0, np.inf), "dequantize": 0.01},
                                    {"context": CONTEXT, "weights": np.abs(PAIRS[:, 0])}),
    "codes": (flows.Categorical(3, 3, hidden=(4,)), CODES, {}, {"context": CONTEXT}),
    "angles": (CIRCLE, ANGLES, {}, {}),
    "images": (PIXELS, IMAGES, {}, {}),
    "a stream": (NSF, Batches(), {}, {"validation": WIDE[160:], "steps_per_epoch": 8}),
    "a mesh": (NSF, WIDE, {}, {"mesh": "all"}),
}  # fmt: skip


@cache
def first(name):
    model, rows, once, both = CASES[name]
    return flows.fit(0, model, rows, **QUICK | once | both)


pytestmark = pytest.mark.filterwarnings("ignore::flows.training.DataWarning", "ignore::UserWarning")


def again(name, result, **changes):
    _, rows, _, both = CASES[name]
    return flows.fit(0, result, rows, **{key: value for key, value in (QUICK | both | changes).items() if key != "folds"})


def end(result):
    return float(np.min([result.history["start_loss"], *np.ravel(result.history["validation_loss"])]))


def refusal(call):
    with pytest.raises((TypeError, flows.FlowsError)) as caught:
        call()
    return str(caught.value)


def assert_equal(a, b):
    for one, other in zip(*(jax.tree.leaves((each.params, dict(each.history))) for each in (a, b)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", CASES)
def test_it_begins_where_the_result_ended(name):
    result = first(name)
    after = again(name, result)
    np.testing.assert_allclose(after.history["start_loss"], end(result), rtol=1e-6, atol=1e-6)
    assert end(after) <= end(result) + 1e-6 and end(result) != result.history["start_loss"]
    assert (after.init_fun, after.input_dim, after.context_dim) == (result.init_fun, result.input_dim, result.context_dim)
    assert jax.tree.structure(after.params) == jax.tree.structure(result.params) and after.turn is result.turn


def test_a_result_from_a_file_goes_on_with_the_same_bits_and_compiles_nothing(tmp_path, caplog):
    result = first("wide")
    result.save(tmp_path / "a.flows")
    expected = again("wide", result)
    with jax.log_compiles():
        after = again("wide", flows.load(tmp_path / "a.flows"))
        compiled = [each.message for each in caplog.records if "Compiling" in each.message]
    assert not [message for message in compiled if "start" in message or "run" in message or "back" in message], compiled
    assert_equal(after, expected)
    after.save(tmp_path / "b.flows")
    np.testing.assert_array_equal(flows.load(tmp_path / "b.flows").log_prob(WIDE), after.log_prob(WIDE))


def test_rows_are_what_the_result_was_trained_on():
    context, key = {"context": CONTEXT}, as_key(0)
    options = Options(folds=1, **context)
    split = read(WIDE, options, key)
    before = prepare(split, check(ModelView(NSF, (3,), (3,)), split, options, key), options, key)
    assert len(before.pipeline.steps) == 2, "the columns have heavy tails"
    result = flows.fit(0, NSF, WIDE, **QUICK | context)
    parts = Before.of(result, split.whole.dtype)
    after = prepare_again(split, check(parts.view(split), split, options, key), parts, options, key)
    for one, other in zip(*(jax.tree.leaves((rows.train, rows.held_out)) for rows in (before, after)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (parts.model, len(parts.first)) == (before.model, 0)
    others = read(WIDE, Options(folds=1, context=3 * CONTEXT), key)
    later = prepare_again(others, check(parts.view(others), others, options, key), parts, options, key)
    np.testing.assert_array_equal(later.context_scale, before.context_scale)


def test_rows_behind_the_old_ones_leave_these_where_they_were():
    key, copies = jax.random.key(0), np.r_[np.arange(400), np.arange(40), np.arange(400, 460)]
    for groups in (None, copies):
        (train, others), (more, out) = split_numbers(400, 0.1, key), split_numbers(500, 0.1, key, groups, "", (400,))
        np.testing.assert_array_equal(more[: len(train)], train)
        np.testing.assert_array_equal(out[: len(others)], others)
        assert set(more) | set(out) == set(range(500)) and 2 < len(out) - len(others) < 20
    assert not set(copies[more]) & set(copies[out]), "copies are on one side"
    again, later = (split_numbers(n, 0.1, key, None, "", (400, 500)) for n in (500, 600))
    np.testing.assert_array_equal(again[1], split_numbers(500, 0.1, key, None, "", (400,))[1])
    np.testing.assert_array_equal(later[1][: len(again[1])], again[1])
    last = split_numbers(500, 0.1, key, np.arange(500), "order", (400,))[1]
    assert set(last) == set(range(450, 500))


def test_the_rows_of_all_fits_before_stay_where_they_were():
    data, quick = PAIRS[:150], {"max_epochs": 1, "verbose": 0}
    first = flows.fit(0, flows.Flow(flows.ActNorm()), data[:100], folds=1, **quick)
    second = flows.fit(0, first, data, **quick)
    third = flows.fit(0, second, data, **quick)
    assert second.history["portions"].tolist() == [100, 150] and third.history["portions"].tolist() == [100, 150, 150]
    np.testing.assert_array_equal(second.kept.x, third.kept.x)
    assert set(map(tuple, first.kept.x)) <= set(map(tuple, second.kept.x))


def test_a_stopped_fit_that_goes_on_ends_with_the_same_bits(tmp_path):
    result = first("wide")
    whole = again("wide", result, max_epochs=3)

    def stop(epoch):
        return epoch.number == 0

    again("wide", result, max_epochs=3, checkpoint=tmp_path, callbacks=[stop])
    assert_equal(again("wide", result, max_epochs=3, checkpoint=tmp_path), whole)
    other = result._replace(params=jax.tree.map(lambda leaf: 1.01 * leaf, result.params))
    assert "start was" in refusal(lambda: again("wide", other, max_epochs=3, checkpoint=tmp_path))


class Frame:
    """A frame of pandas with these columns."""

    def __new__(cls, rows, names):
        import pandas as pd

        return pd.DataFrame(dict(zip(names, rows.T, strict=True)))


def test_columns_are_put_in_order_by_name():
    result = flows.fit(0, NSF, Frame(WIDE, "abc"), **QUICK)
    quick = {key: value for key, value in QUICK.items() if key != "folds"}
    after = flows.fit(0, result, Frame(WIDE[:, ::-1], "cba"), **quick)
    np.testing.assert_allclose(after.history["start_loss"], end(result), rtol=1e-6)
    assert after.columns == ("a", "b", "c") and after.draw(0, 2).columns.tolist() == ["a", "b", "c"]
    assert "lacks" in refusal(lambda: flows.fit(0, result, Frame(WIDE, "abd"), **quick))


REFUSED = {
    "members": (lambda: flows.fit_ensemble(0, flows.Flow(flows.ActNorm()), PAIRS, members=2, max_epochs=1, verbose=0), {},
                "2 models, of folds or members"),
    "options": (lambda: first("wide"), {"standardize": False}, "standardize is False, and the preparation of a result stays"),
    "an array": (lambda: first("wide"), {"support": np.array([0.0, 1.0])}, "the preparation of a result stays"),
    "folds": (lambda: first("wide"), {"folds": 2}, "folds is 2, and the preparation"),
    "another event": (lambda: first("angles"), {}, "has shape (3,), and the result was fitted to rows of shape (1,)"),
    "a context": (lambda: first("wide"), {"context": CONTEXT}, "a row of context has shape (3,), and the result was fitted"),
    "no context": (lambda: first("bounds, noise and a context"), {}, "a row of data has shape (3,)"),
    "another model": (lambda: first("wide")._replace(init_fun=flows.Flow(flows.ActNorm())), {}, "are not of its model"),
    "NaN": (lambda: first("wide")._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, first("wide").params)), {},
            "are not all finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_results_are_refused(name):
    make, changes, message = REFUSED[name]
    assert message in refusal(lambda: flows.fit(0, make(), WIDE, verbose=0, **changes))


NAMES = {"mu": (), "scale": (2,)}


def target(point):
    scale = jnp.log(point["scale"])
    return 2.0 - 2 * jnp.square(point["mu"] - 3) - 0.5 * jnp.square(scale - jnp.sin(point["mu"])[:, None]).sum(1) - scale.sum(1)


def test_a_fit_to_a_density_goes_on():
    quick = {"max_epochs": 2, "steps_per_epoch": 5, "num_samples": 64, "num_held_out": 256, "num_weights": 500}
    quick |= {"learning_rate": 1e-3, "starts": 2, "verbose": 0}
    model = flows.Flow(flows.RealNVP(2, hidden=(4,)))
    result = flows.fit_to_density(0, model, target, NAMES, support={"scale": (0, np.inf)}, **quick)
    shifted = lambda point: target({**point, "mu": point["mu"] - 0.5})  # noqa: E731
    after = flows.fit_to_density(0, result, shifted, **quick)
    assert after.parameters == NAMES and after.init_fun == result.init_fun and after.diagnostics.modes == 1
    assert (after.draw(0, 100)["scale"] > 0).all() and len(after.history["train_loss"]) == 2
    same = flows.fit_to_density(0, result, target, **quick)
    np.testing.assert_allclose(same.history["start_loss"], end(result), atol=0.1)
    assert after.history["start_loss"] > same.history["start_loss"] + 0.2
    assert "leave input_dim out" in refusal(lambda: flows.fit_to_density(0, result, target, 3))
    assert "input_dim is missing" in refusal(lambda: flows.fit_to_density(0, model, target))
    assert "takes a context" in refusal(lambda: flows.fit_to_density(0, first("codes"), target))
    assert "support is" in refusal(lambda: flows.fit_to_density(0, result, target, support={"scale": (0, 1)}))


def test_modes_are_looked_for_where_the_density_is():
    rows = (1000 + RNG.normal(size=(100, 2))).astype(np.float32)
    result = flows.fit(0, flows.Flow(flows.ActNorm()), rows, max_epochs=1, folds=1, verbose=0)

    def two(x):
        return jnp.logaddexp(*(-0.5 * jnp.square(x - centre).sum(1) for centre in (1000.0, 1012.0)))

    quick = {"max_epochs": 1, "steps_per_epoch": 2, "num_held_out": 256, "num_weights": 500, "verbose": 0}
    assert flows.fit_to_density(0, result, two, **quick).diagnostics.modes == 2
