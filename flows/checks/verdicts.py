"""Findings of checks, and what each means beside the others of the call."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from flows.diagnostics import holm

PASS, SMALL, FAIL, CANNOT_TELL = "pass", "small", "FAIL", "cannot tell"
SURE = 0.01  # p-value times the number of tests, below which the size of a test is no chance


class Check(NamedTuple):
    """One question, and its answer.

    Attributes:
        name: of the check.
        verdict: "pass", where its p-value is not below the level; "small", where it is, but the size is under the tolerance;
            "FAIL" in all other cases; "cannot tell", for the reason in `detail`.
        p: its p-value, raised by Holm's rule over all checks of the call; None where it has none.
        size: how far the model is off, in the unit that `detail` names; None where it cannot tell.
        tolerance: the size up to which this does no harm.
        detail: what the size is of, and where it is largest.
    """

    name: str
    verdict: str
    p: float | None
    size: float | None
    tolerance: float
    detail: str


class Finding(NamedTuple):
    """A finding of a check before it is judged; without a size it cannot tell, for the reason in `detail`.

    `minor` is whether there is something to tell, though it harms nothing, of a check that has no p-value.
    """

    detail: str
    size: float | None = None
    p: float | None = None
    minor: bool = False


class OneTest(NamedTuple):
    """One of several tests of a check: its p-value, its size, and what it is of."""

    p: float
    size: float
    of: str


def worst(tests: list[OneTest], detail: str) -> Finding:
    """Return the least p-value of several tests, times their number, and the largest size of those that are surely off, as
    codes of many classes are far off by chance; else the size at the least p-value. `detail` has a place for its name."""
    count = len(tests)
    surely = [each for each in tests if each.p * count < SURE] or [min(tests)]
    largest = max(surely, key=lambda each: each.size)
    return Finding(detail.format(largest.of), largest.size, min(1.0, min(tests).p * count))


def judged(findings: Mapping[str, Finding], tolerances: Mapping[str, float], level: float) -> dict[str, Check]:
    """Checks by their names, with Holm's rule over their p-values."""
    raised = holm([np.nan if found.p is None else found.p for found in findings.values()])
    checks = {}
    for (name, found), p in zip(findings.items(), raised, strict=True):
        least = tolerances[name]
        checks[name] = Check(name, _verdict(found, p, least, level), _known(p), found.size, least, found.detail)
    return checks


def _verdict(found: Finding, p: float, tolerance: float, level: float) -> str:
    if found.size is None:
        return CANNOT_TELL
    if found.p is None:
        return FAIL if found.size > tolerance else SMALL if found.size or found.minor else PASS
    if p >= level:
        return PASS
    return SMALL if found.size < tolerance else FAIL


def _known(p: Any) -> float | None:
    return None if np.isnan(p) else float(p)
