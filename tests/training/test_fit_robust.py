"""Fits that meet what is not finite: steps that are not taken, epochs that are undone, and errors that say why."""

import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import AFFINE, QUICK, ROWS, held_out_first, interrupting

import flows
from flows.training import fit


@flows.bijection
def Trap(low=-3.0, high=3.0, of="value"):
    """The identity with a shift, but for rows whose first entry lies outside [low, high]: there it, or its gradient, is NaN."""

    def direct_fun(params, x):
        outside = (x[0] < low) | (x[0] > high)
        value = (
            jnp.where(outside, jnp.nan, 1.0) if of == "value" else 1 + 0 * jnp.sqrt(jnp.where(outside, 0 * params["b"][0], 1.0))
        )
        return (x + params["b"]) * value, jnp.zeros(())

    def init_fun(rng, shape):
        return {"b": jnp.zeros(shape)}, direct_fun, lambda params, y: y - params["b"]

    return init_fun


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("of", ["value", "gradient"])
def test_steps_that_are_not_finite_are_not_taken(of):
    """One bad row of 270 spoils the batch it is in; all other batches train."""
    bad = ROWS.copy()
    bad[7, 0] = 9.0
    model = flows.Flow(flows.Serial(flows.ActNorm(), flows.Coupling(flows.MLP(8)), Trap(-5.0, 5.0, of)))
    with pytest.warns(UserWarning, match="3 steps were skipped"):
        result = fit(0, model, bad, validation=ROWS[:40], learning_rate=1e-2, **{**QUICK, "batch_size": 75})
    assert finite(result.params) and np.isfinite(result.history["train_loss"]).all()
    assert result.history["skipped"].tolist() == [1, 1, 1]
    assert result.history["validation_loss"][-1] < result.history["validation_loss"][0]


def test_a_rate_a_million_times_too_high_is_lowered():
    """To where it learns, a tenth at a time."""
    good = fit(0, AFFINE, ROWS, **{**QUICK, "max_epochs": 12, "learning_rate": 1e-2})
    with pytest.warns(UserWarning, match="skipped"):
        wild = fit(0, AFFINE, ROWS, **{**QUICK, "max_epochs": 12, "optimizer": optax.sgd(1e6)})
    assert finite(wild.params) and wild.history["best_epoch"] >= 1
    assert wild.history["validation_loss"].min() < good.history["validation_loss"].min() + 0.5


@pytest.mark.parametrize("epochs_before", [0, 2])
def test_what_cannot_be_helped_is_an_error_with_the_last_good_params(epochs_before):
    explode = optax.sgd(lambda count: jnp.where(count < 3 * epochs_before, 1e-2, jnp.inf))
    with pytest.raises(flows.FitError, match=r"undone, the last of 9, .*updates of the optimizer are too large") as error:
        fit(0, AFFINE, ROWS, **{**QUICK, "max_epochs": 40, "patience": 40, "optimizer": explode})
    assert finite(error.value.params) and error.value.history["best_epoch"] < epochs_before
    assert error.value.history["skipped"].tolist() == [0] * epochs_before + [3] * 9
    log_pdf = flows.Flow(flows.Standardize(), AFFINE)(0, 2).log_pdf
    loss = -float(log_pdf(error.value.params, ROWS).mean())
    assert loss < np.log(ROWS.std(0)).sum() + 2.9 and isinstance(error.value, flows.FlowsError)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Trap(-1e-9, 1e-9), r"log_pdf is nan at row \d+ of data, which Trap \(layer 1 of Serial\) is the first to return"),
        (Trap(-1e-9, 1e-9, "gradient"), "the gradient is not finite in bijection/1/b"),
    ],
)
def test_the_cause_names_row_layer_and_params(model, message):
    with pytest.raises(flows.FitError, match=message) as error:
        fit(0, flows.Flow(flows.Serial(flows.Scale(), model)), ROWS, **QUICK)
    assert error.value.cause in str(error.value)


def test_the_row_and_its_column_are_those_of_the_data():
    far = ROWS.copy()
    far[123, 1] = 4e30
    model = flows.Flow(flows.Repeat(flows.Serial(flows.Reverse(), Trap(-50.0, 50.0)), 1))
    told = pytest.raises(flows.FitError, match=r"log_pdf is nan at row 123 of data.* 1 is farthest out")
    with told as error, pytest.warns(flows.training.DataWarning, match=r"column 1 \(4e\+30 in row 123"):
        fit(0, model, far, validation=ROWS[:9], **{**QUICK, "batch_size": 300, "standardize": False})
    assert "4e+30" in str(error.value)


