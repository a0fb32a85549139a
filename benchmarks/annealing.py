"""Annealed weights, and training that covers modes: what they cost, whether they are exact, and whether they help.

    python benchmarks/annealing.py cost        # against bare gradients, TFP and BlackJAX; needs tfp-nightly
    python benchmarks/annealing.py exact       # z-scores of log Z over 20 seeds, by flows fitted for some seconds
    python benchmarks/annealing.py helps --targets "many well, 8" --models RealNVP --minutes 3
    python benchmarks/annealing.py --table     # what was measured

"cost": 16 temperatures of 5 gradients. Seconds are of one core and of the fastest of runs in turn; `squared error` is
the mean of (Z / truth - 1)^2 over 100 seeds of 500 draws. Peers get the best of five sizes of steps, ours sets its sizes by
itself. Written to benchmarks/results/annealing.json.
"""

import argparse
import time
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import records
from densities import known

import flows
from flows.objectives import (
    alpha_divergence,
    annealed_importance_samples,
    effective_sample_size,
    importance_samples,
    log_normalizer,
    pareto_k,
)

RESULTS = Path(__file__).resolve().parent / "results" / "annealing.json"
TEMPERATURES, LEAPFROG, SEEDS, DRAWS = 16, 5, 100, 500
MODELS = {"RealNVP": flows.Flow(flows.RealNVP(8)), "NSF": flows.Flow(flows.NSF(4))}
WAYS = {
    "reverse KL": {},
    "alpha = 2": {"objective": partial(alpha_divergence, alpha=2.0)},
    "bootstrap": {"objective": partial(alpha_divergence, alpha=2.0, num_temperatures=4)},
    "bootstrap, one start": {"objective": partial(alpha_divergence, alpha=2.0, num_temperatures=4), "starts": 1},
    "reverse KL, one start": {"starts": 1},
}
SIZES = (0.1, 0.2, 0.3, 0.5, 0.8)
START = {"many well, 8": 1.5, "two wells in 5": 4.0, "funnel": 2.0}  # the standard deviation of q


def wide(d, std):
    triple = flows.Normal(trainable=True)(0, d)
    return triple._replace(params={**triple.params, "log_scale": 10 * np.arctanh(np.log(np.full(d, std)) / 10)})


def by_tfp(q, log_density, size, key):
    import tensorflow_probability.substrates.jax as tfp

    draw_key, key = jax.random.split(key)
    step = partial(tfp.mcmc.HamiltonianMonteCarlo, step_size=size, num_leapfrog_steps=LEAPFROG)
    x = q.sample(draw_key, q.params, DRAWS)
    return tfp.mcmc.sample_annealed_importance_chain(
        num_steps=TEMPERATURES, proposal_log_prob_fn=partial(q.log_pdf, q.params), target_log_prob_fn=log_density,
        current_state=x, make_kernel_fn=lambda density: step(target_log_prob_fn=density), seed=key,
    )[1]  # fmt: skip


def by_blackjax(q, log_density, size, key):
    import blackjax
    from blackjax.smc import resampling

    d, (draw_key, key) = q.sample(0, q.params, 1).shape[1], jax.random.split(key)

    def log_prior(x):
        return q.log_pdf(q.params, x[None])[0]

    steps = jnp.full(1, LEAPFROG)
    step = blackjax.tempered_smc(
        log_prior, lambda x: log_density(x[None])[0] - log_prior(x), blackjax.hmc.build_kernel(), blackjax.hmc.init,
        {"step_size": jnp.full(1, size), "inverse_mass_matrix": jnp.ones((1, d)), "num_integration_steps": steps},
        resampling.systematic, num_mcmc_steps=1,
    )  # fmt: skip

    def temperature(state, inputs):
        state, info = step.step(inputs[0], state, inputs[1])
        return state, info.log_likelihood_increment

    start = step.init(q.sample(draw_key, q.params, DRAWS))
    betas = jnp.arange(1, TEMPERATURES + 1) / TEMPERATURES
    gains = jax.lax.scan(temperature, start, (jax.random.split(key, TEMPERATURES), betas))[1]
    return jnp.full(DRAWS, gains.sum())


def gradients(q, log_density, key):
    """As many gradients of both densities as chains take, and nothing else."""
    both = jax.value_and_grad(lambda x: log_density(x).sum() + 1e-3 * q.log_pdf(q.params, x).sum())

    def step(x, _):
        value, slope = both(x)
        return x + 1e-6 * slope, value

    return jax.lax.scan(step, q.sample(key, q.params, DRAWS), length=TEMPERATURES * LEAPFROG)


