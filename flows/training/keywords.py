"""The keywords of `flows.fit`, for functions that hand them on, as `TypedDict`s that a test holds equal to its signature."""

import inspect
from collections.abc import Callable, Collection
from typing import Any, TypedDict, TypeVar

import optax

F = TypeVar("F", bound=Callable)


class SelectKeywords(TypedDict, total=False):
    """Those that `flows.select` hands on."""

    context: Any
    weights: Any
    batch_size: int | None
    max_epochs: int | None
    max_minutes: float | None
    patience: int | None
    learning_rate: float
    weight_decay: float
    standardize: bool | str
    standardize_context: bool
    support: Any
    as_is: Any
    dequantize: Any
    mesh: Any
    rows: str
    verbose: int


class FitKeywords(SelectKeywords, total=False):
    """Those of one fit, but for `folds` and `members`."""

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
    """Shows, in place of a function's `**keywords`, those that it hands on, with the types and defaults that they have there.
    Those that it has itself stay its own."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        parameters = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        known = {parameter.name for parameter in parameters}
        more = [
            parameter for name, parameter in inspect.signature(to).parameters.items() if name in names and name not in known
        ]
        function.__signature__ = signature.replace(parameters=[*parameters, *more])  # type: ignore[attr-defined]
        return function

    return decorate
