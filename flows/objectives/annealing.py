"""Annealed importance sampling: draws that go from a distribution to a target by Markov chains, with exact weights, and the
divergence that learns from them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from flows.core import (
    Array,
    FlowsError,
    as_key,
    boolean,
    check_floats,
    check_function,
    joint_draw_of,
    positive,
    positive_int,
    warn_user,
)
from flows.mcmc import State, Terms, check_kernel, trajectory, weighted
from flows.objectives.importance import Problem, log_mean, weighted_sum

NARROWEST = 0.1  # of the size of steps: the least size of a row's step
LEAPFROG = 5  # steps of the default kernel
ACCEPTANCE = 0.8  # of its proposals, at the size that the pilot run sets [the variance of Z is half of the one by 0.65]
PILOT, LEAST_PILOT = 16, 16  # rows of the pilot run: a share 1 / PILOT of the draws, or a few
FEW = 10  # draws, of which none may move by chance
FIRST = 8  # its steps at the first temperature, before one at each


def annealed_importance_samples(
    params: Any,
    distribution: Any,
    log_density: Callable,
    rng: Any,
    num_samples: int,
    *,
    num_temperatures: int = 16,
    kernel: Any = None,
    resample: bool = False,
    context: Any = None,
) -> tuple[Any, Array]:
    """Draws that go from q to p by Markov chains, and log weights, in nats: means under p are means with weights w.

    A draw x_0 of q goes through densities proportional to q^(1-b) (p Z)^b, b = 1/n, 2/n, ..., 1: at each, the weight grows by
    (p Z / q)^(1/n) at x, and a kernel that keeps the density moves x. The mean of the weights is Z, however well the chains
    mix, but it may need many draws. A chain does not cross from a mode of q to a mode that q lacks unless some of the densities
    between connect them; neither the weights nor their standard error tell of a mode that no chain reached.

    Args:
        params: of the distribution.
        distribution: its triple `(params, log_pdf, sample)`, or a result of `fit_to_density`.
        log_density: the target, which needs a gradient for the default kernel. For a result with named parameters it takes
            the dict that `draw` returns.
        rng: key or seed.
        num_samples: draws.
        num_temperatures: n. 1 is `importance_samples`, with a step that keeps p at the end.
        kernel: of `flows.mcmc`, or a function `kernel(key, x, log_density) -> (x, accepted)` of rows that keeps a density. By
            default one step of `hamiltonian` with 5 leapfrog steps, whose size differs by row, up to tenfold. A pilot run with
            other draws sets the largest at each temperature to 80% acceptance, in standard deviations of its columns.
        resample: whether draws are drawn again by their weights, at all temperatures but the last, which is sequential Monte
            Carlo. Draws then depend on each other: the standard error of `log_normalizer` and `pareto_k` know only of the
            weights of the last temperature.
        context: as sample takes it: shared by all draws, or, without resample, (num_samples, *context).

    Returns:
        x (num_samples, *event), or a dict of arrays (num_samples, *shape) for named parameters; and log_weights (num_samples,),
        for `log_normalizer`, `effective_sample_size` and `pareto_k`.

    Cost: n 5 gradients of log_density and of log q a draw, and a tenth more for the pilot run. The memory of one temperature.
    Each call compiles; for several, compile it with params and rng as arguments by `jax.jit`.

    Errors:
        FlowsError: a density that is NaN or inf at a draw of q; a kernel that returns another shape; a 'lower bound' or codes,
            which have no density to anneal; settings outside their range. TypeError: as `reverse_kl`.

    Source:
        Neal, "Annealed Importance Sampling", 1998, arXiv:physics/9803008. Resampling: Del Moral, Doucet and Jasra, "Sequential
        Monte Carlo Samplers", 2006.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> distribution = flows.Normal()(0, 1)
        >>> log_density = lambda x: -0.5 * jnp.square(x[:, 0] - 4)                              # log Z = log(2 pi) / 2 = 0.919
        >>> x, log_w = flows.objectives.annealed_importance_samples({}, distribution, log_density, 0, 1000)
        >>> estimate = flows.objectives.log_normalizer(log_w)
        >>> abs(estimate.value - 0.919) < 4 * estimate.standard_error < 0.4
        True
    """
    name = "annealed_importance_samples"
    named = getattr(distribution, "named", None)
    natural = (lambda x: x) if named is None else named.natural
    if named is not None:
        check_function(log_density, f"{name}: log_density", "a function of a dict of arrays")
        of_names, log_density = log_density, lambda x: of_names(natural(x))
    problem, n, key = Problem(name, distribution, log_density, context), positive_int(num_samples, f"{name}: num_samples"), rng
    _check_moves(problem)
    temperatures = positive_int(num_temperatures, f"{name}: num_temperatures")
    if boolean(resample, f"{name}: resample") and problem.has_rows(n):
        raise FlowsError(f"{name}: context has a row for each draw, which cannot be drawn again for another; resample=False")
    kernel = None if kernel is None else check_kernel(kernel, f"{name}: kernel")
    run = jax.jit(lambda params, key: annealed(problem, params, key, n, temperatures, kernel, resample))
    x, log_w, at_start, accepted, sizes = run(params, as_key(key))
    if not isinstance(log_w, jax.core.Tracer):
        _tell(name, np.asarray(at_start), np.asarray(accepted), kernel or np.asarray(sizes))
    return natural(x), log_w


def _check_moves(problem: Problem) -> None:
    """Refuse a distribution whose draws no chain can move."""
    joint = joint_draw_of(problem.sample)
    if joint is not None and joint.likelihood == "lower bound":
        raise FlowsError(
            f"{problem.name}: the log-density of the distribution is a 'lower bound', as it adds noise to its points or rounds "
            "them (Dequantize), so it cannot be annealed. Leave that layer out, and round draws afterwards"
        )
    if joint is not None and joint.region is not None and not joint.region.flat:
        raise FlowsError(
            f"{problem.name}: the distribution draws codes, angles or points of a sphere, and chains move numbers on the line; "
            "expected a distribution of numbers, or importance_samples"
        )


def _tell(name: str, at_start: np.ndarray, accepted: np.ndarray, kernel: Any) -> None:
    """Refuse a target that is not a number at a draw, and warn where no chain moves."""
    if (bad := np.isnan(at_start) | (at_start == np.inf)).any():
        raise FlowsError(
            f"{name}: log_density is {at_start[bad][0]} at {bad.sum()} of {len(bad)} draws of the distribution; expected "
            "numbers, or -inf where the target has no density"
        )
    still = np.flatnonzero(accepted == 0)
    if len(still) and len(at_start) >= FEW:
        how = f"{kernel!r:.80}" if callable(kernel) else f"steps of the size {kernel[still[0]]:.2g}, in standard deviations"
        warn_user(
            f"{name}: no proposal of any chain was accepted at {len(still)} of {len(accepted)} temperatures, first at "
            f"{(still[0] + 1) / len(accepted):.3g}, by {how}; draws stay where they are, which is exact but of no use. Give a "
            "kernel with a smaller step_size, or look at the gradient of log_density"
        )


def annealed(
    problem: Problem, params: Any, key: Array, n: int, temperatures: int, kernel: Any, resample: bool, power: float = 1.0
) -> tuple[Array, Array, Array, Array, Array]:
    """Draws of q that went to q^(1-power) (p Z)^power, log weights, log p of the draws of q; and for each temperature the share
    of proposals that was accepted, and the size of steps. Nothing has a gradient."""
    params = stop_gradient(params)
    draw_key, pilot_key, steps_key, again_key = jax.random.split(key, 4)
    betas = jnp.arange(1, temperatures + 1) / temperatures
    keys = jax.random.split(steps_key, temperatures)
    if kernel is None:
        scales, sizes = _pilot(problem.first_rows(m := max(LEAST_PILOT, n // PILOT), n), params, pilot_key, m, betas, power)
    else:
        scales = sizes = jnp.ones(temperatures)
    x = problem.draw(params, draw_key, n)
    terms = _terms(problem, params)
    state = terms(x) if kernel is None else _values(terms, x)
    at_start, betas = state.values[1], betas.astype(x.dtype)

    def temperature(carry: tuple, inputs: tuple) -> tuple[tuple, Array]:
        x, state, log_w = carry
        key, again, beta, size, scale = inputs
        # Where q and p are both 0, so is the weight.
        gain = state.values[1] - jnp.where(jnp.isneginf(state.values[1]), 0, state.values[0])
        log_w += power / temperatures * gain
        if resample:
            before = x, state, log_w
            x, state, log_w = jax.lax.cond(beta < 1, partial(_resampled, again), lambda *before: before, *before)
        c = _coefficients(beta, power)
        if kernel is None:
            x, state, _, accepted = _step(key, x, state, terms, c, (size * scale).astype(x.dtype)[None])
        else:
            x, accepted = _moved(problem.name, kernel, key, x, partial(_blended, terms, c))
            state = _values(terms, x)
        return (x, state, log_w), accepted.mean()

    start = x, state, jnp.zeros(n, x.dtype)
    inputs = keys, jax.random.split(again_key, temperatures), betas, sizes, scales
    (x, _, log_w), accepted = jax.lax.scan(temperature, start, inputs)
    return stop_gradient((x, log_w, at_start, accepted, sizes))


def _terms(problem: Problem, params: Any) -> Terms:
    return Terms((partial(problem.log_q, params), problem.log_p))


def _values(terms: Terms, x: Array) -> State:
    """The log-densities without their gradients."""
    return State(jnp.stack([function(x) for function in terms.functions]), jnp.zeros((), x.dtype))


def _coefficients(beta: Array, power: float) -> Array:
    """The powers of q and of p at a temperature."""
    return jnp.stack([1 - power * beta, power * beta])


def _blended(terms: Terms, c: Array, x: Array) -> Array:
    return weighted(c, jnp.stack([function(x) for function in terms.functions]))


def _moved(name: str, kernel: Any, key: Array, x: Array, log_density: Callable) -> tuple[Array, Array]:
    """The points to which a kernel moves rows, if they are rows of the same shape."""
    outcome = kernel(key, x, log_density)
    parts = outcome if isinstance(outcome, tuple | list) else (outcome,)
    shapes = [getattr(part, "shape", None) for part in parts]
    if shapes != [x.shape, x.shape[:1]]:
        got = ", ".join(map(str, shapes))
        raise FlowsError(
            f"{name}: the kernel {kernel!r:.60} returned {got} for rows of shape {x.shape}; expected (x, accepted) of shapes "
            f"{x.shape} and {x.shape[:1]}"
        )
    return parts[0].astype(x.dtype), parts[1].astype(x.dtype)


def _pilot(problem: Problem, params: Any, key: Array, m: int, betas: Array, power: float) -> tuple[Array, Array]:
    """The standard deviations of each column of m draws at each temperature, and the size of steps, in these, that a Robbins-
    Monro search finds for the acceptance."""
    draw_key, steps_key = jax.random.split(key)
    x, terms = problem.draw(params, draw_key, m), _terms(problem, params)
    betas = jnp.concatenate([jnp.repeat(betas[:1], FIRST), betas]).astype(x.dtype)

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        (x, state, log_size), (beta, key) = carry, inputs
        c = _coefficients(beta, power)
        alive = jnp.isfinite(weighted(c, state.values))  # others never move, whatever the size
        share = alive.astype(x.dtype) / jnp.maximum(alive.sum(), 1).astype(x.dtype)
        scale = _deviations(share, x)
        x, state, chance, _ = _step(key, x, state, terms, c, jnp.exp(log_size) * scale[None])
        log_size += jnp.where(alive.any(), (share * chance).sum() - ACCEPTANCE, 0)
        return (x, state, log_size), (_deviations(share, x), log_size)

    dimensions = float(np.prod(x.shape[1:]))
    start = x, terms(x), jnp.asarray(-0.25 * np.log(dimensions), x.dtype)
    _, (scales, log_sizes) = jax.lax.scan(step, start, (betas, jax.random.split(steps_key, len(betas))))
    return scales[FIRST:], jnp.exp(log_sizes[FIRST:])


def _deviations(share: Array, x: Array) -> Array:
    """The standard deviation of each column, by shares of the rows; 1 where it is 0."""
    share = share.reshape(-1, *(1,) * (x.ndim - 1))
    squares = (share * jnp.square(x - (share * x).sum(0)[None])).sum(0)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 1)


def _step(key: Array, x: Array, state: State, terms: Terms, c: Array, size: Array) -> tuple[Array, State, Array, Array]:
    """The default kernel. The size of each row's step is log-uniform from a tenth of `size` to `size`, as one size does not
    suit both a neck and the width of a density. [On a funnel the mean squared z-score of log Z is 1.4, with one size 4.9.]"""
    vary, key = jax.random.split(key)
    share = NARROWEST ** jax.random.uniform(vary, (len(x), *(1,) * (x.ndim - 1)), x.dtype)
    return trajectory(key, x, state, terms, c, share * size, LEAPFROG)


def _resampled(key: Array, x: Array, state: State, log_w: Array) -> tuple[Array, State, Array]:
    """Draws that are drawn again by their weights, by systematic resampling, after which weights are equal."""
    n, w = len(x), jax.nn.softmax(log_w)
    places = (jnp.arange(n, dtype=w.dtype) + jax.random.uniform(key, dtype=w.dtype)) / n
    order = jnp.minimum(jnp.searchsorted(jnp.cumsum(w), places), n - 1)
    slopes = state.slopes if state.slopes.ndim == 0 else state.slopes[:, order]
    return x[order], State(state.values[:, order], slopes), jnp.full_like(log_w, log_mean(log_w))


def alpha_divergence(
    params: Any,
    distribution: Any,
    log_density: Callable,
    rng: Any,
    num_samples: int,
    *,
    alpha: float = 2.0,
    num_temperatures: int = 0,
    context: Any = None,
) -> Array:
    """D_alpha(p || q) + alpha / (alpha - 1) log Z, with the Renyi divergence D = log(int p^alpha q^(1 - alpha)) / (alpha - 1).

    The estimate, in nats, is log(mean(w^alpha)) / (alpha - 1) over draws x of q, w = p Z / q. For alpha above 1 it is large
    where q lacks mass that p has, so that q learns to cover p; alpha = 2 minimises the variance of importance weights. The
    gradient is -E_r[d log q(x) / dparams], r proportional to p^alpha q^(1 - alpha), by self-normalised weights w^alpha at
    draws that are held fixed. The value knows nothing of modes that no draw reaches, and is then too low. With temperatures
    the draws go from q to r, as in `annealed_importance_samples`: they reach more modes, and their weights have less
    variance.

    Args:
        params: of the distribution, what is trained.
        distribution: its triple `(params, log_pdf, sample)`.
        log_density: the target. No gradient goes to arrays that it depends on.
        rng: key or seed.
        num_samples: draws.
        alpha: above 0, and not 1, which is `forward_kl`.
        num_temperatures: 0 takes draws of q as they are; n anneals them, with 5 gradients of log_density and log q each.
        context: shared by all draws. Several contexts are several targets: take them with `jax.vmap`.

    Errors:
        FlowsError and TypeError: as `forward_kl`; an alpha of 1, or not above 0; num_temperatures below 0.

    Source:
        Minka, "Divergence measures and message passing", 2005; Midgley, Stimper, Simm, Schoelkopf and Hernandez-Lobato, "Flow
        Annealed Importance Sampling Bootstrap", 2023, arXiv:2208.01893, equations 5 and 8.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> distribution = flows.Normal()(0, 1)
        >>> log_density = lambda x: -0.5 * jnp.square(x[:, 0] / 0.8)
        >>> value = flows.objectives.alpha_divergence({}, distribution, log_density, 0, 100_000)
        >>> round(float(value - 2 * jnp.log(0.8 * jnp.sqrt(2 * jnp.pi))), 2)  # log(s^2 / sqrt(2 s^2 - 1)), s = 1.25
        0.07
    """
    name = "alpha_divergence"
    check_floats(params, name)
    alpha = positive(alpha, f"{name}: alpha")
    if alpha == 1:
        raise FlowsError(f"{name}: alpha is 1, where the divergence is KL(p || q): flows.objectives.forward_kl")
    problem, n, key = Problem(name, distribution, log_density, context), positive_int(num_samples, f"{name}: num_samples"), rng
    problem.check_shared(n)
    if type(num_temperatures) is int and num_temperatures == 0:
        x, log_w = stop_gradient(problem.weighted_draws(stop_gradient(params), as_key(key), n))
        log_w = alpha * log_w
    else:
        _check_moves(problem)
        temperatures = positive_int(num_temperatures, f"{name}: num_temperatures other than 0")
        x, log_w, *_ = annealed(problem, params, as_key(key), n, temperatures, None, False, alpha)
    log_q = problem.log_q(params, x)
    return log_mean(log_w) / (alpha - 1) - weighted_sum(jax.nn.softmax(log_w), log_q - stop_gradient(log_q))
