"""Where the inputs and outputs of a composition live, entry by entry, as its layers declare it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.compose import Invert
from flows.core import (
    REAL,
    FlowsError,
    Given,
    Region,
    Shape,
    Step,
    Support,
    behind,
    bijection_part,
    chain,
    enable_x64,
    everywhere,
    resolved,
    structure_of,
    support_by,
    traits_by,
    undone,
)


class PlacedStep(Step):
    """A step of a chain that says where its points live."""

    @property
    def bijection(self) -> Any:
        return Invert(self.value, self.event) if self.inverted else self.value

    @property
    def declared(self) -> Support:
        """Region of the layer; a loop, and layers within a layout, count as one and declare what the layers within declare."""
        own, (order, pieces) = support_by(self.value), structure_of(self.value)
        if order == "loop":
            within = layers_of(pieces[0].value)
            if any(layer.curved for layer in within):
                own = _told_by(lambda event: within)
        elif order == "between":
            layout, *rest = (layers_of(piece.value) for piece in pieces)
            within = [layer for each in rest for layer in each]
            if any(layer.curved or layer.bounded for layer in [*layout, *within]):
                own = _told_by(lambda event: [*layout, *within, *(PlacedStep(*step) for step in undone(layout, event))])
        return own.inverted if self.inverted else own

    def region(self, event: Shape, of_outputs: bool = False) -> Region:
        return resolved(self.declared.outputs if of_outputs else self.declared.inputs, event, f"{self.bijection!r:.80}")

    def output(self, event: Shape, context: Shape | None) -> Shape:
        """The event behind it."""
        return event if self.declared.entrywise else bijection_part(self.bijection, event, context).output

    @property
    def bounded(self) -> bool:
        """Tells whether its inputs or its outputs may be less than the whole line."""
        own = self.declared
        return not (_whole(own.inputs) and _whole(own.outputs))

    def mixes(self, event: Shape) -> bool:
        """Tell whether no entry of its inputs is told by one of its outputs alone."""
        declared = self.declared
        return not (declared.entrywise or declared.moves_entries or declared.untouched(event[-1]).any())

    @property
    def curved(self) -> bool:
        """Tells whether it may take or make angles or unit vectors."""
        own = self.declared
        return callable(own.inputs) or callable(own.outputs) or not (own.inputs.flat and own.outputs.flat)

    def mapped(self, points: np.ndarray, event: Shape, backwards: bool) -> np.ndarray:
        """Where an entrywise map takes rows of points, or from where."""
        part = bijection_part(self.bijection, event, None)
        if "rng" in part.keywords:  # noise around the same place
            return points
        with jax.ensure_compile_time_eval():
            params, x = part.init(jax.random.key(0), Given()), jnp.asarray(points, float)
            y = part.inverse(params, x, None, None, False) if backwards else part.direct(params, x, None, None, False)[0]
            return np.asarray(y, float)

    def mapped_region(self, region: Region, event: Shape, backwards: bool) -> Region | None:
        """Where it takes a region, or from where, at the event there; its own ends where these are not numbers. None where that
        cannot be told, as it trains, or mixes entries, or moves those that differ."""
        if self.declared.moves_entries and (moved := _alike(region, event)):
            return moved
        if not self.declared.entrywise:
            return None
        ends = self.mapped(np.stack([*region]), event, backwards)
        low, high = self.region(event, of_outputs=not backwards)
        return Region(np.fmax(np.fmin(*ends), low), np.fmin(np.fmax(*ends), high))

    def before(self, box: Region, event: Shape) -> Region | None:
        """Where its inputs lie, at their event, if its outputs lie in a box, as far as that is told; None where nothing is."""
        declared = self.declared
        if declared.moves_entries and (moved := _alike(box, event)):
            return moved
        if (rounding := traits_by(self.value).rounding) is not None:  # there and back by half a step at most
            half = np.asarray(rounding.step) / 2
            return _within(self.region(event), box.low - half, box.high + half)
        if declared.moves_entries or declared.entrywise:
            with enable_x64():
                return self._taken_into(box, event) if self._is_constant(event) else None
        stays = declared.untouched(event[-1])
        return Region(np.where(stays, box.low, -np.inf), np.where(stays, box.high, np.inf)) if stays.any() else None

    def _is_constant(self, event: Shape) -> bool:
        """Tell whether what it does depends neither on params nor on chance."""
        part = bijection_part(self.bijection, event, None)
        return "rng" not in part.keywords and not jax.tree.leaves(part.abstract_params())

    def _taken_into(self, box: Region, event: Shape) -> Region:
        """Return the region that is mapped into a box. An end that does not come back is no end: maps clip, and go flat."""
        if self.declared.moves_entries:
            return Region(*self.mapped(np.stack([*box]), event, backwards=True))
        ends = np.clip(np.stack([*box]), *self.region(event, of_outputs=True))
        at = self.mapped(ends, event, backwards=True) + 0.0  # no -0.0
        comes_back = np.isclose(self.mapped(at, event, backwards=False), ends, rtol=1e-6, atol=1e-8)
        falls, known = at[0] > at[1], comes_back & (at[0] != at[1]) & ~np.isnan(at).any(0)
        (low, high), of = (np.where(falls, each[::-1], each) for each in (at, known))
        return _within(self.region(event), np.where(of[0], low, -np.inf), np.where(of[1], high, np.inf))

    def carries(self, kind: Region, event: Shape, backwards: bool) -> Region | None:
        """The kind of the entries on its other side, at the event there, if it is none that declares one; None where it does
        not keep it."""
        if kind.flat:
            return kind
        declared, entries, classes = self.declared, kind.period.ravel(), kind.classes.ravel()
        alike = (entries == entries[0]).all() and (classes == classes[0]).all()
        if declared.moves_entries and not kind.sphere.any() and alike:
            return Region(period=np.full(event, entries[0]), sphere=np.zeros(event, int), classes=np.full(event, classes[0]))
        if kind.period.shape != event:
            return None
        if (kind.sphere == 1).all() and (declared.rotates or declared.moves_entries):
            return kind
        touched = ~declared.untouched(event[-1])
        if kind.of_line[..., touched].all():
            return kind
        if not declared.entrywise or (kind.sphere > 0)[..., touched].any() or (kind.classes > 0)[..., touched].any():
            return None
        at = self.mapped(np.stack([0 * kind.period, kind.period, 2 * kind.period]), event, backwards)
        steps = np.abs(np.diff(at, axis=0))
        return replace(kind, period=steps[0]) if np.allclose(steps[0], steps[1]) else None


def layers_of(bijection: Any) -> list[PlacedStep]:
    """The layers that a bijection is made of, one after the other; a loop counts as one, as do layers in another layout."""
    return [PlacedStep(*step) for step in chain(bijection)]


def _told_by(layers: Callable[[Shape], list[PlacedStep]]) -> Support:
    """Return what layers declare at an event that they keep; together they count as one."""
    return Support(lambda event: support_of(layers(event), event)[0], lambda event: support_of(layers(event), event)[1])


def support_of(
    layers: Sequence[PlacedStep],
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
            reached = everywhere(behind(layers[i:], here) if last is None else last.period.shape)
            break
        own = _ends(layer.region(here))
        if (reached.low < own.low).any() or (reached.high > own.high).any():
            reached = wanted = Region(np.maximum(own.low, reached.low), np.minimum(own.high, reached.high))
            for before, shape in zip(layers[:i][::-1], events[:-1][::-1], strict=True):
                found = before.mapped_region(wanted, shape, backwards=True)
                if found is None:
                    raise FlowsError(
                        f"where {layer.bijection!r:.60} is defined cannot be told before {before.bijection!r:.60}, which "
                        "trains, mixes or moves entries: put it first"
                    )
                wanted = found
            low, high = np.maximum(low, wanted.low), np.minimum(high, wanted.high)
            deciding = i + 1
        events.append(layer.output(here, context))
        found = None if layer.bounded else layer.mapped_region(reached, events[-1], backwards=False)
        reached = _ends(layer.region(events[-1], of_outputs=True)) if found is None else found
    return _region(low, high, first), _region(reached.low, reached.high, last), deciding


def narrowed(
    region: Region | None, layers: Sequence[PlacedStep], event: Shape, base: Callable[[Shape], Region | None]
) -> Region | None:
    """Where points lie of a region that layers take into that of a base, told at its event; None for the whole line.

    That is told entry by entry through layers that are entrywise or move entries, without params, and of features that a layer
    leaves as they are; elsewhere the region stays as it is.
    """
    events = [event]
    for layer in layers:
        if layer.mixes(events[-1]):
            return region
        events.append(behind([layer], events[-1]))
    lives = base(events[-1])
    box = REAL if lives is None else _ends(lives)
    for layer, here in zip(layers[::-1], events[-2::-1], strict=True):
        if _whole(box):
            return region
        box = layer.before(box, here) or REAL
    if _whole(box):
        return region
    region = everywhere(event) if region is None else region
    return replace(region, low=np.maximum(region.low, box.low), high=np.minimum(region.high, box.high))


def _alike(region: Region, event: Shape) -> Region | None:
    """Return the same intervals at another event, where one stands for all entries."""
    low, high = (end.flat[0] for end in region)
    alike = (region.low == low).all() and (region.high == high).all()
    return Region(np.full(event, low), np.full(event, high)) if alike else None


def _within(own: Region, low: np.ndarray, high: np.ndarray) -> Region:
    """Intervals within a region; its own where they lie beside it."""
    low, high = np.maximum(low, own.low), np.minimum(high, own.high)
    beside = low >= high
    return Region(np.where(beside, own.low, low), np.where(beside, own.high, high))


def _ends(region: Region) -> Region:
    """The intervals of a region; those of unit vectors are no matter of single entries, and codes are in none."""
    of_others = (region.sphere > 0) | (region.classes > 0)
    return Region(np.where(of_others, -np.inf, region.low), np.where(of_others, np.inf, region.high))


def _region(low: np.ndarray, high: np.ndarray, kind: Region | None) -> Region:
    if kind is None:
        return Region(low, high, np.zeros_like(low), np.zeros(low.shape, int), np.zeros(low.shape, int))
    of_sphere, coded = kind.sphere > 0, kind.classes > 0
    low = np.where(of_sphere, -1.0, np.where(coded, 0.0, low))
    high = np.where(of_sphere, 1.0, np.where(coded, kind.classes - 1.0, high))
    return Region(low, high, kind.period, kind.sphere, kind.classes)


def _kinds(
    layers: Sequence[PlacedStep], event: Shape, context: Shape | None, base: Region | Callable[[Shape], Region] | None
) -> tuple[Region | None, Region | None]:
    """The kinds of the entries of inputs and of outputs; None where all are numbers of the line."""
    if not any(layer.curved for layer in layers) and (base is None or (isinstance(base, Region) and base.flat)):
        return None, None
    kinds, events = [everywhere(event).kind], [event]

    def ask(wanted: Region, whose: str, layers: Sequence[PlacedStep]) -> None:
        """See to it that the last of the kinds is what is wanted."""
        if wanted.same_kind(kinds[-1]):
            return
        found = [wanted]
        for layer, shape in zip(layers[::-1], events[:-1][::-1], strict=True):
            before = None if layer.curved else layer.carries(found[0], shape, backwards=True)
            if before is None:
                raise FlowsError(
                    f"{whose} takes {wanted.words.noun}, which {layer.bijection!r:.60} before it does not make: put it "
                    f"first, or give layers and a base that fit, such as {wanted.words.remedy}"
                )
            found.insert(0, before)
        kinds[:] = found

    for i, layer in enumerate(layers):
        here = events[-1]
        wanted = layer.region(here).kind
        if not wanted.flat:
            ask(wanted, f"{layer.bijection!r:.60}", layers[:i])
        after = layer.output(here, context)
        made = layer.region(after, of_outputs=True).kind
        if wanted.flat and made.flat and (after == here or not kinds[-1].flat):
            carried = layer.carries(kinds[-1], after, backwards=False)
            if carried is None:
                raise FlowsError(
                    f"{layer.bijection!r:.60} is handed {kinds[-1].words.noun}, which it does not keep: it trains, scales or "
                    "mixes entries. Put it elsewhere, or leave it out"
                )
            made = carried
        kinds.append(made)
        events.append(after)
    if base is not None:
        wanted = (base if isinstance(base, Region) else base(events[-1])).kind
        if wanted.flat and not kinds[-1].flat:
            raise FlowsError(
                f"{layers[-1].bijection!r:.60} makes {kinds[-1].words.noun}, and the base is of the line; give one that lives "
                f"there, such as {kinds[-1].words.base}"
            )
        ask(wanted, "the base", layers)
    return kinds[0], kinds[-1]


def _whole(region: Any) -> bool:
    """Tell whether it is all of the line; what a function tells of an event may be less."""
    if region is REAL or callable(region):
        return region is REAL
    low, high, sphere = _distinct(region.low), _distinct(region.high), _distinct(region.sphere)
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


def flow_regions(
    bijection: Any, event: Shape, context: Shape | None, base: Region | None = None
) -> tuple[Region | None, Region | None]:
    """Where a bijection is defined, before a base that lives in a region of its own, and where points live that it takes into
    that region; None for everywhere, or where it cannot be told. Raises FlowsError where one is of a circle or a sphere and the
    other is not."""
    layers, defined = layers_of(bijection), None
    try:
        region, _, deciding = support_of(layers, event, context, base)
        defined = region if deciding or not region.flat else None
    except FlowsError:
        if base is not None and (not base.flat or any(layer.curved for layer in layers)):
            raise
    if base is None or _whole(base):
        return defined, defined
    return defined, narrowed(defined, layers, event, lambda event: base)


def unit_of(layers: Sequence[tuple[Any, Any]], count: int) -> tuple[Any, Any, np.ndarray]:
    """The middle and the standard deviation of each of so many features, and which of them are known, as the first of these
    layers that touches a feature has measured it; pairs of a value and its params, up to one that says nothing of units."""
    middle, deviation, known = np.zeros(count), np.ones(count), np.zeros(count, bool)
    for value, params in layers:
        unit, places = traits_by(value).unit, support_by(value)
        if unit is None or known.all():
            break
        new = ~known & (True if places.touches is None else ~places.untouched(count))
        of_middle, of_deviation = (np.asarray(each, float) for each in unit(params))
        middle, deviation = np.where(new, of_middle, middle), np.where(new, of_deviation, deviation)
        known |= new
    return middle, deviation, known
