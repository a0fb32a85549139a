"""Params: which leaves train, which are fixed, and how measured statistics are measured again."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core.constructors import check_takes
from flows.core.contract import Params
from flows.core.errors import FlowsError
from flows.core.inputs import as_array
from flows.core.numerics import on_cpu, put
from flows.core.validation import boolean


def _is_fixed(path: tuple) -> bool:
    return any(isinstance(step, jax.tree_util.DictKey) and step.key == "fixed" for step in path)


def _by_place(params: Params) -> list[tuple[str, Any]]:
    """Leaves with their places, for errors."""
    return [(f"params{jax.tree_util.keystr(path)}", leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]


def trainable(params: Params) -> Params:
    """The leaves that an optimiser may touch: False for every leaf under the dict key "fixed", True elsewhere.

    Args:
        params: the params of any bijection or distribution.

    Returns:
        A pytree of the structure of `params` with a bool at each leaf.

    Example:
        >>> import flows
        >>> params = flows.Shuffle()(0, 3).params
        >>> flows.trainable({"layer": params, "scale": 1.0})
        {'layer': {'fixed': {'ranks': False}}, 'scale': True}

        Weight decay that leaves the fixed leaves alone:

        >>> import optax
        >>> optimizer = optax.masked(optax.adamw(1e-3), flows.trainable)
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: not _is_fixed(path), params)


def stop_fixed(params: Params) -> Params:
    """`params` with no gradient through the fixed leaves."""
    stop = jax.lax.stop_gradient
    return jax.tree_util.tree_map_with_path(lambda path, leaf: stop(leaf) if _is_fixed(path) else leaf, params)


def check_floats(params: Params, name: str) -> None:
    """Refuse leaves that are not floating numbers, with a better error than JAX; `cast` refuses complex ones."""
    for place, leaf in _by_place(params):
        dtype = getattr(leaf, "dtype", type(leaf))
        if np.ma.isMaskedArray(leaf) or not (dtype in (float, complex) or jnp.issubdtype(dtype, jnp.inexact)):
            got = f"dtype {dtype}" if hasattr(leaf, "dtype") else f"the value {leaf!r:.60}"
            raise TypeError(f"{name}: {place} has {got}; expected floating numbers, jnp.asarray(leaf, float)")


