"""`flows.fit`: how steps are made, and what is told of them."""

import dataclasses
import inspect
import re
from typing import get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import AFFINE, QUICK, ROWS, error_of

import flows
from flows import tables
from flows.training import TensorBoard, fit, fit_ensemble, fit_to_density
from flows.training.comparison import SelectOptions
from flows.training.density.variational import DensityOptions
from flows.training.fit import FitKeywords, SelectKeywords, TableKeywords
from flows.training.options import Options

KEYWORD = inspect.Parameter.KEYWORD_ONLY

LOOP = flows.Flow(flows.Repeat(flows.Serial(flows.Coupling(flows.MLP(8, last_scale=1.0)), flows.Reverse()), 2))


@pytest.mark.parametrize(
    ("function", "record"),
    [(fit, Options), (flows.select, SelectOptions), (fit_ensemble, Options), (fit_to_density, DensityOptions)],
)
def test_a_keyword_is_an_option_with_the_same_default(function, record):
    """So a new option is a keyword of a function and a line of a record."""
    keywords = {each.name: each.default for each in inspect.signature(function).parameters.values() if each.kind == KEYWORD}
    options = {each.name: each.default for each in dataclasses.fields(record)}
    of_density = {"max_epochs": 50, "patience": 10}
    own = {flows.select: {"validation": 0.2}, fit_ensemble: {"members": 8}, fit_to_density: of_density}.get(function, {})
    assert keywords == {name: default for name, default in (options | own).items() if name in keywords}
    assert keywords.keys() <= options.keys()


def test_keywords_that_are_handed_on_are_those_of_fit():
    """With their types and defaults, in what `help` shows; another one is refused, with what was meant."""
    keywords = {each.name: each for each in inspect.signature(fit).parameters.values() if each.kind == KEYWORD}
    types = {name: each.annotation for name, each in keywords.items() if name not in ("folds", "members")}
    assert types == get_type_hints(FitKeywords)
    for function, named in ((fit_ensemble, FitKeywords), (flows.select, SelectKeywords), (tables.fit, TableKeywords)):
        shown = inspect.signature(function).parameters
        assert named.__annotations__.keys() <= shown.keys()
        assert all(shown[name] == keywords[name] for name in named.__annotations__)
        with pytest.raises(TypeError, match="it takes no epochs=; did you mean max_epochs="):
            function(0, AFFINE, ROWS, epochs=3)
    with pytest.raises(TypeError, match="it takes no folds="):
        fit_ensemble(0, AFFINE, ROWS, folds=3)


def leaves(result):
    return jax.tree.leaves(result.params)