def test_what_is_held_out_is_named_where_it_is_the_cause():
    """All steps are finite, so no batch is to blame."""
    model = flows.Flow(flows.Serial(flows.Scale(), Trap(-50.0, 50.0)))
    far = np.concatenate([ROWS[:30], [[99.0, 0.0]]])
    with pytest.raises(flows.FitError, match=r"undone, the last of 9.*log_pdf is nan at row 30 of validation, which Trap"):
        fit(0, model, ROWS, validation=far, **{**QUICK, "standardize": False, "max_epochs": 20, "patience": 2})
    mixed = ROWS.copy()
    row = held_out_first(0, len(ROWS))[3]
    mixed[row, 0] = 99.0
    with pytest.raises(flows.FitError, match=rf"log_pdf is nan at row {row} of data, which Trap"):
        fit(0, model, mixed, **{**QUICK, "standardize": False, "max_epochs": 20})


def test_a_density_without_bound_is_not_the_best():
    @flows.bijection
    def Spike(at=77.0):
        def direct_fun(params, x):
            return x + params["b"], jnp.where(x[0] == at, jnp.inf, 0.0)

        return lambda rng, shape: ({"b": jnp.zeros(shape)}, direct_fun, lambda params, y: y - params["b"])

    spiked = np.concatenate([ROWS[:30], [[77.0, 0.0]]])
    with pytest.raises(flows.FitError, match=r"undone.*log_pdf is inf at row 30 of validation") as error:
        fit(0, flows.Flow(Spike()), ROWS, validation=spiked, **{**QUICK, "standardize": False, "max_epochs": 20})
    assert error.value.history["best_epoch"] == -1


def test_an_epoch_that_diverged_is_not_the_best_where_the_start_has_none():
    """One row to validate on lies outside at the start; an optimizer that climbs then shrinks all of them into the box."""
    model, rows = flows.Flow(flows.Scale(), flows.Uniform(-5.0, 5.0)), ROWS[np.abs(ROWS).max(1) < 4]
    validation = np.concatenate([rows[:5], [[6.0, 0.0]]])
    settings = {**QUICK, "standardize": False, "max_epochs": 2, "optimizer": optax.sgd(-1e3)}
    with pytest.raises(flows.FitError, match="it diverged") as error:
        fit(0, model, rows, validation=validation, **settings)
    assert error.value.history["best_epoch"] == -1 and np.isfinite(error.value.history["validation_loss"]).all()


def test_epochs_that_were_undone_are_not_waited_for():
    with pytest.warns(UserWarning, match="skipped"):
        result = fit(0, AFFINE, ROWS, **{**QUICK, "max_epochs": 15, "patience": 2, "optimizer": optax.sgd(1e6)})
    assert result.history["best_epoch"] >= 1
    with pytest.raises(flows.FitError, match="it diverged, and was over before") as error:
        fit(0, AFFINE, ROWS, **{**QUICK, "max_epochs": 1, "optimizer": optax.sgd(1e4)})
    assert finite(error.value.params) and error.value.history["best_epoch"] == -1


def test_optimizers_may_want_the_loss_but_no_more():
    result = fit(0, AFFINE, ROWS, optimizer=optax.chain(optax.polyak_sgd(max_learning_rate=0.1)), **QUICK)
    assert result.history["validation_loss"][-1] < result.history["validation_loss"][0]
    with pytest.raises(TypeError, match="the optimizer cannot be used"):
        fit(0, AFFINE, ROWS, optimizer=optax.lbfgs(), **QUICK)


def test_time_ends_a_fit():
    start = time.monotonic()
    result = fit(0, AFFINE, ROWS, **{**QUICK, "max_epochs": 100_000, "patience": 100_000, "max_minutes": 1e-4})
    assert 1 <= len(result.history["train_loss"]) < 100_000 and time.monotonic() - start < 60
    with pytest.raises(flows.FlowsError, match="max_minutes"):
        fit(0, AFFINE, ROWS, max_minutes=-1.0)


def test_an_interrupt_returns_the_best_so_far(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    interrupting(monkeypatch, after=3)
    with pytest.warns(UserWarning, match="interrupted; these are the params of epoch"):
        result = fit(0, AFFINE, ROWS, **{**QUICK, "max_epochs": 50})
    assert len(result.history["train_loss"]) == 3 and signal.getsignal(signal.SIGINT) is before
    interrupting(monkeypatch, after=3, times=2)
    with pytest.raises(KeyboardInterrupt):
        fit(0, AFFINE, ROWS, **{**QUICK, "max_epochs": 50})
    assert signal.getsignal(signal.SIGINT) is before


def test_a_fit_runs_in_any_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(0, AFFINE, ROWS, **QUICK)))
    thread.start()
    thread.join()
    assert len(found[0].history["train_loss"]) == 3
