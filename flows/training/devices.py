"""The devices of a fit: where a training lies on a mesh, and what processes that share one agree on. Nobody else asks how many
processes there are; of one alone all this answers at once.
"""

import hashlib
import itertools
import json
import os
import secrets
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from flows.core import FitError, FlowsError, mesh_of_rows, over, rows_on

MOST = 1_000  # letters of an error
DAY = 24 * 3600 * 1000  # milliseconds for which one waits for another: it may be compiling, or in a callback
MARK = "fit.flows.shared"
SOON = 6  # times that a file is looked for, half a second apart
EVERY_PROCESS = "every process makes the same call, with the same data and settings"
_meetings = itertools.count()  # which are numbered alike in all processes


class Devices:
    """The processes of a fit, which agree that they fit the same model to the same data, when to stop, and that one of them
    failed. Whatever is known to one alone, or read from a clock, is gathered before anyone acts on it: all call `meet` as
    often, whatever happens in one of them."""

    def __init__(self, caller: str, processes: int = 1, size: int = 1, within: "Devices | None" = None):
        self.caller, self.processes, self.size, self.over, self.within = caller, processes, size, False, within
        self.depth: int = 0 if within is None else within.depth + 1
        self.here = jax.process_index() if processes > 1 else 0

    @property
    def first(self) -> bool:
        """Tells whether this process has the bar, the callbacks, the warnings and the files."""
        return self.here == 0

    @property
    def alone(self) -> bool:
        return self.processes == 1

    def meet(self, error: BaseException | None = None, **told: Any) -> list[dict[str, Any]]:
        """Exchange what each process tells; where one tells of an error, the others raise it."""
        if self.alone:
            return [told]
        text = None if error is None else f"{type(error).__name__}: {str(error) or 'it was ended'}"[:MOST]
        answers = [json.loads(answer) for answer in _gathered(json.dumps({"error": text, "depth": self.depth, **told}))]
        failed = [number for number, answer in enumerate(answers) if answer["error"] is not None]
        if failed:  # nobody meets again in what runs at this depth or deeper: some process has left it
            inner: Devices | None = self
            depth = min(answer["depth"] for answer in answers)
            while inner is not None and inner.depth >= depth:
                inner.over, inner = True, inner.within
            if error is None:
                raise FitError(f"{self.caller}: process {failed[0]} failed, and all end. {answers[failed[0]]['error']}")
        return answers

    def any(self, stops: bool) -> bool:
        """Tell whether one of them stops."""
        return any(answer["stops"] for answer in self.meet(stops=bool(stops)))

    def joined(self, rows: Any) -> Any:
        """The rows of all processes, one after the other; each has as many."""
        self.meet()
        return rows if self.alone else jax.tree.map(_joined, rows)

    def part_of(self, rows: int) -> int:
        """The rows of a batch, or of an epoch, that each process reads of an iterable of its own."""
        return rows // self.processes

    def own_of(self, states: list[Any]) -> Any:
        """The state of this process among the states of iterables that a checkpoint has."""
        if len(states) != self.processes:
            raise FlowsError(
                f"fit: the checkpoint is of iterables in {len(states)} processes, and this fit has {self.processes}; their "
                "rows are dealt otherwise. Start as many processes, or give another folder"
            )
        return states[self.here]

    def ready(self, function: Any, *arguments: Any) -> None:
        """Compile before processes meet within a call, where they wait for each other but a short time."""
        if not self.alone:
            function.ready(*arguments)

    def same(self, settings: Callable[[], dict[str, Any]], remedy: str = EVERY_PROCESS) -> None:
        """Refuse settings, and versions, that are not as in process 0."""
        if self.alone:
            return
        versions = {"version of jax": jax.__version__, "version of flows": sys.modules["flows"].__version__}
        known = {**settings(), "mesh": self.size, **versions}
        digests = {name: hashlib.sha256(repr(value).encode()).hexdigest()[:8] for name, value in known.items()}
        first, *others = [answer["same"] for answer in self.meet(same=digests)]
        wrong = {number: [name for name in first if other.get(name) != first[name]] for number, other in enumerate(others, 1)}
        told = "; ".join(f"process {number} has another {', '.join(names)}" for number, names in wrong.items() if names)
        if told:
            self.over = True  # all know
            raise FlowsError(f"{self.caller}: {told} than process 0; {remedy}")

    def see(self, folder: str) -> None:
        """Refuse a folder that some process does not see: process 0 leaves a mark there, which the others look for."""
        if self.alone:
            return
        mark, told = os.path.join(folder, MARK), secrets.token_hex(8)
        if self.first:
            with open(mark, "w") as file:
                file.write(told)
        told = self.meet(mark=told)[0]["mark"]

        def sees() -> bool:
            for _ in range(SOON):  # it may come a little later on a shared disk
                with suppress(OSError), open(mark) as file:
                    if file.read() == told:
                        return True
                time.sleep(0.5)
            return False

        answers = self.meet(sees=sees())
        if self.first:
            os.remove(mark)
        blind = [number for number, answer in enumerate(answers) if not answer["sees"]]
        if blind:
            self.over = True  # all know
            raise FlowsError(
                f"fit: checkpoint={folder!r} is not the same folder in process {blind[0]} as in process 0; give one that all "
                "processes share"
            )


