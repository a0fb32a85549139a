"""What `fit` says of data before it trains, and what it does with weights, tables and values that were rounded."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import polars
import pytest
from common import error_of

import flows
from flows.diagnostics import enable_x64
from flows.training import DataWarning, fit
from flows.training.data.facts import scale_of_context
from flows.training.data.rounding import step_of

DRAW = np.random.default_rng(0)
NORMAL = DRAW.normal(size=(400, 2))
GAUSS = flows.Normal(trainable=True)
AFFINE = flows.Flow(flows.ActNorm())
QUICK = {"max_epochs": 2, "batch_size": 64, "verbose": 0}


def with_column(values):
    return np.column_stack([NORMAL[:, 0], values])


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (DRAW.poisson(4, 400), r"column 1 holds whole numbers\. .*dequantize=\{1: 1\}"),
        (NORMAL[:, 1].round(1), r"column 1 is rounded to 0\.1\. .*dequantize=\{1: 0\.1\}"),
        ((NORMAL[:, 1] * 4).round() / 4 + 0.1, r"rounded to 0\.25\. .*\{1: 0\.25\}"),
        (np.where(NORMAL[:, 1] < 0, 0.0, NORMAL[:, 1]), r"column 1 is 0 in 5\d\.\d% of the rows of data, and continuous"),
        (DRAW.standard_t(1, 400) ** 3, r"farther than 100 interquartile ranges.*column 1 \(.* in row \d+.*fit takes arcsinh"),
        (NORMAL[:, 1] + 2e4, r"column 1 of data lies so far from 0 that float32 keeps few digits"),
    ],
    ids=["counts", "rounded", "quarters", "atom", "tails", "offset"],
)
def test_odd_columns_are_warned_of(column, words):
    with pytest.warns(DataWarning, match=words) as caught:
        fit(0, GAUSS, with_column(column), **QUICK)
    caught = [each for each in caught if each.category is DataWarning]
    assert len(caught) == 1 and caught[0].filename == __file__


def test_columns_of_a_table_are_named():
    table = {"size": NORMAL[:, 0], "count": DRAW.poisson(4, 400)}
    results = []
    for kind in (pandas.DataFrame, polars.DataFrame):
        with pytest.warns(DataWarning, match=r"column 'count' holds whole numbers.*dequantize=\{'count': 1\}"):
            fit(0, GAUSS, kind(table), **QUICK)
        results.append(fit(0, GAUSS, kind(table), dequantize={"count": 1}, **QUICK))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), results[0].params, results[1].params))
    with pytest.raises(TypeError, match=r"fit: data: column 'count' holds .*expected numbers without missing"):
        fit(0, GAUSS, pandas.DataFrame({"size": NORMAL[:3, 0], "count": ["a", "b", "c"]}), **QUICK)
    missing = polars.DataFrame({"size": [0.0, 1.0, None, 4.0], "count": [1, 5, 3, 2]})
    assert "nan in row 2, column 'size'" in error_of(lambda: fit(0, GAUSS, missing, **QUICK))
    for wrong in ("weight", 2, -1, True):
        assert "expected one of the columns' names, size, count" in error_of(
            lambda wrong=wrong: fit(0, GAUSS, pandas.DataFrame(table), dequantize={wrong: 1.0}, **QUICK)
        )


def test_columns_without_density_are_refused():
    for copy in (NORMAL[:, 0], 7 - 3 * NORMAL[:, 0]):
        data = np.column_stack([NORMAL, copy])
        assert "column 2 of data is column 0 again, up to scale and offset" in error_of(
            lambda d=data: fit(0, GAUSS, d, **QUICK)
        )
    near = NORMAL[:, 0] + 1e-2 * DRAW.normal(size=400)
    fit(0, GAUSS, np.column_stack([NORMAL, near]), **QUICK)  # nearly a copy is none
    far = NORMAL.copy()
    far[17, 1] = 1e30
    assert "column 1 of data is 1e+30 in row 17, so far from all others" in error_of(
        lambda: fit(0, GAUSS, far, validation=NORMAL[:9], **QUICK)
    )


def test_a_step_is_found_where_there_is_one():
    assert step_of(NORMAL[:, 0]) is None and step_of(np.ones(50)) is None
    assert step_of(NORMAL[:, 0].astype(np.float32).astype(float)) is None
    for step in (0.05, 3.0, 1 / 8):
        values = step * np.round(DRAW.normal(size=2000) * 20) + 0.3
        assert step_of(values) == pytest.approx(step)
        assert step_of(values.astype(np.float32)) == pytest.approx(step, rel=1e-4)
    assert step_of(np.repeat(NORMAL[:50, 0], 8)) is None, "repeated, but on no grid"


# Values that were rounded


def test_the_layer_adds_noise_as_wide_as_a_step_and_takes_it_off_again():
    layer = flows.Dequantize((0.5, 0.0))
    x = jnp.asarray(np.column_stack([0.5 * DRAW.integers(-3, 4, 300) + 0.2, NORMAL[:300, 0]]), jnp.float32)
    params, direct_fun, inverse_fun = layer(0, 2, init_inputs=x)
    y, log_det = direct_fun(params, x, rng=1)
    noise = np.asarray(y - x)
    assert (noise[:, 1] == 0).all() and (log_det == 0).all() and (np.abs(noise[:, 0]) <= 0.25).all()
    assert len(np.unique(noise[:, 0])) > 290 and abs(noise[:, 0].mean()) < 0.05 and noise[:, 0].std() > 0.13
    np.testing.assert_allclose(inverse_fun(params, y)[0], x, atol=1e-5)
    np.testing.assert_array_equal(direct_fun(params, x)[0], x)
    assert layer.likelihood == flows.Flow(layer).likelihood == "lower bound"
    assert flows.remeasure(layer, params, x + 0.1)["fixed"]["offset"].shape == (2,)
    for wrong in (-1.0, float("nan"), "a", ((1.0,),)):
        assert "Dequantize" in error_of(lambda wrong=wrong: flows.Dequantize(wrong))
    assert "2 steps for 3 columns" in error_of(lambda: layer(0, 3))


@pytest.mark.parametrize("dequantize", [True, {1: 1.0}, (0.0, 1.0)], ids=["found", "by column", "steps"])
def test_counts_have_a_bound_on_their_mass(dequantize):
    """A normal of the noisy counts: its bound is below the mass of each cell, and close to it."""
    counts = np.random.default_rng(9).poisson(9, 400)
    data = with_column(counts)
    options = {"max_epochs": 30, "batch_size": 64, "learning_rate": 0.05, "verbose": 0}
    result = fit(0, GAUSS, data, dequantize=dequantize, validation=data, **options)
    assert result.init_fun == flows.Flow(flows.Serial(flows.Dequantize((0.0, 1.0)), flows.Whiten()), GAUSS)
    params, log_pdf, sample = result
    noisy = 1 + (1 / np.asarray(params["bijection"][1]["fixed"]["std"])[1]) ** 2 / 12  # the variance, standardised
    assert np.exp(2 * params["prior"]["log_scale"][1]) == pytest.approx(noisy, abs=0.025) and noisy < 1.02
    samples = np.asarray(sample(1, params, 500))
    assert (samples[:, 1] == samples[:, 1].round()).all() and not (samples[:, 0] == samples[:, 0].round()).all()
    x = jnp.asarray(data[:50], jnp.float32)
    bound = np.mean([log_pdf(params, x, rng=seed) for seed in range(200)], axis=0)
    grid = jnp.linspace(-0.5, 0.5, 201)
    cells = jax.vmap(lambda u: log_pdf(params, x.at[:, 1].add(u)))(grid)  # without rng: the density where it is asked
    mass, mean = np.log(np.trapezoid(np.exp(cells), grid, axis=0)), np.trapezoid(cells, grid, axis=0)
    np.testing.assert_allclose(bound, mean, atol=0.1)
    assert (mean < mass).all() and (mean > mass - 0.2).all()
    assert result.history["validation_loss"].min() == pytest.approx(-float(mass.mean()), abs=0.5)


def test_dequantize_is_refused_where_it_makes_no_sense():
    for wrong, words in (
        (True, "no column is rounded"),
        ({7: 1.0}, "expected one of the columns' numbers from 0 to 1"),
        ((1.0,), "expected True, a step, 2 steps"),
        ("all", "expected True, a step"),
        ({0: -1.0}, "expected finite steps"),
        (0.0, "and one above 0"),
    ):
        assert words in error_of(lambda wrong=wrong: fit(0, GAUSS, NORMAL, dequantize=wrong, **QUICK))


# Weights


def test_weights_are_as_good_as_copies():
    """Three rows of weight 2 are six rows: the same standardisation, and after many steps the same fit."""
    weights = np.random.default_rng(4).integers(0, 4, 400)
    long = {"max_epochs": 40, "batch_size": 400, "optimizer": optax.sgd(0.2), "verbose": 0, "validation": NORMAL[:50] + 0.1}
    weighted = fit(0, GAUSS, NORMAL, weights=weights, **long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        copied = fit(0, GAUSS, np.repeat(NORMAL, weights, axis=0), **{**long, "batch_size": 10_000})
    plain = fit(0, GAUSS, NORMAL, **long)
    for a, b, c in zip(*map(jax.tree.leaves, (weighted.params, copied.params, plain.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)  # the start is measured on 10,000 rows, by their weights
        assert not np.allclose(a, c, rtol=1e-3, atol=1e-3) or np.abs(c).max() < 1e-6, "weights change nothing"
    scaled = fit(0, GAUSS, NORMAL, weights=1e-3 * weights, **long)
    np.testing.assert_allclose(weighted.history["train_loss"], scaled.history["train_loss"], rtol=1e-4)


def test_weights_count_among_the_rows_held_out():
    weights = np.exp(NORMAL[:, 0])
    result = fit(0, GAUSS, NORMAL, weights=weights, **QUICK)
    held_out = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(0)))).permutation(400)[:40]
    losses = -np.average(result.log_pdf(result.params, NORMAL[held_out]), weights=weights[held_out])
    assert losses == pytest.approx(result.history["validation_loss"][result.history["best_epoch"]], rel=1e-4)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(399), r"weights have shape \(399,\), expected \(400,\)"),
        (np.ones((400, 1)), r"shape \(400, 1\)"),
        (np.zeros(400), "all are 0"),
        (-np.ones(400), "the weight of row 0 is not"),
        (np.where(np.arange(400) == 7, np.nan, 1.0), "the weight of row 7 is not"),
    ],
)
def test_bad_weights_are_refused(weights, words):
    with pytest.raises(flows.FlowsError, match=words):
        fit(0, GAUSS, NORMAL, weights=weights, **QUICK)


# The context


def test_the_units_of_the_context_change_nothing():
    conditional = flows.Flow(flows.Coupling(flows.MLP(8)))
    context = NORMAL[:, :1] + DRAW.normal(size=(400, 1))
    one, other = (fit(0, conditional, NORMAL, context=c, **QUICK) for c in (context, 1e5 * context - 3e5))
    base = flows.Normal(trainable=True, covariance="full", regression=True)
    based = flows.Flow(flows.Coupling(flows.MLP(8)), base)
    assert other.init_fun == flows.Flow(flows.Standardize(), flows.StandardizedContext(based))
    np.testing.assert_allclose(one.history["train_loss"], other.history["train_loss"], rtol=1e-3)
    asked = one.log_pdf(one.params, NORMAL, context=context), other.log_pdf(other.params, NORMAL, context=1e5 * context - 3e5)
    np.testing.assert_allclose(*asked, rtol=1e-2, atol=1e-2)
    constant = np.column_stack([context, np.ones(400)])
    assert np.isfinite(fit(0, conditional, NORMAL, context=constant, **QUICK).history["train_loss"]).all()


def test_a_standardized_context_is_the_distribution_at_other_units():
    inner = flows.Flow(flows.Coupling(flows.MLP(8, last_scale=1.0)))
    init_fun = flows.StandardizedContext(inner)
    context = jnp.asarray(5 + 3 * NORMAL[:20, :1], jnp.float32)
    x = jnp.asarray(NORMAL[:20], jnp.float32)
    params, log_pdf, sample = init_fun(0, 2, context_dim=1, init_context=context, init_inputs=x)
    seen = (context - context.mean(0)[None]) / context.std(0)[None]
    log_pdf_of_inner, sample_of_inner = inner(0, 2, context_dim=1)[1:]
    found = log_pdf(params, x, context=context)
    np.testing.assert_allclose(found, log_pdf_of_inner(params["distribution"], x, context=seen), rtol=1e-5, atol=1e-5)
    assert not np.allclose(found, log_pdf(params, x, context=context[0]))
    np.testing.assert_allclose(
        sample(3, params, 20, context=context),
        sample_of_inner(3, params["distribution"], 20, context=seen),
        rtol=1e-4,
        atol=1e-5,
    )
    moved = flows.remeasure(init_fun, params, x, context=2 * context)
    np.testing.assert_allclose(moved["fixed"]["mean"], 2 * params["fixed"]["mean"], rtol=1e-5)
    assert "there is no context" in error_of(lambda: init_fun(0, 2))
    assert "not its params" in error_of(lambda: init_fun(0, 2, context_dim=1, params={"a": 1.0}))


def test_tables_of_several_dtypes_and_rare_values():
    table = pandas.DataFrame({"x": NORMAL[:, 0], "flag": NORMAL[:, 1] > 0, "n": pandas.array(range(400), dtype="Int64")})
    with pytest.warns(DataWarning, match=r"column 'flag' holds whole numbers"):
        assert fit(0, GAUSS, table, **QUICK).input_dim == 3
    rare = np.zeros(100_001)
    rare[1] = 1.0
    data = np.column_stack([np.resize(NORMAL[:, 0], 100_001) + np.linspace(0, 1, 100_001), rare])
    with pytest.warns(DataWarning, match="column 1 is 0 in nearly all rows"):
        fit(0, GAUSS, data, validation=0 * NORMAL[:9], max_epochs=1, batch_size=50_000, verbose=0)
    masked = np.ma.masked_array(NORMAL, mask=NORMAL > 2)
    assert "masked values" in error_of(lambda: fit(0, GAUSS, masked, **QUICK))
    assert np.isfinite(fit(0, GAUSS, NORMAL, weights=np.full(400, 1e308), **QUICK).history["train_loss"]).all()


def test_the_spread_of_large_numbers_does_not_overflow():
    with enable_x64():
        result = fit(0, GAUSS, NORMAL * 1e200, **QUICK)
        np.testing.assert_allclose(result.params["bijection"]["fixed"]["std"] / 1e200, NORMAL.std(0), rtol=0.1)


def test_rows_are_told_by_their_number_in_the_data():
    far = NORMAL.copy()
    held_out = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(0)))).permutation(400)[:40]
    row = next(i for i in range(300, 400) if i not in held_out)
    for value, told in ((1e30, flows.FlowsError), (1e4, DataWarning)):
        far[row, 1] = value
        caught = (
            pytest.raises(told, match=f"in row {row}") if told is flows.FlowsError else pytest.warns(told, match=f"row {row}")
        )
        with caught:
            fit(0, GAUSS, far, **QUICK)


def test_what_only_looks_wrong_is_fitted():
    """A tenth of the rows on another scale are no outliers, and copies of their own noise are none."""
    scales = np.where(np.arange(400) % 5, 1e-7, 1.0) * NORMAL[:, 1]
    with pytest.warns(DataWarning, match="farther than 100 interquartile ranges"):
        fit(0, GAUSS, with_column(scales), **QUICK)
    coin = (NORMAL[:, 0] > 0).astype(float)
    assert np.isfinite(fit(0, GAUSS, np.column_stack([coin, 1 - coin]), dequantize=1.0, **QUICK).history["train_loss"]).all()
    fit(0, GAUSS, with_column(coin), dequantize={np.int64(1): np.float32(1)}, **QUICK)
    for step in (True, "a", [1, 2]):
        assert "expected a number" in error_of(
            lambda step=step: fit(0, GAUSS, with_column(coin), dequantize={1: step}, **QUICK)
        )


def test_a_validation_unlike_the_data_is_told_as_such():
    swapped = np.array([1e3, -1e3]) + NORMAL[:20]
    assert "the held-out part is unlike the training part" in error_of(
        lambda: fit(0, GAUSS, NORMAL, validation=swapped, **QUICK)
    )


def test_a_table_to_validate_on_has_the_columns_of_the_data():
    table = pandas.DataFrame(NORMAL, columns=["a", "b"])
    message = error_of(lambda: fit(0, AFFINE, table, validation=table[["b"]].assign(c=1.0), **QUICK))
    assert message.startswith("fit: validation lacks 'a'; it also has 'c'. Expected") and message.endswith("'a', 'b'")
    one, other = (fit(0, AFFINE, table, validation=table[:20][order], **QUICK) for order in (["a", "b"], ["b", "a"]))
    np.testing.assert_array_equal(one.history["validation_loss"], other.history["validation_loss"])


def test_weights_count_in_the_scale_of_the_context():
    c, w = np.arange(200.0)[:, None], np.r_[np.ones(100), np.zeros(99), 3.0]
    scale = scale_of_context(c, w)
    many = np.r_[c[:100], c[-1:], c[-1:], c[-1:]]
    np.testing.assert_allclose([*scale.mean, *scale.std], [many.mean(), many.std()])


@pytest.mark.parametrize("seed", range(8))
def test_an_outlier_is_named_whichever_share_it_fell_into(seed):
    far = NORMAL.copy()
    far[17, 1] = 400.0
    with pytest.warns(DataWarning, match=r"interquartile ranges from the median: column 1 \(400 in row 17, "):
        fit(seed, GAUSS, far, **QUICK)


@pytest.mark.parametrize("rate", [1e10, 1e30])
@pytest.mark.parametrize("base", [flows.Normal(), flows.Uniform(-9.0, 9.0)])
def test_a_rate_that_is_far_too_high_is_blamed_on_the_rate(rate, base):
    with pytest.raises(flows.FitError, match=r"it diverged.* Lower the learning rate"):
        fit(0, flows.Flow(flows.Coupling(flows.MLP(8)), base), NORMAL, **{**QUICK, "max_epochs": 3}, learning_rate=rate)
