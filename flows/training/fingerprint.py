"""The settings that identify a fit, and fingerprints that distinguish functions, in this run and in the next, by their code and
all objects that they refer to."""

import hashlib
import re
import sys
import types
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, FlowsError, Value, file_name
from flows.training.options import Options

PLAIN = bool | int | float | complex | str | bytes | type(None) | type(...)
MOST_INSIDE = 10_000  # objects that a function may refer to


def settings_of(init_fun: Any, key: Array, rows: Any, options: Options, **others: Any) -> dict[str, Any]:
    """Return the settings that identify a fit, for JSON: the printed model, a digest of the rows, key, options, `others`."""
    model = re.sub(r" at 0x[0-9a-f]+", "", repr(init_fun))
    rng, objective = np.asarray(jax.random.key_data(key)).tolist(), {}
    if options.objective is not None:
        objective["objective"] = _objective_in_full(options)
    return {"model": model, "data": digest_of(rows), "rng": rng, **options.lasting(), **objective, **others}


def digest_of(arrays: Any) -> str:
    """Return a digest of the arrays of a tree."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        digest.update(f"{leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).ravel().view(np.uint8).data)
    return digest.hexdigest()


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
