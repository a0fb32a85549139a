"""Masks of couplings: which entries of an event condition the network, and which are moved.

Inside, channels lead: a part is (features, batch), or (channels, batch, *space).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.engine import Columns, NetworkInputs, Trained, cut, for_each, reorder
from flows.core import Array, FlowsError, Shape, spend
from flows.transformers.base import Transformer

MASKS = ("halves", "alternating", "random", "checkerboard")
Transformers = tuple[Transformer, ...]


class Features:
    """Features of the last axis: some condition the network, `columns` transform the others; `trained`, if any, the former."""

    def __init__(
        self, transformers: Transformers, extra: Transformers | None, mask: str | Sequence[bool], flip: bool, shape: Shape
    ):
        d = shape[-1]
        spend(size=40 * d)  # of the mask, and of the places of both parts
        keep = _conditioning(mask, d) ^ (flip and not (isinstance(mask, str) and d == 1))
        conditioning, moved = np.flatnonzero(keep), np.flatnonzero(~keep)
        if not len(moved):
            raise FlowsError(f"Coupling: the mask keeps all {d} features, and flip is {flip}; one at least must be transformed")
        self.random, self.order = mask == "random", np.concatenate([conditioning, moved])
        self.sizes = len(conditioning), len(moved)
        per_feature = for_each(transformers, d, "Coupling")
        self.columns = Columns(tuple(per_feature[i] for i in moved))
        self.network_inputs = NetworkInputs([per_feature[i].period for i in conditioning])
        if self.random and max(len(set(transformers)), len(set(extra or ()))) > 1:
            raise FlowsError("Coupling: a random mask leaves open which transformer a feature gets; give one for all")
        self.trained = None
        if extra is not None and len(conditioning):
            per_feature = for_each(extra, d, "Coupling")
            self.trained = Trained(Columns(tuple(per_feature[i] for i in conditioning)))
        self.inputs = (*shape[:-1], self.network_inputs.size)
        self.outputs = (*shape[:-1], self.columns.num_params * len(moved))

    def start(self, key: Array, old: Any) -> tuple[Array, dict[str, Any]]:
        """A key for the network, and the other params, new unless there are old ones."""
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
        """Return the conditioning and the moved entries of x (batch, *event)."""
        x = jnp.moveaxis(x, -1, 0)
        x = x[jnp.argsort(params["fixed"]["ranks"])] if self.random else x
        return cut(reorder(x, self.order), *self.sizes)

    def joined(self, params: Any, conditioning: Array, moved: Array) -> Array:
        x = reorder(jnp.concatenate([conditioning, moved]), np.argsort(self.order))
        x = x[jnp.argsort(jnp.argsort(params["fixed"]["ranks"]))] if self.random else x
        return jnp.moveaxis(x, 0, -1)

    def used(self, x: Array) -> Array:
        return x


class Pixels:
    """Pixels of an image: where row and column add up to an even number they condition the network; flipped, the others.

    Both parts are whole images. In the moved part, and in its theta, conditioning pixels are 0, so that the transformer's
    results there, which are not used, cannot overflow and make a gradient NaN.
    """

    trained = None

    def __init__(self, transformers: Transformers, flip: bool, shape: Shape):
        if len(shape) != 3 or shape[0] * shape[1] < 2:
            raise FlowsError(
                f"Coupling: mask='checkerboard' is for pixels, and the event is {shape}; expected an image (H, W, C) of two or "
                "more. Give mask='alternating' for the features of a vector, or make an image of it by Reshape((H, W, C))"
            )
        h, w, c = shape
        per_feature = for_each(transformers, c, "Coupling")
        self.columns, self.channels = Columns(per_feature), NetworkInputs([one.period for one in per_feature])
        self.keep = (np.add.outer(np.arange(h), np.arange(w)) % 2 == (1 if flip else 0))[None, None]
        self.inputs, self.outputs = (h, w, self.channels.size + 1), (h, w, self.columns.num_params * c)

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

    def joined(self, params: Any, conditioning: Array, moved: Array) -> Array:
        return jnp.moveaxis(jnp.where(self.keep, conditioning, moved), 0, -1)

    def network_inputs(self, x: Array) -> Array:
        """Half of the image, and a channel that is 1 on this half."""
        mask = jnp.broadcast_to(jnp.asarray(self.keep, x.dtype), (1, *x.shape[1:]))
        return jnp.concatenate([jnp.where(self.keep, self.channels(x), 0.0), mask])

    def used(self, x: Array) -> Array:
        return jnp.where(self.keep, 0.0, x)


def _conditioning(mask: str | Sequence[bool], d: int) -> np.ndarray:
    """True for features that condition the network. A random mask puts them first, so that they are the first half."""
    if mask in ("halves", "random"):
        return np.arange(d) < d // 2
    if mask == "alternating":
        return np.arange(d) % 2 == 1
    try:
        keep = np.asarray(mask)
    except ValueError:  # of lists of unequal length
        keep = np.zeros(0)
    if keep.shape != (d,) or keep.dtype != bool:
        raise FlowsError(f"Coupling: mask is {mask!r:.80}; expected {d} booleans, one for each feature, True for kept")
    return keep
