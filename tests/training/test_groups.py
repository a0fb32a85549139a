"""Rows that are held out by `groups=` and `order=`: whole groups, or the last rows."""

import datetime as dt

import jax
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from common import AFFINE, QUICK, ROWS, error_of
from sklearn.model_selection import GroupKFold

import flows
from flows.results.history import judged
from flows.training import DataWarning, EnsembleResult, fit, fit_ensemble, select
from flows.training.data.read import read_arrays
from flows.training.data.table import folds_of_rows, split_numbers
from flows.training.options import Options

KEY = jax.random.key(0)
DRAW = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(30), 10)  # of ROWS
SIZES = {"even": [10] * 30, "uneven": DRAW.integers(1, 20, 40).tolist(), "one large": [60, *[2] * 70], "few": [7, 5, 4, 3, 1]}
DAYS = np.datetime64("2024-01-01") + np.arange(300)
NORMAL = flows.Normal(trainable=True)


def held_out(result):
    """The numbers of the rows that a result holds out."""
    x = result.kept.x.reshape(-1, 2)
    return np.flatnonzero((ROWS.astype(x.dtype)[:, None] == x).all(-1).any(1))


@pytest.fixture(scope="module")
def grouped():
    return fit(0, AFFINE, ROWS, groups=GROUPS, **QUICK)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_folds_are_as_even_as_group_k_fold_makes_them(sizes):
    groups = DRAW.permutation(np.repeat(np.arange(len(sizes)), sizes))
    n = len(groups)
    parts = folds_of_rows(n, 5, KEY, groups, "groups")
    expected = [len(test) for _, test in GroupKFold(5).split(groups, groups=groups)]
    assert {len(out) for _, out in parts} == {min(expected)} and {len(train) for train, _ in parts} == {n - max(expected)}
    for train, out in parts:
        assert not set(groups[train]) & set(groups[out])
    everything = np.concatenate([out for _, out in parts])
    assert len(everything) == len(set(everything.tolist()))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_share_is_of_whole_groups(sizes, share):
    groups = DRAW.permutation(np.repeat(np.arange(len(sizes)), sizes))
    train, out = split_numbers(len(groups), share, KEY, groups, "groups")
    assert sorted([*train, *out]) == list(range(len(groups))) and not set(groups[train]) & set(groups[out])
    assert abs(len(out) - share * len(groups)) <= max(sizes) / 2


def test_the_smallest_of_two_groups_is_held_out():
    groups = np.repeat([0, 1], [70, 30])
    assert set(groups[split_numbers(100, 0.1, KEY, groups, "groups")[1]]) == {1}
    assert set(groups[split_numbers(100, 0.98, KEY, groups, "groups")[0]]) == {1}, "both parts have a group"


def test_groups_of_one_size_are_held_out_by_the_key():
    outs = [frozenset(GROUPS[split_numbers(300, 0.1, jax.random.key(seed), GROUPS, "groups")[1]]) for seed in range(60)]
    assert {len(out) for out in outs} == {3} and len(set(outs)) > 50
    often = np.bincount([group for out in outs for group in out], minlength=30)
    assert often.max() < 18


def test_the_last_rows_are_held_out():
    order = DRAW.permutation(300)
    train, out = split_numbers(300, 0.1, KEY, order, "order")
    assert set(order[out]) == set(range(270, 300)) and sorted([*train, *out]) == list(range(300))
    assert (np.sort(train) != train).any(), "rows to train on are in random order"
    ties = split_numbers(300, 0.1, KEY, np.zeros(300, int), "order")[1]
    assert sorted(ties) == list(range(270, 300)), "of equal rows the last in the data"


def test_a_result_says_how_rows_were_held_out(grouped, tmp_path):
    numbers = held_out(grouped)
    assert len(numbers) == 30 and len(set(GROUPS[numbers])) == 3 == grouped.history["groups"]
    assert "of 30 rows of 3 groups held out\n" in repr(grouped)
    grouped.save(tmp_path / "m.flows")
    assert judged(flows.load(tmp_path / "m.flows").history) == judged(grouped.history)
    last = fit(0, AFFINE, ROWS, order=-np.arange(300), **QUICK)
    assert held_out(last).tolist() == list(range(30)) and "of the last 30 rows held out\n" in repr(last)
    members = fit_ensemble(0, AFFINE, ROWS, groups=GROUPS, members=2, **QUICK)
    assert held_out(members).tolist() == numbers.tolist() and "of 30 rows of 3 groups held out\n" in repr(members)


