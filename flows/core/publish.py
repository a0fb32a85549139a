"""The functions of a triple, which a user calls, made from a part.

They check shapes and keywords, cast to one dtype, stop the gradient of fixed leaves, and are compiled. Checks run while a call
is traced: once for each shape.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.caching import Memo
from flows.core.contract import CALL, Array, Params, Shape
from flows.core.errors import FlowsError
from flows.core.inputs import (
    MOST_NUMBERS,
    as_array,
    as_dim,
    as_key,
    as_rows_of_context,
    cast,
    default_dtype,
    refuse_unknown,
    signature,
    size,
    working_dtype,
)
from flows.core.lifting import FIRST_RULE
from flows.core.meshes import automatic, current_mesh, mesh_of, over, rows_on, spread
from flows.core.numerics import call_filled, current_iteration, filled, first, grown
from flows.core.params import check_floats, check_structure, shapes_of, stop_fixed
from flows.core.parts import BijectionPart, DistributionPart
from flows.core.support import Region
from flows.core.validation import check_result, check_rows

_published = Memo(size=1024)


class JointDraw(NamedTuple):
    """The function behind a `sample` that draws with the log-density of `log_pdf`, in one pass. Draws live in `region`."""

    log_pdf: Callable
    draw: Callable
    likelihood: str
    region: Region | None


# For published functions, as long as they are in use: the joint draw of a sample, and the path of a log_pdf.
_joint_draws: WeakKeyDictionary[Callable, JointDraw] = WeakKeyDictionary()
_paths: WeakKeyDictionary[Callable, Callable] = WeakKeyDictionary()


def joint_draw_of(sample: Callable) -> JointDraw | None:
    """The joint draw of a published sample; None for any other function."""
    return _joint_draws.get(sample) if inspect.isfunction(sample) else None


def path_of_log_pdf(log_pdf: Callable) -> Callable | None:
    """`path(params, x, context, rng)` of a published log_pdf of a model with a continuous layer; None for others."""
    return _paths.get(log_pdf) if inspect.isfunction(log_pdf) else None


def functions_of(part: Any, params: Params) -> tuple[Callable, Callable]:
    """The two functions of a triple; equal parts share them, and so the compiled programs."""
    expected = shapes_of(params)
    make = _publish_bijection if isinstance(part, BijectionPart) else _publish_distribution
    return _published(None if part.closures else (part, expected), lambda: make(part, expected))


def _publish_bijection(part: BijectionPart, expected: tuple) -> tuple[Callable, Callable]:
    direct = _rows_function("direct_fun", part, expected, part.direct, part.event, outputs=part.output, log_det=())
    return direct, _rows_function("inverse_fun", part, expected, part.invert, part.output, outputs=part.event, log_det=())


def _publish_distribution(part: DistributionPart, expected: tuple) -> tuple[Callable, Callable]:
    log_pdf = _rows_function("log_pdf", part, expected, part.log_pdf, part.event, log_pdf=())
    draws = _draws_function(part, expected, part.sample, samples=part.event)
    draws_and_log_pdf = _draws_function(part, expected, part.draw, samples=part.event, log_pdf=())

    def sample(rng, params=..., num_samples=1, *, context=None, train=False, **unknown):
        refuse_unknown(f"{part.name}: sample", unknown, ("context",))
        if params is ...:
            raise TypeError(f"{part.name}: sample lacks params; expected sample(rng, params, n), or of a result draw(rng, n)")
        if train:
            raise TypeError(f"{part.name}: sample takes no train=True; samples are drawn as at test time")
        return _drawn(part, draws, rng, params, num_samples, context)

    def with_log_pdf(rng, params, num_samples, *, context=None):
        return _drawn(part, draws_and_log_pdf, rng, params, num_samples, context)

    def path(params: Params, inputs: Any, context: Any, rng: Array) -> tuple:
        x = as_array(inputs, "inputs")
        check_rows(x, part.event, part.name, unit_vectors=_on_sphere(part))
        context, _ = _call_keywords(part, context, None, False)
        dtype = working_dtype(x.dtype)
        params, context = _prepare(part, expected, params, context, dtype, x.shape[0])
        return part.path(params, x.astype(dtype), context, rng)  # type: ignore[misc]

    _joint_draws[sample] = JointDraw(log_pdf, with_log_pdf, part.likelihood, part.region)
    if part.path is not None:
        _paths[log_pdf] = path
    return log_pdf, _dressed(sample, "sample", part, part.keywords & {"context"}, "rng", "params", num_samples=1)


def _rows_function(name: str, part: Any, expected: tuple, run: Callable, event: Shape, **results: Shape) -> Callable:
    """A function of rows as a user calls it, with the shapes of what `run` returns for each row."""
    unit_vectors = isinstance(part, DistributionPart) and _on_sphere(part)

    def checked(params: Params, x: Array, context: Any, rng: Any, train: bool) -> Any:
        check_rows(x, event, part.name, unit_vectors=unit_vectors)
        dtype = working_dtype(x.dtype)
        params, context = _prepare(part, expected, params, context, dtype, x.shape[0])
        result = run(params, x.astype(dtype), context, rng, train)
        return _checked(part, x.shape[0], result, results, (x.dtype, dtype) if "outputs" in results else (dtype,))

    compiled = _compiled(part, checked, 4, 1, 2)

    def function(params, inputs, *, context=None, rng=None, train=False, **unknown):
        refuse_unknown(f"{part.name}: {name}", unknown, CALL)
        context, rng = _call_keywords(part, context, rng, train)
        in_loop = "outputs" in results and current_iteration() is not None  # the body of a loop is compiled with it
        with explained(part.name, params):
            x = as_array(inputs, "inputs")
            return call_filled(checked if in_loop else compiled, part, event, params, x, context, rng, bool(train))

    return _dressed(function, name, part, part.keywords, "params", "inputs")


def _draws_function(part: DistributionPart, expected: tuple, draw: Callable, **results: Shape) -> Callable:
    """A compiled function that draws in the dtype of the params, with the shapes of what `draw` returns for each row."""

    def checked(rng: Array, params: Params, n: int, context: Any) -> Any:
        dtypes = {np.dtype(jnp.result_type(leaf)) for leaf in jax.tree.leaves(params)}
        dtype = max(map(working_dtype, dtypes), key=lambda candidate: candidate.itemsize) if dtypes else default_dtype()
        params, context = _prepare(part, expected, params, context, dtype, n)
        return _checked(part, n, draw(rng, params, n, dtype, context), results, [dtype] * len(results))

    return _compiled(part, checked, 2, 3)


def _drawn(part: DistributionPart, compiled: Callable, rng: Any, params: Params, num_samples: Any, context: Any) -> Any:
    if isinstance(num_samples, bool) or not isinstance(num_samples, int | np.integer):
        raise TypeError(f"{part.name}: num_samples is {num_samples!r}; expected a whole number, known before jit")
    n = int(num_samples)
    if n < 0:
        raise FlowsError(f"{part.name}: num_samples is {n}; expected 0 or more")
    if n * size(part.event) > MOST_NUMBERS:
        raise FlowsError(
            f"{part.name}: num_samples is {n:,} of {size(part.event):,} numbers each; expected at most {MOST_NUMBERS:,} "
            "numbers in one call. Draw them in parts, each with another key"
        )
    context, _ = _call_keywords(part, context, None, False)
    # Few sizes are drawn, so that few programs are compiled; under a trace too, as draws may depend on their number.
    fits = context is None or context.shape in (part.context, (n, *(part.context or ())))
    few = part.compiled and part.independent and fits and n and mesh_of(context) is None and current_mesh() is None
    drawn = filled(n) if few else n
    if context is not None and context.shape != part.context and drawn > n:
        context = grown(context, drawn)
    with explained(part.name, params):
        draws = compiled(as_key(rng), params, drawn, context)
    return draws if drawn == n else jax.tree.map(lambda leaf: first(leaf, n), draws)


def _checked(part: Any, rows: int, result: Any, shapes: dict[str, Shape], dtypes: Sequence[Any]) -> Any:
    """An array, or a tuple of arrays, in their dtypes, after a check of the shapes of their rows."""
    arrays = result if isinstance(result, tuple) else (result,)
    for x, (name, shape) in zip(arrays, shapes.items(), strict=True):
        check_result(x, (rows, *shape), part.name, name)
    arrays = tuple([x.astype(dtype) for x, dtype in zip(arrays, dtypes, strict=True)])
    return arrays if isinstance(result, tuple) else arrays[0]


def _on_sphere(part: DistributionPart) -> bool:
    return part.region is not None and bool(part.region.sphere.any())


def _compiled(part: Any, fun: Callable, static: int, *rows: int) -> Callable:
    """A function of a part, compiled where possible, whose argument `static` is known before. Where one of the arguments `rows`
    is spread over a mesh, a separate program runs, in which each device computes its rows."""
    if not part.compiled:
        return fun
    here = jax.jit(fun, static_argnums=static, inline=True)

    def spread_out(mesh: Any, *arguments: Any) -> Any:
        with rows_on(mesh):
            return jax.tree.map(spread, fun(*arguments))

    there = jax.jit(spread_out, static_argnums=(0, static + 1))

    def run(*arguments: Any) -> Any:
        if jax.device_count() == 1:
            return here(*arguments)
        if current_mesh() is not None:  # inside such a program, which cannot use a trace for one device
            return jax.tree.map(spread, fun(*arguments))
        meshes = {i: mesh for i in rows if (mesh := mesh_of(arguments[i])) is not None}
        if not meshes:
            return here(*arguments)
        mesh = next(iter(meshes.values()))
        inside, outside = over(automatic(mesh), 0), over(mesh, 0)  # each number stays on its device
        placed = [jax.device_put(argument, inside) if i in meshes else argument for i, argument in enumerate(arguments)]
        return jax.device_put(there(inside.mesh, *placed), outside)

    return run


def _dressed(function: Callable, name: str, part: Any, keywords: frozenset[str], *positional: str, **defaults: Any) -> Callable:
    """Name, signature and docstring, for `help` and `inspect`."""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name} of {part.name}, event {as_dim(part.event)!r}."
    function.__signature__ = signature(keywords & set(CALL), *positional, **defaults)  # type: ignore[attr-defined]
    return function


def _call_keywords(part: Any, context: Any, rng: Any, train: Any) -> tuple[Array | None, Array | None]:
    """Context and rng of one call in their inner form; a missing or an unexpected context is an error."""
    if context is not None and part.context is None:
        hint = "give context_dim to init_fun" if "context" in part.keywords else "no layer of it takes one"
        raise TypeError(f"{part.name}: context was given, but this model was made without it; {hint}")
    if context is None and part.context is not None:
        raise FlowsError(
            f"{part.name}: context is missing; this model was made with context_dim={as_dim(part.context)!r}, so every call "
            "needs context=, a row for each input or one shared by all"
        )
    if not isinstance(train, bool | np.bool_):
        raise TypeError(f"{part.name}: train is {train!r}; expected True or False, known before jit")
    context = None if context is None else as_array(context, "context")
    return context, (as_key(rng) if rng is not None and "rng" in part.keywords else None)


def _prepare(part: Any, expected: tuple, params: Params, context: Any, dtype: Any, rows: int) -> tuple[Params, Any]:
    check_floats(params, part.name)
    check_structure(params, expected, part.name)
    if context is not None:
        alone = context.shape == part.context and isinstance(part, DistributionPart) and part.one_context
        context = (context[None] if alone else as_rows_of_context(context, part.context, rows, part.name)).astype(dtype)
    return stop_fixed(cast(params, dtype)), context


class explained(AbstractContextManager):
    """Replaces JAX's error for a closure or params that break the contract by one that names the layer and the remedy."""

    def __init__(self, name: str, params: Params):
        self.name, self.params = name, params

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None and issubclass(kind, jax.errors.UnexpectedTracerError):
            raise FlowsError(FIRST_RULE.format(name=self.name)) from error
        if kind in (TypeError, OverflowError, ValueError) and not all(map(_is_number, jax.tree.leaves(self.params))):
            raise TypeError(
                f"{self.name}: params hold a leaf that is not an array of numbers; expected the params of its init_fun"
            ) from None


def _is_number(leaf: Any) -> bool:
    """Tell whether JAX accepts a leaf as an array of numbers."""
    if isinstance(leaf, jax.Array):
        return True
    if isinstance(leaf, np.ndarray | np.generic):
        return not np.ma.isMaskedArray(leaf) and (leaf.dtype.kind in "biufc" or jnp.issubdtype(leaf.dtype, jnp.inexact))
    return isinstance(leaf, bool | float | complex) or (isinstance(leaf, int) and -(2**31) <= leaf < 2**31)
