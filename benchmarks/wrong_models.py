"""Models that are wrong in one way, beside those that are right, as triples (params, log_pdf, sample) that NumPy makes.

`MODELS` has for each the checks of `flows.check` that are meant for it, and makes it, and rows of the truth, anew from a seed.
Columns have deviation 1 or near it, so what is off is off in deviations. Densities are exact, those of samplers too, unless
they are what is wrong: then no check can tell by an accident of how a model was written.
"""

from collections.abc import Callable
from math import comb
from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln, ndtri_exp
from sklearn.neighbors import KernelDensity

from flows.diagnostics.arrays import generator

Triple = tuple[Any, Callable, Callable]
TRAIN = 2_000  # rows that a model has learnt by heart


class Made(NamedTuple):
    """Rows of the right model, and the wrong one."""

    rows: np.ndarray
    right: Triple
    wrong: Triple
    keywords: dict[str, np.ndarray]  # context and train of `flows.check`


class Model(NamedTuple):
    meant: tuple[str, ...]  # checks that should FAIL; none where the model is right
    make: Callable[[int, int], Made]  # of a seed and how many rows
    conditional: bool = False


def triple(log_p: Callable, draw: Callable) -> Triple:
    """Of `log_p(x, context)`, and `draw(random, n, context)`, in float64."""

    def log_pdf(params, x, context=None):
        return log_p(np.asarray(x, np.float64), None if context is None else np.asarray(context, np.float64))

    def sample(rng, params, n, context=None):
        return draw(generator(rng), n, None if context is None else np.asarray(context, np.float64))

    return {}, log_pdf, sample


def normal(mean: Any = (0.0, 0.0), scale: Any = (1.0, 1.0), correlation: float = 0.0) -> Triple:
    """Two columns; the mean may be a function of the context."""
    factor = np.diag(scale) @ np.linalg.cholesky([[1.0, correlation], [correlation, 1.0]])

    def middle(context):
        return mean(context) if callable(mean) else np.asarray(mean)

    def log_p(x, context):
        z = np.linalg.solve(factor, (x - middle(context)).T)
        return -0.5 * (z**2).sum(0) - np.log(np.diag(factor)).sum() - np.log(2 * np.pi)

    return triple(log_p, lambda random, n, context: middle(context) + random.normal(size=(n, 2)) @ factor.T)


def mixture(first: Triple, second: Triple, share: float) -> Triple:
    """A share of the second."""

    def log_p(x, context):
        parts = [np.log(weight) + each[1]({}, x) for each, weight in ((first, 1 - share), (second, share))]
        return np.logaddexp(*parts)

    def draw(random, n, context):
        either = [each[2](int(random.integers(2**31)), {}, n) for each in (first, second)]
        return np.where(random.uniform(size=(n, 1)) < share, either[1], either[0])

    return triple(log_p, draw)


def ring(power: int = 4) -> Triple:
    """A ring whose columns are normal, as those of a round cloud are: u with density |u|^(2 power) times a normal's, each of
    whose columns is then taken to normal scores, x = Phi^-1(F(u))."""
    u = np.linspace(-12.0, 0.0, 6_001)
    log_f = _log_margin(u, power)
    steps = 0.5 * (np.exp(log_f[1:]) + np.exp(log_f[:-1])) * np.diff(u)
    below = np.cumsum(np.concatenate([[np.exp(log_f[0]) * (u[1] - u[0])], steps]))
    x = ndtri_exp(np.log(0.5 * below / below[-1]))  # F(0) is 1/2
    u, x = np.concatenate([u, -u[-2::-1]]), np.concatenate([x, -x[-2::-1]])

    def log_p(points, context):
        at = np.interp(points, x, u)
        squares = (at**2).sum(1)
        with np.errstate(divide="ignore"):  # it is 0 in the middle
            of_ring = power * np.log(squares / 2) - squares / 2 - np.log(2 * np.pi) - gammaln(power + 1)
        return of_ring + (-(points**2) / 2 - np.log(2 * np.pi) / 2 - _log_margin(at, power)).sum(1)

    def draw(random, n, context):
        angle, radius = random.uniform(0, 2 * np.pi, n), np.sqrt(2 * random.gamma(power + 1, size=n))
        return np.interp(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), u, x)

    return triple(log_p, draw)