def timed(functions, rounds=7):
    """Seconds of the fastest call of each, in turn."""
    best = dict.fromkeys(functions, np.inf)
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            jax.block_until_ready(function())
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def cost():
    found = {}
    for name, std in START.items():
        target = known(name)
        q, keys = wide(target.dim, std), jax.random.split(jax.random.key(0), SEEDS)
        ours = partial(annealed_importance_samples, q.params, q, target.log_density, num_samples=DRAWS)
        ways = {"ours": lambda key: ours(rng=key)[1], "ours, resampled": lambda key: ours(rng=key, resample=True)[1]}  # noqa: B023
        ways |= {"TFP": partial(by_tfp, q, target.log_density), "BlackJAX": partial(by_blackjax, q, target.log_density)}
        record, calls = {}, {}
        for way, function in ways.items():
            options = {0.0: function} if way.startswith("ours") else {size: partial(function, size) for size in SIZES}
            for size, run in options.items():
                compiled = jax.jit(run)
                z = np.exp(np.array([jax.nn.logsumexp(compiled(key)) for key in keys]) - np.log(DRAWS) - target.log_z)
                error = float(np.mean(np.square(z - 1)))
                if error < record.get(way, {}).get("squared error", np.inf):
                    record[way] = {"squared error": error, "mean of Z": float(z.mean()), "size": size}
                    calls[way] = partial(compiled, keys[0])
        floor = jax.jit(partial(gradients, q, target.log_density))
        calls["gradients"] = partial(floor, keys[0])
        seconds = timed(calls)
        found[name] = {way: {**record.get(way, {}), "ms": 1e3 * seconds[way]} for way in calls}
    found["RealNVP"] = of_flow()
    return found


def of_flow(n=4_096):
    """Where a flow is what costs: ratios to bare gradients."""
    target = known("many well, 8")
    q = MODELS["RealNVP"](0, target.dim)

    def floor(key):
        both = jax.value_and_grad(lambda x: target.log_density(x).sum() + q.log_pdf(q.params, x).sum())
        step = lambda x, _: ((x + 1e-6 * both(x)[1]), None)  # noqa: E731
        return jax.lax.scan(step, q.sample(key, q.params, n), length=TEMPERATURES * LEAPFROG)[0]

    def ours(key):
        return annealed_importance_samples(q.params, q, target.log_density, key, n)

    key = jax.random.key(0)
    calls = {name: partial(jax.jit(run), key) for name, run in (("ours", ours), ("gradients", floor))}
    return {way: {"ms": 1e3 * seconds} for way, seconds in timed(calls, 3).items()}


def fitted(name, model, minutes, **settings):
    target = known(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        most = {"max_epochs": 400 if minutes > 1 else 100, "max_minutes": minutes}
        return target, flows.fit_to_density(0, MODELS[model], target.log_density, target.dim, verbose=0, **most, **settings)


def exact(n=4_000):
    found = {}
    for name in ("two wells in 5", "funnel", "many well, 8"):
        target, result = fitted(name, "RealNVP", 0.3)
        for way, draw in (("plain", importance_samples), ("annealed", annealed_importance_samples)):
            run = jax.jit(lambda params, key, draw=draw: draw(params, result, target.log_density, key, n)[1])  # noqa: B023
            log_w = [run(result.params, key) for key in jax.random.split(jax.random.key(1), 20)]
            estimates, k = list(map(log_normalizer, log_w)), float(np.median(list(map(pareto_k, log_w))))
            z = np.array([(estimate.value - target.log_z) / estimate.standard_error for estimate in estimates])
            found[f"{name}, {way}"] = {
                "largest": float(np.abs(z).max()), "mean square": float(np.mean(z**2)), "k": k,
                "effective": float(np.mean([effective_sample_size(w) / n for w in log_w])),
            }  # fmt: skip
    return found


def helps(name, model, ways, minutes, n=20_000):
    found = {}
    for way in ways:
        settings, began = WAYS[way], time.process_time()
        target, result = fitted(name, model, minutes, **settings)
        record = {
            "seconds": time.process_time() - began,
            "epochs": len(result.history["train_loss"]),
            "modes": result.diagnostics.modes,
        }
        for weights, draw in (("plain", importance_samples), ("annealed", annealed_importance_samples)):
            x, log_w = draw(result.params, result, target.log_density, 1, n)
            estimate, w = log_normalizer(log_w), np.asarray(jax.nn.softmax(log_w), float)
            record[f"{weights}: effective"] = effective_sample_size(log_w) / n
            record[f"{weights}: error"] = [estimate.value - target.log_z, estimate.standard_error]
            record[f"{weights}: k"] = pareto_k(log_w)
            if target.which is not None:
                record[f"{weights}: first mode"] = float((w * (np.asarray(target.which(np.asarray(x))) == 0)).sum())
        if name.startswith("many"):  # the share of each pair of columns that is right of 0
            draws = np.asarray(result.draw(2, n))[:, ::2] > 0
            record["right"] = draws.mean(0).round(3).tolist()
            record["wells"] = len(np.unique(draws, axis=0))
        found[way] = record
        print(
            name,
            model,
            way,
            {key: np.round(value, 3).tolist() if key != "modes" else value for key, value in record.items()},
            flush=True,
        )
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("cost", "exact", "helps"))
    parser.add_argument("--targets", nargs="*", default=["many well, 8", "many well, 32"])
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    found = records.read(RESULTS)
    if arguments.part == "helps":
        for name in arguments.targets:
            for model in arguments.models:
                found.setdefault("helps", {})[f"{name}, {model}"] = helps(name, model, arguments.ways, arguments.minutes)
    elif arguments.part is not None:
        found[arguments.part] = {"cost": cost, "exact": exact}[arguments.part]()
    if arguments.part is not None:
        records.write(RESULTS, found)
    if arguments.table or arguments.part in ("cost", "exact"):
        print(records.as_text(found if arguments.table else found[arguments.part]))


if __name__ == "__main__":
    main()
