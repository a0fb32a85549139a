"""`fit` and what comes of it for blocks of features, one given the others or each by itself: codes, angles and numbers."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of
from scipy.stats import vonmises

import flows
from flows.diagnostics.rows import verify_rows
from flows.training import EnsembleResult, fit
from flows.training.comparison import Comparison
from flows.training.data.facts import check
from flows.training.data.gaussian import closed_form_loss
from flows.training.data.prepare import prepare
from flows.training.data.read import read
from flows.training.data.table import Rows
from flows.training.model_view import ModelView, from_gaussian
from flows.training.options import Options

# Of models that train for a few epochs, and of some that take what depends for independent.
pytestmark = pytest.mark.filterwarnings("ignore:fit. the closed-form Gaussian")
DRAW = np.random.default_rng(0)
QUICK = {"max_epochs": 3, "batch_size": 64, "verbose": 0}
N = 600
CODE = DRAW.integers(0, 3, N)
HOUR = (8 * CODE + 2 * DRAW.normal(size=N)) % 24
FIRST = 100 + 10 * (CODE + np.cos(2 * np.pi * HOUR / 24) + 0.3 * DRAW.normal(size=N))
TABLE = np.stack([CODE, HOUR, FIRST, 5 + 0.1 * FIRST + 2 * CODE + DRAW.normal(size=N)], 1)
CODES = np.stack([CODE, (CODE > 0) ^ (DRAW.random(N) < 0.1)], 1).astype(float)
COUPLING = flows.Flow(flows.Coupling(flows.MLP(8)))
ANGLE = flows.VonMises(conditioner=flows.MLP(8), period=24.0)
KINDS = (flows.Joint, flows.ChainRule)
FULL = flows.Normal(trainable=True, covariance="full")


def mixed(kind, numbers=COUPLING):
    angle = ANGLE if kind is flows.ChainRule else flows.VonMises(trainable=True, period=24.0)
    return kind(flows.Categorical(3, hidden=()), angle, numbers, sizes=(1, 1, 2))


def given_to(kind):
    """The context of a second block of one number behind another."""
    return kind is flows.ChainRule


def facts_of(model, rows, **options):
    options, key = Options(**options), flows.core.as_key(0)
    split = read(rows, options, key)
    view = ModelView(model, split.whole.event, split.whole.context_event, options.standardize)
    return check(view, split, options, key), split, options, key


@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_are_averaged_over_folds(kind):
    rows = TABLE[:300]
    result = fit(0, mixed(kind, flows.Flow(flows.Coupling(flows.MLP(32, 32)))), rows, **QUICK)
    assert isinstance(result, EnsembleResult) and result.members == 5 and result.folds
    each = np.asarray(result.log_pdfs(result.params, rows), float)
    assert each.shape == (5, 300) and np.isfinite(each).all()
    assert result.verify(rows[:40]).looked_at == 40
    draws = np.asarray(result.draw(1, 50))
    assert set(draws[:, 0]) <= {0.0, 1.0, 2.0}


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_with_a_network_call_for_folds_where_rows_are_few(kind):
    assert facts_of(mixed(kind), TABLE[:30])[0].folds == 5 and facts_of(mixed(kind), TABLE[:500])[0].folds == 1
    nested = flows.Joint(kind(flows.Categorical(3), COUPLING, sizes=(1, 2)), flows.Normal(), sizes=(3, 1))
    assert facts_of(nested, TABLE[:30, [0, 2, 3, 1]])[0].folds == 5
    assert facts_of(kind(flows.Categorical(3), flows.Categorical(3)), TABLE[:60, [0, 0]])[0].folds == 1


@pytest.mark.parametrize("kind", KINDS)
def test_flows_of_blocks_start_at_the_regression_on_what_they_are_given(kind):
    numbers = flows.Flow(flows.Coupling(flows.MLP(8)))
    result = fit(0, mixed(kind, numbers), TABLE[:500], validation=TABLE[500:], **QUICK)
    dependent = kind is flows.ChainRule
    base = flows.Normal(trainable=True, covariance="full", regression=dependent)
    within = flows.Flow(flows.Coupling(flows.MLP(8)), base)
    assert result.init_fun == flows.Flow(flows.Standardize(as_is=(0, 1)), mixed(kind, within))
    region = flows.support(mixed(kind), 4).inputs
    told = closed_form_loss(Rows(TABLE[:500]), Rows(TABLE[500:]), region)
    close(result.history["gaussian_loss"], told, 1e-9)
    alone = fit(0, kind(flows.Normal(trainable=True), numbers, sizes=(1, 1)), TABLE[:, 2:], folds=1, **QUICK)
    expected = flows.Flow(flows.Coupling(flows.MLP(8)), flows.Normal(trainable=True, regression=True)) if dependent else numbers
    assert alone.init_fun == flows.Flow(flows.Standardize(), kind(flows.Normal(trainable=True), expected, sizes=(1, 1)))
    if dependent:  # without an angle, whose start is no closed form
        start = fit(
            0,
            kind(flows.Categorical(3), COUPLING, sizes=(1, 2)),
            TABLE[:500, [0, 2, 3]],
            validation=TABLE[500:, [0, 2, 3]],
            **QUICK,
        )
        close(start.history["start_loss"], start.history["gaussian_loss"], 3e-3)
    nested = kind(flows.Categorical(3), kind(flows.Normal(trainable=True), numbers, sizes=(1, 1)), sizes=(1, 2))
    if not dependent:
        assert fit(0, nested, TABLE[:, [0, 2, 3]], folds=1, **QUICK).init_fun.arguments["prior"] == nested


@pytest.mark.parametrize("kind", KINDS)
def test_bases_of_blocks_are_regressions_on_what_they_are_given(kind):
    base = flows.Normal(trainable=True, covariance="full", regression=kind is flows.ChainRule)
    assert from_gaussian(mixed(kind), (4,), None, None) == mixed(kind, flows.Flow(flows.Coupling(flows.MLP(8)), base))


def test_columns_are_mixed_where_no_block_has_a_network():
    rows = TABLE[:, [0, 2, 3]]
    for numbers, mixing in ((COUPLING, False), (flows.Normal(trainable=True), True)):
        assert facts_of(flows.Joint(flows.Categorical(3), numbers, sizes=(1, 2)), rows)[0].view.mixing is mixing


def test_the_yardstick_is_of_codes_angles_and_numbers():
    train, held_out = TABLE[:500], TABLE[500:]
    model = mixed(flows.ChainRule)
    region = flows.support(model, 4).inputs
    frequencies = (np.bincount(CODE[:500], minlength=3) + 1) / 503
    turned = 2 * np.pi * TABLE[:, 1:2] / 24
    seen = np.concatenate([TABLE[:, :1] == np.arange(3), np.cos(turned), np.sin(turned), np.ones((N, 1))], 1)
    residuals = TABLE[:, 2:] - seen @ np.linalg.lstsq(seen[:500], train[:, 2:], rcond=None)[0]
    covariance = np.cov(residuals[:500].T, bias=True)
    z = residuals[500:]
    of_numbers = 0.5 * (
        np.einsum("ni,ij,nj->n", z, np.linalg.inv(covariance), z) + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    k, mu, _ = vonmises.fit(turned[:500], fscale=1)
    of_angles = -vonmises(k, mu).logpdf(turned[500:]).mean() - np.log(2 * np.pi / 24)
    expected = of_angles + of_numbers.mean() - np.log(frequencies[CODE[500:]]).mean()
    close(closed_form_loss(Rows(train), Rows(held_out), region), expected, 1e-3)
    weights = np.r_[2 * np.ones(100), np.zeros(100), np.ones(300)]
    weighted = closed_form_loss(Rows(train, None, weights), Rows(held_out), region)
    copied = Rows(np.r_[train[:100], train[:100], train[200:]])
    close(weighted, closed_form_loss(copied, Rows(held_out), region), 1e-6)
    codes = flows.support(flows.Categorical(3), 1).inputs
    close(closed_form_loss(Rows(train[:, :1]), Rows(held_out[:, :1]), codes), -np.log(frequencies[CODE[500:]]).mean(), 1e-12)
    context = DRAW.normal(size=(N, 1))
    rows = TABLE[:, [0, 2]] + context * [[0, 50.0]]
    both = closed_form_loss(Rows(rows[:500], context[:500]), Rows(rows[500:], context[500:]), region.of([0, 2]))
    assert both < closed_form_loss(Rows(rows[:500]), Rows(rows[500:]), region.of([0, 2])) - 1
    sphere = flows.support(flows.SphereUniform(), 3).inputs
    assert closed_form_loss(Rows(train[:, :3]), Rows(held_out[:, :3]), sphere) is None


def test_a_model_behind_the_yardstick_is_told_what_that_is():
    far = flows.Joint(flows.Categorical(3), flows.VonMises(concentration=50.0, period=24.0), sizes=(1, 1))
    with pytest.warns(UserWarning, match="the closed-form Gaussian with frequencies of codes and von Mises angles is"):
        fit(0, far, TABLE[:, :2], **QUICK)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_verified_in_every_block(kind):
    """Splines of the numbers end at 3 standard deviations, however large the numbers are."""
    splines = flows.Flow(
        flows.Autoregressive(flows.conditioners.MaskedMLP(8), flows.transformers.RationalQuadratic(4, bound=3.0))
    )
    result = fit(0, mixed(kind, splines), TABLE, folds=1, **QUICK)
    rows = TABLE[:30].copy()
    mean, std = TABLE.mean(0), TABLE.std(0)
    inside = (np.abs((rows - mean) / std)[:, 2:] < 2.9).all(1)
    rows = rows[inside][:20]
    assert result.verify(rows).passed, result.verify(rows)
    rows[4, 2], rows[7, 3] = mean[2] + 4 * std[2], mean[3] - 5 * std[3]
    rows[9, 0] = 1.5
    report = result.verify(rows)
    assert [each.row for each in report.rows] == [4, 7, 9]
    assert "outside the range of the splines, +-3" in report.rows[0].reason and "-inf" in report.rows[2].reason
    assert report.round_trip < 1e-3


def test_a_round_trip_of_a_block_that_fails_is_told():
    """Layers of one block, whose inverse is wrong, behind one that is right; each sees its own features and context, in the
    units behind the layers of all."""

    @flows.bijection
    def Skewed():
        def init_fun(rng, shape, context_dim=0):
            def direct_fun(params, x, context=None):
                return x + context.sum(), jnp.zeros((), x.dtype)

            def inverse_fun(params, y, context=None):
                return y - context.sum() + jnp.where(context[0] > 1, 0.5, 0.0)

            return {}, direct_fun, inverse_fun

        return init_fun

    blocks = flows.ChainRule(flows.Flow(flows.ActNorm()), flows.Flow(Skewed()), sizes=(1, 1))
    model = flows.Flow(flows.Standardize(), blocks)
    x = jnp.asarray(np.stack([[20.0, *[0.0] * 8, 30.0], 10 * DRAW.normal(size=10)], 1), jnp.float32)
    params, log_pdf, _ = model(0, 2)
    params["bijection"]["fixed"]["std"] = np.array([10, 10], np.float32)
    report = verify_rows(model, params, 2, 0, x, None, np.asarray(log_pdf(params, x)))
    assert [each.row for each in report.rows] == [0, 9] and "round trip is off by 5.0e-01" in report.rows[0].reason


@pytest.mark.parametrize("kind", KINDS)
def test_noise_of_a_block_comes_before_all_are_standardised(kind):
    rows = np.stack([np.round(FIRST), TABLE[::-1, 3]], 1)
    first = flows.Flow(flows.Dequantize(1.0), flows.Normal(trainable=True))
    model = kind(first, COUPLING, sizes=(1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said of a column that is dequantised
        result = fit(0, model, rows, folds=1, **QUICK)
    layers = result.init_fun.arguments["bijection"].arguments["layers"]
    assert layers == (flows.Dequantize((1.0, 0.0)), flows.Standardize()) and result.init_fun.likelihood == "lower bound"
    draws = np.asarray(result.draw(0, 50))
    assert (draws[:, 0] == np.round(draws[:, 0])).all() and (draws[:, 1] != np.round(draws[:, 1])).all()
    same = fit(0, kind(flows.Normal(trainable=True), COUPLING, sizes=(1, 1)), rows, dequantize={0: 1.0}, folds=1, **QUICK)
    assert same.init_fun == result.init_fun
    close(same.history["validation_loss"], result.history["validation_loss"], 1e-6)
    assert "dequantize= adds noise to column 0, and so does Dequantize()" in error_of(
        lambda: fit(0, model, rows, dequantize={0: 1.0}, **QUICK)
    )
    assert fit(0, model, rows.round(), dequantize={1: 1.0}, folds=1, **QUICK).init_fun.likelihood == "lower bound"
    assert "support= takes column 0 to the line before Dequantize" in error_of(
        lambda: fit(0, model, rows, support=(0, 1e3), **QUICK)
    )
    assert "column 0 of data is to be dequantised in steps of 1, but" in error_of(lambda: fit(0, model, rows / 3, **QUICK))
    assert "is defined for the units of the data alone" in error_of(
        lambda: fit(0, kind(flows.Flow(flows.Logit(), flows.Normal(trainable=True)), COUPLING), rows, **QUICK)
    )


CODES_AND_STEPS = np.stack([CODE, np.round(FIRST), HOUR], 1)
OF_STEPS = flows.ChainRule(flows.Categorical(3), COUPLING, sizes=(1, 2))


def test_codes_have_no_step_that_shows(monkeypatch):
    assert facts_of(OF_STEPS, CODES_AND_STEPS, dequantize=True)[0].first == (flows.Dequantize((0.0, 1.0, 0.0)),)
    message = error_of(lambda: fit(0, flows.Categorical(3), CODES_AND_STEPS[:, :1], dequantize=True, **QUICK))
    assert "no column is rounded to a step that shows" in message
    steps = []
    monkeypatch.setattr(Comparison, "add", lambda self, *_: steps.append(self.columns.steps.tolist()))
    message = error_of(lambda: flows.select(0, [OF_STEPS], CODES_AND_STEPS, dequantize=True, verbose=0))
    assert "no candidate could be fitted" in message and steps == [[0, 1, 0]]


def test_steps_that_show_are_not_those_of_codes():
    selection = flows.select(0, [OF_STEPS], CODES_AND_STEPS, validation=0.2, dequantize=True, max_epochs=1, verbose=0)
    assert selection.single.init_fun.likelihood == "lower bound"
    table = np.stack([CODE, HOUR, FIRST.round(1), TABLE[:, 3]], 1)
    result = fit(0, mixed(flows.ChainRule), table, support={2: (0, np.inf)}, dequantize={2: 0.1}, folds=1, **QUICK)
    draws = np.asarray(result.draw(0, 200))
    assert (draws[:, 2] > 0).all() and set(draws[:, 0]) == {0.0, 1.0, 2.0} and np.isfinite(result.log_prob(table)).all()


NOISY = flows.ChainRule(
    flows.ChainRule(
        flows.Flow(flows.Dequantize((1.0, 0.0)), flows.Normal(trainable=True)),
        flows.Flow(flows.Dequantize(5.0), flows.Normal(trainable=True, regression=True)),
        sizes=(2, 1),
    ),
    COUPLING,
    sizes=(3, 1),
)
NOISY_ROWS = np.stack([np.round(FIRST), TABLE[:, 3], 5 * np.round(FIRST / 5), HOUR], 1)


def test_noise_of_several_blocks_is_one_layer():
    known = facts_of(NOISY, NOISY_ROWS)[0]
    assert known.first == (flows.Dequantize((1.0, 0.0, 5.0, 0.0)),)
    plain = flows.Normal(trainable=True), flows.Normal(trainable=True, regression=True)
    assert known.view.rest == flows.ChainRule(flows.ChainRule(*plain, sizes=(2, 1)), COUPLING, sizes=(3, 1))
    message = error_of(lambda: fit(0, flows.Flow(flows.ActNorm(), NOISY), NOISY_ROWS, **QUICK))
    assert "Dequantize(step=(1.0, 0.0, 5.0, 0.0)), of blocks of features, comes after ActNorm()" in message


def test_noise_of_several_blocks_stays_where_nothing_is_standardised():
    behind, rows = flows.Flow(flows.ActNorm(), NOISY), NOISY_ROWS
    assert fit(0, behind, rows, standardize=False, **{**QUICK, "max_epochs": 1}).init_fun == behind


@pytest.mark.parametrize("kind", KINDS)
def test_codes_alone(kind):
    alone = fit(0, flows.Categorical(3, 2, hidden=(8,)), CODES, **QUICK)
    assert (
        alone.init_fun == flows.Categorical(3, 2, hidden=(8,))
        and alone.history["gaussian_loss"] > alone.history["validation_loss"][-1]
    )
    model = kind(flows.Categorical(3), flows.Categorical(2))
    members = flows.fit_ensemble(0, model, CODES, members=2, **QUICK)
    assert members.member == model
    folds = fit(0, model, CODES, folds=3, **QUICK)
    assert folds.member == model and np.isfinite(folds.log_pdf(folds.params, CODES)).all()
    given = fit(
        0,
        kind(flows.Categorical(3), flows.Normal(trainable=True, regression=True)),
        TABLE[:, [0, 2]],
        context=TABLE[:, 3:],
        **QUICK,
    )
    assert given.init_fun.arguments["bijection"].arguments["as_is"] == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_code_is_refused(kind):
    model, bad = kind(flows.Categorical(3), flows.Categorical(2)), CODES.copy()
    bad[7, 1] = 0.5
    message = "column 1 of {} is 0.5 in row 7, which is not a code; expected whole numbers 0 to 1"
    for options in ({}, {"members": 2}, {"folds": 3}):
        assert message.format("data") in error_of(lambda o=options: fit(0, model, bad, **o, **QUICK))
    assert message.format("validation") in error_of(lambda: fit(0, model, CODES, validation=bad, **QUICK))
    assert message.format("data") in error_of(lambda: flows.select(0, [model], bad, max_epochs=3, verbose=0))
    bad[7, 1] = 2
    assert "is 2 in row 7" in error_of(lambda: fit(0, model, bad, **QUICK))


@pytest.mark.parametrize("kind", KINDS)
def test_models_are_compared_on_columns_of_codes(kind):
    """No column of codes is judged as one of numbers, if it is one to all models."""
    rows = np.concatenate([TABLE[:, :1], np.zeros((N, 1)), TABLE[:, 2:]], 1)
    models = [
        kind(flows.Categorical(3, 2), numbers, sizes=(2, 2)) for numbers in (COUPLING, flows.Flow(flows.NSF(1, hidden=(8,))))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selection = flows.select(0, models, rows, validation=0.2, max_epochs=1, verbose=0)
    assert all(candidate.result is not None for candidate in selection.candidates), selection
    message = error_of(lambda: flows.select(0, [*models, COUPLING], rows, max_epochs=3, verbose=0))
    assert "column 1 of data is constant" in message


@pytest.mark.parametrize("model", [flows.Categorical(3), flows.ChainRule(flows.Categorical(3), COUPLING, sizes=(1, 2))])
def test_what_has_no_gradient_or_no_way_refuses_codes(model):
    dim = 1 if model == flows.Categorical(3) else 3
    message = error_of(lambda: flows.fit_to_density(0, model, lambda x: -(x**2).sum(1), dim, verbose=0))
    assert "fit_to_density" in message and "codes of categories" in message
    message = error_of(
        lambda: flows.objectives.flow_matching(*(lambda d: (d.params, d))(model(0, dim)), np.zeros((5, dim)), rng=0)
    )
    assert "flow_matching" in message and "codes of categories" in message


def test_prepared_rows_of_codes_stay_as_they_are():
    facts, split, options, key = facts_of(mixed(flows.ChainRule), TABLE, folds=1)
    rows = prepare(split, facts, options, key)
    assert set(np.asarray(rows.train.x[:, 0]).tolist()) == {0.0, 1.0, 2.0}
    close(np.asarray(rows.train.x[:, 2:]).std(0), [1, 1], 1e-4)
    wide = facts_of(mixed(flows.ChainRule), TABLE, standardize="whiten")[0]
    assert wide.view.mixing and not facts.view.mixing and not facts_of(mixed(flows.Joint), TABLE)[0].view.mixing
