"""NumPyro's transforms and distributions as layers and bases of ours.

As with the networks of other libraries, each is given a function that makes the object; its float arrays are params. A
function cannot be written to a file, so a model to be saved has a constructor of its own around it, as in the example of
`FromTransform`.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution
from numpyro.distributions.transforms import Transform

from flows.core import (
    Array,
    FlowsError,
    Region,
    Shape,
    Support,
    Traits,
    beyond,
    bijection,
    distribution,
    inside,
    on_device,
    resolved,
    size,
)
from flows.interop.numpyro.constraint import region_of
from flows.interop.numpyro.taken import arrays_of, ends_depend_on, made_by, with_arrays

FEW = 5  # points at which forward and inverse are compared
NEAR = 1e-3  # by how much these may differ, of numbers around 1


def _of_transform(make: Callable) -> Support:
    made = made_by(make, Transform, "FromTransform")
    inputs, outputs = (region_of(each, f"FromTransform: {_name(made)}") for each in (made.domain, made.codomain))
    alone = made.domain.event_dim == 0 and made.codomain.event_dim == 0 and arrays_of(made) is None
    return Support(inputs, outputs, entrywise=alone)


@bijection(support=_of_transform)
def FromTransform(make: Callable):
    """A NumPyro transform as a bijection: y = t(x), log|det J| its `log_abs_det_jacobian`, summed over the event.

    One of numbers (`event_dim` 0) acts on all entries of an event, one of vectors on the last axis.

    Args:
        make: `make()` returns the `numpyro.distributions.transforms.Transform`.

    Params:
        The float arrays that its constructor was given, by name, in nested dicts where it holds others; NumPy arrays and Python
        numbers are constants. Those that its `domain` or `codomain` depends on are "fixed".

    Cost:
        Direct and inverse: those of the transform.

    Support:
        Its `domain` and `codomain`, where these are regions entry by entry: the line, intervals, circles, a sphere.

    Errors:
        FlowsError: a domain that is no such region (a simplex, an ordered vector); a transform whose inverse does not undo it,
            or that changes the number of entries; an event that it does not fit. TypeError: make() returns no transform.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> from flows.interop.numpyro import FromTransform
        >>> from numpyro.distributions import transforms
        >>> params, direct_fun, inverse_fun = FromTransform(lambda: transforms.PowerTransform(jnp.array(2.0)))(0, 2)
        >>> y, log_det = direct_fun(params, jnp.array([[1.0, 3.0]]))
        >>> params, y.tolist(), log_det.round(4).tolist()
        ({'exponent': Array(2., dtype=float32)}, [[1.0, 9.0]], [2.484...])

        A lambda cannot be written to a file; a constructor of your own can:

        >>> @flows.bijection
        ... def Square():
        ...     return FromTransform(lambda: transforms.PowerTransform(2.0))
        >>> flows.Flow(Square()) == flows.Flow(Square())                  # flows.load(path, constructors=[Square])
        True
    """
    made = made_by(make, Transform, "FromTransform")
    start = _params_of(made, lambda transform: (transform.domain, transform.codomain))
    name = f"FromTransform: {_name(made)}"

    def of(params: Any) -> Any:
        return with_arrays(made, _flat(params))

    def init_fun(rng, shape):
        _check_axes(made.domain.event_dim, shape, name)
        output = made.forward_shape(shape)
        if size(output) != size(shape):
            raise FlowsError(f"{name} turns events {shape} into {output}; a bijection keeps the number of entries")
        with jax.ensure_compile_time_eval():
            _check_inverse(of(start), resolved(region_of(made.domain, name), shape, name), shape, name)
        return start, direct_fun, inverse_fun

    def direct_fun(params, x):
        transform = of(params)
        y, intermediates = transform.call_with_intermediates(x)
        log_det = transform.log_abs_det_jacobian(x, y, intermediates)
        return y.astype(x.dtype), jnp.sum(log_det).astype(x.dtype)

    def inverse_fun(params, y):
        return of(params).inv(y).astype(y.dtype)

    return init_fun


def _region(make: Callable) -> Region:
    made = made_by(make, Distribution, "FromDistribution")
    return region_of(made.support, f"FromDistribution: {_name(made)}")


def _traits(make: Callable) -> Traits:
    return Traits(picks=not made_by(make, Distribution, "FromDistribution").has_rsample)


@distribution(support=_region, traits=_traits)
def FromDistribution(make: Callable):
    """A NumPyro distribution as a base: log p(x) is its `log_prob`, summed over independent entries, in nats.

    One of numbers is that of each entry of an event; with a `batch_shape` entries have their own:
    `dist.Gamma(jnp.ones(3), 1.0)` is a base on 3 columns.

    Args:
        make: `make()` returns the `numpyro.distributions.Distribution`.

    Params:
        The float arrays that its constructor was given, by name, in nested dicts where it holds others; NumPy arrays and Python
        numbers are constants. Those that its `support` depends on, such as the ends of a `Uniform`, are "fixed". They train as
        they are: a step may take a scale below 0, where densities are NaN.

    Support:
        Its `support`, where that is a region entry by entry; log p is -inf outside.

    Errors:
        FlowsError: whole numbers, for which there is `flows.Categorical`; a support that is no such region (a simplex); an
            object that cannot be made anew of its arrays; an event that it does not fit. TypeError: make() returns no
            distribution.

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
    made = made_by(make, Distribution, "FromDistribution")
    start = _params_of(made, lambda distribution: distribution.support)
    name, own = f"FromDistribution: {_name(made)}", made.batch_shape + made.event_shape

    def of(params: Any) -> Any:
        return with_arrays(made, _flat(params))

    def init_fun(rng, shape):
        _check_axes(len(made.event_shape), shape, name)
        lead = shape[: len(shape) - len(made.event_shape)]
        if own != shape and (made.batch_shape not in ((), (1,) * len(lead)) or shape[len(lead) :] != made.event_shape):
            raise FlowsError(
                f"{name} has batch_shape {made.batch_shape} and event_shape {made.event_shape}; expected together the event "
                f"{shape}, each entry with its own distribution, or one of numbers for all of them"
            )
        region = resolved(region_of(made.support, name), shape, name)
        with jax.ensure_compile_time_eval():
            _check_made_anew(made, of(start), name)

        def log_pdf(params, x):
            outside = beyond(region, x[None])[0] | jnp.isinf(x)
            within = jnp.where(outside, inside(region, jnp.zeros_like(x)), x)
            log_p = jnp.broadcast_to(of(params).log_prob(within), lead).sum().astype(x.dtype)
            nan = jnp.isnan(x).any()
            return jnp.where(nan, jnp.nan, jnp.where(outside.any(), -jnp.inf, log_p))

        def sample(rng, params):
            return of(params).expand(lead).sample(rng)

        return start, log_pdf, sample

    return init_fun


