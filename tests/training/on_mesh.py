"""Fits on several devices, run in processes of their own as each has to know its devices before it starts:

python on_mesh.py OUT DEVICES [PROCESS PROCESSES PORT] CASE...

Each case is fitted, and its losses and params are saved in OUT with its name.
"""

import json
import os
import sys
from inspect import signature
from pathlib import Path

out, devices, process, processes, cases = "", 1, 0, 1, list[str]()
if __name__ == "__main__":
    out, devices, *cases = sys.argv[1:]
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"

import jax  # noqa: E402

if cases and cases[0].isdigit():
    process, processes, port, *cases = [int(text) if text.isdigit() else text for text in cases]
    soon = {"shutdown_timeout_seconds": 30}  # newer versions of jax know it
    known = signature(jax.distributed.initialize).parameters
    soon = {name: value for name, value in soon.items() if name in known}
    jax.distributed.initialize(f"localhost:{port}", num_processes=processes, process_id=process, **soon)

import numpy as np  # noqa: E402
import optax  # noqa: E402

import flows  # noqa: E402
from flows.conditioners import MLP  # noqa: E402

ROWS = np.random.default_rng(0).normal(size=(1_400, 3)).astype(np.float32)
ROWS[:, 1] += ROWS[:, 0] ** 2
GAPPY = flows.gaps(np.where(np.random.default_rng(1).uniform(size=ROWS.shape) < 0.2, np.nan, ROWS).astype(np.float32))
SMALL = flows.Flow(flows.RealNVP(2, hidden=(8,)))
ONE = {"folds": 1, "max_epochs": 10, "batch_size": 64, "verbose": 0}
mesh = "all" if processes > 1 or int(devices) > 1 else None


def loss_of(params, distribution, x, *, weights=None):
    return -distribution.log_pdf(params, x).mean()


def mapped():
    path = Path(out) / "rows.npy"
    if not path.exists():
        np.save(path, np.tile(ROWS, (4, 1)))
    return np.load(path, mmap_mode="r")


def fit(model=SMALL, data=ROWS, **settings):
    return flows.fit(0, model, data, **{**ONE, "mesh": mesh, **settings})


def target(x):
    return -0.5 * (x[:, 0] ** 2 + ((x[:, 1] - x[:, 0] ** 2) / 0.5) ** 2)


CASES = {
    "spline": lambda: fit(flows.Flow(flows.NSF(2, hidden=(8,), num_bins=4))),
    "small": lambda: fit(flows.Flow(flows.RealNVP(1, hidden=(8,))), learning_rate=1e-3),
    "maf": lambda: fit(flows.Flow(flows.MAF(2, hidden=(8,))), learning_rate=1e-3),
    "dropout": lambda: fit(flows.Flow(flows.AffineCoupling(MLP(8, dropout=0.2)))),
    "rounded": lambda: fit(data=ROWS.round(1), dequantize=0.1),
    "weights": lambda: fit(weights=np.arange(len(ROWS)) % 3 + 1.0),
    "average": lambda: fit(ema=0.9),
    "accumulate": lambda: fit(accumulate=2),
    "folds": lambda: fit(folds=3),
    "gaps": lambda: fit(flows.AnySubset(hidden=(8,), num_bins=4), GAPPY[0], context=GAPPY[1]),
    "members": lambda: fit(members=4, callbacks=[lambda epoch: epoch.best_params() is None]),
    "three": lambda: fit(members=3),
    "objective": lambda: fit(objective=loss_of),
    "mapped": lambda: fit(data=mapped(), batch_size=128, validation=ROWS[:200]),
    "split": lambda: fit(rows="split"),
    "density": lambda: flows.fit_to_density(
        0, SMALL, target, 2, max_epochs=2, steps_per_epoch=10, num_samples=64, num_held_out=200, num_weights=500, verbose=0,
        mesh=mesh,
    ),
    "frames": lambda: flows.tables.fit(
        0, framed(), flows.tables.infer_schema(frame(ROWS)), model=SMALL, steps_per_epoch=15, validation=frame(ROWS[:200]),
        **{**ONE, "mesh": mesh},
    ).result,
    "kept": lambda: fit(checkpoint=Path(out) / "kept", checkpoint_every=1e-9, max_epochs=300, patience=300, learning_rate=1e-3),
}  # fmt: skip


