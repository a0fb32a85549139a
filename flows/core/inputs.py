"""Arrays, shapes, keys and contexts as users pass them; and keywords, with the signatures that show them."""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.contract import DEFAULTS, Array, Shape
from flows.core.errors import FlowsError

MOST_NUMBERS = 2**31 - 1  # of an event, or of the draws of one call: the most that 32 bits can count
KEY = partial(jax.eval_shape, jax.random.key, 0)  # an abstract key
TOGETHER = 10_000, 2**20  # rows, and numbers, in a piece


def as_event(input_dim: Any, what: str = "input_dim") -> Shape:
    """The event shape of `input_dim`: 5 is (5,), (28, 28, 1) is itself."""
    dims = tuple(input_dim) if isinstance(input_dim, Sequence) and not isinstance(input_dim, str) else (input_dim,)
    whole = [isinstance(d, int | np.integer) and not isinstance(d, bool) for d in dims]
    if not dims or not all(whole):
        raise TypeError(f"{what} is {input_dim!r}; expected a positive int, or a tuple of them such as (28, 28, 1)")
    if min(dims) < 1:
        raise FlowsError(f"{what} is {input_dim!r}; every axis of an event must have at least one entry")
    if math.prod(map(int, dims)) > MOST_NUMBERS:
        raise FlowsError(f"{what} is {input_dim!r:.80}; expected at most {MOST_NUMBERS:,} numbers in all")
    return tuple(int(d) for d in dims)


def as_context(context_dim: Any) -> Shape | None:
    """The context shape, or None where there is none (0, None)."""
    none = context_dim is None or (isinstance(context_dim, int | np.integer) and context_dim == 0)
    return None if none else as_event(context_dim, "context_dim")


def as_dim(shape: Shape | None) -> Any:
    """A shape as authors receive it: an int where there is one axis (0 for None), a tuple otherwise."""
    return 0 if shape is None else shape[0] if len(shape) == 1 else shape


def as_key(rng: Any) -> Array:
    """A typed key from a typed key, a legacy `jax.random.PRNGKey` or an int seed."""
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool):
        return jax.random.key(int(rng) % 2**63)  # any whole number will do
    if isinstance(rng, jax.Array | np.ndarray):
        if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) and rng.ndim == 0:
            return jnp.asarray(rng)
        if rng.dtype == np.uint32 and rng.shape in ((2,), (4,)):
            return jax.random.wrap_key_data(on_device(rng), impl="threefry2x32" if rng.shape == (2,) else "rbg")
        if jnp.issubdtype(rng.dtype, jnp.integer) and rng.ndim == 0:
            return jax.random.key(rng)
    got = f"an array of dtype {rng.dtype} and shape {rng.shape}" if hasattr(rng, "dtype") else f"{rng!r:.60}"
    order = ": rng is the first argument, before params" if isinstance(rng, dict | tuple | list) else ""
    raise TypeError(f"rng is {got}; expected one key, jax.random.key(0), or an int seed{order}")


@partial(jax.jit, static_argnums=1, inline=True)
def split_key(key: Array, num: int = 2) -> tuple[Array, ...]:
    """`jax.random.split(key, num)` as a tuple, by one program; to unpack an array of keys would take another."""
    return tuple(jax.random.split(key, num))


def as_array(x: Any, what: str) -> Array:
    """A real floating array. Whole numbers become float32, or float64 where they are too large for it."""
    if np.ma.is_masked(x):
        raise FlowsError(f"{what} has masked values; drop these rows, or fill them")
    if hasattr(x, "to_numpy") and hasattr(x, "columns"):
        names = ", ".join(repr(str(name)) for name in list(x.columns)[:5])
        raise FlowsError(
            f"{what} is a table with the columns {names}{', ...' * (len(x.columns) > 5)}, whose order a function of arrays "
            "cannot check. Give it to the result of a fit, result.log_prob(table), which orders them; or table.to_numpy()"
        )
    if isinstance(x, dict):
        keys = ", ".join(map(repr, list(x)[:5]))
        raise TypeError(f"{what} is a dict with the keys {keys}, as params are; expected an array: params come before the rows")
    if not isinstance(x, jax.Array):
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise TypeError(f"{what} cannot be read as one array ({error}); expected rows of equal length") from None
        x = native(x)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return on_device(x)
    if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool:
        return as_array(x.astype(_holding(x, what)), what)
    raise TypeError(f"{what} has dtype {x.dtype}; expected real numbers. Convert it, for example with np.asarray(x, float)")


def on_device(x: Any, dtype: Any = None) -> Array:
    """An array on the device, in `dtype` unless it is None. Outside of jit, `jnp.asarray` compiles a program for each shape of
    a NumPy array; this compiles nothing. It copies, as the caller may write to x while a result is still computed."""
    if isinstance(x, jax.Array):
        return x if dtype is None else jnp.asarray(x, dtype)
    return jax.device_put(np.array(x, dtype))


def holds_tracer(tree: Any) -> bool:
    """Tell whether a pytree holds an array whose values are not known, as it is being traced."""
    return any([isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)])


def native(x: np.ndarray) -> np.ndarray:
    """Numbers in a dtype that JAX has: in this machine's byte order, and not longer than float64."""
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:
        return x.astype(np.float64)
    return x if x.dtype.isnative or x.dtype.kind == "O" else x.astype(x.dtype.newbyteorder("="))


