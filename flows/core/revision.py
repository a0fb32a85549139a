"""`flows.revise`: a model with other arguments, for the same params."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax

from flows.core.constructors import Value, call, is_constructor
from flows.core.contract import Shape
from flows.core.decorators import NOTHING, InitFun, events_of
from flows.core.errors import FlowsError
from flows.core.params import check_structure, structure

V = TypeVar("V", bound=InitFun)


def revise(init_fun: V, **arguments: Any) -> V:
    """The same model with an argument changed, in every constructor that names it; its params serve on.

    What changes how a fitted model is used (a temperature, how an equation is solved) is an argument of a constructor, so the
    model with another value of it is another `init_fun`, whose functions take the params of the first.

    Args:
        init_fun: a constructor's value, such as `result.init_fun`.
        arguments: new values, by name. Layers inside layers are changed too.

    Returns:
        The new constructor's value.

    Errors:
        FlowsError: no constructor in it names an argument, or the params would change at an event at which it is in use; where
            it was not used yet, calls of the new functions tell. TypeError: no constructor's value, or no arguments.

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
    if is_constructor(init_fun) or not isinstance(init_fun, InitFun):
        raise TypeError(f"revise: {init_fun!r:.80} is no constructor's value; expected one such as result.init_fun")
    if not arguments:
        raise TypeError(f"revise: no argument was given for {init_fun!r:.80}; expected one by name, such as temperature=0.7")
    known = set[str]()

    def revised(x: Any) -> Any:
        if isinstance(x, Value):
            known.update(x.arguments)
            own = {name: arguments[name] if name in arguments else revised(each) for name, each in x.arguments.items()}
            return call(x.constructor, own)
        if isinstance(x, tuple):
            return tuple(revised(each) for each in x)
        return {key: revised(each) for key, each in x.items()} if isinstance(x, Mapping) else x

    new = revised(init_fun)
    if missing := sorted(arguments.keys() - known):
        told = f"has the argument {', '.join(missing)}; there are {', '.join(sorted(known))}"
        raise FlowsError(f"revise: no constructor in {init_fun!r:.200} {told}")
    for event, context in events_of(init_fun):
        try:
            check_structure(_abstract(init_fun, event, context), structure(_abstract(new, event, context)), "the revised model")
        except FlowsError as error:
            told = ", ".join(f"{name}={value!r:.60}" for name, value in arguments.items())
            raise FlowsError(f"revise: {told} would change the params at events {event}: {error}") from None
    return new


def _abstract(init_fun: InitFun, event: Shape, context: Shape | None) -> Any:
    """The shapes of its params."""
    part = init_fun.part(event, context)
    return jax.eval_shape(lambda key: part.init(key, NOTHING), jax.random.key(0))
