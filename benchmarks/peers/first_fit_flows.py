"""The first fit of a process, imports included: the default spline flow, 2,000 rows of 5 columns, 20 epochs; in seconds."""

import time

start = time.perf_counter()

import json  # noqa: E402
from collections import Counter  # noqa: E402

import jax  # noqa: E402
import jax.monitoring  # noqa: E402
import numpy as np  # noqa: E402

import flows  # noqa: E402

imported, spent = time.perf_counter() - start, Counter()
jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: spent.update({event.split("/")[-1]: seconds}))
x = np.random.default_rng(0).normal(size=(2000, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
result = flows.fit(0, flows.Flow(flows.NSF()), x, max_epochs=20, verbose=0)
used = time.perf_counter() - start
compiling = spent["backend_compile_duration"]
tracing = spent["jaxpr_trace_duration"] + spent["jaxpr_to_mlir_module_duration"]
print(json.dumps({
    "all": used, "imports": imported, "tracing": tracing, "compiling": compiling,
    "the rest": used - imported - tracing - compiling,
    "nats a row": float(max(-np.asarray(result.history["validation"]))),
}))  # fmt: skip
