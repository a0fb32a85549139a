"""Where bases live, and what flows and mixtures make of it."""

from math import e, inf

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of

import flows
from flows import FixedAffine, Flow, Invert, Mixture, Serial, Support, Uniform
from flows.core import POSITIVE, Region, distribution_part


@flows.distribution(support=(0, inf))
def Exponential():
    def init_fun(rng, shape):
        return {}, log_pdf, lambda rng, params: jax.random.exponential(rng, shape)

    def log_pdf(params, x):
        return jnp.where(x < 0, -jnp.inf, -x).sum()

    return init_fun


def region_of(init_fun, event=2):
    """What `flows.support` and the part tell alike."""
    region = flows.support(init_fun, event).inputs
    part = distribution_part(init_fun, event if isinstance(event, tuple) else (event,), None).region
    assert all(np.array_equal(a, b) for a, b in zip(region, part or flows.support(flows.Normal(), event).inputs, strict=True))
    return region


LINE, UNIT, CORNERS = (-inf, inf), (0, 1), Uniform((0, 1), 2)
REGIONS = {
    Uniform(): UNIT,
    Uniform(-1, (0, 3)): (-1, [0, 3]),
    flows.datasets.Checkerboard(): (-2, 2),
    flows.Joint(Uniform(), flows.Normal()): ([0, -inf], [1, inf]),
    Exponential(): (0, inf),
    # A base is taken back through what is entrywise and has no params, and what moves entries that are alike.
    Flow(FixedAffine(scale=2, shift=1), Uniform()): (-0.5, 0),
    Flow(FixedAffine(scale=(-2, 4)), Uniform(1, 2)): ([-1, 0.25], [-0.5, 0.5]),
    Flow(flows.Power(-1), Uniform(2, 4)): (0.25, 0.5),
    Flow(flows.Power(-1), Uniform(-2, 4)): (0.25, inf),
    Flow(flows.Exp(), Uniform(1, e)): UNIT,
    Flow(flows.Exp(), Uniform(-2, e)): (-inf, 1),
    Flow(Invert(flows.Logit()), Uniform(0.2, 0.8)): (-np.log(4), np.log(4)),
    Flow(Serial(FixedAffine(10), flows.Reverse()), Flow(flows.Exp(), Uniform(1, e))): (0, 0.1),
    Flow(flows.Exp(), Exponential()): LINE,
    Flow(Invert(flows.Exp()), Exponential()): (1, inf),
    Flow(flows.Dequantize(0.5), Uniform(0, 2)): (-0.25, 2.25),
    Flow(flows.Dequantize(0.5, levels=3), Uniform(0, 9)): UNIT,
    # By features that a layer leaves as they are; through others it is not told.
    Flow(flows.Standardize(as_is=(0,)), Uniform()): ([0, -inf], [1, inf]),
    Flow(flows.Arcsinh((1,)), Uniform()): ([0, -inf], [1, inf]),
    Flow(Serial(flows.Logit(), flows.NSF(1, (4,))), Uniform(-3, 3)): UNIT,
    Flow(flows.ActNorm(), Uniform()): LINE,
    Flow(flows.Reverse(), CORNERS): LINE,  # its order is in params
    # No end is told where a map clips, and none of what the map does not reach.
    Flow(flows.Sigmoid(), Uniform()): LINE,
    Flow(flows.Sigmoid(), Uniform(1e-7, 0.5)): (-inf, 0),
    Flow(flows.Exp(), Uniform(-2, -1)): LINE,
    Mixture(Uniform(), Uniform(2, 3)): (0, 3),
    Mixture(Uniform(), num_components=3): UNIT,
    Mixture(Exponential(), Uniform(-1, 0), Uniform()): (-1, inf),
    Mixture(Exponential(), flows.Normal()): LINE,
    Mixture(Uniform(), Flow(flows.ActNorm())): LINE,
    Mixture(Flow(flows.ActNorm()), Uniform()): LINE,
    Flow(FixedAffine(2), Mixture(Uniform(), CORNERS)): UNIT,
}


