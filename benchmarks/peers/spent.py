"""What the seconds of a first fit are spent on."""

import json
import time
from collections import Counter

import jax.monitoring


class Spent:
    """Begins when a library has been imported; `start` is when that began."""

    def __init__(self, start: float):
        self.start, self.imports, self.events = start, time.perf_counter() - start, Counter()
        jax.monitoring.register_event_duration_secs_listener(self.count)

    def count(self, event: str, seconds: float, **_) -> None:
        self.events[event.split("/")[-1]] += seconds

    def tell(self, nats: float) -> None:
        everything, compiling = time.perf_counter() - self.start, self.events["backend_compile_duration"]
        tracing = self.events["jaxpr_trace_duration"] + self.events["jaxpr_to_mlir_module_duration"]
        parts = {"imports": self.imports, "tracing": tracing, "compiling": compiling}
        parts["the rest"] = everything - sum(parts.values())
        print(json.dumps({"all": everything, **parts, "nats a row": nats}))
