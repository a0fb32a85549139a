"""The call `check`: the table of checks, and how they run."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from flows.checks import density, likeness, rows
from flows.checks.details import details_of
from flows.checks.model import Model, flat, model_of
from flows.checks.sample import LEAST, Sample
from flows.checks.verdicts import FAIL, Checks, Finding, judged
from flows.core import FlowsError, as_key, not_negative, number, positive_int
from flows.diagnostics import crps, ranks
from flows.diagnostics.classifier import check_classifier

BY_CHANCE = 4.0  # standard errors, by which more rows than draws have to be training rows for a remark
BROKEN = 1e-3  # share of draws that are not finite, above which this is the only finding
NAMED = 5  # rows that a remark names
ODD = 20  # rows of least p-values


class Question(NamedTuple):
    """A check: its function, and the size up to which a difference does no harm. `conditional` is True where a model needs a
    context, False where it must have none, None for all models; `otherwise` is the reason why other models lack the check."""

    run: Callable[[Sample], Finding]
    tolerance: float
    conditional: bool | None = None
    otherwise: str = ""


QUESTIONS = {
    "shift": Question(rows.shift, 0.05),
    "rows": Question(rows.rows, 1e-3),
    "normalisation": Question(density.normalisation, 0.02),
    "sampler": Question(density.sampler, 0.05),
    "latents": Question(rows.latents, 0.03),
    "coverage": Question(likeness.coverage, 0.03),
    "columns": Question(likeness.columns, 0.03),
    "pairs": Question(likeness.pairs, 0.05, False, "a conditional model: see ranks, tarp and classifier"),
    "energy": Question(likeness.energy, 0.002, False, "a conditional model: see ranks, tarp and classifier"),
    "ranks": Question(likeness.ranks, 0.03, True, "the model has no context, or rows share theirs: see columns"),
    "tarp": Question(likeness.tarp, 0.03, True, "the model has no context, or rows share theirs: see energy and classifier"),
    "classifier": Question(likeness.classifier, 0.03),
    "copies": Question(rows.copies, 0.03),
}


def check(
    fitted: Any,
    data: Any,
    *,
    context: Any = None,
    train: Any = None,
    rng: Any = 0,
    samples: int = 10_000,
    level: float = 0.01,
    tolerance: Any = None,
    only: Iterable[str] | str | None = None,
    classifier: Any = None,
) -> Checks:
    """Check whether a fitted distribution describes rows that it has not seen, with a verdict for each question.

    A check has a p-value, which Holm's rule raises over all checks of the call, and a size, in a common unit. Its verdict is
    "pass" where p is not below the level; "small" where p is below it, but the size is under a tolerance, as many rows show
    that no model is exact; "FAIL" in all other cases; "cannot tell", with the reason, where a p-value cannot be believed. A
    right model has no FAIL in 99 of 100 calls at level 0.01, whatever the tolerances.

        shift          are scores like the scores of rows held out in the fit? Kolmogorov distance, 0.05. A FAIL blames the rows
        rows           round trips, log-dets and scores that are off: share of rows, 0.001; and log p in float64
        normalisation  |log of the integral of p|, 0.02 nats, by 10,000 points around rows
        sampler        do draws follow p? Means of g(x) / p(x) over draws, for narrow normals g: typical error, 0.05
        latents        noise of rows against draws of the base, or with rounded values against noise of draws; dimensions and
                       products of pairs: Kolmogorov distance, 0.03
        coverage       do highest-density regions hold as many rows as they should? Largest error, 0.03
        columns        ranks of rows among draws, or counts of codes: Kolmogorov distance, or total variation, 0.03
        pairs          correlations of normal scores: largest difference, 0.05
        energy         energy distance of rows and draws: energy coefficient, 0.002
        ranks          of conditional models, the rank of each row among its 99 draws, also within slices of the context
        tarp           of conditional models, coverage of balls around random points: largest error, 0.03
        classifier     can a classifier separate rows from draws? Accuracy above 1/2, 0.03
        copies         with train=, are draws nearer to training rows than rows are? Share of pairs above 1/2, 0.03

    Args:
        fitted: a result of `fit`, `fit_ensemble`, `fit_to_density`, `tables.fit` or `load`, or a triple (params, log_pdf,
            sample). Log-densities and draws are all that most checks need; shift, latents and round trips need a result.
        data: rows that the fit did not see, (rows, *event), or a table; for a posterior, draws of another sampler.
        context: as in `log_prob`; a table has its condition in the frame. Rows that all have the same context are checked as
            rows of a model without one.
        train: rows that the fit saw, as data; for a conditional model of arrays a pair (rows, context).
        rng: key or seed. The result of a check depends on it, but not on which other checks run.
        samples: draws, which all checks share; a conditional model has 99 for each of at most 2,000 rows instead.
        level: the share of right models that have a FAIL in any check.
        tolerance: a number for all checks, or a dict from names to sizes; by default the sizes above.
        only: names of checks; by default all that the model allows.
        classifier: as in `diagnostics.classifier_two_sample`.

    Returns:
        `Checks`, a mapping from names to `Check`: print it.

    Errors:
        FlowsError: NaN or inf in data or context, with its row and column; another shape; a name that is not a check; errors
            of `log_prob`. TypeError: a `log_pdf` or `sample` that does not return real numbers.

    Example:
        >>> import flows, numpy as np
        >>> rows = np.random.default_rng(0).normal(size=(2_000, 2)) * [1.0, 1.25]
        >>> checks = flows.check(flows.Normal()(0, 2), rows, only=["coverage", "columns", "pairs"])
        >>> {name: check.verdict for name, check in checks.items()}
        {'coverage': 'FAIL', 'columns': 'FAIL', 'pairs': 'pass'}
        >>> checks["columns"].detail
        'Kolmogorov distance of column 1, draws are too narrow'
    """
    names, tolerances = _names(only), _tolerances(tolerance)
    check_classifier("check", classifier)
    level = number(level, "check: level", lambda x: 0 < x < 1, "a number between 0 and 1, such as 0.01")
    model, count = model_of(fitted, data, context), positive_int(samples, "check: samples")
    if count < LEAST:
        raise FlowsError(f"check: samples is {count}; expected at least {LEAST}")
    sample = Sample(model, *model.read(data, context, "data"), _train(model, train, context), classifier, as_key(rng), count)
    names = names or [name for name in QUESTIONS if _is_usual(name, sample)]
    checks = judged({name: _finding(name, sample) for name in names}, tolerances, level)
    figures = {**_figures(sample), "level": float(level), "remarks": _remarks(checks, sample)}
    report, arrays = sample.report if "rows" in checks else None, _arrays(sample)
    return Checks(checks, report, figures, arrays, details_of(sample, report, arrays["oddest"]))


def _names(only: Any) -> list[str]:
    """Names in `only`, in the order of the table; [] by default."""
    if only is None:
        return []
    if not isinstance(only, Iterable):
        raise TypeError(f"check: only is {only!r:.80}; expected names of {', '.join(QUESTIONS)}")
    names = [only] if isinstance(only, str) else list(only)
    if not names or not all(isinstance(name, str) and name in QUESTIONS for name in names):
        got = only if isinstance(only, str) else names
        raise FlowsError(f"check: only is {got!r:.80}; expected names of {', '.join(QUESTIONS)}")
    return [name for name in QUESTIONS if name in names]


def _tolerances(tolerance: Any) -> dict[str, float]:
    usual = {name: question.tolerance for name, question in QUESTIONS.items()}
    sizes = tolerance if isinstance(tolerance, Mapping) else {} if tolerance is None else dict.fromkeys(usual, tolerance)
    unknown = [name for name in sizes if name not in usual]
    if unknown:
        raise FlowsError(f"check: tolerance has {unknown[0]!r}; expected names of {', '.join(usual)}")
    return usual | {name: not_negative(size, f"check: tolerance of {name}") for name, size in sizes.items()}


def _train(model: Model, train: Any, context: Any) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Training rows and their contexts, flat; a table has both in its frame."""
    if train is None:
        return None
    condition = None
    if context is not None:
        if not isinstance(train, tuple) or len(train) != 2 or train[1] is None:
            raise FlowsError(
                f"check: train is a {type(train).__name__}; expected a pair (rows, context) of a conditional model"
            )
        train, condition = train
    rows_, contexts = model.read(train, condition, "train")
    return flat(rows_), None if contexts is None else flat(model.row_contexts(contexts, len(rows_)))


