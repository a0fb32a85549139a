"""Constructor values: what `ActNorm()` returns remembers how it was made.

A value prints as code, compares and hashes by the arguments of its call, and goes to JSON and back. So functions are
compiled once for each model, and a model is saved as its constructor and its params.
"""

import functools
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, ParamSpec, TypeGuard, TypeVar
from weakref import WeakSet

import jax
import numpy as np

from flows.core.deprecated import NAMES, with_new_names
from flows.core.errors import FlowsError
from flows.core.validation import spend

P = ParamSpec("P")
V = TypeVar("V", bound="Value")

MOST_CONSTRUCTORS = 10_000  # in a file
_CONSTRUCTORS: WeakSet[Callable] = WeakSet()  # all constructors


class Value:
    """A constructor's value: immutable, and equal to any other value made by an equal call."""

    constructor: Callable
    arguments: dict[str, Any]
    inner: Any  # what the body of the constructor returned
    _key: tuple
    _hash: int

    def __init__(self, constructor: Callable, arguments: dict[str, Any], inner: Any):
        key = (constructor, *((name, _key_of(argument)) for name, argument in arguments.items()))
        vars(self).update(constructor=constructor, arguments=arguments, inner=inner, _key=key, _hash=hash(key))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self!r} is immutable: make a new one with other arguments")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and self._hash == other._hash and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        """The shortest call that makes an equal value: layers by position, the rest by name, defaults left out."""
        parts: list[str] = []
        parameters = inspect.signature(self.constructor).parameters.items()
        by_position = True
        # Where there are *args, the arguments before them have to be passed by position.
        forced = any(self.arguments[name] for name, parameter in parameters if parameter.kind is parameter.VAR_POSITIONAL)
        for name, parameter in parameters:
            argument, kind, required = self.arguments[name], parameter.kind, parameter.default is parameter.empty
            if kind is parameter.VAR_POSITIONAL:
                parts += map(_as_code, argument)
                forced = by_position = False
            elif kind is parameter.VAR_KEYWORD:
                parts += [f"{key}={_as_code(extra)}" for key, extra in argument.items()]
            elif not (forced or required) and _key_of(argument) == _key_of(_freeze(parameter.default, name)):
                by_position = False
            elif kind is not parameter.KEYWORD_ONLY and (forced or (by_position and (required or callable(argument)))):
                parts.append(_as_code(argument))
            else:
                by_position = False
                parts.append(f"{name}={_as_code(argument)}")
        return f"{public_name(self.constructor)}({', '.join(parts)})"

    def __reduce__(self) -> tuple:
        return call, (self.constructor, self.arguments)

    def values_beneath(self) -> Iterator["Value"]:
        """The values among the arguments, or the value that a model is short for."""
        return _values_in(self.inner if isinstance(self.inner, Value) else self.arguments)

    def values_within(self) -> Iterator["Value"]:
        """Values beneath, at any depth."""
        for value in self.values_beneath():
            yield value
            yield from value.values_within()


def constructor(function: Callable[P, Any], make: Callable[[Callable, dict[str, Any], Any], V]) -> Callable[P, V]:
    """Turn a function that returns a layer into a constructor, whose value remembers the call."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def construct(*args: P.args, **kwargs: P.kwargs) -> V:
        try:
            bound = signature.bind(*args, **with_new_names(function, kwargs))
        except TypeError as error:
            usage = f"{function.__name__}{signature}{_located(function.__name__, signature)}"
            raise TypeError(f"{function.__name__}: {error}; its signature is {usage}") from None
        bound.apply_defaults()
        for name, argument in bound.arguments.items():
            frozen = _freeze(argument, f"{function.__name__}: argument {name!r}")
            annotation = signature.parameters[name].annotation
            choices = {bool: "True or False", "bool": "True or False", bool | None: "None, True or False"}.get(annotation)
            if choices and not isinstance(frozen, bool) and not (frozen is None and choices.startswith("None")):
                choices += _located(function.__name__, signature)
                raise FlowsError(f"{function.__name__}: {name} is {argument!r:.60}; expected {choices}")
            bound.arguments[name] = frozen
        spend(parts=1)
        return make(construct, dict(bound.arguments), function(*bound.args, **bound.kwargs))

    _CONSTRUCTORS.add(construct)
    vars(construct)["constructor"] = construct  # a copy by value is one too; a wrapper is not
    return construct


def _located(name: str, signature: inspect.Signature) -> str:
    """Return where a base has its location and scale, if these are params alone, with code that sets them; "" elsewhere."""
    if not {"trainable", "conditioner"} <= signature.parameters.keys() or "loc" in signature.parameters:
        return ""
    made = f". Its params hold loc and scale: params, log_pdf, sample = flows.{name}(trainable=True)(0, 1); params = "
    return made + "{**params, 'loc': np.array([loc]), 'log_scale': 10 * np.arctanh(np.log([scale]) / 10)}"


