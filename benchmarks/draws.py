"""Layers that draw: what they cost, as ratios, and what they gain.

    python benchmarks/draws.py            # ratios of CPU time, in turns, on one core
    python benchmarks/draws.py --figures  # whole numbers and digits, and flows with and without a layer that draws

The first form prints the first table of benchmarks/draws.md, the second the other tables: nats and bits of rows that were not
trained on, with standard errors; each fit has a minute of a core.
"""

import argparse
import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr
from sklearn.datasets import load_digits

import flows
from flows.models.indexed import ContinuouslyIndexed
from flows.objectives import importance_weighted_log_pdf
from flows.transformers import Additive, Integer

TURNS, TIMES = 15, 8
ROWS, DRAWS, CODES, TEST = 10_000, 10, 91, 20_000
SECONDS, REACH, DRAWN = 60, 6.5, 64
Run = tuple[Callable, Any]


def ratios(runs: dict[str, Run]) -> dict[str, float]:
    """The median over turns of the CPU time of each run, in ms."""
    for function, argument in runs.values():
        jax.block_until_ready(function(argument))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, (function, argument) in runs.items():
            began = time.process_time()
            for _ in range(TIMES):
                jax.block_until_ready(function(argument))
            times[name].append(1e3 * (time.process_time() - began) / TIMES)
    return {name: float(np.median(each)) for name, each in times.items()}


def line(name: str, runs: dict[str, Run], times: int = 1, limit: float = 1.0) -> None:
    (first, one), (second, other) = ratios(runs).items()
    print(f"| {name} | {first}: {one:.2f} | {second}: {other:.2f} | {one / (times * other):.2f} | {limit} |")


def log_density_of(model: Any, x: jax.Array) -> Run:
    params, log_pdf, _ = model(0, x.shape[1:])
    return jax.jit(lambda params: log_pdf(params, x)), params


def step_of(model: Any, x: jax.Array) -> Run:
    params, log_pdf, _ = model(0, x.shape[1:])
    return jax.jit(jax.grad(lambda params: -log_pdf(params, x, rng=1).mean())), params


def costs() -> None:
    print("| what | ms | ms | ratio | at most |\n|---|---|---|---|---|")
    counts = jnp.asarray(np.random.default_rng(0).poisson(5.0, (ROWS, 8)), jnp.float32)

    def layers(transformer: Any) -> Any:
        return flows.Serial(*(flows.Coupling(flows.MLP(64, 64), transformer, flip=flip) for flip in (False, True)))

    def outputs(transformer: Any) -> Run:
        params, direct_fun, _ = layers(transformer)(0, 8)
        return jax.jit(lambda params: direct_fun(params, counts)), params

    pair = {"Integer": outputs(Integer()), "Additive": outputs(Additive())}
    line("two couplings of 8 columns, 10,000 rows", pair, limit=1.1)
    whole = log_density_of(flows.Flow(layers(Integer()), flows.DiscretizedLogistic(True)), counts)
    pair = {"Integer": whole, "Additive": log_density_of(flows.Flow(layers(Additive()), flows.Logistic(True)), counts)}
    line("log-masses with their base, and log-densities", pair, limit=1.1)

    x = jax.random.normal(jax.random.key(0), (ROWS, 2))
    model = flows.Flow(flows.VAE(flows.Normal(conditioner=flows.MLP(64)), flows.Normal(conditioner=flows.MLP(64)), 2))
    params, log_pdf, sample = distribution = model(0, 2)
    many = jax.jit(lambda params: importance_weighted_log_pdf(params, distribution, x, rng=1, num_inner=DRAWS))
    pair = {f"{DRAWS} draws": (many, params), "one": (jax.jit(lambda params: log_pdf(params, x, rng=1)), params)}
    line("importance_weighted_log_pdf of a VAE", pair, DRAWS, 1.1)

    memory = {}
    for name, first in (("dequantised", (flows.Dequantize(),)), ("plain", ())):
        model = flows.Flow(flows.Serial(*first, flows.NSF(4)))
        params, log_pdf, sample = model(0, 6)
        draw = jax.jit(lambda params, sample=sample: sample(1, params, ROWS))
        memory[name] = draw.lower(params).compile().memory_analysis().temp_size_in_bytes / 1e6
        if first:
            x = jnp.round(jax.random.normal(jax.random.key(0), (ROWS, 6)))
            score = jax.jit(lambda params, log_pdf=log_pdf, x=x: log_pdf(params, x, rng=1))
            line("10,000 draws of a dequantised NSF", {"draws": (draw, params), "log-densities": (score, params)}, limit=1.25)
    print(
        f"| memory of these draws, MB | {memory['dequantised']:.1f} | {memory['plain']:.1f} "
        f"| {memory['dequantised'] / memory['plain']:.2f} | 1.0 |"
    )

    x, inner = jax.random.normal(jax.random.key(0), (ROWS, 4)), flows.RealNVP(4, hidden=(64, 64))
    of_index = flows.Normal(conditioner=flows.MLP(64, 64))
    whole = step_of(flows.Flow(ContinuouslyIndexed(inner, 2, of_index, of_index)), x)
    index = jax.random.normal(jax.random.key(1), (ROWS, 2))
    parts = [flows.Flow(inner)(0, 4, context_dim=2), of_index(0, 2, context_dim=4), of_index(0, 2, context_dim=4)]

    def apart(params: Any) -> jax.Array:
        """The bijection and both networks, without the layers around them."""
        calls = zip(parts, params, (x, index, index), (index, x, x), strict=True)
        return sum(part.log_pdf(p, y, context=given).mean() for part, p, y, given in calls)

    runs = {"step": whole, "parts": (jax.jit(jax.grad(apart)), [part.params for part in parts])}
    line("a step of ContinuouslyIndexed", runs, limit=1.2)


