"""Findings of checks, their verdicts in view of all checks of the call, and the table that `flows.check` returns."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from flows.diagnostics import holm, ranks, uniformity
from flows.diagnostics.uniformity import cells_of

PASS, SMALL, FAIL, CANNOT_TELL = "pass", "small", "FAIL", "cannot tell"
SURE = 0.01  # p-value times the number of tests, below which the size of a test is not chance
SHOWN = 8  # columns, whose CRPS is printed
POINTS = 100  # of a curve
WRONG = (  # words for the largest term of `uniformity`, below 0 and above it
    ("rows lie lower than draws", "rows lie higher than draws"),
    ("draws are too wide", "draws are too narrow"),
    ("in skewness", "in skewness"),
    ("in tails", "in tails"),
)


class Check(NamedTuple):
    """One question, and its answer.

    Attributes:
        name: the name of the check.
        verdict: "pass", where p is not below the level; "small", where p is below it, but the size is under the tolerance;
            "FAIL" in all other cases; "cannot tell", for the reason in `detail`.
        p: the p-value, raised by Holm's rule over all checks of the call; None for a check without a p-value.
        size: how far the model is off, in the unit that `detail` names; None where the check cannot tell.
        tolerance: the size up to which a difference does no harm.
        detail: the quantity that the size measures, and where it is largest.
    """

    name: str
    verdict: str
    p: float | None
    size: float | None
    tolerance: float
    detail: str


class Checks(Mapping[str, Check]):
    """Verdicts by the names of checks, `checks["columns"].p`; prints as a table.

    Attributes:
        rows: the `RowReport` of `result.verify`; None without a result, or if the check "rows" did not run.
        figures: plain numbers and text, for JSON: "rows", "draws", "log_likelihood", "standard_error", "crps" by column,
            "columns", a test of each, "level", "remarks", and "checks" by name.
        arrays: NumPy arrays, as far as they were computed: "rows" and "draws" that were compared, flat, draws of a conditional
            model (rows, 99, columns); "places" of these rows in the data; "ranks" of numbers among their draws; "latents", the
            noise of rows; "coverage" and "tarp", levels; "log_p" and "shift", p-values, of all rows; "oddest", 20 places.
        details: the model, columns in their units, curves and odd rows, for pictures and pages.
    """

    def __init__(
        self, checks: dict[str, Check], rows: Any, figures: dict[str, Any], arrays: dict[str, np.ndarray], details: Any = None
    ):
        self._checks, self.rows, self.arrays, self.details = checks, rows, arrays, details
        self.figures = {**figures, "passed": self.passed, "checks": {name: check._asdict() for name, check in checks.items()}}

    def __getitem__(self, name: str) -> Check:
        return self._checks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._checks)

    def __len__(self) -> int:
        return len(self._checks)

    @property
    def passed(self) -> bool:
        """Return whether no check FAILs."""
        return not any(check.verdict == FAIL for check in self._checks.values())

    def __repr__(self) -> str:
        return "\n".join([*self.head(), "", *self._table()])

    def _repr_html_(self) -> str:
        from flows.checks.html import notebook

        return notebook(self, self._cells())

    def plot(self, name: str | None = None) -> Any:
        """Draw a check, or all that have a picture on one sheet; needs matplotlib.

        columns, ranks, latents: for the 8 columns that differ most, the share of rows below a value less the share of draws, in
        a band that holds all curves of 19 of 20 right models (`diagnostics.ecdf_band`); curves outside have a colour and a
        name. coverage, tarp, shift: their one curve. pairs: points and margins of up to four columns that differ most.

        Args:
            name: one of these checks; None for all that were run.

        Returns:
            A matplotlib Figure.

        Errors:
            FlowsError: a check that has no picture, or was not run. ImportError: matplotlib is not installed.

        Example:
            >>> import flows, numpy as np
            >>> rows = np.random.default_rng(0).normal(size=(500, 2)) * [1.0, 1.25]
            >>> figure = flows.check(flows.Normal()(0, 2), rows, only=["coverage", "columns"]).plot("columns")
            >>> figure.axes[0].get_legend().get_texts()[0].get_text()
            'column 1: draws are too narrow'
            >>> figure.clear()
        """
        from flows.checks.pictures import plot

        return plot(self, name)

    def write_html(self, path: Any, *, title: str | None = None, rows: bool = True) -> None:
        """Write what was found to one page of HTML, which has no script and needs no network.

        It has verdicts in words, what sizes mean, what to do, the model, columns next to draws, curves in bands, the 20 oddest
        rows, and rows that `result.verify` names. Equal calls write equal bytes. Without matplotlib it has tables alone.

        Args:
            path: a file name.
            title: the heading of the page.
            rows: False leaves out all rows: odd ones, and points of pairs. A verdict may still name a rare category.

        Errors:
            FlowsError: a path that cannot be written to; what was there stays.

        Example:
            >>> import flows, numpy as np, tempfile, pathlib
            >>> rows = np.random.default_rng(0).normal(size=(500, 2))
            >>> page = pathlib.Path(tempfile.mkdtemp()) / "check.html"
            >>> flows.check(flows.Normal()(0, 2), rows, only="columns").write_html(page, title="Two columns")
            >>> "<h1><bdi>Two columns</bdi></h1>" in page.read_text()
            True
        """
        from flows.checks.page import write

        write(self, path, title, rows)

    def head(self) -> list[str]:
        """Return the lines above the table."""
        figures = self.figures
        if "rows" not in figures:
            return list(figures["remarks"])
        likelihood = f"{figures['without_density']:,} of them without a density"
        if figures["log_likelihood"] is not None:
            error = figures["standard_error"]
            spread = "" if error is None else f" +- {error:.3f}"
            likelihood = f"log-likelihood {figures['log_likelihood']:.3f}{spread} nats"
        lines = [*figures["remarks"], f"{figures['rows']:,} rows, {figures['draws']:,} draws, {likelihood}"]
        scores = [f"{name} {'unknown' if crps is None else f'{crps:.3g}'}" for name, crps in figures["crps"].items()]
        more = f" and {len(scores) - SHOWN} more" if len(scores) > SHOWN else ""
        return [*lines, f"CRPS {', '.join(scores[:SHOWN])}{more}"] if scores else lines

    def _cells(self) -> list[tuple[str, str, str, str, str, str]]:
        cells = [("check", "verdict", "p", "size", "up to", "")]
        for check in self._checks.values():
            p = "" if check.p is None else "< 1e-4" if check.p < 1e-4 else f"{check.p:.2g}"
            size = "" if check.size is None else f"{check.size:.4f}"
            cells.append((check.name, check.verdict, p, size, f"{check.tolerance:g}" if size else "", check.detail))
        return cells

    def _table(self) -> list[str]:
        cells = self._cells()
        widths = [max(map(len, column)) for column in list(zip(*cells, strict=True))[:5]]
        sides = str.ljust, str.ljust, str.rjust, str.rjust, str.rjust
        padded = ((*map(lambda side, cell, width: side(cell, width), sides, row, widths), row[5]) for row in cells)
        return ["  ".join(row).rstrip() for row in padded]


class Finding(NamedTuple):
    """A finding of a check before its verdict; without a size the check cannot tell, for the reason in `detail`.

    `minor` marks a remark that does no harm, of a check without a p-value.
    """

    detail: str
    size: float | None = None
    p: float | None = None
    minor: bool = False


class OneTest(NamedTuple):
    """One of several tests of a check.

    Attributes:
        p, size: the p-value of this test alone, and its size, in `unit`.
        name, fault: what it is of, and what is wrong, in words.
        curve: the distribution function of ranks less the one of uniform ranks, at the points of `diagnostics.ecdf_band`; None
            without a picture.
        rows, draws, shared: as in `ecdf_band`.
        place: the place of its column; -1 where it is of no column.
    """

    p: float
    size: float
    name: str = ""
    fault: str = ""
    unit: str = "Kolmogorov distance"
    curve: Any = None
    rows: int = 0
    draws: int | None = None
    shared: bool = False
    place: int = -1


def rank_test(rows: np.ndarray, draws: np.ndarray, random: np.random.Generator, name: str) -> OneTest:
    """Test ranks of rows (rows,) among shared draws, (draws,), or draws for each row, (rows, draws)."""
    ranks_ = ranks(rows, draws, rng=int(random.integers(2**32)))
    return one_test(uniformity(ranks_, draws.shape[-1], shared=draws.ndim == 1), name, ranks_, draws.shape[-1], draws.ndim == 1)


def one_test(test: Any, name: str, values: np.ndarray, draws: int | None, shared: bool = False) -> OneTest:
    """Return a test of uniform ranks, or numbers from 0 to 1, with its fault in words and its curve."""
    total, ends = cells_of(draws, POINTS)
    counts = np.bincount(values if draws is not None else np.minimum((values * total).astype(int), total - 1), minlength=total)
    curve = np.cumsum(counts)[ends[1:-1] - 1] / len(values) - ends[1:-1] / total
    at = int(np.abs(test.terms).argmax())
    fault = WRONG[at][int(test.terms[at] > 0)]
    more = {"curve": curve, "rows": len(values), "draws": draws, "shared": shared}
    return OneTest(float(test.p), float(test.size), name, fault, **more)


def worst(tests: list[OneTest], detail: str) -> Finding:
    """Return the least p-value of several tests, times their number, and the largest size of the tests that are surely off, as
    codes of many classes are far off by chance; else the size at the least p-value. `detail` has places for its fields."""
    least = min(tests, key=lambda test: (test.p, test.size))
    surely = [test for test in tests if test.p * len(tests) < SURE] or [least]
    largest = max(surely, key=lambda test: test.size)
    return Finding(detail.format(largest), largest.size, min(1.0, least.p * len(tests)))


def judged(findings: Mapping[str, Finding], tolerances: Mapping[str, float], level: float) -> dict[str, Check]:
    """Return checks by name, with Holm's rule over their p-values."""
    raised = holm([np.nan if finding.p is None else finding.p for finding in findings.values()])
    checks = {}
    for (name, finding), p in zip(findings.items(), raised, strict=True):
        verdict = _verdict(finding, p, tolerances[name], level)
        known = None if np.isnan(p) else float(p)
        checks[name] = Check(name, verdict, known, finding.size, tolerances[name], finding.detail)
    return checks


def _verdict(finding: Finding, p: float, tolerance: float, level: float) -> str:
    if finding.size is None:
        return CANNOT_TELL
    if finding.p is None:
        return FAIL if finding.size > tolerance else SMALL if finding.size or finding.minor else PASS
    if p >= level:
        return PASS
    return SMALL if finding.size < tolerance else FAIL
