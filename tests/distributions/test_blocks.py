"""`ChainRule` and `Joint`: blocks of features of different kinds, one given the others or each by itself."""

import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of, stirred
from registry import gentle, network
from scipy import stats

import flows
from flows.core import Region, blocks_within, seen
from flows.core.support import num_seen
from flows.diagnostics import enable_x64

CONTEXT = np.array([0.5, -1.0])
NUMBER = flows.Normal(conditioner=network)
ANGLE = flows.VonMises(conditioner=network, period=24.0)
CODES = flows.Categorical(3, 2, hidden=(4,))


def chain(*blocks, sizes=None):
    return flows.ChainRule(*blocks, sizes=sizes)


class Case:
    """A model, what its columns are ("number", a period, or how many classes), and whether it is given a context."""

    def __init__(self, model, *columns, context=False):
        self.model, self.columns, self.context = model, columns, context

    @property
    def given(self):
        return {"context": CONTEXT} if self.context else {}

    @property
    def sides(self):
        """Of each column where its grid lies, and the width of a cell."""
        for column in self.columns:
            if column == "number":
                yield np.arange(-80, 81) * 0.15, 0.15
            elif isinstance(column, float):
                yield (np.arange(36) + 0.5) / 36 * column - column / 2, column / 36
            else:
                yield np.arange(float(column)), 1.0


mixed = chain(flows.Categorical(3), ANGLE, NUMBER)
CASES = {
    "numbers": Case(chain(flows.Normal(trainable=True), flows.Flow(gentle), sizes=(1, 2)), "number", "number", "number"),
    "angle, numbers": Case(chain(flows.VonMises(trainable=True, period=24.0), NUMBER, sizes=(1, 2)), 24.0, "number", "number"),
    "codes, number": Case(chain(CODES, NUMBER, sizes=(2, 1)), 3, 2, "number"),
    "codes, angle, number, given": Case(mixed, 3, 24.0, "number", context=True),
    "number, code": Case(chain(flows.Normal(trainable=True), flows.Categorical(3, hidden=())), "number", 3),
    "code, angle beside": Case(flows.Joint(flows.Categorical(3), flows.VonMises(trainable=True, period=24.0)), 3, 24.0),
    "chain of chains": Case(chain(flows.Categorical(2), chain(ANGLE, NUMBER), sizes=(1, 2)), 2, 24.0, "number"),
    "mixture": Case(flows.Mixture(chain(flows.Categorical(3), NUMBER), num_components=2), 3, "number"),
    "standardised": Case(
        flows.Flow(flows.Standardize(as_is=(0,)), chain(flows.Categorical(3), flows.Flow(gentle), sizes=(1, 2))),
        *(3, "number", "number"),
    ),
}


@functools.cache
def of_case(name):
    """What the tests below compare, from one compiled call."""
    case, made = CASES[name], []
    sides, widths = zip(*case.sides, strict=True)
    grid = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, len(sides))

    @jax.jit
    def program(key, grid, given):
        made[:] = case.model(key, len(sides), context_dim=2 * case.context)
        params, log_pdf, sample = stirred(made[0], by=0.15), *made[1:]
        samples = sample(1, params, 2048, **given)
        few = samples[:7]
        gradient = jax.grad(lambda params: log_pdf(params, few, **given).sum())(params)
        return params, jnp.exp(log_pdf(params, grid, **given)), samples, gradient

    with enable_x64():
        params, values, samples, gradient = program(jax.random.key(0), grid, case.given)
    return SimpleNamespace(
        distribution=flows.Distribution(params, *made[1:]),
        sides=sides,
        masses=np.asarray(values).reshape(list(map(len, sides))) * np.prod(widths),
        samples=np.asarray(samples),
        gradient=gradient,
    )


@pytest.mark.parametrize("name", CASES)
def test_masses_and_densities_sum_to_one(name):
    assert of_case(name).masses.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_samples_follow_them_in_each_pair_of_columns(name):
    of, case = of_case(name), CASES[name]
    ends = [(-1.575, 1.575) if column == "number" else (-12, 12) for column in case.columns]  # between points of the grid
    edges = [
        np.arange(column + 1) - 0.5 if isinstance(column, int) else np.linspace(*pair, 4)
        for column, pair in zip(case.columns, ends, strict=True)
    ]
    cells = [np.searchsorted(edge, side) for edge, side in zip(edges, of.sides, strict=True)]
    drawn = [np.searchsorted(edge, column) for edge, column in zip(edges, of.samples.T, strict=True)]
    for i, j in itertools.combinations(range(len(cells)), 2):
        pair = of.masses.sum(tuple(set(range(len(cells))) - {i, j}))
        expected, counts = (np.zeros((len(edges[i]) + 1, len(edges[j]) + 1)) for _ in range(2))
        np.add.at(expected, np.ix_(cells[i], cells[j]), 2048 * pair)
        np.add.at(counts, (drawn[i], drawn[j]), 1)
        often = expected > 5
        assert counts[~often].sum() < 60
        statistic = (np.square(counts - expected)[often] / expected[often]).sum()
        assert stats.chi2.sf(statistic, often.sum() - 1) > 1e-3, (i, j)


