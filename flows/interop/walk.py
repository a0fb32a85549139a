"""The steps of `sample`: local moves in the noise of a flow and in the units of the data, and draws of the flow."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, FlowsError, as_array, as_context, as_event, distribution_part, on_device, on_turn
from flows.distributions.draws import sample_with_log_pdf
from flows.interop.noise import check_density, context_of, names_of, noise_of_flow
from flows.mcmc import State, Terms, chosen, decided, trajectory
from flows.results.result import FitResult
from flows.training.density.figures import SHARES, WIDTHS, Base

BLOCK = 100  # steps of one compiled call
STRIDE = 10  # steps between moves in the units of the data
MOVES = 5  # of these, in a row
CANDIDATES = 64  # draws of the flow for each chain, of which it starts at one
ACCEPTANCE = 0.574  # of local moves, which is best in many dimensions [Roberts and Rosenthal, 1998]
MOST_LOG_SIZE = -20.0, 3.0  # bounds of the logarithm of the size of steps
SLOWER = 0.6  # the power of time by which the size of steps settles
NOISE, DATA = 0, 1  # the units of a size of steps


def finite(at: State) -> Array:
    """Tell where log p and its gradient are finite."""
    there: Array = jnp.isfinite(at.values[0]) & jnp.isfinite(at.slopes[0]).reshape(*at.values.shape[1:], -1).all(-1)
    return there


def turned(fitted: FitResult, x: Array) -> Array:
    """Return points with their angles on the turn of the data."""
    region = distribution_part(fitted.init_fun, as_event(fitted.input_dim), None).region
    if region is None or not np.any(region.period):
        return x
    return on_turn(region, x, -region.period / 2 if fitted.turn is None else fitted.turn)


class Walking(NamedTuple):
    """Where chains are: coordinates, log p there and its gradient, the logarithms of the sizes of steps in noise and in data,
    and their age."""

    z: Array
    at: State
    log_size: Array
    time: Array

    def sized(self, units: int, probability: Array, gain: Array) -> "Walking":
        """Adapt a size of steps to the probabilities of acceptance."""
        by = gain * (probability.mean() - ACCEPTANCE) / (1 + self.time) ** SLOWER
        return self._replace(log_size=self.log_size.at[units].set(jnp.clip(self.log_size[units] + by, *MOST_LOG_SIZE)))

    def replaced(self, rows: Array, z: Array, at: State) -> "Walking":
        """Move some chains."""
        slopes = jax.vmap(partial(chosen, rows))(at.slopes, self.at.slopes)
        return self._replace(z=chosen(rows, z, self.z), at=State(jnp.where(rows, at.values, self.at.values), slopes))


class Coordinates(NamedTuple):
    """The coordinates of chains, at some params of the flow: `draw(key, n)` gives coordinates and log q, `to_data` points and
    log|det|, `of` is the way back, and `log_q` the log-density of coordinates. `log_p` has its gradient."""

    draw: Callable
    to_data: Callable
    of: Callable
    log_q: Callable
    log_p: Terms


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
    wide, and q is this mixture.

    Where a flow cuts a ring open, the cut is a long and narrow ridge in its noise, which moves in noise hardly enter. So every
    ten steps begin with moves in data, which ask the flow for the noise of their end alone.
    """

    def __init__(self, density: Callable, fitted: FitResult, chains: int, in_noise: bool, scale: Array):
        self.density, self.fitted, self.count, self.in_noise, self.scale = density, fitted, chains, in_noise, scale
        self.event, (self.named, self.natural) = as_event(fitted.input_dim), names_of(fitted)
        self.begun, self._block = jax.jit(self._begun), jax.jit(self._steps)
        self._data = jax.jit(lambda params, z: self._flow(params).to_data(z))

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
            return jnp.asarray(log_density(natural(turned(fitted, x))), x.dtype)

        check_density("sample", density, fitted, keywords, named)
        try:
            noise_of_flow("sample", fitted, as_event(fitted.input_dim))
            in_noise = True
        except FlowsError:  # of several bijections, or noise that is not on the whole line
            in_noise = False
        return cls(density, fitted, chains, in_noise, jnp.std(fitted.sample(0, fitted.params, 1_000), 0)[None])

    def _flow(self, params: Any) -> Coordinates:
        fitted = self.fitted._replace(params=params)
        if not self.in_noise:
            return Coordinates(
                lambda key, n: sample_with_log_pdf(key, params, fitted, n),
                lambda x: (x, jnp.zeros(x.shape[0], x.dtype)),
                lambda x: x,
                lambda x: fitted.log_pdf(params, x),
                Terms((self.density,)),
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

        def log_p(z: Array) -> Array:
            x, log_det = noise.to_data(z)
            return self.density(x) + log_det

        return Coordinates(draw, noise.to_data, noise.of, log_q, Terms((log_p,)))

    def _begun(self, params: Any, x: Array) -> Walking:
        flow = self._flow(params)
        z = flow.of(x)
        return Walking(z, flow.log_p(z), jnp.full(2, math.log(0.5), z.dtype), jnp.zeros((), z.dtype))

    def _steps(self, params: Any, key: Array, state: Walking, gain: Array) -> tuple[Walking, tuple]:
        """A block of steps. The draws of the flow are made and scored before; `gain` is 0 where sizes of steps are frozen."""
        flow, (draw_key, data_key, key) = self._flow(params), jax.random.split(key, 3)
        z, log_q = (array.reshape(BLOCK, self.count, *array.shape[1:]) for array in flow.draw(draw_key, BLOCK * self.count))
        at = jax.lax.map(flow.log_p, z)
        folded = BLOCK // STRIDE, STRIDE
        proposals = jax.tree.map(
            lambda array: array.reshape(*folded, *array.shape[1:]), (jax.random.split(key, BLOCK), z, at, log_q)
        )

        def stride(state: Walking, of_stride: tuple) -> tuple[Walking, tuple]:
            key, proposals = of_stride
            state = self._moved_in_data(flow, gain, key, state) if self.in_noise else state
            return jax.lax.scan(partial(self._step, flow, gain), state, proposals)

        state, out = jax.lax.scan(stride, state, (jax.random.split(data_key, folded[0]), proposals))
        out = jax.tree.map(lambda array: array.reshape(BLOCK, *array.shape[2:]), out)
        return state, (*out, jnp.where(jax.vmap(finite)(at), at.values[:, 0] - log_q, -jnp.inf).ravel())

    def _step(self, flow: Coordinates, gain: Array, state: Walking, proposed: tuple) -> tuple[Walking, tuple]:
        """A local move, and a draw of the flow that is proposed to each chain."""
        key, z, at, log_q = proposed
        local_key, far_key = jax.random.split(key)
        size = jnp.exp(state.log_size[NOISE]) * (1 if self.in_noise else self.scale.astype(z.dtype))
        here, at_here, probability, moved = trajectory(local_key, state.z, state.at, flow.log_p, jnp.ones(1, z.dtype), size, 1)
        here = here if self.in_noise else turned(self.fitted, here)
        state = state._replace(z=here, at=at_here).sized(NOISE, probability, gain)
        log_w, log_w_there = at_here.values[0] - flow.log_q(here), at.values[0] - log_q
        usable = ~jnp.isnan(log_w_there - log_w) & (at.values[0] < jnp.inf)
        usable &= jnp.isfinite(at.slopes[0]).reshape(len(z), -1).all(1)
        jumped = decided(far_key, log_w_there - log_w, usable)[1]
        state, log_w = state.replaced(jumped, z, at)._replace(time=state.time + 1), jnp.where(jumped, log_w_there, log_w)
        return state, (state.z, state.at.values[0], log_w, moved.mean(), jumped.mean(dtype=z.dtype))

    def _moved_in_data(self, flow: Coordinates, gain: Array, key: Array, state: Walking) -> Walking:
        log_p, start = Terms((self.density,)), flow.to_data(state.z)[0]

        def move(carry: tuple[Array, State, Walking], key: Array) -> tuple[tuple[Array, State, Walking], None]:
            x, at, state = carry
            size = jnp.exp(state.log_size[DATA]) * self.scale.astype(x.dtype)
            x, at, probability, _ = trajectory(key, x, at, log_p, jnp.ones(1, x.dtype), size, 1)
            return (x, at, state.sized(DATA, probability, gain)), None

        (x, _, state), _ = jax.lax.scan(move, (start, log_p(start), state), jax.random.split(key, MOVES))
        z = flow.of(x)
        at = flow.log_p(z)
        return state.replaced(finite(at) & (x != start).reshape(len(z), -1).any(1), z, at)

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
        flow = self._flow(self.fitted.params)
        z, log_q = flow.draw(draw_key, CANDIDATES * self.count)
        at = flow.log_p(z)
        usable = finite(at) & jnp.isfinite(log_q)
        if usable.sum() < self.count:
            raise FlowsError(
                f"sample: log_density and its gradient are finite at {int(usable.sum())} of {len(z)} draws of the flow; "
                f"expected {self.count} or more: give start= points of the density, or fit a flow that is nearer to it"
            )
        log_w = jnp.where(usable, at.values[0] - log_q, -jnp.inf)
        best = jax.lax.top_k(log_w + jax.random.gumbel(choice_key, log_w.shape, log_w.dtype), self.count)[1]
        return flow.to_data(z[best])[0]

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
