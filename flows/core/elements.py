"""What engines are made of: transformers (scalar monotone maps) and conditioners (networks), as constructor values."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, ParamSpec

import jax.numpy as jnp

from flows.core import vocabulary
from flows.core.arrays import Array, as_array, as_key, size
from flows.core.errors import FlowsError
from flows.core.values import Value, constructor, is_constructor

P = ParamSpec("P")


class Transformer(Value):
    """A scalar monotone map y = f(x; theta), elementwise: `theta` is (num_params, *x.shape).

    One with weights of its own, shared by all entries, makes them with `init(rng)` and takes them as a third argument.
    """

    @property
    def num_params(self) -> int:
        """How many numbers `theta` holds for each entry of x."""
        return self.inner[0]

    @property
    def has_weights(self) -> bool:
        return len(self.inner) > 3

    def init(self, rng: Any) -> Any:
        """The weights of its own, a pytree; () where there are none."""
        return self.inner[3](as_key(rng)) if self.has_weights else ()

    def direct(self, theta: Array, x: Array, weights: Any = ()) -> tuple[Array, Array]:
        """y and log dy/dx, each of the shape of x."""
        return self.inner[1](*self._checked(theta, x), *self._own(weights))

    def inverse(self, theta: Array, y: Array, weights: Any = ()) -> tuple[Array, Array]:
        """x and log dx/dy: minus the direct log-derivative at the x returned."""
        return self.inner[2](*self._checked(theta, y), *self._own(weights))

    def _checked(self, theta: Any, x: Any) -> tuple[Array, Array]:
        theta, x = as_array(theta, f"{self!r}: theta"), as_array(x, f"{self!r}: its input")
        if theta.shape != (self.num_params, *x.shape):
            raise FlowsError(
                f"{self!r}: theta has shape {theta.shape}, expected {(self.num_params, *x.shape)}: (num_params, *x.shape)"
            )
        return theta, x

    def _own(self, weights: Any) -> tuple:
        if not self.has_weights:
            return ()
        if isinstance(weights, tuple) and not weights:
            raise FlowsError(f"{self!r} has weights of its own; make them with .init(rng), and give them as the third argument")
        return (weights,)


def transformer(function: Callable[P, Any]) -> Callable[P, Transformer]:
    """Make a constructor of transformers of a function that returns `(num_params, direct, inverse)`.

    `direct(theta, x) -> (y, log dy/dx)` and `inverse(theta, y) -> (x, log dx/dy)` are elementwise, with `theta`
    (num_params, *x.shape). A fourth entry, `init(rng) -> weights`, is for one with weights of its own; both functions then
    take them as a third argument.

    Args:
        function: its arguments become those of the constructor, and print, compare and save with what it makes.

    Returns:
        The constructor, with the signature of the function.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> @flows.transformers.transformer
        ... def Shift():
        ...     def direct(theta, x):
        ...         return x + theta[0], jnp.zeros_like(x)
        ...     def inverse(theta, y):
        ...         return y - theta[0], jnp.zeros_like(y)
        ...     return 1, direct, inverse
        >>> flows.Coupling(flows.MLP(8), Shift())(0, 2).direct_fun is not None
        True
    """
    return constructor(function, Transformer)


class Network(NamedTuple):
    """What a conditioner's init returns: `apply_fun(params, inputs)` maps (..., input_dim) to (..., output_dim)."""

    params: Any
    apply_fun: Any  # callable


def as_network(pair: Any, name: str) -> Network:
    """What a conditioner's init returned, if it is such a pair."""
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not callable(pair[1]):
        raise TypeError(f"{name} returned {pair!r:.80}; expected (params, apply_fun)")
    return Network(*pair)


class ConditionerInit(Value):
    """`net(rng, input_dim, output_dim) -> Network(params, apply_fun)`."""

    def __call__(self, rng: Any, input_dim: Any, output_dim: Any, **keywords: Any) -> Network:
        name = self.constructor.__name__
        named = vocabulary.named_by(self.inner, vocabulary.INIT)
        refused = {key: value for key, value in keywords.items() if key not in named}
        vocabulary.refuse_unknown(name, refused, tuple(named) or ("none",))
        return as_network(self.inner(as_key(rng), input_dim, output_dim, **keywords), name)

    @property
    def __signature__(self) -> inspect.Signature:
        names = vocabulary.named_by(self.inner, vocabulary.INIT)
        return vocabulary.signature(vocabulary.positional("rng", "input_dim", "output_dim"), names)


def conditioner(function: Callable[P, Any]) -> Callable[P, ConditionerInit]:
    """Make a constructor of conditioners of a function that returns `net(rng, input_dim, output_dim)`.

    `net` returns `(params, apply_fun)`; `apply_fun(params, inputs)` maps (batch, input_dim) to (batch, output_dim). A plain
    function of that form serves as a conditioner too; the decorator adds a name that can be saved.

    Args:
        function: the constructor to be; its arguments are plain values, as of `flows.bijection`.

    Errors:
        TypeError: when used, what it returns is not such a pair.

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
    return constructor(function, ConditionerInit)


class Leading:
    """An apply_fun that maps (*batch, features), written as `leading(params, x)` on (features, batch)."""

    def __init__(self, leading: Callable):
        self.leading = leading

    def __call__(self, params: Any, inputs: Array, context: Array | None = None, **keywords: Any) -> Array:
        batch, inputs = inputs.shape[:-1], inputs.reshape(size(inputs.shape[:-1]), inputs.shape[-1])
        if context is not None:
            rows = jnp.broadcast_to(context, (*batch, context.shape[-1])) if context.ndim == 1 else context
            keywords["context"] = rows.reshape(len(inputs), rows.shape[-1]).T
        outputs = self.leading(params, inputs.T, **keywords).T
        return outputs.reshape(*batch, outputs.shape[1])

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.leading)


def check_transformer(x: Any, name: str) -> Transformer:
    """`x`, if it is a transformer."""
    if not isinstance(x, Transformer):
        _refuse(x, f"{name}: the transformer", "one of flows.transformers, such as Affine()")
    return x


def check_conditioner(x: Any, name: str) -> Callable:
    """`x`, if it can be a conditioner."""
    if is_constructor(x) or (isinstance(x, Value) and not isinstance(x, ConditionerInit)) or not callable(x):
        _refuse(x, f"{name}: the conditioner", "a network such as MLP(64), or a function net(rng, input_dim, output_dim)")
    return x


def _refuse(x: Any, what: str, expected: str) -> NoReturn:
    if is_constructor(x):
        raise TypeError(f"{what} is the constructor {x.__name__}; call it: {x.__name__}(...)")
    raise TypeError(f"{what} is {x!r:.60}; expected {expected}")
