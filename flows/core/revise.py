"""A model with another value, or another argument, in it."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from flows.core.constructors import Value, call, is_model
from flows.core.errors import FlowsError
from flows.core.params import check_structure, shapes_of
from flows.core.parts import made_once
from flows.core.structure import opened, structure_of

V = TypeVar("V", bound=Value)


def value_at(value: Any, path: Sequence[Any]) -> Any:
    """The value whose params are at `path`; None where there is none."""
    for piece in structure_of(value).pieces if path else ():
        if tuple(path[: (at := len(piece.params_at))]) == piece.params_at:
            return value_at(piece.value, path[at:])
    return None if path else value


def replaced(value: Any, path: Sequence[Any], new: Any) -> Any:
    """The model with a new value in place of the value whose params are at `path`."""
    if not path:
        return new
    piece = next(piece for piece in structure_of(value).pieces if tuple(path[: len(piece.params_at)]) == piece.params_at)
    inner = replaced(piece.value, path[len(piece.params_at) :], new)
    if (place := piece.place) is not None:
        several = value.arguments[piece.argument]
        inner = (*several[:place], inner, *several[place + 1 :])
    return call(value.constructor, {**value.arguments, piece.argument: inner})


def revise(init_fun: V, **arguments: Any) -> V:
    """Make a model with an argument changed, in every constructor that names it; the params stay valid.

    How a fitted model is used (its temperature, how an equation is solved) depends on arguments of constructors. A model with
    another value of such an argument is another `init_fun`, whose functions take the params of the first.

    Args:
        init_fun: a constructor's value, such as `result.init_fun`.
        arguments: new values, by name. Layers inside layers are changed too.

    Returns:
        The new constructor's value.

    Errors:
        FlowsError: no constructor in the model names the argument, or the params would change at an event where the model was
            used; at other events calls of the new functions raise it. TypeError: not a constructor's value, or no arguments.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.Flow(flows.AffineCoupling())
        >>> params = init_fun(0, 2).params
        >>> colder = flows.revise(init_fun, temperature=0.5)
        >>> colder
        Flow(AffineCoupling(), Normal(temperature=0.5))
        >>> colder(0, 2).sample(1, params, 3).shape
        (3, 2)
    """
    if not is_model(init_fun):
        raise TypeError(f"revise: {init_fun!r:.80} is not a constructor's value; expected one such as result.init_fun")
    if not arguments:
        raise TypeError(f"revise: no argument was given for {init_fun!r:.80}; expected one by name, such as temperature=0.7")
    known = set[str]()

    def revised(x: Any) -> Any:
        if isinstance(x, Value):
            known.update(x.arguments)
            changed = {
                name: arguments[name] if name in arguments else revised(argument) for name, argument in x.arguments.items()
            }
            return call(x.constructor, changed)
        if isinstance(x, tuple):
            return tuple(revised(entry) for entry in x)
        return {key: revised(entry) for key, entry in x.items()} if isinstance(x, Mapping) else x

    new = revised(init_fun)
    if missing := sorted(arguments.keys() - known):
        message = f"has the argument {', '.join(missing)}; there are {', '.join(sorted(known))}"
        raise FlowsError(f"revise: no constructor in {init_fun!r:.200} {message}")
    for event, context in [at for known, *at in made_once.keys() if known == opened(init_fun)]:  # noqa: SIM118
        try:
            old_params, params = (value.part(event, context).abstract_params() for value in (init_fun, new))
            check_structure(old_params, shapes_of(params), "the revised model")
        except FlowsError as error:
            message = ", ".join(f"{name}={value!r:.60}" for name, value in arguments.items())
            raise FlowsError(f"revise: {message} would change the params at events {event}: {error}") from None
    return new
