"""Budgets are of numbers, not of rows; images stay in one byte a pixel until a batch is taken."""

import jax
import numpy as np
import pytest
from common import close, error_of

import flows
from flows.core.inputs import rows_within
from flows.training.data import prepare
from flows.training.data.facts import Facts
from flows.training.data.gaussian import moments
from flows.training.data.read import read
from flows.training.data.table import Rows, floating
from flows.training.model_view import ModelView
from flows.training.options import Options

IMAGES = np.random.default_rng(0).integers(0, 17, size=(600, 4, 4, 1)).astype(np.uint8)
MODEL = flows.Flow(flows.Serial(flows.Dequantize(1.0), flows.ActNorm()))
VIEW = ModelView(MODEL, (4, 4, 1), None)
QUICK = {"max_epochs": 3, "batch_size": 100, "verbose": 0, "folds": 1}


def test_rows_are_fewer_where_events_are_larger():
    assert rows_within(10_000, 2**20, (43,)) == 10_000
    assert rows_within(10_000, 2**20, (32, 32, 3)) == 341
    assert rows_within(10, 8, (3, 3)) == 1


def prepared(x):
    split, columns = checked(x)
    return prepare.prepare_folds(split, Facts(VIEW, columns), Options(folds=1, verbose=0), jax.random.key(0))


def checked(x):
    from flows.training.data.facts import check_data

    options = Options(folds=1, verbose=0)
    split = read(x, options, jax.random.key(0))
    return split, check_data(split, options, VIEW)


def test_whole_numbers_of_one_byte_or_two_are_cast_where_a_batch_is_taken():
    for kind, kept in ((np.uint8, np.uint8), (np.int16, np.int16), (np.int32, np.float32), (np.float64, np.float32)):
        rows = prepare.in_units(Rows(IMAGES.astype(kind), weights=np.ones(600)), None, np.dtype(np.float32))
        assert rows.x.dtype == kept and rows.weights.dtype == np.float32 and floating(rows).x.dtype == np.float32


@pytest.mark.filterwarnings("ignore:fit. 1800 of 2400 rows of data are copies:flows.training.DataWarning")
def test_whole_numbers_stay_small_on_the_device(tmp_path):
    rows = prepared(IMAGES)
    assert rows.train.x.dtype == rows.held_out.x.dtype == np.uint8 and rows.init_data.init_inputs.dtype == np.float32
    held_out = IMAGES[500:]
    few = flows.fit(0, MODEL, IMAGES, validation=held_out, **QUICK)
    many = flows.fit(0, MODEL, IMAGES.astype(np.float32), validation=held_out.astype(np.float32), **QUICK)
    close(few.history["validation_loss"], many.history["validation_loss"], 1e-6)
    np.save(tmp_path / "images.npy", np.concatenate([IMAGES] * 4))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    streamed = flows.fit(0, MODEL, mapped, validation=held_out, **QUICK)
    whole = flows.fit(0, MODEL, np.asarray(mapped), validation=held_out, **QUICK)
    assert streamed.history.best == pytest.approx(whole.history.best, abs=0.05)


def test_a_row_is_named_rightly_where_some_are_looked_at(monkeypatch):
    """A pixel at the end of a support, in the one row of four that is looked at."""
    monkeypatch.setattr(prepare, "LOOKED_AT", (10**6, 16 * 150))
    model = flows.Flow(flows.Serial(flows.Dequantize(1.0), flows.Invert(flows.Exp())))
    held_out = IMAGES[:50] + 1
    found = read(IMAGES + 1, Options(folds=1, verbose=0, validation=held_out), jax.random.key(0))
    few = prepare._some(found)
    assert len(few.train.x) == len(few.train.numbers) == 150 and few.train.numbers[3] == 12
    rows = IMAGES + 1
    rows[48] = 0  # log of noise about 0
    told = error_of(lambda: flows.fit(0, model, rows, validation=held_out, **QUICK))
    assert "row 48" in told


def test_layers_measure_fewer_images(monkeypatch):
    seen = []

    @flows.bijection
    def Looking():
        def init_fun(rng, shape, init_inputs=None):
            if init_inputs is not None:
                seen.append(init_inputs.shape)
            return {"shift": np.zeros(1)}, lambda params, x: (x, 0 * x.sum()), lambda params, y: y

        return init_fun

    monkeypatch.setattr(prepare, "MEASURED", (10_000, 16 * 50))
    flows.fit(0, flows.Flow(Looking()), IMAGES + np.random.default_rng(1).normal(size=IMAGES.shape), **QUICK)
    assert max(seen)[0] == 50


def test_moments_are_those_of_all_rows_in_pieces(monkeypatch):
    x = np.random.default_rng(0).normal(size=(100, 3, 3, 2)) * [1.0, 1e3] + [5.0, -7.0]
    weights = np.random.default_rng(1).uniform(size=100)
    flat, of_rows = x.reshape(-1, 2), np.repeat(weights, 9)
    monkeypatch.setattr("flows.core.inputs.TOGETHER", (10_000, 64))
    for own in (None, weights):
        mean, std = moments(x, own)
        expected = np.average(flat, 0, None if own is None else of_rows)
        close(mean, expected, 1e-12)
        close(std, np.sqrt(np.average((flat - expected) ** 2, 0, None if own is None else of_rows)), 1e-12)


def test_pieces_of_images_hold_fewer(monkeypatch):
    from flows.core import numerics

    seen = []

    def fun(params, x):
        seen.append(x.shape)
        return x.reshape(x.shape[0], -1).sum(1)

    monkeypatch.setattr(numerics, "NUMBERS_OF_IMAGES", 16 * 40)
    x = IMAGES.astype(np.float32)
    close(numerics.in_pieces(fun, (), x), x.reshape(600, -1).sum(1), 1e-6)
    assert seen[-1] == (40, 4, 4, 1)
    flat = x.reshape(600, 16)
    close(numerics.in_pieces(fun, (), flat, event=(4, 4, 1)), flat.sum(1), 1e-6)
    assert seen[-1] == (40, 16)
