"""Ordinary tables: (training rows, test rows) of each, made anew from a seed or read from what is public."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent.parent / "examples" / "data"
TEST = 5_000
NOISE = 1.0  # of rounded columns, in cells; 0 within `recorded`


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
    return rows + NOISE * np.random.default_rng(0).uniform(-0.5, 0.5, rows.shape) * [1, 0.002, 0.002, 0.01, 1, 1, 1]


def rounded(d: int) -> Callable:
    def make(rng):
        mixing = rng.normal(size=(d, d))
        return lambda n: np.round(rng.normal(size=(n, d)) @ mixing, 1) + NOISE * rng.uniform(-0.05, 0.05, (n, d))

    return make


def bounded(d: int) -> Callable:
    """Columns in (0, 1), most of them near its ends."""

    def make(rng):
        mixing = rng.normal(size=(d, d))
        return lambda n: 1 / (1 + np.exp(-1.5 * (rng.normal(size=(n, d)) @ mixing)))

    return make


def spiked(rng: np.random.Generator) -> Callable:
    """A column of which a tenth is all but one value, beside others that depend on it."""

    def draw(n):
        z = rng.normal(size=(n, 3))
        z[rng.random(n) < 0.1, 0] = 1.0
        z[:, 0] += 0.001 * rng.normal(size=n)
        return np.column_stack([z[:, 0], z[:, 0] + 0.3 * z[:, 1], z[:, 2]])

    return draw


def angular(rng: np.random.Generator) -> Callable:
    """An angle in [-pi, pi), whose density is highest at the cut, and a number that depends on it."""

    def draw(n):
        angle = np.mod(rng.vonmises(np.pi, 2.0, n) + np.pi, 2 * np.pi) - np.pi
        return np.column_stack([angle, np.cos(angle) + 0.2 * rng.normal(size=n)])

    return draw


def of_digits() -> np.ndarray:
    return scikit("digits") + NOISE * np.random.default_rng(0).uniform(-0.5, 0.5, (1797, 64))


def real(rows: np.ndarray) -> np.ndarray:
    """Complete rows of a table that was recorded, with noise as wide as the step of each column that is rounded."""
    from flows.training.data.rounding import step_of

    rows = rows[np.isfinite(rows).all(1)]
    steps = np.array([step_of(column) or 0.0 for column in rows.T])
    return rows + NOISE * np.random.default_rng(0).uniform(-0.5, 0.5, rows.shape) * steps


def of_statsmodels(name: str, leave: tuple[str, ...] = (), lags: int = 0) -> np.ndarray:
    """The numeric columns of a table of statsmodels, but for some; of one column, each value beside those before it."""
    import statsmodels.datasets

    table = getattr(statsmodels.datasets, name).load_pandas().data.select_dtypes("number").drop(columns=list(leave)).dropna()
    rows = np.asarray(table, float)
    return real(np.column_stack([rows[i : len(rows) - lags + i] for i in range(lags + 1)]) if lags else rows)


def shares(rows: np.ndarray, seed: int) -> tuple:
    return split(rows, round(0.8 * len(rows)), seed)


INTERACTIONS = (  # of star98: products of its other columns
    "PERMINTE_AVYRSEXP", "PERMINTE_AVSAL", "AVYRSEXP_AVSAL", "PERSPEN_PTRATIO", "PERSPEN_PCTAF", "PTRATIO_PCTAF",
    "PERMINTE_AVYRSEXP_AVSAL", "PERSPEN_PTRATIO_PCTAF",
)  # fmt: skip
# Tables that scikit-learn and statsmodels carry, four fifths of the rows.
REAL: dict[str, Callable[..., tuple]] = {
    "iris": lambda seed=0: shares(real(scikit("iris")), seed),
    "diabetes": lambda seed=0: shares(real(scikit("diabetes")), seed),
    "anes96": lambda seed=0: shares(of_statsmodels("anes96", ("logpopul",)), seed),
    "cancer": lambda seed=0: shares(of_statsmodels("cancer"), seed),
    "engel": lambda seed=0: shares(of_statsmodels("engel"), seed),
    "fair": lambda seed=0: shares(of_statsmodels("fair"), seed),
    "grunfeld": lambda seed=0: shares(of_statsmodels("grunfeld"), seed),
    "inflation": lambda seed=0: shares(of_statsmodels("interest_inflation", ("year", "quarter")), seed),
    "macrodata": lambda seed=0: shares(of_statsmodels("macrodata", ("year", "quarter")), seed),
    "modechoice": lambda seed=0: shares(of_statsmodels("modechoice", ("individual",)), seed),
    "randhie": lambda seed=0: shares(of_statsmodels("randhie"), seed),
    "star98": lambda seed=0: shares(of_statsmodels("star98", INTERACTIONS), seed),
    "co2, two before": lambda seed=0: shares(of_statsmodels("co2", lags=2), seed),
    "sunspots, two before": lambda seed=0: shares(of_statsmodels("sunspots", ("YEAR",), lags=2), seed),
    "El Nino": lambda seed=0: shares(of_statsmodels("elnino", ("YEAR",)), seed),
}

SETS: dict[str, Callable[..., tuple]] = {
    "galaxies": lambda seed=0: split(table("galaxies"), 8_000, seed),
    "galaxies 300": lambda seed=0: split(table("galaxies"), 300, seed),
    "breast cancer": lambda seed=0: split(scikit("breast_cancer"), 455, seed),
    "tails 40": lambda seed=0: drawn(tailed(40), 3_000, seed),
    "TwoMoons 3k": lambda seed=0: drawn(shape("TwoMoons"), 3_000, seed),
    "Gaussian 20": lambda seed=0: drawn(gaussian(20), 2_000, seed),
    "household": lambda seed=0: split(of_household(), 16_000, seed),
    "t2 5": lambda seed=0: drawn(student(2.0, 5), 3_000, seed),
    "clusters 10": lambda seed=0: drawn(clusters(8, 10, 3.0), 3_000, seed),
    "wine": lambda seed=0: split(scikit("wine"), 142, seed),
    "Checkerboard 30k": lambda seed=0: drawn(shape("Checkerboard"), 30_000, seed),
    "tails 60 30k": lambda seed=0: drawn(tailed(60), 30_000, seed),
    "Gaussian 6": lambda seed=0: drawn(gaussian(6), 2_000, seed),
    "Gaussian 3, 200 rows": lambda seed=0: drawn(gaussian(3), 200, seed),
    "Cauchy 3": lambda seed=0: drawn(student(1.0, 3), 3_000, seed),
    "EightGaussians 3k": lambda seed=0: drawn(shape("EightGaussians"), 3_000, seed),
    "Rings 3k": lambda seed=0: drawn(shape("Rings"), 3_000, seed),
    "Spirals 3k": lambda seed=0: drawn(shape("Spirals"), 3_000, seed),
    "Pinwheel 3k": lambda seed=0: drawn(shape("Pinwheel"), 3_000, seed),
    "rounded 5": lambda seed=0: drawn(rounded(5), 3_000, seed),
    "bounded 4": lambda seed=0: drawn(bounded(4), 3_000, seed),
    "spiked": lambda seed=0: drawn(spiked, 3_000, seed),
    "angular": lambda seed=0: drawn(angular, 3_000, seed),
    "digits": lambda seed=0: split(of_digits(), 1_437, seed),
    **REAL,
}


def recorded(name: str, seed: int = 0) -> tuple:
    """The same rows as they were recorded: rounded where they are, without the noise that the others add."""
    global NOISE
    NOISE = 0.0
    try:
        return SETS[name](seed)
    finally:
        NOISE = 1.0
