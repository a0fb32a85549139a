"""Chains of `interop.blackjax.sample` beside plain NUTS of BlackJAX and flowMC; and a fit that goes on beside a new fit.

    python benchmarks/samplers.py chains                          # six targets, three seeds, three ways; one core
    python benchmarks/samplers.py chains --targets funnel --ways chains
    python benchmarks/samplers.py again                           # fits that go on, at the default rate and lower ones
    python benchmarks/samplers.py evidence                        # of the same draws, by flows.evidence and harmonic
    python benchmarks/samplers.py --table                         # what was measured

"chains": 16 chains of 1,000 draws, each of a local and a global move, and seven more evaluations for ten of them, so 43,200
gradients; flowMC has 32,000 in its production; NUTS has four chains of 2,000 draws after 1,000 steps of warm-up. Effective
draws are of the worst parameter, by `flows.diagnostics.effective_draws`; "mass" is one less the mass by which modes have fewer
draws than they should; "spread" is the worst standard deviation over the true one. Seconds are of one core, with all fits and
compiling. Written to benchmarks/results/samplers.json; flowMC runs in the environment of the peers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import records
from densities import known
from posteriors import mass_found

import flows
from flows.diagnostics import effective_draws, rhat
from flows.interop.blackjax import sample

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "samplers.json"
TARGETS = "two wells in 5", "four wells in 10", "funnel", "banana", "eight schools", "hierarchical Poisson"
WARM_UP, DRAWS, CHAINS = 1_000, 2_000, 4  # of NUTS
OF_DRAW = 2.7  # gradients of a draw of `sample`


def by_chains(target, seed):
    result = flows.fit_to_density(seed, None, target.log_density, target.dim, verbose=0)
    before = len(result.history["train_loss"]) * 25_600 + 10_000 + round(4 * 400 * 16 * OF_DRAW)
    found = sample(seed + 100, target.log_density, result)
    estimate = found.evidence()
    error = [estimate.value - target.log_z, estimate.standard_error]
    more = {"accepted": float(found.acceptance["global"][-1]), "gradients before": before, "error of log Z": error}
    return found.draws, round(16 * 1_000 * OF_DRAW), more


def by_nuts(target, seed):
    def density(x):
        return target.log_density(x[None])[0]

    def chain(start, key):
        of_warm_up, of_draws = jax.random.split(key)
        (state, settings), adapted = blackjax.window_adaptation(blackjax.nuts, density).run(of_warm_up, start, WARM_UP)
        kernel = blackjax.nuts(density, **settings)

        def step(state, key):
            state, info = kernel.step(key, state)
            return state, (state.position, info.num_integration_steps)

        positions, steps = jax.lax.scan(step, state, jax.random.split(of_draws, DRAWS))[1]
        return positions, steps.sum(), adapted.info.num_integration_steps.sum()

    of_start, of_chains = jax.random.split(jax.random.key(seed))
    starts = 3 * jax.random.normal(of_start, (CHAINS, target.dim))
    x, steps, before = jax.jit(jax.vmap(chain))(starts, jax.random.split(of_chains, CHAINS))
    return np.asarray(x), int(steps.sum()), {"gradients before": int(before.sum())}


def by_flowmc(name, seed):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "draws.npz"
        subprocess.run([peers_python(), HERE / "peers" / "samplers_flowmc.py", name, str(seed), file], check=True)
        with np.load(file) as found:
            more = {name: float(found[name]) for name in ("seconds", "accepted")}
            return found["x"], 16 * 2_000, {"gradients before": 16 * 2_000, **more}


def measured(name, way, seed):
    target, began = known(name), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x, steps, more = {"chains": by_chains, "NUTS": by_nuts}[way](target, seed) if way != "flowMC" else by_flowmc(name, seed)
    effective = float(np.nanmin(effective_draws(x)))
    rows = np.asarray(x, float).reshape(-1, target.dim)
    record = {"seconds": time.process_time() - began, **more, "effective": effective, "gradients": steps}
    record |= {"rhat": float(np.nanmax(rhat(x))), "mass": mass_found(target, rows)}
    if target.stds:
        ratios = rows.std(0) / target.stds
        record["spread"] = float(ratios[np.abs(np.log(ratios)).argmax()])
    return record


def peers_python():
    return os.environ.get("PEERS_PYTHON", HERE.parent / ".venv-peers" / "bin" / "python")


def regression():
    """log p(answers, weights) of a linear regression in 5 dimensions for rows of weights, in NumPy or JAX, and its log Z."""
    rng, n, d, variance, prior = np.random.default_rng(0), 60, 5, 0.49, 4.0
    x = rng.normal(size=(n, d))
    y = x @ np.array([1, -0.5, 0, 0.3, 2.0]) + 0.7 * rng.normal(size=n)
    covariance = variance * np.eye(n) + prior * x @ x.T
    log_z = -0.5 * (n * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + y @ np.linalg.solve(covariance, y))
    constant = 0.5 * n * np.log(2 * np.pi * variance) + 0.5 * d * np.log(2 * np.pi * prior)

    def log_density(weights, x=x, y=y):
        return -0.5 * ((y - weights @ x.T) ** 2).sum(-1) / variance - 0.5 * (weights**2).sum(-1) / prior - constant

    return log_density, partial(log_density, x=jnp.asarray(x, jnp.float32), y=jnp.asarray(y, jnp.float32)), log_z, d


def evidence(seed):
    """log Z of four chains of 500 draws of NUTS, less the truth, and the seconds that it takes."""
    log_density, of_one, log_z, d = regression()
    kernel = blackjax.nuts(of_one, 0.25, jnp.full(d, 0.02))

    def chain(key):
        start = jax.random.normal(key, (d,))
        keys = jax.random.split(key, 700)
        return jax.lax.scan(lambda s, k: (lambda out: (out[0], out[0].position))(kernel.step(k, s)), kernel.init(start), keys)[
            1
        ]

    x = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(seed), 4))[:, 200:], float)
    began = time.process_time()
    ours = flows.evidence(seed, x, log_density)
    seconds = time.process_time() - began
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "draws.npz", x=x, log_p=log_density(x))
        command = [peers_python(), HERE / "peers" / "samplers_harmonic.py", Path(folder) / "draws.npz"]
        theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return {
        "flows": [ours.value - log_z, ours.standard_error, seconds],
        "harmonic": [theirs["log Z"] - log_z, theirs["error"], theirs["seconds"]],
    }


def moons(rng, n, shift=0.0, scale=1.0):
    angle, side = rng.uniform(0, np.pi, n), rng.integers(0, 2, n)
    x = np.stack([np.cos(angle) * (1 - 2 * side) + side, np.sin(angle) * (1 - 2 * side) + 0.5 * side], 1)
    return (x + 0.1 * rng.normal(size=(n, 2))) * scale + shift


def curved(rng, n, shift=0.0, scale=1.0):
    z = rng.normal(size=(n, 8))
    x = z.copy()
    for j in range(1, 8):
        x[:, j] = 0.6 * x[:, j - 1] + 0.4 * np.sin(2 * x[:, j - 1]) + 0.5 * z[:, j] * np.exp(0.3 * x[:, j - 1].clip(-2, 2))
    x[:, 0] = np.exp(0.5 * x[:, 0])
    return x * scale + shift


SETS = {"moons, NSF(3)": (moons, flows.Flow(flows.NSF(3))), "curved, 8 columns, MAF(4)": (curved, flows.Flow(flows.MAF(4)))}
RATES = {"as it is": {}, "half the rate": {"learning_rate": 2.5e-3}, "a fifth": {"learning_rate": 1e-3}}
RATES["weight_decay=1"] = {"weight_decay": 1.0}


def again(seed):
    """Differences to a new fit in nats a row, on 5,000 other rows, and steps of both."""
    found = {}
    for name, (draw, model) in SETS.items():
        rng = np.random.default_rng(seed)
        old, test = draw(rng, 4_000), draw(rng, 5_000)
        first = flows.fit(seed, model, old, folds=1, verbose=0)
        short = flows.fit(seed, model, old, folds=1, max_epochs=15, verbose=0)
        later = np.concatenate([old, draw(rng, 400)])
        drifted, other = draw(rng, 4_000, 0.5, 1.3), draw(rng, 5_000, 0.5, 1.3)
        real, of_real = draw(rng, 500, 0.2, 0.9), draw(rng, 5_000, 0.2, 0.9)
        for what, start, rows, on in (
            ("the same rows", first, old, test), ("the same, after 15 epochs", short, old, test),
            ("a tenth more", first, later, test), ("rows that drifted", first, drifted, other),
            ("500 rows after 4,000 of a simulator", first, real, of_real),
        ):  # fmt: skip
            began = time.process_time()
            new = flows.fit(seed, model, rows, verbose=0)
            record = {"epochs of a new fit": new.history["train_loss"].shape[-1], "seconds": time.process_time() - began}
            for rate, settings in RATES.items():
                after = flows.fit(seed, start, rows, verbose=0, **settings)
                gain = np.asarray(after.log_prob(on), float) - np.asarray(new.log_prob(on), float)
                epochs = len(after.history["train_loss"])
                record[rate] = [float(gain.mean()), float(gain.std() / len(gain) ** 0.5), epochs]
            found[f"{name}: {what}"] = record
            print(seed, name, what, record, flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("chains", "again", "evidence"))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--ways", nargs="+", default=["chains", "NUTS", "flowMC"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--one", nargs=3, help="a target, a way and a seed; prints JSON")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    if options.one:
        name, way, seed = options.one
        print(json.dumps(measured(name, way, int(seed))))
        return
    found = records.read(RESULTS)
    for name in options.targets if options.part == "chains" else ():
        for way in options.ways:
            for seed in map(str, range(options.seeds)):
                command = [sys.executable, __file__, "--one", name, way, seed, "--core", str(options.core)]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                one = json.loads(told.splitlines()[-1])
                found.setdefault("chains", {}).setdefault(name, {}).setdefault(way, {})[seed] = one
                print(name, way, seed, one, flush=True)
            records.write(RESULTS, found)
    if options.part == "again":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for seed in range(1, 1 + options.seeds):
                found.setdefault("again", {})[str(seed)] = again(seed)
                records.write(RESULTS, found)
    if options.part == "evidence":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for seed in range(options.seeds):
                found.setdefault("evidence", {})[str(seed)] = one = evidence(seed)
                print(seed, one, flush=True)
                records.write(RESULTS, found)
    if options.table:
        print(records.as_text(found))


if __name__ == "__main__":
    main()
