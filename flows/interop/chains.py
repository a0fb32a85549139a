"""`sample`: Markov chains that draw from a density exactly, by local moves and by independent draws of a flow, which is fitted
further to what the chains find. Family: BlackJAX."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    Array,
    FlowsError,
    as_array,
    as_context,
    as_event,
    as_key,
    check_function,
    distribution_part,
    on_device,
    on_turn,
    positive_int,
    warn_user,
)
from flows.diagnostics import effective_draws, rhat
from flows.distributions.draws import sample_with_log_pdf
from flows.interop.noise import check_density, context_of, names_of, noise_of_flow
from flows.mcmc import State, Terms, chosen, decided, trajectory
from flows.objectives import Estimate, bridge_normalizer
from flows.results.ensemble import EnsembleResult
from flows.results.result import FitResult
from flows.training.density.figures import SHARES, WIDTHS, Base
from flows.training.fit import fit as fit_of_rows

BLOCK = 100  # steps of one compiled call
CANDIDATES = 64  # draws of the flow for each chain, of which it starts at one
ACCEPTANCE = 0.574  # of local moves, which is best in many dimensions [Roberts and Rosenthal, 1998]
MOST_LOG_SIZE = -20.0, 3.0  # bounds of the logarithm of the size of steps
LEAST = 4  # draws
SLOWER = 0.6  # the power of time by which the size of steps settles
MIXED, ENOUGH, RARE = 1.01, 400, 0.01  # R-hat, effective draws, and accepted global moves, of which a warning tells


@dataclass(frozen=True, eq=False, repr=False)
class Chains:
    """Draws of Markov chains.

    Attributes:
        draws: (chains, draws, *event), or a dict of arrays (chains, draws, *shape) where parameters have names.
        log_density: log_density of each draw, (chains, draws), in nats.
        acceptance: "local" and "global", the shares of moves that were accepted: in each round, before the draws, and in the
            draws, (rounds + 2,).
        rhat, effective: `flows.diagnostics.rhat` and `effective_draws` of each parameter, of its shape.
        result: the last flow.
    """

    draws: Any
    log_density: np.ndarray
    acceptance: dict[str, np.ndarray]
    rhat: Any
    effective: Any
    result: FitResult
    _log_weights: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    _of_proposals: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def evidence(self) -> Estimate:
        """log Z of the density, by a bridge between the draws of the chains and draws of the flow that were offered to the
        chains before, and are scored already (`flows.objectives.bridge_normalizer`)."""
        least = min(np.nanmin(leaf) for leaf in jax.tree.leaves(self.effective))
        effective = float(np.nanmin([least, effective_draws(self._log_weights), self._log_weights.size]))
        return bridge_normalizer(self._log_weights.ravel(), self._of_proposals, effective=max(effective, 1.0))

    def __repr__(self) -> str:
        chains, draws = self.log_density.shape
        local, far = (self.acceptance[name][-1] for name in ("local", "global"))
        worst, least = (pick(leaf) for pick, leaf in zip((_most, _least), (self.rhat, self.effective), strict=True))
        try:
            estimate = self.evidence()
            evidence = f"log Z {estimate.value:.4f} +- {estimate.standard_error:.4f}"
        except FlowsError as error:
            evidence = f"unknown: {error}"
        return (
            f"Chains         {chains} of {draws:,} draws\n"
            f"  accepted     {local:.0%} of local moves, {far:.0%} of the flow's draws\n"
            f"  mixing       R-hat {worst:.3f} at most, {least:,.0f} effective draws at least\n"
            f"  evidence     {evidence}"
        )


def _most(tree: Any) -> float:
    return float(np.max([np.max(leaf) for leaf in jax.tree.leaves(tree)]))


def _least(tree: Any) -> float:
    return float(np.min([np.min(leaf) for leaf in jax.tree.leaves(tree)]))


def sample(
    rng: Any,
    log_density: Callable,
    fitted: FitResult,
    *,
    chains: int = 16,
    draws: int = 1_000,
    rounds: int = 3,
    start: Any = None,
    fit: Callable | None = None,
) -> Chains:
    """Exact draws of a density that a fitted flow q is near to, by chains that also jump between its modes.

    A step is a local move and a global one. The local move is the Metropolis-adjusted Langevin algorithm in the noise of the
    flow, x = f^-1(z) (in the units of the data for mixtures, ensembles and angles). The global move proposes a draw x' of q,
    and accepts it with probability min(1, p(x') q(x) / (p(x) q(x'))). In noise, a quarter of these draws have a base that is
    1.5 or 2.5 times as wide, and reach into tails that the flow lacks. In each round the size of local moves adapts, and the
    flow is fitted further, to what the chains found. Then both are frozen, and the draws begin.

    No chain finds a mode that the flow never draws and where no chain starts: R-hat may show it, or nothing does. Give `start`
    points at every mode that you know of.

    Args:
        rng: key or seed.
        log_density: a function of points (n, *event), or of a dict of arrays (n, *shape) where the result has names, that
            returns (n,), in nats, up to a constant.
        fitted: a result, such as of `flows.fit_to_density`.
        chains, draws: their number, and the number of draws of each.
        rounds: how often the flow is fitted to the chains; 0 keeps it, as for an ensemble, which is never fitted further.
        start: points where chains start, (chains, *event) or a dict; by default draws of q, chosen by their weights p / q.
        fit: called `fit(rng, result, rows, weights=counts)`, where a point at which a chain stayed is one row with its count;
            by default `flows.fit` without a bar.

    Returns:
        A `Chains`. It warns where R-hat is above 1.01, where fewer than 400 draws are effective, and where draws of the flow
        are hardly ever accepted. Draws of its `result` are vectors, in the order of the names.

    Errors:
        FlowsError: a result that is a 'lower bound', of codes, of unit vectors, or with a context; a density of a single point,
            or of another shape; a start where the density, or its gradient, is not finite, with the chain, the entry and the
            value. TypeError: not a result, or not a function.

    Source:
        Gabrie, Rotskoff and Vanden-Eijnden, "Adaptive Monte Carlo augmented with normalizing flows", 2022, arXiv:2105.12603.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> from flows.interop.blackjax import sample
        >>> log_density = lambda x: -0.5 * jnp.square(x - 3).sum(1)
        >>> result = flows.fit_to_density(0, flows.Normal(trainable=True), log_density, 2, max_epochs=1, verbose=0)
        >>> chains = sample(1, log_density, result, draws=300, rounds=0)
        >>> chains.draws.shape, chains.draws.mean((0, 1)).round().tolist()
        ((16, 300, 2), [3.0, 3.0])
    """
    check_function(log_density, "sample: log_density", "a function of points (n, *event)")
    chains, draws = positive_int(chains, "sample: chains"), positive_int(draws, "sample: draws")
    if draws < LEAST:
        raise FlowsError(f"sample: draws is {draws}; expected {LEAST} or more, so that halves of a chain can be compared")
    rounds = 0 if rounds == 0 else positive_int(rounds, "sample: rounds")
    rounds = 0 if isinstance(fitted, EnsembleResult) else rounds
    walk, key = Walk.of(log_density, fitted, chains), as_key(rng)
    fit = partial(fit_of_rows, verbose=0) if fit is None else fit
    check_function(fit, "sample: fit", "fit(rng, result, rows, weights)")
    key, start_key = jax.random.split(key)
    result, acceptance = fitted, list[tuple[float, float]]()
    x = walk.chosen_start(start_key) if start is None else walk.checked_start(start)
    state = walk.begun(fitted.params, x)
    walk.check(state, x)
    blocks = max(math.ceil(draws / BLOCK / max(rounds, 1)), 2)
    for turn in range(rounds + 1):
        key, run_key, fit_key = jax.random.split(key, 3)
        state, record = walk.run(result.params, run_key, state, blocks, tuned=True)
        acceptance.append((record.local, record.far))
        if turn < rounds:
            half = record.x[blocks * BLOCK // 2 :]
            rows, counts = np.unique(half.reshape(-1, *half.shape[2:]), axis=0, return_counts=True)
            result = _of_the_model(fit(fit_key, result, rows, weights=counts), fitted)
            state = walk.begun(result.params, record.x[-1])._replace(log_size=state.log_size)
    proposed = record.proposed  # of the last flow, and of no draw below
    state, record = walk.run(result.params, key, state, math.ceil(draws / BLOCK), tuned=False)
    acceptance.append((record.local, record.far))
    return walk.chains(record._replace(proposed=proposed), draws, result, np.array(acceptance))


def _of_the_model(result: Any, fitted: FitResult) -> FitResult:
    if not isinstance(result, FitResult) or result.init_fun != fitted.init_fun:
        got = repr(result.init_fun) if isinstance(result, FitResult) else type(result).__name__
        raise FlowsError(f"sample: fit returned {got:.100}; expected a result of the model {fitted.init_fun!r:.100}")
    return result


def _turned(fitted: FitResult, x: Array) -> Array:
    """Return points with their angles on the turn of the data."""
    region = distribution_part(fitted.init_fun, as_event(fitted.input_dim), None).region
    if region is None or not np.any(region.period):
        return x
    return on_turn(region, x, -region.period / 2 if fitted.turn is None else fitted.turn)


class Walking(NamedTuple):
    """Where chains are: coordinates, log p there and its gradient, the logarithm of the size of steps, and its age."""

    z: Array
    at: State
    log_size: Array
    time: Array


class Record(NamedTuple):
    """Points of chains and log p there, (steps, chains, ...), log weights there and of the flow's draws, in NumPy; and the
    shares of moves that were accepted."""

    x: np.ndarray
    log_p: np.ndarray
    log_w: np.ndarray
    proposed: np.ndarray
    local: float
    far: float


class Walk:
    """Chains in the noise of a flow, or in the units of the data, with one compiled program for all rounds.

    In the noise z, log p is log p(x(z)) + log|det dx/dz| and log q the log-density of the base, so a chain that carries its
    noise never asks the flow for the density of a point. A quarter of the proposals have a base that is 1.5 or 2.5 times as
    wide, and q is this mixture: a flow whose base ends where a ring is cut draws too little there.
    """

    def __init__(self, density: Callable, fitted: FitResult, chains: int, in_noise: bool, scale: Array):
        self.density, self.fitted, self.count, self.in_noise, self.scale = density, fitted, chains, in_noise, scale
        self.event, (self.named, self.natural) = as_event(fitted.input_dim), names_of(fitted)
        self.begun, self._block = jax.jit(self._begun), jax.jit(self._steps)
        self._data = jax.jit(lambda params, z: self._flow(params)[1](z))

    @classmethod
    def of(cls, log_density: Callable, fitted: FitResult, chains: int) -> "Walk":
        if isinstance(fitted, FitResult) and as_context(fitted.context_dim) is not None:
            raise FlowsError("sample: the result takes a context; give the result of a model without one, or use `proposal`")
        keywords = context_of("sample", fitted, None)
        named, natural = names_of(fitted)
        region = distribution_part(fitted.init_fun, as_event(fitted.input_dim), None).region
        if region is not None and np.any(region.sphere):
            raise FlowsError("sample: the result draws unit vectors, and local moves leave the sphere; use `proposal`")

        def density(x: Array) -> Array:
            return jnp.asarray(log_density(natural(_turned(fitted, x))), x.dtype)

        check_density("sample", density, fitted, keywords, named)
        try:
            noise_of_flow("sample", fitted, as_event(fitted.input_dim))
            in_noise, scale = True, jnp.ones(())
        except FlowsError:  # of several bijections, or noise that is not on the whole line
            in_noise, scale = False, jnp.std(fitted.sample(0, fitted.params, 1_000), 0)[None]
        return cls(density, fitted, chains, in_noise, scale)

    def _flow(self, params: Any) -> tuple[Callable, Callable, Callable, Callable]:
        """Functions of the flow at these params: `draw(key, n)` gives coordinates and log q, `to_data` points and log|det|,
        `to_coordinates` is the way back, and `log_q` of coordinates."""
        fitted = self.fitted._replace(params=params)
        if not self.in_noise:
            return (
                lambda key, n: sample_with_log_pdf(key, params, fitted, n),
                lambda x: (x, jnp.zeros(x.shape[0], x.dtype)),
                lambda x: x,
                lambda x: fitted.log_pdf(params, x),
            )
        noise = noise_of_flow("sample", fitted, self.event)
        bases = [Base.of(noise.base.log_pdf, noise.base.sample, noise.base.params, by) for by in WIDTHS]

        def log_q(z: Array) -> Array:
            parts = [math.log(share) + base.log_pdf(z) for share, base in zip(SHARES, bases, strict=True)]
            return jax.nn.logsumexp(jnp.stack(parts), 0)

        def draw(key: Array, n: int) -> tuple[Array, Array]:
            which_key, *keys = jax.random.split(key, 1 + len(bases))
            which = jax.random.choice(which_key, len(bases), (n,), p=jnp.asarray(SHARES))
            z = jnp.stack([base.draw(base_key, n) for base, base_key in zip(bases, keys, strict=True)])[which, jnp.arange(n)]
            return z, log_q(z)

        return draw, noise.to_data, noise.of, log_q

    def _terms(self, to_data: Callable) -> Terms:
        def log_p(z: Array) -> Array:
            x, log_det = to_data(z)
            return self.density(x) + log_det

        return Terms((log_p,))

    def _begun(self, params: Any, x: Array) -> Walking:
        _, to_data, to_coordinates, _ = self._flow(params)
        z = to_coordinates(x)
        return Walking(z, self._terms(to_data)(z), jnp.log(jnp.asarray(0.5, z.dtype)), jnp.zeros((), z.dtype))

    def _steps(self, params: Any, key: Array, state: Walking, gain: Array) -> tuple[Walking, tuple]:
        """A block of steps. The draws of the flow are made and scored before; `gain` is 0 where the size of steps is frozen."""
        draw, to_data, _, log_q = self._flow(params)
        terms, (draw_key, key) = self._terms(to_data), jax.random.split(key)
        z, log_q_there = draw(draw_key, BLOCK * self.count)
        by_step = [array.reshape(BLOCK, self.count, *array.shape[1:]) for array in (z, log_q_there)]
        at = jax.lax.map(terms, by_step[0])

        def step(state: Walking, proposed: tuple) -> tuple[Walking, tuple]:
            key, z, at, log_q_there = proposed
            local_key, far_key = jax.random.split(key)
            size, one = jnp.exp(state.log_size) * self.scale.astype(z.dtype), jnp.ones(1, z.dtype)
            here, at_here, probability, moved = trajectory(local_key, state.z, state.at, terms, one, size, 1)
            here = here if self.in_noise else _turned(self.fitted, here)
            log_w, log_w_there = at_here.values[0] - log_q(here), at.values[0] - log_q_there
            usable = ~jnp.isnan(log_w_there - log_w) & (at.values[0] < jnp.inf)
            usable &= jnp.isfinite(at.slopes[0]).reshape(len(z), -1).all(1)
            jumped = decided(far_key, log_w_there - log_w, usable)[1]
            at = State(
                jnp.where(jumped, at.values, at_here.values), jax.vmap(partial(chosen, jumped))(at.slopes, at_here.slopes)
            )
            z, log_w = chosen(jumped, z, here), jnp.where(jumped, log_w_there, log_w)
            more = gain * (probability.mean() - ACCEPTANCE) / (1 + state.time) ** SLOWER
            log_size = jnp.clip(state.log_size + more, *MOST_LOG_SIZE)
            state = Walking(z, at, log_size, state.time + 1)
            return state, (z, at.values[0], log_w, moved.mean(), jumped.mean(dtype=z.dtype))

        state, out = jax.lax.scan(step, state, (jax.random.split(key, BLOCK), by_step[0], at, by_step[1]))
        there = jnp.isfinite(at.values[:, 0]) & jnp.isfinite(at.slopes[:, 0]).reshape(*by_step[1].shape, -1).all(2)
        return state, (*out, jnp.where(there, at.values[:, 0] - by_step[1], -jnp.inf).ravel())

    def run(self, params: Any, key: Array, state: Walking, blocks: int, tuned: bool) -> tuple[Walking, Record]:
        """Run chains for some blocks."""
        gain, outs = jnp.asarray(float(tuned), state.z.dtype), []
        state = state._replace(time=jnp.zeros_like(state.time))
        for block_key in jax.random.split(key, blocks):
            state, (z, log_p, log_w, local, far, proposed) = self._block(params, block_key, state, gain)
            x, log_det = self._data(params, z.reshape(-1, *z.shape[2:]))
            x, log_p = x.reshape(*z.shape[:2], *self.event), log_p - log_det.reshape(log_p.shape)
            outs.append(tuple(map(np.asarray, (x, log_p, log_w, proposed, local, far))))
        x, log_p, log_w, proposed, local, far = (np.concatenate(arrays) for arrays in zip(*outs, strict=True))
        return state, Record(x, log_p, log_w, proposed, float(local.mean()), float(far.mean()))

    def chosen_start(self, key: Array) -> Array:
        """Draws of the flow, chosen by their weights."""
        draw_key, choice_key = jax.random.split(key)
        draw, to_data, _, _ = self._flow(self.fitted.params)
        z, log_q = draw(draw_key, CANDIDATES * self.count)
        at = self._terms(to_data)(z)
        usable = jnp.isfinite(at.values[0]) & jnp.isfinite(at.slopes[0]).reshape(len(z), -1).all(1) & jnp.isfinite(log_q)
        if usable.sum() < self.count:
            raise FlowsError(
                f"sample: log_density and its gradient are finite at {int(usable.sum())} of {len(z)} draws of the flow; "
                f"expected {self.count} or more: give start= points of the density, or fit a flow that is nearer to it"
            )
        log_w = jnp.where(usable, at.values[0] - log_q, -jnp.inf)
        best = jax.lax.top_k(log_w + jax.random.gumbel(choice_key, log_w.shape, log_w.dtype), self.count)[1]
        return to_data(z[best])[0]

    def checked_start(self, start: Any) -> Array:
        start = self.named.packed(start, "sample: start") if self.named is not None and isinstance(start, Mapping) else start
        x = as_array(start, "sample: start")
        if x.shape != (self.count, *self.event):
            raise FlowsError(f"sample: start has shape {x.shape}; expected a point for each chain, {(self.count, *self.event)}")
        return on_device(x, jnp.result_type(*jax.tree.leaves(self.fitted.params), jnp.float32))

    def check(self, state: Walking, x: Array) -> None:
        """Refuse a start where the density, or its gradient, is not finite."""
        arrays = {"its noise": state.z, "log_density": state.at.values[0], "the gradient of log_density": state.at.slopes[0]}
        for name, array in arrays.items():
            if (bad := np.argwhere(~np.isfinite(array))).size:
                chain, *entry = bad[0].tolist()
                where = f", entry {entry[0] if len(entry) == 1 else tuple(entry)}" if entry else ""
                raise FlowsError(
                    f"sample: chain {chain} starts at {np.asarray(x[chain])!s:.100}, where {name}{where} is "
                    f"{np.asarray(array)[tuple(bad[0])]}; expected finite numbers: give another start="
                )

    def chains(self, record: Record, draws: int, result: FitResult, acceptance: np.ndarray) -> Chains:
        """The draws, in the units of the user."""
        x, log_p, log_w = (np.swapaxes(array[:draws], 0, 1) for array in record[:3])
        x = np.asarray(_turned(self.fitted, on_device(x.reshape(-1, *self.event)))).reshape(x.shape)
        mixed, effective = rhat(x), effective_draws(x)
        names = [f"number {j} of a draw" for j in range(mixed.size)] if self.named is None else self.named.entries()
        warn_of_mixing(mixed.ravel(), effective.ravel(), names, float(acceptance[-1, 1]))

        def natural(array: np.ndarray) -> Any:
            return array if self.named is None else jax.tree.map(np.asarray, self.natural(jnp.asarray(array)))

        shares = dict(zip(("local", "global"), acceptance.T, strict=True))
        return Chains(natural(x), log_p, shares, natural(mixed), natural(effective), result, log_w, record.proposed)


def warn_of_mixing(mixed: np.ndarray, effective: np.ndarray, names: Sequence[str], jumps: float) -> None:
    """Warn of chains that do not mix."""
    remedy = "Give more draws or rounds, or a flow that is nearer to the density"
    if not (mixed <= MIXED).all():
        worst = int(np.argmax(np.nan_to_num(mixed, nan=np.inf)))
        warn_user(f"sample: R-hat of {names[worst]} is {mixed[worst]:.3f}, above {MIXED}: chains do not agree. {remedy}")
    if not (least := np.nan_to_num(effective).min()) >= ENOUGH:
        worst = int(np.argmin(np.nan_to_num(effective)))
        warn_user(f"sample: the draws of {names[worst]} are worth {least:.0f} independent draws, below {ENOUGH}. {remedy}")
    if jumps < RARE:
        warn_user(f"sample: {jumps:.2%} of the flow's draws were accepted, so chains hardly jump between modes. {remedy}")
