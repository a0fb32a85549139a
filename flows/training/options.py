"""The settings of a fit, each refused before anything is computed if it is outside its range."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from flows.core import BijectionInit, DistributionInit, FlowsError, positive, positive_int
from flows.core.constructors import Value, is_constructor
from flows.core.precision import Precision
from flows.training.history import check_callbacks
from flows.training.reading import as_share
from flows.training.step import DEFAULT_OPTIMIZER, Pace, even, warmup_cosine

LEARNING_RATE = 1e-3
LOW = (None, "bfloat16", "float16")


class Options(NamedTuple):
    """The keywords of `flows.fit`, as they are given."""

    caller: str  # the function that errors name
    context: Any
    weights: Any
    validation: Any
    batch_size: int
    max_epochs: int
    steps_per_epoch: int | None
    max_minutes: float | None
    patience: int
    learning_rate: float
    optimizer: Any
    standardize: bool
    dequantize: Any
    ema: float | None
    accumulate: int
    products: str | None
    remat: bool
    checkpoint: Any
    checkpoint_every: float
    callbacks: Any
    verbose: int

    @classmethod
    def of(cls, given: dict[str, Any], caller: str = "fit") -> "Options":
        """Those among the arguments of the function `caller`, by name."""
        return cls(caller, *(_plain(given[name]) for name in cls._fields[1:])).checked()

    def checked(self) -> "Options":
        who = self.caller
        positive_int(self.batch_size, f"{who}: batch_size")
        positive_int(self.max_epochs, f"{who}: max_epochs")
        positive_int(self.patience, f"{who}: patience")
        if self.steps_per_epoch is not None:
            positive_int(self.steps_per_epoch, f"{who}: steps_per_epoch")
        positive_int(self.accumulate, f"{who}: accumulate")
        positive(self.checkpoint_every, f"{who}: checkpoint_every")
        as_share(self.validation)
        _ = self.max_seconds
        check_callbacks(self.callbacks, who)
        if self.verbose not in (0, 1):
            raise FlowsError(f"{who}: verbose is {self.verbose!r:.40}; expected 1 for a progress bar, or 0")
        if self.products not in LOW:
            raise FlowsError(f"{who}: products is {self.products!r:.40}; expected 'bfloat16', 'float16' or None")
        for name in ("standardize", "remat"):
            if not isinstance(getattr(self, name), bool):
                raise FlowsError(f"{who}: {name} is {getattr(self, name)!r:.40}; expected True or False")
        ema = self.ema
        if ema is not None and (isinstance(ema, bool) or not isinstance(ema, int | float) or not 0 < ema < 1):
            raise FlowsError(f"{who}: ema is {ema!r:.40}; expected the decay of an average, between 0 and 1, such as 0.999")
        if self.optimizer is None:
            positive(self.learning_rate, f"{who}: learning_rate")
        elif not isinstance(self.optimizer, optax.GradientTransformation):
            raise TypeError(f"{who}: optimizer is {self.optimizer!r:.60}; expected one of optax, such as optax.adamw(1e-3)")
        elif self.learning_rate != LEARNING_RATE:
            raise TypeError(
                f"{who}: learning_rate={self.learning_rate} is for the default optimizer; set the rate in optimizer instead"
            )
        return self

    @property
    def max_seconds(self) -> float:
        return math.inf if self.max_minutes is None else 60 * positive(self.max_minutes, f"{self.caller}: max_minutes")

    @property
    def precision(self) -> Precision:
        return Precision(self.products, self.remat)

    def rows_a_step(self, rows: float) -> int:
        """In parts of equal size; `rows` there are, inf in a stream."""
        batch_size = int(min(self.batch_size, rows))
        if batch_size < self.accumulate:
            raise FlowsError(f"{self.caller}: accumulate is {self.accumulate}, but a batch has only {batch_size} rows")
        if batch_size % self.accumulate and batch_size < rows:
            raise FlowsError(
                f"{self.caller}: batch_size is {batch_size}, which does not split into accumulate={self.accumulate} equal parts"
            )
        return batch_size - batch_size % self.accumulate

    def steps_in_epoch(self, rows: int, batch_size: int) -> int:
        whole = rows // batch_size
        return whole if self.steps_per_epoch is None else min(self.steps_per_epoch, whole)

    def how_to_step(self, steps: int) -> tuple[optax.GradientTransformation, Pace]:
        """The optimizer, and the pace of so many steps."""
        if self.optimizer is not None:
            return self.optimizer, even
        return DEFAULT_OPTIMIZER, warmup_cosine(float(self.learning_rate), steps)

    def shown(self, batch_size: int) -> dict[str, Any]:
        """What a checkpoint holds of them: all but what may be another when a fit goes on."""
        share = as_share(self.validation)
        names = ("max_epochs", "steps_per_epoch", "learning_rate", "standardize", "accumulate", "ema", "products", "remat")
        return {
            "validation": "rows" if share is None else share,
            "batch_size": batch_size,
            "optimizer": "default" if self.optimizer is None else "given",
            **{name: getattr(self, name) for name in names},
        }


def _plain(x: Any) -> Any:
    """Numbers of NumPy and JAX as Python's."""
    return x.item() if isinstance(x, np.generic | jax.Array) and x.ndim == 0 else x


def check_distribution(init_fun: Any, caller: str = "fit") -> None:
    if isinstance(init_fun, BijectionInit):
        raise TypeError(f"{caller}: init_fun is the bijection {init_fun!r}; expected a distribution: flows.Flow({init_fun!r})")
    if is_constructor(init_fun):
        raise TypeError(f"{caller}: init_fun is the constructor {init_fun.__name__}; call it: {init_fun.__name__}(...)")
    if (isinstance(init_fun, Value) and not isinstance(init_fun, DistributionInit)) or not callable(init_fun):
        raise TypeError(f"{caller}: init_fun is {init_fun!r:.80}; expected a distribution, such as flows.Flow(flows.NSF())")
