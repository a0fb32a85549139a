"""Draws with their density: those of sample, the density of log_pdf, in one pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import scale_closure, stirred

import flows
from flows.objectives import importance_weighted_bound, reverse_kl

NET = flows.conditioners.MaskedMLP(4)
INVERSE = flows.Flow(flows.Serial(flows.InverseAutoregressive(NET), flows.Reverse(), flows.InverseAutoregressive(NET)))
MODELS = {
    "base": flows.Normal(trainable=True, covariance="full"),
    "coupling": flows.Flow(flows.Coupling(flows.MLP(4))),
    "inverse autoregressive": INVERSE,
    "flow of a flow": flows.Flow(flows.ActNorm(), flows.Flow(flows.Coupling(flows.MLP(4)), flows.Laplace(trainable=True))),
    "loop": flows.Flow(flows.Repeat(flows.InverseAutoregressive(NET), 2)),
    "mixture": flows.Mixture(flows.Flow(flows.ActNorm()), flows.Normal(trainable=True)),
    "join": flows.Joint(flows.Flow(flows.ActNorm()), flows.Uniform(), sizes=(2, 1)),
    "chain rule": flows.ChainRule(flows.Flow(flows.ActNorm()), flows.Flow(flows.Coupling(flows.MLP(4))), sizes=(2, 1)),
    "conditional": flows.StandardizedContext(flows.Flow(flows.Coupling(flows.MLP(4)))),
    "closure": flows.Flow(scale_closure),
}


@pytest.mark.parametrize("name", MODELS)
def test_draws_are_those_of_sample_and_densities_those_of_log_pdf(name):
    given = {"context": jnp.asarray([1.0, -1.0])} if name == "conditional" else {}
    distribution = MODELS[name](0, 3, context_dim=2) if given else MODELS[name](0, 3)
    params = stirred(distribution.params, 0.2)
    x, log_p = flows.sample_with_log_pdf(1, params, distribution, 5, **given)
    np.testing.assert_allclose(x, distribution.sample(1, params, 5, **given), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_p, distribution.log_pdf(params, x, **given), rtol=1e-4, atol=1e-4)
    assert log_p.shape == (5,) and len(np.unique(log_p)) == 5


def loops(function, *arguments):
    text = str(jax.make_jaxpr(function)(*arguments))
    return text.count("while[") + text.count("scan[")


def test_an_inverse_autoregressive_flow_never_runs_its_slow_direction():
    distribution = INVERSE(0, 3)

    def target(x):
        return -0.5 * jnp.square(x).sum(1)

    for loss in (
        lambda params: reverse_kl(params, distribution, target, 0, 8),
        lambda params: importance_weighted_bound(params, distribution, target, 0, 8, 2),
    ):
        assert loops(jax.value_and_grad(loss), distribution.params) == 0
    assert loops(lambda params: distribution.log_pdf(params, jnp.zeros((8, 3))), distribution.params) > 0


def test_other_triples_are_sampled_and_then_evaluated():
    params, log_pdf, sample = flows.Flow(flows.ActNorm())(0, 2)
    own = (params, lambda params, x: 2 * log_pdf(params, x), sample)
    x, twice = flows.sample_with_log_pdf(0, params, own, 4)
    np.testing.assert_allclose(twice, 2 * log_pdf(params, x), rtol=1e-6)
    with pytest.raises(TypeError, match="sample_with_log_pdf: got a bijection's triple"):
        flows.sample_with_log_pdf(0, params, flows.ActNorm()(0, 2), 4)
    with pytest.raises(TypeError, match=r"num_samples is 2\.5; expected a whole number"):
        flows.sample_with_log_pdf(0, params, (params, log_pdf, sample), 2.5)
    with pytest.raises(TypeError, match="context was given"):
        flows.sample_with_log_pdf(0, params, (params, log_pdf, sample), 2, context=jnp.ones(2))
