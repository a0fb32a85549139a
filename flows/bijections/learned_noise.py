"""Noise that is learned, for values that were rounded: the part of `Dequantize(noise=)`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flows.bijections.scaling import channel_scale
from flows.core import (
    Array,
    BijectionAuthor,
    BijectionPart,
    Composite,
    DistributionInit,
    FlowsError,
    Given,
    Place,
    Region,
    Shape,
    along,
    check_layers,
    check_structure,
    distribution_part,
    next_float,
    shapes_of,
    shared,
    split_key,
)


def learned(steps: np.ndarray, levels: int | None, noise: Any, uniform: Callable) -> Composite:
    """Body of `Dequantize` with noise u of a distribution q(u | x), from the init_fun of the layer with uniform noise."""
    check_layers("Dequantize: noise", (noise,), DistributionInit, "a distribution")
    if (steps == 0).any():
        raise FlowsError("Dequantize: a step is 0, a continuous column, and noise was given, which is of all; leave noise out")

    def part(event: Shape, context: Shape | None) -> BijectionPart:
        plain = BijectionAuthor("Dequantize", uniform, event, context, batched=False).part()
        layer = LearnedNoise(plain, steps, levels, noise)
        facts: dict[str, Any] = shared((plain, layer.q))
        facts |= {"draws": frozenset({"direct"}), "keywords": frozenset({"rng", "init_inputs", "params"}), "output": event}
        functions: dict[str, Any] = {name: getattr(layer, name) for name in ("direct", "inverse", "native_inverse")}
        return BijectionPart("Dequantize", layer.init, event, context, **facts, **functions)

    # Its layers are none, as the names of the noise, such as context_dim, are not the names of the whole.
    return Composite(part, (), frozenset({"init_inputs", "params"}))


class LearnedNoise:
    """Init and functions of the layer at one event. q has the recorded values as its context: within [-1, 1] where there are
    `levels`, else standardised."""

    def __init__(self, plain: BijectionPart, steps: np.ndarray, levels: int | None, noise: Any):
        self.plain, self.levels, event = plain, levels, plain.event
        with Place("the noise of Dequantize", noise, event) as self.place:
            self.q = distribution_part(noise, event, event)
        check_noise(noise, self.q.region, self.q.keywords, event)
        self.widths = np.broadcast_to(steps, event)

    def size(self, x: Array) -> Array:
        return jnp.asarray(self.widths, x.dtype)[None]

    def values(self, fixed: Any, x: Array) -> Array:
        """The recorded values, as q gets them."""
        if self.levels is None:
            return (x - along(fixed["mean"], x)) / along(fixed["std"], x)
        return 2 * x / ((self.levels - 1) * self.size(x)) - 1

    def init(self, key: Array, args: Given) -> Any:
        old, x, keys = args.params, args.init_inputs, split_key(key, 3)
        if old is not None and (not isinstance(old, dict) or set(old) != {"noise", "fixed"}):
            raise FlowsError('Dequantize: params are not the params of learned noise, {"noise": ..., "fixed": ...}')
        columns = jnp.zeros(self.plain.event[-1:])
        fixed = {"offset": columns} if self.levels else {"offset": columns, "mean": columns, "std": columns + 1}
        if old is not None:
            check_structure(old["fixed"], shapes_of(fixed), "Dequantize: fixed")
            fixed = old["fixed"]
        if x is not None:
            measured = {} if self.levels else channel_scale(x)
            fixed = {**fixed, **self.plain.init(keys[0], args._replace(params=None))["fixed"], **measured}
        u, values = (None, None) if x is None else (inside(jax.random.uniform(keys[1], x.shape)), self.values(fixed, x))
        with self.place:
            return {"noise": self.q.init(keys[2], Given(u, values, old and old["noise"])), "fixed": fixed}

    def direct(self, params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        if rng is None:
            return x, jnp.zeros(x.shape[0], x.dtype)
        with self.place:
            u, log_q = self.q.draw(rng, params["noise"], x.shape[0], x.dtype, self.values(params["fixed"], x))
        size = self.size(x)
        return within_cell(x, x + size * (u - 0.5), size), -log_q

    def inverse(self, params: Any, y: Array, context: Any, rng: Any, train: bool) -> Array:
        return self.plain.inverse(params, y, context, None, False)

    def native_inverse(self, params: Any, y: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        """The values, and log q of the very u that was rounded away: a draw has the weight of the pair (x, y). Outside all
        cells u is at an end."""
        x = self.inverse(params, y, context, rng, train)
        u = inside((y - x) / self.size(y) + 0.5)
        with self.place:
            return x, self.q.log_pdf(params["noise"], u, self.values(params["fixed"], x), None, False)


def check_noise(noise: Any, region: Region | None, keywords: frozenset[str], event: Shape) -> None:
    """Refuse noise that is not on (0, 1), or that does not see the recorded values."""
    ends = None if region is None else tuple(np.broadcast_to(end, event) for end in (region.low, region.high))
    if ends is None or not ((ends[0] == 0).all() and (ends[1] == 1).all()):
        where = "anywhere" if ends is None else f"from {ends[0].min():g} to {ends[1].max():g}"
        raise FlowsError(
            f"Dequantize: noise {noise!r:.80} lives {where}; expected (0, 1), by flows.support: put Logit() first, "
            "Flow(Serial(Logit(), ...))"
        )
    if "train" in keywords:
        raise FlowsError(
            f"Dequantize: noise {noise!r:.80} has layers that differ with train=True, dropout or statistics of a batch, which "
            "draws of it do not have; leave these out"
        )
    if "context" not in keywords:
        raise FlowsError(
            f"Dequantize: noise {noise!r:.80} takes no context, and so does not see the recorded values; give it a layer that "
            "does, such as Coupling(MLP(64)), or leave noise out: the noise is uniform then"
        )


def within_cell(x: Array, y: Array, size: Array) -> Array:
    """y, moved into the cell of x: at its ends, which may be ends of a box, a density may be infinite or 0."""
    at, noisy = lax.stop_gradient((x, y))
    least, most = jnp.minimum(at, next_float(at - size / 2, 1.0)), jnp.maximum(at, next_float(at + size / 2, -1.0))
    return y + (jnp.clip(noisy, least, most) - noisy)


def inside(u: Array) -> Array:
    """Numbers strictly between 0 and 1, whatever the rounding."""
    one = jnp.ones_like(u)
    return jnp.clip(u, jnp.finfo(u.dtype).eps * one, next_float(one, -1.0))
