"""The keywords of `flows.fit`, for functions that hand them on, as `TypedDict`s that a test holds equal to its signature."""

import inspect
from collections.abc import Callable, Collection
from typing import Any, TypedDict, TypeVar

import optax

F = TypeVar("F", bound=Callable)


class TableKeywords(TypedDict, total=False):
    """Keywords that `flows.tables.fit` hands on."""

    batch_size: int | None
    max_epochs: int | None
    max_minutes: float | None
    patience: int | None
    learning_rate: float
    weight_decay: float
    mesh: Any
    verbose: int


class SelectKeywords(TableKeywords, total=False):
    """Keywords that `flows.select` hands on."""

    context: Any
    weights: Any
    standardize: bool | str
    standardize_context: bool
    support: Any
    as_is: Any
    dequantize: Any
    rows: str


class FitKeywords(SelectKeywords, total=False):
    """Keywords of one fit, but for `folds` and `members`."""

    objective: Callable | None
    validation: Any
    steps_per_epoch: int | None
    optimizer: optax.GradientTransformation | None
    ema: float | None
    accumulate: int
    matmul_dtype: str | None
    remat: bool
    checkpoint: Any
    checkpoint_every: float
    callbacks: Any


def hands_on(to: Callable, names: Collection[str]) -> Callable[[F], F]:
    """Show, in place of a function's `**keywords`, the keywords that it hands on, with their types and defaults. A keyword that
    the function has itself stays as it is."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        parameters = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        known = {each.name for each in parameters}
        more = [each for name, each in inspect.signature(to).parameters.items() if name in names and name not in known]
        function.__signature__ = signature.replace(parameters=[*parameters, *more])  # type: ignore[attr-defined]
        return function

    return decorate
