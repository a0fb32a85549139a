"""`DeepSet`: order and padding change nothing, and a posterior of a set narrows as it grows."""

import jax
import numpy as np
import pytest
from common import close, error_of, stirred

import flows
from flows.conditioners import DeepSet


def sets(rng, rows, most=12):
    """Sets of normal numbers, padded, with their masks; the means behind them."""
    means, sizes = rng.normal(size=rows), rng.integers(1, most + 1, rows)
    there = np.arange(most)[None] < sizes[:, None]
    x = np.where(there, means[:, None] + rng.normal(size=(rows, most)), 0.0)
    return np.stack([x, there], -1).astype(np.float32), means[:, None].astype(np.float32), sizes


@pytest.mark.parametrize("mask", [False, True])
def test_order_and_padding_change_nothing(mask):
    rng = np.random.default_rng(0)
    params, apply_fun = DeepSet((8, 8), (8,), mask=mask)(0, (12, 2), 3)
    x, _, _ = sets(rng, 20)
    assert np.asarray(apply_fun(params, x)).std(0).min() > 0.05, "its features are not small at the start"
    params = stirred(params, by=0.3)
    y = apply_fun(params, x)
    close(apply_fun(params, x[:, rng.permutation(12)]), y, 1e-5)
    assert np.asarray(y).std(0).min() > 1e-3
    gradients = jax.tree.leaves(jax.grad(lambda params: apply_fun(params, x).sum())(params))
    assert all(np.isfinite(leaf).all() and (leaf != 0).any() for leaf in gradients)
    if mask:
        padding = np.zeros((20, 5, 2), np.float32)
        padding[:, :, 0] = 9.0
        wide = DeepSet((8, 8), (8,), mask=True)(0, (17, 2), 3)[1]
        close(wide(params, np.concatenate([x, padding], 1)), y, 1e-5)
        twice = np.concatenate([x, x], 1)
        assert np.abs(wide(params, twice) - y).max() > 1e-3, "a set of more elements says more"
        empty = np.zeros((1, 12, 2), np.float32)
        assert np.isfinite(apply_fun(params, empty)).all()


def test_a_posterior_narrows_as_its_set_grows():
    rng = np.random.default_rng(0)
    x, means, _ = sets(rng, 3000)
    net = DeepSet((16,), (16,), mask=True)
    model = flows.EmbeddedContext(flows.Flow(flows.MAF(1, hidden=(16,))), net, 4)
    result = flows.fit(0, model, means, context=x, max_epochs=150, folds=1, verbose=0)
    fixed = jax.tree.leaves_with_path(result.params)
    scale = [np.asarray(leaf) for path, leaf in fixed if "std" in jax.tree_util.keystr(path) and leaf.shape == (2,)]
    assert any(leaf[1] == 1 for leaf in scale), "the mask stays as it is"
    for size in (2, 10):
        one = np.zeros((12, 2), np.float32)
        one[:size] = 0.5, 1.0
        drawn = np.asarray(result.draw(1, 2000, context=one))
        exact = size / (size + 1) * 0.5, 1 / np.sqrt(size + 1)
        assert abs(drawn.mean() - exact[0]) < 0.15 and abs(drawn.std() / exact[1] - 1) < 0.35, (size, drawn.std(), exact)


REFUSED = {
    "vectors": (lambda: DeepSet()(0, 5, 2), "the inputs are 5; expected (elements, features)"),
    "mask alone": (lambda: DeepSet(mask=True)(0, (5, 1), 2), "the inputs are (5, 1)"),
    "nothing": (lambda: DeepSet(()), "hidden is empty"),
    "words": (lambda: DeepSet("64"), "DeepSet: hidden is '64'; expected the widths"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name):
    call, expected = REFUSED[name]
    assert expected in error_of(call)
