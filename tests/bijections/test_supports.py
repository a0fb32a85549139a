"""Where models live: the supports of compositions, `Unconstrain`, flows outside their support, and fits on bounded data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of
from scipy.stats import beta

import flows
from flows import FixedAffine, Flow, Invert, Logit, Serial, support
from flows.diagnostics import enable_x64
from flows.training import DataWarning, fit

INFINITY = float("inf")
DRAW = np.random.default_rng(0)
BETA = DRAW.beta(2, 2, size=(400, 2))
COUPLING = flows.Coupling(flows.MLP(8))
QUICK = {"max_epochs": 2, "batch_size": 64, "verbose": 0}


def ends(found):
    return [[end.tolist() for end in region] for region in (found.inputs, found.outputs)]


def test_supports_are_composed_entry_by_entry():
    line, unit, half = ([-INFINITY, INFINITY], [0.0, 1.0], [0.0, INFINITY])
    cases = {
        Logit(): (unit, line),
        flows.Tanh(): (line, [-1.0, 1.0]),
        Invert(flows.Exp()): (half, line),
        Invert(Invert(flows.Exp())): (line, half),
        flows.Power(2): (half, half),
        flows.RealNVP(2): (line, line),
        Serial(COUPLING, flows.Sigmoid(), Logit(), COUPLING): (line, line),
        Serial(FixedAffine(2.0, 1.0), Logit()): ([-0.5, 0.0], line),
        Serial(FixedAffine(-0.5), flows.Dequantize(1.0), Logit(), COUPLING): ([-2.0, 0.0], line),
        Invert(Serial(COUPLING, flows.Exp(), FixedAffine(3.0))): (half, line),
        Serial(flows.Exp(), FixedAffine(1.0, -1.0), Invert(flows.Exp())): (half, line),
        flows.Unconstrain(low=-3.0): ([-3.0, INFINITY], line),
        Flow(flows.Dequantize(), Flow(Serial(Logit(), COUPLING))): (unit, line),
        flows.StandardizedContext(Flow(Serial(Logit(), COUPLING))): (unit, line),
        flows.Normal(): (line, line),
        (lambda rng, input_dim: None): (line, line),
    }
    for init_fun, (inputs, outputs) in cases.items():
        of_two = [[[end] * 2 for end in region] for region in (inputs, outputs)]
        context = {"context_dim": 1} if "StandardizedContext" in repr(init_fun) else {}
        assert ends(support(init_fun, 2, **context)) == of_two, init_fun
    by_entry = Serial(FixedAffine((1.0, -0.1)), flows.Unconstrain(low=(0.0, -INFINITY), high=(1.0, 2.0)))
    assert ends(support(by_entry, 2)) == [[[0.0, -20.0], [1.0, INFINITY]], [[-INFINITY] * 2, [INFINITY] * 2]]
    assert support(Logit(), (2, 2, 3)).inputs.low.shape == (2, 2, 3)


def test_what_has_no_support_that_could_be_told():
    assert "the domain of Logit() is not known before Coupling" in error_of(lambda: support(Serial(COUPLING, Logit()), 2))
    for wrong, message in ((Logit, r"call it: Logit\(\.\.\.\)"), (flows.MLP(2), "expected a bijection"), (3, "is not a model")):
        with pytest.raises(TypeError, match=message):
            support(wrong, 2)
    x = np.array([[0.5, 0.5], [1.5, 0.5]])
    untold = Flow(Serial(flows.Scale(), Logit()))(0, 2)
    assert np.isfinite(untold.log_pdf(untold.params, x)).all(), "a clip, as ever"


# Unconstrain


def test_a_box_to_the_line_and_back():
    layer = flows.Unconstrain(low=(0.0, -1.0, -INFINITY, -INFINITY, 0.0), high=(INFINITY, 1.5, 0.0, INFINITY, 1e-3))
    with enable_x64():
        params, direct_fun, inverse_fun = layer(0, 5)
        x = np.array([[0.3, 1.2, -7.0, 4.0, 2e-4], [1e-9, -0.99, -1e-9, -1e9, 9.9e-4]])
        y, log_det = direct_fun(params, x)
        expected = [np.log(x[:, 0]), np.log((x[:, 1] + 1) / (1.5 - x[:, 1])), -np.log(-x[:, 2]), x[:, 3]]
        close(np.asarray(y)[:, :4].T, expected, 1e-12)
        close(inverse_fun(params, y)[0], x, 1e-12)
        jacobian = jax.vmap(jax.jacobian(lambda x: direct_fun(params, x[None])[0][0]))(x)
        close(log_det, np.linalg.slogdet(jacobian)[1], 1e-10)
        assert (np.abs(log_det) > 1).all()
    y, log_det = direct_fun(params, np.array([[0.0, 1.5, 0.0, 0.0, 1e-4], [-1.0, 2.0, 1.0, 0.0, 1e-4]], np.float32))
    assert np.asarray(y)[0, :3].tolist() == [-INFINITY, INFINITY, INFINITY] and np.isnan(np.asarray(y)[1, :3]).all()


@pytest.mark.parametrize("far", [-1e3, -50.0, 50.0, 1e3])
def test_what_comes_back_lies_inside_and_has_a_density(far):
    layer = flows.Unconstrain(low=(0.0, -1.0, -INFINITY, 5.0), high=(INFINITY, 0.0, 3.0, 6.0))
    params, direct_fun, inverse_fun = layer(0, 4)
    x, log_det = inverse_fun(params, np.full((1, 4), far, np.float32))
    low, high = (np.array(end) for end in layer.own_support.inputs)
    x = np.asarray(x)
    from_low, to_high = np.isfinite(low), np.isfinite(high)
    assert (x[:, from_low] > low[from_low]).all() and (x[:, to_high] < high[to_high]).all()
    again = direct_fun(params, x)
    if np.isfinite(x).all():
        assert np.isfinite(again[0]).all() and np.isfinite(again[1]).all()
    close(again[1], -log_det, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": 1.0, "high": 1.0}, "expected low < high, also in float32"),
        ({"low": 1.0, "high": 1.0 + 1e-12}, "also in float32"),
        ({"low": INFINITY}, "expected low < high"),
        ({"low": float("nan")}, "expected no NaN"),
        ({"low": "a"}, "expected numbers"),
        ({"low": (0.0, 1.0), "high": (1.0, 2.0, 3.0)}, "low has shape"),
        ({"low": (0.0, 1.0, 2.0)}, r"low has shape \(3,\); expected a number, or the shape \(2,\)"),
    ],
)
def test_ends_that_are_none(arguments, message):
    with pytest.raises(flows.FlowsError, match=message):
        flows.Unconstrain(**arguments)(0, 2)


# Flows


def test_a_flow_has_no_density_outside_its_support():
    model = Flow(Serial(Logit(), COUPLING))
    params, log_pdf, _ = model(0, 2)
    x = jnp.array([[0.5, 0.2], [0.0, 1.0], [-0.01, 0.5], [0.5, 1.01], [jnp.inf, 0.5], [jnp.nan, 2.0], [0.5, jnp.nan]])
    values = np.asarray(log_pdf(params, x))
    assert np.isfinite(values[:2]).all() and (values[2:5] == -INFINITY).all() and np.isnan(values[5:]).all()
    gradient = jax.grad(lambda params: log_pdf(params, x[:3])[:2].sum())(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    lognormal = Flow(Invert(flows.Exp()))
    values = lognormal(0, 1).log_pdf({"bijection": {}, "prior": {}}, jnp.array([[1.0], [0.0], [-1.0]]))
    close(values, [-0.5 * np.log(2 * np.pi), -INFINITY, -INFINITY], 1e-6)
    gradient = jax.grad(lambda x: lognormal(0, 1).log_pdf({"bijection": {}, "prior": {}}, x)[0])(jnp.array([[1.0], [-1.0]]))
    assert np.isfinite(gradient).all()


def test_a_bounded_density_integrates_to_one():
    result = fit(0, Flow(COUPLING), BETA[:, :1].repeat(2, 1) * [1, 4] + DRAW.random((400, 2)), support=(0, (2, 5)), **QUICK)
    grid = (np.arange(200) + 0.5) / 200
    points = np.stack(np.meshgrid(grid * 2.2 - 0.1, grid * 5.2 - 0.1, indexing="ij"), -1).reshape(-1, 2)
    mass = np.exp(np.asarray(result.log_pdf(result.params, points), float)).sum() * 2.2 * 5.2 / len(points)
    assert abs(mass - 1) < 0.01
    samples = np.asarray(result.sample(0, result.params, 2000))
    assert (samples > 0).all() and (samples < [2, 5]).all()


# Fits

BASED = Flow(flows.ActNorm(), flows.Normal(trainable=True, covariance="full"))  # as `fit` trains it


@pytest.mark.parametrize("how", ["its own layer", "support"])
def test_bounded_data_are_standardised_behind_their_support(how):
    own = Flow(Serial(Logit(), flows.ActNorm())) if how == "its own layer" else Flow(flows.ActNorm())
    result = fit(0, own, BETA, **{**QUICK, **({} if how == "its own layer" else {"support": (0, 1)})})
    first = Logit() if how == "its own layer" else flows.Unconstrain(0.0, 1.0)
    assert result.init_fun == Flow(Serial(first, flows.Standardize()), BASED)
    truth = beta(2, 2).logpdf(BETA).sum(1).mean()
    assert abs(np.asarray(result.log_pdf(result.params, BETA)).mean() - truth) < 0.05
    assert abs(result.history["gaussian_loss"] + truth) < 0.2 and abs(result.history["train_loss"][-1] + truth) < 0.2
    samples = np.asarray(result.sample(0, result.params, 2000))
    assert (samples > 0).all() and (samples < 1).all() and abs(samples.std() - BETA.std()) < 0.02


def test_bounds_of_rounded_values_are_half_a_step_away():
    counts = np.column_stack([DRAW.poisson(3, 400), DRAW.exponential(size=400)])
    result = fit(0, Flow(flows.ActNorm()), counts, support=(0, None), dequantize={0: 1.0}, **QUICK)
    before = result.init_fun.arguments["bijection"]
    box = flows.Unconstrain(low=(-0.5, 0.0))
    rounded = flows.Dequantize((1.0, 0.0))
    tails = flows.Arcsinh((0,))  # the logarithm of what is 0, and noise, has tails that are heavy or just not
    assert before in (Serial(rounded, box, flows.Standardize()), Serial(rounded, box, tails, flows.Standardize()))
    assert result.init_fun.likelihood == "lower bound"
    samples = np.asarray(result.sample(0, result.params, 2000))
    assert samples.min() >= 0 and (samples[:, 0] == np.round(samples[:, 0])).all()
    assert np.isfinite(result.log_pdf(result.params, counts, rng=1)).all()
    assert result.params["bijection"][-1]["fixed"]["std"].shape == (2,)
    constant = np.column_stack([np.full(400, 3.0), BETA[:, 0]])
    assert fit(0, Flow(flows.ActNorm()), constant, dequantize={0: 1.0}, **QUICK).history["train_loss"][-1] < 1


def test_noise_of_the_model_is_in_the_units_of_the_data():
    levels = np.round(40 * BETA)
    model = Flow(Serial(flows.Dequantize(1.0), flows.ActNorm()))
    result = fit(0, model, levels, **QUICK)
    assert result.init_fun == Flow(Serial(flows.Dequantize(1.0), flows.Standardize()), BASED)
    samples = np.asarray(result.sample(0, result.params, 500))
    assert (samples == np.round(samples)).all() and abs(samples.std() - levels.std()) < 1
    normed = fit(0, Flow(Serial(flows.Dequantize(1.0), flows.BatchNorm())), levels, **QUICK)
    fixed = normed.params["prior"]["bijection"]["fixed"]
    close(fixed["mean"], 0, 0.05)  # measured on whitened rows, not on those of the data
    close(fixed["var"], 1, 0.05)


def test_images_are_standardised_behind_noise_and_logits():
    pixels = DRAW.integers(0, 17, size=(60, 4, 4, 1)).astype(np.uint8)
    first = [flows.Dequantize(1.0), FixedAffine(1 / 17, 0.5 / 17), Logit()]
    result = fit(0, Flow(Serial(*first, flows.Squeeze(), flows.ActNorm())), pixels, **QUICK)
    assert result.init_fun == Flow(Serial(*first, flows.Standardize()), Flow(Serial(flows.Squeeze(), flows.ActNorm())))
    samples = np.asarray(result.sample(0, result.params, 100))
    assert samples.min() >= 0 and samples.max() <= 16 and samples.std() > 2


def test_a_support_reaches_ensembles_selections_and_densities():
    options = {**QUICK, "support": {0: (0, 1), 1: (None, 2)}}
    ensemble = flows.fit_ensemble(0, Flow(flows.ActNorm()), BETA, members=2, **options)
    box = flows.Unconstrain(low=(0.0, -INFINITY), high=(1.0, 2.0))
    assert ensemble.init_fun.arguments["bijection"] == Serial(box, flows.Standardize())
    assert ensemble.log_pdfs(ensemble.params, np.array([[0.5, 0.5], [1.5, 0.5]]))[:, 1].tolist() == [-INFINITY] * 2
    models = {"logit": Flow(Logit(), flows.Normal(True)), "line": flows.Normal(True)}
    selection = flows.select(0, models, BETA, **QUICK)
    assert [each.name for each in selection.candidates] == ["logit", "line"]
    few = {"max_epochs": 3, "num_samples": 64, "num_held_out": 200, "num_weights": 500, "verbose": 0}

    def lognormal(x):
        return (-0.5 * jnp.square(jnp.log(x)) - jnp.log(x)).sum(1)

    found = flows.fit_to_density(0, flows.Normal(True), lognormal, 1, support=(0, None), **few)
    assert found.init_fun == Flow(Serial(flows.Unconstrain(0.0), flows.Whiten()), flows.Normal(True))
    assert found.sample(0, found.params, 500).min() > 0 and found.diagnostics.effective_sample_size > 0.99


@pytest.mark.parametrize(
    ("model", "data", "options", "message"),
    [
        (
            Logit(),
            1 + BETA,
            {},
            r"column 0 of data is 1\.\d+ in row \d+, outside \(0, 1\), where the model is defined; \d+ rows are outside it",
        ),
        (flows.ActNorm(), BETA - 0.5, {"support": (0, 1)}, r"outside \(0, 1\)"),
        (flows.ActNorm(), np.where(BETA < 0.05, 0, BETA), {"support": (0, 1)}, r"is 0 in row \d+, at an end of \(0, 1\)"),
        (Serial(flows.Scale(), Logit()), BETA, {}, r"is not known before Scale\(\), .*standardised behind it\. Put it first"),
        (Serial(COUPLING, flows.Dequantize(0.1)), BETA, {}, "Dequantize.* comes after Coupling.*which trains, mixes or moves"),
        (flows.ActNorm(), BETA, {"support": (1, 0)}, "expected low < high"),
        (
            flows.ActNorm(),
            BETA,
            {"support": 3},
            r"support is 3; expected a pair \(low, high\) of numbers, or of 2 numbers each",
        ),
        (flows.ActNorm(), BETA, {"support": {5: (0, 1)}}, "support has column 5; expected one of the columns' numbers from 0"),
        (flows.ActNorm(), BETA, {"support": {0: (0, 1, 2)}}, "column 0 of support is"),
        (flows.ActNorm(), BETA, {"support": ((0, 0, 0), 1)}, "of 2 numbers each"),
    ],
)
def test_what_does_not_fit_a_support(model, data, options, message):
    with pytest.raises(flows.FlowsError, match=message):
        fit(0, Flow(model), data, **QUICK, **options)


def test_without_standardize_nothing_is_moved_behind():
    model = Flow(Serial(Logit(), flows.ActNorm()))
    assert fit(0, model, BETA, standardize=False, **QUICK).init_fun == model


@pytest.mark.parametrize(
    ("support", "told"),
    [
        ((-1e8, 1e8), "column 0 is \\(-1e\\+08, 1e\\+08\\), whose nearer end is .* too few digits"),
        ({1: (-1e8, None)}, "column 1 is .* float32 keeps too few digits .* Leave support out for it"),
    ],
)
def test_ends_too_far_from_the_data_are_refused(support, told):
    rows = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(flows.FlowsError, match=told):
        fit(0, flows.Normal(trainable=True), rows, support=support, **QUICK)
    with pytest.raises(flows.FlowsError, match="too few digits"):
        flows.select(0, [flows.Normal(trainable=True)], rows, support=(-1e8, 1e8), max_epochs=1, verbose=0)


def test_ends_far_from_the_data_are_told_and_one_that_is_near_is_fine():
    rows = np.random.default_rng(0).normal(size=(60, 1))
    with pytest.warns(DataWarning, match="float32 keeps few digits"):
        fit(0, flows.Normal(trainable=True), rows, support=(-5e4, 5e4), **QUICK)
    fit(0, flows.Normal(trainable=True), rows, support=(-8, 1e8), **QUICK)


def test_regions_are_told_apart():
    """By all that they say, and print as that."""
    line, halves = flows.Region(), flows.Region(0.0, np.array([1.0, np.inf]))
    assert flows.CIRCLE != line != flows.SPHERE and flows.Region(period=2 * np.pi) == flows.CIRCLE
    again = flows.Region(period=2 * np.pi), flows.Region(0.0, np.array([1.0, np.inf]))
    assert len({flows.CIRCLE, flows.SPHERE, halves, *again}) == 3
    assert [repr(each) for each in (line, flows.SPHERE)] == ["Region()", "Region(low=-1.0, high=1.0, sphere=1)"]
    assert repr(halves) == "Region(low=0.0, high=[1.0, inf])" and repr(flows.CIRCLE) == f"Region(period={2 * np.pi})"
    low, high = flows.Region(0.0, 1.0)
    assert (low, high) == (0.0, 1.0) and (-np.inf, np.inf) != flows.CIRCLE
    assert flows.Region(0, 1) == flows.Region(-0.0, 1.0) and hash(flows.Region(0, 1)) == hash(flows.Region(-0.0, 1.0))
    with pytest.raises(AttributeError):
        flows.CIRCLE.period = 1.0


def test_a_support_says_what_a_layer_touches_some_of():
    pair = flows.Support((0.0, 1.0))
    assert pair == flows.Support([0.0, 1.0])
    with pytest.raises(TypeError, match=r"Support: outputs is 5; expected a Region, a pair \(low, high\)"):
        flows.Support((0.0, 1.0), 5)
    assert pair.inputs == flows.Region(0.0, 1.0) and pair.outputs == flows.Region() and pair.inverted.outputs == pair.inputs
    assert not flows.Support().untouched(3).any()
    assert flows.Support(leaves=(1,)).untouched(3).tolist() == [False, True, False]
    assert flows.Support(touches=(1,), leaves=(1,)).untouched(3).tolist() == [True, True, True]
    assert flows.Arcsinh((0, 2)).own_support.untouched(3).tolist() == [False, True, False]
