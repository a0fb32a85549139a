"""What users wait for, in a process of its own: a line "prepare NAME" of its standard input makes the calls of a model, a line
"CALL times" runs one. It answers with seconds of CPU time: of the first call, or the least of a call."""

import json
import sys
import time

began = time.process_time()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import flows  # noqa: E402

ROWS, BATCH, COLUMNS = 10_000, 512, 21
SPLINE = {"num_layers": 5, "hidden": (128, 128), "num_bins": 8, "bound": 3.0}
MODELS = {
    "NSF coupling": lambda: flows.NSF(**SPLINE, autoregressive=False),
    "NSF autoregressive": lambda: flows.NSF(**SPLINE),
    "RealNVP": lambda: flows.RealNVP(6, hidden=(128, 128)),
    "MAF": lambda: flows.MAF(5, hidden=(128, 128)),
}
rng = np.random.default_rng(0)
calls: dict = {}


def of_model(name):
    params, log_pdf, sample = flows.Flow(MODELS[name]())(0, COLUMNS)
    batch, rows = (jnp.asarray(rng.normal(size=(n, COLUMNS)), np.float32) for n in (BATCH, ROWS))
    optimizer = optax.adam(1e-3)
    state = [params, optimizer.init(params)]

    @jax.jit
    def update(params, of_optimizer, x):
        gradient = jax.grad(lambda params: -log_pdf(params, x).mean())(params)
        updates, of_optimizer = optimizer.update(gradient, of_optimizer, params)
        return optax.apply_updates(params, updates), of_optimizer

    def steps():
        for _ in range(8):
            state[:] = update(*state, batch)
        jax.block_until_ready(state)

    calls[f"{name}: 8 steps"] = steps
    calls[f"{name}: {ROWS} log_pdf"] = lambda: jax.block_until_ready(log_pdf(params, rows))
    calls[f"{name}: {ROWS} samples"] = lambda: jax.block_until_ready(sample(1, params, ROWS))
    calls[f"{name}: 200 log_pdf of a row"] = lambda: jax.block_until_ready([log_pdf(params, rows[:1]) for _ in range(200)])
    steps()


def of_fit(name):
    rows = (rng.normal(size=(3000, 4)) @ rng.normal(size=(4, 4)) + rng.gamma(2.0, size=(3000, 4))).astype(np.float32)
    result = flows.fit(0, flows.Flow(flows.NSF()), rows, max_epochs=8, verbose=0)
    calls["fit: again"] = lambda: flows.fit(0, flows.Flow(flows.NSF()), rows, max_epochs=8, verbose=0)
    calls["fit: log_prob of 3000 rows"] = lambda: np.asarray(result.log_prob(rows))
    calls["fit: draw of 3000 rows"] = lambda: np.asarray(result.draw(1, 3000))


def spent(call, times):
    least = float("inf")
    for _ in range(times):
        start = time.process_time()
        call()
        least = min(least, time.process_time() - start)
    return least


print(json.dumps({"seconds": time.process_time() - began}), flush=True)
for line in sys.stdin:
    what, argument = line.rstrip("\n").rsplit(" ", 1)
    if what == "prepare":
        name = argument.replace("_", " ")
        before, first = set(calls), spent(lambda name=name: (of_model if name in MODELS else of_fit)(name), 1)
        new = [call for call in calls if call not in before]
        for call in new:
            calls[call]()
        print(json.dumps({"seconds": first, "calls": new}), flush=True)
    else:
        print(json.dumps({"seconds": spent(calls[what], int(argument))}), flush=True)
