"""How far away is a galaxy of these colours? The density of the redshift given six magnitudes.

    python examples/redshift.py [--out out] [--quick]

10,000 simulated galaxies, of which 2,000 are kept for the test. A conditional spline flow is compared with a normal whose
mean and width a network makes of the same magnitudes, and `flows.check` asks whether it is right: among draws for its own
galaxy, a true redshift has any rank as often as another, so that intervals hold what they promise. Writes redshift.png,
ranks.png, and check.html, a page of all that was found.

Pictures:
    redshift.png: Densities of seven galaxies around their true redshifts, and the medians of all against the truth, along the
        diagonal.
    ranks.png: Shares of true redshifts below a share of their draws, less this share: a curve that leaves its band at both
        ends and in the middle.
"""

import argparse
from pathlib import Path

import numpy as np
from style import BLUE, GREY, ORANGE, plt

import flows

DATA = Path(__file__).parent / "data" / "galaxies.csv"
TEST_ROWS = 2000
REACH = 0.1  # of the densities that are drawn, on both sides of the truth


def read_galaxies():
    """Redshifts (rows, 1) and magnitudes (rows, 6), in random order."""
    values = np.random.default_rng(0).permutation(np.loadtxt(DATA, delimiter=",", skiprows=1))
    return values[:, :1], values[:, 1:]


def densities(result, z, magnitudes):
    """p(z | magnitudes) of each galaxy at redshifts of its own, (galaxies, redshifts)."""
    context = np.repeat(magnitudes, z.shape[1], axis=0)
    return np.exp(result.log_prob(z.reshape(-1, 1), context=context)).reshape(z.shape)


def score(result, z, magnitudes):
    values = np.asarray(result.log_prob(z, context=magnitudes), float)
    return values.mean(), values.std() / np.sqrt(len(values))


def shares(checks):
    """The rank of each true redshift among draws for its galaxy, as a number between 0 and 1."""
    return (checks.arrays["ranks"][:, 0] + 0.5) / (checks.arrays["draws"].shape[1] + 1)


def held(ranks, level):
    """The share of central intervals that hold the true redshift."""
    return (np.abs(ranks - 0.5) < level / 2).mean()


def picture(path, result, z, magnitudes, draws):
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.9))
    order, beside = np.argsort(z[:, 0]), np.linspace(-REACH, REACH, 1001)
    seven, end = order[np.linspace(50, len(order) - 50, 7).astype(int)], float(z.max()) * 1.05
    for shift, density in enumerate(densities(result, z[seven] + beside, magnitudes[seven])):
        label = None if shift else "density of the flow"
        axes[0].fill_between(beside, shift, shift + 0.8 * density / density.max(), color=ORANGE, alpha=0.5, lw=1, label=label)
    axes[0].plot([0, 0], [0, 6.9], color=BLUE, lw=1.5, label="the truth")
    axes[0].set(title="Seven galaxies", xlabel="redshift less the true one", ylabel="true redshift", ylim=(0, 8.6))
    axes[0].set(yticks=range(7), yticklabels=[f"{z[i, 0]:.2f}" for i in seven], xlim=(-REACH, REACH))
    axes[0].legend(loc="upper right")
    axes[1].plot(z[:, 0], np.median(draws, 1), ".", color=ORANGE, markersize=2.5, alpha=0.6)
    axes[1].plot([0, end], [0, end], color=GREY, lw=1, label="median = truth")
    axes[1].set(title=f"{len(z):,} galaxies", xlabel="true redshift", ylabel=f"median of {draws.shape[1]} draws")
    axes[1].set(xlim=(0, end), ylim=(0, end), aspect="equal")
    axes[1].legend(loc="upper left")
    figure.savefig(path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--quick", action="store_true", help="two epochs, to see that all runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    z, magnitudes = read_galaxies()
    train, test = slice(TEST_ROWS, None), slice(TEST_ROWS)
    models = {
        "normal": flows.Normal(conditioner=flows.MLP(64, 64)),
        "spline flow": flows.Flow(flows.NSF(3, hidden=(64, 64), num_bins=8)),
    }
    for name, model in models.items():
        result = flows.fit(
            0, model, z[train], context=magnitudes[train], max_epochs=2 if options.quick else 240, batch_size=128, verbose=0
        )
        mean, error = score(result, z[test], magnitudes[test])
        print(f"{name:12} {mean:7.3f} +- {error:.3f} nats a galaxy, {TEST_ROWS:,} of them, none seen in training")
    z, magnitudes = z[test], magnitudes[test]
    checks = flows.check(result, z, context=magnitudes)
    print(checks)
    for level in (0.5, 0.9):
        print(f"of the central {level:.0%} intervals {held(shares(checks), level):.1%} hold the true redshift")
    picture(options.out / "redshift.png", result, z, magnitudes, checks.arrays["draws"][..., 0])
    checks.plot("ranks").savefig(options.out / "ranks.png", dpi=150)
    checks.write_html(options.out / "check.html", title="The redshift of a galaxy given its magnitudes")


if __name__ == "__main__":
    flows.keep_programs()
    main()
