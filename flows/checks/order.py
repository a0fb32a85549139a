"""Do rows depend on those before them? Then there are fewer than there seem to be."""

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

from flows.checks.features import features
from flows.checks.sample import Sample, flat

MOST = 100_000  # first rows, that are looked at
LEVEL = 1e-4  # of the smallest p-value times the number of columns
FADED = 0.05  # correlation, below which rows count as independent


def dependence(sample: Sample) -> str:
    """Return a remark on rows whose columns go together with the columns of the row before; nothing where they do not."""
    names, (rows,) = features(sample.columns, flat(sample.all_rows[:MOST]))
    n = len(rows)
    if n < 3 or not names:
        return ""
    ranks = rankdata(rows, axis=0)
    ranks = (ranks - ranks.mean(0)) / np.where(ranks.std(0) > 0, ranks.std(0), 1.0)
    before = (ranks[1:] * ranks[:-1]).mean(0)
    at = int(before.argmax())
    if ndtr(-before[at] * np.sqrt(n)) * len(names) > LEVEL:
        return ""
    lags = np.fft.irfft(np.abs(np.fft.rfft(ranks[:, at], 2 * n)) ** 2)[: n // 2] / n
    faded = int(np.argmax(lags < FADED)) if (lags < FADED).any() else len(lags)
    return (
        f"rows depend on those before them ({names[at]} correlates by {before[at]:.2f} with the row before): p-values are too "
        f"small. About one row in {max(faded, 2)} is independent: check data[::{max(faded, 2)}]"
    )
