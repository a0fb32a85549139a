"""Posteriors of simulators: how far from exact draws, by a classifier, next to sbi and sbijax on equal simulations; CPU time.

    make .venv-torch/.stamp && .venv-torch/bin/pip install sbi==0.27.0
    python3.12 -m venv .venv-sbijax && .venv-sbijax/bin/pip install sbijax==0.4.0 surjectors==0.3.4
    python benchmarks/simulators.py --torch .venv-torch --sbijax .venv-sbijax  # five seeds, 1,000 and 10,000 simulations
    python benchmarks/simulators.py --only beacons --seeds 1 --ours coupling MAF ensemble matching
    python benchmarks/simulators.py --speed                          # embeddings, many images, `simulate` in processes

Each posterior is fitted by the defaults of its library, and drawn from at three observations of the simulator that no fit has
seen. A classifier that separates the draws from exact ones is right half of the time where they agree (C2ST). Exact draws are
Gaussian, from a grid, or mapped from a Gaussian. Prints rows of benchmarks/simulators.md.
"""

import argparse
import functools
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import expm

import flows
from flows import sbi

HERE = Path(__file__).resolve().parent
SIMULATIONS, OBSERVATIONS, DRAWS = (1_000, 10_000), 3, 2_000
MOST_COUNT, TIMES, STEP = 150, 8, 0.5  # of the birth-death process
PEERS = {"sbi": "simulators_torch.py", "sbijax": "simulators_sbijax.py"}
MATCHING = flows.objectives.flow_matching
Rows = np.ndarray


class Task(NamedTuple):
    """A simulator of rows, its prior, and exact draws at an observation; `embedding` for ours, where x has several axes."""

    prior: sbi.Prior
    simulator: Callable
    exact: Callable[[np.random.Generator, Rows], Rows]
    workers: int | None = None
    embedding: Any = None


A = np.random.default_rng(7).normal(size=(5, 8)).astype(np.float32) / 2


def linear() -> Task:
    def exact(rng: np.random.Generator, x: Rows) -> Rows:
        precision = np.eye(5) + A @ A.T
        mean = np.linalg.solve(precision, A @ x)
        return mean + rng.normal(size=(DRAWS, 5)) @ np.linalg.cholesky(np.linalg.inv(precision)).T

    prior = sbi.Prior({"theta": (flows.Normal(), 5)})
    return Task(prior, lambda key, theta: theta["theta"] @ A + jax.random.normal(key, (8,)), exact)


def on_grid(ends: list[tuple[float, float]], counts: tuple[int, ...], log_p: Callable[[Rows, Rows], Rows]) -> Callable:
    """Exact draws by the posterior on a grid of cells, uniform within a cell."""
    edges = [np.linspace(*pair, count + 1) for pair, count in zip(ends, counts, strict=True)]
    middles = np.stack(np.meshgrid(*[(e[1:] + e[:-1]) / 2 for e in edges], indexing="ij"), -1).reshape(-1, len(ends))
    width = np.array([e[1] - e[0] for e in edges])

    def exact(rng: np.random.Generator, x: Rows) -> Rows:
        log_w = log_p(middles, x)
        w = np.exp(log_w - log_w.max())
        cells = rng.choice(len(middles), DRAWS, p=w / w.sum())
        return middles[cells] + rng.uniform(-0.5, 0.5, (DRAWS, len(ends))) * width

    return exact


def beacons() -> Task:
    at = np.array([[-0.5, 0.0], [0.5, 0.0]], np.float32)

    def log_p(theta: Rows, x: Rows) -> Rows:
        far = np.sqrt(np.square(theta[:, None] - at).sum(2))
        return -0.5 * np.square((x - far) / 0.05).sum(1)

    def simulator(key: Any, theta: Any) -> Any:
        far = jnp.sqrt(jnp.square(theta["place"] - at).sum(1))
        return far + 0.05 * jax.random.normal(key, (2,))

    prior = sbi.Prior({"place": (flows.Uniform(-1.0, 1.0), 2)})
    return Task(prior, simulator, on_grid([(-1, 1), (-1, 1)], (400, 400), log_p))


