"""R-hat and effective draws of chains, against values of ArviZ 0.8."""

import numpy as np
import pytest
from common import error_of

from flows.diagnostics import effective_draws, rhat


def autoregressive(slopes, n=400, chains=4):
    x = np.random.default_rng(3).normal(size=(chains, n, len(slopes)))
    for t in range(1, n):
        x[:, t] += np.array(slopes) * x[:, t - 1]
    return x


def apart():
    x = autoregressive((0.9, 0.3, -0.5))
    x[2, :, 1] *= 2
    x[1, :, 2] += 0.3
    return x


@pytest.mark.parametrize(
    ("draws", "of_rhat", "effective"),
    [
        (apart(), [1.0507186810, 1.0632855201, 1.0063671082], [73.83005307, 869.59862275, 2986.94581652]),
        (apart()[:, :301], [1.0566639331, 1.0614600081, 1.0044898779], [46.96172419, 679.77217761, 2508.19689506]),
        (apart()[:1, :100], None, [12.23986803, 103.82774971, 200.0]),
    ],
    ids=["even", "odd", "one"],
)
def test_the_figures_are_those_of_arviz(draws, of_rhat, effective):
    np.testing.assert_allclose(effective_draws(draws), effective, rtol=1e-6)
    if of_rhat is not None:
        np.testing.assert_allclose(rhat(draws), of_rhat, rtol=1e-6)
    images = draws.reshape(*draws.shape[:2], 3, 1)
    np.testing.assert_array_equal(effective_draws(images)[:, 0], effective_draws(draws))


def test_what_are_no_chains_is_refused():
    assert "draws[None]" in error_of(lambda: rhat(np.zeros(9)))
    assert "4 draws" in error_of(lambda: effective_draws(np.zeros((2, 3))))
    holed = np.zeros((2, 9))
    holed[1, 4] = np.nan
    assert "draw 4 of chain 1" in error_of(lambda: rhat(holed))
    assert np.isnan(rhat(np.ones((2, 9)))) and np.isnan(effective_draws(np.ones((2, 9, 1)))).all()
