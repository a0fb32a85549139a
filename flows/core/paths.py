"""Paths: the differential equation that the points of a part follow, from data that other layers went through first."""

from collections.abc import Callable
from typing import Any

import jax

from flows.core.contract import Array
from flows.core.errors import FlowsError
from flows.core.params import trainable
from flows.core.parts import BijectionPart


def path_of(parts: tuple[BijectionPart, ...]) -> Callable:
    """The path of the last part, from data that go through the others first."""
    *before, last = parts

    def path(params: Any, x: Array, context: Any, rng: Array) -> tuple[Array, Callable]:
        if last.path is None or any(part.path for part in before):
            names = ", ".join(part.name for part in parts)
            raise FlowsError(f"flow_matching: {names}: expected one continuous layer, and that the last")
        keys = jax.random.split(rng, len(parts))
        for part, own, key in zip(before, params, keys, strict=False):
            x = still(part, own, x, context, key)
        return last.path(params[-1], x, context, keys[-1])

    return path


def still(part: BijectionPart, params: Any, x: Array, context: Any, key: Array) -> Array:
    """What a layer that does not train makes of data, before a path."""
    if any(jax.tree.leaves(trainable(params))):
        raise FlowsError(
            f"flow_matching: {part.name} comes before the continuous layer and trains, which regression on the velocity cannot "
            "do; expected layers such as Standardize, Whiten, Dequantize or Logit there"
        )
    return jax.lax.stop_gradient(part.direct(params, x, context, key if "rng" in part.keywords else None, False)[0])