def abstract(tree: Any) -> Any:
    """The shapes and dtypes of a pytree of arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree)


def shapes_of(params: Params) -> tuple:
    """The treedef and the leaf shapes, as a hashable key."""
    leaves, treedef = jax.tree.flatten(params)
    return treedef, tuple([tuple(jnp.shape(leaf)) for leaf in leaves])


def check_structure(params: Params, expected: tuple, name: str) -> None:
    """Refuse params made for another model, before a wrong shape can broadcast."""
    got = shapes_of(params)
    if got == expected:
        return
    if got[0] != expected[0]:
        numbers = expected[0].unflatten(range(expected[0].num_leaves))
        difference = _difference(params, numbers) or f"params have the structure {got[0]}, expected {expected[0]}"
        raise FlowsError(
            f"{name}: {difference}; pass the params that init_fun returned for this model, or what an optimiser made of them"
        )
    shapes = zip(_by_place(params), got[1], expected[1], strict=True)
    wrong = [f"{place} has shape {a}, expected {b}" for (place, _), a, b in shapes if a != b]
    raise FlowsError(f"{name}: {'; '.join(wrong[:3])}; these params were made for another input_dim or other arguments")


def _difference(got: Any, expected: Any, where: str = "params") -> str:
    """The first place where params differ in structure from a tree of numbers, and how; nothing where they do not."""
    if isinstance(expected, int) and jax.tree_util.all_leaves([got]):
        return ""
    if type(got) is not type(expected) or (isinstance(got, list | tuple) and len(got) != len(expected)):
        return f"{where} is {_kind(got)}, expected {_kind(expected)}"
    if isinstance(got, dict) and got.keys() != expected.keys():
        lacking, extra = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
        differences = [f"lacks {', '.join(map(repr, lacking))}"] * bool(lacking)
        differences += [f"has {', '.join(map(repr, extra))} in addition"] * bool(extra)
        return f"{where} {' and '.join(differences)}"
    keys = got.keys() if isinstance(got, dict) else range(len(got)) if isinstance(got, list | tuple) else ()
    return next(filter(None, (_difference(got[key], expected[key], f"{where}[{key!r}]") for key in keys)), "")


def _kind(tree: Any) -> str:
    if isinstance(tree, dict):
        return f"a dict with {', '.join(map(repr, tree)) or 'no keys'}"
    if isinstance(tree, list | tuple):
        return f"a {type(tree).__name__} of {len(tree)}"
    return "an array" if isinstance(tree, int) or hasattr(tree, "shape") else f"a {type(tree).__name__}"


def stacked(trees: Sequence[Params]) -> Params:
    """The params of several equal layers as one pytree, with a leading axis. On a CPU NumPy does it, which compiles nothing."""
    leaves = jax.tree.leaves(trees)
    if not all(map(on_cpu, leaves)) or len({(leaf.sharding, leaf.committed) for leaf in leaves}) > 1:
        return _stack(*trees)
    return jax.tree.map(lambda *leaves: put(np.stack(leaves), like=leaves[0]), *trees)


@jax.jit
def _stack(*trees: Params) -> Params:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstacked(params: Params, n: int, name: str) -> list[Params]:
    """The params of each of n layers."""
    check_copies(params, n, name)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(n)]


def check_copies(params: Params, n: int, name: str) -> None:
    """Refuse params without a leading axis of n; indexing alone would clamp an index that is out of range."""
    for place, leaf in _by_place(params):
        if jnp.shape(leaf)[:1] != (n,):
            raise FlowsError(f"{name}: {place} has shape {jnp.shape(leaf)}; expected a leading axis of {n}, one for each copy")


def check_leaves(params: Params, name: str) -> Params:
    """The params that an author returned, as arrays, which must be floating: `jax.grad` works on the whole tree."""

    def one(path: tuple, leaf: Any) -> Any:
        where = f"{name}: params{jax.tree_util.keystr(path)}"
        try:
            array = jnp.asarray(leaf)
        except TypeError:
            raise TypeError(f"{where} is {leaf!r:.60}; params are a pytree of float arrays") from None
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise FlowsError(
                f"{where} has dtype {array.dtype}; params are float arrays. Store whole numbers as floats under the key "
                '"fixed", and read a permutation through argsort'
            )
        return jax.lax.convert_element_type(array, array.dtype)  # never weakly typed: a step of training would retrace

    return jax.tree_util.tree_map_with_path(one, params)


def remeasure(
    init_fun: Any, params: Params, inputs: Any, *, context: Any = None, rng: Any = None, moving: bool = False
) -> Params:
    """Measure the statistics in params again, from data, and leave trained params as they are.

    Runs `init_fun(rng, event, init_inputs=inputs, params=params)`: a layer that measures (batch norm) replaces its
    statistics by the statistics of `inputs`; later layers see the output with new statistics. Do this once after each epoch
    and before testing (Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", 2017,
    arXiv:1705.07057, appendix B).

    Args:
        init_fun: a bijection or a distribution (the constructor's value).
        params: its params.
        inputs: data, shape (batch, *event).
        context: (batch, *context) or (*context,), where the flow is conditional.
        rng: key, where a layer draws random numbers in its forward pass.
        moving: move the statistics by the momentum m of the layer, `m * old + (1 - m) * new`, instead of replacing them: a
            leaf "momentum" next to the statistics under "fixed".

    Returns:
        New params of the same structure.

    Errors:
        FlowsError: inputs have no rows, or params belong to another model. TypeError: init_fun is not a model.

    Example:
        >>> import flows, jax
        >>> x = 3.0 + jax.random.normal(jax.random.key(1), (100, 2))
        >>> init_fun = flows.BatchNorm()
        >>> params = init_fun(0, 2).params
        >>> new = flows.remeasure(init_fun, params, x)
        >>> bool(abs(new["fixed"]["mean"] - x.mean(0)).max() < 1e-5)
        True
    """
    if not callable(init_fun):
        raise TypeError(f"remeasure: init_fun is {init_fun!r:.60}; expected a bijection or a distribution")
    boolean(moving, "remeasure: moving")
    inputs = as_array(inputs, "inputs")
    if inputs.ndim < 2 or not inputs.shape[0]:
        raise FlowsError(f"remeasure: inputs have shape {inputs.shape}, expected (batch, *event) with at least one row")
    keywords: dict[str, Any] = {}
    if context is not None:
        context = as_array(context, "context")
        shared = context.ndim < 2 or context.shape[0] != inputs.shape[0]
        keywords = {"context_dim": context.shape if shared else context.shape[1:], "init_context": context}
    rng = jax.random.key(0) if rng is None else rng
    event = inputs.shape[1] if inputs.ndim == 2 else inputs.shape[1:]
    check_takes(init_fun, "init_fun(rng, input_dim)", "remeasure: init_fun")
    new = init_fun(rng, event, init_inputs=inputs, params=params, **keywords)[0]
    check_structure(params, shapes_of(new), "remeasure")
    new = jax.tree.map(lambda a, b: jnp.asarray(b, jnp.result_type(a)), params, new)
    return _move(params, new) if moving else new


def _part_way(m: Any, old: Any, new: Any) -> Any:
    """m * old + (1 - m) * new; under `Repeat` m has a momentum for each layer, along the first axis."""
    m = jnp.reshape(m, jnp.shape(m) + (1,) * (jnp.ndim(old) - jnp.ndim(m)))
    return m * old + (1 - m) * new


def _move(old: Params, new: Params) -> Params:
    """`new`, but where a dict "fixed" has a leaf "momentum", its other leaves go only a part of the way."""
    if isinstance(old, dict):
        fixed = old.get("fixed")
        moved = {key: _move(old[key], new[key]) for key in old}
        if isinstance(fixed, dict) and "momentum" in fixed:
            m = fixed["momentum"]
            moved["fixed"] = {
                key: fixed[key] if key == "momentum" else _part_way(m, fixed[key], new["fixed"][key]) for key in fixed
            }
        return moved
    if isinstance(old, tuple | list):
        pairs = [_move(a, b) for a, b in zip(old, new, strict=True)]
        return type(old)(*pairs) if hasattr(old, "_fields") else type(old)(pairs)
    return new
