"""What processes that share a mesh agree on: that they fit the same model to the same data, when to stop, and that one of them
failed. Whatever is known to one alone, or read from a clock, is gathered before anyone acts on it.
"""

import hashlib
import itertools
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from flows.core import FitError, FlowsError

MOST = 1_000  # letters of an error
DAY = 24 * 3600 * 1000  # milliseconds for which one waits for another: it may be compiling, or in a callback
_meetings = itertools.count()  # which are numbered alike in all processes
_current: ContextVar["Agreement | None"] = ContextVar("agreement", default=None)


class Agreement:
    """Of several processes. All call `meet` as often, whatever happens in one of them."""

    def __init__(self, caller: str, processes: int, within: "Agreement | None" = None):
        self.caller, self.processes, self.over, self.within = caller, processes, False, within
        self.depth: int = 0 if within is None else within.depth + 1
        self.here = jax.process_index() if processes > 1 else 0

    @property
    def first(self) -> bool:
        """Whether this process has the bar, the callbacks, the warnings and the files."""
        return self.here == 0

    def meet(self, error: BaseException | None = None, **told: Any) -> list[dict[str, Any]]:
        """What each process tells; where one tells of an error, the others raise it."""
        if self.processes == 1:
            return [told]
        text = None if error is None else f"{type(error).__name__}: {str(error) or 'it was ended'}"[:MOST]
        answers = [json.loads(each) for each in _gathered(json.dumps({"error": text, "depth": self.depth, **told}))]
        failed = [number for number, answer in enumerate(answers) if answer["error"] is not None]
        if failed:
            self._end(min(answer["depth"] for answer in answers))
            if error is None:
                raise FitError(f"{self.caller}: process {failed[0]} failed, and all end. {answers[failed[0]]['error']}")
        return answers

    def _end(self, depth: int) -> None:
        """No more is met for in what runs at this depth or deeper: some process has left it."""
        inner: Agreement | None = self
        while inner is not None and inner.depth >= depth:
            inner.over, inner = True, inner.within

    def joined(self, rows: Any) -> Any:
        """The rows of all processes, one after the other; each has as many."""
        if self.processes == 1:
            return rows
        self.meet()
        return jax.tree.map(_joined, rows)

    def any(self, stops: bool) -> bool:
        """Whether one of them stops."""
        return any(answer["stops"] for answer in self.meet(stops=bool(stops)))

    def same(self, what: dict[str, str], remedy: str) -> None:
        """Refuse what is not as in process 0: short texts by their names."""
        if self.processes == 1:
            return
        first, *others = [answer["same"] for answer in self.meet(same=what)]
        wrong = {number: [name for name in first if each.get(name) != first[name]] for number, each in enumerate(others, 1)}
        told = "; ".join(f"process {number} has another {', '.join(names)}" for number, names in wrong.items() if names)
        if told:
            self.over = True  # all know
            raise FlowsError(f"{self.caller}: {told} than process 0; {remedy}")


EVERY_PROCESS = "every process makes the same call, with the same data and settings"


def digests_of(settings: dict[str, Any]) -> dict[str, str]:
    """What has to be the same in all processes, and the versions, as short texts."""
    versions = {"version of jax": jax.__version__, "version of flows": sys.modules["flows"].__version__}
    told = {**settings, **versions}
    return {name: hashlib.sha256(repr(value).encode()).hexdigest()[:8] for name, value in told.items()}


ALONE = Agreement("fit", 1)


def agreed() -> Agreement:
    """That of the fit that runs."""
    return _current.get() or ALONE


@contextmanager
def agreement(mesh: Mesh | None, caller: str) -> Iterator[Agreement]:
    """Of the processes of a mesh, as long as a fit runs. An error in one ends all."""
    processes = processes_of(mesh, caller)
    if processes == 1:
        yield ALONE
        return
    together = Agreement(caller, processes, _current.get())
    token = _current.set(together)
    try:
        with nullcontext() if together.first else _quiet():
            try:
                yield together
            except BaseException as error:
                if not together.over:
                    together.meet(error)
                raise
            if not together.over:
                together.meet()
    finally:
        _current.reset(token)


def processes_of(mesh: Mesh | None, caller: str) -> int:
    """How many share the mesh."""
    if mesh is None:
        return 1
    of_mesh = Counter(device.process_index for device in mesh.devices.flat)
    if set(of_mesh) == {jax.process_index()}:
        return 1
    if len(of_mesh) < jax.process_count():
        raise FlowsError(
            f"{caller}: mesh has devices of {len(of_mesh)} of {jax.process_count()} processes; expected those of all, "
            "or of this one alone"
        )
    if len(set(of_mesh.values())) > 1:
        counts = ", ".join(str(of_mesh[process]) for process in sorted(of_mesh))
        raise FlowsError(f"{caller}: mesh has {counts} devices of the processes; expected as many of each")
    return len(of_mesh)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _joined(array: np.ndarray) -> np.ndarray:
    """As bytes, as JAX would round float64 to float32."""
    array = np.ascontiguousarray(array)
    joined = np.asarray(multihost_utils.process_allgather(array.reshape(len(array), -1).view(np.uint8), tiled=True))
    return joined.view(array.dtype).reshape(-1, *array.shape[1:])


def _gathered(text: str) -> list[str]:
    """The text of each process. They wait for each other before, as collectives on CPUs give up after half a minute."""
    client = getattr(getattr(multihost_utils, "distributed", None), "global_state", None)
    client = getattr(client, "client", None)
    if client is not None:
        client.wait_at_barrier(f"flows {next(_meetings)}", DAY)
    encoded = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(encoded.size)))
    padded = np.resize(encoded, sizes.max())
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]
