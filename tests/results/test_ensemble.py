"""Ensembles: many fits in one program, and what their members disagree on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import AFFINE, QUICK, ROWS, error_of

import flows
from flows.training import fit, fit_ensemble
from flows.training.loop.driver import best_or_start
from flows.training.loop.progress import Progress


@pytest.fixture(scope="module")
def ensemble():
    return fit_ensemble(0, AFFINE, ROWS, members=3, **QUICK)


def test_an_ensemble_is_the_mixture_of_its_members(ensemble):
    params, log_pdf, sample = ensemble
    mixture = flows.Mixture(AFFINE, num_components=3, trainable=False)
    assert ensemble.init_fun == flows.Flow(flows.Standardize(), mixture) and ensemble.members == 3
    each = ensemble.log_pdfs(params, ROWS[:20])
    assert each.shape == (3, 20) and float(each.std(0).min()) > 1e-4, "no two members are equal"
    np.testing.assert_allclose(log_pdf(params, ROWS[:20]), jax.nn.logsumexp(each, 0) - np.log(3), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ensemble.log_pdfs(params, ROWS[:20].tolist()), each)
    assert "do not belong to this ensemble" in error_of(lambda: ensemble.log_pdfs(params["prior"]["components"], ROWS))
    assert sample(1, params, 7).shape == (7, 2)
    assert ensemble.history["train_loss"].shape == ensemble.history["validation_loss"].shape == (3, 3)
    assert ensemble.history["best_epoch"].shape == (3,) and "best epoch" in repr(ensemble)
    with pytest.raises(KeyError, match="the history has no 'loss'; it has train_loss, validation_loss"):
        ensemble.history["loss"]
    axes = ensemble.history.plot()
    assert len(axes.get_lines()) == 10  # and the Gaussian
    axes.figure.clear()


def test_a_member_is_what_a_fit_of_its_own_would_be():
    """The same rows held out, its own key for the init and the batches."""
    ensemble = fit_ensemble(0, AFFINE, ROWS, members=2, validation=ROWS[:40], **QUICK)
    for i, key in enumerate(jax.random.split(jax.random.key(0), 2)):
        alone = fit(key, AFFINE, ROWS, validation=ROWS[:40], **QUICK)
        np.testing.assert_allclose(ensemble.history["validation_loss"][i], alone.history["validation_loss"], rtol=1e-4)
        np.testing.assert_allclose(
            ensemble.log_pdfs(ensemble.params, ROWS)[i], alone.log_pdf(alone.params, ROWS), rtol=1e-3, atol=1e-3
        )


def test_members_stop_with_their_own_best_params():
    ensemble = fit_ensemble(
        0, AFFINE, ROWS[:60], members=3, standardize="columns",
        max_epochs=40, batch_size=54, patience=4, optimizer=optax.adam(0.1), verbose=0,
    )  # fmt: skip
    best = ensemble.history["best_epoch"]
    assert len(set(best.tolist())) > 1, "members have their best at different times"
    assert ensemble.history["validation_loss"].shape[1] == best.max() + 5
    held_out = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(0)))).permutation(60)[:6]
    losses = -ensemble.log_pdfs(ensemble.params, ROWS[held_out]).mean(1)
    np.testing.assert_allclose(losses, ensemble.history["validation_loss"][np.arange(3), best], rtol=1e-3, atol=1e-3)


def test_context_files_and_resuming(tmp_path):
    conditional = flows.Flow(flows.Coupling(flows.MLP(8, last_scale=1.0)))
    options = {"members": 2, "context": ROWS[:, :1], "checkpoint": tmp_path, "checkpoint_every": 1e-9, **QUICK}
    first = fit_ensemble(0, conditional, ROWS, **options)
    again = fit_ensemble(0, conditional, ROWS, **options)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(again.params), strict=True))
    each = first.log_pdfs(first.params, ROWS[:5], context=ROWS[:5, :1])
    np.testing.assert_allclose(
        first.log_pdf(first.params, ROWS[:5], context=ROWS[:5, :1]), jax.nn.logsumexp(each, 0) - np.log(2), rtol=1e-5, atol=1e-5
    )
    first.save(tmp_path / "ensemble.flows")
    params, log_pdf, _ = flows.load(tmp_path / "ensemble.flows")
    np.testing.assert_array_equal(
        log_pdf(params, ROWS[:5], context=ROWS[:5, :1]), first.log_pdf(first.params, ROWS[:5], context=ROWS[:5, :1])
    )
    assert "members was 2" in error_of(lambda: fit_ensemble(0, conditional, ROWS, **{**options, "members": 3}))
    assert "members is 0" in error_of(lambda: fit_ensemble(0, AFFINE, ROWS, members=0))


def test_a_member_that_cannot_be_helped_is_named():
    @flows.bijection
    def Fragile():
        """Finite in some of the members."""

        def init_fun(rng, shape):
            return {"b": jax.random.uniform(rng, ())}, direct_fun, lambda params, y: y

        def direct_fun(params, x):
            return x, jnp.where(params["b"] < 0.5, 0 * params["b"], jnp.nan)

        return init_fun

    with pytest.raises(flows.FitError, match=r"no loss of member \d is finite at the initial params: log_pdf is nan") as error:
        fit_ensemble(0, flows.Flow(Fragile()), ROWS, members=6, **QUICK)
    best = error.value.history["best_epoch"]
    start = error.value.history["start_loss"]
    assert best.max() <= 0 and error.value.history["train_loss"].shape == (6, 1)
    assert np.isinf(start).any() and np.isfinite(start).any()


def test_the_members_that_were_fitted_are_kept_where_one_was_not():
    """Member 1 has no best epoch, so it is as it was at the start; the other has moved."""
    best, start = {"w": jnp.ones((2, 3))}, {"w": jnp.zeros((2, 3))}
    progress = [Progress(validation=[9.0, 9.0, 9.0, 1.0], best_epoch=3), Progress()]
    kept = best_or_start(best, start, progress, 2)
    assert kept["w"].tolist() == [[1.0] * 3, [0.0] * 3]


def test_members_without_params_are_an_ensemble_too():
    result = fit_ensemble(0, flows.Normal(), ROWS, members=2, **QUICK)
    np.testing.assert_allclose(result.log_pdfs(result.params, ROWS[:4])[1], result.log_pdf(result.params, ROWS[:4]), rtol=1e-5)
    assert "fit: max_epochs is 0" in error_of(lambda: fit_ensemble(0, AFFINE, ROWS, max_epochs=0))


def test_members_of_a_fit_are_an_ensemble():
    """`fit(members=)` is `fit_ensemble`, also where few rows would have been fitted over folds."""
    large = flows.Flow(flows.Coupling(flows.MLP(32, 32)))  # of more numbers than there are rows
    by_fit = fit(0, large, ROWS, members=2, **QUICK)
    assert isinstance(by_fit, flows.training.EnsembleResult) and by_fit.members == 2 and not by_fit.folds
    again = fit_ensemble(0, large, ROWS, members=2, **QUICK)
    np.testing.assert_array_equal(by_fit.log_prob(ROWS[:5]), again.log_prob(ROWS[:5]))
    with pytest.raises(TypeError, match="members is 2 and folds is 5; expected one of them"):
        fit(0, AFFINE, ROWS, members=2, folds=5)
    assert "members is 0" in error_of(lambda: fit(0, AFFINE, ROWS, members=0))
