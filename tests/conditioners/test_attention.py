"""Attention, and the gated convolutions of Flow++: by hand, by their parts, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, stirred

from flows.conditioners import GatedConv, attend
from flows.conditioners.attention import concat_elu

RNG = np.random.default_rng(0)
Q, K, V = (RNG.normal(size=size) for size in ((2, 3, 4), (2, 5, 4), (2, 5, 6)))
X = RNG.normal(size=(3, 2, 4, 3)).astype(np.float32)


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_attention_is_a_mean_of_values():
    close(attend(*map(jnp.asarray, (Q, K, V))), softmax(Q @ K.swapaxes(1, 2) / 2) @ V, 1e-5)
    far = attend(jnp.asarray(1e4 * Q), jnp.asarray(K), jnp.asarray(V))  # without overflow
    close(far, np.take_along_axis(V, (Q @ K.swapaxes(1, 2)).argmax(-1)[..., None], 1), 1e-5)


def test_a_mask_says_which_keys_a_query_sees():
    mask = RNG.random((3, 5)) < 0.5
    mask[0], mask[1] = False, True
    y = attend(*map(jnp.asarray, (Q, K, V, mask)))
    logits = np.where(mask, Q @ K.swapaxes(1, 2) / 2, -1e30)
    close(y[:, 1:], (softmax(logits) @ V)[:, 1:], 1e-5)
    assert not np.asarray(y[:, 0]).any()
    grads = jax.grad(lambda q: attend(q, jnp.asarray(K), jnp.asarray(V), jnp.asarray(mask)).sum())(jnp.asarray(Q))
    assert np.isfinite(grads).all()


def conv(layer, x):
    """By its definition, in NumPy."""
    w, b = (np.asarray(layer[name], float) for name in ("w", "b"))
    k = w.shape[0]
    padded = np.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2, (0, 0)))
    h, width = x.shape[1:3]
    return sum(padded[:, i : i + h, j : j + width] @ w[i, j] for i in range(k) for j in range(k)) + b


def by_hand(params, x, context, heads):
    def gated(h, pair):
        value, gate = np.split(pair, 2, -1)
        return h + value / (1 + np.exp(-gate))

    def normed(h, i, norms):
        h = (h - h.mean(-1, keepdims=True)) / h.std(-1, keepdims=True)
        return h * np.asarray(norms["gain"][i]) + np.asarray(norms["shift"][i])

    def elus(h):
        both = np.concatenate([h, -h], -1)
        return np.where(both > 0, both, np.expm1(both))

    h = conv(params["first"], x)
    rows, height, width, f = h.shape
    for i in range(params["blocks"]["norms"]["gain"].shape[0]):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"])
        a = elus(conv(block["conv"], elus(h)) + conv(block["context"], elus(context)))
        h = normed(gated(h, conv(block["gate"], a)), 0, block["norms"])
        qkv = conv(block["attention"], h + np.asarray(params["positions"])).reshape(rows, height * width, 3, heads, f // heads)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        a = softmax(q @ k.swapaxes(-1, -2) / (f // heads) ** 0.5) @ v
        a = a.transpose(0, 2, 1, 3).reshape(h.shape)
        h = normed(gated(h, conv(block["mixed"], a)), 1, block["norms"])
    return conv(params["last"], h)


@pytest.mark.parametrize("context", (X[..., :2] + 1, X[:, 0, 0, :2]))
def test_gated_convolutions_are_their_formula(context):
    params, apply_fun = GatedConv(6, blocks=2, heads=3)(0, (2, 4, 3), (2, 4, 5), context_dim=context.shape[1:])
    params = stirred(params, 0.3)
    seen = context if context.ndim == 4 else np.broadcast_to(context[:, None, None], (3, 2, 4, 2))
    close(apply_fun(params, X, context=context), by_hand(params, X, seen, 3), 1e-4)
    assert params["blocks"]["conv"]["w"].shape == (2, 3, 3, 12, 6)


def test_dropout_is_for_training_and_blocks_are_a_loop():
    params, apply_fun = GatedConv(8, blocks=3, heads=2, dropout=0.5)(0, (2, 4, 3), (2, 4, 5))
    params = stirred(params, 0.3)
    x = jnp.asarray(X, jnp.float32)
    a, b = (apply_fun(params, x, rng=jax.random.key(key), train=True) for key in (0, 1))
    assert float(abs(a - b).max()) > 1e-2
    np.testing.assert_array_equal(apply_fun(params, x), apply_fun(params, x, train=False))
    lengths = []
    for blocks in (2, 10):
        params, apply_fun = GatedConv(4, blocks, 2)(0, (2, 4, 3), (2, 4, 5))
        lengths.append(str(jax.make_jaxpr(apply_fun)(params, x)).count("\n"))
    assert lengths[0] == lengths[1]
    assert concat_elu(x).shape == (3, 2, 4, 6)
    for at in (-1e-3, 0.0, 1e-3):
        slopes = jax.jacobian(concat_elu)(jnp.full(1, at)).ravel()
        close(slopes, [min(np.exp(at), 1.0), -min(np.exp(-at), 1.0)], 1e-6)


BAD = (
    (lambda: attend(jnp.zeros((3, 4)), jnp.zeros((2, 5)), jnp.zeros((2, 1))), "attend: q is (3, 4), k (2, 5)"),
    (lambda: attend(jnp.zeros((3, 4)), jnp.zeros((2, 4)), jnp.zeros((3, 1))), "and v (3, 1); expected"),
    (lambda: attend(*[jnp.zeros((3, 4))] * 3, mask=jnp.ones((2, 3))), "attend: mask is (2, 3)"),
    (lambda: GatedConv(10, heads=4), "heads is 4, which does not divide the width, 10"),
    (lambda: GatedConv(4, blocks=0), "blocks is 0"),
    (lambda: GatedConv(4, dropout=1.0), "dropout is 1.0"),
    (lambda: GatedConv(4)(0, 5, 4), "the inputs are vectors of 5, expected images"),
    (lambda: GatedConv(4)(0, (2, 4, 1), (2, 4, 1), context_dim=(3, 4, 1)), "GatedConv: context_dim is (3, 4, 1)"),
)


@pytest.mark.parametrize(("call", "expected"), BAD)
def test_bad_input_is_refused(call, expected):
    assert expected in error_of(call)
