"""`fit_to_density` of a flow with layers that draw: it is trained and judged by the weights of the paths of its draws."""

import jax.numpy as jnp
import numpy as np
import pytest
from common import error_of

import flows


def log_density(x):
    """A banana of constant 2 pi, in two columns."""
    return -0.5 * jnp.square(x[:, 0]) - 0.5 * jnp.square(x[:, 1] - 0.5 * jnp.square(x[:, 0]))


NOISE = flows.Normal(conditioner=flows.MLP(4))
MODELS = {
    "Augment": flows.Serial(flows.Augment(1, NOISE), flows.RealNVP(2, hidden=(8,))),
    "Transition": flows.Serial(flows.RealNVP(2, hidden=(8,)), flows.Transition(flows.Normal())),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_bound_is_trained_and_judged_by_their_paths(name):
    result = flows.fit_to_density(0, flows.Flow(MODELS[name]), log_density, 2, max_epochs=2, verbose=0)
    log_z = result.diagnostics.log_normalizer
    assert abs(log_z.value - np.log(2 * np.pi)) < 4 * log_z.standard_error < 0.2
    assert result.diagnostics.modes == result.diagnostics.starts == 0 and result.diagnostics.pareto_k < 0.7
    assert "by paths of draws" in repr(result) and "a lower bound with rng" in repr(result)
    assert not result.init_fun.bijective


def test_what_has_no_gradient_or_scores_draws_again_is_refused():
    def call(layers, base=None, **options):
        model = flows.Flow(layers, flows.Normal() if base is None else base)
        return lambda: flows.fit_to_density(0, model, log_density, 2, max_epochs=1, verbose=0, **options)

    for estimator in ("path", "score", "sticking_the_landing"):
        assert f"estimator='{estimator}' scores each draw again" in error_of(call(MODELS["Augment"], estimator=estimator))
    assert "draws codes of categories, through which" in error_of(call(flows.Argmax(3)))
    assert "rounds its draws (Dequantize)" in error_of(call(flows.Dequantize()))