def sets() -> Task:
    """20 normal draws of unknown mean and log deviation, as a set."""

    def log_p(theta: Rows, x: Rows) -> Rows:
        mean, scale = theta[:, :1], np.exp(theta[:, 1:])
        return (-0.5 * np.square((x[:, 0] - mean) / scale) - np.log(scale)).sum(1)

    def simulator(key: Any, theta: Any) -> Any:
        return (theta["mean"] + jnp.exp(theta["log_scale"]) * jax.random.normal(key, (20,)))[:, None]

    prior = sbi.Prior({"mean": flows.Uniform(-3.0, 3.0), "log_scale": flows.Uniform(-1.5, 1.0)})
    exact = on_grid([(-3, 3), (-1.5, 1)], (600, 400), log_p)
    return Task(prior, simulator, exact, embedding=flows.conditioners.DeepSet())


def path() -> Task:
    """An Ornstein-Uhlenbeck path of 25 steps: log rate, mean and log scale."""

    def log_p(theta: Rows, x: Rows) -> Rows:
        decay = np.exp(-0.2 * np.exp(theta[:, :1]))
        spread = np.exp(theta[:, 2:]) * np.sqrt(1 - decay**2)
        before, after = x[:-1], x[1:]
        errors = after - theta[:, 1:2] - decay * (before - theta[:, 1:2])
        first = (x[0] - theta[:, 1]) / np.exp(theta[:, 2])
        return (-0.5 * np.square(errors / spread) - np.log(spread)).sum(1) - 0.5 * first**2 - theta[:, 2]

    def simulator(key: Any, theta: Any) -> Any:
        decay, scale = jnp.exp(-0.2 * jnp.exp(theta["log_rate"])), jnp.exp(theta["log_scale"])
        noise = jax.random.normal(key, (25,)) * scale

        def step(x: Any, e: Any) -> tuple[Any, Any]:
            x = decay * x + jnp.sqrt(1 - decay**2) * e
            return x, x

        _, rest = jax.lax.scan(step, noise[0], noise[1:])
        return theta["mean"] + jnp.concatenate([noise[:1], rest])

    marginals = {"log_rate": flows.Uniform(-1.5, 1.5), "mean": flows.Uniform(-2.0, 2.0), "log_scale": flows.Uniform(-1.0, 0.5)}
    return Task(sbi.Prior(marginals), simulator, on_grid([(-1.5, 1.5), (-2, 2), (-1, 0.5)], (60, 80, 60), log_p))


def gillespie(rng: np.random.Generator, theta: Any) -> Rows:
    """Counts of a birth-death process that starts with 20, at equal times."""
    birth, death = (float(theta[name]) for name in ("birth", "death"))
    n, now, counts = 20, 0.0, []
    for end in STEP * np.arange(1, TIMES + 1):
        while n:
            wait = rng.exponential(1 / (n * (birth + death)))
            if now + wait > end:
                break
            now += wait
            n += 1 if rng.random() * (birth + death) < birth else -1
            if n >= MOST_COUNT:
                n = MOST_COUNT - 1
        now = end
        counts.append(n)
    return np.array(counts, np.float32)


def birth_death() -> Task:
    n = np.arange(MOST_COUNT)

    @functools.cache
    def transitions(birth: float, death: float) -> Rows:
        rates = np.diag(birth * n[:-1], 1) + np.diag(death * n[1:], -1)
        return np.log(np.maximum(expm(STEP * (rates - np.diag(rates.sum(1)))), 1e-300))

    def log_p(theta: Rows, x: Rows) -> Rows:
        counts = np.concatenate([[20], x]).astype(int)
        return np.array([transitions(*map(float, row))[counts[:-1], counts[1:]].sum() for row in theta])

    prior = sbi.Prior({"birth": flows.Uniform(0.2, 1.2), "death": flows.Uniform(0.2, 1.2)})
    return Task(prior, gillespie, on_grid([(0.2, 1.2), (0.2, 1.2)], (50, 50), log_p), workers=2)


