"""`select`: models compared on rows that they have not seen, and their stack."""

import time
from types import SimpleNamespace

import jax
import numpy as np
import pandas
import pytest
from common import AFFINE, QUICK, ROWS, close, error_of, interrupting

import flows
from flows.results.held_out import Kept
from flows.training import comparison
from flows.training.comparison import Candidate, Comparison, SelectOptions, as_one, mixed, stacked_scores
from flows.training.data.read import read_arrays
from flows.training.devices import Devices
from flows.training.select import Selection, suggested

DRAW = np.random.default_rng(0)


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
    assert broken.result is None and "no loss of member 0 is finite" in broken.failure
    assert selection.folds == 5 and sorted(selection.rows) == list(range(600))
    last = selection.rows[480:]  # each row is scored by the member that has not seen it
    scores = np.asarray(gauss.result.log_pdfs(gauss.result.params, data[last])[4], float)
    np.testing.assert_allclose(gauss.scores[480:], scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gauss.scores, gauss.result.scores.ravel(), rtol=1e-4, atol=1e-4)
    assert gauss.result.folds and all(each.cost > 0 for each in (best, gauss))
    seen = np.roll(selection.rows, -120).reshape(5, 120)  # each member was trained on the rows held out in the next fold
    scores = [gauss.result.log_pdfs(gauss.result.params, data[rows])[i] for i, rows in enumerate(seen)]
    assert gauss.result.history["trained_loss"] == pytest.approx(-np.mean(scores), rel=1e-4)
    assert gauss.nats == pytest.approx(gauss.scores.mean()) and len(gauss.scores) == 600
    assert gauss.error == pytest.approx(gauss.scores.std() / np.sqrt(600), rel=1e-3)
    assert selection.weights == {"mixture": 1.0} and selection.stack is selection.single is best.result
    table = str(selection).splitlines()
    assert len(table) == 4 and table[0].split()[0] == "model" and table[3].startswith("broken") and "failed" in table[3]


def apart(rows):
    """Two thirds of the rows around (0, 0), one around (9, 0); and models that know one of them each, and both badly."""
    data = DRAW.normal(size=(rows, 2)) + 9.0 * (np.arange(rows) % 3 == 0)[:, None] * [1, 0]
    near = flows.Flow(flows.FixedAffine(1.0, 0.0), flows.StudentT(df=3.0))
    far = flows.Flow(flows.FixedAffine(1.0, [-9.0, 0.0]), flows.StudentT(df=3.0))
    return data, {"near": near, "far": far, "wide": flows.Flow(flows.FixedAffine(0.2, [-0.9, 0.0]))}


def test_the_stack_is_the_mixture_that_is_likeliest_on_rows_held_out(path):
    data, models = apart(300)
    options = {"max_epochs": 1, "batch_size": 60, "standardize": False, "verbose": 0}
    selection = flows.select(0, models, data, **options)
    assert set(selection.weights) == {"near", "far"} and selection.folds == 5
    np.testing.assert_allclose([selection.weights["near"], selection.weights["far"]], [2 / 3, 1 / 3], atol=0.01)
    stack, single = selection.stack, selection.single
    assert selection.best is stack and selection.stack_leads and single is selection.candidates[0].result
    each = np.stack([np.asarray(selection_of(selection, name).log_prob(data[:20]), float) for name in selection.weights], 1)
    np.testing.assert_allclose(stack.log_prob(data[:20]), mixed(each, np.array(list(selection.weights.values()))), atol=1e-5)
    assert stack.scores.shape == (5, 60) and stack.folds and stack.members == 5
    np.testing.assert_allclose(stack.scores.ravel().mean(), selection.stacked.nats, atol=0.01)
    assert stack.draw(0, 7).shape == (7, 2) and (stack.p_value(data[:5]) > 0).all() and "a stack of 2 models" in repr(stack)
    seen = np.roll(selection.rows, -60).reshape(5, 60)
    scores = [stack.log_pdfs(stack.params, data[rows])[i] for i, rows in enumerate(seen)]
    assert stack.history["trained_loss"] == pytest.approx(-np.mean(scores), rel=1e-4)
    stack.save(path)
    again = flows.load(path)
    assert again.history["trained_loss"] == stack.history["trained_loss"]
    np.testing.assert_array_equal(again.log_prob(data[:5]), stack.log_prob(data[:5]))
    np.testing.assert_array_equal(again.p_value(data[:5]), stack.p_value(data[:5]))
    stack.history.plot().figure.clear()
    table = str(selection).splitlines()
    assert table[1].startswith("stack") and "us a row" in table[0] and any("; .best is the stack" in line for line in table)
    behind, error = selection.stacked.behind
    close = selection._replace(stacked=selection.stacked._replace(behind=(-0.1, 0.06)))
    assert close.best is single and not close.stack_leads, "less than two standard errors ahead"
    assert behind < 0 < error and behind == pytest.approx(selection.candidates[0].nats - selection.stacked.nats, rel=1e-6)


