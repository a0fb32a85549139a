"""Flow++: its published size, its log-det in float64, its noise, and what is refused."""

import jax
import numpy as np
import pytest
from common import close, error_of, stirred

import flows
from flows.models import preset

EVENT = (2, 4, 1)
SMALL = {"width": 4, "blocks": 1, "num_components": 2, "heads": 2}
NOISE = flows.FlowPlusPlusNoise(**SMALL, layers=2, channels=4)


def trained(init_fun, event, **keywords):
    shapes = jax.eval_shape(lambda: init_fun(0, event, **keywords).params)
    pairs = zip(jax.tree.leaves(shapes), jax.tree.leaves(flows.trainable(shapes)), strict=True)
    return sum(leaf.size for leaf, trains in pairs if trains)


def test_the_model_has_the_published_size():
    own = preset("flow++-cifar10")
    noise = flows.FlowPlusPlusNoise()
    assert trained(noise, own.input_dim, context_dim=own.input_dim) == 3_466_976
    assert trained(own.distribution, own.input_dim) == 31_443_440


def test_the_noise_has_the_density_of_its_draws_and_sees_the_image():
    params, log_pdf, sample = NOISE(0, EVENT, context_dim=EVENT)
    params = stirred(params, 0.1)
    images = np.random.default_rng(0).normal(size=(50, *EVENT)).astype(np.float32)
    u, log_q = flows.sample_with_log_pdf(1, params, (params, log_pdf, sample), 50, context=images)
    assert float(u.min()) > 0 and float(u.max()) < 1
    close(log_pdf(params, u, context=images), log_q, 2e-3)
    moved = log_pdf(params, u, context=images + 1)
    assert float(abs(moved - log_q).max()) > 1e-3
    region = flows.support(NOISE, EVENT, context_dim=EVENT).inputs
    assert (region.low == 0).all() and (region.high == 1).all()


@pytest.mark.filterwarnings("ignore")
def test_it_is_fitted_with_its_noise():
    model = flows.FlowPlusPlus(**SMALL, layers=(1, 1, 1), dropout=0.2)
    pixels = flows.Dequantize(1.0, 4, NOISE), flows.FixedAffine(0.24, 0.14), flows.Logit(False)
    images = np.random.default_rng(1).integers(0, 4, size=(40, *EVENT))
    flow = flows.Flow(flows.Serial(*pixels, model))
    result = flows.fit(0, flow, images, standardize=False, folds=1, max_epochs=1, batch_size=20, verbose=0)
    one, several = (flows.bits_per_dim(result, images, samples=samples).mean for samples in (1, 16))
    assert several < one and np.isin(result.draw(0, 3), [0, 1, 2, 3]).all()


BAD = (
    (lambda: flows.FlowPlusPlus(layers=(4, 2)), "layers is (4, 2); expected three numbers"),
    (lambda: flows.FlowPlusPlus(10), "heads is 4, which does not divide the width, 10"),
    (lambda: flows.FlowPlusPlus()(0, (4, 6, 3)), "expected an image (H, W, C) with an even W"),
    (lambda: flows.FlowPlusPlus()(0, (4, 5, 3)), "expected an image (H, W, C) with an even W"),
    (lambda: NOISE(0, (4, 5, 3), context_dim=(4, 5, 3)), "FlowPlusPlusNoise: the event is (4, 5, 3)"),
    (lambda: NOISE(0, EVENT, context_dim=3), "FlowPlusPlusNoise: context_dim is (3,); expected an image"),
)


@pytest.mark.parametrize(("call", "expected"), BAD)
def test_bad_input_is_refused(call, expected):
    assert expected in error_of(call)
