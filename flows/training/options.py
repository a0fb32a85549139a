"""The options of a fit: one record of all keywords, with the default and the check of each in one place.

A new option is a keyword of the function that takes it and a line here.
"""

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from functools import partial
from typing import Annotated, Any, NamedTuple, Self

import jax
import numpy as np
import optax

from flows.core import (
    BijectionInit,
    DistributionInit,
    FlowsError,
    Precision,
    Value,
    boolean,
    declares,
    is_constructor,
    mesh_of_rows,
    not_negative,
    number,
    on_a_line,
    positive,
    positive_int,
    traits_by,
)
from flows.objectives import maximum_likelihood
from flows.results.columns import place_of as place_of
from flows.training.devices import Placement

LEARNING_RATE = 5e-3
EMA = 0.998
# Defaults.
BATCH_SIZE = 256  # rows a step, at most
BATCHES = 8  # steps of an epoch, at least
EPOCHS = 100  # passes over the rows, or more where STEPS are more
STEPS = 3_000  # steps in all, at least
STEPS_OF_ROLES = 10_000  # of a model of any columns given any others, as a step asks one of many questions
PATIENCE = 10  # epochs without a better loss, at least
LEAST_BATCH = 8  # rows, as a batch of one row cannot be normalised
SHARE = 0.1  # of the rows, to hold out
FEW = 2_000  # rows; with fewer, models of more trained numbers than rows are averaged over folds
FOLDS = 5  # parts of the rows, each held out from one of these models

Check = Callable[[Any, str], Any]  # (value, name in errors) -> the value that the options hold


def optional(check: Check) -> Check:
    """Return a check that lets None pass."""
    return lambda x, name: None if x is None else check(x, name)


def one_of(*known: Any) -> Check:
    def check(x: Any, name: str) -> Any:
        if not any(type(x) is type(value) and x == value for value in known):
            raise FlowsError(f"{name} is {on_a_line(x)}; expected one of {', '.join(map(repr, known))}")
        return x

    return check


def bar_or_none(x: Any, name: str) -> Any:
    if np.ndim(x) or x not in (0, 1):
        raise FlowsError(f"{name} is {on_a_line(x)}; expected 1 for a progress bar, or 0")
    return x


def folder(x: Any, name: str) -> Any:
    if not isinstance(x, str | bytes | os.PathLike):
        raise FlowsError(f"{name} is {x!r:.60}; expected the path of a folder")
    return x


def share_or_rows(x: Any, name: str) -> Any:
    """Check a share of rows to hold out, and return it as a float; rows are checked when they are read."""
    if isinstance(x, tuple | list) or hasattr(type(x), "columns") or (not isinstance(x, str) and np.ndim(x) > 0):
        return x
    try:
        share = math.nan if isinstance(x, bool | str) else float(x)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 < share < 1:
        raise FlowsError(f"{name} is {x!r:.80}; expected the share of rows to hold out, between 0 and 1, or rows")
    return share


def decay(x: Any, name: str) -> float:
    return number(x, name, lambda x: 0 < x < 1, "the decay of an average, between 0 and 1, such as 0.999")


def share(x: Any, name: str) -> float:
    return number(x, name, lambda x: 0 < x < 1, "a share of the steps, between 0 and 1, such as 0.6")


def optax_optimizer(x: Any, name: str) -> optax.GradientTransformation:
    if not isinstance(x, optax.GradientTransformation):
        raise TypeError(f"{name} is {x!r:.60}; expected an optimizer of optax, such as optax.adamw(1e-3)")
    return x


def columns(x: Any, name: str) -> tuple[str | int, ...]:
    """Check columns, by name or number; whether the data have them is checked when the data are read."""
    several = isinstance(x, list | tuple | range | set | frozenset) or np.ndim(x) == 1  # arrays, and an index of pandas
    labels = tuple(x) if several else (x,)
    if isinstance(x, set | frozenset):  # whose order differs between runs
        labels = tuple(sorted(labels, key=str))
    if not all(isinstance(label, str | int | np.integer) and not isinstance(label, bool) for label in labels):
        raise FlowsError(f"{name} is {x!r:.80}; expected columns by name or number, such as ('hour', 3)")
    return tuple(label if isinstance(label, str) else int(label) for label in labels)


