"""Warnings name the user's own line, from however deep they come, and none hides a later one."""

import os
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from common import interrupting

import flows
from flows.diagnostics import enable_x64
from flows.training.density import variational
from flows.training.model_view import ModelView, warn_of_one_column

ROUNDED = np.random.default_rng(0).normal(size=(200, 2)).round(1)
NORMAL = flows.Normal(trainable=True)
QUICK = {"max_epochs": 2, "batch_size": 64, "verbose": 0}


def wide(x):
    """A normal whose tails weigh more and more than those of the model that starts at scale 1."""
    return -0.02 * jnp.square(x[:, 0])


def density():
    flows.fit_to_density(
        0, NORMAL, wide, 1, standardize=False,
        max_epochs=1, steps_per_epoch=1, num_samples=64, num_held_out=64, num_weights=500, verbose=0,
    )  # fmt: skip


FITS = {
    "fit": lambda data: flows.fit(0, NORMAL, data, **QUICK),
    "fit_ensemble": lambda data: flows.fit_ensemble(0, NORMAL, data, members=2, **QUICK),
    "select": lambda data: flows.select(0, {"normal": NORMAL}, data, **QUICK),
}


def test_unit_vectors_are_named():
    rng, text = np.random.default_rng(0), "fit: the squares of columns {} of data sum to 1 in all rows"
    points = rng.normal(size=(200, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    a, b = rng.uniform(-3, 3, (2, 200))
    turned = np.stack([np.cos(a), np.cos(b), rng.normal(size=200), np.sin(a), np.sin(b)], 1)
    nearly = np.r_[points[:-1], 1.01 * points[-1:]]
    cases = [
        (np.c_[rng.normal(size=200), points].astype(np.float32), {"1, 2, 3": "SphereFlow"}),
        (turned, {"0, 3": "Give their angle", "1, 4": "Give their angle"}),
        (nearly, {}),
    ]
    for rows, expected in cases:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            flows.fit(0, NORMAL, rows, max_epochs=1, batch_size=64, verbose=0)
        messages = [str(each.message) for each in told if "squares" in str(each.message)]
        for message, (columns, remedy) in zip(messages, expected.items(), strict=True):
            assert message.startswith(text.format(columns)) and remedy in message


def line_of(function):
    return function.__code__.co_firstlineno


@pytest.mark.parametrize("name", FITS)
def test_a_fit_warns_at_the_line_that_called_it(name, monkeypatch):
    interrupting(monkeypatch, after=1)
    with pytest.warns(UserWarning) as told:
        FITS[name](ROUNDED)
    assert ["rounded to 0.1" in str(each.message) for each in told] == [True, False]
    assert "interrupted" in str(told[1].message)
    assert {(each.filename, each.lineno) for each in told} == {(__file__, line_of(FITS[name]))}


def test_other_functions_warn_at_the_line_that_called_them_too(tmp_path, monkeypatch):
    with pytest.warns(UserWarning, match="fit_to_density: (Pareto k|the model is too narrow)") as told:
        density()
    assert (told[0].filename, told[0].lineno) == (__file__, line_of(density) + 1)
    with enable_x64():
        flows.save(tmp_path / "wide.flows", NORMAL, NORMAL(0, 2, init_inputs=ROUNDED).params, 2)
    with pytest.warns(UserWarning, match="become float32") as told:
        flows.load(tmp_path / "wide.flows")
    assert told[0].filename == __file__
    real, times = os.replace, []

    def replace(a, b):
        times.append(1)
        if len(times) > 1:
            raise OSError(28, "No space left on device")
        real(a, b)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.warns(UserWarning, match="not saved") as told:
        flows.fit(0, NORMAL, ROUNDED + 0.01 * ROUNDED[::-1], checkpoint=tmp_path, checkpoint_every=1e-9, **QUICK)
    assert {each.filename for each in told} == {__file__}


def test_the_default_filter_hides_no_later_warning():
    """Python shows a text once for each line, but a second fit on that line is another fit."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(2):
            FITS["fit"](ROUNDED)
    assert len(told) == 2 and str(told[0].message) == str(told[1].message)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore", flows.training.DataWarning)
        FITS["fit"](ROUNDED)
    assert not told


def test_too_few_rows_to_hold_out_are_told(untrained):
    rows = np.random.default_rng(0).normal(size=(12, 2))
    with pytest.warns(
        flows.training.DataWarning, match=r"fit: 1 row is held out, too few to tell when to stop, or how good the model is"
    ):
        flows.fit(0, flows.Normal(), rows, folds=1, verbose=0)
    flows.fit(0, flows.Normal(), rows, folds=1, validation=rows[:2] + 0.1, verbose=0)


def test_draws_of_a_chain_are_told_apart_from_other_copies(untrained):
    rows = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.warns(
        flows.training.DataWarning, match=r"Each follows the row it repeats: of draws of a chain keep one of each"
    ):
        flows.fit(0, flows.Normal(), np.repeat(rows, 3, 0), verbose=0)
    with pytest.warns(flows.training.DataWarning, match=r"tests nothing. Drop them, or keep one of each"):
        flows.fit(0, flows.Normal(), np.tile(rows, (3, 1)), verbose=0)


STRETCHING = {
    "RealNVP": flows.RealNVP(),
    "of few layers": flows.RealNVP(2, plain=True),
    "MAF": flows.MAF(),
    "NICE": flows.NICE(),
    "Glow": flows.Glow(),
    "IAF": flows.IAF(),
    "inverse": flows.Invert(flows.IAF(2, plain=True)),
}
BENDING = {
    "NSF": (flows.Flow(flows.NSF()), (1,), None),
    "a spline behind layers": (flows.Flow(flows.Serial(flows.MAF(2), flows.NSF(1))), (1,), None),
    "the base": (flows.Flow(flows.MAF(), flows.GMM(num_components=2)), (1,), None),
    "no network": (flows.Flow(flows.ActNorm()), (1,), None),
    "two columns": (flows.Flow(flows.MAF()), (2,), None),
    "a context": (flows.Flow(flows.MAF()), (1,), (3,)),
    "no flow": (flows.Normal(), (1,), None),
}


@pytest.mark.parametrize("name", STRETCHING)
def test_a_flow_that_only_stretches_its_column_is_named(name):
    model = flows.Flow(STRETCHING[name], flows.Logistic())
    expected = r"fit: Flow\(.* only moves and stretches one column.* shape of Logistic\(\)\. Give .*NSF"
    with pytest.warns(UserWarning, match=expected):
        warn_of_one_column(ModelView(model, (1,), None), "fit")


@pytest.mark.parametrize("name", BENDING)
def test_a_flow_that_bends_its_column_is_not(name):
    warn_of_one_column(ModelView(*BENDING[name]), "fit")


def test_fits_name_a_flow_that_only_stretches_its_column(untrained, monkeypatch):
    flow = flows.Flow(flows.RealNVP(1, hidden=(4,)))
    with pytest.warns(UserWarning, match=r"^fit: Flow\(RealNVP\(num_layers=1, hidden=\(4,\)\)\) only moves and stretches"):
        flows.fit(0, flow, np.random.default_rng(0).normal(size=(60, 1)), folds=1, verbose=0)

    def begin(*_):
        raise flows.FlowsError("it begins")

    monkeypatch.setattr(variational, "begin", begin)
    told = pytest.warns(UserWarning, match=r"^fit_to_density: .* only moves and stretches")
    with told, pytest.raises(flows.FlowsError, match="begins"):
        flows.fit_to_density(0, flow, wide, 1, verbose=0)