def _is_usual(name: str, sample: Sample) -> bool:
    """Return whether a check is in the table by default."""
    if name == "copies":
        return sample.train is not None
    if name == "columns":
        return not sample.conditional or likeness.has_cdf(sample)
    return QUESTIONS[name].conditional in (None, sample.conditional)


def _finding(name: str, sample: Sample) -> Finding:
    question, count = QUESTIONS[name], len(sample.all_rows)
    if count < LEAST and name != "rows":
        return Finding(f"{count} rows; at least {LEAST} make a p-value")
    if name not in ("shift", "rows") and sample.off > BROKEN:
        broken = f"{sample.off:.2%} of {'rows have draws that' if sample.conditional else 'draws'} are not finite"
        return Finding(broken, 1.0, 0.0) if name in ("columns", "ranks") else Finding(broken)
    if question.conditional not in (None, sample.conditional):
        return Finding(question.otherwise)
    with np.errstate(over="ignore"):  # points far out overflow, and are far off
        return question.run(sample)


def _remarks(checks: Mapping[str, Any], sample: Sample) -> list[str]:
    """Return the lines before the table."""
    remarks, (known, chance), count = list[str](), rows.in_train(sample), len(sample.all_rows)
    if "shift" in checks and checks["shift"].verdict == FAIL:
        remarks.append(
            "shift FAILs, and blames the rows: they are not like those that were held out in the fit. They are of another "
            "population, or the model was trained on them; what the other checks find may be about that"
        )
    if len(known) > chance * count + BY_CHANCE * (chance * (1 - chance) * count) ** 0.5:
        named = ", ".join(map(str, known[:NAMED]))
        more = ", ..." if len(known) > NAMED else ""
        draws = f", beside {chance:.1%} of draws" if chance else ""
        remarks.append(f"{len(known):,} of {count:,} rows are in train (rows {named}{more}){draws}, and were not held out")
    dependence = rows.dependence(sample)
    return [*remarks, dependence] if dependence else remarks


