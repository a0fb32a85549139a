"""`sample`: Markov chains that draw from a density exactly, by local moves and by independent draws of a flow, which is fitted
further to what the chains find. Family: BlackJAX."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import FlowsError, as_key, check_function, on_device, positive_int, warn_user
from flows.diagnostics import effective_draws, rhat
from flows.interop.walk import BLOCK, Record, Walk, turned
from flows.objectives import Estimate, bridge_normalizer
from flows.results.ensemble import EnsembleResult
from flows.results.result import FitResult
from flows.training.fit import fit as fit_of_rows

LEAST = 4  # draws
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
    1.5 or 2.5 times as wide, and reach into tails that the flow lacks; and five local moves in the units of the data come
    before every ten steps, as they reach what the flow cuts off. In each round the size of local moves adapts, and the flow
    is fitted further, to what the chains found. Then both are frozen, and the draws begin.

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
    return _chains(walk, record._replace(proposed=proposed), draws, result, np.array(acceptance))


def _of_the_model(result: Any, fitted: FitResult) -> FitResult:
    if not isinstance(result, FitResult) or result.init_fun != fitted.init_fun:
        got = repr(result.init_fun) if isinstance(result, FitResult) else type(result).__name__
        raise FlowsError(f"sample: fit returned {got:.100}; expected a result of the model {fitted.init_fun!r:.100}")
    return result


def _chains(walk: Walk, record: Record, draws: int, result: FitResult, acceptance: np.ndarray) -> Chains:
    """The draws, in the units of the user."""
    x, log_p, log_w = (np.swapaxes(array[:draws], 0, 1) for array in record[:3])
    x = np.asarray(turned(walk.fitted, on_device(x.reshape(-1, *walk.event)))).reshape(x.shape)
    mixed, effective = rhat(x), effective_draws(x)
    names = [f"number {j} of a draw" for j in range(mixed.size)] if walk.named is None else walk.named.entries()
    warn_of_mixing(mixed.ravel(), effective.ravel(), names, float(acceptance[-1, 1]))

    def natural(array: np.ndarray) -> Any:
        return array if walk.named is None else jax.tree.map(np.asarray, walk.natural(jnp.asarray(array)))

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
