"""The p-value of a row by its oddest column: ranks by hand, folds, conditions, weights, files, rows without a density."""

import functools
import io

import numpy as np
import pandas as pd
import pytest
from common import error_of
from scipy import stats

import flows
from flows import tables

NORMAL = flows.Normal(trainable=True, covariance="full")
GIVEN = flows.Normal(conditioner=flows.conditioners.MLP(4))
SCHEMA = tables.Schema({name: tables.Real() for name in "abc"})
LOADS, SCALES = np.array([1.0, -1.0, 0.9]), np.array([1.0, 40.0, 0.2])


def drawn(rows, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame((rng.normal(size=(rows, 1)) * LOADS + 0.2 * rng.normal(size=(rows, 3))) * SCALES, columns=[*"abc"])


@functools.cache
def fitted(folds=1, weighted=False):
    weights = np.random.default_rng(1).uniform(size=240) if weighted else None
    return tables.fit(0, drawn(240), SCHEMA, model=NORMAL, weights=weights, folds=folds, max_epochs=1, verbose=0)


@functools.cache
def given():
    frame = drawn(240).assign(kind=["u", "v"] * 120)
    schema = tables.Schema({**SCHEMA.kinds, "kind": tables.Category()}, ["kind"])
    return tables.fit(0, frame, schema, model=GIVEN, folds=1, max_epochs=1, verbose=0)


def below(table, rows):
    """How far the oddest column of each row is below its usual value, by public methods."""
    usual = table.contributions(table.draw(0, 256), verbose=0).median()
    return (table.contributions(rows, verbose=0) - usual).min(axis=1).to_numpy()


@pytest.mark.parametrize(("folds", "weighted"), [(1, False), (1, True), (2, False)], ids=["", "weights", "folds"])
def test_it_ranks_the_oddest_column_among_rows_held_out(folds, weighted):
    """After folds each member ranks a row among the rows that it has not seen."""
    result, new = fitted(folds, weighted), drawn(60, seed=3)
    new.loc[0, "b"] = -new.loc[0, "b"]
    judges, lower, total = result.result.judges(), 1.0, 1.0
    assert len(judges) == folds
    for judge in judges:
        table, (x, _, w) = tables.TableResult(result.schema, judge), judge.kept
        w = np.ones(len(x)) if w is None else w
        lower = lower + w @ (below(table, result.schema.decode(x))[:, None] <= below(table, new))
        total += w.sum()
    if weighted:
        w = result.result.score_weights
        lower, total = lower - 1 + np.square(w).sum() / w.sum(), total - 1 + np.square(w).sum() / w.sum()
    got = result.p_value(new, by="columns", verbose=0)
    assert (np.abs(got - lower / total) < 1e-9).mean() > 0.9, "but for ranks that the rounding of a score changes"
    np.testing.assert_allclose(got, lower / total, atol=2.1 * (w.max() if weighted else 1) / total)
    assert got[0] == pytest.approx(1 / total if not weighted else (lower / total).min())
    assert np.ptp(got) > 0.8 and np.corrcoef(got, result.p_value(new))[0, 1] < 0.99, "another rank than by density"


def test_of_rows_like_the_training_rows_it_is_uniform():
    assert stats.kstest(fitted(2).p_value(drawn(400, seed=5), by="columns", verbose=0), "uniform").pvalue > 1e-3


def test_a_file_has_the_scores_that_were_asked_for():
    result, new = fitted(2), drawn(20, seed=3)
    expected = result.p_value(new, by="columns", verbose=0)
    result.save(file := io.BytesIO())
    file.seek(0)
    loaded = tables.load(file)
    assert loaded.result.kept is None
    np.testing.assert_array_equal(loaded.p_value(new, by="columns", verbose=0), expected)
    other = tables.TableResult(loaded.schema, loaded.result._replace(scored=loaded.result.scored._replace(by_columns=None)))
    assert "expected one of `flows fit --by-columns`" in error_of(lambda: other.p_value(new, by="columns"))
    assert "expected one of 'density', 'columns'" in error_of(lambda: result.p_value(new, by="rows"))
    assert "verbose is 2" in error_of(lambda: result.p_value(new, by="columns", verbose=2))


def test_usual_values_are_those_at_the_conditions_of_rows_held_out():
    result = given()
    got = result.p_value(drawn(9, seed=3).assign(kind="u"), by="columns", verbose=0)
    scores, usual = np.split(result.result.scored.by_columns, [24])
    held_out = result.result.kept
    kinds = np.where(held_out.context.argmax(1) == 0, "u", "v")
    frame = result.schema.decode(held_out.x, given=pd.DataFrame({"kind": kinds}))
    contributions = result.contributions(frame, verbose=0)[list(result.schema.columns)]
    np.testing.assert_allclose(scores, (contributions - usual).min(axis=1), atol=5e-3)
    np.testing.assert_allclose(usual, contributions.median(), atol=0.5)
    assert ((got > 0) & (got <= 1)).all()


def test_a_row_without_a_density_has_the_least_value_and_a_gap_none():
    kinds = {"a": tables.Real(), "n": tables.Integer(), "kind": tables.Category(), "unit": tables.Constant("kg")}
    frame = drawn(240)[["a"]].assign(n=np.arange(240.0) % 50, kind=["u", "v"] * 120, unit="kg")
    result = tables.fit(0, frame, tables.Schema(kinds), model=GIVEN, folds=1, max_epochs=1, verbose=0)
    new = frame[:5].copy()
    new.loc[1, "kind"], new.loc[2, "a"], new.loc[3, "n"], new.loc[4, "unit"] = "w", np.nan, 2.5, "g"
    with pytest.warns(UserWarning, match="3 of 5 rows have an unknown category .* 1 have a gap"):
        got = result.p_value(new, by="columns", errors="coerce", verbose=0)
    assert 0 < got[0] <= 1 and (got[[1, 3, 4]] == 1 / 25).all() and np.isnan(got[2])
    assert "row 1" in error_of(lambda: result.p_value(new, by="columns", verbose=0))
    with pytest.warns(UserWarning, match="3 of 5"):
        of_columns = result.contributions(new, errors="coerce", verbose=0)
    assert of_columns.loc[3].idxmin() == "n" and np.isneginf(of_columns["n"][3]), "a number that is not whole"