def test_folds_say_which_rows_were_left_out():
    groups, weights = np.repeat(np.arange(30), np.r_[[5] * 15, [15] * 15]), np.ones(300)
    weights[groups == 29] = 0.0
    result = fit(0, AFFINE, ROWS, groups=groups, folds=5, weights=weights, **{**QUICK, "max_epochs": 1})
    assert isinstance(result, EnsembleResult) and result.history["rows"] == 285
    x, out = result.kept.x, set()
    for fold in range(5):
        of_fold = set(groups[(ROWS.astype(x.dtype)[:, None] == x[fold]).all(-1).any(1)])
        assert not of_fold & out
        out |= of_fold
    assert out == set(range(29))
    rows = x.shape[0] * x.shape[1]
    assert f"of {rows} rows of 29 groups held out, {285 - rows} others unscored, as folds are of one size, as good" in repr(
        result
    )
    assert 0 < 285 - rows < 30


def test_groups_of_left_out_rows_count_for_no_others():
    weights = np.r_[np.zeros(5), np.ones(295)]
    split = read_arrays(ROWS, Options(groups=GROUPS, weights=weights), KEY)
    assert not set(GROUPS[split.others]) & set(GROUPS[split.train.numbers]) and split.train.numbers.min() >= 5


def test_select_compares_on_whole_groups():
    selection = select(0, {"a": NORMAL, "b": flows.Normal()}, ROWS, groups=GROUPS, max_epochs=1, verbose=0)
    assert selection.folds == 5 and len(selection.rows) == 300
    parts = selection.rows.reshape(5, -1)
    assert sum(len(set(GROUPS[part])) for part in parts) == 30, "each group in one fold"
    assert "of 300 rows of 30 groups held out\n" in repr(selection.best)
    large = np.minimum(GROUPS, 10)  # one group is larger than a fold
    for options in ({"groups": large}, {"order": GROUPS}):
        selection = select(0, {"a": NORMAL}, ROWS, **options, max_epochs=1, verbose=0)
        assert selection.folds == 1 and len(selection.rows) == 60
    assert sorted(selection.rows) == list(range(240, 300))


def test_few_rows_are_averaged_over_folds_where_groups_allow_it():
    many = flows.Flow(flows.Coupling(flows.MLP(16)))  # more numbers than rows
    few = {"max_epochs": 1, "verbose": 0}
    rows, groups = ROWS[:60], np.arange(60) % 6
    assert isinstance(fit(0, many, rows, groups=groups, **few), EnsembleResult)
    for options in ({"groups": groups % 4}, {"order": groups}):
        assert not isinstance(fit(0, many, rows, **options, **few), EnsembleResult)


FRAMES = {
    "pandas": lambda columns: pd.DataFrame(columns),
    "polars": lambda columns: pl.DataFrame(columns),
    "pyarrow": lambda columns: pa.table(columns),
}


@pytest.mark.parametrize("library", FRAMES)
def test_a_column_is_named_and_not_modelled(library):
    columns = {"a": ROWS[:, 0], "who": [f"p{group}" for group in GROUPS], "b": ROWS[:, 1], "day": DAYS.astype("M8[us]")}
    frame = FRAMES[library](columns)
    less = FRAMES[library]({name: column for name, column in columns.items() if name != "day"})
    split = read_arrays(less, Options(groups="who"), KEY)
    expected = read_arrays(ROWS, Options(groups=GROUPS), KEY)
    assert split.whole.headers[0].labels == ("a", "b") and split.whole.headers[0].library == library
    assert len(set(GROUPS[split.others])) == len(set(GROUPS[expected.others])) == 3
    less = FRAMES[library]({name: column for name, column in columns.items() if name != "who"})
    last = read_arrays(less, Options(order="day"), KEY)
    assert sorted(last.others) == list(range(270, 300)) and last.whole.x.shape == (300, 2)
    assert "fit: groups is 'patient'; expected a value for each row, or a column of data, which has 'a', 'who', 'b', 'day'" in (
        error_of(lambda: read_arrays(frame, Options(groups="patient"), KEY))
    )


