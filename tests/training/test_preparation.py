"""What `fit` does with columns before it trains: correlation, combinations, columns left alone; and what it is judged by."""

import contextlib
import re
import warnings

import jax
import numpy as np
import optax
import pandas
import pytest
from common import close, error_of
from scipy.stats import multivariate_normal

import flows
from flows.diagnostics import enable_x64
from flows.training import DataWarning, fit
from flows.training.data.facts import Facts, _clusters, check_data
from flows.training.data.gaussian import regression_loss, shrinkage_of
from flows.training.data.read import read
from flows.training.data.region import ends_of
from flows.training.data.standardization import Vectors, _alone, choose, entropy, heavy_tails, measure
from flows.training.data.table import Rows
from flows.training.loop.progress import Progress, error_of_fall, falling_by
from flows.training.model_view import ModelView
from flows.training.options import Options

DRAW = np.random.default_rng(0)
NORMAL = DRAW.normal(size=(400, 2))
MIXED = NORMAL @ [[1.0, 2.0], [0.0, 0.5]]
GAUSS = flows.Normal(trainable=True)
AFFINE = flows.Flow(flows.ActNorm())
FULL = flows.Normal(trainable=True, covariance="full")
BASED = flows.Flow(flows.ActNorm(), FULL)  # as `fit` trains it on several columns
COUPLING = flows.Flow(flows.Coupling(flows.MLP(8)))
QUICK = {"max_epochs": 2, "batch_size": 64, "verbose": 0}


def test_combinations_of_columns_are_refused_by_name():
    z = DRAW.normal(size=(400, 3))
    table = pandas.DataFrame(np.column_stack([z, 2 * z[:, 0] - z[:, 2] + 7]), columns=["a", "b", "c", "sum"])
    message = error_of(lambda: fit(0, GAUSS, table, **QUICK))
    assert "column 'sum' of data is a combination of others, 2 x column 'a' - 1 x column 'c'" in message
    fit(0, GAUSS, table, as_is=["sum"], **QUICK)
    near = table.assign(sum=table["sum"] + 1e-5 * DRAW.normal(size=400))
    with pytest.warns(DataWarning, match=r"nearly all of column 'sum' \(1\.\d digits\)"):
        result = fit(0, GAUSS, near, **QUICK)
    assert result.history["validation_loss"].min() < result.history["gaussian_loss"] + 0.1
    with pytest.warns(DataWarning, match="4 training rows for 4 columns: too few to know how columns depend"):
        fit(0, GAUSS, table[:5], **QUICK)


@pytest.mark.usefixtures("untrained")
def test_a_column_that_others_tell_to_within_its_step_is_told_of():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([2, 3, 4], 2000)
    celsius = 10 + 8 * rng.normal(size=2000)
    words = "the other columns explain it up to its rounding. Leave it out; or give dequantize="
    for rows, told in (
        (
            shares.round(2),
            r"column 2 of data is -(1|0\.99\d+) x column 0 - (1|0\.99\d+) x column 1 and a constant, rounded to 0\.01",
        ),
        (
            np.c_[celsius.round(1), (32 + 1.8 * celsius).round(1)],
            r"column 1 of data is 1\.[78]\d* x column 0 and a constant, rounded",
        ),
        (np.c_[celsius, celsius.round()], r"column 1 of data is (1|0\.99\d+) x column 0 and a constant, rounded to 1"),
    ):
        with pytest.warns(DataWarning) as caught:
            fit(0, GAUSS, rows, **QUICK)
        assert any(re.search(told, str(each.message)) and words in str(each.message) for each in caught)
        with warnings.catch_warnings():
            warnings.simplefilter("error", DataWarning)
            fit(0, GAUSS, rows, dequantize=True, **QUICK)
    other = np.round(celsius + 0.3 * rng.normal(size=2000))  # more than its rounding is left
    flags = (rng.random((2000, 3)) < 0.006).astype(float)  # of which each varies by less than rounding to 1 might
    fine = (celsius.round() + 0.3 * celsius).round(2)  # what is left is the rounding of the other, 100 times its own
    for rows in (np.c_[celsius, other], flags, np.c_[celsius.round(), shares[:, 0], fine]):
        with pytest.warns(DataWarning) as caught:
            fit(0, GAUSS, rows, **QUICK)
        assert not any("up to its rounding" in str(each.message) for each in caught)


