"""Rows that are copies of others: told, and kept on one side of the split; rows that are equal by chance are none."""

import warnings

import jax
import numpy as np
import pytest

import flows
from flows.training import DataWarning, fit, select
from flows.training.data.copies import groups_of
from flows.training.data.read import read_arrays
from flows.training.data.table import folds_of_rows, split_numbers
from flows.training.options import Options

DRAW = np.random.default_rng(0)
NORMAL = np.random.default_rng(0).normal(size=(2000, 3))
TWICE = np.concatenate([NORMAL[:300], NORMAL[40:50]])
KEY = jax.random.key(0)
GAUSS = flows.Normal(trainable=True)
QUICK = {"max_epochs": 1, "verbose": 0}


def copies(*tables):
    """How many rows are copies; tables are rows, or pairs of rows and context."""
    groups = groups_of(*(table if isinstance(table, tuple) else (table, None) for table in tables))
    return 0 if groups is None else len(groups) - len(np.unique(groups))


def test_equal_rows_have_one_number():
    groups = groups_of((TWICE, None))
    assert copies(TWICE) == 10 and (groups[300:] == groups[40:50]).all() and len(np.unique(groups)) == 300
    assert copies(np.repeat(NORMAL[:230], 10, 0)) == 2070
    assert copies(np.where(TWICE[41, 2] == TWICE, 0.0, TWICE), np.where(TWICE[41, 2] == TWICE, -0.0, TWICE)) == 320
    assert copies(TWICE.astype(np.float32)) == 10 and copies(TWICE.astype(np.float32), NORMAL[:5].astype(np.float32)) == 15
    assert copies((TWICE, np.arange(310.0)[:, None])) == 0, "of another context"
    assert copies((TWICE, TWICE[:, :1])) == 10 and copies(TWICE, TWICE[:, ::-1]) == 20
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 5, 1)).astype(np.uint8)
    assert copies(images) == 0 and copies(images, images[:3]) == 3 and copies(images, images[:3].astype(np.float32)) == 3


def test_what_rounding_and_chance_make_equal_is_no_copy():
    draw = np.random.default_rng(1)
    for rows in (
        NORMAL,
        NORMAL.round(1),
        NORMAL[:, :1].round(1),
        NORMAL[:, :2].round(2),
        np.round(9 * NORMAL[:, :1]) / 3,
        np.exp(3 * NORMAL[:, :1]).round(2),
        draw.poisson(3, (2000, 2)),
        draw.integers(1, 7, (10_000, 2)),
        draw.integers(0, 2, (400, 2)),
        np.maximum(NORMAL, 0),
        np.where(NORMAL[:, :1] < 0, 0, NORMAL),
        draw.normal(size=(100_000, 1)).astype(np.float32),
        np.column_stack([NORMAL[:, 0].round(2), np.repeat(np.arange(8.0), 250)]),
        draw.choice(np.round(np.exp(draw.normal(size=200) + 3)) - 0.01, (2000, 1)),  # prices
    ):
        assert copies(rows) == 0


def test_rounded_rows_that_were_copied_are_told_by_how_often_each_is_there():
    """Of independent rows some would be there once, and some three times."""
    rounded = np.round(NORMAL, 2)
    unlike = len(np.unique(rounded, axis=0))
    assert copies(rounded) == 0 and copies(rounded, rounded) == 4000 - unlike
    assert copies(rounded, rounded[:300]) > 290
    assert copies(np.repeat(rounded[:230], 10, 0)) == 2070


def test_tables_of_too_many_bytes_are_not_looked_at(monkeypatch):
    assert copies(TWICE) == 10
    monkeypatch.setattr("flows.training.data.copies.MOST_BYTES", TWICE.nbytes - 1)
    assert groups_of((TWICE, None)) is None


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_copies_are_held_out_together(share):
    groups = groups_of((np.repeat(NORMAL[:230], 10, 0), None))
    train, held_out = split_numbers(2300, share, KEY, groups)
    assert len(held_out) == round(2300 * share) // 10 * 10 and sorted([*train, *held_out]) == list(range(2300))
    assert not set(groups[train]) & set(groups[held_out])
    one, other = (split_numbers(2300, share, jax.random.key(seed), groups)[1] for seed in (1, 2))
    assert set(groups[one]) != set(groups[other])
    few = split_numbers(310, share, KEY, groups_of((TWICE, None)))
    assert len(few[1]) == round(310 * share) and len(few[0]) == 310 - len(few[1]), "rows that are no copies fill it up"


def test_unlike_rows_are_held_out_as_often_as_others():
    """A row that is there ten times is one of the unlike rows, and no likelier to be held out."""
    groups = np.concatenate([np.arange(100), np.repeat(np.arange(100, 110), 10)])
    held_out = [split_numbers(200, 0.2, jax.random.key(seed), groups)[1] for seed in range(100)]
    assert {len(each) for each in held_out} == {40}, "what does not fit makes room for what does"
    often = np.mean([np.isin(np.arange(110), groups[each]) for each in held_out], 0)
    assert abs(often[:100].mean() - often[100:].mean()) < 0.1


