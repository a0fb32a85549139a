"""Kernels of Markov chains: steps of points, each row by itself, that keep a density.

    kernel = flows.mcmc.hamiltonian(step_size=0.3)
    x, accepted = kernel(key, x, log_density)

A kernel is `kernel(key, x, log_density) -> (x, accepted)`: x (n, *event) are rows, log_density of rows gives (n,), in nats, and
accepted (n,) is the share of the proposals of a row that were accepted. It is reversible, so rows that were drawn from the
density are still draws of it. A function of this form is a kernel, too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flows.core import Array, FlowsError, Value, as_array, as_key, check_function, decorated, positive, positive_int

__all__ = ["hamiltonian", "metropolis"]


class Kernel(Value):
    """The value of a constructor of kernels."""

    def __call__(self, key: Any, x: Any, log_density: Callable) -> tuple[Array, Array]:
        name = repr(self)
        check_function(log_density, f"{name}: log_density", "a function of points (n, *event)")
        x = as_array(x, f"{name}: x")
        if x.ndim < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise FlowsError(
                f"{name}: x has dtype {x.dtype} and shape {x.shape}; expected rows of floating numbers, (n, *event)"
            )
        return self.inner(as_key(key), x, partial(_checked, name, log_density))


def _checked(name: str, log_density: Callable, x: Array) -> Array:
    log_p = log_density(x)
    if getattr(log_p, "shape", None) != x.shape[:1]:
        raise FlowsError(
            f"{name}: log_density of points of shape {x.shape} is {getattr(log_p, 'shape', log_p)!s:.60}; expected numbers of "
            f"shape ({len(x)},), one for each point. One that is written for a single point: jax.vmap(log_density)"
        )
    return jnp.asarray(log_p, x.dtype)


_kernel = partial(decorated, make=Kernel, name="flows.mcmc", returns="kernel(key, x, log_density)")


@_kernel
def hamiltonian(step_size: float = 0.1, steps: int = 5) -> Callable:
    """Hamiltonian Monte Carlo with unit masses: a normal velocity, leapfrog steps, and a Metropolis decision.

    From x and v ~ N(0, 1), each step is v += (s/2) grad log p(x), x += s v, v += (s/2) grad log p(x). The end replaces the
    start with probability min(1, p(x') N(v') / (p(x) N(v))). One step is the Metropolis-adjusted Langevin algorithm. A row
    stays where log_density, or its gradient, is not finite at the start or at the end.

    Args:
        step_size: s, in units of x.
        steps: leapfrog steps, each with one gradient of log_density.

    Errors:
        FlowsError: step_size or steps not positive; x not rows of floating numbers; log_density not one number for each point.

    Source:
        Duane, Kennedy, Pendleton and Roweth, "Hybrid Monte Carlo", 1987; Neal, "MCMC using Hamiltonian dynamics", 2011,
        arXiv:1206.1901, section 3.2.

    Example:
        >>> import flows, jax, jax.numpy as jnp
        >>> kernel = flows.mcmc.hamiltonian(step_size=0.5)
        >>> x, accepted = kernel(jax.random.key(0), jnp.zeros((1000, 1)), lambda x: -0.5 * jnp.square(x).sum(1))
        >>> bool(accepted.mean() > 0.9), bool(x.std() > 0.5)
        (True, True)
    """
    step_size, steps = positive(step_size, "hamiltonian: step_size"), positive_int(steps, "hamiltonian: steps")

    def kernel(key: Array, x: Array, log_density: Callable) -> tuple[Array, Array]:
        terms = Terms((log_density,))
        x, _, _, accepted = trajectory(key, x, terms(x), terms, jnp.ones(1, x.dtype), step_size, steps)
        return x, accepted

    return kernel


@_kernel
def metropolis(scale: float = 0.5, steps: int = 1) -> Callable:
    """Random-walk Metropolis: x' = x + scale N(0, 1) replaces x with probability min(1, p(x') / p(x)).

    It needs no gradient. A row stays where log_density is not finite at the start or at the end.

    Args:
        scale: in units of x.
        steps: proposals, each with one log_density.

    Errors:
        As `hamiltonian`.

    Source:
        Metropolis, Rosenbluth, Rosenbluth, Teller and Teller, "Equation of State Calculations by Fast Computing
        Machines", 1953.

    Example:
        >>> import flows, jax, jax.numpy as jnp
        >>> x, accepted = flows.mcmc.metropolis(steps=4)(jax.random.key(0), jnp.zeros((1000, 1)), lambda x: -jnp.abs(x[:, 0]))
        >>> bool(0.5 < accepted.mean() < 1)
        True
    """
    scale, steps = positive(scale, "metropolis: scale"), positive_int(steps, "metropolis: steps")

    def kernel(key: Array, x: Array, log_density: Callable) -> tuple[Array, Array]:
        def step(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], Array]:
            (x, log_p), (walk, chance) = carry, jax.random.split(key)
            end = x + scale * jax.random.normal(walk, x.shape, x.dtype)
            log_end = log_density(end)
            accepted = decided(chance, log_end - log_p, jnp.isfinite(log_p) & jnp.isfinite(log_end))[1]
            return (chosen(accepted, end, x), jnp.where(accepted, log_end, log_p)), accepted

        (x, _), accepted = jax.lax.scan(step, (x, log_density(x)), jax.random.split(key, steps))
        return x, accepted.mean(0, x.dtype)

    return kernel


# The step behind `hamiltonian`, of a weighted sum of densities whose values and gradients are kept for the next one


class State(NamedTuple):
    """The log-densities of points, (terms, n), and their gradients, (terms, n, *event)."""

    values: Array
    slopes: Array


class Terms(NamedTuple):
    """Log-densities of rows; a chain keeps a density whose logarithm is a weighted sum of them."""

    functions: tuple[Callable, ...]

    def __call__(self, x: Array) -> State:
        pairs = [jax.vjp(function, x) for function in self.functions]
        slopes = [pull(jnp.ones_like(value))[0] for value, pull in pairs]
        return State(jnp.stack([value for value, _ in pairs]), jnp.stack(slopes))


def weighted(c: Array, terms: Array) -> Array:
    """The sum of c terms over the first axis, in which a term may be infinite where c is 0."""
    c = c.reshape(-1, *(1,) * (terms.ndim - 1))
    return jnp.where(c == 0, 0, c * terms).sum(0)


def trajectory(
    key: Array, x: Array, state: State, terms: Terms, c: Array, size: Any, steps: int
) -> tuple[Array, State, Array, Array]:
    """Return the end of a step of Hamiltonian Monte Carlo that keeps the density of logarithm sum(c terms), the state there,
    the probability of its acceptance, and 1 where it was accepted, both (n,). `size` broadcasts over rows x."""
    throw, chance = jax.random.split(key)
    velocity, rest = jax.random.normal(throw, x.shape, x.dtype), tuple(range(1, x.ndim))

    def leap(carry: tuple[Array, Array, State], _: None) -> tuple[tuple[Array, Array, State], None]:
        x, velocity, state = carry
        velocity += 0.5 * size * weighted(c, state.slopes)
        x = x + size * velocity
        state = terms(x)
        return (x, velocity + 0.5 * size * weighted(c, state.slopes), state), None

    def energy(velocity: Array, state: State) -> tuple[Array, Array]:
        log_p = weighted(c, state.values)
        total = log_p - 0.5 * jnp.square(velocity).sum(rest)
        return total, jnp.isfinite(total) & jnp.isfinite(weighted(c, state.slopes)).all(rest)

    (end, last, at_end), _ = jax.lax.scan(leap, (x, velocity, state), length=steps)
    (before, usable), (after, ended) = energy(velocity, state), energy(last, at_end)
    probability, accepted = decided(chance, after - before, usable & ended)
    values = jnp.where(accepted, at_end.values, state.values)
    state = State(values, jax.vmap(partial(chosen, accepted))(at_end.slopes, state.slopes))
    return chosen(accepted, end, x), state, probability, accepted.astype(x.dtype)


def decided(key: Array, log_ratio: Array, usable: Array) -> tuple[Array, Array]:
    """The probability of acceptance, and the decision."""
    probability = jnp.where(usable, jnp.exp(jnp.minimum(jnp.where(usable, log_ratio, 0), 0)), 0)
    return probability, jax.random.uniform(key, probability.shape, probability.dtype) < probability


def chosen(rows: Array, x: Array, y: Array) -> Array:
    return jnp.where(rows.reshape(-1, *(1,) * (x.ndim - 1)), x, y)


def check_kernel(kernel: Any, what: str) -> Any:
    """Return a kernel, or a function of the form of one."""
    if not isinstance(kernel, Kernel):
        check_function(kernel, what, "a kernel(key, x, log_density) -> (x, accepted), such as flows.mcmc.hamiltonian()")
    return kernel