def test_correlation_is_taken_out_however_strong():
    z = DRAW.normal(size=(2000, 2))
    rows = np.stack([z[:, 0], 0.999999 * z[:, 0] + np.sqrt(1 - 0.999999**2) * z[:, 1]], 1)
    result = fit(0, AFFINE, rows, **QUICK)
    best = -multivariate_normal(rows.mean(0), np.cov(rows.T)).logpdf(rows).mean()
    np.testing.assert_allclose(-result.log_pdf(result.params, rows).mean(), best, atol=0.01)
    assert result.init_fun == flows.Flow(flows.Whiten(unmixed=(0,)), BASED)
    np.testing.assert_allclose(np.corrcoef(result.sample(0, result.params, 2000).T)[0, 1], 0.999999, atol=1e-6)


def test_the_yardstick_is_the_closed_form_gaussian():
    rows, held_out, w = (
        NORMAL[:300] @ [[1.0, 2.0], [0.0, 0.5]],
        NORMAL[300:] @ [[1.0, 2.0], [0.0, 0.5]],
        np.r_[np.ones(150), 3 * np.ones(150)],
    )
    for weights in (None, w):
        told = fit(0, AFFINE, rows, validation=held_out, weights=weights, **QUICK).history["gaussian_loss"]
        normal = multivariate_normal(np.average(rows, 0, weights), np.cov(rows.T, aweights=weights, bias=True))
        np.testing.assert_allclose(told, -normal.logpdf(held_out).mean(), rtol=1e-9)
    context = NORMAL[:, :1]
    data = np.column_stack([3 * context[:, 0] + 1, -context[:, 0]]) + 0.1 * DRAW.normal(size=(400, 2))
    conditional = flows.Normal(conditioner=flows.MLP(4))
    result = fit(0, conditional, data[:300], context=context[:300], validation=(data[300:], context[300:]), **QUICK)
    coefficients = np.linalg.lstsq(np.c_[np.ones(300), context[:300]], data[:300], rcond=None)[0]
    residuals = [
        data[part] - np.c_[np.ones(len(data[part])), context[part]] @ coefficients for part in (slice(300), slice(300, None))
    ]
    normal = multivariate_normal(np.zeros(2), np.cov(residuals[0].T, bias=True))
    np.testing.assert_allclose(result.history["gaussian_loss"], -normal.logpdf(residuals[1]).mean(), atol=1e-6)
    assert "gaussian" not in fit(0, AFFINE, NORMAL[:, :, None, None], **QUICK, standardize=False).history


def test_the_closed_form_counts_rows_by_their_weights_and_is_linear_in_the_context():
    context = DRAW.normal(size=(400, 1))
    rows, design = MIXED + context * [3.0, -1.0] + 1, np.c_[np.ones(400), context]
    w, root = np.r_[np.ones(150), 3 * np.ones(150)], np.r_[np.ones(150), np.full(150, 3**0.5)][:, None]
    residuals = rows - design @ np.linalg.lstsq(design[:300] * root, rows[:300] * root, rcond=None)[0]
    normal = multivariate_normal(np.zeros(2), np.cov(residuals[:300].T, aweights=w, bias=True))
    told = regression_loss(Rows(rows[:300], context[:300], w), Rows(rows[300:], context[300:]))
    np.testing.assert_allclose(told, -normal.logpdf(residuals[300:]).mean(), rtol=1e-9)


def test_a_fit_behind_the_gaussian_says_so():
    with pytest.warns(UserWarning, match=r"the closed-form Gaussian is 1\.\d+ nats a row better on the held-out rows"):
        fit(0, COUPLING, MIXED, standardize="columns", **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(0, GAUSS, MIXED, **QUICK)


def test_the_start_is_kept_where_no_epoch_is_better():
    with pytest.warns(UserWarning, match="no epoch was better on the held-out part than the start, which is the result"):
        result = fit(0, AFFINE, NORMAL, optimizer=optax.sgd(-1.0), **QUICK)
    assert result.history["best_epoch"] == -1 and "kept the start, of 2 epochs" in repr(result)
    assert result.history["start_loss"] < result.history["validation_loss"].min()
    order = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(0)))).permutation(400)[:40]
    np.testing.assert_allclose(-result.log_pdf(result.params, NORMAL[order]).mean(), result.history["start_loss"], rtol=1e-5)


