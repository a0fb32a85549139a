"""Sixty files as people write them: each number and each date is read as it was meant, or its column is named as unread."""

import datetime as dt
import warnings

import numpy as np
import pytest

import flows
from flows.cli.fitting import Columns, read
from flows.cli.source import Reading, Source
from flows.tables import Category, DateTime, Ignored

DRAW = np.random.default_rng(0)
ROWS = 60
SIZES = np.unique(DRAW.lognormal(6, 1.5, 2 * ROWS).round(2))[:ROWS]
SIGNED = np.unique(DRAW.normal(0, 900, 3 * ROWS).round(1))[::2][:ROWS]
WHOLE = np.unique(DRAW.lognormal(7, 1.5, 3 * ROWS).astype(int))[:ROWS]
DAYS = [dt.datetime(2022, 1, 28) + dt.timedelta(days=int(n)) for n in np.sort(DRAW.choice(400, ROWS, replace=False))]
TIMES = [day + dt.timedelta(minutes=int(n)) for day, n in zip(DAYS, DRAW.integers(60, 1440, ROWS), strict=True)]


def written(values, thousands, mark, digits, form="{}", negative="-{}"):
    """Numbers as text, all with these digits behind the mark, or with as many as each needs."""
    texts = []
    for value in values:
        text = (
            f"{abs(value):,.{0 if digits is None else digits}f}" if digits is not None else f"{abs(value):,}".removesuffix(".0")
        )
        text = form.format(text.replace(",", "\0").replace(".", mark).replace("\0", thousands))
        texts.append(negative.format(text) if value < 0 else text)
    return texts


def dated(form, times=DAYS):
    return [time.strftime(form.replace("%-d", str(time.day)).replace("%-m", str(time.month))) for time in times]


