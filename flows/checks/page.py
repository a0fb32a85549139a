"""One page of HTML of what a check found, which needs no network: verdicts in words, the model, its columns, odd rows.

Every text is escaped where it is written. Pictures are SVG in the page, each with a table of its numbers. There is no script.
"""

import importlib.util
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import numpy as np

from flows.checks.check import QUESTIONS
from flows.checks.details import OddRow, text_of
from flows.checks.html import Cell, Html, clean, folded, table, text
from flows.checks.pictures import CURVES, band_of, column, has_pairs, in_units, is_outside, pairs
from flows.checks.verdicts import SHOWN, OneTest
from flows.checks.words import WORDS, in_words
from flows.core import lacking
from flows.persistence.container import replacement
from flows.results.columns import Column
from flows.results.pictures.axes import STYLE as LOOKS
from flows.results.pictures.axes import pyplot

MOST = 60  # columns with a picture of their own
RARE = 5  # rows that have a code, below which it may tell who they are
FEW = 12  # columns of a row that are all in the table of odd rows; of more, those furthest from the mean
MARGIN = 10_000  # rows and draws of a margin
TENTHS = slice(9, None, 10)  # of the points of a curve, which a table has
DOTS = 110  # an inch, of scatter plots
LIGHT = {"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}
PATH, DIGITS = re.compile(r' d="[^"]*"'), re.compile(r"(\.\d)\d+")  # a tenth of a point is enough
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = Path(__file__).with_name("page.css")


def write(checks: Any, path: Any, title: str | None, rows: bool) -> None:
    """Write the page; arguments as in `Checks.write_html`."""
    text = page_of(checks, "Is the density right?" if title is None else title, rows)
    with replacement(os.fsdecode(path)) as file:
        file.write(text.encode())


def page_of(checks: Any, title: str, rows: bool) -> str:
    """Return the page as text."""
    pictures = importlib.util.find_spec("matplotlib") is not None
    missing = "" if pictures else lacking("a page with pictures", "matplotlib", "plot")
    draw: Callable[..., str] = _drawn if pictures else _undrawn
    parts = [
        f"<h1>{text(title)}</h1>",
        *(f'<p class="FAIL">{text(remark)}</p>' for remark in checks.figures["remarks"]),
        f"<ul>{''.join(f'<li>{text(sentence)}</li>' for sentence in in_words(checks))}</ul>",
        f'<p class="soft">{text(missing)}</p>' * bool(missing),
        *_verdicts(checks),
        *_model(checks, draw),
        *_columns(checks, draw, rows),
        *_curves(checks, draw),
        *(_pairs(checks, draw) if rows else []),
        *(_rows(checks) if rows else []),
        "<h2>All figures</h2>",
        folded("Numbers", table(("figure", "value"), _flat(checks.figures))),
    ]
    head = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" '
        f'content="{POLICY}">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{clean(title)}</title>\n<style>\n{STYLE.read_text()}</style>\n</head>\n<body>\n"
    )
    return head + "\n".join(filter(None, parts)) + "\n</body>\n</html>\n"


def _undrawn(_: Callable[[], Any], label: str, numbers: str) -> str:
    return f"<figure><figcaption>{text(label)}</figcaption>{folded('Numbers', numbers)}</figure>"


