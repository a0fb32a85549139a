"""The first fit, scores and draws of a process on one core: python kept.py LIBRARY [FOLDER where programs are kept].

Rows, models and epochs are those of first_fit_flows.py and first_fit_flowjax.py.
"""

import json
import os
import sys
import time

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
library, folders = sys.argv[1], sys.argv[2:]
found, before, compiled = {}, {"clock": time.perf_counter(), "cpu": 0.0}, []


def tell(what: str) -> None:
    """What went by since the last call, or since the process began."""
    now = {"clock": time.perf_counter(), "cpu": time.process_time()}
    found[what] = {unit: now[unit] - before[unit] for unit in now}
    before.update(now)


import jax  # noqa: E402
import numpy as np  # noqa: E402

jax.monitoring.register_event_listener(lambda event, **_: compiled.append(event))
x = np.random.default_rng(0).normal(size=(2000, 5)) @ np.random.default_rng(1).normal(size=(5, 5))

if library == "flows":
    import flows

    tell("imports")
    for folder in folders:
        flows.keep_programs(folder)
    result = flows.fit(0, flows.Flow(flows.NSF()), x, max_epochs=20, verbose=0)
    tell("fit")
    np.asarray(result.log_pdf(result.params, x[:1000]))
    tell("scores")
    np.asarray(result.sample(1, result.params, 1000))
    tell("draws")
else:
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import StandardNormal
    from flowjax.flows import coupling_flow
    from flowjax.train import fit_to_data

    tell("imports")
    for folder in folders:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    spline = RationalQuadraticSpline(knots=7, interval=3)
    flow = coupling_flow(
        jax.random.key(0), base_dist=StandardNormal((5,)), transformer=spline, flow_layers=5, nn_width=128, nn_depth=2
    )
    rows = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    flow, _ = fit_to_data(jax.random.key(1), flow, rows, max_epochs=20, max_patience=20, batch_size=256, show_progress=False)
    tell("fit")
    np.asarray(flow.log_prob(rows[:1000]))
    tell("scores")
    np.asarray(flow.sample(jax.random.key(2), (1000,)))
    tell("draws")

asked, read = (sum(event.endswith(name) for event in compiled) for name in ("compile_requests_use_cache", "cache_hits"))
print(json.dumps(found | {"programs": asked, "read": read}))