def test_columns_left_as_they_are_are_neither_scaled_nor_judged():
    table = pandas.DataFrame({"x": NORMAL[:, 0], "hour": np.repeat(np.arange(8.0), 50), "y": NORMAL[:, 0] + NORMAL[:, 1]})
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        result = fit(0, AFFINE, table, as_is="hour", **{**QUICK, "standardize": "whiten"})
    assert result.init_fun == flows.Flow(flows.Whiten(as_is=(1,)), AFFINE)
    fixed = result.params["bijection"]["fixed"]
    assert fixed["mean"][1] == 0 and fixed["std"][1] == 1 and fixed["factor"][1].tolist() == [0.0, 1.0, 0.0]
    assert fit(0, AFFINE, table, as_is=(1,), standardize="columns", **QUICK).init_fun.arguments[
        "bijection"
    ] == flows.Standardize((1,))
    assert "as_is has column 'minute'; expected one of the columns' names, x, hour, y" in error_of(
        lambda: fit(0, AFFINE, table, as_is=["minute"], **QUICK)
    )
    assert "expected columns by name or number" in error_of(lambda: fit(0, AFFINE, table, as_is=[True], **QUICK))
    assert "expected one of True, False, 'whiten', 'columns'" in error_of(
        lambda: fit(0, AFFINE, table, standardize="rows", **QUICK)
    )
    mixture = flows.GMM(num_components=1)
    alone = fit(0, flows.Flow(COUPLING.arguments["bijection"], mixture), NORMAL, **QUICK)
    assert alone.init_fun == flows.Flow(flows.Standardize(), flows.Flow(COUPLING.arguments["bijection"], mixture))


def test_columns_with_edges_of_their_own_are_not_mixed():
    z = DRAW.normal(size=(2000, 3))
    coin = np.where(DRAW.random(2000) < 0.5, -1.0, 1.0) + 0.02 * z[:, 1]  # a bimodal column, correlated with a normal one
    rows = np.stack([coin + z[:, 0], coin, coin + 0.5 * z[:, 2]], 1)
    result = fit(0, AFFINE, rows, **{**QUICK, "standardize": "whiten"})
    assert result.init_fun == flows.Flow(flows.Whiten(unmixed=(1,)), AFFINE)
    layer = result.init_fun.arguments["bijection"](0, 3, init_inputs=rows.astype(np.float32))  # of all rows
    measured = result.params["bijection"]["fixed"]["factor"]
    np.testing.assert_allclose(measured, layer.params["fixed"]["factor"], atol=0.01)
    apart = Vectors(z @ DRAW.normal(size=(3, 3)), None, np.full(3, False), mixing=True)
    assert not _alone(apart, shrinkage=1.0).any(), "where nothing is mixed"
    assert entropy(DRAW.random(4000)) == pytest.approx(0, abs=0.05)
    weights = np.r_[np.ones(2000), np.full(2000, 3.0)]  # of two uniform halves: 1/4 and 3/4
    x = np.r_[DRAW.random(2000), 1 + DRAW.random(2000)]
    assert entropy(x, weights) == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)), abs=0.05)


def prepared(rows, **given):
    """The layers that prepare rows, measured."""
    options, view = Options(**given), ModelView(AFFINE, rows.shape[1:], None)
    facts = Facts(view, check_data(read(rows, options, jax.random.key(0)), options, view))
    return measure(choose(Rows(rows), facts, options), rows, None)


@pytest.mark.filterwarnings("ignore:fit. columns before it explain nearly all:flows.training.DataWarning")
@pytest.mark.filterwarnings("ignore:fit. values farther than:flows.training.DataWarning")
def test_sums_of_columns_with_heavy_tails_are_freed_before_arcsinh():
    """Behind arcsinh a sum is no sum; ratios are differences there alone."""
    rng = np.random.default_rng(0)
    parts = rng.standard_t(1.5, size=(3, 800))
    sums = np.stack([*parts, parts.sum(0) + 0.1 * rng.normal(size=800)], 1)
    z = 2 * np.random.default_rng(0).normal(size=800)
    ratios = np.exp(np.stack([z, z + 0.05 * rng.normal(size=800)], 1))
    freed = flows.Whiten(unmixed=(0, 1, 2)), flows.Arcsinh((0, 1, 2)), flows.Standardize()
    for rows, layers in ((sums, freed), (ratios, (flows.Arcsinh((0, 1)), flows.Whiten(unmixed=(0,))))):
        pipeline = prepared(rows)
        assert pipeline.layers == layers
        y, log_det = pipeline.direct(rows)
        each = [layer(0, rows.shape[1]).direct_fun for layer in layers]
        x, total = np.float32(rows), 0.0
        for direct_fun, params in zip(each, pipeline.params, strict=True):
            x, of_layer = direct_fun(params, x)
            total = total + of_layer
        close(x, y, 1e-3)
        close(total, log_det, 1e-3)
        close(pipeline.deviations(y), pipeline.deviations(rows, behind=False), 1e-6)
    sums[7, 0], sums[7, 3] = 3e5, 3e5 + parts[1:, 7].sum()  # one row decides what others tell, and tells nothing of itself
    assert prepared(sums).layers[0] == flows.Arcsinh(together=True)
    assert prepared(1e-30 * NORMAL).layers == (flows.Standardize(),), "in any unit"