@pytest.mark.parametrize(
    "order",
    [
        DAYS, pd.Series(DAYS).dt.tz_localize("Europe/Berlin"), pl.Series(DAYS), DAYS.tolist(), np.arange(300) / 7,
        pd.Series(np.arange(300)).astype("Int64"), [dt.timedelta(days=i) for i in range(300)],
    ],
)  # fmt: skip
def test_numbers_and_dates_have_an_order(order):
    assert sorted(read_arrays(ROWS, Options(order=order), KEY).others) == list(range(270, 300))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": GROUPS[1:]}, "fit: groups has shape (299,), expected (300,): one for each row of data"),
        ({"order": "day"}, "fit: order is 'day'; expected a value for each row, or a column of data, which has none"),
        ({"groups": np.where(GROUPS == 2, np.nan, GROUPS)}, "fit: groups has a gap in row 20; expected a value for each row"),
        ({"groups": ["a"] * 299 + [None]}, "fit: groups has a gap in row 299"),
        ({"groups": ["a"] * 299 + [np.nan]}, "fit: groups has a gap in row 299"),
        ({"groups": pd.Series(["a", pd.NA] * 150, dtype="string")}, "fit: groups has a gap in row 1"),
        ({"order": np.r_[DAYS[:5], np.datetime64("NaT", "D"), DAYS[6:]]}, "fit: order has a gap in row 5"),
        (
            {"order": DAYS.astype(str)},
            "text, such as 2024-01-01; expected numbers, or a column that is read as a date",
        ),
        ({"groups": np.zeros(300)}, "fit: groups has 1 values; expected 2 or more"),
        ({"groups": GROUPS % 3, "folds": 4}, "fit: groups has 3 values; expected 4 or more. Give fewer folds or no groups"),
    ],
)
def test_groups_that_are_refused(options, message):
    assert message in error_of(lambda: fit(0, NORMAL, ROWS, **options, **QUICK))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"groups": GROUPS, "order": GROUPS},
            "groups, order and rows of validation each say which rows are held",
        ),
        ({"groups": GROUPS, "validation": ROWS}, "groups, order and rows of validation each say which rows are held out"),
        ({"order": GROUPS, "folds": 2}, "folds=2 holds out each row once; leave order out, or give folds=1"),
    ],
)
def test_options_that_say_it_twice_are_refused(options, message):
    with pytest.raises(TypeError, match=message):
        fit(0, NORMAL, ROWS, **options, **QUICK)


def test_rows_of_a_stream_have_no_groups(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    for data in (np.load(tmp_path / "rows.npy", mmap_mode="r"), iter([ROWS])):
        for options in ({"groups": GROUPS}, {"order": GROUPS}):
            message = error_of(lambda data=data, options=options: fit(0, NORMAL, data, steps_per_epoch=2, **options, **QUICK))
            assert "groups, order and weights are for data in memory; give validation rows" in message


def test_a_checkpoint_is_of_its_groups(tmp_path):
    fit(0, AFFINE, ROWS, groups=GROUPS, checkpoint=tmp_path, **QUICK)
    names = [f"p{group:02}" for group in GROUPS]  # the same groups by other names
    assert len(fit(0, AFFINE, ROWS, groups=names, checkpoint=tmp_path, **QUICK).history["train_loss"]) == 3
    for options, words in (
        ({"groups": GROUPS[::-1]}, "it has other rows of data, groups or order"),
        ({"order": GROUPS}, "holding was 'groups', now 'order'"),
        ({}, "holding was 'groups', now None"),
    ):
        assert words in error_of(lambda options=options: fit(0, AFFINE, ROWS, checkpoint=tmp_path, **options, **QUICK))


def test_copies_are_told_of_where_groups_hold_them_out():
    rows = np.r_[ROWS, ROWS[:30]]
    with pytest.warns(DataWarning, match=r"30 of 330 rows .* held out by groups, as a held-out copy of a training row tests"):
        fit(0, NORMAL, rows, groups=np.arange(330) % 30, max_epochs=1, verbose=0)