@pytest.mark.parametrize("init_fun", REGIONS, ids=repr)
def test_a_box_is_told_and_taken_back(init_fun):
    for found, expected in zip(region_of(init_fun), REGIONS[init_fun], strict=True):
        close(found, np.broadcast_to(expected, (2,)), 1e-6)


def test_no_density_lies_outside_and_draws_lie_inside():
    ones = (Flow(flows.Power(-1), Uniform(2, 4)), Flow(flows.Sigmoid(), Uniform(1e-7, 0.5)), Mixture(Uniform(), Uniform(2, 3)))
    grid = np.linspace(-20, 5, 501)[:, None].repeat(2, 1)
    for init_fun in ones:
        low, high = region_of(init_fun)
        params, log_pdf, sample = init_fun(0, 2)
        dense = np.isfinite(log_pdf(params, grid))
        assert dense.any() and ((grid >= low - 1e-6) & (grid <= high + 1e-6))[dense].all()
        draws = np.asarray(sample(1, params, 200))
        assert ((draws >= low - 1e-6) & (draws <= high + 1e-6)).all()


def test_layouts_move_the_ends_and_chance_does_not():
    ends = np.arange(8.0).reshape(2, 2, 2)
    moved = region_of(Flow(flows.Checkerboard(), Uniform(ends, 9)), (2, 4, 1))
    assert moved.low[..., 0].tolist() == [[0, 1, 2, 3], [5, 4, 7, 6]] and (moved.high == 9).all()
    flipped = region_of(Flow(flows.RandomFlip(), Uniform(ends.reshape(2, 4, 1), 9)), (2, 4, 1))
    assert np.isinf(flipped.low).all() and np.isinf(flipped.high).all()


def test_a_support_is_an_interval_a_region_or_a_function():
    def base(support):
        @flows.distribution(support=support)
        def Base(low=1.0):
            def init_fun(rng, shape):
                return {}, lambda params, x: -jnp.square(x).sum(), lambda rng, params: jax.random.normal(rng, shape)

            return init_fun

        return Base

    tolds = (POSITIVE, Support(POSITIVE), [0, inf], lambda low: (low - 1, inf), lambda low: Support(lambda event: Region(0)))
    zeros = np.zeros(2)
    assert all(region_of(base(told)()) == Region(zeros, [inf, inf], zeros, zeros, zeros, zeros) for told in tolds)
    assert flows.support(base(flows.CIRCLE)(), 2).inputs.period.round(2).tolist() == [6.28] * 2
    for wrong in ("positive", (0, 1, 2), 3):
        for make in (lambda wrong=wrong: base(wrong), lambda wrong=wrong: base(lambda low: wrong)()):
            with pytest.raises(TypeError, match="expected a Support, a Region"):
                make()
    with pytest.raises(TypeError, match="expected a Support, such as"):
        flows.bijection(support=(0, inf))
    assert "expected low < high" in error_of(lambda: base((1, 0))()(0, 2))
    assert "does not fit the event" in error_of(lambda: base((0, (1, 2, 3)))()(0, 2))


def test_a_flow_on_a_base_of_the_users_is_fitted():
    x = np.random.default_rng(0).exponential(2.0, size=(300, 2))
    model = Flow(flows.Scale(), Exponential())
    result = flows.fit(0, model, x, standardize=False, folds=1, max_epochs=20, batch_size=50, learning_rate=0.05, verbose=0)
    close(result.log_prob(x).mean(), -np.log(x.mean(0)).sum() - 2, 0.05)
    assert np.isneginf(result.log_pdf(result.params, np.array([[-1.0, 1.0]]))).all()
    assert "live on a circle" in error_of(lambda: Mixture(flows.VonMises(), Exponential())(0, 1))
