"""`Transition`: a step of a Markov chain as a layer. Family: Surjections."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from flows.core import (
    Array,
    BijectionInit,
    BijectionPart,
    Composite,
    DistributionInit,
    Given,
    Place,
    Shape,
    as_surjection,
    check_function,
    combinator,
    distribution_part,
)
from flows.mcmc import check_kernel, hamiltonian


@combinator(BijectionInit, likelihood="lower bound", ways=frozenset({"direct", "inverse"}))
def Transition(log_density: Callable | DistributionInit, kernel: Callable | None = None):
    """A step of a Markov chain that keeps exp(log_density), in both directions: log_weight = log_density(x) - log_density(z).

    z is drawn by a reversible kernel K(z | x), so that K(x | z) / K(z | x) is the ratio of the densities at x and z. Between
    bijections it makes a stochastic normalizing flow: it moves mass between modes that bijections would have to stretch. The
    weights of its paths are exact. Gradients take the decisions to accept as they fell.

    Args:
        log_density: a function of points, (n, *event) -> (n,), in nats up to a constant; or a distribution, whose params train
            with the model. A model with a function cannot be saved.
        kernel: a kernel of `flows.mcmc`, or a function of its form, which has to be reversible; by default
            `flows.mcmc.hamiltonian()`.

    Params:
        The params of the distribution; none with a function.

    Cost:
        Direct and inverse: a step of the kernel, and two log-densities.

    Errors:
        TypeError: log_density or kernel is not what it is to be. FlowsError: log_density of points is not one number each.

    Source:
        Wu, Köhler and Noé, "Stochastic Normalizing Flows", 2020, arXiv:2002.06707, section 3 and equation 13.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Transition(flows.Normal())(0, 2)
        >>> x = jnp.ones((4, 2))
        >>> z, log_weight = direct_fun(params, x, rng=1)
        >>> bool(abs(log_weight - (z**2 - x**2).sum(1) / 2).max() < 1e-5)
        True
    """
    step = hamiltonian() if kernel is None else check_kernel(kernel, "Transition: kernel")
    is_distribution = isinstance(log_density, DistributionInit)
    if not is_distribution:
        check_function(log_density, "Transition: log_density", "a function of points (n, *event), or a distribution")

    def part(event: Shape, context: Shape | None) -> BijectionPart:
        facts: dict[str, Any] = {"keywords": frozenset({"rng"}), "compiled": True, "closures": ()}
        place = Place("the density of Transition", log_density, event)
        with place:
            target = distribution_part(log_density, event, context) if is_distribution else None
        if target is not None:
            facts |= {"keywords": target.keywords | {"rng"}, "compiled": target.compiled, "closures": target.closures}

        def density_of(params: Any, context: Any, train: bool) -> Callable:
            if target is None:
                return log_density
            return lambda x: target.log_pdf(params, x, context, None, train)

        def init(key: Array, args: Given) -> Any:
            return {} if target is None else target.init(key, args)

        def direct(params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
            with place:
                density = density_of(params, context, train)
                z = step(rng, x, density)[0]
                start, end = density(x), density(z)
                return z, jnp.where(start == end, 0.0, start - end)  # a row that stays where the density is 0 weighs nothing

        def inverse(*call: Any) -> Array:
            return direct(*call)[0]

        def pair(*call: Any) -> tuple[Array, Array]:
            return direct(*call)  # -(log_density(x) - log_density(z)), x being where the chain that starts at z arrives

        return as_surjection(
            BijectionPart(
                "Transition",
                init,
                event,
                context,
                **facts,
                draws=frozenset({"direct", "inverse"}),
                direct=direct,
                inverse=inverse,
                output=event,
                native_inverse=pair,
            )
        )

    return Composite(part, (log_density,) if is_distribution else ())
