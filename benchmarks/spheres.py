"""Densities on the globe: `SphereFlow` as it is by default, as it was, and large; beside a mixture of von Mises-Fisher by EM.

    python benchmarks/spheres.py [--sets "10 caps" ...] [--models default ...] [--seeds 1] [--places cities.csv ...]
    python benchmarks/spheres.py --table                        # what was measured

Sets: the density of `examples/globe.py`, and mixtures of 10 and of 100 caps (von Mises-Fisher, of concentrations from 20 to
2,000), of 200 or 5,000 rows; and files of places with columns `latitude` and `longitude` in degrees, of which up to 5,000 rows
are trained on and up to 5,000 others scored. Flows are trained by `flows.fit`, five over folds of 200 rows; the mixture has the
number of components that is best on a tenth of the rows, then all rows. Writes benchmarks/results/spheres.json; what is there
already is not measured again.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import records

import flows

RESULTS = Path(__file__).resolve().parent / "results" / "spheres.json"
TEST, ROWS = 5_000, 5_000
COMPONENTS, ITERATIONS = (5, 10, 30, 100, 200), 100
GLOBE = ([(35, 139, 50), (62, -150, 25), (-20, -70, 80), (-5, 175, 5), (86, 30, 200)], [0.25, 0.2, 0.2, 0.25, 0.1])
FLOWS = {  # and the highest rate of the fit
    "default": (flows.SphereFlow(), 5e-3),
    "4 layers of 64-64, 8 bins": (flows.SphereFlow(4, (64, 64), num_bins=8), 5e-3),
    "10 layers of 128-128, 24 bins, rate 2e-3": (flows.SphereFlow(10, (128, 128), num_bins=24), 2e-3),
}
EM = "mixture by EM"


class Caps(NamedTuple):
    """A mixture of von Mises-Fisher distributions on S^2."""

    means: np.ndarray
    concentrations: np.ndarray
    weights: np.ndarray

    def joint(self, x: np.ndarray) -> np.ndarray:
        """log w_k p_k(x), (rows, components)."""
        k = self.concentrations
        return np.log(self.weights) + np.log(k / (2 * np.pi)) - np.log1p(-np.exp(-2 * k)) + k * (x @ self.means.T - 1)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        return np.logaddexp.reduce(self.joint(x), axis=1)

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        own = rng.choice(len(self.weights), n, p=self.weights)
        k, u = self.concentrations[own], rng.uniform(size=n)
        height = 1 + np.log(u + (1 - u) * np.exp(-2 * k)) / k
        beside = rng.normal(size=(n, 3))
        beside -= (beside * self.means[own]).sum(1, keepdims=True) * self.means[own]
        beside *= (np.sqrt(np.maximum(1 - height**2, 0)) / np.linalg.norm(beside, axis=1))[:, None]
        return height[:, None] * self.means[own] + beside


def caps(count: int) -> Caps:
    rng = np.random.default_rng(count)
    means = rng.normal(size=(count, 3))
    concentrations = np.exp(rng.uniform(np.log(20), np.log(2_000), count))
    return Caps(means / np.linalg.norm(means, axis=1, keepdims=True), concentrations, rng.dirichlet(np.full(count, 2.0)))


def globe() -> Caps:
    latitude, longitude, concentrations = np.array(GLOBE[0], float).T
    return Caps(flows.from_degrees(latitude, longitude), concentrations, np.array(GLOBE[1]))


DENSITIES: dict[str, Callable[[], Caps]] = {"globe": globe, "10 caps": lambda: caps(10), "100 caps": lambda: caps(100)}
SETS = [*DENSITIES, *(f"{name}, 200 rows" for name in DENSITIES)]


def rows_of(name: str, seed: int, places: dict[str, Path]) -> tuple[np.ndarray, np.ndarray, Caps | None]:
    """Rows to train on, to test on, and their density where it is known."""
    rng = np.random.default_rng(seed)
    if name in places:
        table = np.genfromtxt(places[name], delimiter=",", names=True)
        x = np.unique(flows.from_degrees(table["latitude"], table["longitude"]), axis=0)
        x = x[rng.permutation(len(x))]
        rows = min(ROWS, len(x) * 4 // 5)
        return x[:rows], x[rows : rows + TEST], None
    density = DENSITIES[name.split(", ")[0]]()
    return density.draw(200 if "200 rows" in name else ROWS, rng), density.draw(TEST, rng), density


def by_em(x: np.ndarray, count: int, rng: np.random.Generator) -> Caps:
    """Banerjee, Dhillon, Ghosh and Sra, "Clustering on the Unit Hypersphere using von Mises-Fisher Distributions", 2005."""
    found = Caps(x[rng.choice(len(x), count, replace=False)], np.full(count, 50.0), np.full(count, 1 / count))
    for _ in range(ITERATIONS):
        joint = found.joint(x)
        share = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
        mass, sums = share.sum(0) + 1e-9, share.T @ x
        length = np.maximum(np.linalg.norm(sums, axis=1), 1e-12)
        mean = np.clip(length / mass, 1e-6, 1 - 1e-7)
        concentrations = np.clip(mean * (3 - mean**2) / (1 - mean**2), 1e-3, 1e5)
        found = Caps(sums / length[:, None], concentrations, mass / mass.sum())
    return found


def mixture(x: np.ndarray, seed: int) -> Caps:
    rng = np.random.default_rng(seed)
    held_out, others = np.split(x, [len(x) // 10])
    counts = [count for count in COMPONENTS if count < len(others) / 3]
    best = max(counts, key=lambda count: by_em(others, count, rng).log_density(held_out).mean())
    return by_em(x, best, rng)


def measure(name: str, model: str, seed: int, places: dict[str, Path]) -> dict:
    x, test, density = rows_of(name, seed, places)
    began = time.process_time()
    if model == EM:
        scores = mixture(x, seed).log_density(test)
    else:
        bijection, rate = FLOWS[model]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flow = flows.Flow(bijection, flows.SphereUniform())
            result = flows.fit(seed, flow, x.astype(np.float32), learning_rate=rate, verbose=0)
        scores = np.asarray(result.log_prob(test.astype(np.float32)), float)
    found = {"nats": float(scores.mean()), "seconds": time.process_time() - began}
    return found if density is None else found | {"truth": float(density.log_density(test).mean())}


def table(found: dict) -> str:
    models = list(dict.fromkeys(model for own in found.values() for model in own))
    lines = ["| nats a row, seconds | the density | " + " | ".join(models) + " |", "|---" * (2 + len(models)) + "|"]
    for name, own in found.items():
        truth = [each["truth"] for seeds in own.values() for each in seeds.values() if "truth" in each]
        cells = [f"{np.mean(truth):.3f}" if truth else ""]
        for model in models:
            each = list(own.get(model, {}).values())
            nats, seconds = (np.array([one[what] for one in each]) for what in ("nats", "seconds"))
            spread = f" +- {nats.std(ddof=1) / len(nats) ** 0.5:.3f}" if len(nats) > 1 else ""
            cells.append(f"{nats.mean():.3f}{spread}, {np.median(seconds):.0f} s" if len(nats) else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", help=f"of {', '.join(SETS)}, and the names of files of places; by default all")
    parser.add_argument("--models", nargs="+", choices=(EM, *FLOWS), default=(EM, *FLOWS))
    parser.add_argument("--places", nargs="+", type=Path, default=(), help="files with columns latitude and longitude")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    places = {path.stem: path for path in options.places}
    found = records.read(options.out)
    for seed in [] if options.table else map(str, range(options.seeds)):
        for name in options.sets if options.sets is not None else [*SETS, *places]:
            for model in options.models:
                own = found.setdefault(name, {}).setdefault(model, {})
                if seed not in own:
                    own[seed] = measure(name, model, int(seed), places)
                    print(f"{name}, {model}, seed {seed}: {own[seed]}", flush=True)
                    records.write(options.out, found)
                    flows.clear_caches()
    print(table(found))


if __name__ == "__main__":
    main()
