"""Features of columns by which a linear model can tell what is nonlinear."""

from collections.abc import Callable

import numpy as np

from flows.diagnostics.arrays import chosen, squared_distances, unit_of

RADIAL = 50  # features exp(-|z - centre|^2 / (2 width^2))
PRODUCTS = 300  # of pairs of columns, at most
COLUMNS = 64  # beyond which they are those of the principal components
FAR = 8.0  # standard deviations, at which values are cut off, as their squares would count for all others


def features_of(sample: np.ndarray, random: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A function of rows that gives their columns, squares, products and radial features, each with mean 0 and variance 1 in
    the sample: whatever it measures, it measures there."""
    low, middle, high = np.quantile(sample, [0.16, 0.5, 0.84], axis=0)
    scale = np.where(high > low, (high - low) / 2, unit_of(sample)[1])

    def columns(x: np.ndarray) -> np.ndarray:
        return np.clip((x - middle) / scale, -FAR, FAR) @ turn

    turn = np.eye(sample.shape[1])
    if len(turn) > COLUMNS:
        turn = np.linalg.eigh(np.cov(columns(sample), rowvar=False))[1][:, -COLUMNS:]
    z = columns(sample)
    first, second = chosen(np.stack(np.triu_indices(z.shape[1], 1), 1), PRODUCTS, random).T
    centres = chosen(z, RADIAL, random)
    apart = squared_distances(centres, centres)[np.triu_indices(len(centres), 1)]
    width = np.median(apart) / 4 if apart.any() else 1.0  # squared: half the usual distance

    def expanded(x: np.ndarray) -> np.ndarray:
        z = columns(x)
        radial = np.exp(-squared_distances(z, centres) / (2 * max(width, 1e-12)))
        return np.concatenate([z, z**2, z[:, first] * z[:, second], radial], 1)

    mean, spread = unit_of(expanded(sample))
    spread = np.where(spread > 1e-9, spread, 1.0)  # what rounding makes of a constant
    return lambda x: (expanded(x) - mean) / spread