def fitted(model: Any, rows: Any, seed: int = 0, **options: Any) -> Any:
    settings = {"max_epochs": 10_000, "patience": 30, "max_minutes": SECONDS / 60, "verbose": 0, "folds": 1}
    return flows.fit(seed, model, rows, **(settings | options))


def nats(result: Any, rows: Any, draws: int = 1) -> np.ndarray:
    """Log-densities of rows; of a bound the logarithm of the mean over draws."""

    def scored(piece: Any) -> Any:
        if draws == 1:
            return result.log_pdf(result.params, piece)
        return importance_weighted_log_pdf(result.params, result, piece, rng=9, num_inner=draws)

    score, size = jax.jit(scored), 2000
    pieces = [
        score(jnp.asarray(np.resize(rows[i : i + size], (size, *rows.shape[1:])), jnp.float32))
        for i in range(0, len(rows), size)
    ]
    return np.concatenate(pieces)[: len(rows)].astype(float)


def shown(name: str, values: np.ndarray, seconds: float, more: str = "") -> None:
    print(f"| {name} | {values.mean():.3f} +- {values.std() / len(values) ** 0.5:.3f} | {more}{seconds:.0f} s |", flush=True)


def quantised(key: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes 0 to 90 of points of eight Gaussians in two columns, and the exact log-mass of their cells."""
    x = np.asarray(flows.datasets.EightGaussians()(0, 2).sample(key, {}, rows), float)
    codes = np.clip(np.floor((x + REACH) / (2 * REACH) * CODES), 0, CODES - 1)
    ends = np.linspace(-REACH, REACH, CODES + 1)
    ends[[0, -1]] = -np.inf, np.inf
    angles = np.arange(8) * np.pi / 4
    centres = 4 * np.stack([np.cos(angles), np.sin(angles)], 1)
    cells = np.diff(ndtr((ends[:, None, None] - centres[None]) / 0.5), axis=0)  # codes, components, columns
    first, second = codes.astype(int).T
    return codes.astype(np.float32), np.log((cells[first, :, 0] * cells[second, :, 1]).mean(1))


def whole_numbers() -> None:
    train, _ = quantised(1, 20_000)
    test, exact = quantised(2, TEST)
    shifts = [flows.Coupling(flows.MLP(64, 64), Integer(scale=9.0), flip=bool(i % 2)) for i in range(4)]
    logistics = flows.Mixture(flows.DiscretizedLogistic(True), num_components=8)
    unit = flows.Flow(flows.Logit(), flows.Normal(conditioner=flows.MLP(64, 64)))
    line = flows.Unconstrain(-0.5, CODES - 0.5)
    spline = flows.NSF(4, hidden=(64, 64))
    models = {
        "`Categorical(91, 91)`": (flows.Categorical(CODES, CODES), 1),
        "4 couplings by `Integer`, 8 `DiscretizedLogistic`": (flows.Flow(flows.Serial(*shifts), logistics), 1),
        "8 `DiscretizedLogistic`": (logistics, 1),
        "`Argmax`, RealNVP": (flows.Flow(flows.Serial(flows.Argmax(CODES), flows.RealNVP(4, hidden=(64, 64)))), DRAWN),
        "`Argmax(binary=True)`, NSF": (flows.Flow(flows.Serial(flows.Argmax(CODES, binary=True), spline)), DRAWN),
        "uniform noise, NSF": (flows.Flow(flows.Serial(flows.Dequantize(1.0, CODES), line, spline)), DRAWN),
        "learned noise, NSF": (flows.Flow(flows.Serial(flows.Dequantize(1.0, CODES, unit), line, spline)), DRAWN),
    }
    print("| model | nats | behind the exact masses | seconds |\n|---|---|---|---|")
    shown("exact", exact, 0, " | ")
    for name, (model, draws) in models.items():
        began = time.monotonic()
        result = fitted(model, train)
        seconds = time.monotonic() - began
        values = nats(result, test, draws)
        behind = exact - values
        shown(name, values, seconds, f"{behind.mean():.3f} +- {behind.std() / len(test) ** 0.5:.3f} | ")


def digits() -> None:
    data = load_digits().images.reshape(-1, 64).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(data))
    train, test = data[order[360:]], data[order[:360]]

    def pixel(width: int, **ends: int) -> Any:
        return flows.DiscretizedLogistic(conditioner=flows.MLP(width), **ends)

    def halves(rest: Any) -> list[Any]:
        return [flows.Slice(size, rest) for size in (32, 16, 8, 4)]

    ends = {"low": 0, "high": 16}
    base = flows.Mixture(flows.DiscretizedLogistic(True, **ends), num_components=5)
    counts = flows.Mixture(flows.DiscretizedLogistic(True), num_components=5)
    shifts = [flows.Shuffle(), flows.Coupling(flows.MLP(64), Integer())] * 2
    mixtures = halves(flows.Mixture(pixel(64, **ends), num_components=4))
    decoded = flows.VAE(flows.Normal(conditioner=flows.MLP(256)), pixel(256, **ends), 16)
    models = {
        "5 `DiscretizedLogistic`": (base, 1),
        "2 couplings by `Integer`, 4 `Slice`": (flows.Flow(flows.Serial(*shifts, *halves(pixel(128))), counts), 1),
        "4 `Slice` with mixtures": (flows.Flow(flows.Serial(flows.Shuffle(), *mixtures), base), 1),
        "`Categorical`": (flows.Categorical(*[17] * 64), 1),
        "`VAE` with a `DiscretizedLogistic` decoder": (flows.Flow(decoded), 64),
    }
    print("\n| digits | bits per pixel | seconds |\n|---|---|---|")
    for name, (model, draws) in models.items():
        began = time.monotonic()
        result = fitted(model, train, batch_size=64)
        shown(name, -nats(result, test, draws) / (64 * np.log(2)), time.monotonic() - began)


def numbers_of(model: Any, d: int) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(model(0, d).params))


def at_least(make: Callable[[int], Any], numbers: int, d: int) -> Any:
    """The narrowest model with at least so many params."""
    return next(make(width) for width in range(8, 500) if numbers_of(make(width), d) >= numbers)


def mirrored(rng: np.random.Generator, rows: int) -> np.ndarray:
    """A moon and its mirror image."""
    t = np.pi * rng.random(rows)
    x = np.stack([np.cos(t), 0.3 + np.sin(t)], 1) + 0.08 * rng.normal(size=(rows, 2))
    return (x * np.where(rng.random((rows, 1)) < 0.5, [[1, 1]], [[1, -1]])).astype(np.float32)


def particles(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Five particles on a line that keep their distance, in any order."""
    x = np.cumsum(rng.gamma(6.0, 0.25, (rows, 5)), 1)
    return rng.permuted(x - x.mean(1, keepdims=True) + rng.normal(size=(rows, 1)), axis=1).astype(np.float32)


def rings(rng: np.random.Generator, rows: int) -> np.ndarray:
    return np.asarray(flows.datasets.Rings(num_rings=2)(0, 2).sample(int(rng.integers(2**31)), {}, rows))


def with_and_without() -> None:
    def spline(width: int) -> Any:
        return flows.NSF(4, hidden=(width, width))

    def real_nvp(width: int) -> Any:
        return flows.RealNVP(6, hidden=(width, width))

    of_index = flows.Normal(conditioner=flows.MLP(32, 32))
    line = flows.Invert(flows.Softplus())
    pairs = {
        "`Abs`, moons": (mirrored, 1_000, 2, flows.Serial(flows.Abs(), line, spline(32)), spline, 1),
        "`Sort`, particles": (particles, 1_000, 5, flows.Serial(flows.Sort(), spline(32)), spline, 1),
        "`ContinuouslyIndexed`, rings": (
            rings,
            5_000,
            2,
            ContinuouslyIndexed(real_nvp(32), 1, of_index, of_index),
            real_nvp,
            200,
        ),
    }
    print("\n| layer, data | rows | params | with it | params | without | ahead by |\n|---|---|---|---|---|---|---|")
    for name, (data, rows, d, model, make, draws) in pairs.items():
        train, test = data(np.random.default_rng(1), rows), data(np.random.default_rng(2), 5_000)
        first, second = flows.Flow(model), flows.Flow(at_least(make, numbers_of(model, d), d))
        results = [fitted(each, train) for each in (first, second)]
        values = [nats(result, test, k) for result, k in zip(results, (draws, 1), strict=True)]
        means = [f"{numbers_of(each, d):,} | {value.mean():.3f}" for each, value in zip((first, second), values, strict=True)]
        ahead = values[0] - values[1]
        print(
            f"| {name} | {rows:,} | {means[0]} | {means[1]} | {ahead.mean():.3f} +- {ahead.std() / len(ahead) ** 0.5:.3f} |",
            flush=True,
        )
        if draws > 1:
            truth = flows.datasets.Rings(num_rings=2)(0, 2)
            least = float(truth.log_pdf({}, test).max()) + np.log(1e-4)
            off = [float((truth.log_pdf({}, result.sample(5, result.params, TEST)) < least).mean()) for result in results]
            print(f"samples where the truth is below 1e-4 of its peak: {off[0]:.2%} with the layer, {off[1]:.2%} without")


def figures() -> None:
    whole_numbers()
    digits()
    with_and_without()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", action="store_true", help="what layers that draw gain")
    asked = parser.parse_args().figures
    figures() if asked else costs()


if __name__ == "__main__":
    main()