def test_parts_of_a_batch_give_its_gradient():
    whole, parts = (fit(0, AFFINE, ROWS, accumulate=count, optimizer=optax.sgd(0.1), **QUICK) for count in (1, 3))
    for a, b in zip(leaves(whole), leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert "90, which does not split into accumulate=4" in error_of(lambda: fit(0, AFFINE, ROWS, accumulate=4, **QUICK))
    assert "a batch has only 90 rows" in error_of(lambda: fit(0, AFFINE, ROWS, accumulate=91, **QUICK))
    few = fit(0, AFFINE, ROWS[:50], accumulate=4, **QUICK)  # all rows but one in 4 parts
    assert np.isfinite(few.history["train_loss"]).all()


@pytest.mark.parametrize("model", [AFFINE, LOOP], ids=["layers", "loop"])
def test_computing_again_changes_nothing(model):
    kept, again = (fit(0, model, ROWS, remat=remat, **QUICK) for remat in (False, True))
    for a, b in zip(leaves(kept), leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_products_in_few_bits_train_nearly_as_well():
    exact, low = (fit(0, AFFINE, ROWS, matmul_dtype=dtype, **{**QUICK, "max_epochs": 20}) for dtype in (None, "bfloat16"))
    assert {leaf.dtype for leaf in leaves(low)} == {np.dtype("float32")}
    assert any(not np.array_equal(a, b) for a, b in zip(leaves(exact), leaves(low), strict=True))
    assert low.history["validation_loss"].min() < exact.history["validation_loss"].min() + 0.05
    again = fit(0, AFFINE, ROWS, **{**QUICK, "max_epochs": 20})
    assert all(np.array_equal(a, b) for a, b in zip(leaves(exact), leaves(again), strict=True))
    assert "expected one of 'bfloat16'" in error_of(lambda: fit(0, AFFINE, ROWS, matmul_dtype="float8", **QUICK))


def test_the_average_of_params_is_what_is_scored_and_returned():
    """With one step an epoch, the average is told step by step from fits without it."""
    steps = {"batch_size": 300, "optimizer": optax.sgd(0.05), "verbose": 0, "validation": ROWS[:40], "patience": 9}
    steps["standardize"] = "columns"
    by_epoch = [leaves(fit(0, AFFINE, ROWS, max_epochs=n, ema=None, **steps)) for n in (1, 2, 3)]
    averaged = fit(0, AFFINE, ROWS, max_epochs=3, ema=0.9, **steps)
    assert averaged.history["best_epoch"] == 2
    start = AFFINE(0, 2, init_inputs=fit_inputs(averaged)).params
    mean = jax.tree.leaves(start)
    fixed = len(leaves(averaged)) - len(mean)  # of the standardisation, in front
    for count, params in enumerate(by_epoch):
        weight = min(0.9, (1 + count) / (10 + count))
        mean = [weight * a + (1 - weight) * b for a, b in zip(mean, params[fixed:], strict=True)]
    for a, b, last in zip(leaves(averaged)[fixed:], mean, by_epoch[-1][fixed:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert not np.allclose(a, last, rtol=1e-6, atol=1e-7)
    loss = -averaged.log_pdf(averaged.params, ROWS[:40]).mean()
    np.testing.assert_allclose(loss, averaged.history["validation_loss"][2], rtol=1e-4)
    assert "decay of an average" in error_of(lambda: fit(0, AFFINE, ROWS, ema=1.0, **QUICK))


def fit_inputs(result):
    fixed = result.params["bijection"]["fixed"]
    return (ROWS - np.asarray(fixed["mean"])) / np.asarray(fixed["std"])


# What is told


def test_callbacks_are_told_of_each_epoch_and_may_end_the_fit():
    told = []

    def note(epoch):
        told.append((epoch, epoch.best_params()))
        best, log_pdf, sample = epoch.best()
        loss = -np.mean(log_pdf(best, ROWS))
        assert abs(loss - epoch.train_loss) < 1 and sample(0, best, 3).shape == (3, *ROWS.shape[1:])
        return epoch.number == 4

    result = fit(0, AFFINE, ROWS, callbacks=[note], **{**QUICK, "max_epochs": 50})
    assert [epoch.number for epoch, _ in told] == [0, 1, 2, 3, 4] and len(result.history["train_loss"]) == 5
    assert [epoch.validation_loss for epoch, _ in told] == result.history["validation_loss"].tolist()
    assert [epoch.train_loss for epoch, _ in told] == result.history["train_loss"].tolist()
    last, params = told[-1]
    assert last.best_epoch == result.history["best_epoch"] and last.max_epochs == 50 and last.rate == 1 and last.skipped == 0
    assert 0 < told[0][0].seconds < last.seconds
    for stop in (np.True_, jnp.asarray(True)):
        assert len(fit(0, AFFINE, ROWS, callbacks=[lambda epoch, stop=stop: stop], **QUICK).history["train_loss"]) == 1
    assert len(fit(0, AFFINE, ROWS, callbacks=[lambda epoch: 1], **QUICK).history["train_loss"]) == QUICK["max_epochs"]
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), leaves(result), strict=True))
    for wrong in (note, ["a"], 3):
        assert "expected a list of functions" in error_of(lambda wrong=wrong: fit(0, AFFINE, ROWS, callbacks=wrong, **QUICK))


def test_silence_and_a_bar(capfd):
    fit(0, AFFINE, ROWS, **QUICK)
    assert capfd.readouterr() == ("", "")
    fit(0, AFFINE, ROWS, **{**QUICK, "verbose": 1})
    shown = capfd.readouterr().err
    assert "train_loss=" in shown and "validation_loss=" in shown and "best_epoch=2" in shown and "3/3" in shown
    assert re.search(r"3/3 \[00:\d\d, at most 00:\d\d more, ", shown)
    assert shown.index("at most") > shown.index("best_epoch=0"), "after two epochs"
    assert "expected 1 for a progress bar" in error_of(lambda: fit(0, AFFINE, ROWS, **{**QUICK, "verbose": 2}))


def test_a_history_draws_itself():
    result = fit(0, AFFINE, ROWS, **QUICK)
    axes = result.history.plot()
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    np.testing.assert_array_equal(lines["train"], result.history["train_loss"])
    np.testing.assert_array_equal(lines["validation"], result.history["validation_loss"])
    assert lines["best"] == [result.history["validation_loss"].min()] and axes.get_ylabel() == "loss, nats a row"
    assert all(float(tick).is_integer() for tick in axes.get_xticks()), "there are no half epochs"
    axes.set_xscale("log")
    assert result.history.plot(axes) is axes
    axes.figure.clear()


def test_tensorboard_gets_every_loss(tmp_path):
    board = TensorBoard(tmp_path)
    result = fit(0, AFFINE, ROWS, callbacks=[board], **QUICK)
    board.close()
    (file,) = tmp_path.iterdir()
    from tensorboardX.proto.event_pb2 import Event

    content, found = file.read_bytes(), {}
    while content:
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        content = content[12 + length + 4 :]
    assert found["validation_loss"] == [(i, pytest.approx(loss)) for i, loss in enumerate(result.history["validation_loss"])]
    assert set(found) == {"train_loss", "validation_loss", "skipped", "rate"}


def test_bits_do_not_depend_on_what_was_fitted_before():
    """Layers computed again are traced by the function, and keep no other fit's products."""
    options = {"remat": True, **QUICK}
    exact, low, again = (fit(0, AFFINE, ROWS, matmul_dtype=dtype, **options) for dtype in (None, "bfloat16", None))
    differ = [not np.array_equal(a, b) for a, b in zip(leaves(exact), leaves(low), strict=True)]
    assert any(differ) and all(np.array_equal(a, b) for a, b in zip(leaves(exact), leaves(again), strict=True))


def test_time_and_callbacks_end_a_fit_with_a_file(tmp_path):
    options = {**QUICK, "max_epochs": 9, "checkpoint_every": 3600.0}
    for i, ends in enumerate(({"callbacks": [lambda epoch: np.bool_(epoch.number == 1)]}, {"max_minutes": 1e-9})):
        fitted = fit(0, AFFINE, ROWS, checkpoint=tmp_path / str(i), **ends, **options)
        assert len(fitted.history["train_loss"]) == (2, 1)[i]
        resumed = fit(0, AFFINE, ROWS, checkpoint=tmp_path / str(i), **options)
        assert len(resumed.history["train_loss"]) == 9
        assert resumed.history["train_loss"][: 2 - i].tolist() == fitted.history["train_loss"].tolist()


def test_columns_of_a_set_are_the_same_in_each_process():
    assert Options(as_is={"b", "c", "a"}).as_is == ("a", "b", "c") and Options(as_is=["b", 0]).as_is == ("b", 0)