def functions(x: Any, name: str) -> tuple[Callable, ...]:
    if callable(x) or not isinstance(x, Sequence) or not all(map(callable, x)):
        raise FlowsError(f"{name} is {x!r:.80}; expected a list of functions of one argument, an Epoch")
    return tuple(x)


def objective_of_rows(x: Any, name: str) -> Callable | None:
    """Check a function (params, distribution, x) that may name context, weights, rng and train; the likelihood gives None."""
    expected = (
        "expected a function objective(params, distribution, x, *, context, weights, rng, train) -> scalar, such as "
        "flows.objectives.flow_matching, which may leave out keywords; bind further arguments by functools.partial"
    )
    check_called(x, name, expected, 3, lambda: keywords_of_objective(x))
    return None if x is maximum_likelihood else x


def objective_of_draws(x: Any, name: str) -> Callable:
    """Check a function (params, distribution, log_density, rng, num_samples)."""
    expected = (
        "expected a function objective(params, distribution, log_density, rng, num_samples) -> scalar, such as "
        "flows.objectives.forward_kl; bind further arguments by functools.partial"
    )
    return check_called(x, name, expected, 5, tuple)


def check_called(x: Any, name: str, expected: str, count: int, keywords: Callable[[], tuple[str, ...]]) -> Callable:
    """Return a function that can be called with `count` arguments and these keywords."""
    if not callable(x) or isinstance(x, type | Value):
        raise TypeError(f"{name} is {x!r:.60}; {expected}")
    try:
        inspect.signature(x).bind(*[None] * count, **dict.fromkeys(keywords()))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {x!r:.60}, which cannot be called in this way ({error}); {expected}") from None
    return x


def name_of_objective(function: Any) -> str:
    """Return the name of a function, or of the function inside a partial."""
    function = getattr(function, "func", function)
    return getattr(function, "__name__", type(function).__name__)


def keywords_of_objective(function: Callable) -> tuple[str, ...]:
    """Return which of context, weights, rng and train a function names; all if it takes any keyword."""
    kinds = {name: parameter.kind for name, parameter in inspect.signature(function).parameters.items()}
    if inspect.Parameter.VAR_KEYWORD in kinds.values():
        return ROW_KEYWORDS
    by_name = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return tuple(name for name in ROW_KEYWORDS if kinds.get(name) in by_name)


ROW_KEYWORDS = ("context", "weights", "rng", "train")
MAY_CHANGE = "may change"  # when a fit continues from a checkpoint


class Run(NamedTuple):
    """Settings of a training that are not options of a user; `expected` and `remedy` are for errors where the density is 0."""

    caller: str = "fit"  # the called function, as errors name it
    expected: str = "data where the model is defined (flows.support says where that is) and finite values from its layers"
    remedy: str = "Give a base without edges, or data in its support"
    judged: bool = True  # whether it warns when it ends behind its start, or behind the closed-form Gaussian
    tempered: int = 0  # the first epochs, whose validation loss says nothing
    stands: Callable[[list[float], list[float]], bool] | None = None  # whether it is over, by importance weights
    place: str = ""  # of the model among those that are compared, for the bar
    end: float = math.inf  # of all these models, at most, by time.monotonic