def _holding(x: Any, what: str) -> Any:
    """The dtype that holds whole numbers: float32, or float64 where some are too large for it."""
    if isinstance(x, jax.core.Tracer) or x.dtype.itemsize < 4:
        return np.float32
    numbers = np.asarray(x)
    lost = numbers.astype(np.float32).astype(np.float64) != numbers.astype(np.float64)
    if not lost.any():
        return np.float32
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        return np.float64
    raise FlowsError(
        f"{what} holds the whole number {numbers[lost][0]}, which float32 cannot: it would be "
        f"{np.float32(numbers[lost][0]):.0f}. Subtract an offset, before fitting as well; or call "
        "jax.config.update('jax_enable_x64', True) first; or give floats, which are rounded"
    )


def working_dtype(dtype: Any) -> np.dtype:
    """float64 for float64 inputs, float32 for everything else."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def default_dtype() -> np.dtype:
    """The dtype of a Python float in JAX: float32, or float64 where x64 is enabled."""
    return np.dtype(jnp.result_type(float))


def cast(tree: Any, dtype: Any) -> Any:
    """`tree` with its floating leaves in `dtype`."""

    def one(path: tuple, leaf: Any) -> Any:
        leaf_dtype = jnp.result_type(leaf)
        if jnp.issubdtype(leaf_dtype, jnp.complexfloating):
            raise FlowsError(f"params{jax.tree_util.keystr(path)} has dtype {leaf_dtype}; expected real numbers")
        return jnp.asarray(leaf, dtype) if jnp.issubdtype(leaf_dtype, jnp.floating) else leaf

    return jax.tree_util.tree_map_with_path(one, tree)


def as_rows_of_context(context: Array, shape: Shape, rows: int, name: str) -> Array:
    """`context` with one row for each of `rows`; a shared one, of shape (*context,), is repeated."""
    if context.shape == shape:
        return jnp.broadcast_to(context, (rows, *shape))
    if context.shape == (rows, *shape):
        return context
    tail = ", ".join(map(str, shape))
    raise FlowsError(
        f"{name}: context has shape {context.shape}, expected ({rows}, {tail}), a row for each of {rows}, or "
        f"({tail}{',' if len(shape) == 1 else ''}), one shared by all"
    )


size = math.prod  # of a shape


def rows_within(rows: int, numbers: int, event: Shape) -> int:
    """The number of events, at most `rows`, that hold at most `numbers` numbers: an image is as large as a table."""
    return min(rows, max(numbers // max(size(event), 1), 1))


def pieces_of(rows: int, event: Shape) -> list[slice]:
    """Slices of rows, each of which fits in memory."""
    step = rows_within(*TOGETHER, event)
    return [slice(i, i + step) for i in range(0, rows, step)]


F = TypeVar("F", bound=Callable)
RENAMED = {"evaluation": "train= (and the opposite: train=True uses the batch)"}  # since jax-flows 0.0.1


def named_by(fun: Callable, vocabulary: tuple[str, ...]) -> frozenset[str]:
    """The keywords of `vocabulary` in the signature of `fun`; `**kwargs` names `init_inputs` and nothing else."""
    try:
        parameters = inspect.signature(fun).parameters
    except (TypeError, ValueError):  # a built-in without a signature
        return frozenset()
    names = set(parameters) & set(vocabulary)
    if any([parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()]):
        names |= {"init_inputs"} & set(vocabulary)
    return frozenset(names)


def naming(fun: F, names: Iterable[str]) -> F:
    """`fun`, with a signature that shows no other keywords than `names`, and all of them where it takes `**keywords`: for
    functions whose keywords depend on their parts."""
    everything = list(inspect.signature(fun).parameters.values())
    shown = [parameter for parameter in everything if parameter.name not in DEFAULTS or parameter.name in names]
    if shown and shown[-1].kind is inspect.Parameter.VAR_KEYWORD:
        written = {parameter.name for parameter in shown}
        shown[-1:] = signature([name for name in names if name not in written]).parameters.values()
    fun.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return fun


def select(names: Iterable[str], **keywords: Any) -> dict[str, Any]:
    """The `keywords` that are among `names`."""
    return {name: keywords[name] for name in keywords if name in names}


def refuse_unknown(name: str, unknown: dict[str, Any], vocabulary: tuple[str, ...]) -> None:
    if unknown:
        renamed = [f"{old}= is now {new}" for old, new in RENAMED.items() if old in unknown]
        keywords = f"the keywords are {', '.join(vocabulary)}"
        raise TypeError(f"{name}: unexpected keyword {sorted(unknown)}; {'; '.join([*renamed, keywords])}")


def signature(names: Iterable[str], *positional: str, **defaults: Any) -> inspect.Signature:
    """A signature for `inspect.signature` and `help`: parameters by position, last the `defaults`; keywords `names`."""
    parameter, by_position, by_name = inspect.Parameter, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    plain = [parameter(name, by_position) for name in positional]
    plain += [parameter(name, by_position, default=value) for name, value in defaults.items()]
    keywords = [parameter(name, by_name, default=default) for name, default in DEFAULTS.items() if name in names]
    return inspect.Signature([*plain, *keywords])