class Ending:
    """An iterable with fewer rows in process 1."""

    def __iter__(self):
        return iter([ROWS[i : i + 50] for i in range(0, 600 if process else 1_200, 50)])


def framed():
    """A table of Dask as frames."""
    import dask.dataframe

    return flows.large.frames(dask.dataframe.from_pandas(frame(ROWS), npartitions=4))


def parts_of_table():
    """The numbers of the parts that are read here, twice."""
    frames = framed()
    return [sorted(frames.part for _ in frames) for _ in range(2)]


def raising(error):
    def callback(epoch):
        raise error

    return callback


def odd(value):
    """The rows, of which process 1 has one that is another."""
    rows = ROWS.copy()
    rows[7, 1] = value if process else rows[7, 1]
    return rows


WRONG = {
    "two axes": lambda: fit(mesh=jax.make_mesh((2, 1), ("a", "b"))),
    "no devices": lambda: fit(mesh=jax.sharding.Mesh(np.array([]), ("a",))),
    "one process's devices and more": lambda: fit(batch_size=65),
    "data": lambda: fit(data=odd(9.0)),
    "NaN": lambda: fit(data=odd(np.nan)),
    "seed": lambda: flows.fit(process, SMALL, ROWS, **ONE, mesh=mesh),
    "settings": lambda: fit(learning_rate=1e-3 * (1 + process)),
    "refused": lambda: fit(learning_rate=-1.0 if process else 1e-3),
    "optimizer": lambda: fit(optimizer=optax.adam(1e-3 * (1 + process))),
    "few held out": lambda: fit(objective=loss_of, rows="split", validation=ROWS[:1]),
    "callback": lambda: fit(callbacks=[raising(OSError("no room"))]),
    "iterable": lambda: fit(data=iter(Ending()), validation=ROWS[:200], steps_per_epoch=5),
    "folder": lambda: fit(checkpoint=Path(out) / f"of process {process}"),
    "table": lambda: flows.tables.fit(0, frame(odd(np.nan)), model=SMALL, **ONE, mesh=mesh),
}


def frame(rows):
    import pandas

    return pandas.DataFrame(rows, columns=["a", "b", "c"])


