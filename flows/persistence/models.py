"""Models in files: the constructor as JSON and the params as tensors; all other text is a tensor of bytes.

Constructors are looked up by name, among those at hand; nothing in a file is run.
"""

import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np

from flows.core import (
    LIKELIHOODS,
    FlowsError,
    ModelValue,
    Params,
    Part,
    Shape,
    as_context,
    as_dim,
    as_event,
    boolean,
    check_structure,
    default_dtype,
    from_json,
    in_library,
    is_constructor,
    positive_int,
    refuse_closures,
    refuse_unused_context,
    shapes_of,
    size,
    spend,
    to_json,
    warn_user,
    within,
)
from flows.persistence.container import DTYPES, Content, blamed_on, read, write

FORMAT = 7  # of 0.1.0, and the first that loads for good; lower ones were never released
FILES = 20  # times the bytes of its file: what a model may take without being asked
LEAST_BYTES = 2**22  # bytes that a model may take, however small its file
LARGEST_EVENT = 2**25  # bytes of an event: the masks and indices of many layers take 10 times as much
PREFIX = "result:"  # with which names of tensors begin that are not params
TEXT = "text"  # the name, behind PREFIX, of the tensor that holds text
PathLike = str | os.PathLike | BinaryIO


class Loaded(NamedTuple):
    """A model from a file, and what else is there: arrays by name, and the text."""

    init_fun: ModelValue
    part: Part
    params: Params
    input_dim: Any
    context_dim: Any
    more: dict[str, np.ndarray]
    text: dict[str, Any]
    constructors: tuple[Callable, ...]


def save(
    path: PathLike,
    init_fun: Any,
    params: Params,
    input_dim: Any,
    context_dim: Any = 0,
    metadata: Any = None,
    *,
    allow_nan: bool = False,
) -> None:
    """Write a model to one file: how it was made, and its params. Equal models make equal files.

    The file is written under another name, synced and renamed: a failure leaves what was there before.

    Args:
        path: the file; one that exists is replaced. Or a binary file that is open, such as io.BytesIO.
        init_fun: a bijection or a distribution, the value of a constructor.
        params: its params; bfloat16, float16, float32 and float64 are kept.
        input_dim, context_dim: the event and the context that it was made for, ints or tuples.
        metadata: your dict (columns, units, a date) that JSON can hold.
        allow_nan: write params that are NaN, of a training that failed, to look at them later.

    Errors:
        TypeError: init_fun is not the value of a constructor. FlowsError: an argument of a constructor cannot be written (it
            is named), the params are another model's or NaN, JSON cannot hold the metadata, or the path cannot be written.

    Example:
        >>> import flows, tempfile
        >>> init_fun = flows.Flow(flows.NSF(1, hidden=(8,)))
        >>> params, log_pdf, sample = init_fun(0, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     flows.save(f"{folder}/model", init_fun, params, 2, metadata={"columns": ["height", "weight"]})
        ...     flows.load(f"{folder}/model").log_pdf is log_pdf
        True
    """
    save_model(path, init_fun, params, input_dim, context_dim, metadata, allow_nan=allow_nan)


