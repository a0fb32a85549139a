"""What a galaxy's redshift may be as its magnitudes become known, by one model that is fitted to rows with gaps.

    python examples/gaps.py [--out out] [--quick]

10,000 simulated galaxies, of which 2,000 are kept for the test. 30% of all values are removed from the others. One
`flows.AnySubset` is fitted to what is left, and gives the density of the redshift given any magnitudes. Writes gaps.png.

Pictures:
    gaps.png: Densities of the redshifts of three galaxies, wide without a magnitude, and narrow around the true redshift with
        all six; and the mean log-density of the true redshifts of 2,000 galaxies against the magnitudes that are known.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from style import BLUE, GREEN, GREY, ORANGE, plt

import flows
from flows import tables

DATA = Path(__file__).parent / "data" / "galaxies.csv"
TEST_ROWS, REMOVED = 2000, 0.3
BANDS = list("ugrizy")
SHOWN = 0, 2, 4, 6  # magnitudes that are known
TARGETS = 0.4, 0.9, 1.5  # redshifts of the galaxies whose densities are drawn


def known(galaxies, count):
    """Galaxies without the magnitudes that are not known yet."""
    return galaxies.assign(**dict.fromkeys(BANDS[count:], np.nan))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--quick", action="store_true", help="two epochs, to see that all runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    galaxies = pd.read_csv(DATA).sample(frac=1, random_state=0, ignore_index=True)
    test, train = galaxies[:TEST_ROWS], galaxies[TEST_ROWS:]
    gaps = np.random.default_rng(0).uniform(size=train.shape) < REMOVED
    result = tables.fit(0, train.mask(gaps), model=flows.AnySubset(), max_epochs=2 if options.quick else None, verbose=0)
    redshift = result.conditional("redshift", given=BANDS)
    print(result)

    scores = [redshift.log_prob(known(test, count)).mean() for count in range(len(BANDS) + 1)]
    for count, score in enumerate(scores):
        print(f"{' '.join(BANDS[:count]) or 'nothing':12} is known: {score:6.3f} nats a galaxy")
    low, high = (np.asarray(end, float) for end in redshift.interval(0.9, test[BANDS]).to_numpy().T)
    inside = ((test["redshift"] >= low) & (test["redshift"] <= high)).mean()
    print(f"of the central 90% intervals given all magnitudes {inside:.1%} hold the true redshift")
    picture(options.out / "gaps.png", redshift, test, scores)


def picture(path, redshift, test, scores):
    figure, axes = plt.subplots(1, 4, figsize=(10, 3.1), width_ratios=[1, 1, 1, 1.2], layout="constrained")
    grid = np.linspace(0.01, 2.4, 800)
    for axis, target in zip(axes[:3], TARGETS, strict=True):
        row = test.loc[[(test["redshift"] - target).abs().idxmin()]]
        for count, color in zip(SHOWN, (GREY, GREEN, BLUE, ORANGE), strict=True):
            rows = known(row, count).loc[row.index.repeat(len(grid))].assign(redshift=grid)
            density = np.exp(redshift.log_prob(rows))
            axis.plot(grid, density, color=color, lw=1.6, label=" ".join(BANDS[:count]) or "none")
        axis.axvline(row["redshift"].item(), color=GREY, lw=1, ls=":")
        axis.set(title=f"a galaxy at {row['redshift'].item():.2f}", xlabel="redshift", xlim=(0, 2.4), ylim=(0, None))
    axes[0].set(ylabel="density")
    axes[0].legend(title="known", loc="upper right")
    axes[3].plot(range(len(BANDS) + 1), scores, "o-", color=ORANGE)
    axes[3].set(title=f"{len(test):,} galaxies", xlabel="known, with those before", ylabel="nats a galaxy")
    axes[3].set_xticks(range(len(BANDS) + 1), ["none", *BANDS])
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    flows.keep_programs()
    main()
