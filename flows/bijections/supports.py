"""Where the inputs and outputs of a composition live, entry by entry, as its layers declare it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.compose import Invert, Serial
from flows.core import Array, BijectionInit, FlowsError, Given, bijection_part
from flows.core.contract import Shape, Support

Region = tuple[np.ndarray, np.ndarray]  # low and high, of each entry of an event


class Layer(NamedTuple):
    """A layer of a composition, perhaps backwards."""

    init_fun: Any
    inverted: bool = False

    @property
    def value(self) -> Any:
        return Invert(self.init_fun) if self.inverted else self.init_fun

    @property
    def declared(self) -> Support:
        """What it declares itself; a plain function declares nothing."""
        inputs, outputs, entrywise = getattr(self.init_fun, "own_support", Support())
        return Support(outputs, inputs, entrywise) if self.inverted else Support(inputs, outputs, entrywise)

    def region(self, event: Shape, of_outputs: bool = False) -> Region:
        interval = self.declared.outputs if of_outputs else self.declared.inputs
        try:
            low, high = (np.broadcast_to(np.asarray(end, float), event).copy() for end in interval)
        except ValueError:
            raise FlowsError(f"{self.value!r:.80}: its support does not fit the event {event}") from None
        return low, high

    @property
    def bounded(self) -> bool:
        """Whether its inputs or its outputs are less than the whole line."""
        return not all(_whole(interval) for interval in (self.declared.inputs, self.declared.outputs))

    def mapped(self, region: Region, event: Shape, backwards: bool) -> Region:
        """Where an entrywise map takes a region, or from where; its own ends where these are not numbers."""
        part = bijection_part(self.value, event, None)
        if "rng" in part.keywords:  # noise around the same place
            return region
        with jax.ensure_compile_time_eval():
            params = part.init(jax.random.key(0), Given())
            x = jnp.asarray(np.stack(region), float)
            y = part.inverse(params, x, None, None, False) if backwards else part.direct(params, x, None, None, False)[0]
            ends = np.asarray(y, float)
        low, high = self.region(event, of_outputs=not backwards)
        return np.fmax(np.fmin(*ends), low), np.fmin(np.fmax(*ends), high)


def layers_of(bijection: Any, inverted: bool = False) -> list[Layer]:
    """The layers that a bijection is made of, one after the other; a loop counts as one."""
    if isinstance(bijection, BijectionInit):
        if bijection.constructor is Invert:
            return layers_of(bijection.arguments["bijection"], not inverted)
        if isinstance(bijection.inner, BijectionInit):  # a model, short for a composition
            return layers_of(bijection.inner, inverted)
        if bijection.constructor is Serial:
            found = [layers_of(each, inverted) for each in bijection.inner.layers]
            return [layer for each in (found[::-1] if inverted else found) for layer in each]
    return [Layer(bijection, inverted)]


def everywhere(event: Shape) -> Region:
    return np.full(event, -np.inf), np.full(event, np.inf)


def support_of(layers: Sequence[Layer], event: Shape, context: Shape | None = None) -> tuple[Region, Region, int]:
    """The regions of inputs and of outputs, and how many layers decide the first: those up to the last that is not defined
    on all that reaches it.

    Raises FlowsError where what comes before such a layer trains, or mixes entries.
    """
    inputs, reached, deciding, events = everywhere(event), everywhere(event), 0, [event]
    for i, layer in enumerate(layers):
        here = events[-1]
        if not any(each.bounded for each in layers[i:]) and _whole(reached):
            break
        low, high = layer.region(here)
        if (reached[0] < low).any() or (reached[1] > high).any():
            reached = wanted = np.maximum(low, reached[0]), np.minimum(high, reached[1])
            for before, shape in zip(layers[:i][::-1], events[:-1][::-1], strict=True):
                if not before.declared.entrywise:
                    raise FlowsError(
                        f"where {layer.value!r:.60} is defined cannot be told before {before.value!r:.60}, which trains or "
                        "mixes entries: put it first"
                    )
                wanted = before.mapped(wanted, shape, backwards=True)
            inputs = np.maximum(inputs[0], wanted[0]), np.minimum(inputs[1], wanted[1])
            deciding = i + 1
        kept = layer.declared.entrywise and not layer.bounded
        events.append(here if layer.declared.entrywise else bijection_part(layer.value, here, context).output)
        reached = layer.mapped(reached, here, backwards=False) if kept else layer.region(events[-1], of_outputs=True)
    return inputs, reached, deciding


def _whole(region: Any) -> bool:
    return bool(np.isneginf(region[0]).all() and np.isposinf(region[1]).all())


def inside(region: Region, x: Array) -> Array:
    """Points of the line, an event or rows of them, taken into a region: the same where it is the whole line."""
    shape = (1,) * (x.ndim - region[0].ndim) + region[0].shape
    from_low, to_high = (np.isfinite(end).reshape(shape) for end in region)
    low, high = (jnp.asarray(np.where(np.isfinite(end), end, 0.0).reshape(shape), x.dtype) for end in region)
    between = low + (high - low) * jax.nn.sigmoid(x)
    one_sided = jnp.where(from_low, low + jnp.exp(x), jnp.where(to_high, high - jnp.exp(-x), x))
    return jnp.where(from_low & to_high, between, one_sided)


def bounded_region(bijection: Any, event: Shape, context: Shape | None) -> Region | None:
    """Where a bijection is defined; None for everywhere, or where that cannot be told."""
    try:
        region, _, deciding = support_of(layers_of(bijection), event, context)
    except FlowsError:
        return None
    return region if deciding else None


def beyond(region: Region, x: Array) -> Array:
    """Which entries of rows x lie outside a region, whose ends belong to it; NaN does not."""
    low, high = (jnp.asarray(end, x.dtype)[None] for end in region)
    return (x < low) | (x > high)