def curved() -> Task:
    """8 parameters that are a curved map of normal ones, of which x is linear with noise."""
    mixing = np.random.default_rng(8).normal(size=(8, 8)).astype(np.float32) / 2
    bend = flows.bijection(_bend)()

    def exact(rng: np.random.Generator, x: Rows) -> Rows:
        precision = np.eye(8) + mixing @ mixing.T / 0.25
        mean = np.linalg.solve(precision, mixing @ x / 0.25)
        z = mean + rng.normal(size=(DRAWS, 8)) @ np.linalg.cholesky(np.linalg.inv(precision)).T
        return z + 0.5 * np.concatenate([np.zeros((DRAWS, 1)), z[:, :-1] ** 2], 1)

    def simulator(key: Any, theta: Any) -> Any:
        return _straight(theta) @ mixing + 0.5 * jax.random.normal(key, (8,))

    return Task(sbi.Prior(flows.Flow(bend), 8), simulator, exact)


def _straight(theta: Any) -> Any:
    z = [theta[0]]
    for j in range(1, 8):
        z.append(theta[j] - 0.5 * z[-1] ** 2)
    return jnp.stack(z)


def _bend() -> Callable:
    def init_fun(rng, shape):  # type: ignore[no-untyped-def]
        def inverse_fun(params, z):  # type: ignore[no-untyped-def]
            return z + 0.5 * jnp.concatenate([jnp.zeros(1, z.dtype), z[:-1] ** 2])

        return {}, lambda params, theta: (_straight(theta), jnp.zeros((), theta.dtype)), inverse_fun

    return init_fun


TASKS = {"linear": linear, "beacons": beacons, "sets": sets, "path": path, "birth-death": birth_death, "curved": curved}
MODELS: dict[str, dict[str, Any]] = {
    "default": {},
    "coupling": {"model": flows.Flow(flows.NSF(autoregressive=False))},
    "MAF": {"model": flows.Flow(flows.MAF())},
    "ensemble": {"fit": functools.partial(flows.fit_ensemble, members=5)},
    "matching": {"model": flows.Flow(flows.Continuous()), "fit": functools.partial(flows.fit, objective=MATCHING)},
}


def c2st(draws: Rows, exact: Rows) -> float:
    return float(flows.diagnostics.classifier_two_sample(draws, exact, rng=0).statistic)


def ours(task: Task, sims: sbi.Simulations, observations: Rows, seed: int, **settings: Any) -> tuple[list[Rows], float]:
    fit = settings.pop("fit", flows.fit)
    began = time.process_time()
    quiet = functools.partial(fit, verbose=0)
    posterior = sbi.fit_posterior(seed, task.prior, sims, embedding=task.embedding, fit=quiet, **settings)
    draws = [np.asarray(task.prior.vectors(posterior.draw(seed + 1, DRAWS, context=x))) for x in observations]
    return draws, time.process_time() - began


def share_outside(prior: sbi.Prior, draws: list[Rows]) -> float:
    return float(np.mean([np.isneginf(prior.log_prob(rows)).mean() for rows in draws]))


def peer(program: str, python: Path, task: Task, sims: sbi.Simulations, observations: Rows, seed: int) -> tuple[Any, ...]:
    """Draws by a peer, CPU seconds, and the share of its draws outside the support before it rejects them."""
    with tempfile.TemporaryDirectory() as folder:
        low, high = (np.broadcast_to(np.asarray(end, float), (task.prior.size,)) for end in task.prior.region)
        few = {"theta": sims.theta, "x": sims.x, "observations": observations, "low": low, "high": high}
        np.savez(Path(folder) / "in.npz", seed=seed, draws=DRAWS, **few)
        command = [python.absolute() / "bin" / "python", HERE / "peers" / program, folder]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # logs stay there
        with np.load(Path(folder) / "out.npz") as out:
            return list(out["draws"]), float(out["cpu"]), float(out["outside"])


