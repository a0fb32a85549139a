"""Can a classifier tell rows from draws?"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import bdtrc, expit

from flows.core import FlowsError, positive_int
from flows.diagnostics.arrays import as_samples, features_of, generator

RIDGES = (1e4, 1e3, 1e2, 1e1, 1e0)  # of weights of features with variance 1
FOLDS = 3
STEPS = 30  # of Newton's method
ENOUGH = 0.01  # nats of all rows, below which a step is the last
LEAST = 20  # rows, half of which are for training


class Classified(NamedTuple):
    """The accuracy of a classifier that separates rows from draws.

    Attributes:
        statistic: accuracy, the share of the test half of rows and draws that is classified correctly.
        p: the probability of as large an accuracy by chance.
        size: accuracy above 1/2.
        tested: how many rows and draws the test half has.
        probability: the probability of each row of the test half to be a row and not a draw, (rows,), in the order of
            `tested_rows`.
        tested_rows: places of these rows in the data; rows unlike all draws have a high probability.
    """

    statistic: float
    p: float
    size: float
    tested: int
    probability: np.ndarray
    tested_rows: np.ndarray


def classifier_two_sample(
    rows: Any, draws: Any, *, classifier: Any = None, paired: bool = False, most: int = 10_000, rng: Any = 0
) -> Classified:
    """Classifier two-sample test (C2ST): the accuracy of separating rows from equally many draws is 1/2 if both are from one
    distribution, whatever the classifier. One half of rows and draws trains it, the other half is for the test:

        p = P(C >= number classified correctly),   C binomial of as many trials, with probability 1/2

    By default it is logistic regression on columns, squares, products (at most 300) and 50 radial features, with the ridge that
    three folds of the training half choose. Instead of more than 64 columns it sees 64 principal components.

    Args:
        rows, draws: (rows, columns) and (draws, columns), or (rows,) and (draws,). For a conditional model give row and context
            together: then the test also finds a context that is ignored.
        classifier: any object with `fit(x, y)` and `predict_proba(x)`, (rows, 2), such as a classifier of scikit-learn; y is 1
            for rows.
        paired: whether row i and draw i share a condition, such as a context: then both train the classifier, or both test it.
            The classes of such a pair vary less than by chance, and p is at most too large.
        most: rows, and draws, that are used at most, drawn at random.
        rng: key or seed.

    Returns:
        `Classified(statistic, p, size, tested, probability, tested_rows)`.

    Errors:
        FlowsError: NaN or inf; fewer than 20 rows or draws; different columns; probabilities outside [0, 1]; pairs without a
            draw for each row.
        TypeError: a classifier without `fit` and `predict_proba`.

    Source:
        Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", 2017, arXiv:1610.06545, section 3.

    Example:
        >>> import flows, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> rows = rng.normal(size=(1_000, 2))
        >>> result = flows.diagnostics.classifier_two_sample(rows, 1.5 * rng.normal(size=(1_000, 2)))
        >>> bool(result.p < 1e-4), bool(result.size > 0.05)
        (True, True)
    """
    x, y = as_samples("classifier_two_sample", LEAST, rows=rows, draws=draws)
    check_classifier("classifier_two_sample", classifier)
    random = generator(rng)
    n = min(len(x), len(y), positive_int(most, "classifier_two_sample: most"))
    if n < LEAST:
        raise FlowsError(f"classifier_two_sample: most is {most}; expected at least {LEAST}")
    if paired and len(x) != len(y):
        raise FlowsError(
            f"classifier_two_sample: got {len(x)} rows and {len(y)} draws; expected a draw for each row, as paired=True"
        )
    rows_, draws_ = (random.permutation(len(sample))[:n] for sample in (x, y))
    draws_ = rows_ if paired else draws_
    train, test = (
        (np.concatenate([x[rows_[part]], y[draws_[part]]]), np.repeat([1, 0], len(rows_[part])))
        for part in (slice(n // 2), slice(n // 2, n))
    )
    if classifier is None:
        probability = _logistic(*train, random)(test[0])
    else:
        order = random.permutation(len(train[1]))
        classifier.fit(train[0][order], train[1][order])
        both = np.asarray(classifier.predict_proba(test[0]), float)
        if both.shape != (len(test[1]), 2) or not ((both >= 0) & (both <= 1)).all():
            raise FlowsError(
                f"classifier_two_sample: predict_proba gave shape {both.shape}; expected probabilities "
                f"({len(test[1])}, 2), of draws and rows"
            )
        probability = both[:, 1]
    right, tested = int(((probability > 0.5) == test[1]).sum()), len(test[1])
    accuracy, p = right / tested, float(bdtrc(right - 1, tested, 0.5)) if right else 1.0
    return Classified(accuracy, p, accuracy - 0.5, tested, probability[: tested // 2], rows_[n // 2 :])


def check_classifier(name: str, classifier: Any) -> None:
    """Refuse an object that is not a classifier; None is the default."""
    if classifier is not None and not all(callable(getattr(classifier, method, None)) for method in ("fit", "predict_proba")):
        raise TypeError(f"{name}: classifier is {classifier!r:.60}; expected an object with fit and predict_proba")


def _logistic(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Fit logistic regression with the ridge that folds choose; return a function from rows to probabilities."""
    folds = random.permutation(len(x)) % FOLDS
    losses = np.zeros(len(RIDGES))
    for fold in range(FOLDS):
        here = folds == fold
        features = features_of(x[~here], random)
        for i, weights in enumerate(_path(features(x[~here]), y[~here], RIDGES)):
            margins = weights[0] + features(x[here]) @ weights[1:]
            losses[i] += np.logaddexp(0, np.where(y[here] == 1, -margins, margins)).sum()
    features = features_of(x, random)
    *_, weights = _path(features(x), y, RIDGES[: int(losses.argmin()) + 1])
    return lambda rows: expit(weights[0] + features(rows) @ weights[1:])


def _path(features: np.ndarray, y: np.ndarray, ridges: tuple[float, ...]) -> list[np.ndarray]:
    """Return weights, the constant first, for each ridge, by Newton's method from the weights of the ridge before."""
    wide = features.shape[1] > len(features)  # then weights with a ridge lie in the span of the rows
    turn = np.linalg.svd(features, full_matrices=False)[2] if wide else None
    f = np.concatenate([np.ones((len(features), 1)), features if turn is None else features @ turn.T], 1)
    penalised, weights, path = np.arange(f.shape[1]) > 0, np.zeros(f.shape[1]), list[np.ndarray]()

    def loss(weights: np.ndarray, ridge: float) -> float:
        margins = f @ weights
        return float((np.logaddexp(0, margins) - y * margins).sum() + ridge / 2 * (weights[1:] ** 2).sum())

    for ridge in ridges:
        before = loss(weights, ridge)
        for _ in range(STEPS):
            p = expit(f @ weights)
            slope = f.T @ (p - y) + ridge * penalised * weights
            curvature = (f * (p * (1 - p))[:, None]).T @ f + np.diag(ridge * penalised + 1e-9 * len(f))
            step, share = np.linalg.solve(curvature, slope), 1.0
            while (after := loss(weights - share * step, ridge)) > before and share > 1e-3:
                share /= 2
            if after > before:
                break
            weights, gain, before = weights - share * step, before - after, after
            if gain < ENOUGH:
                break
        path.append(weights if turn is None else np.concatenate([weights[:1], weights[1:] @ turn]))
    return path
