"""NumPyro's transforms and distributions as layers and bases. Family: Layers and bases from NumPyro.

As with the networks of other libraries, the argument is a function that makes the object; its float arrays are params. A
function cannot be written to a file, so a model that is to be saved needs a named constructor around it, as in the example of
`FromTransform`.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Delta, Distribution, ImproperUniform, MaskedDistribution
from numpyro.distributions.transforms import Transform

from flows.core import (
    Array,
    FlowsError,
    Region,
    Shape,
    Support,
    Traits,
    Value,
    beyond,
    bijection,
    check_function,
    distribution,
    inside,
    is_constructor,
    on_device,
    resolved,
    size,
)
from flows.interop.models import Model
from flows.interop.numpyro.transform import region_of

NAMES = {Distribution: "FromDistribution", Transform: "FromTransform"}
CALLED = {"base_distribution": "base_dist", "tseq": "transforms", "transform": "_inv"}  # attributes by other names
NO_DENSITY = (Delta, ImproperUniform, MaskedDistribution)
DERIVED = ("covariance_matrix", "precision_matrix")  # computed from scale_tril, which alone is passed on
FEW = 5  # points at which forward and inverse are compared
NEAR = 1e-3  # how much they may differ, for numbers around 1


def _support(make: Callable) -> Support:
    made, name = made_by(make, Transform)
    entrywise = made.domain.event_dim == 0 and made.codomain.event_dim == 0 and arrays_of(made) is None
    return Support(region_of(made.domain, name), region_of(made.codomain, name), entrywise)


@bijection(support=_support)
def FromTransform(make: Callable):
    """A NumPyro transform as a bijection: y = t(x), log|det J| its `log_abs_det_jacobian`, summed over the event.

    A transform of numbers (`event_dim` 0) acts on all entries of an event, a transform of vectors on the last axis.

    Args:
        make: `make()` returns the `numpyro.distributions.transforms.Transform`.

    Params:
        The float arrays among the arguments of the transform, by name, in nested dicts for transforms within it; NumPy arrays
        and Python numbers are constants. Arrays that `domain` or `codomain` depend on are "fixed".

    Cost:
        Direct and inverse: the cost of the transform.

    Support:
        Its `domain` and `codomain`, which must be regions entry by entry: the line, intervals, circles, a sphere.

    Errors:
        FlowsError: a domain that is not such a region (a simplex, an ordered vector); a transform whose inverse does not undo
            it, or that changes the number of entries; an event of the wrong shape. TypeError: make() returns something else.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> from flows.interop.numpyro import FromTransform
        >>> from numpyro.distributions import transforms
        >>> params, direct_fun, inverse_fun = FromTransform(lambda: transforms.PowerTransform(jnp.array(2.0)))(0, 2)
        >>> y, log_det = direct_fun(params, jnp.array([[1.0, 3.0]]))
        >>> params, y.tolist(), log_det.round(4).tolist()
        ({'exponent': Array(2., dtype=float32)}, [[1.0, 9.0]], [2.484...])

        A lambda cannot be written to a file; a named constructor can:

        >>> @flows.bijection
        ... def Square():
        ...     return FromTransform(lambda: transforms.PowerTransform(2.0))
        >>> flows.Flow(Square()) == flows.Flow(Square())                  # flows.load(path, constructors=[Square])
        True
    """
    made, name = made_by(make, Transform)
    start = params_of(made, lambda transform: (transform.domain, transform.codomain))

    def init_fun(rng, shape):
        _check_axes(made.domain.event_dim, shape, name)
        output = made.forward_shape(shape)
        if size(output) != size(shape):
            raise FlowsError(f"{name} turns events {shape} into {output}; a bijection keeps the number of entries")
        with jax.ensure_compile_time_eval():
            _check_inverse(with_params(made, start), resolved(region_of(made.domain, name), shape, name), shape, name)
        return start, direct_fun, inverse_fun

    def direct_fun(params, x):
        transform = with_params(made, params)
        y, intermediates = transform.call_with_intermediates(x)
        log_det = transform.log_abs_det_jacobian(x, y, intermediates)
        return y.astype(x.dtype), jnp.sum(log_det).astype(x.dtype)

    def inverse_fun(params, y):
        return with_params(made, params).inv(y).astype(y.dtype)

    return init_fun


def _region(make: Callable) -> Region:
    made, name = made_by(make, Distribution)
    return region_of(made.support, name)


def _traits(make: Callable) -> Traits:
    made, _ = made_by(make, Distribution)
    return Traits(picks=not made.has_rsample)


@distribution(support=_region, traits=_traits)
def FromDistribution(make: Callable):
    """A NumPyro distribution as a base: log p(x) is its `log_prob`, summed over independent entries, in nats.

    A distribution of numbers is the distribution of each entry of an event; with a `batch_shape`, each entry has a separate
    one: `dist.Gamma(jnp.ones(3), 1.0)` is a base on 3 columns.

    Args:
        make: `make()` returns the `numpyro.distributions.Distribution`.

    Params:
        The float arrays among the arguments of the distribution, by name, in nested dicts for objects within it; NumPy arrays
        and Python numbers are constants. Arrays that `support` depends on, such as the ends of a `Uniform`, are "fixed". The
        others train without constraints: a step may take a scale below 0, where densities are NaN.

    Support:
        Its `support`, which must be a region entry by entry; log p is -inf outside.

    Errors:
        FlowsError: whole numbers, for which there is `flows.Categorical`; a support that is not such a region (a simplex); an
            object that cannot be made again from its arrays; an event of the wrong shape. TypeError: make() returns something
            else.

    Example:
        >>> import flows, jax.numpy as jnp, numpyro.distributions as dist
        >>> from flows.interop.numpyro import FromDistribution
        >>> base = FromDistribution(lambda: dist.Gamma(jnp.array([1.0, 2.0, 3.0]), 1.0))
        >>> params, log_pdf, sample = flows.Flow(flows.ActNorm(), base)(0, 3)
        >>> params["prior"]["concentration"].tolist(), sample(1, params, 5).shape
        ([1.0, 2.0, 3.0], (5, 3))
        >>> flows.support(base, 3).inputs.low.tolist()
        [0.0, 0.0, 0.0]
    """
    made, name = made_by(make, Distribution)
    start = params_of(made, lambda distribution: distribution.support)

    def init_fun(rng, shape):
        _check_axes(len(made.event_shape), shape, name)
        lead, event = shape[: len(shape) - len(made.event_shape)], shape[len(shape) - len(made.event_shape) :]
        shared = made.batch_shape in ((), (1,) * len(lead))
        if event != made.event_shape or not (shared or made.batch_shape == lead):
            raise FlowsError(
                f"{name} has batch_shape {made.batch_shape} and event_shape {made.event_shape}; expected both together to be "
                f"the event {shape}, or a single distribution of numbers for all entries"
            )
        region = resolved(region_of(made.support, name), shape, name)
        with jax.ensure_compile_time_eval():
            _check_made_again(made, with_params(made, start), name)

        def log_pdf(params, x):
            outside = beyond(region, x[None])[0] | jnp.isinf(x)
            within = jnp.where(outside, inside(region, jnp.zeros_like(x)), x)
            log_p = jnp.broadcast_to(with_params(made, params).log_prob(within), lead).sum().astype(x.dtype)
            nan = jnp.isnan(x).any()
            return jnp.where(nan, jnp.nan, jnp.where(outside.any(), -jnp.inf, log_p))

        def sample(rng, params):
            return with_params(made, params).expand(lead).sample(rng)

        return start, log_pdf, sample

    return init_fun


def _check_axes(axes: int, shape: Shape, name: str) -> None:
    if axes > len(shape):
        raise FlowsError(f"{name} takes events of {axes} axes, and input_dim gives {shape}; give an input_dim with as many")


def _check_inverse(transform: Transform, region: Region, shape: Shape, name: str) -> None:
    """Refuse a transform whose inverse does not undo it."""
    x = inside(region, on_device(np.random.default_rng(0).normal(size=(FEW, *shape)), float))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a transform that is not a bijection warns, and is then refused
        try:
            back = np.asarray(jax.jit(jax.vmap(lambda x: transform.inv(transform(x))))(x))
        except NotImplementedError:
            raise FlowsError(f"{name} has no inverse; expected a bijection, whose forward and inverse agree") from None
    if not np.allclose(back, x, rtol=NEAR, atol=NEAR):
        worst = np.unravel_index(np.nanargmax(np.where(np.isnan(back), np.inf, np.abs(back - np.asarray(x)))), back.shape)
        raise FlowsError(
            f"{name}: its inverse leads from t({float(x[worst]):.4g}) to {float(back[worst]):.4g}; expected a bijection, whose "
            "forward and inverse agree"
        )


def _check_made_again(made: Distribution, again: Distribution, name: str) -> None:
    """Refuse a distribution that is another one when it is made again from its arrays."""

    @jax.jit
    def densities() -> tuple[Array, Array]:
        x = made.sample(jax.random.key(0), (FEW,))
        return again.log_prob(x), made.log_prob(x)

    ours, theirs = densities()
    if again.batch_shape != made.batch_shape or not np.allclose(ours, theirs, rtol=NEAR, atol=NEAR):
        raise FlowsError(f"{name} is another distribution when it is made again from the arrays that it holds")


# Objects taken apart: the float arrays among the arguments of their constructors


def made_by(make: Callable, kind: Any) -> tuple[Any, str]:
    """Return the object that a user's function makes, with numbers even within a trace, and its name in errors."""
    whose = NAMES[kind]
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
        remedy = next((f"; give it to {name}" for other, name in NAMES.items() if isinstance(made, other)), "")
        if isinstance(made, Value) or is_constructor(made):
            remedy = "; a model of this library is a layer or a base as it is"
        raise TypeError(f"{whose}: make() returned {_named(made)}; expected {expected}{remedy}")
    for node in _nodes(made):
        if isinstance(getattr(node, "model", None), Model):
            raise FlowsError(f"{whose}: {node!r:.80} holds a model of this library; give the model, as a layer or a base")
        if isinstance(node, NO_DENSITY):
            raise FlowsError(f"{whose}: {_named(node)} has no density whose integral is 1; expected a distribution with one")
    if not _alike(made, again):
        raise FlowsError(
            f"{whose}: make() returned {_named(made)}, and another one when it was called again; expected the same every time. "
            "Draw outside of make()"
        )
    return made, f"{whose}: {type(made).__name__}"


