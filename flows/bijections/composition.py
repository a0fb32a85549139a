"""Supports of compositions: where inputs and outputs live, entry by entry, as the layers declare it."""

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
    Piece,
    Region,
    Shape,
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


class PlacedStep(Piece):
    """A step of a chain that says where its points live."""

    @property
    def bijection(self) -> Any:
        return Invert(self.value, self.event) if self.inverted else self.value

    @property
    def declared(self) -> Support:
        """Support of the step; a loop, and layers within a layout, count as one and have the support of the layers within."""
        support, (order, pieces) = support_by(self.value), structure_of(self.value)
        if order == "loop":
            within = layers_of(pieces[0].value)
            if any(layer.curved for layer in within):
                support = _as_one(lambda event: within)
        elif order == "between":
            layout, *rest = (layers_of(piece.value) for piece in pieces)
            within = [layer for inner in rest for layer in inner]
            if any(layer.curved or layer.bounded for layer in [*layout, *within]):
                support = _as_one(lambda event: [*layout, *within, *(PlacedStep(*step) for step in undone(layout, event))])
        return support.inverted if self.inverted else support

    def region(self, event: Shape, outputs: bool = False) -> Region:
        return resolved(self.declared.outputs if outputs else self.declared.inputs, event, f"{self.bijection!r:.80}")

    def output(self, event: Shape, context: Shape | None) -> Shape:
        """Event of the outputs."""
        return event if self.declared.entrywise else bijection_part(self.bijection, event, context).output

    @property
    def bounded(self) -> bool:
        """True if its inputs or its outputs may be less than the whole line."""
        support = self.declared
        return not (_whole(support.inputs) and _whole(support.outputs))

    def mixes(self, event: Shape) -> bool:
        """True if no entry of its inputs follows from a single entry of its outputs."""
        declared = self.declared
        return not (declared.entrywise or declared.moves_entries or declared.untouched(event[-1]).any())

    @property
    def curved(self) -> bool:
        """True if it may take or make angles or unit vectors."""
        inputs, outputs = self.declared.inputs, self.declared.outputs
        return callable(inputs) or callable(outputs) or not (inputs.flat and outputs.flat)

    def mapped(self, points: np.ndarray, event: Shape, backwards: bool) -> np.ndarray:
        """The image of rows of points under an entrywise map, or the points that it takes there."""
        part = bijection_part(self.bijection, event, None)
        if "rng" in part.keywords:  # noise around the same place
            return points
        with jax.ensure_compile_time_eval():
            params, x = part.init(jax.random.key(0), Given()), jnp.asarray(points, float)
            y = part.inverse(params, x, None, None, False) if backwards else part.direct(params, x, None, None, False)[0]
            return np.asarray(y, float)

    def mapped_region(self, region: Region, event: Shape, backwards: bool) -> Region | None:
        """Image of a region, or its preimage, at the event there; declared ends where the mapped ones are NaN. None where it
        is not known, as the layer trains, mixes entries, or moves entries that differ."""
        if self.declared.moves_entries and (moved := _alike(region, event)):
            return moved
        if not self.declared.entrywise:
            return None
        ends = self.mapped(np.stack([*region]), event, backwards)
        low, high = self.region(event, outputs=not backwards)
        return Region(np.fmax(np.fmin(*ends), low), np.fmin(np.fmax(*ends), high))

    def before(self, box: Region, event: Shape) -> Region | None:
        """Region of its inputs, at their event, if its outputs lie in a box, as far as it is known; None if it is not."""
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
        """True if the map depends neither on params nor on chance."""
        part = bijection_part(self.bijection, event, None)
        return "rng" not in part.keywords and not jax.tree.leaves(part.abstract_params())

    def _taken_into(self, box: Region, event: Shape) -> Region:
        """Return the region that is mapped into a box. An end that does not come back is infinite: maps clip, and go flat."""
        if self.declared.moves_entries:
            return Region(*self.mapped(np.stack([*box]), event, backwards=True))
        ends = np.clip(np.stack([*box]), *self.region(event, outputs=True))
        at = self.mapped(ends, event, backwards=True) + 0.0  # no -0.0
        comes_back = np.isclose(self.mapped(at, event, backwards=False), ends, rtol=1e-6, atol=1e-8)
        falls, known = at[0] > at[1], comes_back & (at[0] != at[1]) & ~np.isnan(at).any(0)
        (low, high), known = (np.where(falls, pair[::-1], pair) for pair in (at, known))
        return _within(self.region(event), np.where(known[0], low, -np.inf), np.where(known[1], high, np.inf))

    def carries(self, kind: Region, event: Shape, backwards: bool) -> Region | None:
        """Kind of the entries on the other side, at the event there, of a layer that declares none itself; None where the layer
        does not keep it."""
        if kind.flat:
            return kind
        declared = self.declared
        facts = kind.values()[2:]
        alike = all((fact == fact.flat[0]).all() for fact in facts)
        if declared.moves_entries and not kind.sphere.any() and alike:
            return Region(-np.inf, np.inf, *(np.full(event, fact.flat[0]) for fact in facts))
        if declared.places is not None:
            return _moved(kind, np.asarray(declared.places((event if backwards else kind.period.shape)[0])), event, backwards)
        if kind.period.shape != event:
            return None
        if (kind.sphere == 1).all() and (declared.rotates or declared.moves_entries):
            return kind
        touched = ~declared.untouched(event[-1])
        if kind.of_line[..., touched].all():
            return kind
        if not declared.entrywise or ((kind.sphere > 0) | kind.discrete)[..., touched].any():
            return None
        at = self.mapped(np.stack([0 * kind.period, kind.period, 2 * kind.period]), event, backwards)
        steps = np.abs(np.diff(at, axis=0))
        return replace(kind, period=steps[0]) if np.allclose(steps[0], steps[1]) else None


