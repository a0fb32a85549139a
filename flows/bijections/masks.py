"""Masks of couplings: what of an event is kept, and is seen by the network, and what is moved.

Channels lead inside: a part is (features, batch), or (channels, batch, *space).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.engine import Columns, Seen, Trained, cut, for_each, reorder
from flows.core import Array, FlowsError, Shape, spend
from flows.transformers.base import Transformer

MASKS = ("halves", "alternating", "random", "checkerboard")
Transformers = tuple[Transformer, ...]


class Features:
    """Some of the features of the last axis are kept; `columns` transform the others, and `trained` those, if at all."""

    def __init__(
        self, transformers: Transformers, of_kept: Transformers | None, mask: str | Sequence[bool], flip: bool, shape: Shape
    ):
        d = shape[-1]
        spend(size=40 * d)  # of the mask, and of the places of what is kept and moved
        keep = _kept(mask, d) ^ (flip and not (isinstance(mask, str) and d == 1))
        kept, moved = np.flatnonzero(keep), np.flatnonzero(~keep)
        if not len(moved):
            raise FlowsError(f"Coupling: the mask keeps all {d} features, and flip is {flip}; one at least must be transformed")
        self.random, self.order, self.sizes = mask == "random", np.concatenate([kept, moved]), (len(kept), len(moved))
        each = for_each(transformers, d, "Coupling")
        self.columns, self.seen = Columns(tuple(each[i] for i in moved)), Seen([each[i].period for i in kept])
        if self.random and max(len(set(transformers)), len(set(of_kept or ()))) > 1:
            raise FlowsError("Coupling: a random mask cannot tell which feature is whose transformer; give one for all")
        self.trained = None
        if of_kept is not None and len(kept):
            each = for_each(of_kept, d, "Coupling")
            self.trained = Trained(Columns(tuple(each[i] for i in kept)))
        self.inputs = (*shape[:-1], self.seen.size)
        self.outputs = (*shape[:-1], self.columns.num_params * len(moved))

    def start(self, key: Array, old: Any) -> tuple[Array, dict[str, Any]]:
        """A key for the network, and the other params, unless there are old ones."""
        columns, trained = self.columns, self.trained
        alone = not self.random and trained is None and not columns.has_weights
        # Each split takes a tenth of a second to compile.
        keys = [key] * 4 if alone else jax.random.split(key, 4)
        if old is not None:
            return keys[3], old
        return keys[3], {
            "conditioner": None,
            "transformer": columns.init(keys[2]) if columns.has_weights else (),
            "unconditional": {} if trained is None else trained.init(keys[1]),
            "fixed": {"ranks": jax.random.permutation(keys[0], sum(self.sizes)).astype(float)} if self.random else {},
        }

    def cut(self, params: Any, x: Array) -> list[Array]:
        """Return the kept and the moved entries of x (batch, *event)."""
        x = jnp.moveaxis(x, -1, 0)
        x = x[jnp.argsort(params["fixed"]["ranks"])] if self.random else x
        return cut(reorder(x, self.order), *self.sizes)

    def joined(self, params: Any, kept: Array, moved: Array) -> Array:
        x = reorder(jnp.concatenate([kept, moved]), np.argsort(self.order))
        x = x[jnp.argsort(jnp.argsort(params["fixed"]["ranks"]))] if self.random else x
        return jnp.moveaxis(x, 0, -1)

    def used(self, of_moved: Array) -> Array:
        return of_moved


class Pixels:
    """The pixels of an image whose row and column add up to an even number are kept; flipped, the others.

    Both parts are whole images. In what is moved, and in its theta, kept pixels are 0, so that what a transformer makes of
    them, which is not used, cannot overflow and poison a gradient.
    """

    trained = None

    def __init__(self, transformers: Transformers, flip: bool, shape: Shape):
        if len(shape) != 3 or shape[0] * shape[1] < 2:
            raise FlowsError(
                f"Coupling: mask='checkerboard' is of pixels, and the event is {shape}; expected an image (H, W, C) of two or "
                "more. Give mask='alternating' for the features of a vector, or make an image of it by Reshape((H, W, C))"
            )
        h, w, c = shape
        each = for_each(transformers, c, "Coupling")
        self.columns, self.seen_as = Columns(each), Seen([one.period for one in each])
        self.kept = (np.add.outer(np.arange(h), np.arange(w)) % 2 == (1 if flip else 0))[None, None]
        self.inputs, self.outputs = (h, w, self.seen_as.size + 1), (h, w, self.columns.num_params * c)

    def start(self, key: Array, old: Any) -> tuple[Array, dict[str, Any]]:
        weighted = self.columns.has_weights
        keys = jax.random.split(key) if weighted else (key, key)
        if old is not None:
            return keys[0], old
        weights = self.columns.init(keys[1]) if weighted else ()
        return keys[0], {"conditioner": None, "transformer": weights, "unconditional": {}, "fixed": {}}

    def cut(self, params: Any, x: Array) -> tuple[Array, Array]:
        x = jnp.moveaxis(x, -1, 0)
        return x, self.used(x)

    def joined(self, params: Any, kept: Array, moved: Array) -> Array:
        return jnp.moveaxis(jnp.where(self.kept, kept, moved), 0, -1)

    def seen(self, kept: Array) -> Array:
        """Half of the image, and a channel that tells which."""
        mask = jnp.broadcast_to(jnp.asarray(self.kept, kept.dtype), (1, *kept.shape[1:]))
        return jnp.concatenate([jnp.where(self.kept, self.seen_as(kept), 0.0), mask])

    def used(self, of_moved: Array) -> Array:
        return jnp.where(self.kept, 0.0, of_moved)


def _kept(mask: str | Sequence[bool], d: int) -> np.ndarray:
    """Tell which features are kept. A random mask puts those that are first, so its are the first half."""
    if mask in ("halves", "random"):
        return np.arange(d) < d // 2
    if mask == "alternating":
        return np.arange(d) % 2 == 1
    try:
        kept = np.asarray(mask)
    except ValueError:  # of lists of unequal length
        kept = np.zeros(0)
    if kept.shape != (d,) or kept.dtype != bool:
        raise FlowsError(f"Coupling: mask is {mask!r:.80}; expected {d} booleans, one for each feature, True for kept")
    return kept