def _alike(a: Any, b: Any) -> bool:
    """Return whether two objects have the same types and numbers, as far as these can be compared."""
    ours, theirs = list(_nodes(a)), list(_nodes(b))
    if list(map(type, ours)) != list(map(type, theirs)):
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(np.array_equal(x, y) for x, y in pairs if isinstance(x, jax.Array | np.ndarray | float | int))


def _nodes(x: Any) -> Iterator[Any]:
    """Yield an object, the arguments of its constructor, and their arguments in turn."""
    yield x
    for entry in entries_of(x).values():
        yield from _nodes(entry)


def entries_of(x: Any) -> dict[str, Any]:
    """Return the arguments of the constructor of a NumPyro object, by name, as the object stores them; or the entries of a
    sequence, by number."""
    if isinstance(x, list | tuple):
        return {str(i): entry for i, entry in enumerate(x)}
    kind = type(x)
    if not isinstance(x, Distribution | Transform) or kind.__init__ is object.__init__:
        return {}
    arguments = dict[str, Any]()
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        attributes = [key for key in (name, f"_{name}", CALLED.get(name)) if key in vars(x)]
        if name == "validate_args":
            arguments[name] = False
        elif attributes:
            arguments[name] = vars(x)[attributes[0]]
        elif isinstance(getattr(kind, name, None), property):
            arguments[name] = getattr(x, name)
        elif parameter.default is parameter.empty:
            raise FlowsError(f"{_named(x)} does not store its argument {name!r}, so it cannot be made again with other params")
    if "scale_tril" in arguments:
        arguments = {name: value for name, value in arguments.items() if name not in DERIVED}
    return arguments


