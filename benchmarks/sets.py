"""Ordinary tables: (training rows, test rows) of each, made anew from a seed or read from what is public."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent.parent / "examples" / "data"
TEST = 5_000


def drawn(make: Callable[[np.random.Generator], Callable[[int], np.ndarray]], rows: int, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    draw = make(rng)
    return draw(rows), draw(TEST)


def split(rows: np.ndarray, train: int, seed: int = 0) -> tuple:
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows[order[:train]], rows[order[train : train + 2 * TEST]]


def gaussian(d: int) -> Callable:
    def make(rng):
        mixing = rng.normal(size=(d, d))
        return lambda n: rng.normal(size=(n, d)) @ mixing

    return make


def tailed(d: int) -> Callable:
    def make(rng):
        mixing = rng.normal(size=(d, d))

        def draw(n):
            z = rng.standard_t(3, size=(n, d))
            return np.tanh(z @ mixing / 10) + 0.3 * z

        return draw

    return make


def student(df: float, d: int) -> Callable:
    """A multivariate t, whose columns have their far rows in common."""

    def make(rng):
        mixing = rng.normal(size=(d, d))
        return lambda n: (rng.normal(size=(n, d)) @ mixing) / np.sqrt(rng.chisquare(df, size=(n, 1)) / df)

    return make


def clusters(count: int, d: int, apart: float) -> Callable:
    def make(rng):
        means, scales = apart * rng.normal(size=(count, d)), np.exp(0.5 * rng.normal(size=(count, d)))

        def draw(n):
            own = rng.integers(count, size=n)
            return means[own] + scales[own] * rng.normal(size=(n, d))

        return draw

    return make


def shape(name: str) -> Callable:
    def make(rng):
        import flows

        base = getattr(flows.datasets, name)()(0, 2)
        return lambda n: np.asarray(base.sample(int(rng.integers(2**31)), base.params, n))

    return make


def table(name: str) -> np.ndarray:
    return np.genfromtxt(DATA / f"{name}.csv", delimiter=",", skip_header=1)


def scikit(name: str) -> np.ndarray:
    import sklearn.datasets

    return getattr(sklearn.datasets, f"load_{name}")().data


def of_household() -> np.ndarray:
    """Noise as wide as the last digit, so that values do not repeat."""
    rows = table("household_power")
    return rows + np.random.default_rng(0).uniform(-0.5, 0.5, rows.shape) * [1, 0.002, 0.002, 0.01, 1, 1, 1]


SETS: dict[str, Callable[[], tuple]] = {
    "galaxies": lambda: split(table("galaxies"), 8_000),
    "galaxies 300": lambda: split(table("galaxies"), 300),
    "breast cancer": lambda: split(scikit("breast_cancer"), 455),
    "tails 40": lambda: drawn(tailed(40), 3_000),
    "TwoMoons 3k": lambda: drawn(shape("TwoMoons"), 3_000),
    "Gaussian 20": lambda: drawn(gaussian(20), 2_000),
    "household": lambda: split(of_household(), 16_000),
    "t2 5": lambda: drawn(student(2.0, 5), 3_000),
    "clusters 10": lambda: drawn(clusters(8, 10, 3.0), 3_000),
    "wine": lambda: split(scikit("wine"), 142),
    "Checkerboard 30k": lambda: drawn(shape("Checkerboard"), 30_000),
    "tails 60 30k": lambda: drawn(tailed(60), 30_000),
}