def _log_margin(u: np.ndarray, power: int) -> np.ndarray:
    """log of the integral of the ring's density over the other column."""
    moments = [np.prod(np.arange(1, 2 * j, 2), dtype=float) for j in range(power + 1)]  # E z^(2j)
    terms = sum(comb(power, j) * u ** (2 * j) * moments[power - j] for j in range(power + 1))
    return np.log(terms) - power * np.log(2) - gammaln(power + 1) - u**2 / 2 - np.log(2 * np.pi) / 2


def around(train: np.ndarray, spread: float) -> Triple:
    """Training rows with noise."""
    density = KernelDensity(bandwidth=spread, rtol=1e-6).fit(train)

    def draw(random, n, context):
        return train[random.integers(len(train), size=n)] + spread * random.normal(size=(n, train.shape[1]))

    return triple(lambda x, context: density.score_samples(x), draw)


RIGHT, CORRELATED = normal(), normal(correlation=0.6)
MODES = mixture(RIGHT, normal((3.0, 3.0), (0.7, 0.7)), 0.1)
POSTERIOR = normal(lambda context: context)


def plain(right: Triple, wrong: Triple) -> Callable[[int, int], Made]:
    return lambda seed, count: Made(right[2](seed, {}, count), right, wrong, {})


def given(wrong: Triple) -> Callable[[int, int], Made]:
    """Posteriors of two numbers, whose means are the two columns of the context."""

    def make(seed, count):
        context = RIGHT[2](seed + 2**20, {}, count)
        return Made(POSTERIOR[2](seed, {}, count, context=context), POSTERIOR, wrong, {"context": context})

    return make


def by_heart(seed: int, count: int) -> Made:
    train = RIGHT[2](seed + 2**20, {}, TRAIN)
    return Made(RIGHT[2](seed, {}, count), RIGHT, around(train, 0.05), {"train": train})


def raised(of: Triple, by: float) -> Triple:
    """A density that does not integrate to 1."""
    params, log_pdf, sample = of
    return params, lambda *given, **keywords: log_pdf(*given, **keywords) + by, sample


MODELS = {
    "spread 1.25 times too wide": Model(("columns",), plain(RIGHT, normal(scale=(1.0, 1.25)))),
    "spread 1.1 times too wide": Model(("columns",), plain(RIGHT, normal(scale=(1.0, 1.1)))),
    "location off by 0.2": Model(("columns",), plain(RIGHT, normal((0.0, 0.2)))),
    "correlation 0.6 left out": Model(("pairs",), plain(CORRELATED, RIGHT)),
    "a mode of weight 0.1 left out": Model(("columns", "classifier"), plain(MODES, RIGHT)),
    "a ring in place of a disc": Model(("energy", "classifier"), plain(RIGHT, ring())),
    "log_pdf + 0.1": Model(("normalisation",), plain(RIGHT, raised(RIGHT, 0.1))),
    "sampler 1.3 times too wide": Model(("sampler",), plain(RIGHT, (*RIGHT[:2], normal(scale=(1.3, 1.3))[2]))),
    "training rows with noise of 0.05": Model(("copies",), by_heart),
    "posterior 1.3 times too wide": Model(("ranks", "tarp"), given(normal(lambda context: context, (1.3, 1.3))), True),
    "context ignored": Model(("classifier",), given(normal(scale=(2**0.5, 2**0.5))), True),
    "columns of context exchanged": Model(("classifier",), given(normal(lambda context: context[..., ::-1])), True),
    "right: normal": Model((), plain(RIGHT, RIGHT)),
    "right: correlated": Model((), plain(CORRELATED, CORRELATED)),
    "right: two modes": Model((), plain(MODES, MODES)),
    "right: ring": Model((), plain(ring(), ring())),
    "right: posterior": Model((), given(POSTERIOR), True),
}
