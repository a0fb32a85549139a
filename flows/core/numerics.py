"""Formulas that many layers share, and the precision that a training step asks of matrix products."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flows.core.contract import Array

LOG_2PI = math.log(2 * math.pi)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def soft_clip(raw: Array, bound: float) -> Array:
    """bound tanh(raw / bound): `raw` where that is small, and always within +-bound."""
    return bound * jnp.tanh(raw / bound)


@soft_clip.defjvp
def _(bound: float, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # The derivative as one factor: multiplied by the bound first, a large cotangent would overflow.
    bent = soft_clip(primals[0], bound)
    return bent, (1 - jnp.square(bent / bound)) * tangents[0]


def saturated(x: Array, bound: float) -> Array:
    """x itself within +-bound; beyond it flattens out at +-(bound + 1): bound + tanh(x - bound), smooth once."""
    within = jnp.clip(x, -bound, bound)
    return within + jnp.tanh(x - within)


def soft_clip_inverse(bent: Array, bound: float) -> Array:
    """The `raw` whose soft_clip is `bent`, which is cut off at nine tenths of the bound: beyond, raw would be far off."""
    return bound * jnp.arctanh(jnp.clip(bent / bound, -0.9, 0.9))


def varying(tree: Any, like: Any) -> Any:
    """`tree` with its leaves told to differ over all axes of a mesh over which some leaf of `like` does, under `jax.shard_map`:
    what a loop carries has to say so from the start."""
    axes = frozenset[str]().union(*map(_axes, jax.tree.leaves(like)))
    return jax.tree.map(lambda leaf: _cast(leaf, tuple(sorted(axes - _axes(leaf)))), tree) if axes else tree


def _axes(x: Any) -> frozenset[str]:
    kind: Any = jax.typeof(x)
    found = getattr(kind, "vma", None) or getattr(getattr(kind, "manual_axis_type", None), "varying", None)
    return found or frozenset()


def _cast(x: Array, axes: tuple[str, ...]) -> Array:
    lax: Any = jax.lax
    return x if not axes else lax.pcast(x, axes, to="varying") if hasattr(lax, "pcast") else lax.pvary(x, axes)


def along(v: Array, x: Array) -> Array:
    """One number for each channel, with the rank of x, so that it broadcasts over every axis but the last."""
    return v.reshape((1,) * (x.ndim - 1) + v.shape)


def blocks_to_channels(x: Array, k: int) -> Array:
    """Blocks of k x k pixels to channels: (..., H k, W k, C) to (..., H, W, C k k)."""
    *rows, height, width, channels = x.shape
    cut = x.reshape(*rows, height // k, k, width // k, k, channels)
    return jnp.moveaxis(cut, (-4, -2), (-2, -1)).reshape(*rows, height // k, width // k, channels * k * k)


def beside(x: Array, towards: float) -> Array:
    """The next number above x, or below where `towards` is negative; beside 0 the least that is not flushed to it."""
    found = jnp.nextafter(x, jnp.full_like(x, towards * jnp.inf))
    return jnp.where(x == 0, towards * jnp.finfo(x.dtype).tiny, found)


HIGHEST = jax.lax.Precision.HIGHEST  # of matrix products, whose inputs an accelerator would else round


class Precision(NamedTuple):
    matmul_dtype: str | None = None  # the dtype of the networks' matrix products; None: that of the data
    remat: bool = False  # layers keep their inputs alone and are computed again for the gradient


_precision: ContextVar[Precision] = ContextVar("precision", default=Precision())  # noqa: B039


def precision() -> Precision:
    return _precision.get()


@contextmanager
def computed_with(how: Precision) -> Iterator[None]:
    """What is traced within is computed so."""
    token = _precision.set(how)
    try:
        yield
    finally:
        _precision.reset(token)