def save_model(
    path: PathLike,
    init_fun: Any,
    params: Params,
    input_dim: Any,
    context_dim: Any,
    metadata: Any,
    *,
    allow_nan: bool,
    more: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Write a model as `save` does, and more: arrays by name, and under TEXT a dict for JSON. `more` is called once all else
    is checked."""
    target = _as_path(path, "save", "write")
    boolean(allow_nan, "save: allow_nan")
    if not isinstance(init_fun, ModelValue):
        remedy = "decorate the constructor, the function that returns it, with flows.bijection or flows.distribution"
        raise TypeError(f"save: init_fun is {init_fun!r:.80}, expected what a constructor returns, Flow(NSF()); {remedy}")
    description, event, context = _constructor_json(init_fun), as_event(input_dim), as_context(context_dim)
    part, like = _abstract(init_fun, event, context)
    check_structure(params, shapes_of(like), f"save: {part.name}")
    names = _names(params)
    if len({*names, "__metadata__"}) <= len(names) or any(name.startswith(PREFIX) for name in names):
        raise FlowsError(
            f"save: params have one name twice, or a name that the file uses, in {names}; use keys without '/', and neither "
            f"'__metadata__' nor '{PREFIX}...'"
        )
    tensors = {name: _as_numpy(name, leaf) for name, leaf in zip(names, jax.tree.leaves(params), strict=True)}
    if not allow_nan and (lost := [name for name, array in tensors.items() if np.isnan(array.astype(np.float64)).any()]):
        raise FlowsError(
            f"save: params are NaN in {', '.join(lost[:3])}{' and more' * (len(lost) > 3)}: a training that failed. Save the "
            "params from before, or give allow_nan=True"
        )
    text = dict[str, Any]()
    if not isinstance(metadata, dict | None) or metadata:
        text["metadata"] = _checked_metadata(metadata)
    extra = dict(more())
    text |= extra.pop(TEXT, {})
    if init_fun.likelihood != _label_of(description):  # `describe` has to know it without constructors of the user
        text["likelihood"] = init_fun.likelihood
    if text:
        as_json = json.dumps(text, sort_keys=True, separators=(",", ":"), allow_nan=False)
        extra[TEXT] = np.frombuffer(as_json.encode(), np.uint8)
    header = {
        "constructor": description,
        "context": context,
        "event": event,
        "flows": sys.modules["flows"].__version__,  # not imported: `flows` imports this file
        "format": FORMAT,
    }
    write(target, header, tensors | {PREFIX + name: np.asarray(array, order="C") for name, array in extra.items()})


@contextmanager
def load_model(path: PathLike, constructors: Iterable[Callable], max_bytes: int | None) -> Iterator[Loaded]:
    """Return the content of a file, for a `with` in which errors are blamed on it, and constructors stay within its bytes."""
    source, checked = _content(path, "load"), _checked_constructors(constructors)
    header, tensors, more, text = _read(source)
    length = os.path.getsize(source) if isinstance(source, str) else source.getbuffer().nbytes
    allowed = max(FILES * length, LEAST_BYTES)
    if max_bytes is not None:
        allowed = positive_int(max_bytes, "load: max_bytes", most=2**62)
    with blamed_on(f"{source!r}, written by flows {header['flows']}, cannot be loaded"), within(allowed):
        with within(max(allowed, LARGEST_EVENT)):
            spend(size=4 * max(size(header["event"]), size(header["context"] or ())))
        init_fun = from_json(header["constructor"], checked)
        if not isinstance(init_fun, ModelValue):
            raise FlowsError(f"{init_fun!r:.80} is neither a bijection nor a distribution")
        part, like = _abstract(init_fun, header["event"], header["context"])
        spend(size=sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(like)))
        treedef, shapes = shapes_of(like)
        expected = dict(zip(_names(like), shapes, strict=True))
        got = {name: tensor.shape for name, tensor in tensors.items()}
        if got != expected:
            names = sorted({name for name, _ in got.items() ^ expected.items()})[:3]
            wrong = "; ".join(f"{name} has shape {got.get(name)}, expected {expected.get(name)}" for name in names)
            raise FlowsError(f"its params are not the params of {init_fun!r:.200}: {wrong}")
        wide = [name for name in expected if tensors[name].dtype == np.float64]
        narrowed = wide and not jax.config.jax_enable_x64  # type: ignore[attr-defined]
        if narrowed:
            tensors |= {name: tensors[name].astype(np.float32) for name in wide}
            remedy = "call jax.config.update('jax_enable_x64', True) first to keep them"
            warn_user(f"{source!r} has float64 params, which become float32 in this session; {remedy}")
        leaves = jax.device_put([tensors[name] for name in expected])  # which compiles nothing, as jnp.asarray would
        params, dims = jax.tree.unflatten(treedef, leaves), (as_dim(header["event"]), as_dim(header["context"]))
        yield Loaded(init_fun, part, params, *dims, more, text, checked)


def describe(path: PathLike) -> dict[str, Any]:
    """Describe a file that `save` wrote, verified against its digest. Your own constructors are not needed.

    Args:
        path: a file that `save` wrote, or a binary one that is open.

    Returns:
        A dict: `code` and `constructor`, the model as code and as JSON; `event` and `context` (None if there is none);
        `likelihood`, what its log-density is ('exact', 'unbiased' or 'lower bound'); `flows`, the version that wrote it;
        `format`; `metadata`; `columns`, the names of the fitted columns, or None; `num_params`, the count of numbers;
        `tensors`, shapes and dtypes of params by name; `training_rows`, the number of rows of the
        training data among params (the points of a `KernelDensity`).

    Errors:
        FlowsError: a file that is missing, damaged or foreign.

    Example:
        >>> import flows, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     flows.save(f"{folder}/model", flows.ActNorm(), flows.ActNorm()(0, 3).params, 3)
        ...     header = flows.describe(f"{folder}/model")
        >>> header["code"], header["event"], header["num_params"], header["tensors"]["shift"]
        ('ActNorm()', (3,), 6, {'shape': (3,), 'dtype': 'float32'})
    """
    source = _content(path, "describe")
    header, tensors, _, text = _read(source)
    with blamed_on(f"{source!r} cannot be described"):
        about = {name: {"shape": tensor.shape, "dtype": tensor.dtype.name} for name, tensor in sorted(tensors.items())}
        count = sum(tensor.size for tensor in tensors.values())
        more = {"num_params": count, "tensors": about, "training_rows": rows_held(header["constructor"])}
        columns = [str(label) for label in text["table"]["labels"]] if "table" in text else None
        extras = {"metadata": text.get("metadata", {}), "columns": columns}
        extras["likelihood"] = text.get("likelihood") or _label_of(header["constructor"])
        return {"code": _as_code(header["constructor"]), **header, **extras, **more}


def _as_path(path: Any, name: str, verb: str) -> Any:
    """The name of a file as text; a binary file that is open as it is."""
    if isinstance(path, str | bytes | os.PathLike):
        return os.fsdecode(path)
    if callable(getattr(path, verb, None)) and not isinstance(path, io.TextIOBase):
        return path
    raise TypeError(
        f"{name}: path is {path!r:.60}; expected the name of a file, a str or a pathlib.Path, or a binary file that is open"
    )


def _content(path: Any, name: str) -> str | Content:
    """The name of a file, or all that is left to read of one that is open."""
    source = _as_path(path, name, "read")
    if isinstance(source, str):
        return source
    try:
        return Content(source.read())
    except (OSError, ValueError, TypeError) as error:
        remedy = "Expected a binary file that is open for reading"
        raise FlowsError(f"{name}: cannot read {source!r:.80}: {error}. {remedy}") from error


def rows_held(description: Any) -> int:
    """The rows of data that a constructor in JSON holds in its params."""
    if isinstance(description, list):
        return sum(map(rows_held, description))
    if not isinstance(description, dict):
        return 0
    rows = description["arguments"]["num_points"] if description.get("constructor") == "KernelDensity" else 0
    return rows + sum(map(rows_held, description.values()))


def _label_of(description: Any) -> str | None:
    """Return the `likelihood` of a model in JSON; None where it has layers of the user."""
    try:
        with within(LEAST_BYTES):
            return from_json(description).likelihood
    except Exception:  # layers of the user, or not a model
        return None


def _abstract(init_fun: ModelValue, event: Shape, context: Shape | None) -> tuple[Part, Params]:
    """The part, and the shapes of its params: init is traced, so that nothing is drawn or compiled."""
    part = init_fun.part(event, context)
    refuse_unused_context(init_fun, part, context)
    refuse_closures(part, "a file holds no functions, so that another init would have to make them", several=False)
    return part, part.abstract_params()


def _names(params: Params) -> list[str]:
    """The place of each leaf, such as "bijection/0/log_scale"."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return [jax.tree_util.keystr(path, simple=True, separator="/") or "params" for path in paths]


def _as_numpy(name: str, leaf: Any) -> np.ndarray:
    array = np.asarray(leaf, None if hasattr(leaf, "dtype") else default_dtype(), order="C")
    if not _is_real(array.dtype):
        raise FlowsError(f"save: the leaf {name!r} has dtype {array.dtype}; expected bfloat16, float16, float32 or float64")
    return array


def _constructor_json(init_fun: ModelValue) -> Any:
    """The constructor as JSON, once it is certain that it reads back as an equal value."""
    description = to_json(init_fun)
    with blamed_on(f"save: {init_fun!r:.200} would not read back as the same model"):
        again = from_json(json.loads(json.dumps(description)), tuple(foreign_constructors(init_fun)))
        if again != init_fun:
            raise FlowsError(f"but as {again!r:.200}; give plain arguments, and each constructor a name of its own")
    return description


def foreign_constructors(init_fun: ModelValue) -> list[Callable]:
    """Constructors of the user that a model is made with."""
    used = [value.constructor for value in (init_fun, *init_fun.values_within())]
    return [constructor for constructor in dict.fromkeys(used) if not in_library(constructor)]


def _checked_metadata(metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, dict):
        raise FlowsError(f"save: metadata is a {type(metadata).__name__}, expected a dict")
    for key, value in metadata.items():
        with blamed_on(f"save: metadata[{key!r}] is not what JSON can hold"):
            if json.loads(json.dumps({key: value}, allow_nan=False)) != {key: value}:
                raise FlowsError("expected dicts with string keys, lists, strings, finite numbers, True, False or None")
    return metadata


def _checked_constructors(constructors: Any) -> tuple[Callable, ...]:
    checked = tuple(constructors) if isinstance(constructors, list | tuple | set | frozenset) else None
    if checked is None or not all(map(is_constructor, checked)):
        raise TypeError(f"load: constructors is {constructors!r:.200}; expected a list of constructors, not called: [MyLayer]")
    if len({constructor.__name__ for constructor in checked}) < len(set(checked)):
        raise TypeError(
            f"load: two of constructors have one name in {[constructor.__name__ for constructor in checked]}; rename one"
        )
    return checked


def _read(path: str | Content) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """Header and tensors of a model, and the other arrays and the text of the file."""
    header, tensors = read(path)
    with blamed_on(f"{path!r} is not a model that this version of flows can read"):
        if header.get("kind") == "fit":
            raise FlowsError("it is the checkpoint of a fit; give its folder to flows.fit(checkpoint=...)")
        file_format = header["format"]
        if type(file_format) is not int or file_format > FORMAT:
            raise FlowsError(f"its format is {file_format!r}, expected {FORMAT}; it needs flows {header['flows']}")
        if file_format < FORMAT:
            raise FlowsError(
                f"its format is {file_format}, of a version before 0.1.0, which was never released; expected {FORMAT}. Take "
                "its params out with the flows that wrote it, and save them with this one"
            )
        if set(header) != {"constructor", "context", "event", "flows", "format"}:
            raise FlowsError(f"its header has {sorted(header)}")
        others = [name for name in tensors if name.startswith(PREFIX)]
        more = {name.removeprefix(PREFIX): tensors.pop(name) for name in others}
        tensor = more.pop(TEXT, None)
        text = {} if tensor is None else json.loads(tensor.tobytes())
        if tensor is not None and (tensor.dtype != np.uint8 or not isinstance(text, dict)):
            raise FlowsError("its text is not one")
        if (
            not isinstance(header["flows"], str)
            or not isinstance(text.get("metadata", {}), dict)
            or text.get("likelihood", "exact") not in LIKELIHOODS
        ):
            raise FlowsError("its header or its text has values of the wrong type")
        if whole := sorted(name for name, tensor in tensors.items() if not _is_real(tensor.dtype)):
            raise FlowsError(f"its params {whole[:3]} are not real numbers")
        header |= {"event": as_event(header["event"]), "context": as_context(header["context"])}
        return header, tensors, more, text


def _is_real(dtype: Any) -> bool:
    return dtype.name in {np.dtype(known).name for known in DTYPES.values()}  # by name: in any byte order


def _as_code(x: Any) -> str:
    """A constructor in JSON as code: as its value prints or, where that cannot be made here, with all that the file says."""
    with suppress(Exception):
        return repr(from_json(x))
    if isinstance(x, list):
        return f"({', '.join(map(_as_code, x))}{',' * (len(x) == 1)})"
    name, inside = (x["constructor"], x["arguments"]) if set(x) == {"constructor", "arguments"} else ("dict", x.get("dict", x))
    return f"{str(name).replace(':', '.')}({', '.join(f'{key}={_as_code(argument)}' for key, argument in inside.items())})"
