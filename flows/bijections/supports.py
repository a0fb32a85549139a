"""Where the inputs and outputs of a composition live, entry by entry, as its layers declare it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.compose import Invert, Repeat, Reversible, Serial, Through
from flows.core import BijectionInit, FlowsError, Given, bijection_part
from flows.core.contract import Region, Shape, Support
from flows.core.inputs import as_event
from flows.core.regions import everywhere, resolved


class Layer(NamedTuple):
    """A layer of a composition, perhaps backwards; `event` is what one that is inverted makes, where that is known."""

    init_fun: Any
    inverted: bool = False
    event: Shape | None = None

    @property
    def value(self) -> Any:
        return Invert(self.init_fun, self.event) if self.inverted else self.init_fun

    @property
    def declared(self) -> Support:
        """What it declares itself; a plain function declares nothing."""
        own, constructor = getattr(self.init_fun, "own_support", Support()), getattr(self.init_fun, "constructor", None)
        if constructor is Repeat:
            within = layers_of(self.init_fun.arguments["layer"])
            if any(layer.curved for layer in within):
                own = _told_by(lambda event: within)
        elif constructor is Through:
            layout, within = layers_of(self.init_fun.arguments["layout"]), _all_of(self.init_fun.arguments["layers"])
            if any(layer.curved or layer.bounded for layer in [*layout, *within]):
                own = _told_by(lambda event: [*layout, *within, *_undone(layout, event)])
        return own._replace(inputs=own.outputs, outputs=own.inputs) if self.inverted else own

    def region(self, event: Shape, of_outputs: bool = False) -> Region:
        return resolved(self.declared.outputs if of_outputs else self.declared.inputs, event, f"{self.value!r:.80}")

    @property
    def bounded(self) -> bool:
        """Whether its inputs or its outputs may be less than the whole line."""
        return any(callable(each) or not _whole(each) for each in (self.declared.inputs, self.declared.outputs))

    @property
    def curved(self) -> bool:
        """Whether it may take or make angles or unit vectors."""
        return any(callable(each) or not getattr(each, "flat", True) for each in (self.declared.inputs, self.declared.outputs))

    def mapped(self, points: np.ndarray, event: Shape, backwards: bool) -> np.ndarray:
        """Where an entrywise map takes rows of points, or from where."""
        part = bijection_part(self.value, event, None)
        if "rng" in part.keywords:  # noise around the same place
            return points
        with jax.ensure_compile_time_eval():
            params, x = part.init(jax.random.key(0), Given()), jnp.asarray(points, float)
            y = part.inverse(params, x, None, None, False) if backwards else part.direct(params, x, None, None, False)[0]
            return np.asarray(y, float)

    def mapped_region(self, region: Region, event: Shape, backwards: bool) -> Region | None:
        """Where it takes a region, or from where, at the event there; its own ends where these are not numbers. None where that
        cannot be told, as it trains, or mixes entries, or moves those that differ."""
        if self.declared.keeps == "entries" and all((end == end.flat[0]).all() for end in region):
            return Region(*(np.full(event, end.flat[0]) for end in region))
        if not self.declared.entrywise:
            return None
        ends = self.mapped(np.stack(region), event, backwards)
        low, high = self.region(event, of_outputs=not backwards)
        return Region(np.fmax(np.fmin(*ends), low), np.fmin(np.fmax(*ends), high))

    def carries(self, kind: "Kind", event: Shape, backwards: bool) -> "Kind | None":
        """The kind of the entries on its other side, at the event there, if it is none that declares one; None where it does
        not keep it."""
        if kind.flat:
            return kind
        keeps, entries = self.declared.keeps, kind.period.ravel()
        if keeps == "entries" and not kind.sphere.any() and (entries == entries[0]).all():
            return Kind(np.full(event, entries[0]), np.zeros(event, int))
        if kind.period.shape != event:
            return None
        keeps = keeps(event[-1]) if callable(keeps) else keeps
        if isinstance(keeps, tuple):
            touched = np.ones(event[-1:], bool)
            touched[list(keeps)] = False
            if not ((kind.period > 0) | (kind.sphere > 0))[..., touched].any():
                return kind
        elif (kind.sphere == 1).all() and keeps in ("spheres", "entries"):
            return kind
        if not self.declared.entrywise or kind.sphere.any():
            return None
        at = self.mapped(np.stack([0 * kind.period, kind.period, 2 * kind.period]), event, backwards)
        steps = np.abs(np.diff(at, axis=0))
        return Kind(steps[0], kind.sphere) if np.allclose(steps[0], steps[1]) else None


class Kind(NamedTuple):
    """The periods of angles, and which entries are coordinates of which unit vector, as `Region` has them."""

    period: np.ndarray
    sphere: np.ndarray

    @classmethod
    def of(cls, region: Region) -> "Kind":
        return cls(region.period, region.sphere)

    @property
    def flat(self) -> bool:
        return not (self.period.any() or self.sphere.any())

    def same(self, other: "Kind") -> bool:
        return np.allclose(self.period, other.period) and np.array_equal(self.sphere, other.sphere)

    @property
    def remedy(self) -> str:
        return "SphereFlow and SphereUniform" if self.sphere.any() else "circular transformers, Rotation and CircularUniform"

    def __str__(self) -> str:
        return "points of a sphere" if self.sphere.any() else "angles" if self.period.any() else "numbers of the line"


def layers_of(bijection: Any) -> list[Layer]:
    """The layers that a bijection is made of, one after the other; a loop counts as one, as do layers in another layout."""
    if isinstance(bijection, BijectionInit):
        if bijection.constructor is Invert:
            event = bijection.arguments["input_dim"]
            return _undone(layers_of(bijection.arguments["bijection"]), None if event is None else as_event(event))
        if isinstance(bijection.inner, BijectionInit):  # a model, short for a composition
            return layers_of(bijection.inner)
        if bijection.constructor in (Serial, Reversible):
            return _all_of(bijection.inner.layers)
    return [Layer(bijection)]


def _all_of(bijections: Sequence[Any]) -> list[Layer]:
    return [layer for each in bijections for layer in layers_of(each)]


def _undone(layers: Sequence[Layer], event: Shape | None) -> list[Layer]:
    """Layers backwards, from the last to the first; `event` is that of the first, where it is known."""
    found = list[Layer]()
    for layer in layers:
        found.append(Layer(layer.init_fun, not layer.inverted, event))
        event = None if event is None else _behind([layer], event)
    return found[::-1]


def _behind(layers: Sequence[Layer], event: Shape) -> Shape:
    """The event behind layers, as far as it is layouts that change it: others may need a context, and are not made for this."""
    for layer in layers:
        try:
            event = bijection_part(layer.value, event, None).output if layer.declared.keeps == "entries" else event
        except FlowsError:  # something else has changed it before
            break
    return event


def _told_by(layers: Callable[[Shape], list[Layer]]) -> Support:
    """What is declared by layers, at an event that they keep, which count as one."""
    return Support(lambda event: support_of(layers(event), event)[0], lambda event: support_of(layers(event), event)[1])


def support_of(
    layers: Sequence[Layer],
    event: Shape,
    context: Shape | None = None,
    base: Region | Callable[[Shape], Region] | None = None,
) -> tuple[Region, Region, int]:
    """The regions of inputs and of outputs, and how many layers decide in which intervals the first are: those up to the last
    that is not defined on all that reaches it. `base` is where the outputs have to live, or a function of their event, if that
    is known.

    Raises FlowsError where what comes before such a layer trains, or mixes entries, or where the kinds of entries do not fit.
    """
    first, last = _kinds(layers, event, context, base)
    (low, high), reached, deciding = everywhere(event), everywhere(event), 0
    events = [event]
    for i, layer in enumerate(layers):
        here = events[-1]
        if not any(each.bounded for each in layers[i:]) and _whole(reached):
            reached = everywhere(_behind(layers[i:], here) if last is None else last.period.shape)
            break
        own = _ends(layer.region(here))
        if (reached[0] < own[0]).any() or (reached[1] > own[1]).any():
            reached = wanted = Region(np.maximum(own[0], reached[0]), np.minimum(own[1], reached[1]))
            for before, shape in zip(layers[:i][::-1], events[:-1][::-1], strict=True):
                found = before.mapped_region(wanted, shape, backwards=True)
                if found is None:
                    raise FlowsError(
                        f"where {layer.value!r:.60} is defined cannot be told before {before.value!r:.60}, which trains, "
                        "mixes or moves entries: put it first"
                    )
                wanted = found
            low, high = np.maximum(low, wanted[0]), np.minimum(high, wanted[1])
            deciding = i + 1
        events.append(here if layer.declared.entrywise else bijection_part(layer.value, here, context).output)
        found = None if layer.bounded else layer.mapped_region(reached, events[-1], backwards=False)
        reached = _ends(layer.region(events[-1], of_outputs=True)) if found is None else found
    return _region(low, high, first), _region(reached[0], reached[1], last), deciding


def _ends(region: Region) -> Region:
    """The intervals of a region; those of unit vectors are no matter of single entries."""
    of_sphere = region.sphere > 0
    return Region(np.where(of_sphere, -np.inf, region[0]), np.where(of_sphere, np.inf, region[1]))


def _region(low: np.ndarray, high: np.ndarray, kind: Kind | None) -> Region:
    if kind is None:
        return Region(low, high, np.zeros_like(low), np.zeros(low.shape, int))
    return Region(np.where(kind.sphere > 0, -1.0, low), np.where(kind.sphere > 0, 1.0, high), *kind)


def _kinds(
    layers: Sequence[Layer], event: Shape, context: Shape | None, base: Region | Callable[[Shape], Region] | None
) -> tuple[Kind | None, Kind | None]:
    """The kinds of the entries of inputs and of outputs; None where all are numbers of the line."""
    if not any(layer.curved for layer in layers) and (base is None or (isinstance(base, Region) and base.flat)):
        return None, None
    kinds, events = [Kind.of(everywhere(event))], [event]

    def ask(wanted: Kind, whose: str, layers: Sequence[Layer]) -> None:
        """See to it that the last of the kinds is what is wanted."""
        if wanted.same(kinds[-1]):
            return
        found = [wanted]
        for layer, shape in zip(layers[::-1], events[:-1][::-1], strict=True):
            before = None if layer.curved else layer.carries(found[0], shape, backwards=True)
            if before is None:
                raise FlowsError(
                    f"{whose} takes {wanted}, which {layer.value!r:.60} before it does not make: put it first, or give layers "
                    f"and a base that fit, such as {wanted.remedy}"
                )
            found.insert(0, before)
        kinds[:] = found

    for i, layer in enumerate(layers):
        here = events[-1]
        wanted = Kind.of(layer.region(here))
        if not wanted.flat:
            ask(wanted, f"{layer.value!r:.60}", layers[:i])
        after = here if layer.declared.entrywise else bijection_part(layer.value, here, context).output
        made = Kind.of(layer.region(after, of_outputs=True))
        if wanted.flat and made.flat and (after == here or not kinds[-1].flat):
            carried = layer.carries(kinds[-1], after, backwards=False)
            if carried is None:
                raise FlowsError(
                    f"{layer.value!r:.60} is handed {kinds[-1]}, which it does not keep: it trains, scales or mixes entries. "
                    "Put it elsewhere, or leave it out"
                )
            made = carried
        kinds.append(made)
        events.append(after)
    if base is not None:
        wanted = Kind.of(base if isinstance(base, Region) else base(events[-1]))
        if wanted.flat and not kinds[-1].flat:
            raise FlowsError(
                f"{layers[-1].value!r:.60} makes {kinds[-1]}, and the base is of the line; give one that lives there, such as "
                + ("SphereUniform()" if kinds[-1].sphere.any() else "CircularUniform()")
            )
        ask(wanted, "the base", layers)
    return kinds[0], kinds[-1]


def _whole(region: Any) -> bool:
    low, high, sphere = map(_distinct, (*region, getattr(region, "sphere", 0)))
    return bool((np.isneginf(low) & np.isposinf(high) & ~(sphere > 0)).all())


def _distinct(x: Any) -> np.ndarray:
    """x, once along each axis along which one number stands for all."""
    x = np.asarray(x)
    return x[tuple(slice(1) if stride == 0 else slice(None) for stride in x.strides)]


def regions_of(bijection: Any, event: Shape) -> tuple[Region | None, Region | None]:
    """Where inputs and outputs live; None where that cannot be told."""
    try:
        return support_of(layers_of(bijection), event)[:2]
    except FlowsError:
        return None, None


def bounded_region(bijection: Any, event: Shape, context: Shape | None, base: Region | None = None) -> Region | None:
    """Where a bijection is defined, before a base that lives in a region of its own; None for everywhere, or where that cannot
    be told. Raises FlowsError where one is of a circle or a sphere and the other is not."""
    layers = layers_of(bijection)
    try:
        region, _, deciding = support_of(layers, event, context, base)
    except FlowsError:
        if base is not None and (not base.flat or any(layer.curved for layer in layers)):
            raise
        return None
    return region if deciding or not region.flat else None