def test_heavy_tails_go_through_arcsinh():
    rows = np.stack([NORMAL[:, 0], np.random.default_rng(1).standard_cauchy(400), NORMAL[:, 1]], 1)
    with pytest.warns(DataWarning, match=r"column 1 .*drop or clip values that are errors"):
        result = fit(0, AFFINE, rows, **QUICK)
    assert result.init_fun == flows.Flow(flows.Serial(flows.Arcsinh((1,)), flows.Standardize()), BASED)
    scores = np.asarray(result.log_pdf(result.params, rows), float)
    told = min(result.history["start_loss"], result.history["validation_loss"].min())
    order = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(0)))).permutation(400)[:40]
    np.testing.assert_allclose(-scores[order].mean(), told, rtol=1e-5)
    np.testing.assert_allclose(-np.delete(scores, order).mean(), result.history["train_loss"][-1], atol=0.2)
    assert told < result.history["gaussian_loss"] - 1
    alone = fit(0, AFFINE, rows, as_is=1, **QUICK)
    assert alone.init_fun == flows.Flow(flows.Standardize(as_is=(1,)), BASED)
    for few in (NORMAL, np.exp(0.3 * NORMAL), DRAW.random((400, 2)), np.zeros((400, 2))):
        assert not heavy_tails(Vectors(few, None, np.full(2, False)))
    weights = np.where(np.abs(rows[:, 1]) > 3, 0.0, 1.0)
    assert not heavy_tails(Vectors(rows, weights, np.full(3, False)))


@pytest.mark.filterwarnings("ignore::flows.training.DataWarning")
def test_tails_of_rows_are_drawn_in_together():
    """Columns that are linear in each other stay so, where rows have a scale of their own."""
    rng = np.random.default_rng(0)
    linear = rng.normal(size=(800, 4)) @ np.linalg.cholesky(0.9 ** np.abs(np.subtract.outer(range(4), range(4)))).T
    shared = linear / np.sqrt(rng.chisquare(3, size=(800, 1)))
    assert prepared(shared).layers[0] == flows.Arcsinh(together=True)
    assert prepared(1e20 * shared).layers[0] == flows.Arcsinh(together=True), "in any unit"
    assert prepared(np.sinh(2 * linear)).layers[0] == flows.Arcsinh((0, 1, 2, 3))
    assert prepared(linear).layers == (flows.Standardize(),)
    y, log_det = (pipeline := prepared(shared)).direct(shared)
    loss = log_det + multivariate_normal(y.mean(0), np.cov(y.T)).logpdf(y)
    assert loss.mean() > multivariate_normal(shared.mean(0), np.cov(shared.T)).logpdf(shared).mean() + 0.2
    close(pipeline.deviations(y), pipeline.deviations(shared, behind=False), 1e-6)
    held = prepared(np.column_stack([rng.normal(size=800), shared]), as_is=(0,))
    assert held.layers[0] == flows.Arcsinh((1, 2, 3, 4), together=True)