FIT_RUN = Run()


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    """The keywords of `flows.fit`, each with its type, check and default; keywords without a check are checked when the data
    are read."""

    context: Any = None
    weights: Any = None
    objective: Annotated[Callable | None, optional(objective_of_rows)] = None
    validation: Annotated[Any, optional(share_or_rows)] = None
    folds: Annotated[int | None, optional(positive_int)] = None
    groups: Any = None
    order: Any = None
    members: Annotated[int | None, optional(partial(positive_int, most=10_000))] = None
    batch_size: Annotated[Any, optional(positive_int)] = None
    max_epochs: Annotated[Any, optional(positive_int)] = None
    steps_per_epoch: Annotated[int | None, optional(positive_int)] = None
    max_minutes: Annotated[float | None, optional(positive), MAY_CHANGE] = None
    patience: Annotated[Any, optional(positive_int), MAY_CHANGE] = None
    learning_rate: Annotated[float, positive] = LEARNING_RATE
    weight_decay: Annotated[float, not_negative] = 0.0
    optimizer: Annotated[optax.GradientTransformation | None, optional(optax_optimizer)] = None
    standardize: Annotated[bool | str, one_of(True, False, "whiten", "columns")] = True
    standardize_context: Annotated[bool, boolean] = True
    support: Any = None
    as_is: Annotated[Any, columns] = ()
    dequantize: Any = None
    ema: Annotated[float | None, optional(decay)] = EMA
    accumulate: Annotated[int, positive_int] = 1
    matmul_dtype: Annotated[str | None, one_of("bfloat16", "float16", None)] = None
    remat: Annotated[bool, boolean] = False
    checkpoint: Annotated[Any, optional(folder), MAY_CHANGE] = None
    checkpoint_every: Annotated[float, positive, MAY_CHANGE] = 10.0
    callbacks: Annotated[Any, functions, MAY_CHANGE] = ()
    mesh: Annotated[Any, optional(mesh_of_rows), MAY_CHANGE] = None
    rows: Annotated[str, one_of("copied", "split")] = "copied"
    verbose: Annotated[int, bar_or_none, MAY_CHANGE] = 1
    run: Run = FIT_RUN

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, np.generic | jax.Array) and value.ndim == 0:
                value = value.item()
            if declared := _declared(option):
                value = declared[0](value, f"{self.caller}: {option.name}")
            object.__setattr__(self, option.name, value)
        if self.optimizer is not None and self.learning_rate != type(self).learning_rate:
            raise TypeError(
                f"{self.caller}: learning_rate={self.learning_rate} is for the default optimizer; set the rate in optimizer "
                "instead"
            )
        for name in ("validation", "order"):
            if (self.folds or 1) > 1 and getattr(self, name) is not None:
                raise TypeError(f"{self.caller}: folds={self.folds} holds out each row once; leave {name} out, or give folds=1")
        if sum(value is not None for value in (self.groups, self.order)) + (self.share is None) > 1:
            raise TypeError(f"{self.caller}: groups, order and rows of validation each say which rows are held out; give one")
        if self.rows == "split" and self.mesh is None:
            raise TypeError(f"{self.caller}: rows is 'split', but there is no mesh to split them over; give mesh=\"all\"")
        if self.optimizer is not None and self.weight_decay:
            raise TypeError(
                f"{self.caller}: weight_decay={self.weight_decay} is for the default optimizer; use optax.adamw instead"
            )

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """Take the options from the arguments of a function."""
        return cls(**{option.name: arguments[option.name] for option in fields(cls) if option.name in arguments})

    def for_model(self, init_fun: Any) -> Self:
        """Return the options for a model, which may scale its columns itself."""
        if not declares(init_fun, "prepares"):
            if inside := [value for value in getattr(init_fun, "values_within", list)() if traits_by(value).prepares]:
                raise FlowsError(f"fit: {inside[0]!r:.60} scales its columns itself; fit it alone, not within {init_fun!r:.80}")
            return self
        for name, usual in (("standardize", (True, False)), ("support", (None,)), ("dequantize", (None,))):
            if not any((value := getattr(self, name)) is one for one in usual):
                raise FlowsError(
                    f"fit: {name} is {value!r:.60}, and {init_fun!r:.60} scales its columns itself; leave it out. Ends and "
                    "steps are arguments of columns, such as flows.conditionals.Number(low=0, step=1)"
                )
        return replace(self, standardize=False, standardize_context=False)

    @property
    def caller(self) -> str:
        return self.run.caller

    @property
    def objective_name(self) -> str | None:
        """The name of the objective; None for the likelihood."""
        return None if self.objective is None else name_of_objective(self.objective)

    @property
    def measure(self) -> str:
        """The name of the minimised quantity, for errors."""
        return "loss" if self.objective is None else f"value of {self.objective_name}"

    @property
    def share(self) -> float | None:
        """The share of rows to hold out; None if there are rows to validate on instead."""
        return SHARE if self.validation is None else self.validation if isinstance(self.validation, float) else None

    @property
    def holding(self) -> str:
        """The option that says which rows are held out, "groups" or "order"; "" without them."""
        return next((name for name in ("groups", "order") if getattr(self, name) is not None), "")

    @property
    def max_seconds(self) -> float:
        return math.inf if self.max_minutes is None else 60 * self.max_minutes

    @property
    def precision(self) -> Precision:
        return Precision(self.matmul_dtype, self.remat)

    def rows_a_step(self, rows: float) -> int:
        """Return the number of rows of a batch, out of `rows` (inf in a stream), in parts of equal size on each device."""
        is_set, parts = self.batch_size is not None, self.accumulate * self.placement.shares
        wanted = self.batch_size if is_set else min(max(BATCH_SIZE, parts), max(rows // BATCHES, parts, LEAST_BATCH))
        batch_size = int(min(wanted, rows))
        if batch_size < self.accumulate:
            raise FlowsError(f"{self.caller}: accumulate is {self.accumulate}, but a batch has only {batch_size} rows")
        if rows < parts:
            raise FlowsError(f"{self.caller}: a batch has {self._parts}, but there are {rows} rows; give fewer devices")
        if is_set and batch_size % parts and batch_size < rows:
            near = max(batch_size - batch_size % parts, parts)
            near += parts if near + parts - batch_size < batch_size - near and near + parts <= rows else 0
            raise FlowsError(
                f"{self.caller}: batch_size is {batch_size}, which does not split into {self._parts}; the nearest that does is "
                f"{near}"
            )
        return batch_size - batch_size % parts

    @property
    def placement(self) -> Placement:
        """The placement of the training. Members, or folds, are spread over the mesh instead of batches if each device gets the
        same number."""
        several = self.members or self.folds or 1
        equal = self.mesh is not None and self.rows == "copied" and several > 1 and several % self.mesh.size == 0
        return Placement(self.mesh, equal)

    @property
    def _parts(self) -> str:
        """The parts of a batch in words, for errors."""
        devices = self.placement.shares
        if devices > 1 and self.accumulate == 1:
            return f"{devices} equal parts, one for each device"
        return f"accumulate={self.accumulate} equal parts" + f" on each of {devices} devices" * (devices > 1)

    def steps_an_epoch(self, rows: int, batch_size: int) -> int:
        """Return the steps of one pass over the rows, or `steps_per_epoch` if that is less."""
        whole = rows // batch_size
        return whole if self.steps_per_epoch is None else min(self.steps_per_epoch, whole)

    def settled(self, batch_size: int, steps: int, roles: bool = False) -> Self:
        """Fill in the options that depend on the rows of a batch and the steps of an epoch."""
        max_epochs = self.max_epochs or max(EPOCHS, -(-(STEPS_OF_ROLES if roles else STEPS) // steps))
        patience = self.patience or max(PATIENCE, max_epochs // 10)
        return replace(self, batch_size=batch_size, max_epochs=max_epochs, patience=patience)

    def lasting(self) -> dict[str, Any]:
        """Return the options that may not change when a fit continues from a checkpoint, as the checkpoint holds them, without
        the objective."""
        lasting = [option.name for option in fields(self) if _declared(option) and MAY_CHANGE not in _declared(option)]
        return {name: getattr(self, name) for name in lasting if name != "objective"} | {
            "as_is": list(self.as_is),
            "holding": self.holding or None,
            "validation": "rows" if self.share is None else self.share,
            "optimizer": "default" if self.optimizer is None else "given",
        }


def _declared(option: Field) -> tuple:
    """Return the annotations of the type of an option: its check, and perhaps MAY_CHANGE."""
    return getattr(option.type, "__metadata__", ())


def check_distribution(init_fun: Any, caller: str = "fit") -> None:
    if isinstance(init_fun, BijectionInit):
        raise TypeError(f"{caller}: init_fun is the bijection {init_fun!r}; expected a distribution: flows.Flow({init_fun!r})")
    if is_constructor(init_fun):
        raise TypeError(f"{caller}: init_fun is the constructor {init_fun.__name__}; call it: {init_fun.__name__}(...)")
    if hasattr(init_fun, "schema"):
        raise TypeError(
            f"{caller}: init_fun is a {type(init_fun).__name__}; give it to tables.fit(model=), or give its .result"
        )
    if (isinstance(init_fun, Value) and not isinstance(init_fun, DistributionInit)) or not callable(init_fun):
        raise TypeError(f"{caller}: init_fun is {init_fun!r:.80}; expected a distribution, such as flows.Flow(flows.NSF())")