def said_of(claim: Any, arguments: dict[str, Any], what: str) -> Any:
    """A claim of a decorator, or, where it is a function, its result for the arguments of the constructor, by name."""
    if not callable(claim):
        return claim
    try:
        return claim(**arguments)
    except TypeError as error:
        raise TypeError(f"{what} is a function that cannot be called with arguments {', '.join(arguments)}: {error}") from None


def is_constructor(x: Any) -> bool:
    """Tell whether `x` is a constructor, which still has to be called."""
    return isinstance(x, types.FunctionType) and vars(x).get("constructor") is x


def is_model(x: Any) -> TypeGuard[Any]:
    """Tell whether `x` is a constructor's value that makes parts: a bijection or a distribution."""
    return isinstance(x, Value) and hasattr(x, "part")


def decorated(function: Any, make: Callable[..., Value], name: str, returns: str) -> Any:
    """The constructor of a function, or, where a decorator was called with keywords alone, what makes one of a function."""
    if function is None:
        return functools.partial(constructor, make=make)
    expected = f"expected the function that is decorated, which returns {returns}, or keywords alone"
    if isinstance(function, Value) or not callable(function):
        raise TypeError(f"{name}: it was given {function!r:.60}; {expected}")
    try:
        inspect.signature(function)
    except (TypeError, ValueError):  # it is written in C
        raise TypeError(f"{name}: it was given {function!r:.60}, whose arguments are not known; {expected}") from None
    return constructor(function, make)


def check_takes(x: Callable, form: str, what: str) -> None:
    """Refuse a function that cannot be called with the number of positional arguments in `form`, "net(rng, input_dim)"."""
    try:
        inspect.signature(str(x) if isinstance(x, np.ufunc) else x).bind(*form.split(","))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:  # ValueError: it is written in C. The second argument of a ufunc is `out`
        raise TypeError(f"{what} is {x!r:.60}, which cannot be called as {form}: {error}") from None


def check_function(x: Any, what: str, expected: str) -> None:
    """Refuse anything but a user's function; constructors and their values can be called too, but are refused."""
    if isinstance(x, Value) or is_constructor(x) or not callable(x):
        refuse_argument(x, what, expected)


def refuse_argument(x: Any, what: str, expected: str) -> NoReturn:
    """Raise the error of an argument that is not what a constructor takes."""
    if is_constructor(x):
        raise TypeError(f"{what} is the constructor {x.__name__}; call it: {x.__name__}(...)")
    raise TypeError(f"{what} is {x!r:.60}; expected {expected}")


def in_library(construct: Callable) -> bool:
    """Tell whether a constructor belongs to the library."""
    return (construct.__module__ or "").split(".")[0] == "flows"


def public_name(construct: Callable) -> str:
    """The name a reader would write: bare inside `flows`, `transformers.Affine` or `my_module.MyLayer` elsewhere."""
    name, module = construct.__name__, (construct.__module__ or "").split(".")  # None: made by exec
    if getattr(sys.modules.get("flows"), name, None) is construct:
        return name
    return f"{module[1]}.{name}" if in_library(construct) and len(module) > 1 else f"{construct.__module__}.{name}"


def file_name(construct: Callable) -> str:
    """The name in a file; the colon keeps a user's `transformers:Affine` apart from the library's `transformers.Affine`."""
    return public_name(construct) if in_library(construct) else f"{construct.__module__}:{construct.__name__}"


def to_json(value: Value) -> dict[str, Any]:
    """A JSON-ready description of the call that made `value`; the error names an argument that has none."""

    def encode(x: Any, where: str) -> Any:
        if isinstance(x, Value):
            inside = {name: encode(argument, f"{where}.{name}") for name, argument in x.arguments.items()}
            return {"constructor": file_name(x.constructor), "arguments": inside}
        if isinstance(x, float) and not math.isfinite(x):
            return {"float": repr(x)}
        if x is None or isinstance(x, bool | int | float | str):
            return x
        if isinstance(x, tuple):
            return [encode(entry, f"{where}[{i}]") for i, entry in enumerate(x)]
        if isinstance(x, Mapping) and all(isinstance(key, str) for key in x):
            return {"dict": {key: encode(entry, f"{where}[{key!r}]") for key, entry in x.items()}}
        raise FlowsError(
            f"{where} is {_describe(x)}, which cannot be written to a file. Expected numbers, strings, tuples, arrays or "
            "values of constructors: give activations by name, and make a function of your own a constructor "
            "(flows.bijection, flows.distribution, flows.conditioner)"
        )

    return encode(value, value.constructor.__name__)


