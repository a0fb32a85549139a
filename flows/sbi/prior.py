"""Priors of the parameters of a simulator: independent marginals by name, any distribution, a posterior at its observation, and
the part of a prior where a posterior is dense."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    Array,
    DistributionInit,
    FlowsError,
    Region,
    Shape,
    as_array,
    as_event,
    as_key,
    everywhere,
    functions_of,
    initialize,
    number,
    on_device,
    part_of,
    positive_int,
)
from flows.distributions.joint import Joint
from flows.results.columns import Inputs
from flows.results.density import Parameters
from flows.results.pieces import by_pieces
from flows.results.result import FitResult
from flows.training.fingerprint import digest_of

TOGETHER = 1_000  # rows of one call, and so of one program
LOOKED_AT = 100  # draws that have to be finite
DRAWS = 20_000  # of a posterior and of a prior, by which a cut is placed and its share is measured
LEAST_SHARE = 1e-3  # of the prior, below which draws of the posterior are weighed
CANDIDATES = 64  # of these, for one draw
MOST_AGAIN = 20  # times that other candidates are drawn
ATTEMPTS = 1_000_003  # for one draw of a cut, more than it takes; odd, so that cuts of cuts do not repeat theirs


class Prior:
    """Distribution of the parameters of a simulator.

    `Prior({"rate": flows.Uniform(0.1, 2.0), "shift": (flows.Normal(), 3)})` has independent marginals by name, each a
    distribution or a pair of a distribution and the shape of its parameter; angles come first in its vectors.
    `Prior(init_fun, dim)` is any distribution of vectors, and `Prior(result, context=x)` a fitted one, such as a posterior at
    its observation. `log_prob` is in nats. Row i of `draw(rng, n)` depends on rng and i alone, whatever n is.

    Args:
        marginals: a dict, a distribution, or a `FitResult`.
        dim: the number of parameters of a distribution.
        context: the context of a result that takes one.

    Attributes:
        named: names and shapes of the parameters, as `FitResult` has them; None for vectors.
        size: the length of a vector.
        region: where vectors live: ends, and periods of angles.

    Errors:
        FlowsError: codes or counts, draws that are not finite or have no density (an improper prior), a shape that does not
            fit. TypeError: marginals of another type.

    Example:
        >>> import flows
        >>> prior = flows.sbi.Prior({"rate": flows.Uniform(0.0, 2.0), "shift": (flows.Normal(), 3)})
        >>> {name: array.shape for name, array in prior.draw(0, 5).items()}
        {'rate': (5,), 'shift': (5, 3)}
        >>> prior.support["rate"], prior.input_dim
        ((0.0, 2.0), {'rate': (), 'shift': (3,)})
    """

    share = 1.0  # of the prior that a cut leaves

    def __init__(self, marginals: Any, dim: int | None = None, *, context: Any = None):
        self.named: Parameters | None = None
        self.context: Array | None = None
        if dim is not None and isinstance(marginals, Mapping | FitResult):
            raise TypeError(f"Prior: dim is {dim!r:.40}, and a {type(marginals).__name__} has its shapes; leave dim out")
        if context is not None and not isinstance(marginals, FitResult):
            raise TypeError("Prior: context is of a FitResult, as Prior(posterior, context=x); leave it out")
        if isinstance(marginals, Mapping):
            marginals, self.named = _joint(marginals)
            dim = self.named.size
        if isinstance(marginals, FitResult):
            inputs, self.named, dim = Inputs(marginals), marginals.named, marginals.input_dim
            condition = inputs.context(context)
            if inputs.context_shape is not None and (not condition or inputs.batched(condition)):
                raise FlowsError(f"Prior: expected context=, one observation of shape {inputs.context_shape}, of this result")
            self.context = condition.get("context")
            if self.context is not None and not np.isfinite(self.context).all():
                raise FlowsError("Prior: the observation in context= is not finite; expected finite numbers")
            params, part = marginals.params, part_of(marginals.init_fun, as_event(dim), inputs.context_shape)
            self._init_fun = marginals.init_fun
        elif isinstance(marginals, DistributionInit):
            if dim is None:
                raise TypeError(f"Prior: dim is missing; expected Prior({marginals!r:.60}, dim), the number of parameters")
            params, part = initialize(marginals, as_key(0), as_event(dim), None)
            self._init_fun = marginals
        else:
            raise TypeError(f"Prior: marginals are {marginals!r:.60}; expected a dict by name, a distribution, or a FitResult")
        (self.size,) = event = as_event(dim)[:1] or (0,)
        if as_event(dim) != event or not self.size:
            raise FlowsError(f"Prior: the event is {as_event(dim)}; expected parameters in a vector")
        self._params, (self._log_pdf, self._sample) = params, functions_of(part, params)
        self.region: Region = part.region or everywhere(event)
        if np.any(self.region.discrete) or np.any(self.region.sphere):
            raise FlowsError(f"Prior: {self._init_fun!r:.80} draws {self.region.words.noun}; expected numbers and angles")
        self._program = jax.jit(jax.vmap(self._row, (None, 0, 0), out_axes=1))
        few = self.rows(as_key(0), np.arange(LOOKED_AT))
        self.dtype = few.dtype
        if not (np.isfinite(few).all() and np.isfinite(self.log_prob(few)).all()):
            raise FlowsError(f"Prior: draws of {self._init_fun!r:.80}, or their log-densities, are not finite; is it improper?")

    def draw(self, rng: Any, n: int) -> Any:
        """Return n draws: a dict of arrays (n, *shape) where parameters have names, else (n, size)."""
        drawn = on_device(self.rows(as_key(rng), np.arange(positive_int(n, "draw: n"))))
        return drawn if self.named is None else self.named.natural(drawn)

    def log_prob(self, theta: Any) -> Array:
        """Return the log-density of parameters, (n,), in nats, of a dict of arrays (n, *shape) or of vectors (n, size)."""
        return self.log_pdf(self.vectors(theta))

    def vectors(self, theta: Any) -> Array:
        """Return parameters as vectors (n, size): of a dict of arrays, or as they are."""
        x = self.named.packed(theta, "theta") if isinstance(theta, Mapping) and self.named else as_array(theta, "theta")
        if x.ndim != 2 or x.shape[1] != self.size:
            raise FlowsError(f"theta has shape {x.shape}; expected (n, {self.size})")
        return x

    @property
    def input_dim(self) -> Any:
        """The number of parameters, or their shapes by name, as `fit_to_density` takes them."""
        return self.size if self.named is None else dict(zip(self.named.names, self.named.shapes, strict=True))

    @property
    def support(self) -> Any:
        """Ends of the parameters, as `fit_to_density` takes them: a pair, by name where there are names; None without ends."""
        low, high = (np.broadcast_to(np.asarray(end, float), (self.size,)) for end in self.region)
        if not np.isfinite([low, high]).any():
            return None
        if self.named is None:
            return low, high
        ends = (self.named.natural(end[None]) for end in (low, high))
        pairs = {name: (a[0], b[0]) for (name, a), b in zip(next(ends).items(), next(ends).values(), strict=True)}
        return {name: (float(a), float(b)) if not a.ndim else (a, b) for name, (a, b) in pairs.items()}

    @property
    def periods(self) -> np.ndarray:
        """Periods of angles, 0 for numbers, (size,)."""
        return np.broadcast_to(np.asarray(self.region.period, float), (self.size,))

    def digest(self) -> str:
        """Return a text that only an equal prior has."""
        return digest_of(
            (
                self._params,
                () if self.context is None else self.context,
                np.frombuffer(repr((self._init_fun, self.named)).encode(), np.uint8),
            )
        )

    def __repr__(self) -> str:
        names = "" if self.named is None else f", of {', '.join(self.named.names)}"
        return f"Prior of {self.size} numbers{names}: {self._init_fun!r:.100}"

    def log_pdf(self, x: Array) -> Array:
        """Return the log-density of vectors (n, size)."""
        return self._log_pdf(self._params, x, **self._condition)

    def rows(self, key: Array, numbers: np.ndarray, attempts: np.ndarray | None = None) -> np.ndarray:
        """Return draws by their numbers, (n, size); draws of another attempt are independent."""
        attempts = np.zeros_like(numbers) if attempts is None else attempts
        return by_pieces(
            lambda i, t: self._program(key, i, t), numbers.astype(np.uint32), attempts.astype(np.uint32), sizes=(TOGETHER,)
        ).T

    def _row(self, key: Array, number: Array, attempt: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(key, number), attempt)
        return self._sample(key, self._params, 1, **self._condition)[0]

    @property
    def _condition(self) -> dict[str, Array]:
        return {} if self.context is None else {"context": self.context}


def _joint(marginals: Mapping) -> tuple[DistributionInit, Parameters]:
    """Return the distribution of independent marginals, angles first, and the names in this order."""
    pairs = {name: pair if isinstance(pair, tuple) and len(pair) == 2 else (pair, ()) for name, pair in marginals.items()}
    named, angles = Parameters.of({name: shape for name, (_, shape) in pairs.items()}, "Prior"), dict[str, bool]()
    for name, (distribution, _) in pairs.items():
        if not isinstance(distribution, DistributionInit):
            raise TypeError(
                f"Prior: the marginal of {name!r} is {distribution!r:.60}; expected a distribution, such as flows.Uniform(), "
                "or a pair of it and the shape of the parameter"
            )
        width: Shape = (named.slices[name].stop - named.slices[name].start,)
        region = initialize(distribution, as_key(0), width, None)[1].region
        angles[name] = region is not None and bool(np.any(region.period))
    order = sorted(named.names, key=lambda name: not angles[name])
    named = Parameters.of({name: pairs[name][1] for name in order}, "Prior")
    sizes = tuple(part.stop - part.start for part in named.slices.values())
    return Joint(*(pairs[name][0] for name in order), sizes=sizes), named


class Truncated(Prior):
    """Part of a prior where a posterior at an observation is dense: log p(theta) - log share inside, and -inf outside."""

    def __init__(self, base: Prior, proposal: Prior, log_q: Callable, least: float, share: float):
        self._base, self._proposal, self._log_q, self._least, self._part = base, proposal, log_q, least, share
        self.share = share * base.share
        self.named, self.size, self.region, self.dtype = base.named, base.size, base.region, base.dtype

    def log_pdf(self, x: Array) -> Array:
        return jnp.where(self._log_q(x) >= self._least, self._base.log_pdf(x) - math.log(self._part), -jnp.inf)

    def rows(self, key: Array, numbers: np.ndarray, attempts: np.ndarray | None = None) -> np.ndarray:
        first = np.zeros_like(numbers) if attempts is None else attempts
        if self._part < LEAST_SHARE:
            return self._resampled(key, numbers, first)
        drawn, left, tried = np.zeros((len(numbers), self.size), self.dtype), np.arange(len(numbers)), 0
        while len(left):  # more attempts at once for fewer rows, so that a call has as many points
            m = max(TOGETHER // len(left), 1)
            which, attempt = np.repeat(left, m), tried + np.tile(np.arange(m), len(left))
            points = self._base.rows(key, numbers[which], first[which] * ATTEMPTS + attempt)
            inside = np.isfinite(self._log_density(points)).reshape(-1, m)
            hit = inside.any(1)
            drawn[left[hit]] = points.reshape(-1, m, self.size)[hit, inside[hit].argmax(1)]
            left, tried = left[~hit], tried + m
        return drawn

    def _resampled(self, key: Array, numbers: np.ndarray, attempts: np.ndarray) -> np.ndarray:
        """Return for each row one of some draws of the posterior, by its weight: prior over posterior."""
        words = np.asarray(jax.random.key_data(key)).ravel().tolist()
        drawn, left = np.zeros((len(numbers), self.size), self.dtype), np.arange(len(numbers))
        for again in range(MOST_AGAIN):
            i, t = numbers[left], attempts[left] * ATTEMPTS + again
            which, candidate = np.repeat(i, CANDIDATES), np.tile(np.arange(CANDIDATES), len(left))
            points = self._proposal.rows(key, which, np.repeat(t, CANDIDATES) * CANDIDATES + candidate)
            log_w = self._log_density(points) - by_pieces(self._log_q, points, sizes=(TOGETHER,))
            noise = [np.random.default_rng([*words, *pair]).gumbel(size=CANDIDATES) for pair in zip(i, t, strict=True)]
            log_w = log_w.reshape(-1, CANDIDATES)
            chosen = (log_w + np.stack(noise)).argmax(1)
            drawn[left] = points.reshape(len(left), CANDIDATES, -1)[np.arange(len(left)), chosen]
            left = left[np.isneginf(log_w).all(1)]  # of none of which the prior has a density
            if not len(left):
                return drawn
        raise FlowsError("Prior: draws of the posterior miss the cut of the prior; is it a posterior of this prior?")

    def _log_density(self, points: np.ndarray) -> np.ndarray:
        return by_pieces(self.log_pdf, points, sizes=(TOGETHER,))

    def digest(self) -> str:
        cut = self._proposal._params, self._proposal.context, np.float64(self._least)
        return self._base.digest() + digest_of(cut)

    def __repr__(self) -> str:
        return f"{self._base!r}, cut to a share of {self.share:.2g}"


def truncated(rng: Any, prior: Prior, posterior: FitResult, x: Any, *, mass: float = 0.9999) -> Prior:
    """Return the prior where the posterior's log-density at x is above the quantile 1 - mass of its draws.

    Simulations of it are near the observation, and a posterior that is fitted to them needs no correction there, as the cut
    only removes parameters that the observation rules out. Its draws are draws of the prior that lie inside; where less than
    0.001 of the prior does, each is one of 64 draws of the posterior, by weights prior over posterior.

    Args:
        rng: key or seed.
        prior: the prior of the posterior, or a cut of it.
        posterior: a result of `fit_posterior`.
        x: one observation, of the shape of the posterior's context.
        mass: the share of the posterior's draws that stays.

    Returns:
        A `Prior` with `.share`, the share of the prior that is left.

    Errors:
        FlowsError: an observation of another shape, a mass outside (0, 1), or a cut that holds nothing of the prior.

    Source:
        Deistler, Goncalves and Macke, "Truncated proposals for scalable and hassle-free simulation-based inference", 2022,
        arXiv:2210.04815.
    """
    mass = number(mass, "truncated: mass", lambda m: 0 < m < 1, "a number between 0 and 1, such as 0.9999")
    if not isinstance(prior, Prior) or not isinstance(posterior, FitResult):
        raise TypeError(f"truncated: got {prior!r:.40} and {posterior!r:.40}; expected truncated(rng, prior, posterior, x)")
    proposal = Prior(posterior, context=x)
    log_q_of = jax.jit(proposal.log_pdf)
    key, prior_key = jax.random.split(as_key(rng))
    drawn = proposal.rows(key, np.arange(DRAWS))
    log_q = by_pieces(log_q_of, drawn, sizes=(TOGETHER,))
    least = float(np.quantile(log_q, 1 - mass))
    points = prior.rows(prior_key, np.arange(DRAWS))
    inside = by_pieces(log_q_of, points, sizes=(TOGETHER,)) >= least
    share = float(inside.mean())
    if share < 10 * LEAST_SHARE:  # few hits: the estimate with the smaller relative error
        log_p = by_pieces(jax.jit(prior.log_pdf), drawn, sizes=(TOGETHER,))
        weights = np.where(log_q >= least, np.exp(np.minimum(log_p - log_q, 80.0)), 0.0)
        if share < LEAST_SHARE or weights.std() * share < inside.std() * weights.mean():
            share = float(weights.mean())
    if not share > 0:
        raise FlowsError(
            f"truncated: the cut holds nothing of the prior: no draw of the posterior at this observation, above log-density "
            f"{least:.4g}, has a density under {prior!r:.60}; is it the prior of this posterior?"
        )
    return Truncated(prior, proposal, log_q_of, least, min(share, 1.0))
