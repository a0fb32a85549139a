"""`Whiten` and `Arcsinh`: correlation and tails measured from data and taken out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close

import flows

RNG = np.random.default_rng(0)
MIXING = np.array([[2.0, 0.0, 0.0], [-1.5, 0.5, 0.0], [3.0, 1.0, 0.1]])
ROWS = (RNG.normal(size=(400, 3)) @ MIXING.T + [5.0, -3.0, 100.0]).astype(np.float32)


def measured(rows=ROWS, **arguments):
    return flows.Whiten(**arguments)(0, rows.shape[1], init_inputs=rows)


def test_rows_have_mean_0_variance_1_and_no_correlation_afterwards():
    params, direct_fun, inverse_fun = measured()
    y, log_det = direct_fun(params, ROWS)
    close(np.asarray(y).mean(0), 0, 1e-3)
    close(np.cov(y.T, bias=True), np.eye(3), 1e-4)
    close(log_det, -0.5 * np.linalg.slogdet(np.cov(ROWS.T, bias=True))[1], 1e-3)
    jacobian = jax.jacobian(lambda x: direct_fun(params, x[None])[0][0])(ROWS[0])
    assert np.abs(np.triu(jacobian, 1)).max() == 0 and np.abs(np.tril(jacobian, -1)).max() > 1
    close(log_det[0], np.linalg.slogdet(np.asarray(jacobian, float))[1], 1e-4)
    back, log_det_back = inverse_fun(params, y)
    close(back, ROWS, 1e-4)
    close(log_det_back, -log_det, 0)


def test_correlations_beyond_what_a_covariance_in_float32_could_hold():
    z = RNG.normal(size=(2000, 2))
    rows = np.stack([z[:, 0], z[:, 0] + 1e-4 * z[:, 1]], 1).astype(np.float32)
    params, direct_fun, inverse_fun = measured(rows)
    y = direct_fun(params, rows)[0]
    close(np.cov(y.T, bias=True), np.eye(2), 0.02)
    close(inverse_fun(params, y)[0], rows, 1e-6)


def test_shrinkage_is_of_the_correlation():
    params, *_ = measured(shrinkage=0.25)
    factor = np.asarray(params["fixed"]["factor"])
    close(factor @ factor.T, 0.75 * np.corrcoef(ROWS.T) + 0.25 * np.eye(3), 1e-5)
    assert measured(shrinkage=1.0).params["fixed"]["factor"].tolist() == np.eye(3).tolist()


@pytest.mark.parametrize("rows", [ROWS[:2], np.stack([ROWS[:, 0], ROWS[:, 1], ROWS[:, 0]], 1)], ids=["few rows", "a copy"])
def test_a_correlation_without_inverse_leaves_finite_params(rows):
    params, direct_fun, _ = measured(rows)
    assert np.diagonal(params["fixed"]["factor"]).min() > 0
    y, log_det = direct_fun(params, ROWS)
    assert np.isfinite(y).all() and np.isfinite(log_det).all()
    assert np.isfinite(measured(rows, shrinkage=0.1)[1](params, ROWS)[0]).all()


def test_columns_that_stay_as_they_are():
    params, direct_fun, _ = measured(as_is=(1,))
    y = np.asarray(direct_fun(params, ROWS)[0])
    assert (y[:, 1] == ROWS[:, 1]).all()
    close(np.cov(y[:, [0, 2]].T, bias=True), np.eye(2), 1e-4)
    params, direct_fun, _ = flows.Standardize(as_is=(1,))(0, 3, init_inputs=ROWS)
    y = np.asarray(direct_fun(params, ROWS)[0])
    assert (y[:, 1] == ROWS[:, 1]).all()
    close(y[:, [0, 2]].std(0), 1, 1e-4)


def test_log_dets_are_those_of_the_leaves_stored():
    params, direct_fun, inverse_fun = measured()
    moved = jax.tree.map(lambda leaf: leaf + 0.3 * np.abs(RNG.normal(size=leaf.shape)).astype(np.float32), params)
    y, log_det = direct_fun(moved, ROWS[:4])
    jacobian = np.asarray(jax.jacobian(lambda x: direct_fun(moved, x[None])[0][0])(ROWS[0]), float)
    close(log_det, np.linalg.slogdet(jacobian)[1], 1e-4)
    close(inverse_fun(moved, y)[0], ROWS[:4], 1e-3)


def test_it_keeps_what_it_measured():
    flow = flows.Serial(flows.Whiten(), flows.BatchNorm())
    params = flow(0, 3, init_inputs=ROWS).params
    again = flows.remeasure(flow, params, 7 * ROWS)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), params[0], again[0]))
    assert (params[1]["fixed"]["mean"] != again[1]["fixed"]["mean"]).all()


def test_an_infinite_entry_stays_and_makes_no_nan():
    params, direct_fun, inverse_fun = measured()
    x = jnp.asarray(ROWS[:2]).at[0, 1].set(-jnp.inf)
    y = direct_fun(params, x)[0]
    assert y[0, 1] == -jnp.inf and np.isfinite(y[0, ::2]).all() and np.isfinite(y[1]).all()
    assert inverse_fun(params, y)[0][0, 1] == -jnp.inf
    density = flows.Flow(flows.Whiten())
    log_pdf = density(0, 3, init_inputs=ROWS)
    assert log_pdf.log_pdf(log_pdf.params, x)[0] == -jnp.inf
    assert np.isnan(direct_fun(params, x.at[0, 0].set(jnp.nan))[0][0]).any()


@pytest.mark.parametrize(
    ("make", "event", "message"),
    [
        (lambda: flows.Whiten(shrinkage=-0.1), 2, "Whiten: shrinkage is -0.1; expected a number from 0 to 1"),
        (lambda: flows.Whiten(shrinkage=True), 2, "shrinkage is True"),
        (lambda: flows.Whiten(as_is=(2,)), 2, "as_is names feature 2, but there are 2, counted from 0"),
        (lambda: flows.Whiten(as_is=("a",)), 2, "expected numbers of features"),
        (lambda: flows.Whiten(unmixed=(3,)), 2, "unmixed names feature 3, but there are 2"),
        (lambda: flows.Arcsinh((2,)), 2, "Arcsinh: features names feature 2, but there are 2, counted from 0"),
        (flows.Arcsinh, (2, 2, 3), "Arcsinh: the event is .*; expected a vector"),
        (lambda: flows.Standardize(as_is=(-1,)), 2, "expected numbers of features"),
        (flows.Whiten, (2, 2, 3), "expected a vector of at most 512 features"),
        (flows.Whiten, 513, "expected a vector of at most 512 features"),
    ],
)
def test_what_it_refuses(make, event, message):
    with pytest.raises(flows.FlowsError, match=message):
        make()(0, event, init_inputs=np.ones((3, event) if isinstance(event, int) else (3, *event), np.float32))


def test_unmixed_features_are_scaled_alone_and_others_freed_of_them():
    params, direct_fun, inverse_fun = measured(unmixed=(1,))
    y, log_det = direct_fun(params, ROWS)
    z = (ROWS - ROWS.mean(0)) / ROWS.std(0)
    close(np.asarray(y)[:, 1], z[:, 1], 1e-4)
    close(np.asarray(y)[:, [0, 2]], np.asarray(measured()[1](measured().params, ROWS)[0])[:, [0, 2]], 1e-3)
    assert abs(np.corrcoef(np.asarray(y).T)[0, 1]) > 0.9 and np.abs(np.corrcoef(np.asarray(y).T)[2, :2]).max() < 1e-3
    jacobian = jax.jacobian(lambda x: direct_fun(params, x[None])[0][0])(ROWS[0])
    close(log_det[0], np.linalg.slogdet(np.asarray(jacobian, float))[1], 1e-4)
    close(inverse_fun(params, y)[0], ROWS, 1e-4)


def test_arcsinh_makes_a_cauchy_tame():
    rows = RNG.standard_cauchy((4000, 2)).astype(np.float32)
    params, direct_fun, inverse_fun = flows.Arcsinh((1,))(0, 2, init_inputs=rows)
    y = np.asarray(direct_fun(params, rows)[0])
    assert (y[:, 0] == rows[:, 0]).all() and np.abs(y[:, 1]).max() < 12 < np.abs(rows[:, 1]).max()
    close(np.median(y[:, 1]), 0, 1e-4)
    close(inverse_fun(params, y)[0] / rows, 1, 1e-4)
    far, log_det = direct_fun(params, jnp.array([[0.0, 1e30], [0.0, -jnp.inf], [0.0, jnp.nan]]))
    assert 60 < far[0, 1] < 80 and np.isfinite(log_det[0]) and far[1, 1] == -jnp.inf and np.isnan(far[2, 1])
    again = flows.remeasure(flows.Arcsinh(), flows.Arcsinh()(0, 2, init_inputs=rows).params, 7 * rows)
    assert (again["fixed"]["scale"] == flows.Arcsinh()(0, 2, init_inputs=rows).params["fixed"]["scale"]).all()


def test_arcsinh_of_rows_keeps_their_direction():
    rows = (RNG.normal(size=(2000, 3)) / np.sqrt(RNG.chisquare(1, size=(2000, 1)))).astype(np.float32)
    params, direct_fun, inverse_fun = flows.Arcsinh((0, 1, 2), together=True)(0, 4, init_inputs=np.c_[rows, rows[:, :1]])
    shift, scale = (np.asarray(params["fixed"][name]) for name in ("shift", "scale"))
    x = shift + scale * np.float32(10) ** np.arange(-2, 31, 4, dtype=np.float32)[:, None] * np.float32([1.0, -2.0, 0.5, 1.0])
    y, log_det = direct_fun(params, x)
    close(y[:, :3] / y[:, :1], np.tile([1.0, -2.0, 0.5], (len(x), 1)), 1e-5)
    assert (y[:, 3] == x[:, 3]).all() and np.abs(y[:, :3]).max() < 130 and np.isfinite(log_det).all()
    assert (np.diff(np.abs(y[:, 0])) > 0).all()
    close(direct_fun(params, (shift + scale)[None])[0][0, :3], np.arcsinh(1.0), 1e-5)
    close((np.asarray(inverse_fun(params, y)[0]) - shift)[:, :3] / (x - shift)[:, :3], 1, 1e-3)
    centre = np.asarray(jax.grad(lambda x: sum(each.sum() for each in direct_fun(params, x)))(shift[None]))
    close(centre[0, :3] * scale[:3], 1, 1e-6)
    with pytest.raises(flows.FlowsError, match="together is 'rows'; expected True or False"):
        flows.Arcsinh(together="rows")(0, 2)
