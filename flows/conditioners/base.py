"""Conditioners: networks that make a transformer's parameters, as values of constructors. Family: Write one."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, ParamSpec, overload

import jax.numpy as jnp

from flows.core import (
    INIT,
    Array,
    Value,
    as_key,
    check_takes,
    decorated,
    is_constructor,
    named_by,
    not_negative,
    refuse_argument,
    refuse_unknown,
    said_of,
    signature,
    size,
)

P = ParamSpec("P")
OF_IMAGES = (
    "Models such as Glow() and RealNVP() are for vectors; models of images are GlowImage(), RealNVPImage(), NSFImage() and "
    "NICEImage(), or Coupling(net) with a convolutional net, such as conditioners.ConvNet(64)"
)


class Network(NamedTuple):
    """The pair that a conditioner's init returns: `apply_fun(params, inputs)` maps (..., input_dim) to (..., output_dim)."""

    params: Any
    apply_fun: Any  # callable


def as_network(pair: Any, name: str) -> Network:
    """Return the pair that a conditioner's init returned, if it is one."""
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not callable(pair[1]):
        raise TypeError(f"{name} returned {pair!r:.80}; expected (params, apply_fun)")
    return Network(*pair)


class ConditionerInit(Value):
    """`net(rng, input_dim, output_dim) -> Network(params, apply_fun)`. `.lipschitz` bounds |apply(x) - apply(x')| / |x - x'|,
    Euclidean, at any params; None if unknown. `.running` says whether it has running statistics under "fixed"."""

    lipschitz: float | None
    running: bool

    def __init__(self, construct: Callable, arguments: dict[str, Any], inner: Any, lipschitz: Any = None, running: Any = False):
        super().__init__(construct, arguments, inner)
        bound, name = said_of(lipschitz, arguments, f"{construct.__name__}: lipschitz"), construct.__name__
        object.__setattr__(self, "lipschitz", check_lipschitz(bound, name))
        object.__setattr__(self, "running", bool(said_of(running, arguments, f"{name}: running")))

    def __call__(self, rng: Any, input_dim: Any, output_dim: Any, **keywords: Any) -> Network:
        name = self.constructor.__name__
        named = named_by(self.inner, INIT)
        refused = {key: value for key, value in keywords.items() if key not in named}
        refuse_unknown(name, refused, tuple(named) or ("none",))
        return as_network(self.inner(as_key(rng), input_dim, output_dim, **keywords), name)

    @property
    def __signature__(self) -> inspect.Signature:
        names = named_by(self.inner, INIT)
        return signature(names, "rng", "input_dim", "output_dim")


@overload
def conditioner(function: Callable[P, Any], /) -> Callable[P, ConditionerInit]: ...
@overload
def conditioner(
    *, lipschitz: float | Callable[..., float | None] | None = None, running: bool | Callable[..., bool] = False
) -> Callable[[Callable[P, Any]], Callable[P, ConditionerInit]]: ...
def conditioner(
    function: Callable | None = None,
    /,
    *,
    lipschitz: float | Callable[..., float | None] | None = None,
    running: bool | Callable[..., bool] = False,
) -> Any:
    """Turn a function that returns `net(rng, input_dim, output_dim)` into a constructor of conditioners.

    `net` returns `(params, apply_fun)`; `apply_fun(params, inputs)` maps (batch, input_dim) to (batch, output_dim). Without
    train=True a row of outputs must depend on its row of inputs alone. A plain function of the form of `net` serves as a
    conditioner too; the decorator adds a name, so that models can be saved.

    Args:
        function: the function; its arguments are plain values, as for `flows.bijection`.
        lipschitz: a bound on the network's Lipschitz constant in its inputs, Euclidean, at any params; or a function of the
            constructor's arguments, by name, that returns one. `ResidualBlock` needs a bound below 1.
        running: whether it has running statistics under "fixed", as batch norm does, which `fit` measures again before each
            validation; or such a function.

    Errors:
        TypeError: a net that does not return such a pair, when it is used.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> @flows.conditioner
        ... def Linear():
        ...     def net(rng, input_dim, output_dim):
        ...         return {"w": jnp.zeros((input_dim, output_dim))}, lambda params, inputs: inputs @ params["w"]
        ...     return net
        >>> flows.AffineCoupling(Linear())
        AffineCoupling(...Linear())
    """
    make = partial(ConditionerInit, lipschitz=lipschitz, running=running)
    return decorated(function, make, "flows.conditioner", "net(rng, input_dim, output_dim)")


def check_lipschitz(bound: Any, name: str) -> float | None:
    """A Lipschitz constant that a network claims, if it is a number from 0; None where it claims nothing."""
    return None if bound is None else not_negative(bound, f"{name}: its Lipschitz constant")


class Leading:
    """An apply_fun that maps (*batch, features), written as `leading(params, x)` on (features, batch)."""

    sees_all = True  # each output depends on all inputs

    def __init__(self, leading: Callable):
        self.leading = leading

    def __call__(self, params: Any, inputs: Array, context: Array | None = None, **keywords: Any) -> Array:
        batch, inputs = inputs.shape[:-1], inputs.reshape(size(inputs.shape[:-1]), inputs.shape[-1])
        if context is not None:
            rows = jnp.broadcast_to(context, (*batch, context.shape[-1])) if context.ndim == 1 else context
            keywords["context"] = rows.reshape(inputs.shape[0], rows.shape[-1]).T
        outputs = self.leading(params, inputs.T, **keywords).T
        return outputs.reshape(*batch, outputs.shape[1])

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.leading)


def check_conditioner(x: Any, name: str) -> Callable:
    """`x`, if it can be a conditioner."""
    if is_constructor(x) or (isinstance(x, Value) and not isinstance(x, ConditionerInit)) or not callable(x):
        refuse_argument(
            x, f"{name}: the conditioner", "a network such as MLP(64), or a function net(rng, input_dim, output_dim)"
        )
    check_takes(x, "net(rng, input_dim, output_dim)", f"{name}: the conditioner")
    return x
