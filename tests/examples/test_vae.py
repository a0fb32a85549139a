"""The variational autoencoder of the examples, tiny, with each of its posteriors."""

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import flows

FOLDER = Path(__file__).parents[2] / "examples"
EPOCHS = 6
PICTURES = "vae.png", "vae_losses.png", "vae_bounds.png"


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("vae")
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def digits(example):
    greys, _, test = example.read_digits()
    return greys[:400], test[:20]


def test_the_digits_are_split_once_and_for_all(example):
    (greys, test_greys, test), again = example.read_digits(), example.read_digits()
    assert greys.shape == (1400, 64) and test_greys.shape == test.shape == (397, 64)
    assert 0 == greys.min() < greys.max() == 1 and set(np.unique(test)) == {0, 1}
    assert not test[test_greys == 0].any() and test[test_greys == 1].all()
    np.testing.assert_allclose(test.mean(), test_greys.mean(), atol=0.01)
    np.testing.assert_array_equal(test, again[2])


slow = [pytest.param(name, marks=pytest.mark.slow) for name in ("diagonal", "planar", "sylvester", "maf", "nsf")]


@pytest.mark.parametrize("name", ["iaf", *slow])
def test_a_posterior_trains_and_knows_its_density(example, digits, relaxed, name):
    (greys, test), vae = digits, example.make_vae(example.POSTERIORS[name])
    params, (train_loss, test_loss) = example.train(vae, vae.init(jax.random.key(0)), jax.random.key(0), greys, test, EPOCHS)
    assert np.isfinite(train_loss).all() and np.isfinite(test_loss).all()
    assert train_loss[-1] < train_loss[0] - 5 and test_loss[-1] < test_loss[0]

    elbo, importance_weighted = example.bounds(vae, params, jax.random.key(1), test, 10)
    assert np.isfinite(elbo).all() and elbo.shape == importance_weighted.shape == (20,)
    assert (elbo <= importance_weighted).all() and (importance_weighted < 0).all()

    latents, log_q = vae.draw(params, jax.random.key(2), test)
    context = example.ENCODER(0, example.PIXELS, example.CONTEXT)[1](params["encoder"], test)
    log_pdf = flows.Flow(example.POSTERIORS[name])(0, example.LATENT, context_dim=example.CONTEXT).log_pdf
    expected = log_pdf(params["posterior"], latents, context=context)
    np.testing.assert_allclose(log_q, expected, atol=1e-3)


def test_the_program_prints_its_table_and_draws(example, relaxed, tmp_path, monkeypatch, capsys):
    options = ["--posterior", "diagonal", "--seeds", "3", "--epochs", "1", "--draws", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["vae.py", *options])
    example.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("diagonal")]
    assert [row[:2] for row in rows] == [["diagonal", "3"], ["diagonal", "mean"]] and float(rows[0][2]) <= float(rows[0][3]) < 0
    assert {path.name: path.stat().st_size > 10_000 for path in tmp_path.iterdir()} == dict.fromkeys(PICTURES, True)
