"""What does a flow save a sampler: plain NUTS of BlackJAX beside NUTS on `preconditioned`, on Neal's funnel in 10 dimensions.

    python benchmarks/funnel.py                                # three seeds, one core
    python benchmarks/funnel.py --ways plain RealNVP --seeds 1 # some
    python benchmarks/funnel.py --table                        # what was measured

The neck is v of N(0, 3^2), the other nine are of N(0, exp(v)). Each way has four chains, and window adaptation of its own. What
is told is of v: the effective draws by `blackjax.diagnostics.effective_sample_size`, beside the gradients of the density that
drawing took, one for each step of integration; those of the warm-up and of the fit (256 a step) count in another column.
Seconds are of one core, with the warm-up and with compiling. The same fits propose to `blackjax.irmh`. Written to
benchmarks/results/funnel.json.
"""

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import records

import flows
from flows.interop.blackjax import preconditioned, proposal

RESULTS = Path(__file__).resolve().parent / "results" / "funnel.json"
DIM, SCALE, CHAINS, WARM_UP, PROPOSALS = 10, 3.0, 4, 1_000, 20_000
NUM_SAMPLES, STEPS = 256, 100  # of a step, and of an epoch of `fit_to_density`


class Way(NamedTuple):
    """The flow, None for none; settings of the fit; the acceptance rate that NUTS is adapted to, and draws of a chain."""

    flow: Any = None
    settings: dict[str, Any] | None = None
    acceptance: float = 0.8
    draws: int = 2_000


def autoregressive(*before: Any) -> Any:
    """An affine flow that draws in one pass, its scales bounded by exp(10): those of `IAF` end at one."""
    network = flows.conditioners.MaskedMLP(32, 32, activation="elu")
    layer = flows.InverseAutoregressive(network, flows.transformers.Affine())
    return flows.Flow(flows.Serial(*before, layer))


ON_NORMAL = {"standardize": False, "starts": 1}  # a funnel is a ridge, whose Gaussian and maximum say little of it
WAYS = {
    "plain": Way(draws=20_000),
    "plain, 0.95": Way(acceptance=0.95, draws=20_000),
    "autoregressive": Way(autoregressive(), ON_NORMAL),
    "autoregressive, v last": Way(autoregressive(flows.Reverse()), {**ON_NORMAL, "max_epochs": 100}),
    "RealNVP": Way(flows.Flow(flows.RealNVP(4, hidden=(32,))), ON_NORMAL),
    "RealNVP, by default": Way(flows.Flow(flows.RealNVP(4, hidden=(32,)))),
}


def log_density(x: jax.Array) -> jax.Array:
    """Of points (n, 10), the neck first, up to a constant."""
    v, rest = x[:, 0], x[:, 1:]
    return -0.5 * jnp.square(v / SCALE) - 0.5 * (jnp.square(rest).sum(1) * jnp.exp(-v) + (DIM - 1) * v)


def of_one(x: jax.Array) -> jax.Array:
    return log_density(x[None])[0]


def sampled(density: Any, starts: jax.Array, key: jax.Array, way: Way) -> tuple:
    """Positions (chains, draws, 10), steps of integration of draws and of the warm-up, and divergences."""

    def chain(start: jax.Array, key: jax.Array) -> tuple:
        of_warm_up, of_draws = jax.random.split(key)
        warm_up = blackjax.window_adaptation(blackjax.nuts, density, target_acceptance_rate=way.acceptance)
        (state, settings), adapted = warm_up.run(of_warm_up, start, WARM_UP)
        kernel = blackjax.nuts(density, **settings)

        def step(state: Any, key: jax.Array) -> tuple:
            state, info = kernel.step(key, state)
            return state, (state.position, info.num_integration_steps, info.is_divergent)

        positions, steps, divergent = jax.lax.scan(step, state, jax.random.split(of_draws, way.draws))[1]
        return positions, steps.sum(), adapted.info.num_integration_steps.sum(), divergent.sum()

    positions, *counts = jax.jit(jax.vmap(chain))(starts, jax.random.split(key, CHAINS))
    return positions, *(int(count.sum()) for count in counts)


