"""Findings of checks, their verdicts in view of all checks of the call, and the table that `flows.check` returns."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

import numpy as np

from flows.diagnostics import holm, ranks, uniformity

PASS, SMALL, FAIL, CANNOT_TELL = "pass", "small", "FAIL", "cannot tell"
SURE = 0.01  # p-value times the number of tests, below which the size of a test is not chance
SHOWN = 8  # columns, whose CRPS is printed


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
            "level", "remarks", and "checks" by name.
        arrays: NumPy arrays for pictures, as far as they were computed: "rows" and "draws" that were compared, flat, draws of
            a conditional model (rows, 99, columns); "places", the places of these rows in the data; "ranks", of each number
            among its draws; "latents", the noise of rows; "log_p", of all rows.
    """

    def __init__(self, checks: dict[str, Check], rows: Any, figures: dict[str, Any], arrays: dict[str, np.ndarray]):
        self._checks, self.rows, self.arrays = checks, rows, arrays
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
        return "\n".join([*self._head(), "", *self._table()])

    def _repr_html_(self) -> str:
        """Return the same as HTML, for a notebook: long details wrap."""
        rows = ["".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in cells) for cells in self._cells()]
        table = f"<table><tr>{'</tr><tr>'.join(rows)}</tr></table>"
        return f'<div class="flows-checks">{"<br>".join(map(escape, self._head()))}{table}</div>'

    def _head(self) -> list[str]:
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
    """One of several tests of a check: its p-value, its size and its name."""

    p: float
    size: float
    name: str = ""


def rank_test(rows: np.ndarray, draws: np.ndarray, random: np.random.Generator) -> tuple[OneTest, np.ndarray]:
    """Test ranks of rows (rows,) among shared draws, (draws,), or draws for each row, (rows, draws); also return its terms."""
    ranks_ = ranks(rows, draws, rng=int(random.integers(2**32)))
    test = uniformity(ranks_, draws.shape[-1], shared=draws.ndim == 1)
    return OneTest(float(test.p), float(test.size)), test.terms


def worst(tests: list[OneTest], detail: str) -> Finding:
    """Return the least p-value of several tests, times their number, and the largest size of the tests that are surely off, as
    codes of many classes are far off by chance; else the size at the least p-value. `detail` has a place for its name."""
    count = len(tests)
    surely = [test for test in tests if test.p * count < SURE] or [min(tests)]
    largest = max(surely, key=lambda test: test.size)
    return Finding(detail.format(largest.name), largest.size, min(1.0, min(tests).p * count))


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
