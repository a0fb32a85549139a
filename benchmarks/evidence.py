"""Does the standard error of log Z that `flows.fit_to_density` reports cover, and how long does a fit take?

    python benchmarks/evidence.py                       # three targets, ten seeds each, one core
    python benchmarks/evidence.py --table               # what was measured

The targets' log Z are known: a logistic regression's from four million draws of a Student t at its mode, a hierarchical
model's by quadrature over its one scale (everything else is Gaussian), a banana's in closed form. Written to
benchmarks/results/evidence.json.
"""

import argparse
import json
import math
import os
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import flows

RESULTS = Path(__file__).resolve().parent / "results" / "evidence.json"
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])  # of coaching in eight schools (Rubin, 1981), in points
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


class Target(NamedTuple):
    log_density: Callable
    dim: int
    log_z: float


def normal(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - jnp.log(std) - 0.5 * math.log(2 * math.pi)


@cache
def logistic_regression() -> Target:
    """200 rows, an intercept and five coefficients, whose prior is normal with a standard deviation of 2.5."""
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(200), rng.normal(size=(200, 5))])
    y = rng.random(200) < 1 / (1 + np.exp(-x @ np.array([-1.0, 2.0, -1.0, 0.5, 0.0, 1.0])))
    signed = jnp.asarray(x * np.where(y, 1, -1)[:, None], jnp.float32)

    def log_density(beta):
        logits = jnp.matmul(beta, signed.T, precision="highest")
        return jax.nn.log_sigmoid(logits).sum(-1) + normal(beta, 0.0, 2.5).sum(-1)

    return Target(log_density, 6, _by_student_t(log_density, 6))


def _by_student_t(log_density: Callable, d: int) -> float:
    """log Z by four million draws of a Student t with 20 degrees of freedom, at the mode; its standard error is 1e-4."""
    one, many = jax.jit(lambda x: log_density(x[None])[0]), jax.jit(log_density)
    mode = jnp.zeros(d)
    for _ in range(50):
        mode -= jnp.linalg.solve(jax.hessian(one)(mode), jax.grad(one)(mode))
    factor = np.linalg.cholesky(np.linalg.inv(-np.asarray(jax.hessian(one)(mode), float)))
    rng, pieces, n, df = np.random.default_rng(1), 80, 50_000, 20.0
    constant = math.lgamma((df + d) / 2) - math.lgamma(df / 2) - d / 2 * math.log(df * math.pi)
    log_w = np.empty((pieces, n))
    for piece in log_w:
        z = rng.normal(size=(n, d)) / np.sqrt(rng.chisquare(df, size=(n, 1)) / df)
        log_q = constant - np.log(np.diag(factor)).sum() - (df + d) / 2 * np.log1p((z**2).sum(1) / df)
        piece[:] = np.asarray(many(jnp.asarray(np.asarray(mode) + z @ factor.T, jnp.float32)), float) - log_q
    return float(np.logaddexp.reduce(log_w, axis=None) - math.log(log_w.size))


@cache
def hierarchical() -> Target:
    """Effects in eight schools: theta_i ~ N(mu, tau), mu ~ N(0, 5), log tau ~ N(log 5, 1)."""

    def log_density(x):
        mu, log_tau, theta = x[:, 0], x[:, 1], x[:, 2:]
        prior = normal(mu, 0.0, 5.0) + normal(log_tau, math.log(5.0), 1.0)
        return (
            prior
            + normal(theta, mu[:, None], jnp.exp(log_tau)[:, None]).sum(1)
            + normal(jnp.asarray(EFFECTS, x.dtype), theta, jnp.asarray(ERRORS, x.dtype)).sum(1)
        )

    grid = np.linspace(math.log(5.0) - 8, math.log(5.0) + 8, 4_001)
    inner = np.empty_like(grid)
    for i, log_tau in enumerate(grid):
        covariance = np.diag(ERRORS**2 + np.exp(2 * log_tau)) + 25.0
        _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
        inner[i] = -0.5 * (log_det + EFFECTS @ np.linalg.solve(covariance, EFFECTS)) - 0.5 * (log_tau - math.log(5.0)) ** 2
    log_z = np.logaddexp.reduce(inner) + math.log(grid[1] - grid[0]) - 0.5 * math.log(2 * math.pi)
    return Target(log_density, 10, float(log_z))


@cache
def banana() -> Target:
    """x_1 ~ N(0, 2), x_2 ~ N(x_1^2 / 2, 1) (after Haario, Saksman and Tamminen, 1999), without its constant."""
    return Target(lambda x: -(x[:, 0] ** 2) / 8 - 0.5 * (x[:, 1] - x[:, 0] ** 2 / 2) ** 2, 2, math.log(4 * math.pi))


TARGETS = {"logistic regression": logistic_regression, "hierarchical": hierarchical, "banana": banana}


def measured(target: Target, seed: int) -> dict[str, float]:
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = flows.fit_to_density(seed, flows.Flow(flows.RealNVP()), target.log_density, target.dim, verbose=0)
    found = result.diagnostics
    return {
        "error": found.log_normalizer.value - target.log_z,
        "standard error": found.log_normalizer.standard_error,
        "effective sample size": found.effective_sample_size,
        "pareto k": found.pareto_k,
        "epochs": len(result.history["train_loss"]),
        "seconds": time.process_time() - start,
    }


def table(found: dict) -> str:
    lines = [
        "| target | effective sample size | standard error | error, root mean square | runs within 2 standard errors | epochs "
        "| seconds of one core: first run, later |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        error, claimed = (np.array([run[key] for run in runs]) for key in ("error", "standard error"))
        seconds = [run["seconds"] for run in runs]
        within = int((np.abs(error) <= 2 * claimed).sum())
        lines.append(
            f"| {name} | {min(run['effective sample size'] for run in runs):.3f} or more | {claimed.mean():.5f} "
            f"| {np.sqrt((error**2).mean()):.5f} | {within} of {len(runs)} "
            f"| {np.median([run['epochs'] for run in runs]):.0f} | {seconds[0]:.0f}, {np.median(seconds[1:]):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    if not options.table:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        for name in options.targets:
            found[name] = []
            for seed in range(options.seeds):
                found[name].append(measured(TARGETS[name](), seed))
                print(name, seed, {key: round(value, 5) for key, value in found[name][-1].items()}, flush=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