@pytest.mark.parametrize(("ahead", "leads"), [(0.1, False), (0.13, True), (-0.5, False)])
def test_a_stack_leads_where_it_is_two_standard_errors_ahead(ahead, leads):
    single, stack = (
        Candidate(name, AFFINE, flows.FitResult(name, None, None), 0.0, 0.1, (-ahead, 0.06), 1, "", np.zeros(9), 1.0)
        for name in ("single", "stack")
    )
    selection = Selection((single,), np.arange(9), 1, {"single": 0.7, "other": 0.3}, stack)
    assert selection.stack_leads == leads and selection.best is (stack if leads else single).result
    assert selection._replace(weights={"single": 1.0}).best is single.result, "which is the stack of one"


def selection_of(selection, name):
    return next(each.result for each in selection.candidates if each.name == name)


def test_the_stack_of_many_rows_is_one_model():
    data, models = apart(2_400)
    weights = np.where(np.arange(2_400) % 3 == 0, 3.0, 1.0)  # a row on the right counts three times
    selection = flows.select(0, models, data, weights=weights, max_epochs=1, batch_size=500, standardize=False, verbose=0)
    assert selection.folds == 1 and not isinstance(selection.stack, flows.training.EnsembleResult)
    share = weights[selection.rows] * (selection.rows % 3 == 0)
    assert selection.weights["far"] == pytest.approx(share.sum() / weights[selection.rows].sum(), abs=0.01)
    assert selection.best.init_fun.constructor is flows.Mixture and selection.best.history["rows"] == 1_920
    train = np.setdiff1d(np.arange(2_400), selection.rows)
    loss = -np.average(np.asarray(selection.best.log_prob(data[train]), float), weights=weights[train])
    assert selection.best.history["trained_loss"] == pytest.approx(loss, abs=0.15), "of 480 of them"
    few = flows.select(
        0, {"near": models["near"], "same": models["near"]}, data[:30], max_epochs=1, standardize=False, verbose=0
    )
    assert len(few.weights) == 1 and few.best is few.single and few.stack is not None


def test_weights_are_the_likeliest():
    x = DRAW.normal(size=4000) + 4 * (DRAW.random(4000) < 0.3)
    scores = np.stack([-0.5 * (x - mean) ** 2 - 0.5 * np.log(2 * np.pi) for mean in (0, 4, 40)], 1)
    found = stacked_scores(scores)
    assert (
        found.weights[1] == pytest.approx(0.3, abs=0.02) and found.weights[2] == 0 and found.weights.sum() == pytest.approx(1)
    )
    whole = mixed(scores, found.weights).mean()
    for step in (-0.02, 0.02):
        assert mixed(scores, found.weights + np.array([step, -step, 0])).mean() < whole
    assert found.scores.mean() == pytest.approx(whole, abs=0.003) and found.scores.mean() < whole
    assert (found.scores != mixed(scores, found.weights)).all(), "each by weights that have not seen it"
    twice = stacked_scores(np.repeat(scores[:100], 2, 0)).weights
    np.testing.assert_allclose(stacked_scores(scores[:100], np.full(100, 7.0)).weights, twice, atol=0.01)
    scores[0] = -np.inf
    assert np.isfinite(stacked_scores(scores).weights).all()