@pytest.mark.parametrize("make", [lambda z: z**3, lambda z: 1 + z**5, lambda z: 1e150 * z], ids=["third", "fifth", "huge"])
def test_the_model_of_very_heavy_tails_is_the_one_that_was_told_of(make):
    z = np.random.default_rng(2).standard_cauchy(1000)
    rows = np.column_stack([make(z), DRAW.normal(size=1000)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        with enable_x64() if np.abs(rows).max() > 1e30 else contextlib.nullcontext():
            result = fit(0, AFFINE, rows, validation=rows[:300], **QUICK)
            scores = np.asarray(result.log_pdf(result.params, rows[:300]), float)
            draws = np.asarray(result.sample(0, result.params, 4000))[:, 0]
    np.testing.assert_allclose(
        -scores.mean(), min(result.history["start_loss"], result.history["validation_loss"].min()), rtol=1e-4
    )
    spread, drawn = (np.diff(np.quantile(each, [0.25, 0.75]))[0] for each in (rows[:, 0], draws))
    assert spread < drawn < 30 * spread  # one Gaussian behind arcsinh: wider, and no point


def test_few_rows_shrink_the_correlation():
    z = DRAW.normal(size=(30, 20))
    assert shrinkage_of(z) > 0.1 and shrinkage_of(DRAW.normal(size=(3000, 20))) == 0
    determined = np.column_stack([z, z[:, 0] + z[:, 1]])[:28]  # too few rows to refuse it
    assert shrinkage_of(determined / determined.std(0)) > 0
    assert shrinkage_of(z[:, :1]) == 0 and shrinkage_of(z[:5, :3]) == 1
    strong = z[:, :1] + 1e-3 * DRAW.normal(size=(30, 3))
    assert shrinkage_of(strong / strong.std(0)) == 0
    with pytest.warns(DataWarning, match="27 training rows for 20 columns: too few to know"):
        result = fit(0, GAUSS, 1.0 + z, **QUICK)
    assert result.init_fun.arguments["bijection"].arguments["shrinkage"] > 0.1


def test_clusters_far_apart_call_for_a_mixture():
    far = np.where(np.arange(400)[:, None] % 2, 0.0, 1000.0) + NORMAL
    with pytest.warns(DataWarning, match=r"narrow next to the room.*column 0 \(2 of them\), column 1 \(2 of them\).*GMM\(num_"):
        fit(0, AFFINE, far, **QUICK)
    result = fit(0, flows.Flow(flows.ActNorm(), flows.GMM(num_components=2)), far, **QUICK)
    truth = multivariate_normal(np.zeros(2)).logpdf(NORMAL).mean() - np.log(2)
    assert abs(np.asarray(result.log_pdf(result.params, far)).mean() - truth) < 0.1
    for values in (NORMAL, np.round(NORMAL, 1), np.exp(3 * NORMAL), np.where(NORMAL > 3, 1e5, NORMAL)):
        assert not any(map(_clusters, values.T))


def test_values_beyond_the_splines_are_told_of():
    wide = flows.Flow(flows.NSF(1, hidden=(4,), num_bins=2, bound=1.0))
    with pytest.warns(UserWarning, match=r"3\d\.\d% of the standardised values lie beyond \+-1, .*a larger bound, such as"):
        fit(0, wide, NORMAL, **QUICK)


def test_a_row_that_decides_the_score_is_named():
    rows = NORMAL.copy()
    order = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(0)))).permutation(400)
    rows[order[3]] = [60.0, -60.0]
    message = rf"row {order[3]} of data, one of 40 held out, has log-density -\d+ and the mean of the others is -\d\.\d+"
    with pytest.warns(UserWarning, match=message):
        fit(0, AFFINE, rows, **QUICK)
    with pytest.warns(UserWarning, match=r"row 7 of validation, one of 50 held out"):
        fit(0, AFFINE, NORMAL, validation=np.where(np.arange(50)[:, None] == 7, 50.0, NORMAL[:50]), **QUICK)


def test_a_fit_that_was_too_short_says_so():
    losses = [8 * 0.95**epoch for epoch in range(100)]
    assert falling_by(losses) == losses[49] - losses[74] and falling_by([1.0] * 100) == falling_by([np.inf, np.nan] * 50) == 0
    assert falling_by([*losses[:45], *[1.0] * 55]) == falling_by(losses[::-1]) == 0
    member, rows = Progress(), np.random.default_rng(0).normal(size=500)
    assert np.isnan(error_of_fall(member, 2_000)), "as rows on several devices"
    for epoch in range(40):
        member.train.append(0.0)
        member.few = (rows + epoch + 0.1 * np.cos(np.arange(500)) * (epoch >= 29)).tolist()
        member.compare(40)
    assert error_of_fall(member, 2_000) == pytest.approx(0.1 / np.sqrt(2 * 2_000), rel=0.01), "of differences, not of rows"
    slow = {**QUICK, "max_epochs": 40, "learning_rate": 0.02, "standardize": False}
    with pytest.warns(
        UserWarning, match=r"still falling, by .* nats from half to three quarters of the 40 epochs; .*max_epochs=80"
    ):
        fit(0, flows.Flow(flows.Scale()), 1e-2 * NORMAL, **slow)