NUMBERS = {
    "point": (SIZES, written(SIZES, "", ".", None)),
    "comma": (SIZES, written(SIZES, "", ",", None)),
    "comma, two digits": (SIZES, written(SIZES, "", ",", 2)),
    "comma, one digit, signs": (SIGNED, written(SIGNED, "", ",", 1)),
    "minus of typography": (SIGNED, written(SIGNED, "", ",", 1, negative="\u2212{}")),
    "plus": (SIGNED, [text if text[0] == "-" else f"+{text}" for text in written(SIGNED, "", ",", 1)]),
    "points and comma": (SIZES, written(SIZES, ".", ",", 2)),
    "commas and point": (SIZES, written(SIZES, ",", ".", 2)),
    "commas, whole": (WHOLE, written(WHOLE, ",", ".", 0)),
    "points, whole": (WHOLE * 10, written(WHOLE * 10, ".", ",", 0)),
    "spaces": (SIZES, written(SIZES, " ", ",", 2)),
    "spaces that do not break": (SIZES, written(SIZES, "\u00a0", ",", 2)),
    "thin spaces": (SIZES, written(SIZES, "\u202f", ",", None)),
    "apostrophes": (SIZES, written(SIZES, "'", ".", 2)),
    "typographic apostrophes": (SIZES, written(SIZES, "\u2019", ".", 2)),
    "brackets": (SIGNED, written(SIGNED, ",", ".", 2, negative="({})")),
    "dollars": (WHOLE, written(WHOLE, ",", ".", 0, "${}")),
    "dollars below zero": (SIGNED, written(SIGNED, ",", ".", 2, "${}")),
    "dollars in brackets": (SIGNED, written(SIGNED, ",", ".", 2, "${}", "({})")),
    "dollars, sign behind": (SIGNED, [text.replace("-$", "$-") for text in written(SIGNED, ",", ".", 2, "${}")]),
    "dollars of the US": (SIZES, written(SIZES, ",", ".", 2, "US$ {}")),
    "reais": (SIZES, written(SIZES, ".", ",", 2, "R$ {}")),
    "euros behind": (SIZES, written(SIZES, ".", ",", 2, "{} €")),
    "euros in front": (SIZES, written(SIZES, "", ".", 2, "€{}")),
    "pounds": (SIZES, written(SIZES, ",", ".", 2, "£{}")),
    "yen": (WHOLE, written(WHOLE, ",", ".", 0, "¥{}")),
    "kronor": (SIZES, written(SIZES, " ", ",", 2, "{} kr")),
    "francs": (SIZES, written(SIZES, "'", ".", 2, "CHF {}")),
    "code behind": (SIZES, written(SIZES, ",", ".", 2, "{} USD")),
    "percent": (SIGNED, written(SIGNED, "", ".", 1, "{}%")),
    "percent, comma": (SIGNED, written(SIGNED, "", ",", None, "{} %")),
    "kilograms": (SIZES, written(SIZES, "", ".", None, "{} kg")),
    "speeds": (SIZES, written(SIZES, "", ",", None, "{} km/h")),
    "degrees": (SIGNED, written(SIGNED, "", ".", 1, "{}°C")),
    "powers": (SIZES, [f"{value:.4e}" for value in SIZES]),
}
DATES = {
    form: dated(form, TIMES if "H" in form or "I" in form else DAYS)
    for form in (
        *("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y/%m/%d", "%d.%m.%Y", "%d.%m.%y", "%-d.%-m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%-m/%-d/%Y"),
        *("%d-%m-%Y", "%d %b %Y", "%B %d, %Y", "%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p", "%-d/%-m/%Y %H:%M"),
    )
}
EARLY = [dt.datetime(2023, 1 + n % 12, 1 + n // 12) for n in range(ROWS)]  # whose days are months, too
UNREAD = {
    "order that is open": dated("%d/%m/%Y", EARLY),
    "mark that is open": [f"{n},{n + 100}" for n in range(1, ROWS + 1)],
    "codes": [f"00{n}" for n in range(100, 100 + ROWS)],
    "identifiers": [f"A{n}" for n in range(ROWS)],
    "long identifiers": [f"{10**20 + 7 * n}" for n in range(ROWS)],
    "letters and a hyphen": [f"INV-{n}" for n in range(1000, 1000 + ROWS)],
    "plates": [f"BER {n}" for n in range(1000, 1000 + ROWS)],
    "phone numbers": [f"{n} 906 673" for n in range(200, 200 + ROWS)],
    "addresses": [f"227.247.138.{n}" for n in range(100, 100 + ROWS)],
    "two signs": [f"--{n}" for n in range(1, ROWS + 1)],
    "hours": [f"{n}pm" for n in range(1, ROWS + 1)],
    "rooms": [f"{n}a" for n in range(1, ROWS + 1)],
    "ordinals": [f"{n}th" for n in range(4, ROWS + 4)],
    "halves": [f"{n}½" for n in range(1, ROWS + 1)],
    "other digits": [f"{n}".translate({48 + i: 0x660 + i for i in range(10)}) for n in range(1, ROWS + 1)],
    "petrol": [f"1,{n} €" for n in range(400, 400 + ROWS)],
    "all in brackets": [f"({n})" for n in range(1900, 1900 + ROWS)],
    "years of two digits": [f"{n % 28 + 1:02}.05.{n % 60 + 30}" for n in range(ROWS)],
    "year or day first": [f"{n % 9 + 10}/11/{n % 28 + 1:02}" for n in range(ROWS)],
    "two formats": [*(f"{n % 28 + 1:02}.11.20{n % 28 + 10}" for n in range(ROWS // 2)), *dated("%Y/%m/%d")[: ROWS // 2]],
    "ranges": [f"{n}-{n + 9}" for n in range(ROWS)],
    "fractions": [f"{n}/{n + 1}" for n in range(ROWS)],
    "versions": [f"1.{n}.3" for n in range(ROWS)],
    "two units": [f"{n} {('kg', 'lb')[n % 2]}" for n in range(ROWS)],
    "free text": [f"the row after {'many ' * n} others" for n in range(ROWS)],
}


def read_text(tmp_path, texts, separator=";", end="\n", encoding="utf-8", quoted=False):
    quote = '"' if quoted or any(separator in text for text in texts) else ""
    lines = [f"x{separator}n", *(f"{quote}{text}{quote}{separator}{i * i}" for i, text in enumerate(texts))]
    path = tmp_path / "rows.csv"
    path.write_bytes((end.join(lines) + end).encode(encoding))
    block, schema = read(Source(str(path), Reading("csv", separator, encoding.replace("-sig", ""))), None, Columns())
    return block.frame, schema


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_read_as_they_were_meant(tmp_path, name):
    meant, texts = NUMBERS[name]
    for settings in ({}, {"separator": ",", "quoted": True, "end": "\r\n"}, {"separator": "\t", "encoding": "utf-8-sig"}):
        frame, schema = read_text(tmp_path, texts, **settings)
        numbers = schema.encode(frame)[:, schema.columns.index("x")] + float(schema.complete("x").offset)
        np.testing.assert_allclose(
            numbers, [float(f"{value:.4e}") for value in meant] if name == "powers" else meant, atol=1e-9
        )
        if schema["x"].text is not None:
            assert schema.decode(schema.encode(frame))["x"].to_list() == [_as_written(text) for text in texts]


def _as_written(text):
    """A number as it is written again: a minus as in ASCII, in front, and no plus."""
    text = text.replace("\u2212", "-").lstrip("+")
    return "-" + text.replace("-", "") if "-" in text else text


@pytest.mark.parametrize("form", DATES)
def test_dates_are_read_as_they_were_meant(tmp_path, form):
    times = TIMES if "H" in form or "I" in form else DAYS
    frame, schema = read_text(tmp_path, DATES[form])
    assert isinstance(schema["x"], DateTime)
    since = schema.encode(frame)[:, schema.columns.index("x")]
    assert since.tolist() == [(time - min(times)).total_seconds() for time in times]
    if schema["x"].format is not None:
        assert schema.decode(schema.encode(frame))["x"].to_list() == DATES[form]


@pytest.mark.parametrize("name", UNREAD)
def test_a_column_that_cannot_be_read_is_named(tmp_path, name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, schema = read_text(tmp_path, UNREAD[name])
    assert schema["x"] == Ignored()
    assert [str(each.message).partition("'x'")[0] for each in caught] == [
        "infer_schema: not read as numbers, dates or categories: "
    ]


def test_few_texts_with_a_unit_are_categories(tmp_path):
    _, schema = read_text(tmp_path, [f"{10 * (n % 3 + 1)} mg" for n in range(ROWS)])
    assert schema["x"] == Category(("10 mg", "20 mg", "30 mg"))


def test_one_cell_that_cannot_be_read_is_named(tmp_path):
    texts = [*NUMBERS["euros behind"][1]]
    texts[17] = "12.X4,50 €"
    with pytest.raises(
        Exception, match=r"row 17 \(line 19\), column 'x', is '12.X4,50 €', in a column of numbers. Correct it, name it in"
    ):
        read_text(tmp_path, texts)


def test_a_schema_without_a_notation_says_how_numbers_are_written(tmp_path):
    (tmp_path / "schema.json").write_text(flows.tables.Schema({"x": flows.tables.Real(), "n": flows.tables.Real()}).to_json())
    (tmp_path / "rows.csv").write_text("x;n\n180,3;1\n179,25;2\n")
    source = Source(str(tmp_path / "rows.csv"), Reading("csv", ";"))
    with pytest.raises(
        Exception, match=r"row 0 \(line 2\), column 'x', is '180,3'; expected numbers. Write \"text\": \"1234,5\" for it in the"
    ):
        read(source, str(tmp_path / "schema.json"), Columns())
