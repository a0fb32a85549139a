"""Pictures and pages of checks: they say what the table says, every text is escaped, and equal calls write equal bytes."""

import pickle
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from common import error_of
from frames import GIVEN
from triples import normal

import flows
from flows import tables
from flows.checks import html, page
from flows.checks.details import text_of
from flows.checks.pictures import SURE, band_of, is_outside
from flows.checks.words import WORDS
from flows.diagnostics import ecdf_band
from flows.results.columns import Column

pytestmark = pytest.mark.filterwarnings("ignore:.*the closed-form Gaussian with", "ignore:.*was still falling")
HOSTILE = ("</title><img src=x onerror=alert(1)>", "\u202eright", "line\u2028end\x00", "$a$_`b`")
QUICK = {"max_epochs": 1, "verbose": 0}
FEWER = {"samples": 500, "only": ["shift", "coverage", "columns", "pairs"]}
FEW = {"samples": 1_000, "only": ["shift", "rows", "latents", "coverage", "columns", "pairs", "ranks", "tarp"]}


class Read(HTMLParser):
    """What a page has: its tags, the cells of its tables, and addresses."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.cells, self.open = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "td":
            self.cells.append("")
        self.open |= tag == "td"

    def handle_endtag(self, tag):
        self.open &= tag != "td"

    def handle_data(self, data):
        if self.open:
            self.cells[-1] += data


def rows_of(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def a_table():
    n, random = 300, np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "town": random.choice([*HOSTILE[:2], "Bonn"], n),
            HOSTILE[0]: random.normal(size=n),
            HOSTILE[3]: random.normal(size=n) % 6,
            HOSTILE[2]: pd.Timestamp("2021-03-01", tz="Europe/Berlin") + pd.to_timedelta(random.integers(0, 90, n), "D"),
        }
    )
    kinds = [tables.Category(), tables.Real(), tables.Circular(period=6), tables.DateTime()]
    schema = tables.Schema(dict(zip(frame, kinds, strict=True)))
    fitted = tables.fit(0, frame, schema, model=GIVEN, validation=0.4, folds=1, **QUICK)
    return flows.check(fitted, frame, **FEWER)


def conditional():
    context = rows_of(400, 2)
    model = flows.Normal(trainable=True, regression=True)
    result = flows.fit(0, model, context + rows_of(400, 2, 1), context=context, **QUICK)
    return flows.check(result, context + rows_of(400, 2, 2), context=context, **FEW)


def plain(folds=1, **asked):
    result = flows.fit(0, flows.Normal(trainable=True), rows_of(300, 2), folds=folds, **QUICK)
    return flows.check(result, rows_of(300, 2, 1), **(asked or FEW))


def of_images():
    images = rows_of(300, 4).reshape(-1, 2, 2)
    return flows.check(flows.fit(0, flows.Normal(trainable=True), images, **QUICK), images, **FEWER)


def of_a_density():
    log_density = lambda x: -0.5 * (x**2).sum(1)  # noqa: E731
    posterior = flows.fit_to_density(
        0, flows.Normal(trainable=True), log_density, 2, num_samples=64, steps_per_epoch=2, **QUICK
    )
    return flows.check(posterior, rows_of(300, 2), **FEWER)


def triple():
    return flows.check(normal(), rows_of(300, 2), **FEW)


KINDS = {
    "plain": plain,
    "folds": lambda: plain(2, **FEWER),
    "conditional": conditional,
    "table": a_table,
    "images": of_images,
    "density": of_a_density,
    "triple": triple,
}


@cache
def checked(name):
    return KINDS[name]()


@cache
def text(name):
    return page.page_of(checked(name), "Is it right?", True)


@pytest.mark.parametrize("name", KINDS)
def test_a_page_has_every_figure_and_no_script(name):
    checks, read = checked(name), Read(text(name))
    assert "script" not in read.tags and read.tags.count("h1") == 1
    assert not [key for key, _ in read.attributes if key.startswith("on")]
    assert {value.partition(":")[0] for key, value in read.attributes if key in ("src", "href")} <= {"data"}
    assert (
        read.tags.count("img")
        == read.tags.count("figure")
        == sum(key == "aria-label" for key, value in read.attributes)
        - sum("wide" in (value or "") for key, value in read.attributes if key == "class")
    )
    for figure, value in page._flat(checks.figures):
        shown = html.number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value or "")
        assert html.CONTROL.sub("\ufffd", shown).replace("`", "") in [cell.replace("`", "") for cell in read.cells], figure
    for check in checks.values():
        assert check.name in read.cells and WORDS[check.name].meaning.replace("`", "")[:60] in " ".join(read.cells)


def test_a_page_has_units_and_texts_of_others_as_text():
    whole = text("table")
    assert "<img src=x" not in whole and "&lt;/title&gt;&lt;img src=x onerror=alert(1)&gt;" in whole
    assert "line\u2028end\ufffd" in whole and "\x00" not in whole and "2021-0" in whole
    title = page.page_of(checked("triple"), HOSTILE[0], True)
    assert "<title>&lt;/title&gt;&lt;img" in title and "nothing is known of its making" in title
    assert "The oddest rows" in text("plain") and "in standard deviations, is in brackets" in text("plain")
    without, rows = page.page_of(checked("plain"), "", False), checked("plain").arrays["rows"]
    assert "The oddest rows" not in without and "Pairs of columns" not in without
    assert not [value for value in rows.ravel() if f">{value:.7g}<" in without]


def test_the_oddest_rows_are_those_of_the_least_densities():
    checks, rows = wrong(n=200), rows_of(200, 1)
    assert [row.place for row in checks.details.odd] == np.argsort(checks.arrays["log_p"], kind="stable")[:20].tolist()
    for row in checks.details.odd:
        assert row.values == (f"{rows[row.place, 0]:.7g}",) and row.log_p == checks.arrays["log_p"][row.place]
        np.testing.assert_allclose(row.deviations, (rows[row.place] - rows.mean(0)) / rows.std(0), rtol=1e-4)


def test_the_oddest_rows_have_the_least_p_values():
    odd, p_values = checked("plain").details.odd[:20], checked("plain").arrays["shift"]
    assert [row.p_value for row in odd] == np.sort(p_values)[:20].tolist()
    assert all(row.p_value == p_values[row.place] for row in odd)


def test_a_margin_has_no_row_as_text():
    rows = rows_of(301, 1)[:, 0]
    html_of = page._margins(Column("x", 0), rows, rows + 1)
    assert not [value for value in (rows.min(), rows.max()) if f"{value:.7g}" in html_of]


def test_dates_are_written_by_the_clock_of_their_zone():
    never = Column("never", 0, dates=True, zone="Europe/Berlin")
    assert text_of(never, 18_687.0) == "2021-03-01 01:00:00+01:00" and text_of(never, 3e6) == "3000000 days since 1970"
    assert text_of(never._replace(zone="+02:00"), 18_687.5) == "2021-03-01 14:00:00+02:00"


def test_pages_of_odd_models(tmp_path):
    params, log_pdf, _ = normal()
    lost = flows.check((params, log_pdf, lambda rng, params, n: np.full((n, 2), np.nan)), rows_of(300, 2), only=FEWER["only"])
    lost.write_html(bytes(tmp_path / "lost.html"))
    assert "FAIL" in (tmp_path / "lost.html").read_text() and "<figure>" not in (tmp_path / "lost.html").read_text()
    strict = page.page_of(flows.check(normal(), rows_of(300, 2), only=["columns", "energy"], tolerance=0.2), "", True)
    assert "Up to 0.03: <bdi>No probability" in strict and ">up to 0.2<" in strict
    towns = pd.DataFrame({"town": np.random.default_rng(0).choice(["Bonn", "Köln", *map(str, range(10))], 300)})
    fitted = tables.fit(0, towns, **QUICK)
    checks = flows.check(fitted, towns, only=["columns", "pairs"], samples=500)
    assert [axes.get_title()[:8] for axes in checks.plot().axes] == ["columns:"]
    plt.close("all")


def test_equal_calls_write_equal_bytes_in_another_process_too(tmp_path):
    checks, path = checked("table"), tmp_path / "page.html"
    checks.write_html(path, title="Is it right?")
    assert path.read_text() == text("table")
    (tmp_path / "checks.pickle").write_bytes(pickle.dumps(checks))
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb')).write_html(sys.argv[2], title='Is it right?')"
    subprocess.run([sys.executable, "-c", code, tmp_path / "checks.pickle", tmp_path / "other.html"], check=True)
    assert (tmp_path / "other.html").read_bytes() == path.read_bytes()


def test_paths_that_cannot_be_written(tmp_path):
    checks, there = checked("triple"), tmp_path / "page.html"
    there.write_text("before")
    for path in ("/dev/full", tmp_path, tmp_path / "none" / "page.html"):
        assert "page.html" in error_of(lambda path=path: checks.write_html(path)) or str(path) in error_of(
            lambda path=path: checks.write_html(path)
        )
    assert there.read_text() == "before"


def test_a_page_without_matplotlib_has_its_tables(monkeypatch):
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    whole = page.page_of(checked("plain"), "", True)
    assert "<img" not in whole and "needs the package matplotlib" in whole and whole.count("<details>") > 5


def wrong(scale=1.0, loc=0.0, seed=0, n=1_000):
    return flows.check(normal(loc=loc, scale=scale, d=1), rows_of(n, 1, seed), samples=4_000, only=["columns"])


def test_curves_say_what_the_table_says():
    (narrow,), (shifted,), (right,) = (wrong(**one).details.tests["columns"] for one in ({"scale": 0.8}, {"loc": 0.2}, {}))
    assert narrow.curve.max() > 0.03 and narrow.curve.min() < -0.03 and narrow.fault == "draws are too narrow"
    assert shifted.curve.max() > 0.05 and shifted.curve.min() > -0.01 and shifted.fault == "rows lie lower than draws"
    checks = wrong(scale=0.8)
    band, expected = band_of(checks, "columns"), ecdf_band(1_000, 4_000, shared=True, level=1 - SURE)
    np.testing.assert_array_equal(band.lower, expected.lower)
    assert is_outside(narrow, band) and is_outside(shifted, band) and not is_outside(right, band)
    figure = checks.plot("columns")
    np.testing.assert_allclose(figure.axes[0].lines[-1].get_ydata()[1:-1], 100 * narrow.curve)
    drawn = figure.axes[0].collections[0].get_paths()[0].vertices
    assert drawn[:, 1].max() == pytest.approx(100 * (band.upper - band.at).max())
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "draws are too narrow"
    assert figure.axes[0].get_title().startswith("columns: FAIL")
    plt.close(figure)


def test_a_sheet_has_every_check_with_a_picture():
    checks = checked("conditional")
    figure = checks.plot()
    titles = [axes.get_title().partition(":")[0] for axes in figure.axes if axes.get_title()]
    assert set(titles) == {"shift", "latents", "coverage", "ranks", "tarp"}
    plt.close(figure)
    assert "'rows' has no picture; expected one of shift, latents" in error_of(lambda: checks.plot("rows"))
    assert "'copies' was not run" in error_of(lambda: checks.plot("copies"))
    assert "none has a picture" in error_of(lambda: flows.check(normal(), rows_of(200, 2), only="energy").plot())
    figure = checked("table").plot("pairs")
    assert len(figure.axes) == 10
    plt.close(figure)


@pytest.mark.slow
def test_a_right_model_stays_inside_in_19_of_20_seeds():
    def outside(seed):
        checks = flows.check(normal(), rows_of(500, 2, seed), samples=2_000, only=["columns", "coverage"])
        return any(is_outside(test, band_of(checks, name)) for name, tests in checks.details.tests.items() for test in tests)

    assert sum(outside(seed) for seed in range(40)) <= 5  # 0.95 of Binomial(40, 0.06) is at most 5


@pytest.mark.slow
def test_a_page_of_many_rows_and_columns_is_small(tmp_path):
    checks = flows.check(normal(d=70), rows_of(200_000, 70), only=["columns", "pairs"])
    checks.write_html(tmp_path / "page.html")
    whole = (tmp_path / "page.html").read_text()
    assert len(whole) < 2_000_000 and "10 of 70 columns, those that differ least, are left out" in whole
    assert len(re.findall("<figure>", whole)) == 60 + 2