def test_what_is_left_open_follows_the_rows():
    few = Options().settled(51, 8)
    assert (few.batch_size, few.max_epochs, few.patience) == (51, 375, 37)
    asked = Options().settled(51, 8, roles=True)
    assert (asked.max_epochs, asked.patience) == (1_250, 125)
    many = Options().settled(256, 300)
    assert (many.max_epochs, many.patience) == (100, 10)
    given = Options(max_epochs=7, patience=3).settled(256, 1)
    assert (given.max_epochs, given.patience) == (7, 3)
    assert [Options().rows_a_step(rows) for rows in (5, 40, 80, 400, 10**6)] == [5, 8, 10, 50, 256]
    history = fit(0, AFFINE, NORMAL, verbose=0, max_epochs=1).history
    assert (history["batch_size"], history["max_epochs"], history["patience"]) == (45, 1, 10)


def test_weight_decay_shrinks_params():
    model, options = flows.Flow(flows.Coupling(flows.MLP(8, last_scale=1.0))), {**QUICK, "learning_rate": 1e-2, "ema": None}
    options["standardize"] = "columns"
    norms = []
    for share in (0.0, 5.0):
        result = fit(0, model, np.tanh(3 * MIXED), weight_decay=share, **{**options, "max_epochs": 10, "patience": 10})
        norms.append(sum(float(np.square(leaf).sum()) for leaf in jax.tree.leaves(result.params["prior"]["bijection"])))
    assert norms[1] < 0.8 * norms[0]
    with pytest.raises(TypeError, match=r"weight_decay=0\.1 is for the default optimizer; use optax\.adamw"):
        fit(0, model, NORMAL, weight_decay=0.1, optimizer=optax.adam(1e-3), **QUICK)
    assert "weight_decay is -1; expected a number, 0 or more" in error_of(lambda: fit(0, model, NORMAL, weight_decay=-1))


@pytest.mark.parametrize("columns", [(0, 1), [1, 0], np.array([0, 1]), range(2), {0, 1}], ids=lambda x: type(x).__name__)
def test_all_columns_may_stay_as_they_are(columns):
    rows = np.random.default_rng(0).normal(size=(60, 2))
    result = flows.fit(0, flows.Normal(trainable=True), rows, as_is=columns, max_epochs=1, folds=1, verbose=0)
    assert result.init_fun.arguments["bijection"] == flows.Standardize(as_is=(0, 1))
    fixed = result.params["bijection"]["fixed"]
    assert fixed["mean"].tolist() == [0.0, 0.0] and fixed["std"].tolist() == [1.0, 1.0]


def test_support_is_a_pair_or_a_list_of_pairs():
    pairs = ends_of([(0, None), (-1, 3)], 2)
    assert pairs == ends_of({0: (0, np.inf), 1: (-1, 3)}, 2) == ends_of(([0, -1], [np.inf, 3]), 2)
    assert ends_of([0, 1], 2) == ends_of((0, 1), 2) and ends_of([[0, 0], [1, 2]], 2) == ends_of(((0, 0), (1, 2)), 2)
    assert "column 1 of support is (3, 1); expected low < high" in error_of(lambda: ends_of([(0, 1), (3, 1)], 2))
    assert "expected a pair (low, high)" in error_of(lambda: ends_of([(0, 1), (0, 1)], 3))


@pytest.mark.parametrize("batch_size", [64, 512])
def test_the_standard_error_of_a_fit_is_that_of_its_rows(batch_size):
    rng = np.random.default_rng(0)
    x = rng.standard_t(3, size=(600, 3)) * np.exp(rng.normal(size=(600, 1)))
    model = flows.Flow(flows.AffineCoupling(flows.MLP(4)))
    result = flows.fit(0, model, x[:400], validation=x[400:], max_epochs=1, batch_size=batch_size, verbose=0)
    assert "Arcsinh" in repr(result.init_fun), "whose log-det differs by row"
    assert result.history["error"] == pytest.approx(float(np.std(result.log_prob(x[400:]))) / np.sqrt(200), rel=1e-4)
