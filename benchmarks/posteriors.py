"""Are the figures of `flows.fit_to_density` to be believed, and what does it cost to look for several modes?

    python benchmarks/posteriors.py                     # ten targets, three seeds, with 32 starts and with one; one core
    python benchmarks/posteriors.py --targets ring      # some
    python benchmarks/posteriors.py --table             # what was measured

Ten densities whose log Z is known: in closed form, by quadrature, or by a million draws and more of a wide mixture (its
standard error is below 0.001). Of those with several modes the share of the mass of each is known, too. The model is
`flows.Flow(flows.RealNVP())`, each fit a process of its own, whose seconds of one core include compiling. Written to
benchmarks/results/posteriors.json.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from evidence import banana, hierarchical, logistic_regression, normal
from scipy import integrate, special

import flows

RESULTS = Path(__file__).resolve().parent / "results" / "posteriors.json"
COUNTS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])  # of the hierarchical Poisson model


class Target(NamedTuple):
    """A density, the numbers of a point, log Z, and of several modes which one a point (n, d) belongs to, and their masses."""

    log_density: Callable
    dim: int
    log_z: float
    which: Callable | None = None
    masses: tuple[float, ...] = ()


def gaussian() -> Target:
    """Five columns, each correlated by 0.9 with the next."""
    covariance = 0.9 ** np.abs(np.subtract.outer(range(5), range(5)))
    precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    log_z = 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    return Target(lambda x: -0.5 * jnp.einsum("ni,ij,nj->n", x, precision, x, precision="highest"), 5, float(log_z))


def funnel() -> Target:
    """x_1 ~ N(0, 1.5), four more ~ N(0, exp(x_1 / 2)) (after Neal, 2003, with a neck half as long)."""
    return Target(lambda x: normal(x[:, 0], 0.0, 1.5) + normal(x[:, 1:], 0.0, jnp.exp(x[:, :1] / 2)).sum(1), 5, 0.0)


def poisson() -> Target:
    """Counts y_i ~ Poisson(exp(mu + tau z_i)), z_i ~ N(0, 1), mu ~ N(1, 1), log tau ~ N(-1, 0.5)."""
    y = jnp.asarray(COUNTS, jnp.float32)

    def log_density(x):
        mu, log_tau, z = x[:, 0], x[:, 1], x[:, 2:]
        rate = mu[:, None] + jnp.exp(log_tau)[:, None] * z
        likelihood = y[None] * rate - jnp.exp(rate) - special.gammaln(COUNTS + 1).astype(np.float32)[None]
        return normal(mu, 1.0, 1.0) + normal(log_tau, -1.0, 0.5) + (normal(z, 0.0, 1.0) + likelihood).sum(1)

    mu, log_tau = np.linspace(-3, 5, 161), np.linspace(-5, 2, 141)
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    rate = mu[:, None, None] + np.exp(log_tau)[None, :, None] * z
    inner = np.zeros((len(mu), len(log_tau)))
    for count in COUNTS:
        of_each = count * rate - np.exp(rate) - special.gammaln(count + 1)
        inner += special.logsumexp(of_each, b=weight / math.sqrt(2 * math.pi), axis=2)
    prior = -0.5 * (mu[:, None] - 1) ** 2 - 0.5 * ((log_tau + 1) / 0.5) ** 2 - math.log(2 * math.pi * 0.5)
    cell = (mu[1] - mu[0]) * (log_tau[1] - log_tau[0])
    return Target(log_density, 14, float(special.logsumexp(inner + prior) + math.log(cell)))


def robust_regression() -> Target:
    """Half of 40 rows follow one line in three columns, half another, and each may be an outlier: 0.6 N(0, 0.3) + 0.4 N(0, 5)
    of what is left, under a prior N(0, 5) of four weights."""
    rng = np.random.default_rng(9)
    x = np.concatenate([np.ones((40, 1)), rng.normal(size=(40, 3))], 1)
    lines = np.array([[1.0, 2.0, -1.0, 0.5], [-2.0, -1.0, 2.0, 1.0]])
    y = np.where(np.arange(40) < 20, x @ lines[0], x @ lines[1]) + 0.3 * rng.normal(size=40)
    of_x, of_y = jnp.asarray(x.T, jnp.float32), jnp.asarray(y, jnp.float32)

    def log_density(w):
        rest = of_y[None] - jnp.matmul(w, of_x, precision="highest")
        clean, outlier = math.log(0.6) + normal(rest, 0.0, 0.3), math.log(0.4) + normal(rest, 0.0, 5.0)
        return jnp.logaddexp(clean, outlier).sum(1) + normal(w, 0.0, 5.0).sum(1)

    log_z, first = by_wide_mixture(log_density, lines, 0.15, lambda w: w[:, 0] > 0)
    return Target(log_density, 4, log_z, lambda w: (w[:, 0] < 0).astype(int), (first, 1 - first))


def by_wide_mixture(log_density: Callable, means: np.ndarray, width: float, first: Callable) -> tuple[float, float]:
    """log Z, and the share of the mass in a region, by two million draws of t-like mixtures of normals around these means."""
    rng, d = np.random.default_rng(1), means.shape[1]
    widths, shares = width * np.array([0.7, 1.0, 2.0, 6.0]), np.array([0.4, 0.4, 0.15, 0.05])
    compiled, log_w, inside = jax.jit(log_density), [], []
    for _ in range(40):
        own = means[rng.integers(len(means), size=50_000)]
        x = own + rng.choice(widths, 50_000, p=shares)[:, None] * rng.normal(size=(50_000, d))
        squares = np.square(x[:, None] - means[None]).sum(2)[:, :, None] / widths**2
        log_q = special.logsumexp(-0.5 * squares - d * np.log(widths), b=shares / len(means), axis=(1, 2))
        log_w.append(np.asarray(compiled(jnp.asarray(x, jnp.float32)), float) - log_q + 0.5 * d * math.log(2 * math.pi))
        inside.append(first(x))
    log_w, inside = np.concatenate(log_w), np.concatenate(inside)
    return float(special.logsumexp(log_w) - math.log(len(log_w))), float(special.softmax(log_w)[inside].sum())


def wells(d: int, count: int) -> Target:
    """Normals of unlike widths, 8 from 0, of mass 1, 2, .. by their sum."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(count, d))
    means *= 8 / np.linalg.norm(means, axis=1, keepdims=True)
    scales, masses = np.exp(0.3 * rng.normal(size=count)), np.arange(1, count + 1) / sum(range(1, count + 1))

    def log_density(x):
        each = normal(x[:, None], jnp.asarray(means, x.dtype)[None], jnp.asarray(scales, x.dtype)[None, :, None]).sum(2)
        return jax.nn.logsumexp(jnp.log(jnp.asarray(masses, x.dtype))[None] + each, axis=1)

    def which(x):
        z = np.square((x[:, None] - means[None]) / scales[None, :, None]).sum(2)
        return (0.5 * z + d * np.log(scales) - np.log(masses)).argmin(1)

    return Target(log_density, d, 0.0, which, tuple(masses))