ALONE = Devices("fit")
_current: ContextVar[Devices] = ContextVar("devices", default=ALONE)
devices = _current.get  # those of the fit that runs


@contextmanager
def devices_of(mesh: Any, caller: str) -> Iterator[None]:
    """The devices of a mesh that a caller was given, as long as a fit runs. An error in one process ends all."""
    mesh = None if mesh is None else mesh_of_rows(mesh, f"{caller}: mesh")
    processes, outer = 1 if mesh is None else _processes_of(mesh, caller), devices()
    if processes == 1:
        yield
        return
    together = Devices(caller, processes, mesh.size, None if outer.alone else outer)
    token = _current.set(together)
    try:
        with nullcontext() if together.first else warnings.catch_warnings(action="ignore", category=UserWarning):
            yield
    except BaseException as error:
        if not together.over:
            together.meet(error)
        raise
    else:
        if not together.over:
            together.meet()
    finally:
        _current.reset(token)


def _processes_of(mesh: Mesh, caller: str) -> int:
    """How many share the mesh."""
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
    rows = np.asarray(multihost_utils.process_allgather(np.resize(encoded, sizes.max())))
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


class Placement(NamedTuple):
    """Where a training lies: on which mesh, None for one device, and whether members are spread over it, some on each device,
    instead of batches. Each device has a copy of the state, its part of each batch, and all rows or those that it needs."""

    mesh: Mesh | None = None
    members: bool = False

    @property
    def of_batches(self) -> bool:
        """Tells whether batches are spread."""
        return self.mesh is not None and not self.members

    @property
    def shares(self) -> int:
        """Into how many parts a batch is divided."""
        return self.mesh.size if self.mesh is not None and self.of_batches else 1

    def members_here(self, members: int) -> int:
        """How many of the members are on one device."""
        return members // self.mesh.size if self.mesh is not None and self.members else members

    @property
    def here(self) -> slice:
        """Tells which of the parts of a batch are those of this process."""
        if self.mesh is None:
            return slice(0, 1)
        own = [i for i, device in enumerate(self.mesh.devices.flat) if device.process_index == jax.process_index()]
        return slice(own[0], own[-1] + 1)

    @property
    def whole(self) -> bool:
        """Tells whether all its devices are those of this process."""
        return self.mesh is None or over(self.mesh, None).is_fully_addressable

    def compiled(
        self, function: Callable, axes: tuple[int | None, ...], order: int | None, rows: tuple[int, ...] = (), **keywords: Any
    ) -> Callable:
        """`function`, of whose arguments those with an axis 0 have one of members; by their numbers, one is an order, and some
        are rows of which each device has its own."""
        if self.mesh is None:
            return jax.jit(function, **keywords)
        copies, by_member = over(self.mesh, None), over(self.mesh, 0)
        if self.members:
            whole, traced_on = [copies if axis is None else by_member for axis in axes], None
            specs = tuple(sharding.spec for sharding in whole)
            function = jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=by_member.spec, check_vma=False)
        else:
            whole, traced_on = [by_member if i in rows else copies for i in range(len(axes))], self.mesh
            if order is not None:
                whole[order] = self.of_order(axes[order])

        def placed(*arguments: Any) -> Any:
            with rows_on(traced_on):
                return function(*arguments)

        results = by_member if self.members else copies
        return OnMesh(jax.jit(placed, in_shardings=tuple(whole), out_shardings=results, **keywords), whole)

    def of_order(self, axis: int | None) -> NamedSharding:
        """Return the placement of the rows of each step, ([members,] steps, parts, rows)."""
        return over(cast(Mesh, self.mesh), 0 if self.members else 2 if axis is None else 3)

    def own(self, rows: Any) -> Any:
        """Rows of this process alone, as many on each of its devices, as a part of those of all."""
        sharding, times = over(cast(Mesh, self.mesh), 0), self.shares // (self.here.stop - self.here.start)

        def placed(array: Any) -> Any:
            shape = (len(array) * times, *array.shape[1:])
            return jax.make_array_from_process_local_data(sharding, np.asarray(array), shape)

        return jax.tree.map(placed, rows)

    def copied(self, tree: Any, by_member: bool = False) -> Any:
        """Arrays on every device; those of members, or of the rows of folds, where the members are."""
        if self.mesh is None:
            return tree
        sharding = over(self.mesh, 0 if by_member and self.members else None)
        return jax.tree.map(lambda array: _placed(array, sharding), tree)

    def order(self, order: np.ndarray) -> Any:
        return order if self.mesh is None else _placed(order, self.of_order(0 if order.ndim == 4 else None))

    def fetched(self, tree: Any) -> Any:
        """The arrays in the memory of each process."""
        return jax.tree.map(_fetched, tree)


