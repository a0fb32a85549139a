"""Draws of a mixture: in blocks of one component, which cost about what those of its members do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import flows
from flows.diagnostics import enable_x64
from flows.distributions.draws import in_blocks, size_of_blocks

FLOAT = jax.ShapeDtypeStruct((2,), np.dtype(np.float32))


def told(seen):
    """A draw that tells its component and its row's context, and notes that it was made."""

    def draw(j, own, key, size, context):
        jax.debug.callback(lambda number: seen.append(int(number)), own["number"])
        noise = jax.random.uniform(key, (size,))
        return jnp.stack([own["number"] + 10 * context[:, 0], noise], 1)

    return draw


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("falls_to", [[1, 0, 2, 2, 1, 0, 2, 2, 2, 2, 2], [2] * 11, [0, 2] * 5 + [0]])
def test_every_row_is_drawn_by_its_component_and_no_more_blocks_than_these_need(copies, falls_to):
    seen, numbers, size = [], np.arange(3.0, dtype=np.float32), 4
    components = {"number": jnp.asarray(numbers)} if copies else tuple({"number": jnp.asarray(each)} for each in numbers)
    component, context = jnp.asarray(falls_to), jnp.arange(11.0)[:, None]
    drawn = in_blocks(told(seen), components, copies, jax.random.key(0), component, 3, size, FLOAT, context)
    np.testing.assert_array_equal(drawn[:, 0], np.array(falls_to) + 10 * np.arange(11))
    assert len(np.unique(drawn[:, 1])) == 11, "no two rows share a draw"
    jax.effects_barrier()
    assert sorted(seen) == [j for j in range(3) for _ in range(-(-falls_to.count(j) // size))]


def test_blocks_are_for_many_rows():
    assert [size_of_blocks(n, 3, (6,)) for n in (1, 200, 500)] == [None] * 3 and size_of_blocks(10_000, 1, (6,)) is None
    assert size_of_blocks(1_000, 2, (6,)) is not None
    for n, count in ((1_000, 3), (10_000, 3), (10_000, 5), (100_000, 40)):
        size = size_of_blocks(n, count, (6,))
        assert size % 16 == 0 and n + count * size / 2 < 1.4 * n
    assert size_of_blocks(100_000, 3, (256, 256, 3)) * 256 * 256 * 3 <= 2**18, "images fit memory"


BOXES = tuple(flows.Uniform(low, low + 1.0) for low in (0.0, 2.0, 4.0))


def test_draws_in_blocks_follow_the_mixture():
    params, _, sample = flows.Mixture(*BOXES, weights=(0.5, 0.3, 0.2))(0, 1)
    n = 3_000
    draws = np.asarray(sample(0, params, n))[:, 0]
    box = (draws // 2).astype(int)
    counts = np.bincount(box, minlength=3)
    assert stats.chisquare(counts, n * np.array([0.5, 0.3, 0.2])).pvalue > 1e-3
    assert stats.kstest(draws - 2 * box, "uniform").pvalue > 1e-3 and len(np.unique(draws)) > 0.99 * n
    assert abs(np.corrcoef(box[1:], box[:-1])[0, 1]) < 4 / n**0.5, "rows are not in the order of their components"
    np.testing.assert_array_equal(sample(0, params, n)[:, 0], draws)
    keys = jax.random.split(jax.random.key(1), 2)
    together = jax.jit(jax.vmap(lambda key: sample(key, params, n)))(keys)
    np.testing.assert_allclose(together, np.stack([sample(key, params, n) for key in keys]), rtol=1e-6)


@pytest.mark.parametrize("copies", [True, False])
def test_draws_in_blocks_have_gradients(copies):
    one, n = flows.Normal(trainable=True), 1_000
    init_fun = flows.Mixture(one, num_components=3) if copies else flows.Mixture(one, one, one)
    with enable_x64():
        params, _, sample = init_fun(0, 1)
        assert sample(0, params, n).dtype == np.float64

        def total(params):
            return sample(0, params, n).sum()

        slopes = jax.grad(total)(params)["components"]
        by_loc = slopes["loc"][:, 0] if copies else jnp.stack([each["loc"][0] for each in slopes])
        assert stats.chisquare(by_loc).pvalue > 1e-3 and by_loc.sum() == pytest.approx(n), "how many rows fell to each"


def test_a_context_goes_with_its_row():
    one = flows.Normal(conditioner=flows.MLP(8))
    params, _, sample = flows.Mixture(one, flows.Flow(flows.FixedAffine(shift=0.5), one))(0, 1, context_dim=1)
    wide = jax.tree.map(lambda leaf: 3 * leaf, params)
    context = jnp.asarray(np.random.default_rng(0).normal(size=(1_000, 1)), jnp.float32)
    assert size_of_blocks(1_000, 2, (1,)) is not None
    plain, order = np.asarray(sample(0, wide, 1_000, context=context)), np.random.default_rng(1).permutation(1_000)
    moved = np.asarray(sample(0, wide, 1_000, context=context[order]))
    a = sample(0, wide, 1_000, context=jnp.full(1, 2.0))
    b = sample(0, wide, 1_000, context=jnp.full((1_000, 1), 2.0))
    np.testing.assert_array_equal(a, b)
    same = jnp.where(jnp.arange(1_000)[:, None] == 17, context, 2.0)
    np.testing.assert_allclose(sample(0, wide, 1_000, context=same)[17], plain[17], rtol=1e-5)
    assert not np.allclose(moved, plain)
