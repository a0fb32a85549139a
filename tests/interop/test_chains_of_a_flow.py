"""`interop.blackjax.sample`: chains draw from the density itself, whatever the flow, and say whether they mix."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of
from scipy import stats

import flows
from flows.interop.blackjax import Chains, sample
from flows.interop.walk import Walk

SHARES = np.array([0.1, 0.2, 0.3, 0.4])
CENTRES = np.array([[-5.0, -5.0], [-5.0, 5.0], [5.0, -5.0], [5.0, 5.0]], np.float32)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def result_of(model, event, params=lambda params: params, **keywords):
    """The result of a model that was not fitted."""
    import io

    triple, file = model(0, event, **keywords), io.BytesIO()
    flows.save(file, model, params(triple.params), event, **keywords)
    file.seek(0)
    return flows.load(file)


def wells(x):
    apart = jnp.square(x[:, None] - jnp.asarray(CENTRES)[None]).sum(2)
    return jax.nn.logsumexp(jnp.log(jnp.asarray(SHARES))[None] - 0.5 * apart, 1) - math.log(2 * math.pi) + 3.0


def flow_of_wells(layers=()):
    """A flow that gives each well a quarter of its draws."""
    base = flows.GMM(num_components=4, trainable=True)

    def moved(params):
        numbers = {"mean": CENTRES, "tril": np.zeros((4, 2, 2), np.float32), "logits": np.zeros(4, np.float32)}
        return {**params, "prior": numbers}

    return result_of(flows.Flow(flows.Serial(flows.ActNorm(), *layers), base), 2, moved)


def assert_shares(chains, which, shares, effective=None):
    """Shares of modes are within three standard errors."""
    for k, share in enumerate(shares):
        inside = (which(chains) == k).astype(float)
        n = float(flows.diagnostics.effective_draws(inside)) if effective is None else effective
        assert abs(inside.mean() - share) < 3 * math.sqrt(share * (1 - share) / n) + 1e-9, (k, inside.mean(), share, n)


def which_well(x):
    return np.square(x[..., None, :] - CENTRES).sum(-1).argmin(-1)


@cache
def of_wells():
    return sample(0, wells, flow_of_wells(), draws=800, rounds=0)


def test_each_well_has_its_share():
    found = of_wells()
    assert found.draws.shape == (16, 800, 2) and found.log_density.shape == (16, 800)
    assert_shares(found.draws, which_well, SHARES)
    np.testing.assert_allclose(found.log_density[:2, :5], [np.asarray(wells(x)) for x in found.draws[:2, :5]], atol=1e-3)
    assert (found.rhat < 1.01).all() and (found.effective > 2_000).all() and found.result is not None
    local, far = found.acceptance["local"], found.acceptance["global"]
    assert local.shape == (2,) and 0.4 < local[-1] < 0.75 and 0.4 < far[-1] < 0.95
    estimate = found.evidence()
    assert abs(estimate.value - 3.0) < 3 * estimate.standard_error and estimate.standard_error < 0.02
    assert "R-hat 1.0" in repr(found) and "log Z " in repr(found) and isinstance(found, Chains)
    x = found.draws.reshape(-1, 2)[which_well(found.draws).ravel() == 3] - CENTRES[3]
    assert stats.kstest(x[::20, 0], "norm").pvalue > 1e-3
    assert np.abs(x.var(0) - 1).max() < 0.12, "wide proposals are weighed as what they are"


def test_the_same_key_gives_the_same_bits():
    one, other = (sample(key, wells, flow_of_wells(), draws=100, rounds=0) for key in (0, jax.random.key(0)))
    np.testing.assert_array_equal(one.draws, other.draws)
    assert not np.array_equal(one.draws, sample(1, wells, flow_of_wells(), draws=100, rounds=0).draws)


def bent(x):
    """A normal bent by a map of volume 1, whose first number is N(0, 1); log Z = 1."""
    y = jnp.stack([x[:, 0], x[:, 1] + 0.5 * (jnp.square(x[:, 0]) - 1)], 1)
    return 1.0 - 0.5 * jnp.square(y).sum(1) - jnp.log(2 * jnp.pi)


def test_rounds_fit_the_flow_to_the_chains_with_one_program():
    model = flows.Flow(flows.Serial(flows.RealNVP(2, hidden=(8,)), flows.ActNorm()), flows.Normal())
    result, seen, counted = result_of(model, 2), [], []

    def density(x):
        counted.append(x.shape)
        return bent(x)

    def fit(rng, result, rows, weights):
        seen.append((rows.shape, int(weights.sum())))
        return flows.fit(rng, result, rows, weights=weights, max_epochs=15, verbose=0)

    found = sample(0, density, result, draws=400, rounds=2, fit=fit)
    calls = len(counted)
    assert len(seen) == 2 and all(shape[0] <= count == 1_600 for shape, count in seen)
    assert found.result is not result and found.acceptance["global"].shape == (4,)
    assert found.acceptance["global"][-1] > found.acceptance["global"][0] + 0.02, "the flow is nearer to the density"
    x = found.draws.reshape(-1, 2)
    np.testing.assert_allclose(found.log_density[:2, :9], [np.asarray(bent(rows)) for rows in found.draws[:2, :9]], atol=1e-3)
    n = found.effective[0]
    assert abs(x[:, 0].mean()) < 3 / math.sqrt(n) and abs(x[:, 0].var() - 1) < 4 * math.sqrt(2 / n)
    assert abs(found.evidence().value - 1.0) < 3 * found.evidence().standard_error
    sample(0, density, result, draws=800, rounds=2, fit=fit)
    assert len(counted) - calls <= calls, "more rounds or draws trace the density no more often"


def test_the_size_of_steps_is_frozen_before_the_draws():
    walk = Walk.of(wells, flow_of_wells(), 16)
    state = walk.begun(walk.fitted.params, walk.chosen_start(jax.random.key(0)))
    tuned, _ = walk.run(walk.fitted.params, jax.random.key(1), state, 1, tuned=True)
    frozen, _ = walk.run(walk.fitted.params, jax.random.key(1), state, 1, tuned=False)
    assert (frozen.log_size == state.log_size).all() and (tuned.log_size != state.log_size).all(), "in noise and in data"


def test_chains_reach_what_a_flow_cut_open():
    """Half of the mass lies between -100 and 0 in the noise of the flow, where moves in noise have steps of the size of 1."""
    cut = flows.Flow(flows.Invert(flows.LeakyReLU(0.03)), flows.Normal())
    found = sample(0, lambda x: -0.5 * jnp.square(x).sum(1), result_of(cut, 1), draws=1_000, rounds=0)
    x = found.draws[..., 0]
    assert_shares(x, lambda x: x < 0, [0.5, 0.5])
    assert found.effective > 400 and abs(x[x < 0].std() - math.sqrt(1 - 2 / math.pi)) < 0.05
    assert abs(found.evidence().value - 0.5 * math.log(2 * math.pi)) < 3 * found.evidence().standard_error < 0.2


def angles(x):
    return 3.0 * jnp.cos(x[:, 0] - 1.0) + jnp.cos(x[:, 1] - x[:, 0])


def test_angles_and_mixtures_move_in_the_units_of_the_data():
    found = sample(0, angles, result_of(flows.VonMises(trainable=True), 2), draws=500, rounds=0)
    assert (np.abs(found.draws) <= np.pi + 1e-6).all()
    around = np.exp(1j * (found.draws[..., 0] - 1.0)).mean()
    assert abs(around - 0.81) < 0.03, "I_1(3) / I_0(3)"
    found = sample(0, lambda x: -0.5 * jnp.square(x).sum(1) / 4, result_of(flows.CircularUniform(), 1), draws=600, rounds=0)
    cut = stats.truncnorm(-np.pi / 2, np.pi / 2, scale=2)  # of one turn, at whose ends the density is not periodic
    assert abs(found.draws.std() / cut.std() - 1) < 0.05
    assert abs(found.evidence().value - math.log(2 * math.sqrt(2 * np.pi) * (2 * stats.norm.cdf(np.pi / 2) - 1))) < 0.05
    mixture = flows.Mixture(flows.Flow(flows.ActNorm()), num_components=2)
    found = sample(0, bent, result_of(mixture, 2), draws=500, rounds=0)
    n = found.effective[0]
    assert abs(found.draws[..., 0].mean()) < 3.5 / math.sqrt(n) and abs(found.draws[..., 0].var() - 1) < 5 * math.sqrt(2 / n)


NAMES = {"mu": (), "scale": (2,)}


def named(point):
    """mu ~ N(1, 1), and scale exponential, at its bound most often."""
    return -0.5 * jnp.square(point["mu"] - 1) - point["scale"].sum(1)


def test_names_and_a_bound_at_the_mode():
    model = flows.Flow(flows.RealNVP(1, hidden=(4,)))
    quick = {"max_epochs": 2, "steps_per_epoch": 5, "num_held_out": 256, "num_weights": 500, "starts": 2, "verbose": 0}
    result = flows.fit_to_density(0, model, named, NAMES, support={"scale": (0, np.inf)}, **quick)
    found = sample(0, named, result, draws=600, rounds=0)
    assert (
        found.draws["scale"].shape == (16, 600, 2) and found.rhat["mu"].shape == () and found.effective["scale"].shape == (2,)
    )
    assert (found.draws["scale"] > 0).all()
    n = found.effective["scale"].min()
    assert np.abs(found.draws["scale"].mean((0, 1)) - 1).max() < 4 / math.sqrt(n)
    assert abs(found.evidence().value - 0.5 * math.log(2 * math.pi)) < 4 * found.evidence().standard_error
    start = {"mu": np.zeros(4), "scale": np.ones((4, 2))}
    assert sample(0, named, result, chains=4, draws=100, rounds=0, start=start).draws["mu"].shape == (4, 100)
    start["scale"][2, 1] = np.nan
    assert "chain 2 starts at" in error_of(lambda: sample(0, named, result, chains=4, start=start))


def test_a_density_that_is_not_a_number_in_places_has_no_mass_there():
    def cut(x):
        return jnp.where(x[:, 0] > 2.5, jnp.nan, -0.5 * jnp.square(x).sum(1))

    found = sample(0, cut, result_of(flows.Normal(trainable=True), 1), chains=4, draws=400, rounds=0)
    assert found.draws.max() <= 2.5 and "log Z 0." in repr(found)
    assert abs(found.evidence().value - 0.5 * math.log(2 * np.pi) - math.log(stats.norm.cdf(2.5))) < 0.05
    with pytest.raises(flows.FlowsError, match="fit returned int; expected a result of the model"):
        sample(0, cut, result_of(flows.Normal(trainable=True), 1), draws=100, rounds=1, fit=lambda *_, weights: 3)


def test_a_mode_that_nothing_reaches_is_missed_unless_a_chain_starts_there():
    narrow = result_of(flows.Normal(trainable=True), 2, lambda params: {**params, "loc": CENTRES[3]})
    missed = sample(0, wells, narrow, draws=300, rounds=0)
    assert (which_well(missed.draws) == 3).all()
    with pytest.warns(UserWarning, match="R-hat of number"):
        found = sample(0, wells, narrow, draws=300, rounds=0, start=np.repeat(CENTRES, 4, 0))
    assert set(np.unique(which_well(found.draws))) == {0, 1, 2, 3}


REFUSED = {
    "a lower bound": (lambda: result_of(flows.Flow(flows.Dequantize()), 2), wells, {}, "lower bound"),
    "codes": (lambda: result_of(flows.Categorical(3, hidden=(4,)), 1), wells, {}, "draws codes"),
    "unit vectors": (lambda: result_of(flows.SphereUniform(), 3), lambda x: x[:, 0], {}, "draws unit vectors"),
    "one point": (lambda: flow_of_wells(), lambda x: x.sum(), {}, "takes a single point"),
    "NaN": (lambda: flow_of_wells(), lambda x: x[:, 0] * jnp.nan, {}, "log_density is nan"),
    "a gradient of NaN": (lambda: flow_of_wells(), lambda x: jnp.sqrt(0 * x[:, 0]), {}, "are finite at 0 of"),
    "another start": (lambda: flow_of_wells(), wells, {"start": np.zeros((3, 2))}, "expected a point for each chain, (16, 2)"),
    "a start outside": (lambda: flow_of_wells(), lambda x: jnp.where(x[:, 0] > 0, -x[:, 0], -jnp.inf),
                        {"start": -np.ones((16, 2))}, "chain 0 starts at [-1. -1.], where log_density is -inf"),
    "three draws": (lambda: flow_of_wells(), wells, {"draws": 3}, "expected 4 or more"),
    "a context": (lambda: result_of(flows.Flow(flows.NSF(1, hidden=(4,))), 2, context_dim=1), wells, {}, "takes a context"),
    "no chains": (lambda: flow_of_wells(), wells, {"chains": 0}, "chains is 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_sampled_is_refused(name):
    make, density, settings, message = REFUSED[name]
    assert message in error_of(lambda: sample(0, density, make(), **settings))
