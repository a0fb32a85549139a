"""What the safe settings of a deep spline flow are worth: 20 layers, trained, on rows that no training saw and far beyond them.

    python benchmarks/stability.py                        # 3 data sets x 3 seeds x 2 variants, about an hour on two cores
    python benchmarks/stability.py --data moons --seeds 1 --epochs 5
    python benchmarks/stability.py --also 3,1e-2,1e-2     # further settings: squash, min_bin, min_slope

A layer is an invertible linear map and a rational-quadratic coupling of 8 bins on [-3, 3] with a 64-64 network. The unsafe
variant has the usual floors, 1e-3, and networks that see their inputs as they are. The safe one has larger floors, and
squashes what the networks see. Rows are standardised; all errors are in these units and in float32:

    round trip   the largest |f^-1(f(x)) - x| of the test rows
    log-det      their largest |log|det J|(x) + log|det J^-1|(f(x))|, in nats
    far rows     the share of the test rows, times 10, whose round trip is within 1e-3
    nats a dim   the mean log-density of the test rows by the number of columns; larger is better

Writes a Markdown table and a JSON file.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
from sklearn.datasets import make_moons

import flows
from flows.transformers import RationalQuadratic

DATA = Path(__file__).parents[1] / "examples" / "data"
LAYERS, FAR = 20, 10.0
VARIANTS = {"unsafe": (None, 1e-3, 1e-3), "safe": (2.0, 2e-2, 5e-2)}
TARGETS = {"round trip": 1e-4, "log-det": 5e-4, "far rows": 0.98, "cost": 0.01}


def power():
    """Minutes of a household's electricity use, prepared as the POWER set of MAF (arXiv:1705.07057) is: without reactive power,
    with uniform noise on the others but time; narrow peaks where a sub-meter stands still."""
    minute, active, _, voltage, *meters = np.loadtxt(DATA / "household_power.csv", delimiter=",", skiprows=1).T
    values = np.stack([active, voltage, *meters, minute], axis=1)
    return values + np.array([0.001, 0.01, 1, 1, 1, 0]) * np.random.default_rng(42).uniform(size=values.shape)


def galaxies():
    """Redshifts and magnitudes of simulated galaxies: narrow ridges."""
    return np.loadtxt(DATA / "galaxies.csv", delimiter=",", skiprows=1)


def moons():
    """Two moons, noise 0.05: thin, with a gap in between."""
    return make_moons(20_000, noise=0.05, random_state=0)[0]


DATASETS = {"power": power, "galaxies": galaxies, "moons": moons}


def make_model(squash, min_bin, min_slope):
    spline = RationalQuadratic(num_bins=8, bound=3.0, min_bin=min_bin, min_slope=min_slope)
    layer = flows.Serial(flows.InvertibleLinear(), flows.Coupling(flows.MLP(64, 64), spline, squash=squash))
    return flows.Repeat(layer, LAYERS)


def measure(settings, rows, seed, epochs):
    """One model, trained and tested."""
    rows = np.random.default_rng(seed).permutation(rows)
    num_test = len(rows) // 10
    train, test = rows[num_test:], rows[:num_test]
    mean, std = train.mean(0), train.std(0)
    train, test = (((part - mean) / std).astype(np.float32) for part in (train, test))
    bijection, d = make_model(*settings), test.shape[1]
    result = flows.fit(
        seed,
        flows.Flow(bijection),
        train,
        batch_size=512,
        max_epochs=epochs,
        patience=epochs,
        standardize=False,
        verbose=0,
    )
    _, direct_fun, inverse_fun = bijection(0, d)
    params = result.params["bijection"]

    @jax.jit
    def there_and_back(x):
        y, log_det = direct_fun(params, x)
        back, log_det_back = inverse_fun(params, y)
        return abs(back - x).max(1), abs(log_det + log_det_back)

    round_trip, mismatch = map(np.asarray, there_and_back(test))
    far, _ = map(np.asarray, there_and_back(FAR * test))
    log_pdf = np.asarray(result.log_pdf(result.params, test))
    return {
        "round trip": float(round_trip.max()),
        "log-det": float(mismatch.max()),
        "far rows": float((far <= 1e-3).mean()),
        "nats a dim": float(log_pdf.mean()) / d,
        "error": float(log_pdf.std() / len(test) ** 0.5) / d,
    }


def costs(results):
    """What each run loses against the unsafe variant of the same rows and seed, in nats a dimension."""
    unsafe = {(each["data"], each["seed"]): each["nats a dim"] for each in results if each["variant"] == "unsafe"}
    return [unsafe.get((each["data"], each["seed"]), np.nan) - each["nats a dim"] for each in results]


def table(results):
    lines = [
        "| data | seed | variant | round trip | log-det | far rows | nats a dim | cost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each, cost in zip(results, costs(results), strict=True):
        lines.append(
            f"| {each['data']} | {each['seed']} | {each['variant']} | {each['round trip']:.1e} | {each['log-det']:.1e} "
            f"| {each['far rows']:.2%} | {each['nats a dim']:.4f} +- {each['error']:.4f} | {cost:.4f} |"
        )
    return "\n".join(lines)


def summary(results):
    """The worst of each variant, and its largest mean cost over the seeds of a data set."""
    lines = []
    for variant in dict.fromkeys(each["variant"] for each in results):
        own = [(each, cost) for each, cost in zip(results, costs(results), strict=True) if each["variant"] == variant]
        names = dict.fromkeys(each["data"] for each, _ in own)
        cost = max(np.mean([cost for each, cost in own if each["data"] == name]) for name in names)
        lines.append(
            f"{variant}: round trip {max(each['round trip'] for each, _ in own):.1e} (target {TARGETS['round trip']}), log-det "
            f"{max(each['log-det'] for each, _ in own):.1e} ({TARGETS['log-det']}), far rows "
            f"{min(each['far rows'] for each, _ in own):.2%} ({TARGETS['far rows']:.0%}), cost {cost:.4f} ({TARGETS['cost']})"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--also", nargs="+", default=[], metavar="SQUASH,MIN_BIN,MIN_SLOPE")
    parser.add_argument("--only-also", action="store_true", help="leave the two variants out")
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args()
    further = {text: tuple(float(number) or None for number in text.split(",")) for text in options.also}
    variants = further if options.only_also else VARIANTS | further

    results = []
    for name in options.data:
        rows = DATASETS[name]()
        for seed in range(options.seeds):
            for variant, settings in variants.items():
                start = time.perf_counter()
                results.append(
                    {"data": name, "seed": seed, "variant": variant, **measure(settings, rows, seed, options.epochs)}
                )
                print(f"{results[-1]}  {time.perf_counter() - start:.0f} s", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "stability.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "stability.md").write_text(table(results) + "\n")
    print(table(results), summary(results), sep="\n\n")


if __name__ == "__main__":
    main()
