"""Ensembles: many fits in one program, and what their members disagree on. And choosing among models."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import pytest
from common import AFFINE, QUICK, ROWS, error_of, interrupting

import flows
from flows.training import fit, fit_ensemble, loop
from flows.training.candidates import suggested
from flows.training.course import Course
from flows.training.step import State


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
    assert "not those of this ensemble" in error_of(lambda: ensemble.log_pdfs(params["prior"]["components"], ROWS))
    assert sample(1, params, 7).shape == (7, 2)
    assert ensemble.history["train_loss"].shape == ensemble.history["validation_loss"].shape == (3, 3)
    assert ensemble.history["best_epoch"].shape == (3,) and "best epoch" in repr(ensemble)
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
    start, state = {"w": jnp.zeros((2, 3))}, State(*[None] * 3, ({"w": jnp.ones((2, 3))}, ()), *[None] * 4)
    courses = [Course(validation=[9.0, 9.0, 9.0, 1.0], best_epoch=3), Course()]
    kept = loop._kept(SimpleNamespace(params=lambda parts: parts[0]), state, start, courses, SimpleNamespace(members=2))
    assert kept["w"].tolist() == [[1.0] * 3, [0.0] * 3]


def test_members_without_params_are_an_ensemble_too():
    result = fit_ensemble(0, flows.Normal(), ROWS, members=2, **QUICK)
    np.testing.assert_allclose(result.log_pdfs(result.params, ROWS[:4])[1], result.log_pdf(result.params, ROWS[:4]), rtol=1e-5)
    assert "fit_ensemble: max_epochs is 0" in error_of(lambda: fit_ensemble(0, AFFINE, ROWS, max_epochs=0))


# Choosing among models


def test_select_puts_the_better_model_first():
    ring = flows.datasets.EightGaussians()(0, 2)
    data = np.asarray(ring.sample(1, ring.params, 600))
    models = {"gauss": flows.Normal(trainable=True), "mixture": flows.Mixture(flows.Normal(trainable=True), num_components=8)}
    models["broken"] = flows.Flow(flows.Invert(flows.Exp()))
    selection = flows.select(0, models, data, max_epochs=40, batch_size=64, learning_rate=0.05, standardize=False, verbose=0)
    assert [each.name for each in selection.candidates] == ["mixture", "gauss", "broken"]
    best, gauss, broken = selection.candidates
    assert selection.best is best.result and best.behind == (0.0, 0.0) and best.num_params == 8 * 5
    assert gauss.behind[0] == pytest.approx(best.nats - gauss.nats, rel=1e-4) and gauss.behind[0] > 2 * gauss.behind[1] > 0
    assert broken.result is None and "no loss is finite" in broken.failure
    assert selection.folds == 5 and sorted(selection.rows) == list(range(600))
    last = selection.rows[480:]  # the result of a model that is not the best is that of the last fold
    scores = np.asarray(gauss.result.log_pdf(gauss.result.params, data[last]), float)
    np.testing.assert_allclose(gauss.scores[480:], scores, rtol=1e-4, atol=1e-4)
    assert gauss.nats == pytest.approx(gauss.scores.mean()) and len(gauss.scores) == 600
    assert gauss.error == pytest.approx(gauss.scores.std() / np.sqrt(600), rel=1e-3)
    table = str(selection).splitlines()
    assert len(table) == 4 and table[0].split()[0] == "model" and table[3].startswith("broken") and "failed" in table[3]


def size_of(model, dim, context_dim=0):
    params = jax.eval_shape(lambda: model(0, dim, context_dim=context_dim).params)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_without_candidates_there_is_a_list_for_the_data():
    for rows, event, conditional in ((100, (1,), False), (5_000, (6,), False), (10**6, (40,), False), (3_000, (2,), True)):
        plans = suggested(rows, event, conditional)
        assert conditional or plans["Normal()"] == flows.Normal()
        assert any(plan.constructor is flows.GMM for plan in plans.values()) != conditional
        assert any(plan.constructor is flows.Flow for plan in plans.values())
        assert all(size_of(plan, event[0], 2 if conditional else 0) or name == "Normal()" for name, plan in plans.items())
    sizes = [size_of(list(suggested(rows, (5,), False).values())[-1], 5) for rows in (100, 5_000, 10**6)]
    assert sizes[0] < sizes[1] < sizes[2], "more rows, larger models"
    assert "give candidates" in error_of(lambda: flows.select(0, None, np.ones((20, 4, 4, 1)) * ROWS[:20, :1, None, None]))


def test_what_cannot_be_selected_from_is_an_error():
    assert "expected a list or a dict" in error_of(lambda: flows.select(0, AFFINE, ROWS))
    assert "no candidates" in error_of(lambda: flows.select(0, [], ROWS))
    assert "no candidate could be fitted. Flow(Invert(Exp())): fit: no loss is finite" in error_of(
        lambda: flows.select(0, [flows.Flow(flows.Invert(flows.Exp()))], ROWS, **{**QUICK, "standardize": False})
    )


def test_select_speaks_of_the_data_as_given_and_once():
    table = pandas.DataFrame(ROWS, columns=["a", "b"])
    table.loc[123, "b"] = np.nan
    message = error_of(lambda: flows.select(0, None, table, **QUICK))
    assert "123" in message and "b" in message and message.count("fit:") == 1
    rounded = np.round(ROWS, 1)
    with pytest.warns(flows.training.DataWarning) as told:
        flows.select(0, {"a": flows.Normal(trainable=True), "b": flows.Normal()}, rounded, **QUICK)
    assert len(told) == 1 and told[0].filename == __file__


def test_a_candidate_that_fails_leaves_the_others(monkeypatch):
    def broken(rng, input_dim, **keywords):
        raise ValueError("no such layer")

    normal = flows.Normal(trainable=True)
    found = flows.select(0, {"broken": broken, "normal": normal}, ROWS, **QUICK)
    assert [each.name for each in found.candidates] == ["normal", "broken"]
    assert found.candidates[1].failure == "ValueError: no such layer"
    interrupting(monkeypatch, after=2)
    with pytest.warns(UserWarning, match="interrupted"):
        found = flows.select(0, {"a": normal, "b": flows.Normal()}, ROWS, **QUICK)
    a, b = found.candidates
    assert a.result.history.interrupted and len(a.result.history["train_loss"]) == 2
    assert b.result is None and b.failure == "not fitted, as another was interrupted"


def test_a_share_is_held_out_where_there_are_enough_rows():
    rows, w = np.random.default_rng(1).normal(size=(2100, 2)), np.r_[np.ones(2000), np.zeros(100)]
    models = {"standard": flows.Normal(), "shifted": flows.Normal(trainable=True)}
    selection = flows.select(0, models, rows, weights=w, validation=0.1, max_epochs=2, verbose=0)
    assert selection.folds == 1 and len(selection.rows) == 200 and selection.rows.max() < 2000
    assert str(selection).endswith("The first is no better, within 2 standard errors, than standard")
    given = flows.select(0, models, rows[:300], validation=rows[300:400], max_epochs=2, verbose=0)
    assert given.folds == 1 and given.rows.tolist() == list(range(100))


def test_a_hopeless_model_is_given_up():
    data = np.random.default_rng(1).normal(size=(2500, 2)) ** 2
    hopeless = flows.Mixture(flows.Normal(trainable=True), flows.Uniform(-1e4, 1e4), weights=(1e-6, 1 - 1e-6), trainable=False)
    models = {"flow": flows.Flow(flows.NSF(1, hidden=(8,), num_bins=4)), "hopeless": hopeless}
    selection = flows.select(0, models, data, max_epochs=12, learning_rate=1e-2, batch_size=500, standardize=False, verbose=0)
    assert selection.candidates[1].result is None
    assert selection.candidates[1].failure.startswith("given up after 4 epochs, ") and "given up" in str(selection)
    over = flows.select(0, models, data, max_epochs=2, total_minutes=1e-6, verbose=0)
    assert over.candidates[1].failure == "not fitted, as the time was over"


@pytest.mark.slow
def test_an_ensemble_and_a_mixture_can_be_candidates():
    data = np.random.default_rng(1).normal(size=(300, 2)) * [1, 3]
    found = flows.select(0, None, data, max_epochs=1, verbose=0)
    names = [each.name for each in found.candidates]
    assert "Normal()" in names and any(isinstance(each.result, flows.training.EnsembleResult) for each in found.candidates)
    assert found.folds == 5
    assert all(each.failure == "" or each.failure.startswith("given up") for each in found.candidates), str(found)
    assert found.best.log_pdf(found.best.params, data).shape == (300,)
