"""NumPyro's objects taken apart: the float arrays that their constructors were given, and the objects that others make."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from numpyro.distributions import Delta, Distribution, ImproperUniform, MaskedDistribution
from numpyro.distributions.transforms import Transform

from flows.core import FlowsError, Value, check_function, is_constructor
from flows.interop.models import Model

CALLED = {"base_distribution": "base_dist", "tseq": "transforms", "transform": "_inv"}  # attributes by other names
NO_DENSITY = (Delta, ImproperUniform, MaskedDistribution)
DERIVED = ("covariance_matrix", "precision_matrix")  # beside scale_tril, which alone is then handed on


def made_by(make: Callable, kind: type, whose: str) -> Any:
    """The object that a user's function makes, as numbers, also within a trace."""
    expected = f"a function make() that returns a numpyro {kind.__name__}"
    if isinstance(make, Distribution | Transform):
        raise TypeError(f"{whose}: make is {_named(make)} itself; expected {expected}: {whose}(lambda: ...)")
    check_function(make, f"{whose}: make", expected)
    try:
        inspect.signature(make).bind()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{whose}: make is {make!r:.60}, which cannot be called as make(): {error}; expected {expected}"
        ) from None
    with jax.ensure_compile_time_eval():
        made, again = make(), make()
    if not isinstance(made, kind):
        other = {Distribution: "FromDistribution", Transform: "FromTransform"}
        remedy = next((f"; give it to {name}" for each, name in other.items() if isinstance(made, each)), "")
        if isinstance(made, Value) or is_constructor(made):
            remedy = "; a model of ours is a layer or a base as it is"
        raise TypeError(f"{whose}: make() returned {_named(made)}; expected {expected}{remedy}")
    for node in _nodes(made):
        if isinstance(getattr(node, "model", None), Model):
            raise FlowsError(f"{whose}: {node!r:.80} is of a model of ours; give that itself, a layer or a base as it is")
        if isinstance(node, NO_DENSITY):
            raise FlowsError(f"{whose}: {_named(node)} has no density whose integral is 1; expected one that has")
    if not _alike(made, again):
        raise FlowsError(
            f"{whose}: make() returned {_named(made)}, and another one when it was called again; expected the same every time. "
            "Draw outside of it"
        )
    return made


def _alike(a: Any, b: Any) -> bool:
    """Tell whether two objects are of the same types and numbers, as far as they can be told apart."""
    ours, theirs = list(_nodes(a)), list(_nodes(b))
    if list(map(type, ours)) != list(map(type, theirs)):
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(np.array_equal(x, y) for x, y in pairs if isinstance(x, jax.Array | np.ndarray | float | int))


def _nodes(x: Any) -> Iterator[Any]:
    """An object, what it was made of, and what that was made of."""
    yield x
    for _, each in _entries(x):
        yield from _nodes(each)


def arguments_of(node: Any) -> dict[str, Any]:
    """The arguments that a constructor of NumPyro's was called with, as the object keeps them under their names."""
    kind = type(node)
    if kind.__init__ is object.__init__:
        return {}
    found = {}
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        if name == "validate_args":
            found[name] = False
            continue
        known = [each for each in (name, f"_{name}", CALLED.get(name)) if each in vars(node)]
        if known:
            found[name] = vars(node)[known[0]]
        elif isinstance(getattr(kind, name, None), property):
            found[name] = getattr(node, name)
        elif parameter.default is parameter.empty:
            raise FlowsError(f"{_named(node)} does not keep its argument {name!r}, so it cannot be made anew of other params")
    if "scale_tril" in found:
        found = {name: value for name, value in found.items() if name not in DERIVED}
    return found


def arrays_of(x: Any) -> Any:
    """The float arrays among the arguments of an object, in nested dicts by name, entries of sequences by their numbers; None
    where there are none. NumPy arrays and Python numbers are constants."""
    if isinstance(x, jax.Array):
        return x if jnp.issubdtype(x.dtype, jnp.floating) else None
    found = {name: arrays for name, each in _entries(x) if (arrays := arrays_of(each)) is not None}
    return found or None


def with_arrays(x: Any, arrays: Any) -> Any:
    """The object made anew, with other arrays in the places of its own.

    Of a matrix called scale_tril what is above the diagonal does nothing, whatever training makes of it: NumPyro's draws would
    see it, and its densities not.
    """
    if isinstance(x, jax.Array):
        return x if arrays is None else arrays
    entries = {name: with_arrays(each, None if arrays is None else arrays.get(name)) for name, each in _entries(x)}
    if isinstance(x, Distribution | Transform):
        return type(x)(**{name: jnp.tril(each) if name.startswith("scale_tril") else each for name, each in entries.items()})
    return type(x)(entries.values()) if isinstance(x, list | tuple) else x


def _entries(x: Any) -> list[tuple[str, Any]]:
    if isinstance(x, Distribution | Transform):
        return list(arguments_of(x).items())
    return [(str(i), each) for i, each in enumerate(x)] if isinstance(x, list | tuple) else []


def ends_depend_on(regions: Callable, arrays: Any) -> Any:
    """Tell for each array whether the ends `regions(arrays)`, constraints of NumPyro's, depend on it."""

    def ends(arrays: Any) -> list:
        return [jnp.asarray(leaf) for leaf in jax.tree.leaves(regions(arrays))]

    leaves, tree = jax.tree.flatten(arrays)
    jaxpr = jax.make_jaxpr(lambda leaves: ends(jax.tree.unflatten(tree, leaves)))(leaves).jaxpr
    found = []
    for leaf in jaxpr.invars:
        reached = {leaf}
        for equation in jaxpr.eqns:
            if any(not isinstance(each, Literal) and each in reached for each in equation.invars):
                reached.update(equation.outvars)
        found.append(any(not isinstance(each, Literal) and each in reached for each in jaxpr.outvars))
    return jax.tree.unflatten(tree, found)


def _named(x: Any) -> str:
    return f"a {type(x).__name__}" if isinstance(x, Distribution | Transform) else f"{x!r:.60}"
