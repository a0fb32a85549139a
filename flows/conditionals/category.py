"""Codes of categories, by the softmax of logits. Family: Kinds of columns for `AnySubset`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditionals.base import Group, kind
from flows.core import Array, Region, one_hot_codes, positive_int

MOST_CLASSES = 2**24  # whole numbers that float32 can tell apart


class Codes(NamedTuple):
    """The numbers of `Category`."""

    classes: int

    @staticmethod
    def together(columns: Sequence["Codes"], num_bins: int) -> "CodeGroup":
        return CodeGroup([column.classes for column in columns])


@kind
def Category(classes: int):
    """Codes of categories, whole numbers from 0 to classes - 1: log P(c) = log softmax(l)[c], l the network's.

    Args:
        classes: how many categories there are.

    Errors:
        FlowsError: classes is not a whole number above 0.

    Example:
        >>> import flows
        >>> flows.AnySubset(flows.conditionals.Number(), flows.conditionals.Category(3))
        AnySubset(conditionals.Number(), conditionals.Category(3))
    """
    return Codes(positive_int(classes, "Category: classes", most=MOST_CLASSES))


class CodeGroup(Group):
    """Columns of codes, with the logits of the largest number of classes."""

    def __init__(self, classes: list[int]):
        self.widths, self.num_params = tuple(classes), max(classes)
        self.classes = np.asarray(classes)
        self.constants = {"classes": self.classes[:, None]}

    def regions(self) -> Region:
        return Region(0, self.classes - 1, classes=self.classes)

    def init(self, x: Array, there: Array) -> tuple[Any, Array]:
        hot = (x[:, None] == jnp.arange(self.num_params, dtype=x.dtype)[None, :, None]) & there[:, None]
        return {}, jnp.log(1 + hot.sum(-1, dtype=x.dtype)).T

    def inside(self, c: Any, x: Array) -> Array:
        return (x >= 0) & (x < c["classes"]) & (x == jnp.floor(x))

    def safe(self, c: Any) -> Array:
        return jnp.zeros_like(c["classes"])

    def shown(self, c: Any, x: Array) -> Array:
        return one_hot_codes(x, self.widths)

    def log_p(self, c: Any, theta: Array, x: Array) -> Array:
        log_p = self._log_masses(c, theta)
        here = x[None] == jnp.arange(self.num_params, dtype=x.dtype)[:, None, None]
        return jnp.where(here, log_p, 0).sum(0)

    def draw(self, c: Any, theta: Array, u: Array) -> Array:
        up_to = jnp.cumsum(jnp.exp(self._log_masses(c, theta)), 0)
        code = (up_to <= (u * up_to[-1])[None]).sum(0).astype(u.dtype)
        return jnp.minimum(code, c["classes"] - 1)

    def expected(self, c: Any, theta: Array) -> Array:
        masses = jnp.exp(self._log_masses(c, theta))
        return jnp.concatenate([masses[:classes, j] for j, classes in enumerate(self.widths)])

    def _log_masses(self, c: Any, theta: Array) -> Array:
        valid = jnp.arange(self.num_params, dtype=theta.dtype)[:, None, None] < c["classes"][None]
        return jax.nn.log_softmax(jnp.where(valid, theta, -jnp.inf), axis=0)