@pytest.mark.parametrize("name", CASES)
def test_every_trained_leaf_has_a_finite_gradient_that_is_not_zero(name):
    of = of_case(name)
    for leaf, train in zip(jax.tree.leaves(of.gradient), jax.tree.leaves(flows.trainable(of.distribution.params)), strict=True):
        assert np.isfinite(leaf).all() and (np.asarray(leaf) != 0).any() == train


@pytest.mark.parametrize("name", CASES)
def test_draws_with_their_density_and_a_file(name, tmp_path):
    case, (params, log_pdf, sample) = CASES[name], of_case(name).distribution
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    distribution = case.model(0, len(case.columns), context_dim=2 * case.context)
    x, log_p = flows.sample_with_log_pdf(1, params, distribution, 5, **case.given)
    close(x, sample(1, params, 5, **case.given), 1e-5)
    close(log_p, log_pdf(params, x, **case.given), 1e-4)
    flows.save(tmp_path / "model.flows", case.model, params, len(case.columns), 2 * case.context)
    loaded = flows.load(tmp_path / "model.flows")
    close(loaded.log_pdf(loaded.params, x, **case.given), log_p, 1e-5)


def test_a_block_is_given_what_comes_before_it_and_the_context():
    """The density is the sum of those of its blocks, each called by itself with the context that the docstring tells."""
    blocks = flows.Categorical(3, 2), flows.VonMises(conditioner=network, period=24.0), flows.Flow(gentle)
    x = np.array([[2, 0, 7.0, 0.5, -0.5], [0, 1, -7.0, 1.5, 0.5]], np.float32)
    params, log_pdf, _ = chain(*blocks, sizes=(2, 1, 2))(0, 5, context_dim=2)
    params = stirred(params, 0.3)
    codes = [[0, 0, 1, 1, 0], [1, 0, 0, 0, 1]]
    turned = 2 * np.pi * x[:, 2:3] / 24
    context = np.tile(CONTEXT, (2, 1))
    of_numbers = np.concatenate([codes, np.cos(turned), np.sin(turned), context], 1)
    given = context, np.concatenate([codes, context], 1), of_numbers
    each = [
        block(0, size, context_dim=seen.shape[1]).log_pdf(own, x[:, a : a + size], context=seen)
        for block, size, a, seen, own in zip(blocks, (2, 1, 2), (0, 2, 3), given, params, strict=True)
    ]
    close(log_pdf(params, x, context=CONTEXT), sum(each), 1e-5)
    walked = blocks_within(chain(*blocks, sizes=(2, 1, 2)), (5,), (2,))
    close(walked[2].context(jnp.asarray(x), jnp.asarray(context)), of_numbers, 1e-5)
    close(walked[1].context(x.astype(float), context, np), given[1], 1e-12)
    assert [block.features for block in walked] == [(0, 2), (2, 3), (3, 5)]
    beside = blocks_within(flows.Joint(*blocks[:2], flows.Normal(), sizes=(2, 1, 2)), (5,), (2,))
    assert [block.context(x, context) is context for block in beside] == [True] * 3


def test_what_networks_see():
    region = Region(
        *(np.array(each) for each in ([0.0, -1, 0, -1], [0.0, 1, 2, 1], [24.0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 3, 0]))
    )
    x = np.array([[6.0, 0.6, 2.0, 0.8], [30.0, 0.6, np.nan, 0.8]])
    assert num_seen(region) == 7
    close(seen(region, x, np), [[0.6, 0.8, 0, 1, 0, 0, 1], [0.6, 0.8, 0, 1, 0, 0, 0]], 1e-12)
    close(seen(region, jnp.asarray(x, jnp.float32)), seen(region, x, np), 1e-6)