def from_json(description: Any, constructors: tuple[Callable, ...] = ()) -> Any:
    """The value that `to_json` described. Names are looked up in the library and in `constructors`, nowhere else."""
    library = {file_name(construct): construct for construct in _CONSTRUCTORS if in_library(construct)}
    by_name = {construct.__name__: construct for construct in constructors}
    left = iter(range(MOST_CONSTRUCTORS))

    def decode(x: Any) -> Any:
        if isinstance(x, list):
            return tuple(decode(entry) for entry in x)
        if not isinstance(x, dict):
            return x
        if set(x) == {"float"} and x["float"] in ("inf", "-inf", "nan"):
            return float(x["float"])
        if set(x) == {"dict"} and isinstance(x["dict"], dict):
            return {key: decode(entry) for key, entry in x["dict"].items()}
        if set(x) == {"constructor", "arguments"} and isinstance(x["arguments"], dict):
            if next(left, None) is None:
                raise FlowsError(f"it has more than {MOST_CONSTRUCTORS:,} constructors")
            name = str(x["constructor"])
            construct = by_name.get(name.rpartition(":")[2]) if ":" in name else library.get(NAMES.get(name, (name,))[0])
            if construct is None:
                raise FlowsError(
                    f"unknown constructor {name!r}: this version of flows has none of that name, and among "
                    f"constructors= there is {sorted(by_name) or 'nothing'}. Pass its constructor in constructors=[...]"
                )
            return call(construct, {key: decode(argument) for key, argument in x["arguments"].items()})
        raise FlowsError(f"cannot read {str(x)[:100]!r} as a constructor value")

    return decode(description)


def call(construct: Callable, arguments: dict[str, Any]) -> Any:
    """Call a constructor with the arguments of a `Value`; a missing argument keeps its default."""
    signature, arguments = inspect.signature(construct), with_new_names(getattr(construct, "__wrapped__", construct), arguments)
    unknown = sorted(set(arguments) - set(signature.parameters))
    if unknown:
        raise TypeError(f"{construct.__name__} takes no argument {unknown}; its signature is {construct.__name__}{signature}")
    bound = signature.bind_partial()
    bound.arguments.update({name: arguments[name] for name in signature.parameters if name in arguments})
    return construct(*bound.args, **bound.kwargs)


def _freeze(x: Any, where: str) -> Any:
    """The one immutable form of an argument: sequences and arrays become tuples, NumPy scalars Python's, dtypes names."""
    if isinstance(x, jax.core.Tracer):
        raise FlowsError(f"{where} is a traced array. A constructor takes Python values; computed values belong in params")
    if isinstance(x, np.ndarray | np.generic | jax.Array):
        return _freeze(np.asarray(x).tolist(), where)
    if hasattr(x, "to_numpy"):
        raise FlowsError(f"{where} is {_describe(x)} of another library; expected plain values, such as its .to_numpy()")
    if isinstance(x, np.dtype):
        return x.name
    if isinstance(x, type) and (issubclass(x, np.generic) or isinstance(getattr(x, "dtype", None), np.dtype)):
        return np.dtype(x).name
    if type(x) in (list, tuple, range):
        return tuple(_freeze(entry, where) for entry in x)
    if type(x) is dict:
        return {key: _freeze(x[key], where) for key in sorted(x, key=repr)}
    return x


def _key_of(x: Any) -> Any:
    """A hashable key that keeps 1, 1.0 and True apart."""
    if isinstance(x, tuple):
        return (type(x), *map(_key_of, x))
    if isinstance(x, Mapping):
        return (type(x), *((key, _key_of(x[key])) for key in sorted(x, key=repr)))
    if isinstance(x, float):
        return (float, repr(x))
    try:
        hash(x)
    except TypeError:
        return Identity(x)
    return (type(x), x)


class Identity:
    """Key of an object: equal only to itself. It keeps the object alive, so that no other object gets its id."""

    def __init__(self, x: Any):
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.x is self.x

    def __hash__(self) -> int:
        return id(self.x)


def _values_in(x: Any) -> Iterator[Value]:
    if isinstance(x, Value):
        yield x
    for entry in x.values() if isinstance(x, Mapping) else x if isinstance(x, tuple) else ():
        yield from _values_in(entry)


def _as_code(x: Any) -> str:
    if isinstance(x, tuple):
        return f"({', '.join(map(_as_code, x))}{',' if len(x) == 1 else ''})"
    if isinstance(x, float) and not math.isfinite(x):
        return f'float("{x!r}")'
    if callable(x) and not isinstance(x, Value):
        module, name = getattr(x, "__module__", None), getattr(x, "__name__", repr(x))
        hidden = module in (None, "builtins", "__main__") or "._" in module or "<" in name
        return name if hidden else f"{module}.{name}"
    return repr(x)


def _describe(x: Any) -> str:
    return f"the function {x.__name__!r}" if callable(x) and hasattr(x, "__name__") else f"a {type(x).__name__}: {x!r:.60}"