def _params_of(made: Any, ends: Callable) -> dict[str, Any]:
    """The arrays of an object; those on which the ends of where its points live depend are under "fixed"."""
    arrays = arrays_of(made)
    if arrays is None:
        return {}
    depends = ends_depend_on(lambda arrays: ends(with_arrays(made, arrays)), arrays)
    return _apart(arrays, depends)


def _apart(arrays: dict, depends: dict) -> dict[str, Any]:
    leaves = {name: isinstance(each, dict) for name, each in arrays.items()}
    found = {name: _apart(each, depends[name]) for name, each in arrays.items() if leaves[name]}
    found |= {name: each for name, each in arrays.items() if not leaves[name] and not depends[name]}
    fixed = {name: each for name, each in arrays.items() if not leaves[name] and depends[name]}
    return {**found, "fixed": fixed} if fixed else found


def _flat(params: dict) -> dict[str, Any]:
    """The arrays of an object, of its params."""
    rest = {name: _flat(each) if isinstance(each, dict) else each for name, each in params.items() if name != "fixed"}
    return {**rest, **params.get("fixed", {})}


def _check_axes(axes: int, shape: Shape, name: str) -> None:
    if axes > len(shape):
        raise FlowsError(f"{name} takes events of {axes} axes, and input_dim gives {shape}; give one with as many")


def _check_inverse(transform: Transform, region: Region, shape: Shape, name: str) -> None:
    """Refuse a transform whose inverse does not lead back."""
    x = inside(region, on_device(np.random.default_rng(0).normal(size=(FEW, *shape)), float))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one that is no bijection says so, and is then refused
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


def _check_made_anew(made: Distribution, again: Distribution, name: str) -> None:
    """Refuse a distribution that is another one when it is made anew of its arrays."""

    @jax.jit
    def densities() -> tuple[Array, Array]:
        x = made.sample(jax.random.key(0), (FEW,))
        return again.log_prob(x), made.log_prob(x)

    ours, theirs = densities()
    if again.batch_shape != made.batch_shape or not np.allclose(ours, theirs, rtol=NEAR, atol=NEAR):
        raise FlowsError(f"{name} is another distribution when it is made anew of the arrays that it was made of")


def _name(made: Any) -> str:
    return type(made).__name__
