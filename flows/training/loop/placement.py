"""Where a training lies on a mesh: a copy of the state on each device, and a part of each batch; of the rows a copy, or those
that the device needs. Or members, some on each device.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from flows.core import over, rows_on
from flows.training.options import Options


class Placement(NamedTuple):
    """On which mesh, None for one device, and whether members are spread over it instead of batches."""

    mesh: Mesh | None = None
    members: bool = False

    @classmethod
    def of(cls, options: Options) -> "Placement":
        return cls(options.mesh, options.members is not None and options.spreads_members)

    @property
    def of_batches(self) -> bool:
        """Whether batches are spread."""
        return self.mesh is not None and not self.members

    @property
    def shares(self) -> int:
        """Into how many parts a batch is divided."""
        return self.mesh.size if self.mesh is not None and self.of_batches else 1

    @property
    def here(self) -> slice:
        """Which of these are those of this process."""
        if self.mesh is None:
            return slice(0, 1)
        own = [i for i, device in enumerate(self.mesh.devices.flat) if device.process_index == jax.process_index()]
        return slice(own[0], own[-1] + 1)

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
            whole, traced_on = [copies] * len(axes), self.mesh
            for i in rows:
                whole[i] = by_member
            if order is not None:
                whole[order] = self.of_order(axes[order])

        def placed(*arguments: Any) -> Any:
            with rows_on(traced_on):
                return function(*arguments)

        results = by_member if self.members else copies
        return OnMesh(jax.jit(placed, in_shardings=tuple(whole), out_shardings=results, **keywords), whole)

    def of_order(self, axis: int | None) -> NamedSharding:
        """Of the rows of each step, ([members,] steps, parts, rows)."""
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
        return self._put(tree, 0 if by_member and self.members else None)

    def order(self, order: np.ndarray) -> Any:
        return order if self.mesh is None else _placed(order, self.of_order(0 if order.ndim == 4 else None))

    def _put(self, tree: Any, axis: int | None) -> Any:
        if self.mesh is None:
            return tree
        sharding = over(self.mesh, axis)
        return jax.tree.map(lambda array: _placed(array, sharding), tree)

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
