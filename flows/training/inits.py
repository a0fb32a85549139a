"""Params and functions of the model that is to be trained, made in one compiled call."""

from typing import Any

import jax

from flows.core import Array, DistributionPart, Given, build_distribution
from flows.core.caching import Memo, fingerprint
from flows.core.contract import Shape
from flows.core.errors import TRACING_ERRORS
from flows.core.parts import compiled_once

_inits = Memo(size=64)


def initialize(init_fun: Any, key: Array, event: Shape, given: Given) -> tuple[Any, DistributionPart]:
    """Params and part, in one compiled call: what no layer measures is never computed."""
    built = _built(init_fun, event, given.context)
    try:
        params = built.compiled(key, given._replace(context=None))
    except TRACING_ERRORS:  # an init that needs numbers, such as NumPy's
        params = built.run(key, given._replace(context=None))
    return params, built.part


def part_of(init_fun: Any, key: Array, event: Shape, context: Shape | None) -> DistributionPart:
    """The part alone, for which nothing is compiled."""
    built = _built(init_fun, event, context)
    if built.part is None:
        try:
            jax.eval_shape(built.run, key, Given())
        except TRACING_ERRORS:
            built.run(key, Given())
    return built.part


def _built(init_fun: Any, event: Shape, context: Shape | None) -> "_Init":
    return _inits(fingerprint((init_fun, event, context)), lambda: _Init(init_fun, event, context))


class _Init:
    def __init__(self, init_fun: Any, event: Shape, context: Shape | None):
        self.init_fun, self.event, self.context = init_fun, event, context
        self.compiled: Any = compiled_once(self.run)
        self.part: Any = None

    def run(self, key: Array, given: Given) -> Any:
        params, self.part = build_distribution(self.init_fun, key, self.event, given._replace(context=self.context))
        return params
