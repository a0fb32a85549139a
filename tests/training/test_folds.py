"""`fit` to few rows: models that each hold out another part of them, and their average."""

import jax
import numpy as np
import pytest
from common import close, error_of
from scipy.special import logsumexp

import flows
from flows.training import DataWarning, EnsembleResult, fit
from flows.training.data.facts import check
from flows.training.data.gaussian import regression_loss
from flows.training.data.prepare import prepare
from flows.training.data.read import read
from flows.training.data.table import Rows, split_numbers
from flows.training.model_view import ModelView
from flows.training.options import Options

DRAW = np.random.default_rng(0)
ROWS = DRAW.normal(size=(62, 2)) @ [[1.0, 2.0], [0.0, 0.5]]
MODEL = flows.Flow(flows.Coupling(flows.MLP(16)))
QUICK = {"max_epochs": 3, "batch_size": 16, "verbose": 0}


def held_out(n=62, folds=5, seed=0):
    order = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(seed))).tolist()).permutation(n)
    return order[: n // folds * folds].reshape(folds, -1)


@pytest.fixture(scope="module")
def averaged():
    return fit(0, MODEL, ROWS, **QUICK)


def test_few_rows_are_averaged_over_folds_by_default(averaged):
    assert isinstance(averaged, EnsembleResult) and averaged.members == 5
    base = flows.Normal(trainable=True, covariance="full", shrinkage=0.001)
    member = flows.Flow(flows.Standardize(), flows.Flow(MODEL.arguments["bijection"], base))
    assert averaged.init_fun == flows.Mixture(member, num_components=5, trainable=False) and averaged.member == member
    means = averaged.params["components"]["bijection"]["fixed"]["mean"]  # each measured on what it is trained on
    close(means, [np.delete(ROWS, fold, 0).mean(0) for fold in held_out()], 1e-5)
    each = np.asarray(averaged.log_pdfs(averaged.params, ROWS), float)
    close(averaged.log_pdf(averaged.params, ROWS), logsumexp(each, 0) - np.log(5), 1e-5)
    best = np.minimum(averaged.history["validation_loss"].min(1), averaged.history["start_loss"])
    close([-each[i, fold].mean() for i, fold in enumerate(held_out())], best, 1e-5)  # each by rows of its own
    assert np.abs(np.diff(best)).min() > 1e-3
    for single in (
        fit(0, MODEL, ROWS, folds=1, **QUICK),
        fit(0, MODEL, ROWS, validation=0.1, **QUICK),
        fit(0, flows.Normal(trainable=True, covariance="full"), DRAW.normal(size=(15, 6)), **QUICK),
        fit(0, MODEL, np.tile(ROWS, (4, 1)) + 0.1 * DRAW.normal(size=(248, 2)), **QUICK),
    ):
        assert not isinstance(single, EnsembleResult) and single.history["validation_loss"].ndim == 1


def test_the_yardstick_is_that_of_the_folds(averaged):
    losses = []
    for fold in held_out():
        others = np.setdiff1d(np.arange(62), fold)
        losses.append(regression_loss(Rows(ROWS[others]), Rows(ROWS[fold])))
    close(averaged.history["gaussian_loss"], np.mean(losses), 1e-9)


def test_no_member_sees_what_it_holds_out():
    options, key = Options(), jax.random.key(0)
    found = read(ROWS, options, key)
    rows = prepare(found, check(ModelView(MODEL, (2,), None), found, options, key), options, key)
    assert rows.train.x.shape == (5, 50, 2) and rows.held_out.x.shape == (5, 12, 2)
    for i, fold in enumerate(held_out()):
        own = rows.member(i)
        assert set(own.split.train.numbers) == set(range(62)) - set(fold) and (own.split.others == fold).all()
        scale = own.pipeline.steps[0].fixed
        close(scale["mean"], ROWS[own.split.train.numbers].mean(0), 1e-7)
        close([of_folds[i] for of_folds in rows.yardstick.log_dets], -np.log(scale["std"]).sum(), 1e-9)
        for x, numbers in ((rows.train.x[i], own.split.train.numbers), (rows.held_out.x[i], fold)):
            close(own.deviations(x) * scale["std"] + scale["mean"], ROWS[numbers], 1e-5)


def test_folds_with_weights_contexts_and_noise():
    weights = DRAW.random(62)
    counts = np.round(4 * ROWS)
    result = fit(0, MODEL, counts, weights=weights, dequantize=1.0, folds=3, **QUICK)
    assert result.init_fun.likelihood == "lower bound" and result.members == 3
    assert np.isfinite(result.log_pdf(result.params, counts, rng=1)).all()
    noisy = result.log_pdfs(result.params, counts, rng=1)
    assert noisy.shape == (3, 62) and (noisy != result.log_pdfs(result.params, counts)).any()
    result = fit(0, MODEL, ROWS[:, :1] ** 3, context=ROWS[:, 1:], weights=weights, folds=3, support=(-1e3, 1e3), **QUICK)
    assert result.sample(0, result.params, 4, context=ROWS[0, 1:]).shape == (4, 1)
    each = np.asarray(result.log_pdfs(result.params, ROWS[:, :1] ** 3, context=ROWS[:, 1:]), float)
    best = np.minimum(result.history["validation_loss"].min(1), result.history["start_loss"])
    expected = [-np.average(each[i, fold], weights=weights[fold]) for i, fold in enumerate(held_out(folds=3))]
    close(expected, best, 1e-4)


def test_folds_go_on_from_a_checkpoint(averaged, tmp_path):
    stop = {"callbacks": [lambda epoch: epoch.number == 0]}
    fit(0, MODEL, ROWS, checkpoint=tmp_path, **QUICK, **stop)
    again = fit(0, MODEL, ROWS, checkpoint=tmp_path, **QUICK)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again.params, averaged.params))
    assert "folds" in error_of(lambda: fit(0, MODEL, ROWS, checkpoint=tmp_path, folds=4, **QUICK))


