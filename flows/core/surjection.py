"""The decorator `surjection`, of layers that draw."""

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec

from flows.core.constructors import constructor
from flows.core.decorators import EVERYWHERE, PLAIN, BijectionInit, Declared, Known, ModelValue, Places
from flows.core.errors import FlowsError
from flows.core.support import as_support

P = ParamSpec("P")
DRAWS = {"inverse": frozenset({"inverse"}), "direct": frozenset({"direct"}), "both": frozenset({"direct", "inverse"})}


def surjection(
    *, draws: str, batched: bool = False, support: Places = EVERYWHERE, traits: Known = PLAIN
) -> Callable[[Callable[P, Any]], Callable[P, BijectionInit]]:
    """Make a constructor of layers that draw: maps that lose or gain numbers, fold them, or add to them.

    As `flows.bijection`, with `direct_fun(params, x) -> (z, log_weight)`, where

        log_weight = log|det J| of what is deterministic + log p(x | z) - log q(z | x) of what is drawn,

    so that the mean over rng of exp(log p(z) + log_weight) is p(x), in nats. q is how the direct function draws, p(x | z) how
    the inverse does. A function that draws names `rng`. Where the direct function draws, the init returns a `flows.Layer` whose
    `inverse_and_log_det` gives minus the log-weight of the pair that it made; otherwise this follows.

    To `Serial`, `Repeat` and `Flow` it is a bijection. Its values are not `bijective`, and what undoes layers refuses them:
    `Invert`, `Reversible`, the layout of `Through`. Without `rng` a direct function that draws takes the draw of key 0, the
    same for all rows; an inverse that draws asks for rng.

    Args:
        draws: "inverse", "direct" or "both". If the inverse alone draws, log-densities are exact; otherwise their likelihood is
            'lower bound': log p(x) is more than the mean of log p(z) + log_weight.
        batched, support, traits: as in `flows.bijection`.

    Errors:
        FlowsError: draws is none of the three; functions that name rng elsewhere than draws says; a direct function that draws
            without the weight of a pair.

    Source:
        Nielsen, Jaini, Hoogeboom, Winther and Welling, "SurVAE Flows: Surjections to Bridge the Gap between VAEs and Flows",
        2020, arXiv:2007.02731, table 1.

    Example:
        >>> import flows, jax, jax.numpy as jnp
        >>> @flows.surjection(draws="inverse")
        ... def Square():
        ...     def init_fun(rng, shape):
        ...         return {}, direct_fun, inverse_fun
        ...     def direct_fun(params, x):
        ...         return x**2, (jnp.log(2 * jnp.abs(x)) - jnp.log(2)).sum()
        ...     def inverse_fun(params, z, rng):
        ...         return jax.random.rademacher(rng, z.shape, z.dtype) * jnp.sqrt(z)
        ...     return init_fun
        >>> Square().bijective, Square().likelihood
        (False, 'exact')
    """
    if not isinstance(draws, str) or draws not in DRAWS:
        raise FlowsError(f"surjection: draws is {draws!r:.60}; expected one of {', '.join(DRAWS)}")
    if not callable(support):
        support = as_support(support, "surjection", False)
    likelihood = "exact" if draws == "inverse" else "lower bound"
    declared = Declared(batched, likelihood, support, traits, ways=DRAWS[draws])
    return lambda function: constructor(function, partial(BijectionInit, declared=declared))


def check_bijective(name: str, value: Any) -> None:
    """Refuse a layer that draws, or that has such layers, where it would have to be undone."""
    if isinstance(value, ModelValue) and not value.bijective:
        raise FlowsError(
            f"{name}: {value!r:.80} cannot be undone: a layer of it draws, such as noise, signs or numbers that were lost; "
            "expected bijections alone"
        )
