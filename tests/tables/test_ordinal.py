"""Categories with an order: from where it is known, what has none, and the answers that an order allows."""

import functools

import numpy as np
import pandas as pd
import pytest
from common import error_of
from frames import BOTH, GIVEN, fitted, same

import flows
from flows import tables
from flows.tables import Category, Ordinal, Schema, infer_schema

SIZES = ("small", "medium", "large")
RNG = np.random.default_rng(0)
DTYPE = pd.CategoricalDtype(SIZES, ordered=True)
FRAME = pd.DataFrame(
    {"size": pd.Categorical(RNG.choice(SIZES, 200, p=[0.5, 0.3, 0.2]), dtype=DTYPE), "x": RNG.normal(size=200)}
)


@functools.cache
def result(condition=()):
    """A model of sizes, whose masses are not those of the frame, as it has one epoch."""
    frame = FRAME if condition else FRAME[["size"]]
    return tables.fit(0, frame, condition=condition, max_epochs=1, verbose=0)


def masses(condition=(), x=0.0):
    each = pd.DataFrame({"size": pd.Categorical(SIZES, dtype=DTYPE), "x": x})
    return np.exp(result(condition).log_prob(each if condition else each[["size"]]))


def test_an_ordered_dtype_is_an_ordinal_and_others_are_not():
    schema = infer_schema(FRAME)
    assert schema["size"] == Ordinal(SIZES) and "3 values of an ordered dtype" in str(schema)
    rows = schema.encode(FRAME)
    assert rows[:, 0].tolist() == FRAME["size"].cat.codes.tolist(), "codes are places in the order"
    same(schema.decode(rows), FRAME)
    assert Schema.from_json(schema.to_json()) == schema
    assert isinstance(infer_schema(FRAME.astype({"size": DTYPE.categories.dtype}))["size"], Category)
    assert infer_schema(FRAME[FRAME["size"] != "medium"])["size"] == Ordinal(("small", "large")), "those that occur"


@BOTH
def test_an_order_is_given_or_that_of_numbers(library):
    schema, frame = fitted(library, Ordinal(SIZES), ["large", "small", "medium", "large"])
    assert schema.encode(frame).ravel().tolist() == [2, 0, 1, 2]
    same(schema.decode(schema.encode(frame)), frame)
    schema, _ = fitted(library, Ordinal(), [30, 4, 30, 100])
    assert schema["x"] == Ordinal((4, 30, 100))
    assert (
        "holds text, such as 'large', whose order is not known; expected values, the least first: Ordinal([...])"
        in error_of(lambda: fitted(library, Ordinal(), ["large", "small"]))
    )
    assert "holds gaps alone" in error_of(lambda: fitted(library, Ordinal(), [None, None]))


@BOTH
def test_a_gap_is_no_value(library):
    schema, _ = fitted(library, Ordinal(SIZES), ["small", None, "large"])
    gapped = library({"x": ["small", None, "large"]})
    assert schema.gaps(gapped)["x"].tolist() == [False, True, False]
    assert "row 1, is a gap; expected a value of Ordinal(" in error_of(lambda: schema.encode(gapped))
    rows = schema.rows(gapped, errors="coerce")
    assert rows.gaps.any(1).tolist() == [False, True, False] and not rows.outside.any() and np.isnan(rows.x[1, 0])
    said = error_of(lambda: schema.encode(library({"x": ["small", "huge"]})))
    assert "row 1, is 'huge'; expected one of 'small', 'medium', 'large'" in said and "give it a place" in said
    assert "None, a gap, which has no place in an order" in error_of(lambda: Ordinal(["a", None]))
    assert "has 'a' twice" in error_of(lambda: Ordinal(["a", "a"]))


def test_quantiles_go_by_the_order():
    of, shares = result(), np.cumsum(masses())
    np.testing.assert_allclose(shares[-1], 1, rtol=1e-5)
    np.testing.assert_allclose(of.cdf(FRAME[["size"]]), shares[FRAME["size"].cat.codes], rtol=1e-5)
    between = [0.0, 0.99 * shares[0], 1.01 * shares[0], 0.99 * shares[1], 1.01 * shares[1], 1.0]
    assert of.quantile(between).tolist() == ["small", "small", "medium", "medium", "large", "large"]
    assert of.quantile(0.5) == SIZES[int((shares < 0.5).sum())]
    assert of.interval(0.9999).tolist() == ["small", "large"]
    assert "expected numbers from 0 to 1" in error_of(lambda: of.quantile(1.1))
    assert "expected a number between 0 and 1" in error_of(lambda: of.interval(1.0))
    for odd in (lambda: of.quantile([]), lambda: of.quantile(["half"]), lambda: of.interval("half")):
        with pytest.raises((flows.FlowsError, TypeError), match=r"q is empty|q has dtype|share is"):
            odd()


def test_quantiles_given_a_condition():
    of, given = result(("x",)), pd.DataFrame({"x": [-2.0, 0.0, 2.0]})
    shares = np.stack([np.cumsum(masses(("x",), x)) for x in given["x"]])
    few = FRAME[:3].assign(x=given["x"])
    np.testing.assert_allclose(of.cdf(few), shares[np.arange(3), few["size"].cat.codes], rtol=1e-5)
    q = np.array([[0.2, 0.6], [0.7, 0.95]])
    expected = (shares[:, None, None] < q[..., None]).sum(-1)
    found = of.quantile(q, given=given)
    assert found.columns.tolist() == ["q0.2", "q0.6", "q0.7", "q0.95"]
    assert found.to_numpy().tolist() == np.array(SIZES, object)[expected].reshape(3, 4).tolist()
    assert of.quantile(0.6, given={"x": 2.0}) == SIZES[int((shares[2] < 0.6).sum())]


def test_what_has_no_order_has_no_quantiles():
    frame = pd.DataFrame({"town": ["Bonn", "Oslo"] * 50})
    of = tables.fit(0, frame, max_epochs=1, verbose=0)
    for ask in (lambda: of.quantile(0.5), lambda: of.cdf(frame), lambda: of.interval(0.5)):
        assert "expected one number, or one Ordinal" in error_of(ask)


def test_numbers_have_a_distribution_function_too():
    of = tables.fit(0, FRAME, condition=["size"], model=GIVEN, folds=1, max_epochs=1, verbose=0)
    rows = of.schema.rows(FRAME)
    shares = of.cdf(FRAME[["x", "size"]])
    np.testing.assert_allclose(shares, of.result.cdf(rows.x, context=rows.context), rtol=1e-6)
    assert shares[FRAME["x"].argmin()] < 0.1 and shares[FRAME["x"].argmax()] > 0.9


def test_bars_stand_in_the_order():
    figure = result().plot(n=50)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list(SIZES)
    figure.clear()
    assert flows.check(result(), FRAME[["size"]], only=["columns"], samples=500)["columns"].detail
