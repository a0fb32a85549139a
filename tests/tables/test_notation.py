"""Numbers and dates that are text: read in their notation, refused by row and value, and written again."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from common import error_of
from frames import BOTH

import flows
from flows.tables import DateTime, Integer, Real, Schema, infer_schema
from flows.tables.kinds.notation import Notation, date_text, dates_in, numbers_in

THOUSANDS = tuple(f"{n},{n + 100}" for n in range(1, 31))
EXAMPLES = ("1234.5", "1.234,5 \u20ac", "$1,234.50", "(1 234,5 kr)", "1'234", "US$ 1,234.500", "1234,0%")


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_notation_reads_what_it_writes(example):
    notation = Notation.of(example)
    assert notation.example == example
    digits = 3 if notation.mark else 0
    for number in (0.0, -0.0004, 7.0, 999.0, 1000.0, 1234.5, -1234567.125, 0.25, 2.0**40):
        expected = round(number, digits if notation.digits is None else notation.digits)
        assert notation.number(notation.text(number, digits)) == expected


def test_what_a_notation_writes():
    assert [Notation.of(example).text(-1234567.5, 1) for example in EXAMPLES] == [
        *("-1234567.5", "-1.234.567,5 \u20ac", "-$1,234,567.50", "(1 234 567,5 kr)", "-1'234'567.5", "-US$ 1,234,567.500"),
        "-1234567,5%",
    ]
    assert [Notation.of("1.234,5").text(number, None) for number in (0.1, -0.0, 1e-7, 1e6)] == [
        "0,1",
        "0",
        "0,0000001",
        "1.000.000",
    ]


@pytest.mark.parametrize(
    "text", ["", "12,5", "1,234,5", "(1234.5", 1234.5, "1.234.5", "one", "1234.51", "+1234", "-1234", "1-234", "1234("]
)
def test_what_is_not_an_example_is_refused(text):
    message = error_of(lambda: Real(text=text))
    assert message.startswith(f"Real: text is {text!r}; expected the number 1234.5 as people write it, such as '1.234,5")


def test_how_many_ways_there_are_to_read_numbers():
    ways = {
        ("1,234", "5,678"): ("1,234", "1234,500"),
        ("1,234", "950"): ("1,234", "1234,5"),
        ("1,234", "950", "5,678"): ("1,234", "1234,5"),
        (*THOUSANDS, "950", "870"): ("1,234",),
        ("1,234", "1200"): ("1,234", "1234,5"),
        ("1.234", "950", "5.678"): ("1234.5",),
        (*(text.replace(",", ".") for text in THOUSANDS), "950", "870"): ("1.234",),
        ("1,234", "0,5"): ("1234,5",),
        ("1,234,567", "1,5"): (),
        ("$1,234", "$5,678"): ("$1,234",),
        ("$3.459", "$3.559"): ("$1234.500",),
        ("1,459 \u20ac", "1,479 \u20ac"): ("1,234 \u20ac", "1234,500 \u20ac"),
        ("EUR -5", "EUR 6"): ("EUR 1234",),
        ("EUR-5", "EUR-6"): (),
        ("9\u00bd", "8\u00bd"): (),
        ("5 m\u00b2", "7 m\u00b2"): ("1234 m\u00b2",),
        ("5 kg", "6 lb"): (),
        ("12 a5",): (),
    }
    assert {texts: numbers_in(texts).ways for texts in ways} == ways
    assert numbers_in([*map(str, range(30)), "3O"]).odd == "3O" and not numbers_in([*map(str, range(30)), "a", "b"]).ways
    assert dates_in([*(f"{n}.5.2023" for n in range(1, 31)), "31.6.2023"]).odd == "31.6.2023"


def test_an_order_of_dates_that_is_open():
    assert dates_in(["01/02/2023", "12/11/2023"]).ways == ("%d/%m/%Y", "%m/%d/%Y")
    assert dates_in(["01/02/2023", "13/11/2023"]).ways == ("%d/%m/%Y",)
    assert dates_in(["1/2/2023 09:05", "12/13/2023 10:00"]).ways == ("%-m/%-d/%Y %H:%M",)
    assert dates_in(["13/13/2023"]).ways == () == dates_in(["2023"]).ways
    assert date_text(dt.datetime(987, 6, 5, 4, 3), "%-d.%-m.%Y %-H:%M") == "5.6.0987 4:03"


@BOTH
def test_a_column_of_text_is_read_checked_and_written(library):
    texts = ["$1,250", "$75", None, "($3,100)", "$40"]
    frame = library({"x": texts, "t": ["31.1.2024", "1.2.2024", "3.2.2024", "4.2.2024", "5.2.2024"]})
    schema = infer_schema(frame)
    assert dict(schema.kinds) == {"x": Integer(text="($1,234)"), "t": DateTime(step=86_400, format="%-d.%-m.%Y")}
    again = Schema.from_json(schema.to_json())
    rows = again.rows(frame, errors="coerce")
    np.testing.assert_array_equal(rows.x[:, 0] - 3100, [1250, 75, np.nan, -3100, 40])
    assert rows.gaps.any(1).tolist() == [False, False, True, False, False] and not rows.outside.any()
    there = frame.dropna() if library is pd.DataFrame else frame.drop_nulls()
    written = again.decode(again.encode(there))
    assert written["x"].to_list() == ["$1,250", "$75", "($3,100)", "$40"] and written["t"].to_list() == there["t"].to_list()
    for text in ("", " ", "NaT", "now", "30.2.2024", "1.1.24"):
        days = library({"x": ["$1", "$2"], "t": ["31.1.2024", text]})
        assert f"column 't', row 1, is {text!r}; expected a date written as '%-d.%-m.%Y'. Correct it" in error_of(
            lambda days=days: again.encode(days)
        )
        assert again.rows(days, errors="coerce").outside.tolist() == [False, True]
    bad = library({"x": ["$1,250", "12 apples"], "t": ["31.1.2024"] * 2})
    message = error_of(lambda: again.encode(bad))
    assert (
        "column 'x', row 1, is '12 apples'; expected a whole number, written as '($1,234)' is. Correct it, or make it"
        in message
    )
    assert again.rows(bad, errors="coerce").outside.tolist() == [False, True]
    numbers = library({"x": [1250, -3100], "t": ["31.1.2024"] * 2})
    np.testing.assert_array_equal(again.encode(numbers)[:, 0], [4350, 0], "numbers are taken as they are")


def test_texts_without_a_notation_say_what_to_do():
    with pytest.raises(TypeError, match=r"column 'x', row 0, is '1,5', a str; expected a number.*Real\(text='1.234,5'\)"):
        Schema({"x": Real()}).fitted(pd.DataFrame({"x": ["1,5", "2,5"]}))


def test_a_condition_is_given_as_it_is_written():
    price = np.arange(1.0, 61) ** 2
    frame = pd.DataFrame({"price": [f"{int(x):,} \u20ac".replace(",", ".") for x in price], "y": np.sqrt(price) / 7})
    schema = infer_schema(frame, condition=["price"])
    assert schema["price"] == Integer(low=0, text="1.234 \u20ac")
    np.testing.assert_allclose(schema.context(schema.given({"price": "2.500 \u20ac"})), np.log([[2500.5]]))


def test_a_fitted_table_scores_and_draws_text():
    rng = np.random.default_rng(0)
    x = rng.normal(3000, 900, 90).round(2)
    frame = pd.DataFrame({"x": [f"{value:,.2f} kr" for value in x], "y": x / 1000 + rng.normal(size=90)})
    result = flows.tables.fit(0, frame, model=flows.Normal(), max_epochs=1, folds=1, verbose=0)
    plain = flows.tables.fit(0, frame.assign(x=x), model=flows.Normal(), max_epochs=1, folds=1, verbose=0)
    np.testing.assert_array_equal(result.log_prob(frame), plain.log_prob(frame.assign(x=x)))
    drawn, numbers = result.draw(1, 5)["x"].to_list(), plain.draw(1, 5)["x"]
    assert drawn == [f"{value:,.2f} kr" for value in numbers]


def test_a_row_is_named_with_its_label():
    for index, where in (
        (["a", "b"], r"row 1 \(index 'b'\)"),
        ([7, 5], r"row 1 \(index 5\)"),
        (None, "row 1"),
        ([0, 1], "row 1"),
    ):
        frame = pd.DataFrame({"x": [1.5, np.inf], "y": [1, "two"]}, index=index)
        for name, error, message in (("x", flows.FlowsError, "is inf"), ("y", TypeError, "is 'two'")):
            with pytest.raises(error, match=f"column '{name}', {where}, {message}"):
                infer_schema(frame[[name]])