def _figures(sample: Sample) -> dict[str, Any]:
    """Return the figures in the head of the table."""
    log_p = sample.log_p
    with np.errstate(over="ignore", invalid="ignore"):
        likelihood, error = log_p.mean(), log_p.std(ddof=1) / len(log_p) ** 0.5 if len(log_p) > 1 else np.nan
    plain = [column for column in sample.columns if not column.period and not column.classes]
    scores = dict[str, float | None]()
    if plain and len(sample.draws) and len(sample.rows):
        at = [column.place for column in plain]
        means = crps(sample.rows[:, at], sample.draws[..., at]).mean(0)
        scores = {column.name: _finite(score) for column, score in zip(plain, means, strict=True)}
    return {
        "rows": len(log_p),
        "draws": sample.draws.size // max(len(sample.columns), 1),
        "log_likelihood": _finite(likelihood),
        "standard_error": _finite(error),
        "without_density": int((~np.isfinite(log_p)).sum()),
        "crps": scores,
        "columns": [
            {"check": name, "name": test.name, "p": test.p, "size": test.size, "unit": test.unit, "fault": test.fault}
            for name in ("columns", "ranks")
            for test in sample.tests.get(name, [])
        ],
    }


def _finite(number: Any) -> float | None:
    """A plain number, or None where JSON has none."""
    return float(number) if np.isfinite(number) else None


def _arrays(sample: Sample) -> dict[str, np.ndarray]:
    """Return arrays for pictures."""
    arrays = {"places": sample.places, "rows": sample.rows, "draws": sample.draws, "log_p": sample.log_p, **sample.arrays}
    if len(sample.rows) and len(sample.draws):
        arrays["ranks"] = ranks(sample.rows, sample.draws, rng=sample.key(16))
    arrays["oddest"] = np.lexsort([sample.log_p, *([arrays["shift"]] if "shift" in arrays else [])])[:ODD]
    return arrays