def test_rows_without_copies_are_split_as_ever():
    order = np.random.default_rng(np.asarray(jax.random.key_data(KEY)).tolist()).permutation(2000)
    assert (split_numbers(2000, 0.1, KEY)[1] == order[:200]).all() and (split_numbers(2000, 0.1, KEY)[0] == order[200:]).all()
    found = read_arrays(NORMAL, Options(folds=1), KEY)
    assert found.groups is None and (found.others == order[:200]).all()
    for fold, (train, held_out) in enumerate(folds_of_rows(2000, 3, KEY)):
        assert (held_out == order[666 * fold :][:666]).all() and (train == np.setdiff1d(np.arange(2000), held_out)).all()


def test_too_few_unlike_rows_are_split_as_rows():
    for sizes in ([100] * 4, [1, 399], [60, 340]):
        groups = np.repeat(np.arange(len(sizes)), sizes)
        train, held_out = split_numbers(400, 0.1, KEY, groups)
        assert 20 <= len(held_out) <= 100 and len(train) + len(held_out) == 400
        for train, held_out in folds_of_rows(400, 5, KEY, groups):
            assert len(train) == 320 and len(held_out) == 80
    train, held_out = split_numbers(400, 0.01, KEY, np.repeat(np.arange(40), 10))
    assert len(held_out) == 10 and len(set(held_out // 10)) == 1


@pytest.mark.parametrize("sizes", [[10] * 231, [1] * 300 + [2] * 10, [3] * 100 + [7] * 20, [1] * 50 + [40, 30, 20]])
def test_folds_of_copies_are_of_one_size(sizes):
    groups = DRAW.permutation(np.repeat(np.arange(len(sizes)), sizes))
    n, seen = len(groups), []
    parts = folds_of_rows(n, 5, KEY, groups)
    assert len({len(train) for train, _ in parts}) == len({len(held_out) for _, held_out in parts}) == 1
    for train, held_out in parts:
        assert not set(groups[train]) & set(groups[held_out]) and (np.diff(train) > 0).all()
        assert len(train) + len(held_out) > 0.97 * n and len(held_out) > (0.18 if len(sizes) > 60 else 0.04) * n
        seen += [*held_out]
    assert len(seen) == len(set(seen)), "no row is held out twice"


def test_all_folds_of_a_table_keep_copies_together():
    rows = np.repeat(NORMAL[:100], 4, 0)
    options = Options(folds=1)
    found = read_arrays(rows, options, KEY)
    groups = found.groups
    for data in found.folds(options, KEY, 4):
        assert not set(groups[data.train.numbers]) & set(groups[data.others])
        assert data.train.x.shape == (300, 3) and data.held_out.x.shape == (100, 3)
    scored = [fold.held_out for fold in found.folds(options, KEY, 5)]
    assert all(table.x.shape == (80, 3) for table in scored)
    held_out = [set(groups[table.numbers]) for table in scored]
    assert sum(map(len, held_out)) == len(set.union(*held_out)) == 100


def test_copies_are_told_of_with_one_of_them():
    table = np.concatenate([NORMAL[:200], NORMAL[7:12]])
    for call in (fit, select):
        model = GAUSS if call is fit else {"normal": GAUSS}
        with pytest.warns(
            DataWarning, match=r"5 of 205 rows of data are copies of others, such as row 200 of row 7\. .*weights="
        ):
            call(0, model, table, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(0, GAUSS, table[:200], **QUICK)


def test_the_rows_that_are_kept_were_not_trained_on():
    rows = np.repeat(NORMAL[:230, :2], 10, 0)
    with pytest.warns(DataWarning, match="2070 of 2300 rows of data are copies of others, such as row 1 of row 0"):
        result = fit(0, flows.Flow(flows.ActNorm()), rows, folds=1, **QUICK)
    assert result.kept.x.shape == (230, 2) and len(np.unique(result.kept.x, axis=0)) == 23
    mean = np.asarray(result.params["bijection"]["fixed"]["mean"])
    unlike = np.array(
        [row for row in NORMAL[:230, :2] if row.astype(np.float32).tolist() not in result.kept.x.astype(np.float32).tolist()]
    )
    np.testing.assert_allclose(mean, unlike.mean(0), atol=1e-5)


@pytest.mark.usefixtures("untrained")
def test_rows_to_validate_on_that_are_among_data_are_told_of():
    for validation, words in (
        (NORMAL[295:310], "5 of 15 rows of validation are among data: row 0, for example, is row 295 of data"),
        (
            np.concatenate([NORMAL[400:500], NORMAL[7:8]]),
            "1 of 101 rows of validation are among data: row 100, for example, is row 7 of",
        ),
    ):
        with pytest.warns(DataWarning, match=words):
            fit(0, GAUSS, NORMAL[:300], validation=validation, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(0, GAUSS, NORMAL[:300], validation=NORMAL[300:340], **QUICK)
    with pytest.warns(DataWarning) as told:  # of rounded rows some are equal by chance
        fit(0, GAUSS, NORMAL[:1000, :2].round(1), validation=NORMAL[1000:, :2].round(1), **QUICK)
    assert len(told) == 1 and "is rounded to 0.1" in str(told[0].message)