class OnMesh:
    """A function that is compiled for a mesh. `ready(*arguments)` compiles it and runs nothing: processes that meet within a
    call wait for each other but a short time."""

    def __init__(self, function: Any, shardings: list[NamedSharding]):
        self.function, self.shardings, self.compiled = function, shardings, dict[str, Callable]()

    def __call__(self, *arguments: Any) -> Any:
        arguments = self._placed(arguments)
        compiled = self.compiled.get(_shapes(arguments), self.function) if self.compiled else self.function
        with self._own_mesh():
            return compiled(*arguments)

    def ready(self, *arguments: Any) -> None:
        arguments = self._placed(arguments)
        with self._own_mesh():
            self.compiled[_shapes(arguments)] = self.function.lower(*arguments).compile()

    def _own_mesh(self) -> AbstractContextManager:
        """In place of that of a `jax.set_mesh` around the fit, whose axis may be explicit."""
        return nullcontext() if jax.sharding.get_abstract_mesh().empty else jax.set_mesh(cast(Mesh, self.shardings[0].mesh))

    def _placed(self, arguments: tuple) -> tuple:
        pairs = zip(arguments, self.shardings, strict=True)
        return tuple(jax.tree.map(partial(_placed, sharding=sharding), argument) for argument, sharding in pairs)


def _shapes(tree: Any) -> str:
    return str(jax.tree.map(lambda leaf: (np.shape(leaf), getattr(leaf, "dtype", type(leaf))), tree))


def _placed(array: Any, sharding: NamedSharding) -> Any:
    """An array that each process has, on the devices of all."""
    if isinstance(array, jax.Array) and array.sharding == sharding:
        return array
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    if isinstance(array, jax.Array) and jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = _placed(jax.random.key_data(array), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    host = np.asarray(array)
    host = host.astype(jax.dtypes.canonicalize_dtype(host.dtype), copy=False)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _fetched(array: Any) -> np.ndarray:
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