def compare(name: str, options: Any) -> None:
    task = TASKS[name]()
    quiet = {"workers": task.workers, "verbose": 0}
    for n in options.simulations:
        scores, cpu, outside = dict[str, list[Any]](), dict[str, list[float]](), dict[str, list[float]]()
        for seed in range(options.seeds):
            sims = sbi.simulate(seed, task.prior, task.simulator, n, **quiet)
            observed = sbi.simulate(1_000 + seed, task.prior, task.simulator, OBSERVATIONS, **quiet).x
            rng = np.random.default_rng(seed)
            exact = [task.exact(rng, np.asarray(x, float)) for x in observed]
            runs: dict[str, tuple[Any, ...]] = {}
            for model in options.ours:
                runs[model] = ours(task, sims, observed, seed, **MODELS[model])
            for library, python in {"sbi": options.torch, "sbijax": options.sbijax}.items():
                if python:
                    runs[library] = peer(PEERS[library], python, task, sims, observed, seed)
            for model, (draws, seconds, *more) in runs.items():
                outside.setdefault(model, []).append(more[0] if more else share_outside(task.prior, draws))
                scores.setdefault(model, []).append([c2st(a, b) for a, b in zip(draws, exact, strict=True)])
                cpu.setdefault(model, []).append(seconds)
        for model, values in scores.items():
            at, error = np.mean(values), np.std(np.mean(values, 1)) / max(len(values) - 1, 1) ** 0.5
            by_place = ", ".join(f"{value:.3f}" for value in np.mean(values, 0))
            cells = f"{name} | {n:,} | {model} | {at:.3f} +- {error:.3f} | {by_place} | {np.mean(cpu[model]):.0f}"
            print(f"| {cells} | {np.mean(outside[model]):.1%} |", flush=True)


def hard(rng: np.random.Generator, theta: Any) -> Rows:
    """A row of about a millisecond."""
    end = time.perf_counter() + 1e-3
    while time.perf_counter() < end:
        rng.normal()
    return theta["place"]


def by_hand(arguments: tuple[int, Rows]) -> Rows:
    return hard(np.random.default_rng(arguments[0]), {"place": arguments[1]})


def speed() -> None:
    """What users wait for next to the shortest way to do it."""
    prior = sbi.Prior({"place": (flows.Uniform(-1.0, 1.0), 2)})
    theta = np.random.default_rng(0).uniform(-1, 1, (20_000, 2))

    def timed(run: Callable) -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    def pool() -> None:
        with get_context("spawn").Pool(2) as processes:
            list(processes.imap(by_hand, enumerate(theta), chunksize=100))

    runs = {workers: timed(lambda: sbi.simulate(0, prior, hard, 20_000, workers=workers, verbose=0)) for workers in (1, 2)}  # noqa: B023
    print(f"20,000 rows of 1 ms: 1 worker {runs[1]:.2f} s, 2 workers {runs[2]:.2f} s, Pool.imap of 2 {timed(pool):.2f} s")

    def noisy(key: Any, theta: Any) -> Any:
        return theta["place"] @ jnp.ones((2, 16)) + jnp.sort(jax.random.normal(key, (16, 500)), 1).mean(1)

    keys, rows = jax.random.split(jax.random.key(0), 20_000), prior.draw(0, 20_000)
    bare = jax.jit(jax.vmap(noisy))
    jax.block_until_ready(bare(keys[:1], {"place": rows["place"][:1]}))
    times = [timed(lambda: jax.block_until_ready(bare(keys, rows))) for _ in range(3)]
    sbi.simulate(0, prior, noisy, 10, verbose=0)
    mine = [timed(lambda: sbi.simulate(0, prior, noisy, 20_000, verbose=0)) for _ in range(3)]
    print(f"20,000 rows in JAX: {np.median(mine):.2f} s, a bare jit(vmap) {np.median(times):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", type=Path, help="an environment with torch and sbi")
    parser.add_argument("--sbijax", type=Path, help="an environment with sbijax")
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--simulations", type=int, nargs="*", default=SIMULATIONS)
    parser.add_argument("--ours", nargs="*", choices=MODELS, default=["default"], help="our models")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--core", type=int)
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    if options.speed:
        speed()
        return
    print("| task | simulations | posterior | C2ST | by observation | CPU s | outside |\n" + "|---" * 7 + "|", flush=True)
    for name in options.only:
        compare(name, options)


if __name__ == "__main__":
    main()