def test_each_block_starts_at_its_own_data_given_those_before():
    rng = np.random.default_rng(0)
    codes, noise, context = rng.integers(0, 3, 400), rng.normal(size=(400, 2)), rng.normal(size=(400, 1))
    first = 2 * codes + noise[:, 0]
    x = np.stack([codes, first, 3 * first + context[:, 0] + noise[:, 1]], 1)
    regression = flows.Normal(trainable=True, regression=True)
    model = chain(flows.Categorical(3, hidden=()), regression, flows.StandardizedContext(regression))
    data = {"init_inputs": x, "init_context": context}
    params = model(0, 3, context_dim=1, **data).params
    slope = params[1]["slope"][:, 0]
    close(slope[1] - slope[0], 2, 0.15)
    close(slope[2] - slope[0], 4, 0.15)
    fixed = params[2]["fixed"]
    close(fixed["mean"][:3], [0, 0, 0], 1e-6)  # codes stay as they are
    close([fixed["mean"][3], fixed["std"][3]], [first.mean(), first.std()], 1e-4)
    assert params[2]["distribution"]["slope"][3, 0] / fixed["std"][3] == pytest.approx(3, abs=0.1)
    again = model(0, 3, context_dim=1, init_inputs=x + np.array([0, 1, 0]), init_context=context, params=params).params
    close(again[2]["fixed"]["mean"][3], first.mean() + 1, 1e-4)
    close(again[1]["slope"], params[1]["slope"], 0)
    behind = flows.Flow(flows.FixedAffine(scale=(1.0, 0.5, 1.0)), chain(regression, regression, regression))
    base = flows.Flow(flows.FixedAffine(scale=2.0), flows.StandardizedContext(flows.Normal(conditioner=network)))
    assert "init_inputs" in chain(flows.Normal(), base).part((2,), None).keywords
    with pytest.raises(TypeError, match="init_context"):
        behind(0, 3, init_context=context)


def test_rows_that_cannot_be_and_rows_that_are_not_known():
    """No density where a block before has none, whatever networks make of that; NaN stays NaN."""
    params, log_pdf, _ = chain(flows.Uniform(), flows.Categorical(3), NUMBER)(0, 3)
    x = [[0.5, 1, 0], [0.5, 3, 0], [0.5, 0.5, 0], [np.inf, 1, 0], [0.5, np.nan, 0], [np.nan, 1, 0], [0.5, 3, np.nan]]
    log_p = np.asarray(log_pdf(params, np.array(x)))
    assert np.isfinite(log_p[0]) and np.isneginf(log_p[1:4]).all() and np.isnan(log_p[4:]).all()


def test_it_is_as_exact_as_its_blocks():
    noisy = flows.Flow(flows.Dequantize(1.0))
    assert chain(noisy, NUMBER).likelihood == flows.Joint(NUMBER, noisy).likelihood == "lower bound"
    assert chain(flows.Normal(), NUMBER).likelihood == "exact"
    residual = flows.Flow(flows.ResidualBlock(flows.conditioners.Lipschitz(4), "unbiased"))
    assert chain(flows.Normal(), residual).likelihood == "unbiased"
    noise = flows.Flow(flows.Dequantize(1.0), flows.Normal(conditioner=network))
    params, log_pdf, _ = chain(noise, noise)(0, 2, context_dim=2)
    x, given = np.array([[0.0, 1.0]]), {"context": CONTEXT}
    values = [float(log_pdf(params, x, rng=key, **given)[0]) for key in (0, 0, 1)]
    assert values[0] == values[1] != values[2] and values[0] != float(log_pdf(params, x, **given)[0])


def test_it_lives_where_its_blocks_do():
    model = chain(flows.Categorical(3, 5), flows.VonMisesFisher(conditioner=network), ANGLE, NUMBER, sizes=(2, 3, 1, 1))
    region = flows.support(model, 7).inputs
    assert region.classes.tolist() == [3, 5, 0, 0, 0, 0, 0] and region.period.tolist() == [0] * 5 + [24, 0]
    assert region.sphere.tolist() == [0, 0, 1, 1, 1, 0, 0]
    message = error_of(lambda: flows.Flow(flows.Coupling(flows.MLP(4)), model)(0, 7))
    assert "base" in message or "codes" in message


def test_what_it_refuses():
    with pytest.raises(TypeError, match=r"Normal\(\) takes no context, so distribution 1 cannot depend .* with Joint"):
        chain(flows.Normal(), flows.Normal())(0, 2)
    with pytest.raises(TypeError, match="no distributions were given"):
        flows.ChainRule()
    with pytest.raises(TypeError, match="expected a distribution"):
        chain(flows.Normal(), flows.Reverse())
    with pytest.raises(TypeError, match="no layer of it takes a context"):
        chain(flows.Normal())(0, 1, context_dim=2)
    assert "add up to 2" in error_of(lambda: chain(flows.Normal(), NUMBER)(0, 3))
    assert "one size for each" in error_of(lambda: chain(flows.Normal(), NUMBER, sizes=(1, 2, 3)))
    assert "to context_dim=4" in error_of(lambda: chain(flows.Normal(), NUMBER)(0, 2, context_dim=(2, 2)))
    assert "not a tuple of 2, one for each distribution" in error_of(lambda: chain(flows.Normal(), NUMBER)(0, 2, params=()))
    alone = chain(flows.Normal(conditioner=flows.MLP(4)))(0, 1, context_dim=2)
    assert np.isfinite(alone.log_pdf(alone.params, np.zeros((1, 1)), context=CONTEXT)).all()
