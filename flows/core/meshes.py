"""Rows spread over the devices of a mesh: results stay on the devices of their rows."""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from flows.core.caching import assigned
from flows.core.contract import Array
from flows.core.errors import FlowsError

# Environment variables for the number of processes that a launcher started: Slurm, Open MPI, MPICH and others.
STARTED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")

_mesh: ContextVar[Mesh | None] = ContextVar("mesh", default=None)
_divided: ContextVar[Mesh | None] = ContextVar("divided", default=None)  # set where a traced function sees a part of a batch


def rows_on(mesh: Mesh | None) -> AbstractContextManager[None]:
    """Spread the rows of functions traced inside a `with` over the one axis of a mesh; None for rows on one device."""
    return assigned(_mesh, mesh)


current_mesh = _mesh.get


def num_devices() -> int:
    """The number of devices over which the rows of a traced function are spread."""
    mesh = current_mesh()
    return 1 if mesh is None else mesh.size


def spread(x: Array, axis: int = 0) -> Array:
    """x with equal parts of an axis on the devices, where rows are spread."""
    mesh = current_mesh()
    if mesh is None or x.shape[axis] % mesh.size:
        return x
    return jax.lax.with_sharding_constraint(x, over(mesh, axis))


def by_device(fun: Callable, params: Any, rows: Any) -> Any:
    """fun(params, rows), a function of each row by itself, called on each device for its rows."""
    mesh = current_mesh()
    return fun(params, rows) if mesh is None else _on_each(mesh, fun, (None, 0), over(mesh, 0).spec)(params, rows)


def mean_over_devices(fun: Callable, axes: tuple[int | None, ...], *arguments: Any) -> Any:
    """The mean of fun(*arguments) over the devices, each with its part of the arguments that have an axis. All results are
    averaged as one vector: processes wait for each other once, not for each array."""
    mesh = cast(Mesh, current_mesh())

    def mean(*arguments: Any) -> Any:
        with assigned(_divided, mesh):
            results = fun(*arguments)
        with jax.numpy_dtype_promotion("standard"):
            vector, tree_of = ravel_pytree(results)
        return tree_of(jax.lax.pmean(vector, mesh.axis_names[0]))

    return _on_each(mesh, mean, axes, P())(*arguments)


def joined_moments(mean: Array, variance: Array) -> tuple[Array, Array]:
    """The mean and variance of a whole batch, from the moments of each device's part; parts are equally large."""
    mesh = _divided.get()
    if mesh is None:
        return mean, variance
    # Each device adds its moments to zeros, so that devices exchange nothing but sums.
    local = (jnp.arange(mesh.size) == jax.lax.axis_index(mesh.axis_names[0])).reshape(-1, *[1] * (mean.ndim + 1))
    moments = jax.lax.psum(jnp.where(local, jnp.stack([mean, variance])[None], 0), mesh.axis_names[0])
    means, variances = moments[:, 0], moments[:, 1]
    mean = means.mean(0)
    return mean, (variances + jnp.square(means - mean)).mean(0)


def _on_each(mesh: Mesh, fun: Callable, axes: tuple[int | None, ...], results: P) -> Callable:
    """fun, called on each device with its parts of the arguments that have an axis."""

    def here(*arguments: Any) -> Any:
        with rows_on(None):
            return fun(*arguments)

    specs = tuple(over(mesh, axis).spec for axis in axes)
    return jax.shard_map(here, mesh=mesh, in_specs=specs, out_specs=results, check_vma=False)


def over(mesh: Mesh, axis: int | None) -> NamedSharding:
    """The sharding of arrays that are spread over a mesh along one axis, or copied where it is None."""
    return NamedSharding(mesh, P() if axis is None else P(*[None] * axis, mesh.axis_names[0]))


def mesh_of(x: Any) -> Mesh | None:
    """The mesh over whose one axis the rows of x are spread; None for other arrays, and for tracers."""
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer) or not isinstance(x.sharding, NamedSharding):
        return None
    mesh, spec = x.sharding.mesh, (*x.sharding.spec, None)
    if not isinstance(mesh, Mesh) or mesh.size < 2 or any(axis is not None for axis in spec[1:]):
        return None
    names = spec[0] if isinstance(spec[0], tuple) else (spec[0],)
    return mesh if names == mesh.axis_names and len(names) == 1 else None


def mesh_of_rows(x: Any, name: str) -> Mesh:
    """The mesh that an argument names: every device, or one of a single axis, which is made automatic."""
    if isinstance(x, str) and x == "all":
        _check_joined(name)
        return Mesh(np.array(jax.devices()), ("rows",), axis_types=(AxisType.Auto,))
    expected = 'expected None, "all" for every device, or a Mesh of one axis, such as jax.make_mesh((2,), ("rows",))'
    if not isinstance(x, Mesh):
        raise TypeError(f"{name} is {x!r:.80}; {expected}")
    if len(x.axis_names) != 1:
        shape = ", ".join(f"{axis}={size}" for axis, size in x.shape.items())
        raise FlowsError(f"{name} has {len(x.axis_names)} axes, {shape}; expected one, over which rows are spread")
    if not x.size or not all(isinstance(device, jax.Device) for device in x.devices.flat):
        raise FlowsError(f"{name} has no devices; {expected}")
    devices = by_process(x.devices.flat)
    if len(set(devices)) < len(devices):
        raise FlowsError(f"{name} has a device more than once; {expected}")
    return Mesh(np.array(devices), x.axis_names, axis_types=(AxisType.Auto,))


def by_process(devices: Iterable[Any]) -> list[Any]:
    """Devices sorted by their processes, as each process holds consecutive rows."""
    return sorted(devices, key=lambda device: device.process_index)


def _check_joined(name: str) -> None:
    """Refuse the devices of this process alone, where a launcher started several processes that were not joined."""
    if jax.distributed.is_initialized():
        return
    for variable in STARTED:
        if os.environ.get(variable, "1") not in ("", "0", "1"):
            raise FlowsError(
                f'{name} is "all", and {variable}={os.environ[variable]} says that several processes were started, which are '
                "not joined; call jax.distributed.initialize() first, before any other call of JAX"
            )


def automatic(mesh: Mesh) -> Mesh:
    """Devices along an automatic axis; an explicit axis, as `jax.make_mesh` makes it, refuses gathers."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,))
