"""`flows.fit`: what it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import AFFINE, QUICK, held_out_first

import flows
from flows.diagnostics import enable_x64
from flows.training import DataWarning, FitResult, fit
from flows.training.loop.epochs import orders
from flows.training.loop.trainer import warmup_cosine

DRAW = np.random.default_rng(0)
NORMAL = DRAW.normal(size=(300, 2))
BIMODAL = np.where(DRAW.random((600, 1)) < 0.5, -2.0, 2.0) + 0.4 * DRAW.normal(size=(600, 2))
SPLINE = flows.Flow(flows.Autoregressive(flows.conditioners.MaskedMLP(8), flows.transformers.RationalQuadratic(num_bins=4)))
BASED = flows.Flow(SPLINE.arguments["bijection"], flows.Normal(trainable=True, covariance="full"))  # as `fit` trains it
LONG = {"max_epochs": 40, "batch_size": 64, "learning_rate": 1e-2, "verbose": 0}


@pytest.fixture(scope="module")
def fitted():
    return fit(0, SPLINE, BIMODAL, **LONG)


def gaussian_loss(x):
    return 0.5 * np.linalg.slogdet(np.cov(x.T))[1] + x.shape[1] * 0.5 * (1 + np.log(2 * np.pi))


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda p, q: bool((p == q).all()), a, b))


# What comes back


def test_the_result_is_a_distribution_with_a_history(fitted):
    params, log_pdf, sample = fitted
    assert isinstance(fitted, FitResult) and isinstance(fitted, flows.Distribution)
    assert (
        fitted.init_fun == flows.Flow(flows.Whiten(unmixed=(0,)), BASED) and fitted.input_dim == 2 and fitted.context_dim == 0
    )
    assert log_pdf(params, BIMODAL).shape == (600,) and sample(1, params, 5).shape == (5, 2)
    assert len(fitted.history["train_loss"]) == len(fitted.history["validation_loss"]) <= 40
    assert "  model        Flow(Whiten(unmixed=(0,)), Flow(Autoregressive(" in repr(fitted)
    assert log_pdf is fitted.init_fun(5, 2).log_pdf  # the functions of any equal model


def test_it_learns_what_a_gaussian_cannot(fitted):
    assert -fitted.log_pdf(fitted.params, BIMODAL).mean() < gaussian_loss(BIMODAL) - 0.4
    samples = np.asarray(fitted.sample(1, fitted.params, 2000))
    assert 0.3 < (samples[:, 0] > 0).mean() < 0.7 and (abs(samples) < 0.5).mean() < 0.2


def test_the_units_of_the_data_change_nothing_but_the_units(fitted):
    moved = fit(0, SPLINE, 1e3 * BIMODAL + 5e4, **LONG)
    difference = moved.log_pdf(moved.params, 1e3 * BIMODAL + 5e4) - fitted.log_pdf(fitted.params, BIMODAL)
    np.testing.assert_allclose(difference.mean(), -2 * np.log(1e3), atol=0.02)
    np.testing.assert_allclose(
        moved.history["validation_loss"].min() - fitted.history["validation_loss"].min(), 2 * np.log(1e3), atol=0.02
    )


def test_the_history_is_the_mean_log_pdf_of_held_out_rows(fitted):
    best = fitted.history["best_epoch"]
    order = held_out_first(0, 600)
    held_out = -fitted.log_pdf(fitted.params, BIMODAL[order[:60]]).mean()
    np.testing.assert_allclose(held_out, fitted.history["validation_loss"][best], rtol=1e-4)


def test_it_stops_early_with_the_best_params():
    result = fit(
        0,
        SPLINE,
        BIMODAL[:60],
        standardize="columns",
        folds=1,
        **{**LONG, "max_epochs": 200, "learning_rate": 0.05, "patience": 3},
    )
    losses, best = result.history["validation_loss"], result.history["best_epoch"]
    assert best == losses.argmin() and len(losses) == best + 4
    order = held_out_first(0, 60)
    np.testing.assert_allclose(-result.log_pdf(result.params, BIMODAL[order[:6]]).mean(), losses[best], rtol=1e-4)


def test_rows_to_validate_on_can_be_given():
    held_out = NORMAL[:50] + 0.5
    result = fit(0, AFFINE, NORMAL, validation=held_out.tolist(), **QUICK)
    best = result.history["best_epoch"]
    np.testing.assert_allclose(
        -result.log_pdf(result.params, held_out).mean(), result.history["validation_loss"][best], rtol=1e-4
    )
    np.testing.assert_allclose(result.params["bijection"]["fixed"]["mean"], NORMAL.mean(0), rtol=1e-4, atol=1e-4)  # of all rows

    conditional = flows.Flow(flows.Coupling(flows.MLP(4)))
    context = NORMAL[:, :1]
    result = fit(0, conditional, NORMAL, context=context, validation=(held_out, context[:50]), **QUICK)
    losses = -result.log_pdf(result.params, held_out, context=context[:50])
    np.testing.assert_allclose(losses.mean(), result.history["validation_loss"][result.history["best_epoch"]], rtol=1e-4)
    for wrong, told in (
        ((held_out, held_out), r"a pair \(data, context\); expected rows alone, as there is no context"),
        (held_out[:, :1], r"validation has shape \(50, 1\), expected \(rows, 2\)"),
        (held_out[:0], r"validation has shape \(0, 2\)"),
        (np.full((3, 2), np.nan), "fit: validation has nan in row 0"),
        ("all", "expected the share of rows"),
        (np.float32(1.5), "expected the share of rows"),
        (held_out[:, 0], r"validation has shape \(50,\), expected \(rows, 2\)"),
    ):
        with pytest.raises(flows.FlowsError, match=told):
            fit(0, AFFINE, NORMAL, validation=wrong, **QUICK)
    for wrong in (held_out, (held_out, None)):
        with pytest.raises(flows.FlowsError, match="rows alone; expected a pair"):
            fit(0, conditional, NORMAL, context=context, validation=wrong, **QUICK)
    two = fit(0, AFFINE, NORMAL, validation=tuple(map(tuple, held_out[:2])), **QUICK)  # rows, not a pair
    same_share = [fit(0, AFFINE, NORMAL, validation=share, **QUICK) for share in (0.25, np.float32(0.25))]
    assert len(two.history["train_loss"]) == 3 and same(same_share[0].params, same_share[1].params)


def test_the_same_seed_gives_the_same_bits():
    rate = 2.0**-10
    first, second, other = (fit(seed, AFFINE, NORMAL, learning_rate=rate, **QUICK) for seed in (1, 1, 2))
    assert same(first.params, second.params) and not same(first.params, other.params)
    numpy = {"max_epochs": np.int64(3), "batch_size": np.int32(90), "validation": np.float64(0.1), "verbose": np.bool_(False)}
    numpy["standardize"] = "columns"
    assert same(fit(1, AFFINE, NORMAL, **numpy, learning_rate=jnp.float32(rate)).params, first.params)


def test_data_of_every_kind_of_array_give_the_same_fit():
    x = np.round(NORMAL, 5)
    results = [fit(0, AFFINE, data, **QUICK) for data in (x, x.astype(np.float32), jnp.asarray(x), x.tolist())]
    assert all(np.allclose(result.history["train_loss"], results[0].history["train_loss"], atol=1e-4) for result in results)
    with pytest.warns(DataWarning, match="whole numbers"):
        whole = fit(0, AFFINE, (10 * x).astype(int), **QUICK)
    assert whole.params["bijection"]["fixed"]["std"].dtype == jnp.float32


def test_it_works_in_float64_where_the_data_are():
    with enable_x64():
        wide = fit(0, AFFINE, NORMAL, **QUICK)
        assert {leaf.dtype for leaf in jax.tree.leaves(wide.params)} == {np.dtype("float64")}
        narrow = fit(0, AFFINE, NORMAL.astype(np.float32), **QUICK)
        assert {leaf.dtype for leaf in jax.tree.leaves(narrow.params)} == {np.dtype("float32")}


def test_without_standardize_the_model_is_the_one_given():
    result = fit(0, AFFINE, NORMAL, **{**QUICK, "standardize": False})
    assert result.init_fun == AFFINE and result.log_pdf is AFFINE(0, 2).log_pdf


def test_images_are_standardised_by_channel():
    images = 5.0 + DRAW.normal(size=(40, 4, 4, 2)) * np.array([1.0, 3.0])
    result = fit(0, flows.Flow(flows.ActNorm()), images, **QUICK)
    np.testing.assert_allclose(result.params["bijection"]["fixed"]["std"], [1, 3], rtol=0.1)
    assert result.input_dim == (4, 4, 2) and result.sample(0, result.params, 2).shape == (2, 4, 4, 2)
    order = held_out_first(0, 40)
    held_out = -result.log_pdf(result.params, images[order[:4]]).mean()
    np.testing.assert_allclose(held_out, result.history["validation_loss"][result.history["best_epoch"]], rtol=1e-4)


def test_a_batch_larger_than_the_data_is_all_of_them_and_progress_is_shown(capfd):
    result = fit(0, AFFINE, NORMAL[:20], max_epochs=2, batch_size=10**6, folds=1)
    assert len(result.history["train_loss"]) == 2
    shown = capfd.readouterr().err
    assert "validation_loss=" in shown and "train_loss=" in shown
    fit(0, AFFINE, NORMAL[:20], **QUICK)
    assert capfd.readouterr() == ("", "")


def test_a_saved_fit_comes_back(fitted, tmp_path):
    path = tmp_path / "model.flows"
    fitted.save(path, metadata={"columns": ["a", "b"]})
    params, log_pdf, _ = flows.load(path)
    assert same(params, fitted.params) and (log_pdf(params, BIMODAL) == fitted.log_pdf(fitted.params, BIMODAL)).all()


# How it trains


def test_fixed_leaves_never_move():
    init_fun = flows.Flow(flows.Serial(flows.Shuffle(), flows.FixedInvertibleLinear(), flows.ActNorm()))
    result = fit(3, init_fun, NORMAL, validation=NORMAL + 0.3, optimizer=optax.adamw(1e-2, weight_decay=1.0), **QUICK)
    assert result.history["best_epoch"] >= 0
    layers = result.params["prior"]["bijection"]
    before = init_fun(3, 2).params["bijection"]
    assert same(layers[:2], before[:2])
    assert (layers[2]["shift"] != 0).any()


def test_each_epoch_has_another_order():
    order = orders(jax.random.key(0), 11, 3, (1, 3))
    first = order(0)
    assert first.shape == (3, 1, 3) and len(set(first.ravel())) == 9 and set(first.ravel()) < set(range(11))
    assert (order(0) == first).all() and (order(1) != first).any()
    assert (orders(jax.random.key(1), 11, 3, (1, 3))(0) != first).any()


@pytest.mark.parametrize("data", [NORMAL, {0: NORMAL[:90], 1: NORMAL[90:]}.values()], ids=["rows", "batches"])
def test_the_rate_warms_up_and_falls_along_a_cosine(data):
    taken = 3 * 3
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, warmup_steps=taken // 20, decay_steps=taken)
    own = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(schedule))
    often = {**QUICK, "steps_per_epoch": 3, "validation": NORMAL}
    a, b = (fit(0, AFFINE, data, **often, **which) for which in ({"learning_rate": 0.1}, {"optimizer": own}))
    np.testing.assert_allclose(a.history["validation_loss"], b.history["validation_loss"], rtol=1e-4)
    first = fit(0, AFFINE, data, **{**often, "max_epochs": 1}, learning_rate=0.1).history["validation_loss"]
    assert abs(first - a.history["validation_loss"][0]) > 1e-3
    long = optax.warmup_cosine_decay_schedule(0.0, 0.1, warmup_steps=5, decay_steps=100)
    np.testing.assert_allclose(warmup_cosine(0.1, 100)(40, 60), [long(i) for i in range(40, 100)], atol=1e-8)
    np.testing.assert_allclose(warmup_cosine(0.1, 100)(0, 40), [long(i) for i in range(40)], atol=1e-8)


def test_a_second_fit_of_an_equal_model_compiles_nothing():
    traces = []

    @flows.bijection
    def Counted():
        def init_fun(rng, shape):
            return {"log_scale": jnp.zeros(shape)}, direct_fun, lambda params, y: y * jnp.exp(-params["log_scale"])

        def direct_fun(params, x):
            traces.append(x.shape)
            return x * jnp.exp(params["log_scale"]), params["log_scale"].sum()

        return init_fun

    optimizers = [None, optax.adamw(1e-3), optax.sgd(optax.cosine_decay_schedule(1e-3, 100))]
    for optimizer in optimizers:
        fit(0, flows.Flow(Counted()), NORMAL, optimizer=optimizer, **QUICK)
    count = len(traces)
    for optimizer in optimizers:
        fit(1, flows.Flow(Counted()), 3 * NORMAL, optimizer=optimizer, **QUICK)
    fit(2, flows.Flow(Counted()), NORMAL, **{**QUICK, "max_epochs": 5, "learning_rate": 1e-2})
    assert len(traces) == count
    fit(1, flows.Flow(Counted()), NORMAL, **{**QUICK, "batch_size": 32})
    assert len(traces) > count


def test_a_conditional_model_uses_its_context():
    context = DRAW.normal(size=(400, 1))
    data = 2 * context + 0.3 * DRAW.normal(size=(400, 2))
    result = fit(0, flows.Flow(flows.Autoregressive(flows.conditioners.MaskedMLP(16))), data, context=context, **LONG)
    assert result.context_dim == 1
    assert -result.log_pdf(result.params, data, context=context).mean() < gaussian_loss(data) - 0.4
    at_two = result.sample(0, result.params, 500, context=jnp.array([2.0]))
    np.testing.assert_allclose(at_two.mean(0), [4, 4], atol=0.5)


def test_batch_norm_is_calibrated_on_the_training_rows():
    result = fit(0, flows.Flow(flows.BatchNorm()), NORMAL + 7, **{**QUICK, "batch_size": 32})
    fixed = result.params["prior"]["bijection"]["fixed"]
    np.testing.assert_allclose(fixed["mean"], 0, atol=1e-5)  # of the standardised rows, not of the last batch
    np.testing.assert_allclose(fixed["var"], 1, atol=1e-4)


@pytest.mark.parametrize("given", [{}, {"optimizer": optax.adam(3e-2)}], ids=["default", "optimizer"])
def test_the_validation_loss_is_that_of_the_measured_statistics(given):
    model = flows.Flow(flows.Serial(flows.BatchNorm(), flows.Coupling(flows.MLP(8)), flows.BatchNorm()))
    moved = NORMAL @ [[1.0, 2.0], [0.0, 1.0]] + 7
    rows, held_out = moved[:200], moved[200:]
    result = fit(0, model, rows, validation=held_out, **{**QUICK, "max_epochs": 1, "standardize": False}, **given)
    assert result.history["best_epoch"] == 0
    loss = -result.log_pdf(result.params, held_out).mean()
    np.testing.assert_allclose(result.history["validation_loss"], [loss], rtol=1e-5)
    last, again = (params["bijection"][2]["fixed"] for params in (result.params, flows.remeasure(model, result.params, rows)))
    np.testing.assert_allclose(last["mean"], again["mean"], atol=1e-5)
    np.testing.assert_allclose(last["var"], again["var"], rtol=1e-4)


def test_a_model_that_draws_numbers_gets_its_keys():
    @flows.distribution(likelihood="lower bound")
    def Noisy():
        def init_fun(rng, shape):
            return {"log_scale": jnp.zeros(shape)}, log_pdf, lambda rng, params: jax.random.normal(rng, shape)

        def log_pdf(params, x, rng):
            z = (x + 0.1 * jax.random.normal(rng, x.shape)) * jnp.exp(params["log_scale"])
            return params["log_scale"].sum() - 0.5 * jnp.square(z).sum()

        return init_fun

    result = fit(0, Noisy(), NORMAL, **QUICK)
    assert np.isfinite(result.history["validation_loss"]).all()


def test_plain_closures_and_models_without_params_fit_too():
    def plain(rng, input_dim):
        def log_pdf(params, x):
            return -0.5 * jnp.square(x).sum(1) - input_dim * jnp.log(2 * jnp.pi) / 2

        return {}, log_pdf, lambda rng, params, n=1: jax.random.normal(rng, (n, input_dim))

    losses = [fit(0, init_fun, NORMAL, **QUICK).history["validation_loss"] for init_fun in (plain, flows.Normal())]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert len(losses[0]) == 1  # there is nothing to train


def test_a_model_of_ordinary_python_trains_row_by_row():
    step = flows.FromFunction(lambda params, x: x * 3.0 if x[0] > 0 else x * 2.0, vectorize=False)
    result = fit(0, flows.Flow(flows.Serial(flows.ActNorm(), step)), NORMAL[:4], **{**QUICK, "max_epochs": 1})
    assert np.isfinite(result.history["validation_loss"]).all()
