"""Are two functions the same? Yes if they run the same code over equal closures.

Initialising a model makes its functions anew; their fingerprints say whether they were compiled before. A closure that
breaks the first rule (its functions depend on rng) has a new fingerprint each time, which costs a compile. What a function
closes over is looked into as far as containers, arrays, callables, dataclasses and namespaces go; any other object is
itself, and must not change (`clear_caches`).
"""

import functools
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.constructors import Identity, Value

T = TypeVar("T")


class Memo:
    """A bounded cache that forgets what was used longest ago."""

    def __init__(self, size: int):
        self.size, self.entries, self.lock = size, OrderedDict[Hashable, Any](), threading.RLock()
        _MEMOS.append(self)

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        if key is None:  # what depends on a tracer is made anew and never kept
            return make()
        with self.lock:
            if key in self.entries:
                self.entries.move_to_end(key)
                return self.entries[key]
        made = make()
        with self.lock:
            made = self.entries.setdefault(key, made)
            while len(self.entries) > self.size:
                self.entries.popitem(last=False)
        return made


_MEMOS: list[Memo] = []


@contextmanager
def fresh_functions() -> Iterator[None]:
    """Inside a `with`, the caches start empty: every function is made anew, and what was there before comes back after."""
    before = [(memo, memo.entries) for memo in _MEMOS]
    for memo in _MEMOS:
        memo.entries = OrderedDict()
    try:
        yield
    finally:
        for memo, entries in before:
            memo.entries = entries


def clear_caches() -> None:
    """Forget every compiled function; the next call of a model compiles again.

    Needed after a change that no argument of a constructor shows: a module's variable that a decorated layer or a function
    given to one reads is read when it is first traced, and so is the state of an object that is neither callable nor a
    dataclass.

    Example:
        >>> import flows
        >>> log_pdf = flows.Flow(flows.ActNorm())(0, 2).log_pdf
        >>> flows.clear_caches()
        >>> flows.Flow(flows.ActNorm())(0, 2).log_pdf is log_pdf
        False
    """
    for memo in _MEMOS:
        memo.entries.clear()


class Atom:
    """What is made once for each model, and so equal to itself alone: a fingerprint does not look into it."""

    kept: bool = True  # False where it depends on a tracer, and nothing that holds it may be cached


class Once(Atom):
    """A function that is an atom."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class _Traced(Exception):
    """A closure holds a tracer."""


def fingerprint(x: Any) -> Hashable:
    """A hashable key equal for objects that compute the same; None where a tracer is inside."""
    try:
        return (jax.config.jax_enable_x64, _walk(x, ()))  # type: ignore[attr-defined]
    except _Traced:
        return None


def _walk(x: Any, above: tuple[int, ...]) -> Hashable:
    if id(x) in above:  # a function that closes over itself
        return len(above) - above.index(id(x))
    above = (*above, id(x))
    if isinstance(x, jax.core.Tracer) or (isinstance(x, Atom) and not x.kept):
        raise _Traced
    if isinstance(x, types.FunctionType):
        cells = [cell.cell_contents for cell in x.__closure__ or () if _filled(cell)]
        within = [x.__defaults__, x.__kwdefaults__, *cells, *_own_globals(x)]
        return (x.__code__, Identity(x.__globals__), *(_walk(each, above) for each in within))
    if isinstance(x, types.MethodType):
        return (_walk(x.__func__, above), _walk(x.__self__, above))
    if isinstance(x, functools.partial):
        return ("partial", _walk(x.func, above), _walk(x.args, above), _walk(x.keywords, above))
    if isinstance(x, tuple | list):
        return (type(x), *(_walk(each, above) for each in x))
    if isinstance(x, set):
        return (set, frozenset(_walk(each, above) for each in x))
    if isinstance(x, slice):  # hashable from Python 3.12 on
        return (slice, *(_walk(each, above) for each in (x.start, x.stop, x.step)))
    if isinstance(x, Mapping):
        return (type(x), *((_walk(key, above), _walk(x[key], above)) for key in x))
    if isinstance(x, np.ndarray | jax.Array) and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        array = np.asarray(x)
        return (type(x), array.shape, str(array.dtype), array.tobytes())
    has_state = (callable(x) or isinstance(x, types.SimpleNamespace) or is_dataclass(x)) and hasattr(x, "__dict__")
    if has_state and not isinstance(x, type | Atom | Value):
        of_jax = type(x).__module__.split(".")[0] in ("jax", "jaxlib")  # jax.jit(f), custom_jvp(f): what they do is f
        return (type(x), None if of_jax else Identity(x), _walk(vars(x), above))  # a network, say: itself, as it is now
    try:
        hash(x)
    except TypeError:
        return Identity(x)
    return (type(x), x)


def _own_globals(x: types.FunctionType) -> list[Any]:
    """What a user's function reads from its module: a notebook cell run again may have changed it."""
    if x.__module__ is None or x.__module__.split(".")[0] in ("flows", "jax", "optax", "numpy"):
        return []
    codes, names = [x.__code__], list[str]()
    for code in codes:
        names += code.co_names
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    found = [x.__globals__[name] for name in dict.fromkeys(names) if name in x.__globals__]
    foreign = [isinstance(each, types.FunctionType) and each.__globals__ is not x.__globals__ for each in found]
    return [Identity(each) if other else each for each, other in zip(found, foreign, strict=True)]


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