def _moved(kind: Region, places: np.ndarray, event: Shape, backwards: bool) -> Region | None:
    """The kinds of inputs from the kinds of outputs at their `places` among the inputs, or of outputs from inputs; None where a
    number that joins, or is dropped, is not of the line."""
    source, joins = places, np.flatnonzero(places < 0)
    lost = joins if backwards else np.setdiff1d(np.arange(kind.period.size), places)
    if not np.all(kind.of_line[lost]):
        return None
    if backwards:
        source = np.full(event, -1)
        source[np.delete(places, joins)] = np.delete(np.arange(len(places)), joins)
    line = everywhere(event).kind.values()[2:]
    facts = zip(kind.values()[2:], line, strict=True)
    return Region(-np.inf, np.inf, *(np.where(source < 0, new, fact[source]) for fact, new in facts))


def _placed(kind: Region, into: Region, places: np.ndarray) -> Region:
    """Kinds `into` which others are put, at these places."""
    facts = [np.array(fact) for fact in into.values()[2:]]
    for fact, new in zip(facts, kind.values()[2:], strict=True):
        fact[places] = new
    return Region(-np.inf, np.inf, *facts)


def layers_of(bijection: Any) -> list[PlacedStep]:
    """Layers of a bijection, one after the other; a loop counts as one, as do layers in another layout."""
    return [PlacedStep(*step) for step in chain(bijection)]


def _as_one(layers: Callable[[Shape], list[PlacedStep]]) -> Support:
    """Return the support of layers that count as one and keep the event."""
    return Support(lambda event: support_of(layers(event), event)[0], lambda event: support_of(layers(event), event)[1])


def support_of(
    layers: Sequence[PlacedStep],
    event: Shape,
    context: Shape | None = None,
    base: Region | Callable[[Shape], Region] | None = None,
) -> tuple[Region, Region, int]:
    """The regions of inputs and of outputs, and how many layers decide the intervals of the inputs: all up to the last one
    that is not defined everywhere that points reach. `base` is the region of the outputs, or a function of their event, if it
    is known.

    Raises FlowsError where a layer before such a one trains, or mixes entries, or where the kinds of entries do not fit.
    """
    first, last = _kinds(layers, event, context, base)
    (low, high), reached, deciding = everywhere(event), everywhere(event), 0
    events = [event]
    for i, layer in enumerate(layers):
        here = events[-1]
        if not any(later.bounded for later in layers[i:]) and _whole(reached):
            reached = everywhere(behind(layers[i:], here) if last is None else last.period.shape)
            break
        domain = _ends(layer.region(here))
        if (reached.low < domain.low).any() or (reached.high > domain.high).any():
            reached = wanted = Region(np.maximum(domain.low, reached.low), np.minimum(domain.high, reached.high))
            for before, shape in zip(layers[:i][::-1], events[:-1][::-1], strict=True):
                preimage = before.mapped_region(wanted, shape, backwards=True)
                if preimage is None:
                    raise FlowsError(
                        f"the domain of {layer.bijection!r:.60} is not known before {before.bijection!r:.60}, which trains, "
                        "mixes or moves entries: put it first"
                    )
                wanted = preimage
            low, high = np.maximum(low, wanted.low), np.minimum(high, wanted.high)
            deciding = i + 1
        events.append(layer.output(here, context))
        image = None if layer.bounded else layer.mapped_region(reached, events[-1], backwards=False)
        reached = _ends(layer.region(events[-1], outputs=True)) if image is None else image
    return _region(low, high, first), _region(reached.low, reached.high, last), deciding


def narrowed(
    region: Region | None, layers: Sequence[PlacedStep], event: Shape, base: Callable[[Shape], Region | None]
) -> Region | None:
    """The part of a region that layers take into the region of a base, a function of its event; None for the whole line.

    It is known entry by entry through layers without params that are entrywise or move entries, and for features that a layer
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
    """Return the same intervals at another event, where all entries have one interval."""
    low, high = (end.flat[0] for end in region)
    alike = (region.low == low).all() and (region.high == high).all()
    return Region(np.full(event, low), np.full(event, high)) if alike else None


def _within(region: Region, low: np.ndarray, high: np.ndarray) -> Region:
    """Intervals cut to a region; the region's where they lie outside of it."""
    low, high = np.maximum(low, region.low), np.minimum(high, region.high)
    outside = low >= high
    return Region(np.where(outside, region.low, low), np.where(outside, region.high, high))