def ring() -> Target:
    """A distance from 0 ~ N(3, 0.3), at all angles alike."""
    log_z = math.log(2 * math.pi * integrate.quad(lambda r: r * math.exp(-0.5 * ((r - 3) / 0.3) ** 2), 0, 6, points=[3.0])[0])
    return Target(lambda x: -0.5 * ((jnp.sqrt(jnp.square(x).sum(1) + 1e-12) - 3) / 0.3) ** 2, 2, log_z)


def of_evidence(make: Callable) -> Callable:
    return lambda: Target(*make())


TARGETS = {
    "Gaussian": gaussian,
    "banana": of_evidence(banana),
    "funnel": funnel,
    "logistic regression": of_evidence(logistic_regression),
    "eight schools": of_evidence(hierarchical),
    "hierarchical Poisson": poisson,
    "robust regression": robust_regression,
    "two wells in 5": lambda: wells(5, 2),
    "four wells in 10": lambda: wells(10, 4),
    "ring": ring,
}
known = cache(lambda name: TARGETS[name]())


def measured(name: str, starts: int, seed: int) -> dict[str, float]:
    target = known(name)
    began, told = time.process_time(), []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = flows.fit_to_density(
            seed, flows.Flow(flows.RealNVP()), target.log_density, target.dim, starts=starts, verbose=0
        )
    seconds = time.process_time() - began
    told = [str(each.message).partition(": ")[2] for each in said if "fit_to_density" in str(each.message)]
    found, lacking = result.diagnostics, 0.0
    if target.which is not None:
        drawn = np.asarray(result.draw(seed + 100, 50_000), float)
        shares = np.bincount(target.which(drawn), minlength=len(target.masses)) / len(drawn)
        lacking = float(np.maximum(np.array(target.masses) - shares, 0).sum())
    return {
        "effective": found.effective_sample_size, "k": found.pareto_k, "error": found.log_normalizer.value - target.log_z,
        "standard error": found.log_normalizer.standard_error, "modes": found.modes, "mass found": 1 - lacking,
        "epochs": len(result.history["train_loss"]), "seconds": seconds, "warned": told,
    }  # fmt: skip


def table(found: dict) -> str:
    lines = [
        "| target | starts | effective sample size | Pareto k | error of log Z | its standard error | modes | mass found "
        "| epochs | seconds | warned of |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, of_starts in found.items():
        for starts, of_seeds in of_starts.items():
            runs = list(of_seeds.values())
            of = {key: [run[key] for run in runs] for key in runs[0]}
            modes = " to ".join(map(str, sorted({min(of["modes"]), max(of["modes"])})))
            lines.append(
                f"| {name} | {starts} | {min(of['effective']):.3f} or more | {max(of['k']):.2f} or less "
                f"| {max(of['error'], key=abs):+.4f} | {np.median(of['standard error']):.4f} | {modes} "
                f"| {100 * min(of['mass found']):.1f}% | {np.median(of['epochs']):.0f} | {np.median(of['seconds']):.1f} "
                f"| {sum(map(bool, of['warned']))} of {len(runs)} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--starts", nargs="+", type=int, default=[32, 1])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", nargs=3, help="a target, a number of starts and a seed; prints JSON")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    if options.one:
        print(json.dumps(measured(options.one[0], *map(int, options.one[1:]))))
        return
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    if not options.table:
        for name in options.targets:
            for starts in map(str, options.starts):
                for seed in map(str, range(options.seeds)):
                    command = [sys.executable, __file__, "--one", name, starts, seed, "--core", str(options.core)]
                    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    one = json.loads(told.splitlines()[-1])
                    found.setdefault(name, {}).setdefault(starts, {})[seed] = one
                    print(name, starts, seed, {key: value for key, value in one.items() if key != "warned"}, flush=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
