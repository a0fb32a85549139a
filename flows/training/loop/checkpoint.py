"""The file that a fit leaves on disk while it runs, from which it can go on; and fingerprints that distinguish functions, in
this run and in the next, by their code and all objects that they refer to."""

import hashlib
import os
import re
import sys
import time
import types
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, FlowsError, Value, file_name, warn_user
from flows.persistence.container import DTYPES, INTEGERS, MAX_RECORD, blamed_on, read, sweep, write
from flows.training.devices import devices
from flows.training.options import Options

FORMAT = 2
NAME = "fit.flows"
ENTRIES = {"kind", "flows", "format", "settings", "record"}  # and perhaps "stream": the states of iterables
PLAIN = bool | int | float | complex | str | bytes | type(None) | type(...)
MOST_INSIDE = 10_000  # objects that a function may refer to


class Checkpoint:
    """One file in a folder: all arrays of the training at the end of an epoch, the losses, and the settings of the fit."""

    def __init__(self, options: Options, settings: dict[str, Any]):
        self.folder, self.settings, self.every = os.fsdecode(options.checkpoint), settings, options.checkpoint_every
        self.path, self.last, self.saved = os.path.join(self.folder, NAME), time.monotonic(), False
        if devices().first:
            try:
                os.makedirs(self.folder, exist_ok=True)
                sweep(self.folder)
            except OSError as error:
                why = f"fit: checkpoint={self.folder!r} is not a folder that can be written: {error.strerror}"
                raise FlowsError(why) from error
        devices().see(self.folder)

    def load(self, like: Any) -> tuple[Any, list[dict[str, Any]], list[Any] | None] | None:
        """The last saved state, record and states of iterables, or None without a file. `like` is a state with the expected
        leaves."""
        if not os.path.exists(self.path):
            return None
        header, tensors = read(self.path, MAX_RECORD)
        with blamed_on(f"fit: {self.path!r} is not a checkpoint that this version of flows can go on from"):
            if set(header) - {"stream"} != ENTRIES or header["kind"] != "fit" or header["format"] != FORMAT:
                raise FlowsError(f"its header has {sorted(header)}")
            both = [(name, header["settings"].get(name), now) for name, now in self.settings.items()]
            changes = [(name, f"{name} was {was!r:.100}, now {now!r:.100}") for name, was, now in both if was != now]
            if changes:
                said = "; ".join("it has other rows of data" if name == "data" else text for name, text in changes)
                raise FlowsError(f"it is of another fit: {said}. Give another folder, or delete the file")
            leaves, tree = jax.tree.flatten(like)
            names = _names(like)
            got = {name: (tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()}
            expected = {name: (leaf.dtype.name, leaf.shape) for name, leaf in zip(names, leaves, strict=True)}
            if got != expected:
                wrong = sorted(name for name, _ in got.items() ^ expected.items())[:3]
                raise FlowsError(f"its arrays do not belong to this model and optimizer: {wrong}")
            state = jax.tree.unflatten(tree, jax.device_put([tensors[name] for name in names]))
            return state, header["record"], header.get("stream")

    @property
    def due(self) -> bool:
        """True if the file is at least `every` seconds old."""
        return time.monotonic() >= self.last + self.every

    def save(self, state: Any, record: list[dict[str, Any]], stream: list[Any] | None = None) -> None:
        arrays = dict(zip(_names(state), map(np.asarray, jax.device_get(jax.tree.leaves(state))), strict=True))
        known = {np.dtype(dtype).name for dtype in (DTYPES | INTEGERS).values()}
        if unknown := {name: array.dtype for name, array in arrays.items() if array.dtype.name not in known}:
            raise FlowsError(f"fit: a checkpoint cannot hold these leaves of the optimizer's state: {unknown}")
        version = sys.modules["flows"].__version__  # not imported: `flows` imports this file
        header = {"kind": "fit", "flows": version, "format": FORMAT, "settings": self.settings, "record": record}
        header |= {} if stream is None else {"stream": stream}
        try:
            write(self.path, header, arrays, MAX_RECORD)
        except FlowsError as error:
            if not self.saved:
                raise
            # The fit goes on: hours of training are worth more than this file, and the next save may succeed.
            warn_user(f"fit: the checkpoint was not saved, and its file is of an earlier epoch: {error}")
        self.saved, self.last = True, time.monotonic()


def settings_of(init_fun: Any, key: Array, rows: Any, options: Options, **others: Any) -> dict[str, Any]:
    """Return the settings that identify a fit, for JSON: the printed model, a digest of the rows, key, options, `others`."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(rows):
        digest.update(f"{leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).ravel().view(np.uint8).data)
    model = re.sub(r" at 0x[0-9a-f]+", "", repr(init_fun))
    rng, objective = np.asarray(jax.random.key_data(key)).tolist(), {}
    if options.objective is not None:
        objective["objective"] = _objective_in_full(options)
    return {"model": model, "data": digest.hexdigest(), "rng": rng, **options.lasting(), **objective, **others}


def _objective_in_full(options: Options) -> str | None:
    """Return the module and name of the objective, with a digest of its code unless it is a function of the library; its name
    alone without a checkpoint, as a function may hold values without a digest."""
    if options.checkpoint is None:
        return options.objective_name
    inner = getattr(options.objective, "func", options.objective)
    name = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', type(inner).__name__)}"
    if inner is options.objective and name.startswith("flows."):
        return name
    what = f"{options.caller}: the objective {options.objective_name}"
    return f"{name}, code and constants {fingerprint(options.objective, what)}"


def _names(tree: Any) -> list[str]:
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [f"{i} {jax.tree_util.keystr(path, simple=True, separator='/')}" for i, path in enumerate(paths)]


class _Unreadable(Exception):
    """The content of an object cannot be read."""


def fingerprint(function: Any, what: str) -> str:
    """Return a digest of a function: its code, constants, defaults and closure, with the numbers of arrays, and the functions
    and numbers of its module that it names. Functions of other modules count by their names."""
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    try:
        pieces = _Walk(getattr(inner, "__module__", None) or type(inner).__module__).of(function)
        return hashlib.sha256("".join(pieces).encode()).hexdigest()[:16]
    except _Unreadable as error:
        raise FlowsError(
            f"{what} refers to {error}, and a checkpoint cannot know whether this is the same in the next run. Give it "
            "arrays, numbers, tuples and dicts, by functools.partial; or leave checkpoint= out"
        ) from None


class _Walk:
    """A walk over the objects that make a function of one module; an object that comes again is written as its number."""

    def __init__(self, module: str):
        self.module, self.met, self.alive = module, dict[int, int](), list[Any]()

    def of(self, x: Any) -> Iterator[str]:
        if isinstance(x, PLAIN):
            yield f"{type(x).__name__} {x!r};"
        elif isinstance(x, np.ndarray | np.generic | jax.Array) and not isinstance(x, jax.core.Tracer):
            yield self._array(x)
        elif id(x) in self.met:
            yield f"again {self.met[id(x)]};"
        else:
            self.met[id(x)] = len(self.met)
            self.alive.append(x)  # or another object could get its id
            if len(self.met) > MOST_INSIDE:
                raise _Unreadable(f"more than {MOST_INSIDE:,} objects")
            yield f"{type(x).__name__}("
            yield from self._inside(x)
            yield ");"

    def _inside(self, x: Any) -> Iterator[str]:
        wrapped = getattr(x, "__wrapped__", None)
        if type(x) is object:
            return  # a mark for an argument that is left out
        if isinstance(x, types.ModuleType):
            yield x.__name__
        elif isinstance(x, type) or self._is_known(x):
            yield f"{x.__module__}.{x.__qualname__}"
        elif isinstance(x, jax.tree_util.PyTreeDef | np.dtype | jax.ShapeDtypeStruct) and " at 0x" not in str(x):
            yield str(x)
        elif isinstance(x, Value):
            yield file_name(x.constructor)
            yield from self.of(x.arguments)
        elif isinstance(x, types.CodeType):
            yield from self._all(x.co_code.hex(), x.co_consts, x.co_names, x.co_varnames, x.co_freevars)
        elif isinstance(x, types.FunctionType):
            cells = list[Any]()
            for cell in x.__closure__ or ():
                with suppress(ValueError):  # of an empty cell
                    cells.append(cell.cell_contents)
            yield from self._all(x.__code__, x.__defaults__, x.__kwdefaults__, cells)
            yield from self._all(*self._named(x, x.__code__) if x.__module__ == self.module else ())
        elif isinstance(x, partial):
            yield from self._all(x.func, x.args, x.keywords)
        elif isinstance(x, types.MethodType):
            yield from self._all(x.__func__, x.__self__)
        elif isinstance(x, tuple | list | range):
            yield from self._all(*x)
        elif isinstance(x, dict):
            yield from self._all(*(value for pair in x.items() for value in pair))
        elif isinstance(x, set | frozenset):
            yield from sorted("".join(_Walk(self.module).of(value)) for value in x)
        elif callable(wrapped):  # by functools.wraps, as jax.jit does
            yield from self.of(wrapped)
        elif hasattr(x, "__dict__") and type(x).__module__ != "builtins":
            yield from self._all(type(x), vars(x))
            if type(x).__module__ == self.module and callable(x):
                yield from self.of(type(x).__call__)
        else:
            raise _Unreadable(f"{x!r:.60}")

    def _all(self, *values: Any) -> Iterator[str]:
        for x in values:
            yield from self.of(x)

    def _array(self, x: Any) -> str:
        numbers = np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, order="C")
        if numbers.dtype == object:
            raise _Unreadable("an array of objects")
        return f"{numbers.dtype} {numbers.shape} {hashlib.sha256(numbers.tobytes()).hexdigest()};"

    def _is_known(self, x: Any) -> bool:
        """Tell whether another module than the function's has it under its name."""
        module, name = getattr(x, "__module__", None), getattr(x, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(name, str) or module == self.module:
            return False
        reached = sys.modules.get(module)
        for step in name.split("."):
            reached = getattr(reached, step, None)
        return reached is x or isinstance(x, types.BuiltinFunctionType)

    def _named(self, function: types.FunctionType, code: types.CodeType) -> list[Any]:
        """Return the variables of its module that a function, or a function inside it, names."""
        variables = [function.__globals__[name] for name in code.co_names if name in function.__globals__]
        return variables + [
            variable
            for inner in code.co_consts
            if isinstance(inner, types.CodeType)
            for variable in self._named(function, inner)
        ]
