"""Transformers: scalar monotone maps with parameters, as values of constructors. Family: Write one."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, overload

import jax.numpy as jnp

from flows.core import INTEGERS, REAL, Array, FlowsError, Region, Value, as_array, as_key, decorated, refuse_argument, said_of

P = ParamSpec("P")


class Transformer(Value):
    """A scalar monotone map y = f(x; theta), elementwise: `theta` is (num_params, *x.shape).

    A transformer with weights, which all entries share, makes them with `init(rng)` and takes them as a third argument.

    Attributes:
        period: p if it maps the circle of length p, y(x + p) = y(x) + p; else None.
        bound: b if it maps [-b, b] onto itself; else None.
        shared: whether its functions also take a `theta` with axes of length 1, along which entries share it.
        classes: K if it maps the codes 0 to K - 1 onto themselves, inf if it maps whole numbers; else None.
        unit: the number over which networks see its values, unless these are angles or codes.
    """

    period: float | None
    bound: float | None
    shared: bool
    classes: float | None
    unit: float

    def __init__(self, construct: Callable, arguments: dict, inner: Any, **claims: Any):
        super().__init__(construct, arguments, inner)
        for name, claim in claims.items():
            object.__setattr__(self, name, said_of(claim, arguments, f"{construct.__name__}: {name}"))

    @property
    def num_params(self) -> int:
        """How many numbers `theta` holds for each entry of x."""
        return self.inner[0]

    @property
    def region(self) -> Region:
        """Where its values live: angles, codes, whole numbers or the line."""
        if self.classes is not None:
            return INTEGERS if math.isinf(self.classes) else Region(0.0, self.classes - 1.0, classes=int(self.classes))
        return REAL if self.period is None else Region(period=float(self.period))

    @property
    def has_weights(self) -> bool:
        return len(self.inner) > 3

    def init(self, rng: Any) -> Any:
        """Initial weights, a pytree; () for a transformer without weights."""
        return self.inner[3](as_key(rng)) if self.has_weights else ()

    def direct(self, theta: Array, x: Array, weights: Any = ()) -> tuple[Array, Array]:
        """y and log dy/dx, both of the shape of x."""
        return self.inner[1](*self._checked(theta, x), *self._weights(weights))

    def inverse(self, theta: Array, y: Array, weights: Any = ()) -> tuple[Array, Array]:
        """x and log dx/dy: minus the direct log-derivative at the x returned."""
        return self.inner[2](*self._checked(theta, y), *self._weights(weights))

    def apply(self, direction: str, theta: Array, x: Array, weights: Any = ()) -> tuple[Array, Array]:
        """`direct` or `inverse` as engines call them: without checks, and with a `theta` that rows may share."""
        if not self.shared:
            theta = jnp.broadcast_to(theta, (len(theta), *x.shape))
        return self.inner[1 if direction == "direct" else 2](theta, x, *self._weights(weights))

    def _checked(self, theta: Any, x: Any) -> tuple[Array, Array]:
        theta, x = as_array(theta, f"{self!r}: theta"), as_array(x, f"{self!r}: its input")
        if theta.shape != (self.num_params, *x.shape):
            raise FlowsError(
                f"{self!r}: theta has shape {theta.shape}, expected {(self.num_params, *x.shape)}: (num_params, *x.shape)"
            )
        return theta, x

    def _weights(self, weights: Any) -> tuple:
        if not self.has_weights:
            return ()
        if isinstance(weights, tuple) and not weights:
            raise FlowsError(f"{self!r} has weights; make them with .init(rng), and give them as the third argument")
        return (weights,)


@overload
def transformer(function: Callable[P, Any], /) -> Callable[P, Transformer]: ...
@overload
def transformer(
    *,
    period: float | Callable[..., Any] | None = None,
    bound: float | Callable[..., Any] | None = None,
    shared: bool | Callable[..., Any] = False,
    classes: float | Callable[..., Any] | None = None,
    unit: float | Callable[..., Any] = 1.0,
) -> Callable[[Callable[P, Any]], Callable[P, Transformer]]: ...
def transformer(
    function: Callable | None = None,
    /,
    *,
    period: Any = None,
    bound: Any = None,
    shared: bool | Callable[..., Any] = False,
    classes: Any = None,
    unit: Any = 1.0,
) -> Any:
    """Turn a function that returns `(num_params, direct, inverse)` into a constructor of transformers.

    `direct(theta, x) -> (y, log dy/dx)` and `inverse(theta, y) -> (x, log dx/dy)` are elementwise, with `theta`
    (num_params, *x.shape). A transformer with weights has a fourth entry, `init(rng) -> weights`; both functions then take the
    weights as a third argument.

    Args:
        function: its arguments become the arguments of the constructor, and its values print, compare and save by them.
        period: p for a map of the circle, y(x + p) = y(x) + p: networks then see x as cos and sin; or a function of the
            constructor's arguments, by name, that returns it.
        bound: b for a map of [-b, b] onto itself; or such a function.
        shared: whether both functions also take a `theta` with axes of length 1 where x has longer ones, (num_params, features,
            1) for x (features, batch). Engines then pass a theta that all rows share without repeating it, and the softmax of
            a spline is computed once. By default such a theta is repeated for each entry first.
        classes: K for a map of the codes 0 to K - 1, which networks then see one-hot, or inf for a map of whole numbers; or
            such a function. Such a map has no slope: log dy/dx is 0.
        unit: networks see values over this number, as the values of counts may be large; or such a function.

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

    for name, claim in (("period", period), ("bound", bound), ("classes", classes), ("unit", unit)):
        number = isinstance(claim, int | float) and not isinstance(claim, bool) and claim > 0
        if not (claim is None or number or callable(claim)):
            raise FlowsError(f"transformer: {name} is {claim!r:.60}; expected a positive number, or a function that returns it")

    make = partial(Transformer, period=period, bound=bound, shared=shared, classes=classes, unit=unit)
    return decorated(function, make, "flows.transformers.transformer", "(num_params, direct, inverse)")


def check_transformer(x: Any, name: str) -> Transformer:
    """`x`, if it is a transformer."""
    if not isinstance(x, Transformer):
        refuse_argument(x, f"{name}: the transformer", "one of flows.transformers, such as Affine()")
    return x
