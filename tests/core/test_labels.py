"""What a log-det is: exact, unbiased or a lower bound; rng is what makes it an estimate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close

import flows
from flows.core import BijectionInit, Composite, combinator

ROWS = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
QUICK = {"max_epochs": 1, "verbose": 0}


@flows.bijection(likelihood=lambda noise, bias, moves: "unbiased" if noise else "exact")
def Doubled(noise: float = 0.5, bias: float = 0.0, moves: float = 0.0):
    """y = 2 x + moves * a draw, with a log-det that rng moves by +-noise, and by a bias."""

    def init_fun(rng, shape):
        return {"log_scale": jnp.full(shape, jnp.log(2.0))}, direct_fun, inverse_fun

    def direct_fun(params, x, rng=None):
        log_det = params["log_scale"].sum()
        draw = jnp.zeros((), x.dtype) if rng is None else jax.random.rademacher(rng, (), x.dtype)
        moved = log_det + noise * draw + (0.0 if rng is None else bias)
        return x * jnp.exp(params["log_scale"]) + moves * draw, moved

    def inverse_fun(params, y):
        return y * jnp.exp(-params["log_scale"])

    return init_fun


estimated = flows.Flow(Doubled())


def shaken(rng, input_dim):
    """A plain closure whose points are moved by +-100 where they are drawn."""

    def direct_fun(params, x):
        return x, jnp.zeros(len(x))

    def inverse_fun(params, y, rng=None):
        moved = 0.0 if rng is None else 100 * jax.random.rademacher(rng, y.shape, y.dtype)
        return y + moved, jnp.zeros(len(y))

    return {}, direct_fun, inverse_fun


def test_a_label_follows_from_the_arguments():
    assert (Doubled().likelihood, Doubled(0.0).likelihood) == ("unbiased", "exact")
    assert Doubled().estimates and not Doubled(0.0).estimates
    both = flows.Flow(flows.Serial(flows.Dequantize(), flows.Repeat(Doubled(), 2)))
    assert both.likelihood == "lower bound" and both.estimates
    assert flows.Flow(flows.Dequantize()).estimates is False

    @combinator(BijectionInit, likelihood=lambda layer, bounds: "lower bound" if bounds else "exact")
    def Around(layer, bounds=False):
        return Composite(flows.Serial(layer).part, (layer,))

    assert [Around(*each).likelihood for each in ((Doubled(),), (Doubled(), True), (Doubled(0.0),))] == [
        "unbiased",
        "lower bound",
        "exact",
    ]

    @flows.bijection(likelihood=lambda: "fair")
    def Fair():
        return lambda rng, shape: ({}, None, None)

    with pytest.raises(flows.FlowsError, match="Fair: likelihood is 'fair'; expected one of"):
        Fair()
    misnamed = flows.bijection(likelihood=lambda other: "exact")(lambda by=1.0: lambda rng, shape: ({}, None, None))
    with pytest.raises(TypeError, match="likelihood is a function that cannot be called with arguments by"):
        misnamed()


def test_without_rng_a_density_is_exact_and_with_it_a_draw():
    params, log_pdf, _ = estimated(0, 2)
    exact = flows.Flow(Doubled(0.0))(0, 2).log_pdf(params, ROWS)
    close(log_pdf(params, ROWS), exact, 1e-6)
    drawn = log_pdf(params, ROWS, rng=1)
    close(np.abs(drawn - exact), np.full(len(ROWS), 0.5), 1e-5)
    assert len(np.unique(np.sign(drawn - exact))) == 2, "each row has a draw of its own"


def test_a_mixture_hands_estimates_no_rng():
    mixture = flows.Mixture(estimated, flows.Normal(trainable=True))
    copies = flows.Mixture(estimated, num_components=2)
    assert mixture.likelihood == copies.likelihood == flows.Flow(flows.ActNorm(), copies).likelihood == "exact"
    assert estimated.likelihood == "unbiased" and not copies.estimates
    for each in (mixture, copies):
        params, log_pdf, _ = each(0, 2)
        close(log_pdf(params, ROWS, rng=1), log_pdf(params, ROWS), 1e-6)
    bounded = flows.Mixture(flows.Flow(flows.Dequantize()), num_components=2)
    params, log_pdf, _ = bounded(0, 2)
    assert np.abs(log_pdf(params, ROWS, rng=1) - log_pdf(params, ROWS)).max() > 1e-3, "a bound keeps its noise"
    with pytest.raises(flows.FlowsError, match="Put Dequantize before the mixture"):
        flows.Mixture(flows.Flow(flows.Serial(flows.Dequantize(), Doubled())), num_components=2)


def test_ensembles_and_folds_of_estimates():
    result = flows.fit_ensemble(0, estimated, ROWS, members=2, **QUICK)
    close(result.log_pdf(result.params, ROWS, rng=1), result.log_pdf(result.params, ROWS), 1e-6)
    assert result.init_fun.likelihood == "exact" and "  likelihood" not in repr(result)
    assert "exact without rng, an unbiased estimate with rng" in repr(flows.fit(0, estimated, ROWS, folds=1, **QUICK))
    calls: list = []
    with pytest.raises(flows.FlowsError, match="Put Dequantize before the mixture"):
        flows.fit(0, estimated, np.round(8 * ROWS), dequantize=1.0, folds=2, callbacks=[calls.append], **QUICK)
    assert not calls, "refused before it trains"


def test_verify_tests_the_mean_over_keys():
    report = flows.verify(Doubled(), 2)
    assert report.passed and report.likelihood == "unbiased", report
    assert "a bijection, log_det: unbiased" in str(report)
    for wrong in (Doubled(bias=0.2), Doubled(0.0, bias=1e-3), Doubled(moves=0.1)):
        assert [each.name for each in flows.verify(wrong, 2).properties if not each.passed] == ["mean over rng"]
    assert "mean over rng" not in str(flows.verify(flows.ActNorm(), 2))


def test_labels_are_shown(tmp_path):
    found = flows.select(0, {"noisy": estimated, "plain": flows.Flow(flows.ActNorm())}, ROWS, validation=ROWS, **QUICK)
    assert "Log-likelihood of noisy: exact without rng, an unbiased estimate" in str(found)
    rounded = flows.fit(0, flows.Flow(flows.ActNorm()), np.round(4 * ROWS), dequantize=1.0, **QUICK)
    assert "a lower bound with rng; without, by one draw for all rows, or at the recorded value" in repr(rounded)
    assert "  likelihood" not in repr(flows.fit(0, flows.Flow(flows.ActNorm()), ROWS, **QUICK))
    rounded.save(tmp_path / "rounded")
    flows.save(tmp_path / "own", Doubled(), Doubled()(0, 2).params, 2)
    assert [flows.describe(tmp_path / name)["likelihood"] for name in ("rounded", "own")] == ["lower bound", "unbiased"]
    assert flows.load(tmp_path / "own", constructors=[Doubled]).params["log_scale"].shape == (2,)


@pytest.mark.parametrize(
    ("layer", "scale", "moved"),
    [(flows.Serial(shaken, Doubled()), 2, 200), (flows.Serial(flows.Repeat(Doubled(), 2), shaken), 4, 100)],
    ids=["layers", "a loop"],
)
def test_draws_have_the_noise_of_their_layers_beside_an_estimate(layer, scale, moved):
    """A layer that draws gets its key though another would make an estimate of it, and the density of draws is exact."""
    params, _, sample = triple = flows.Flow(layer)(0, 2)
    x = np.asarray(sample(1, params, 8))
    assert (np.abs(scale * x) > moved / 2).all()
    drawn, log_p = flows.sample_with_log_pdf(1, params, triple, 8)
    close(drawn, x, 0)
    noise = scale * x - moved * np.sign(x)
    close(log_p, -np.square(noise).sum(1) / 2 - np.log(2 * np.pi) + 2 * np.log(scale), 1e-3)


def test_rounded_draws_have_the_weight_of_their_path():
    params, log_pdf, _ = triple = flows.Flow(flows.Serial(flows.Dequantize(), flows.ActNorm()))(0, 2)
    drawn, log_p = flows.sample_with_log_pdf(1, params, triple, 8)
    density = flows.sample_with_log_pdf(1, {}, flows.Normal()(0, 2), 8)[1]
    assert not np.allclose(density, log_pdf(params, drawn), atol=1e-2) and log_p.shape == (8,)
    assert (drawn == np.round(drawn)).all()
    with pytest.raises(flows.FlowsError, match=r"rounds its draws .* Leave that layer out"):
        flows.fit_to_density(0, flows.Flow(flows.Dequantize()), lambda x: -(x**2).sum(1), 2)
