"""The devices of a fit: where a training lies on a mesh, and how processes that share the mesh agree. No other file asks for
the number of processes; with one process, all methods here return at once.
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

MOST = 1_000  # characters of an error
DAY = 24 * 3600 * 1000  # milliseconds to wait for another, which may be compiling, or in a callback
MARK = "fit.flows.shared"
SOON = 6  # attempts to see a file, half a second apart
EVERY_PROCESS = "every process makes the same call, with the same data and settings"
ONE_FOLDER = "give {} as a folder that all processes share, or none"
_meetings = itertools.count()  # the numbers of meetings, equal in all processes


class Devices:
    """The processes of a fit. They agree on the model and the data, on when to stop, and on the failure of one of them. A fact
    that only one of them knows, or that comes from a clock, is gathered before any of them acts on it. So all of them call
    `meet` equally often, whatever happens in one of them."""

    def __init__(self, caller: str, processes: int = 1, size: int = 1, within: "Devices | None" = None):
        self.caller, self.processes, self.size, self.over, self.within = caller, processes, size, False, within
        self.depth: int = 0 if within is None else within.depth + 1
        self.here = jax.process_index() if processes > 1 else 0
        self.alone, self.first = processes == 1, self.here == 0  # the first has the bar, the callbacks, the warnings, the files

    def meet(self, error: BaseException | None = None, **message: Any) -> list[dict[str, Any]]:
        """Exchange messages; if one of them has an error, the others raise it."""
        if self.alone:
            return [message]
        text = None if error is None else f"{type(error).__name__}: {str(error) or 'it was ended'}"[:MOST]
        answers = [json.loads(answer) for answer in _gathered(json.dumps({"error": text, "depth": self.depth, **message}))]
        failed = [number for number, answer in enumerate(answers) if answer["error"] is not None]
        if failed:  # nobody meets again at this depth or deeper, as one has left it
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
        """Return the rows of all processes, one after the other; each process has the same number."""
        self.meet()
        return rows if self.alone else jax.tree.map(_joined, rows)

    def part_of(self, rows: int) -> int:
        """Return how many rows of a batch, or of an epoch, each process reads of its iterable."""
        return rows // self.processes

    def state_of(self, states: list[Any]) -> Any:
        """Return the state of this process among the states of iterables in a checkpoint."""
        if len(states) != self.processes:
            raise FlowsError(
                f"fit: the checkpoint is of iterables in {len(states)} processes, and this fit has {self.processes}, which "
                f"would divide rows differently. Start {len(states)} processes, or give another folder"
            )
        return states[self.here]

    def same(self, settings: Callable[[], dict[str, Any]], remedy: str = EVERY_PROCESS) -> None:
        """Refuse settings and versions that differ from process 0."""
        if self.alone:
            return
        versions = {"version of jax": jax.__version__, "version of flows": sys.modules["flows"].__version__}
        known = {**settings(), "mesh": self.size, **versions}
        digests = {name: hashlib.sha256(repr(value).encode()).hexdigest()[:8] for name, value in known.items()}
        first, *others = [answer["same"] for answer in self.meet(same=digests)]
        wrong = {number: [name for name in first if other.get(name) != first[name]] for number, other in enumerate(others, 1)}
        differences = "; ".join(f"process {number} has another {', '.join(names)}" for number, names in wrong.items() if names)
        if differences:
            self.over = True  # all know
            raise FlowsError(f"{self.caller}: {differences} than process 0; {remedy}")

    def see(self, folder: str) -> None:
        """Refuse a folder that some process does not see: process 0 writes a mark there, and the others look for it."""
        if self.alone:
            return
        mark, text = os.path.join(folder, MARK), secrets.token_hex(8)
        if self.first:
            with open(mark, "w") as file:
                file.write(text)
        text = self.meet(mark=text)[0]["mark"]

        def sees() -> bool:
            for _ in range(SOON):  # on a shared disk it may come a little later
                with suppress(OSError), open(mark) as file:
                    if file.read() == text:
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
devices = _current.get  # of the fit that runs


def share_of_parts() -> tuple[int, int]:
    """Return which share of the parts of a table is read here under `jax.distributed`, from 0, and how many there are."""
    return jax.process_index(), jax.process_count()


@contextmanager
def devices_of(mesh: Any, caller: str) -> Iterator[None]:
    """Set the devices of a mesh while a fit runs. An error in one process ends all processes."""
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
    """Return how many processes share the mesh."""
    devices_of_process = Counter(device.process_index for device in mesh.devices.flat)
    if set(devices_of_process) == {jax.process_index()}:
        return 1
    if len(devices_of_process) < jax.process_count():
        raise FlowsError(
            f"{caller}: mesh has devices of {len(devices_of_process)} of {jax.process_count()} processes; expected "
            "devices of all processes, or of this one alone"
        )
    if len(set(devices_of_process.values())) > 1:
        counts = ", ".join(str(devices_of_process[process]) for process in sorted(devices_of_process))
        raise FlowsError(f"{caller}: mesh has {counts} devices of the processes; expected the same number of each")
    return len(devices_of_process)


def _joined(array: np.ndarray) -> np.ndarray:
    """Gather an array as bytes, as JAX would round float64 to float32."""
    array = np.ascontiguousarray(array)
    joined = np.asarray(multihost_utils.process_allgather(array.reshape(len(array), -1).view(np.uint8), tiled=True))
    return joined.view(array.dtype).reshape(-1, *array.shape[1:])


def _gathered(text: str) -> list[str]:
    """Return the text of each process. All wait at a barrier first, as collectives on CPUs give up after half a minute."""
    client = getattr(getattr(multihost_utils, "distributed", None), "global_state", None)
    client = getattr(client, "client", None)
    if client is not None:
        client.wait_at_barrier(f"flows {next(_meetings)}", DAY)
    encoded = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(encoded.size)))
    rows = np.asarray(multihost_utils.process_allgather(np.resize(encoded, sizes.max())))
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


class Placement(NamedTuple):
    """The placement of a training: its mesh, None for one device, and whether the mesh divides members instead of batches.
    Each device has a copy of the state, its part of each batch, and all rows or only the rows that it needs."""

    mesh: Mesh | None = None
    members: bool = False

    @property
    def shares(self) -> int:
        """The number of parts into which a batch is divided, one for each device; 1 where members are divided instead."""
        return 1 if self.mesh is None or self.members else self.mesh.size

    def members_here(self, members: int) -> int:
        """Return how many of the members are on one device."""
        return members // self.mesh.size if self.mesh is not None and self.members else members

    @property
    def here(self) -> slice:
        """The parts of a batch that belong to this process."""
        if self.mesh is None:
            return slice(0, 1)
        local = [i for i, device in enumerate(self.mesh.devices.flat) if device.process_index == jax.process_index()]
        return slice(local[0], local[-1] + 1)

    @property
    def whole(self) -> bool:
        """Tell whether all devices belong to this process."""
        return self.mesh is None or over(self.mesh, None).is_fully_addressable

    def compiled(
        self, function: Callable, axes: tuple[int | None, ...], order: int | None, rows: tuple[int, ...] = (), **keywords: Any
    ) -> Callable:
        """Compile `function`. Arguments with an axis 0 have an axis of members. `order` is the number of the
        argument with the order of rows; `rows` are the numbers of arguments that differ between devices."""
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
                whole[order] = over(self.mesh, 2 if axes[order] is None else 3)  # ([members,] steps, parts, rows)

        def placed(*arguments: Any) -> Any:
            with rows_on(traced_on):
                return function(*arguments)

        results = by_member if self.members else copies
        return OnMesh(jax.jit(placed, in_shardings=tuple(whole), out_shardings=results, **keywords), whole)

    def spread(self, rows: Any) -> Any:
        """Return rows of this process, equally many on each of its devices, as a part of the rows of all processes."""
        sharding, times = over(cast(Mesh, self.mesh), 0), self.shares // (self.here.stop - self.here.start)

        def placed(array: Any) -> Any:
            shape = (len(array) * times, *array.shape[1:])
            return jax.make_array_from_process_local_data(sharding, np.asarray(array), shape)

        return jax.tree.map(placed, rows)

    def copied(self, tree: Any, by_member: bool = False) -> Any:
        """Copy arrays to every device; arrays of members, or of the rows of folds, to the devices of the members."""
        if self.mesh is None:
            return tree
        sharding = over(self.mesh, 0 if by_member and self.members else None)
        return jax.tree.map(lambda array: _placed(array, sharding), tree)

    def fetched(self, tree: Any) -> Any:
        """Return the arrays in the memory of each process."""
        return jax.tree.map(_fetched, tree)


class OnMesh:
    """A function that is compiled for a mesh. Several processes compile it before they meet and run it together, as within a
    call they wait for each other only for a short time."""

    def __init__(self, function: Any, shardings: list[NamedSharding]):
        self.function, self.shardings, self.compiled = function, shardings, dict[str, Callable]()

    def __call__(self, *arguments: Any) -> Any:
        pairs = zip(arguments, self.shardings, strict=True)
        arguments = tuple(jax.tree.map(partial(_placed, sharding=sharding), argument) for argument, sharding in pairs)
        with self._mesh_set():
            if devices().alone:
                return self.function(*arguments)
            shapes = str(jax.tree.map(lambda leaf: (np.shape(leaf), getattr(leaf, "dtype", type(leaf))), arguments))
            if shapes not in self.compiled:
                self.compiled[shapes] = self.function.lower(*arguments).compile()
            devices().meet()
            return self.compiled[shapes](*arguments)

    def _mesh_set(self) -> AbstractContextManager:
        """Replace a `jax.set_mesh` around the fit, whose axis may be explicit."""
        return nullcontext() if jax.sharding.get_abstract_mesh().empty else jax.set_mesh(cast(Mesh, self.shardings[0].mesh))


def _placed(array: Any, sharding: NamedSharding) -> Any:
    """Put an array that each process has on the devices of all processes."""
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