def arrays_of(x: Any) -> Any:
    """Return the float arrays among the arguments of an object, in nested dicts by name, entries of sequences by number; None
    if there are none. NumPy arrays and Python numbers are constants."""
    if isinstance(x, jax.Array):
        return x if jnp.issubdtype(x.dtype, jnp.floating) else None
    return {name: arrays for name, entry in entries_of(x).items() if (arrays := arrays_of(entry)) is not None} or None


def params_of(made: Any, ends: Callable) -> dict[str, Any]:
    """Return the arrays of an object; arrays on which its constraints `ends(object)` depend are under "fixed"."""
    arrays = arrays_of(made) or {}

    def numbers(arrays: Any) -> list:
        return [jnp.asarray(leaf) for leaf in jax.tree.leaves(ends(with_params(made, arrays)))]

    jaxpr = jax.make_jaxpr(numbers)(arrays).jaxpr

    def reaches_ends(leaf: Any) -> bool:
        reached = {id(leaf)}
        for equation in jaxpr.eqns:
            if not reached.isdisjoint(map(id, equation.invars)):
                reached.update(map(id, equation.outvars))
        return not reached.isdisjoint(map(id, jaxpr.outvars))

    return _apart(arrays, jax.tree.unflatten(jax.tree.structure(arrays), map(reaches_ends, jaxpr.invars)))


def _apart(arrays: dict[str, Any], is_fixed: dict[str, Any]) -> dict[str, Any]:
    params, fixed = dict[str, Any](), dict[str, Any]()
    for name, entry in arrays.items():
        if isinstance(entry, dict):
            params[name] = _apart(entry, is_fixed[name])
        else:
            (fixed if is_fixed[name] else params)[name] = entry
    return {**params, "fixed": fixed} if fixed else params


def with_params(x: Any, params: Any) -> Any:
    """Return the object made again, with params in the places of its arrays.

    Entries of scale_tril above the diagonal are set to 0, whatever training makes of them: NumPyro's draws would use them, and
    its densities would not.
    """
    if isinstance(x, jax.Array):
        return x if params is None else params
    params = {} if params is None else params | params.get("fixed", {})
    entries = {name: with_params(entry, params.get(name)) for name, entry in entries_of(x).items()}
    if isinstance(x, Distribution | Transform):
        return type(x)(**{name: jnp.tril(entry) if name.startswith("scale_tril") else entry for name, entry in entries.items()})
    return type(x)(entries.values()) if isinstance(x, list | tuple) else x


def _named(x: Any) -> str:
    return f"a {type(x).__name__}" if isinstance(x, Distribution | Transform) else f"{x!r:.60}"