def accepted(result: Any, key: jax.Array) -> tuple[float, float]:
    """The share of proposals of the flow that `blackjax.irmh` accepts, and the effective draws of v, of one chain."""
    kernel = blackjax.irmh(of_one, *proposal(result))

    def step(state: Any, key: jax.Array) -> tuple:
        state, info = kernel.step(key, state)
        return state, (state.position[0], info.acceptance_rate)

    state = kernel.init(result.draw(key, 1)[0])
    v, rate = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys)[1])(state, jax.random.split(key, PROPOSALS))
    return float(rate.mean()), float(blackjax.diagnostics.effective_sample_size(v[None]))


def measured(way: Way, seed: int) -> dict[str, float]:
    of_starts, of_chains, of_proposals = jax.random.split(jax.random.key(seed + 100), 3)
    found: dict[str, float] = {"fit gradients": 0}
    began = time.process_time()
    density, to_data, starts = of_one, lambda x: x, jax.random.normal(of_starts, (CHAINS, DIM))
    if way.flow is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # figures tell what they do
            more = {"num_samples": NUM_SAMPLES, "verbose": 0, **(way.settings or {})}
            result = flows.fit_to_density(seed, way.flow, log_density, DIM, **more)
        found["fit gradients"] = len(result.history["train_loss"]) * STEPS * NUM_SAMPLES
        found["effective sample size"] = result.diagnostics.effective_sample_size
        found["fit seconds"] = time.process_time() - began
        found["accepted"], found["effective proposals"] = accepted(result, of_proposals)
        density, to_data, to_noise = preconditioned(log_density, result)
        starts = to_noise(result.draw(of_starts, CHAINS))
        began = time.process_time()
    positions, steps, warm_up, divergences = sampled(density, starts, of_chains, way)
    v = np.asarray(to_data(positions)[..., 0], float)
    return {
        **found, "draws": v.size, "effective draws": float(blackjax.diagnostics.effective_sample_size(v)),
        "gradients": steps, "warm-up gradients": warm_up, "divergences": divergences, "mean": v.mean(), "deviation": v.std(),
        "potential scale reduction": float(blackjax.diagnostics.potential_scale_reduction(v)),
        "seconds": time.process_time() - began,
    }  # fmt: skip


def table(found: dict) -> str:
    lines = [
        "| NUTS | effective draws of v in 1,000 gradients | with those of warm-up and fit | in a second, without the fit "
        "| mean and deviation of v: 0 and 3 | divergences in 1,000 draws | gradients of the fit | accepted by irmh "
        "| effective draws in 1,000 proposals |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, of_seeds in found.items():
        runs = list(of_seeds.values())
        of = {key: np.array([run[key] for run in runs], float) for key in runs[0]}
        alone = 1_000 * of["effective draws"] / of["gradients"]
        every = of["gradients"] + of["warm-up gradients"] + of["fit gradients"]
        cells = [
            name, spread(alone), spread(1_000 * of["effective draws"] / every), spread(of["effective draws"] / of["seconds"]),
            f"{spread(of['mean'])}; {spread(of['deviation'])}", spread(1_000 * of["divergences"] / of["draws"]),
            f"{np.median(of['fit gradients']):,.0f}",
        ]  # fmt: skip
        if "accepted" in of:
            cells += [spread(of["accepted"]), spread(1_000 * of["effective proposals"] / PROPOSALS)]
        lines.append(f"| {' | '.join(cells + [''] * (9 - len(cells)))} |")
    return "\n".join(lines)


def spread(values: np.ndarray) -> str:
    """The least and the largest of the seeds."""
    low, high = (f"{float(f'{value:.3g}'):,.10g}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = records.read(options.out)
    if not options.table:
        os.sched_setaffinity(0, {options.core})
        for name in options.ways:
            for seed in range(options.seeds):
                found.setdefault(name, {})[str(seed)] = measured(WAYS[name], seed)
                print(name, seed, {key: round(float(f"{x:.4g}"), 4) for key, x in found[name][str(seed)].items()}, flush=True)
            records.write(options.out, found)
    print(table(found))


if __name__ == "__main__":
    main()