@pytest.mark.filterwarnings("ignore::flows.training.DataWarning")
def test_choices_are_those_of_all_rows():
    """A column with so many zeros that the quartiles of some folds are all 0."""
    rng = np.random.default_rng(0)
    column = np.zeros(100)
    column[rng.permutation(100)[:26]] = np.exp(2 * rng.normal(size=26))
    result = fit(0, MODEL, np.c_[rng.normal(size=100), column], folds=5, **QUICK)
    each = np.asarray(result.log_pdfs(result.params, np.c_[rng.normal(size=100), column]), float)
    assert np.isfinite(each).all() and len({repr(result.member)}) == 1


@pytest.mark.filterwarnings("ignore:fit. column 1:flows.training.DataWarning")
def test_all_rows_are_judged():
    rows = DRAW.normal(size=(100, 2))
    rows[split_numbers(100, 0.1, jax.random.key(0))[1][0], 0] = 1e30
    with pytest.warns(UserWarning, match="decides the score"), pytest.warns(DataWarning, match=r"column 0 \(1e\+30 in row \d+"):
        result = fit(0, MODEL, rows, folds=5, **QUICK)
    assert np.isfinite(result.log_pdf(result.params, rows)).all()
    rare = np.r_[np.zeros(99), 1.0]
    assert "constant (0.0 in all 80 training rows without fold" in error_of(
        lambda: fit(0, MODEL, np.c_[rows[:, 1], rare], folds=5, **QUICK)
    )


def test_a_row_that_decides_a_fold_is_named():
    rows = np.r_[ROWS, ROWS + 0.1]
    rows[7] = [60.0, -60.0]
    with pytest.warns(UserWarning, match=r"row 7 of data, one of 24 held out, has log-density"):
        fit(0, flows.Flow(flows.ActNorm()), rows, folds=5, **QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 32}, "folds is 32; expected folds from 2 to 31, half the rows"),
        ({"folds": 0}, "fit: folds is 0"),
    ],
)
def test_what_it_refuses(options, message):
    assert message in error_of(lambda: fit(0, MODEL, ROWS, **options, **QUICK))


def test_folds_leave_no_rows_to_validate_on():
    with pytest.raises(TypeError, match="folds=3 holds out each row once; leave validation out"):
        fit(0, MODEL, ROWS, folds=3, validation=0.2, **QUICK)
    batches = [ROWS[:31], ROWS[31:]]
    message = error_of(lambda: fit(0, MODEL, batches.__iter__(), folds=3, steps_per_epoch=2, **QUICK))
    assert "of which no share can be held out" in message