def test_models_of_a_fold_have_the_weights_of_their_candidates():
    def of_folds(model):
        return flows.training.EnsembleResult(
            {"components": np.zeros(5)}, None, None, flows.Mixture(model, num_components=5), 2, path=()
        )

    results = [of_folds(flows.StudentT(df=df)) for df in (3.0, 30.0)]
    stack = as_one(results, np.array([0.9, 0.1]), np.arange(10.0), 0.1, 5)
    assert stack.members == 5 and stack.member == flows.Mixture(
        flows.StudentT(df=3.0), flows.StudentT(df=30.0), weights=(0.9, 0.1), trainable=False
    )
    close(np.exp(stack.params["components"]["fixed"]["logits"]), [[0.9, 0.1]] * 5, 1e-6)
    close(np.exp(stack.params["fixed"]["logits"]), [0.2] * 5, 1e-6)
    close(stack.history["validation_loss"], [[-0.5], [-2.5], [-4.5], [-6.5], [-8.5]], 1e-6)


def test_total_minutes_is_a_limit(monkeypatch):
    data = apart(300)[0]
    flow = flows.Flow(flows.ActNorm())
    options = {"batch_size": 2, "standardize": "columns", "verbose": 0}
    cut = flows.select(0, {"first": flow, "second": flow}, data, total_minutes=1e-9, **options)
    first, second = cut.candidates
    assert first.result.history["train_loss"].shape == (5, 1) and second.failure == "not fitted, as the time was over"
    clock, began = time.monotonic(), Comparison.add

    def late(self, name, init_fun):
        began(self, name, init_fun)
        self.end = time.monotonic() + 1e-3  # what is left for the next

    monkeypatch.setattr(Comparison, "add", late)
    found = flows.select(0, {"first": flow, "second": flow}, data, total_minutes=5, max_epochs=3, **options)
    lengths = {each.name: each.result.history["train_loss"].shape[1] for each in found.candidates}
    assert lengths == {"first": 3, "second": 1} and time.monotonic() > clock


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
    sizes = [size_of(list(suggested(rows, (5,), False).values())[-1], 5) for rows in (5_000, 10**6)]
    assert sizes[0] < sizes[1], "more rows, larger models"
    smooth, spiked = (list(suggested(100, (2,), False, spikes=spikes).values()) for spikes in (False, True))
    for many in (flows.NSF(num_bins=32), flows.Serial(flows.NormalScores(128), flows.NSF())):
        assert flows.Flow(many) not in smooth
        assert spiked.index(flows.Flow(many)) < spiked.index(flows.Flow(flows.MAF())), "there may not be time for all"
    assert "give candidates" in error_of(lambda: flows.select(0, None, np.ones((20, 4, 4, 1)) * ROWS[:20, :1, None, None]))


