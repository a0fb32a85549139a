"""A bijection from any Python function: all one has to worry about is the function. Family: A function of one's own."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flows.core import TRACING_ERRORS, Array, FlowsError, Shape, bijection, check_function, naming, refuse_argument

MAX_STEPS = 100
HALVINGS = 24


@bijection(batched=True)
def FromFunction(fun: Callable, init: Callable | None = None, inverse: Callable | None = None, vectorize: bool = True):
    """A bijection given by `y = fun(params, x)` for one event; everything else is derived.

    log|det J| comes from the Jacobian of `fun`, by forward-mode automatic differentiation. Unless `inverse` is given, the
    inverse solves fun(params, x) = y by damped Newton steps; its gradient comes from the implicit function theorem. A row that
    does not converge is NaN.

    Args:
        fun: `fun(params, x)` or `fun(params, x, context)` of one event x, which returns an event of as many entries.
        init: `init(rng, shape) -> params`; without it params are `{}`.
        inverse: `inverse(params, y)` or `inverse(params, y, context)`.
        vectorize: `fun` is traced and applied to whole batches: loops just work, an `if` on array values needs
            `jnp.where` or `lax.cond`. With False it runs row by row as plain Python: slow, but free to do anything
            that `jax.jacfwd` can follow.

    Params:
        The result of `init`.

    Cost:
        Direct: d forward derivatives of the function, and O(d^3). Inverse: about 5 Newton steps of this cost, or `inverse`.

    Errors:
        FlowsError: an `if` on array values under `vectorize=True`; an output with another number of entries.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> def fun(params, x):
        ...     for _ in range(3):
        ...         x = x + 0.3 * jnp.sin(x)
        ...     return x
        >>> params, direct_fun, inverse_fun = flows.FromFunction(fun)(0, 2)
        >>> y, log_det = direct_fun(params, jnp.ones((1, 2)))
        >>> inverse_fun(params, y)[0].round(5).tolist()
        [[1.0, 1.0]]
    """
    takes_context = _takes_context("fun", fun)
    for name, function in {"init": init, "inverse": inverse}.items():
        if function is not None and not callable(function):
            raise TypeError(f"FromFunction: {name} is {function!r:.60}; expected a function")
    inverse_takes_context = inverse is not None and _takes_context("inverse", inverse)
    needs_context = takes_context or inverse_takes_context

    def evaluate(params, x, context):
        return _explained(fun, vectorize, params, x, *([context] if takes_context else []))

    def evaluate_inverse(params, y, context):
        return _explained(inverse, vectorize, params, y, *([context] if inverse_takes_context else []))

    def init_fun(rng, shape, context_dim=0):
        if needs_context and not context_dim:
            raise FlowsError(f"FromFunction: {_name(fun)} takes a context; give context_dim to init_fun")

        def direct(params, x, context=None):
            y, jacobian = value_and_jacobian(lambda x: evaluate(params, x, context), x)
            return y, jnp.where(jnp.isnan(x).any(), jnp.nan, jnp.linalg.slogdet(jacobian)[1])

        def inverse_of(params, y, context=None):
            if inverse is not None:
                return evaluate_inverse(params, y, context)
            return newton(evaluate, params, y, context, shape, plain=not vectorize)

        lift = _by_vmap if vectorize else _row_by_row
        functions = [naming(lift(function), {"context"} if needs_context else ()) for function in (direct, inverse_of)]
        return {} if init is None else init(rng, shape), *functions

    # The layer takes a context only if one of its functions does.
    return naming(init_fun, {"context_dim"} if needs_context else ())


def newton(evaluate: Callable, params: Any, y: Array, context: Any, shape: Shape, plain: bool) -> Array:
    """The x of the given shape with evaluate(params, x, context) = y; NaN where the residual stays.

    Each step is damped to the best of 1, 1/2, 1/4, ..., so that the residual falls. The search has no
    gradients; one more Newton step, whose Jacobian is a constant, adds the gradients of the implicit function theorem.
    """
    fixed_params, target, fixed_context = jax.lax.stop_gradient((params, y, context))

    def residual(x: Array) -> Array:
        return jnp.ravel(evaluate(fixed_params, x, fixed_context) - target)

    def norm(x: Array) -> Array:
        # Each entry by its own scale; the floor keeps an entry with target 0 from drowning the others.
        r = (jnp.abs(residual(x)) / (jnp.finfo(x.dtype).eps + jnp.abs(jnp.ravel(target)))).max()
        return jnp.where(jnp.isfinite(r), r, jnp.inf)

    def improves(state: tuple[Array, Array, Any, Array]) -> Array:
        _, _, steps, better = state
        return (steps < MAX_STEPS) & better

    def step(state: tuple[Array, Array, Any, Array]) -> tuple[Array, Array, Any, Array]:
        x, best, steps, _ = state
        r, jacobian = value_and_jacobian(residual, x)
        change = jnp.linalg.solve(jacobian, r).reshape(shape)
        tried = [x - change / 2**k for k in range(HALVINGS)]
        norms = jnp.stack([norm(point) for point in tried]) if plain else jax.vmap(norm)(jnp.stack(tried))
        i = jnp.argmin(norms)
        better = norms[i] < best
        return jnp.where(better, jnp.stack(tried)[i], x), jnp.minimum(norms[i], best), steps + 1, better

    guess = jnp.reshape(target, shape)
    start = jnp.where(jnp.isfinite(norm(guess)), guess, jnp.zeros_like(guess))
    state = (start, norm(start), jnp.asarray(0), jnp.asarray(True))
    if plain:
        while improves(state):
            state = step(state)
    else:
        state = jax.lax.while_loop(improves, step, state)
    x = state[0]
    r, jacobian = value_and_jacobian(residual, x)
    scale = jnp.abs(jnp.ravel(target)) + jnp.abs(jacobian) @ jnp.abs(jnp.ravel(x))
    solved = (jnp.abs(r) <= 100 * jnp.finfo(x.dtype).eps * scale).all()
    # Where the Jacobian is singular, as of x**3 at 0, the solution stands without a gradient.
    change = jnp.linalg.solve(jacobian, jnp.ravel(evaluate(params, x, context) - y)).reshape(shape)
    return jnp.where(solved, jnp.where(jnp.isfinite(change), x - change, x), jnp.nan)


def value_and_jacobian(fun: Callable, x: Array) -> tuple[Array, Array]:
    """fun(x) and its Jacobian as a square matrix."""

    def twice(x: Array) -> tuple[Array, Array]:
        y = fun(x)
        if not isinstance(y, jax.Array) or not jnp.issubdtype(y.dtype, jnp.floating) or not y.ndim:
            got = f"an array of shape {y.shape} and dtype {y.dtype}" if isinstance(y, jax.Array) else f"a {type(y).__name__}"
            raise FlowsError(f"FromFunction: the function returned {got}; expected one event, an array of floats")
        if y.size != x.size:
            raise FlowsError(f"FromFunction: events {x.shape} become {y.shape}; a bijection keeps the number of entries")
        return jnp.ravel(y), y

    jacobian, y = jax.jacfwd(twice, has_aux=True)(x)
    return y, jacobian.reshape(x.size, x.size)


def _by_vmap(function: Callable) -> Callable:
    return lambda params, x, context=None: jax.vmap(lambda x, c: function(params, x, c))(x, context)


def _row_by_row(function: Callable) -> Callable:
    """A function of one event that runs on the rows of a batch one after the other, in plain Python."""

    def batched(params, x, context=None):
        if not len(x):  # nothing to run: a batch of one shows the shapes
            return jax.tree.map(lambda leaf: leaf[:0], batched(params, jnp.ones((1, *x.shape[1:]), x.dtype)))
        rows = [function(params, row, None if context is None else context[i]) for i, row in enumerate(x)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

    return batched


def _takes_context(name: str, fun: Any) -> bool:
    what, expected = f"FromFunction: {name}", f"a function {name}(params, x)"
    check_function(fun, what, expected)
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except ValueError:  # of a function written in C
        raise TypeError(f"{what} is {fun!r:.60}, whose arguments are not known; give lambda params, x: ...") from None
    if isinstance(fun, type):
        refuse_argument(fun, what, expected)
    required = [one for one in parameters if one.default is one.empty and one.kind is not one.VAR_POSITIONAL]
    return len(required) == 3 or any(one.name == "context" for one in parameters)


def _explained(function: Any, vectorize: bool, *args: Any) -> Any:
    try:
        return function(*args)
    except TRACING_ERRORS as error:
        if not vectorize:
            raise
        raise FlowsError(
            f"FromFunction: {_name(function)} uses the value of an array in plain Python, such as an "
            "`if`. Write jnp.where(condition, a, b) or jax.lax.cond, or give vectorize=False, which runs it row "
            "by row, eagerly"
        ) from error


def _name(function: Any) -> str:
    return getattr(function, "__name__", repr(function))