def _ends(region: Region) -> Region:
    """The intervals of a region; the whole line for entries of unit vectors, codes and whole numbers."""
    off_line = (region.sphere > 0) | region.discrete
    return Region(np.where(off_line, -np.inf, region.low), np.where(off_line, np.inf, region.high))


def _region(low: np.ndarray, high: np.ndarray, kind: Region | None) -> Region:
    if kind is None:
        return replace(everywhere(low.shape), low=low, high=high)
    on_sphere, coded = kind.sphere > 0, kind.classes > 0
    low = np.where(on_sphere, -1.0, np.where(coded, 0.0, low))
    high = np.where(on_sphere, 1.0, np.where(coded, kind.classes - 1.0, high))
    return replace(kind, low=low, high=high)


def _kinds(
    layers: Sequence[PlacedStep], event: Shape, context: Shape | None, base: Region | Callable[[Shape], Region] | None
) -> tuple[Region | None, Region | None]:
    """The kinds of the entries of inputs and of outputs; None where all are numbers of the line."""
    if not any(layer.curved for layer in layers) and (base is None or (isinstance(base, Region) and base.flat)):
        return None, None
    kinds, events = [everywhere(event).kind], [event]

    def ask(wanted: Region, whose: str, layers: Sequence[PlacedStep]) -> None:
        """Change the kinds so that the last one is the wanted one."""
        if wanted.same_kind(kinds[-1]):
            return
        earlier = [wanted]
        for layer, shape in zip(layers[::-1], events[:-1][::-1], strict=True):
            carried = None if layer.curved else layer.carries(earlier[0], shape, backwards=True)
            if carried is None:
                raise FlowsError(
                    f"{whose} takes {wanted.words.noun}, which {layer.bijection!r:.60} before it does not make: put it "
                    f"first, or give layers and a base that fit, such as {wanted.words.remedy}"
                )
            earlier.insert(0, carried)
        kinds[:] = earlier

    for i, layer in enumerate(layers):
        here = events[-1]
        wanted, after = layer.region(here).kind, layer.output(here, context)
        made = layer.region(after, outputs=True).kind
        if layer.declared.places is not None and not wanted.flat:  # some numbers leave, and the layers behind have the others
            made = _kinds(layers[i + 1 :], after, context, base)[0] or made
            wanted = _placed(made, wanted, np.asarray(layer.declared.places(here[0])))
        if not wanted.flat:
            ask(wanted, f"{layer.bijection!r:.60}", layers[:i])
        if wanted.flat and made.flat and (after == here or not kinds[-1].flat):
            made = _image(layer, kinds[-1], after)
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


def _image(layer: PlacedStep, kind: Region, event: Shape) -> Region:
    """The kind of the outputs, at their event."""
    carried = layer.carries(kind, event, backwards=False)
    if carried is None:
        raise FlowsError(
            f"{layer.bijection!r:.60} is handed {kind.words.noun}, which it does not keep: it trains, scales or mixes entries. "
            "Put it elsewhere, or leave it out"
        )
    return carried


def _whole(region: Any) -> bool:
    """True for the whole line; a function of the event may return less."""
    if region is REAL or callable(region):
        return region is REAL
    low, high, sphere = _distinct(region.low), _distinct(region.high), _distinct(region.sphere)
    return bool((np.isneginf(low) & np.isposinf(high) & ~(sphere > 0)).all())


def _distinct(x: Any) -> np.ndarray:
    """x, cut to length 1 along axes along which one number stands for all."""
    x = np.asarray(x)
    return x[tuple(slice(1) if stride == 0 else slice(None) for stride in x.strides)]


def regions_of(bijection: Any, event: Shape) -> tuple[Region | None, Region | None]:
    """Regions of inputs and outputs; None where they are not known."""
    try:
        return support_of(layers_of(bijection), event)[:2]
    except FlowsError:
        return None, None


def flow_regions(
    bijection: Any, event: Shape, context: Shape | None, base: Region | None = None
) -> tuple[Region | None, Region | None]:
    """The region where a bijection is defined, in front of a base, and the part of it that the bijection takes into the base's
    region; None for everywhere, or where it is not known. Raises FlowsError where one is of a circle or a sphere and the other
    is not."""
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
    """Middle and standard deviation of `count` features, and a mask of the known ones, as measured by the first of these
    layers that touches a feature; layers are pairs of a value and its params, up to one that declares no unit."""
    middle, deviation, known = np.zeros(count), np.ones(count), np.zeros(count, bool)
    for value, params in layers:
        unit, places = traits_by(value).unit, support_by(value)
        if unit is None or known.all():
            break
        new = ~known & (True if places.touches is None else ~places.untouched(count))
        new_middle, new_deviation = (np.asarray(values, float) for values in unit(params))
        middle, deviation = np.where(new, new_middle, middle), np.where(new, new_deviation, deviation)
        known |= new
    return middle, deviation, known
