"""From what a user gives to what a training takes: rows judged, split, in the units of the model, on the device."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections import Dequantize, Standardize
from flows.compose import Serial
from flows.core import Array, FlowsError
from flows.core.contract import Shape
from flows.distributions import Flow, StandardizedContext
from flows.training.data_checks import judge, steps_of
from flows.training.diagnose import Suspects
from flows.training.reading import (
    Rows,
    Scale,
    as_share,
    check_names,
    column_names,
    measure,
    moments,
    read,
    read_validation,
    split,
    take,
)


class Prepared(NamedTuple):
    """Rows in the units of the model, and how to come back to those of the data."""

    train: Rows
    held_out: Rows
    numbers: np.ndarray  # of the training rows in the data given
    others: np.ndarray | None  # of those held out, if they are a share
    given: list[Rows | None]  # rows as they were given, data and validation
    dtype: np.dtype
    scale: Scale | None
    steps: np.ndarray | None  # of values that were rounded
    offset: np.ndarray  # the least value of each column
    of_context: Scale | None

    @property
    def event(self) -> Shape:
        return self.train.x.shape[1:]

    @property
    def context(self) -> Shape | None:
        return None if self.train.context is None else self.train.context.shape[1:]

    @property
    def log_det(self) -> float:
        """Of the standardisation, in nats a row."""
        return 0.0 if self.scale is None else -float(np.log(self.scale.std).sum()) * math.prod(self.event[:-1])

    def ready(self, rows: Rows) -> Rows:
        """Rows of the data given as the model's, not yet on the device."""
        x = rows.x if self.scale is None else self.scale.apply(rows.x)
        c = rows.context if self.of_context is None else self.of_context.apply(rows.context)
        w = None if rows.weights is None else rows.weights / rows.weights.mean()
        return jax.tree.map(partial(np.asarray, dtype=self.dtype), Rows(x, c, w))

    def suspects(self) -> Suspects:
        """The rows held out."""
        if self.others is None:
            return Suspects(self.held_out, np.arange(len(self.held_out.x)), "validation", train=False)
        return Suspects(self.held_out, self.others, train=False)

    def inner(self, init_fun: Any) -> Any:
        """The model of the rows here."""
        if self.steps is None:
            return init_fun
        std = 1.0 if self.scale is None else self.scale.std
        return Flow(Dequantize(tuple(self.steps / std)), init_fun)

    def outer(self, init_fun: Any) -> Any:
        """The model of the data given."""
        layers = [] if self.steps is None else [Dequantize(tuple(self.steps))]
        layers += [] if self.scale is None else [Standardize()]
        prior = init_fun if self.of_context is None else StandardizedContext(init_fun)
        return prior if not layers else Flow(layers[0] if len(layers) == 1 else Serial(*layers), prior)

    def on_device(self) -> "Prepared":
        """The same of rows that are those of the data given."""
        train, held_out = (jax.tree.map(jnp.asarray, self.ready(rows)) for rows in (self.train, self.held_out))
        return self._replace(train=train, held_out=held_out)

    @property
    def path(self) -> tuple[str, ...]:
        """Where params of the model itself are in those of `outer`."""
        layers = self.steps is not None or self.scale is not None
        return ("prior",) * layers + ("distribution",) * (self.of_context is not None)

    def outer_params(self, params: Any, changed: Callable[[Any], Any] = lambda params: params) -> Any:
        """Params of `outer` of those of `inner`; those of the model itself are `changed`."""
        layers = []
        if self.steps is not None:
            params = params["prior"]
        params = changed(params)
        if self.steps is not None:
            layers.append({"fixed": {"offset": jnp.asarray(self.offset, self.dtype)}})
        if self.scale is not None:
            layers.append({"fixed": self._fixed(self.scale)})
        if self.of_context is not None:
            params = {"distribution": params, "fixed": self._fixed(self.of_context)}
        return params if not layers else {"bijection": layers[0] if len(layers) == 1 else tuple(layers), "prior": params}

    def _fixed(self, scale: Scale) -> dict[str, Array]:
        return {name: jnp.asarray(each, self.dtype) for name, each in scale._asdict().items()}


def prepare(data: Any, context: Any, weights: Any, validation: Any, key: Array, standardize: bool, dequantize: Any) -> Prepared:
    share = as_share(validation)
    names = column_names(data)
    rows, dtype = read(data, context, weights=weights)
    given: list[Rows | None] = [rows, None]
    numbers, others = np.arange(len(rows.x)), None
    if rows.weights is not None:  # rows that do not count are not there
        numbers = np.flatnonzero(rows.weights)
    if share is not None:
        of_train, of_others = split(len(numbers), share, key)
        numbers, others = numbers[of_train], numbers[of_others]
        train, held_out = take(rows, numbers), take(rows, others)
    else:
        check_names(validation[0] if isinstance(validation, tuple) and context is not None else validation, names)
        train, held_out = take(rows, numbers), read_validation(validation, rows)
        given[1] = held_out
    steps = steps_of(dequantize, train.x, names)
    scale = measure(train.x, dtype, train.weights)
    if train.x.ndim == 2:
        judge(train.x, numbers, scale, dtype, standardize, steps, names)
    of_context = None if context is None or not standardize else scale_of_context(train.context, train.weights)
    offset = train.x.min(tuple(range(train.x.ndim - 1)))

    found = Prepared(train, held_out, numbers, others, given, dtype, scale if standardize else None, steps, offset, of_context)
    return found.on_device()


def scale_of_context(context: np.ndarray, weights: np.ndarray | None = None) -> Scale:
    """A column of a context may be constant: it then stays as it is."""
    mean, std = moments(context, weights)
    if not np.isfinite(std).all():
        raise FlowsError(
            f"fit: column {int(np.argmin(np.isfinite(std)))} of context varies by more than can be held. Rescale it"
        )
    return Scale(mean, np.where(std > 8 * np.finfo(np.float32).eps * np.abs(mean), std, 1.0))