def _drawn(make: Callable[[], Any], label: str, numbers: str) -> str:
    """Return a picture with its label, and its numbers folded below it; equal figures make equal text."""
    plt, file = pyplot(), io.StringIO()
    with plt.rc_context(fname=LOOKS), plt.rc_context(LIGHT), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's browser has its own
        figure = make()
        figure.savefig(file, format="svg", dpi=DOTS, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        plt.close(figure)
    svg = file.getvalue()
    svg = PATH.sub(lambda path: DIGITS.sub(r"\1", path[0]), re.sub(r"\s+", " ", svg[svg.index("<svg") :]))
    svg = quote(svg, safe=" /:;=,()'-.!*@$?+[]")
    words, (wide, high) = clean(label), (round(72 * inches) for inches in figure.get_size_inches())
    image = f'<img role="img" alt="{words}" aria-label="{words}" width="{wide}" height="{high}" src="data:image/svg+xml,{svg}">'
    return f"<figure>{image}<figcaption>{text(label)}</figcaption>{folded('Numbers', numbers)}</figure>"


def _verdicts(checks: Any) -> Iterable[str]:
    figures, rows = checks.figures, []
    for check in checks.values():
        words = WORDS[check.name]
        remedy = f"<p><b>What to do.</b> {text(words.remedy)}</p>" if check.verdict == "FAIL" else ""
        usual = f"Up to {QUESTIONS[check.name].tolerance:g}" if check.name in QUESTIONS else "Where it passes"
        said = f"<p><b>{text(check.detail)}</b></p><p>{usual}: {text(words.meaning)}.</p>{remedy}"
        verdict = Html(f'<span class="{clean(check.verdict)}">{clean(check.verdict)}</span>')
        size = "" if check.size is None else f"{check.size:.4f} ({words.unit})"
        p = "" if check.p is None else "p < 1e-4" if check.p < 1e-4 else f"p = {check.p:.2g}"
        rows.append((Html(f"<b>{check.name}</b>"), verdict, size, f"up to {check.tolerance:g}", p, Html(said)))
    yield "<h2>Verdicts</h2>"
    if "rows" in figures:
        yield f'<p class="soft">{text("; ".join(checks.head()[len(figures["remarks"]) :]))}</p>'
    yield table(("check", "verdict", "size", "up to", "p", "what it says"), rows, "verdicts")
    yield (
        '<p class="soft">p is the probability that a right model looks at least as wrong, raised by Holm\'s rule over all '
        f"checks; a FAIL has p below {figures['level']:g} and a size above what does no harm.</p>"
    )


def _model(checks: Any, draw: Callable[..., str]) -> Iterable[str]:
    about = checks.details.about
    yield "<h2>The model</h2>"
    if about is None:
        yield "<p>A triple (params, log_pdf, sample): nothing is known of its making.</p>"
    else:
        yield f"<pre>{text(about.lines)}</pre><pre><code>{clean(about.code)}</code></pre>"
        losses = {
            name: np.atleast_2d(about.history[name]) for name in ("train_loss", "validation_loss") if name in about.history
        }
        if losses and min(loss.shape[-1] for loss in losses.values()) > 1:
            epochs = np.unique(np.linspace(0, next(iter(losses.values())).shape[-1] - 1, 11).astype(int))
            numbers = table(
                ("epoch", *losses), [(int(i), *(float(loss[:, i].mean()) for loss in losses.values())) for i in epochs]
            )
            yield draw(lambda: about.history.plot().figure, "Losses by epoch", numbers)
    known = {**({} if about is None else about.metadata), "flows": sys.modules["flows"].__version__, "jax": jax.__version__}
    yield table(("name", "value"), _flat(known), "versions and metadata")


def _columns(checks: Any, draw: Callable[..., str], with_rows: bool) -> Iterable[str]:
    """Yield each column: margins of rows next to draws, and its curve in its band."""
    axes, tests = checks.details.axes, checks.details.tests.get("columns") or checks.details.tests.get("ranks", [])
    if not axes or any(not np.size(checks.arrays.get(which, ())) for which in ("rows", "draws")):
        return
    rare = {j for j in range(len(axes)) if not with_rows and _has_rare(checks, j)}
    differ = [j for j in checks.details.differ if j not in rare]
    shown = sorted(differ[:MOST])
    yield "<h2>Columns</h2>"
    if rare:
        yield f"<p>{len(rare):,} of {len(axes):,} columns, with codes of fewer than {RARE} rows, are left out.</p>"
    if left := [axes[j].column.name for j in sorted(differ[MOST:])]:
        names = ", ".join(left[:SHOWN]) + ", ..." * (len(left) > SHOWN)
        yield f"<p>{len(left):,} of {len(axes):,} columns, those that differ least, are left out: {text(names)}.</p>"
    which = "columns" if "columns" in checks.details.tests else "ranks"
    yield '<div class="columns">'
    for j in shown:
        name, mine = axes[j].column.name, [test for test in tests if test.place == j]
        rows, draws = (in_units(checks, kind, [j], MARGIN)[:, 0] for kind in ("rows", "draws"))
        faults = [test.fault for test in mine if is_outside(test, band_of(checks, which))]
        label = f"{name}: {'; '.join(faults) or 'inside its band' if mine else 'rows next to draws'}"
        figure = lambda: column(checks, j, rows, draws, which, mine)  # noqa: B023, E731 - it is called at once
        yield draw(figure, label, _margins(axes[j].column, rows, draws) + _numbers(checks, which, mine))
    yield "</div>"


def _has_rare(checks: Any, place: int) -> bool:
    """Return whether a column has codes that name few rows."""
    column = checks.details.axes[place].column
    return bool(column.classes) and np.unique(checks.arrays["rows"][..., place], return_counts=True)[1].min() < RARE


def _margins(of: Column, rows: np.ndarray, draws: np.ndarray) -> str:
    """Return the table of a margin: quantiles, or shares of codes."""
    if of.classes:
        codes, counts = np.unique(rows, return_counts=True)
        often = codes[np.argsort(-counts, kind="stable")][:FEW]
        return table(
            ("value", "rows", "draws"), [(of.code(code), *(float((x == code).mean()) for x in (rows, draws))) for code in often]
        )
    shares = np.linspace(0.05, 0.95, 10)  # the ends are single rows
    cells = (map(lambda value: text_of(of, value), np.quantile(x, shares)) for x in (rows, draws))
    return table(("quantile", "rows", "draws"), zip(shares.tolist(), *cells, strict=True))


def _numbers(checks: Any, name: str, tests: Sequence[OneTest]) -> str:
    """Return the table of some curves and their band, in percent."""
    if not tests:
        return ""
    band = band_of(checks, name)
    columns = [band.at, band.lower - band.at, band.upper - band.at, *(test.curve for test in tests)]
    heads = "%", "band from", "to", *(test.name for test in tests)
    return table(heads, (100 * np.stack(columns, 1))[TENTHS].tolist(), f"curves of {name}")


def _curves(checks: Any, draw: Callable[..., str]) -> Iterable[str]:
    """Yield the curves of each check that has some."""
    if not any(checks.details.tests.values()):
        return
    yield '<h2>Checks in their bands</h2><div class="columns">'
    for name in CURVES:
        tests = sorted(checks.details.tests.get(name, []), key=lambda test: -np.abs(test.curve).max())[:SHOWN]
        if tests:
            label = f"{name}: {checks[name].verdict}; {checks[name].detail}"
            yield draw(lambda: checks.plot(name), label, _numbers(checks, name, tests))  # noqa: B023
    yield "</div>"


def _pairs(checks: Any, draw: Callable[..., str]) -> Iterable[str]:
    if has_pairs(checks):
        cells = [(f"{first} and {second}", of_rows, of_draws) for first, second, of_rows, of_draws in checks.details.pairs]
        numbers = table(("correlation of normal scores", "rows", "draws"), cells)
        yield "<h2>Pairs of columns</h2>"
        yield draw(lambda: pairs(checks), f"pairs: {checks['pairs'].detail}", numbers)


def _rows(checks: Any) -> Iterable[str]:
    """Yield the oddest rows, and the rows that `verify` names."""
    names = [axis.column.name for axis in checks.details.axes]
    for title, odd in (("The oddest rows", False), ("Rows not to be trusted", True)):
        rows = [row for row in checks.details.odd if bool(row.reason) == odd]
        if not rows:
            continue
        yield f"<h2>{title}</h2>"
        if odd and len(checks.rows.rows) > len(rows):
            yield f"<p>{len(rows)} of {len(checks.rows.rows):,} such rows.</p>"
        cells = [(row.place, row.p_value, row.log_p, _values(row, names), *([row.reason] if odd else [])) for row in rows]
        yield (
            "<p>Rows are counted from 0, without rows that were left out for their gaps. Values are in the units of the data; "
            "how far they are from the mean of rows, in standard deviations, is in brackets.</p>"
        )
        yield table(("row", "p_value", "log p", "values", *(["reason"] if odd else [])), cells, title)


def _values(row: OddRow, names: Sequence[str]) -> str:
    """Return the values of a row in words, those furthest from the mean where there are many."""
    far = np.abs(np.nan_to_num(row.deviations))
    return "; ".join(
        f"{names[j]} {row.values[j]}" + ("" if np.isnan(row.deviations[j]) else f" ({row.deviations[j]:+.1f})")
        for j in sorted(np.argsort(-far, kind="stable")[:FEW])
    )


def _flat(figures: Any, prefix: str = "") -> Iterable[tuple[str, Cell]]:
    """Yield names and values of nested figures."""
    pairs_ = figures.items() if isinstance(figures, dict) else enumerate(figures)
    for key, value in pairs_:
        if isinstance(value, dict | list | tuple):
            yield from _flat(value, f"{prefix}{key}, ")
        else:
            yield f"{prefix}{key}", str(value) if isinstance(value, bool) else value