def test_what_cannot_be_selected_from_is_an_error():
    assert "expected a list or a dict" in error_of(lambda: flows.select(0, AFFINE, ROWS))
    assert "data is an iterable (list_iterator); expected rows" in error_of(lambda: flows.select(0, None, iter([ROWS])))
    assert "no candidates" in error_of(lambda: flows.select(0, [], ROWS))
    assert "no candidate could be fitted. Flow(Invert(Exp())): fit: no loss of member 0 is finite" in error_of(
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
    interrupting(monkeypatch, after=5)  # members
    with pytest.warns(UserWarning, match="interrupted"):
        found = flows.select(0, {"a": normal, "b": flows.Normal()}, ROWS, **QUICK)
    a, b = found.candidates
    assert a.result.history.interrupted and a.result.history["train_loss"].shape == (5, 1)
    assert b.result is None and b.failure == "not fitted, as another was interrupted"


def test_a_share_is_held_out_where_there_are_enough_rows():
    rows, w = np.random.default_rng(1).normal(size=(2100, 2)), np.r_[np.ones(2000), np.zeros(100)]
    models = {"standard": flows.Normal(), "shifted": flows.Normal(trainable=True)}
    selection = flows.select(0, models, rows, weights=w, validation=0.1, max_epochs=2, verbose=0)
    assert selection.folds == 1 and len(selection.rows) == 200 and selection.rows.max() < 2000
    assert str(selection).endswith("The first model is no better, within 2 standard errors, than shifted")
    given = flows.select(0, models, rows[:300], validation=rows[300:400], max_epochs=2, verbose=0)
    assert given.folds == 1 and given.rows.tolist() == list(range(100))


def test_a_hopeless_model_is_given_up():
    data = np.random.default_rng(1).normal(size=(2500, 2)) ** 2
    hopeless = flows.Mixture(flows.Normal(trainable=True), flows.Uniform(-1e4, 1e4), weights=(1e-6, 1 - 1e-6), trainable=False)
    models = {"normal": flows.Normal(trainable=True), "hopeless": hopeless}
    selection = flows.select(0, models, data, max_epochs=12, learning_rate=1e-2, batch_size=500, standardize=False, verbose=0)
    assert selection.candidates[1].result is None
    assert selection.candidates[1].failure.startswith("given up after 4 epochs, ") and "given up" in str(selection)
    over = flows.select(0, models, data, max_epochs=2, total_minutes=1e-6, verbose=0)
    assert over.candidates[1].failure == "not fitted, as the time was over"


def compared(folds, **options):
    options = SelectOptions(**options)
    return Comparison(jax.random.key(0), options, None, read_arrays(ROWS, options, jax.random.key(0)), folds)


def test_each_row_is_scored_by_the_member_that_has_not_seen_it():
    comparison_of_folds = compared(5)
    members = [SimpleNamespace(params=float(i), log_pdf=lambda params, x, **_: params + x[:, 0]) for i in range(5)]
    scores, trained, _ = comparison_of_folds._scored(SimpleNamespace(judges=lambda: members))
    np.testing.assert_array_equal(scores, np.repeat(np.arange(5.0), 60) + ROWS[comparison_of_folds.rows, 0])
    np.testing.assert_array_equal(trained, np.repeat(np.arange(5.0), 60) + ROWS[np.roll(comparison_of_folds.rows, -60), 0])


@pytest.mark.parametrize("rows", [20, 290])
def test_rows_of_the_training_are_as_many_as_are_held_out(rows):
    share = compared(1, validation=ROWS[:rows] + 0.1, weights=1 + np.arange(300.0))
    (trained,) = share.trained
    assert len(trained) == rows and set(trained.numbers) <= set(range(300)) and len(set(trained.numbers)) > rows / 2
    np.testing.assert_allclose(share.trained_weights, (1 + trained.numbers) / 300)


def test_scores_of_the_training_compile_nothing(caplog):
    comparison_of_folds, model = compared(5), flows.Mixture(AFFINE, num_components=5, trainable=False)
    kept = Kept(np.zeros((5, 60, 2)))
    result = flows.training.EnsembleResult(*model(0, 2), model, 2, path=(), kept=kept)
    comparison_of_folds.trained = []
    with pytest.raises(ValueError, match="zip"):
        comparison_of_folds._scored(result)
    comparison_of_folds.trained = compared(5).trained
    with jax.log_compiles():
        comparison_of_folds._scored(result)
    assert not [each for each in caplog.records if "Compiling" in each.message]


@pytest.mark.parametrize(("minutes", "end"), [({}, np.inf), ({"total_minutes": 2.0}, 120), ({"max_minutes": 0.5}, 60)])
def test_a_fit_knows_its_place_among_others_and_their_end(minutes, end, monkeypatch):
    runs, began = [], time.monotonic()
    monkeypatch.setattr(comparison, "fit_prepared", lambda rows, options, key: runs.append(options.run))
    monkeypatch.setattr(Comparison, "_prepared", lambda self, model: None)
    three = compared(1, **minutes)
    three.models = 3
    for name in ("first", "second", "third"):
        three.add(name, AFFINE)
    assert [run.place for run in runs] == ["model 1 of 3", "model 2 of 3", "model 3 of 3"]
    assert runs[2].end == np.inf, "the end of the last model is the end of all"
    assert runs[1].end == end or 0 <= runs[1].end - began - end < 10


def test_a_table_names_what_was_not_tried_and_what_was_learned_by_heart():
    history = flows.training.History({"validation_loss": np.array([3.0, 2.5]), "best_epoch": 1, "trained_loss": np.array(0.2)})
    result = flows.FitResult("single", None, None, AFFINE, 2, history=history)
    fitted = Candidate("MAF", AFFINE, result, -2.5, 0.1, (0.0, 0.0), 1, "", np.zeros(9), 1.0)
    late = [fitted._replace(name=name, result=None, failure="not fitted, as the time was over") for name in ("NSF", "BNAF")]
    selection = Selection((fitted, *late), np.arange(9), 1, {"MAF": 1.0}, fitted)
    heart = "training rows score 2.3 nats above rows held out: draws may repeat them; flows.check(train=) tells"
    assert str(selection).splitlines()[-2:] == [
        "Not tried, as the time was over: NSF, BNAF; give more minutes, or these models alone",
        f"Of the best, {heart}",
    ]
    assert f"  by heart     {heart}" in repr(result).splitlines()
    for loss in (1.9, 3.0, np.nan):
        history["trained_loss"] = np.array(loss)
        assert "by heart" not in repr(result) and "draws may repeat" not in str(selection)
    del history["trained_loss"]
    assert "by heart" not in repr(result)
    history |= {"held_out": np.array(9), "train_loss": np.array([[0.1, 0.3], [0.2, 0.4]])}  # of two members
    history |= {"validation_loss": np.array([[3.0, 2.5], [2.5, 3.0]]), "best_epoch": np.array([1, 0])}
    assert "  by heart     training rows score 2.2 nats above rows held out" in repr(result), "from the training of one model"
    history["best_epoch"] = np.array([1, -1])
    assert "by heart" not in repr(result), "a start was not trained"


@pytest.mark.parametrize(("number", "behind", "hopeless"), [(3, 0.7, True), (3, 0.6, False), (2, 0.7, False)])
def test_what_is_five_standard_errors_behind_after_a_third_of_its_epochs_is_hopeless(number, behind, hopeless, monkeypatch):
    def fitted(scores, options, key):
        triple = flows.core.Distribution({}, lambda params, x, **_: scores, None)
        options.callbacks[0](flows.training.Epoch(number, 12, *[None] * 7, lambda: triple))
        return flows.FitResult(*triple)

    alternating = np.resize([1.0, -1.0], 60)  # of a mean with standard error 0.13
    monkeypatch.setattr(comparison, "fit_prepared", fitted)
    monkeypatch.setattr(Comparison, "_prepared", lambda self, model: alternating - behind if self.best else np.zeros(60))
    two = compared(1, validation=0.2)
    two.add("first", AFFINE)
    two.add("second", AFFINE)
    first, second = two.fitted
    assert first.failure == "" and (second.result is None) == hopeless
    assert second.failure == ("given up after 4 epochs, 0.7 nats behind" if hopeless else "")


@pytest.mark.slow
def test_an_ensemble_and_a_mixture_can_be_candidates():
    data = np.random.default_rng(1).normal(size=(300, 2)) * [1, 3]
    found = flows.select(0, None, data, max_epochs=1, verbose=0)
    names = [each.name for each in found.candidates]
    assert "Normal()" in names and any(isinstance(each.result, flows.training.EnsembleResult) for each in found.candidates)
    assert found.folds == 5
    assert all(each.failure == "" or each.failure.startswith("given up") for each in found.candidates), str(found)
    assert found.best.log_pdf(found.best.params, data).shape == (300,)


def test_a_comparison_ends_where_another_process_has_left_it(monkeypatch):
    class Left(Devices):
        def any(self, stops):
            raise flows.FitError("fit: process 1 failed, and all end")

    left = Left("select", 1)
    left.over = True
    monkeypatch.setattr(comparison, "devices", lambda: left)
    assert "process 1 failed" in error_of(lambda: flows.select(0, {"gauss": flows.Normal(trainable=True)}, ROWS, verbose=0))