def message_of(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def counted(**settings):
    """How many of each collective are in the text of a compiled epoch, how many arrays are added up, and the bytes of its
    arguments on a device."""
    from flows.training.devices import OnMesh

    found, call = [], OnMesh.__call__

    def noted(self, *arguments):
        compiled = self.function.lower(*arguments).compile()
        text = compiled.as_text()
        ops = {op: text.count(f" {op}(") for op in ("all-reduce", "all-gather", "all-to-all", "collective-permute")}
        arrays = sum([each.split(")")[0].count("%") for each in text.split(" all-reduce(")[1:]])
        found.append((len(text), {**ops, "arrays": arrays, "bytes": compiled.memory_analysis().argument_size_in_bytes}))
        return call(self, *arguments)

    OnMesh.__call__ = noted
    fit(max_epochs=1, **settings)
    OnMesh.__call__ = call
    return max(found, key=lambda pair: pair[0])[1]


def spread_rows():
    """Functions that are called on rows of a mesh: how far results are from those of one device, and where these lie."""
    rows = np.random.default_rng(1).normal(size=(9_000, 3)).astype(np.float32)  # more than a piece on each device
    params, log_pdf, sample = flows.Flow(flows.RealNVP(1, hidden=(8,)))(0, 3, context_dim=3)
    _, direct_fun, inverse_fun = bijection = flows.RealNVP(1, hidden=(8,))(0, 3)
    calls = {
        "log_pdf": lambda x: log_pdf(params, x, context=x),
        "sample": lambda x: sample(1, params, len(rows), context=x),
        "direct_fun": lambda x: direct_fun(bijection.params, x)[0],
        "inverse_fun": lambda x: inverse_fun(bijection.params, x)[0],
    }
    found, kinds = {}, (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit)
    for kind in kinds:
        over = jax.sharding.Mesh(np.array(jax.devices()), ("rows",), axis_types=(kind,))
        placed = jax.device_put(rows, jax.sharding.NamedSharding(over, jax.sharding.PartitionSpec("rows")))
        for name, call in calls.items():
            there, here = call(placed), call(rows)
            found[f"{name} {kind}"] = [
                float(abs(np.asarray(there) - np.asarray(here)).max()),
                str(there.sharding == placed.sharding),
            ]
    return found


def of_small_arrays():
    """What is made of eight rows and an order on two devices: of each array the part of each device."""
    from flows.core.meshes import joined_moments, mean_over_devices, rows_on
    from flows.training.data.table import Rows
    from flows.training.devices import Placement
    from flows.training.loop.losses import taken

    kinds = jax.sharding.AxisType.Explicit, jax.sharding.AxisType.Auto
    explicit, over = (jax.sharding.Mesh(np.array(jax.devices()), ("rows",), axis_types=(kind,)) for kind in kinds)
    by_row = jax.sharding.PartitionSpec("rows")
    rows, numbers, order = np.arange(16.0).reshape(8, 2) ** 2, np.array([3, 0, 1, 2]), np.arange(12).reshape(3, 1, 4)
    placed, numbers = jax.device_put((rows.astype(np.float32), numbers), jax.sharding.NamedSharding(over, by_row))

    def moments(x):
        with rows_on(over):
            return mean_over_devices(lambda _, part: joined_moments(part.mean(0), part.var(0)), (None, 0), None, x)

    def rows_of_numbers(x, numbers):
        with rows_on(over):
            return taken(Rows(x), numbers, True).x

    def swapped(x):
        return flows.Shuffle()(0, 2).direct_fun({"fixed": {"ranks": np.array([1, 0], np.float32)}}, x)[0]

    calls = {
        "mean and variance": lambda: jax.numpy.stack(jax.jit(moments)(placed)),
        "rows of numbers": lambda: jax.jit(rows_of_numbers)(placed, numbers),
        "order": lambda: jax.device_put(order, Placement(over).compiled(jax.numpy.copy, (None,), 0).shardings[0]),
        "swapped": lambda: swapped(jax.device_put(placed, jax.sharding.NamedSharding(explicit, by_row))),
    }
    return {name: [np.asarray(shard.data).tolist() for shard in call().addressable_shards] for name, call in calls.items()}


def told(case):
    """Of a case that is no fit, what there is to tell."""
    if case == "small arrays":
        return of_small_arrays()
    if case == "spread":
        return spread_rows()
    if case == "parts":
        return parts_of_table()
    if case == "wrong":
        return {name: message_of(call) for name, call in WRONG.items()}
    model = flows.NSF(2, hidden=(8,), num_bins=4) if case == "counted by row" else flows.RealNVP(1, hidden=(8,))
    rows = "copied" if case == "counted" else "split"
    return counted(data=np.tile(ROWS, (20, 1)), model=flows.Flow(model), rows=rows)


if __name__ == "__main__":
    for case in cases:
        if case not in CASES:
            (Path(out) / f"{case} {devices} {processes} {process}.json").write_text(json.dumps(told(case)))
            continue
        result = CASES[case]()
        found = {f"params {i}": leaf for i, leaf in enumerate(jax.tree.leaves(result.params))}
        found["losses"] = result.history["validation_loss"]
        np.savez(Path(out) / f"{case} {devices} {processes} {process}.npz", **found)
        print(case, flush=True)
