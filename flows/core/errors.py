"""Errors for users, with the place of the layer; warnings; calls that do not fit."""

import contextlib
import difflib
import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


class FlowsError(ValueError):
    """A request that `flows` cannot carry out: a wrong shape, a bad value, a damaged file, a broken rule of the contract."""


class FitError(FlowsError):
    """A fit that cannot go on: losses or gradients that are not finite, or grow, whatever the learning rate.

    Attributes:
        params: the best params so far, finite, in the units of the data; the initial params if no epoch was good.
        history: as in a `FitResult`, up to this point.
        cause: what was not finite, as far as it is known.
    """

    def __init__(self, message: str, params: Any = None, history: Any = None, cause: str = ""):
        super().__init__(message)
        self.params, self.history, self.cause = params, history or {}, cause


class Place(contextlib.AbstractContextManager, contextlib.ContextDecorator):
    """Place of a layer in a composition, which an error that leaves its `with`, or a function that it decorates, names in a
    note."""

    def __init__(self, where: str, layer: Any, event: tuple[int, ...]):
        self.where, self.layer, self.event = where, layer, event

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            error.add_note(f"in {self.where}, {shortened(self.layer)}, event {self.event}")


def shortened(value: Any, length: int = 100) -> str:
    """The repr of a value, cut where it is long."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def on_a_line(value: Any, length: int = 60) -> str:
    """The repr of a value that may be a table, cut where it is long."""
    return " ".join(repr(value).split())[:length]


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code that called `flows`, from any depth of the package.

    Python shows a text once for each line, and so would hide the warnings of later calls in a loop. Here no registry of lines
    is used: every warning is shown, unless a filter ignores it.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((PACKAGE, contextlib.__file__)):
        frame = frame.f_back
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__"))


# Errors of JAX when ordinary Python (`if`, `float()`, NumPy) meets an array whose value is not known yet.
TRACING_ERRORS: tuple[type[Exception], ...] = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


P = ParamSpec("P")
R = TypeVar("R")

# Names of arguments in other libraries, and their names here.
ELSEWHERE = {
    "epochs": "max_epochs", "n_epochs": "max_epochs", "num_epochs": "max_epochs", "lr": "learning_rate",
    "max_patience": "patience", "val_prop": "validation", "validation_split": "validation", "val_data": "validation",
    "sample_weight": "weights", "condition": "context", "conditions": "context", "seed": "rng", "key": "rng",
    "random_state": "rng", "show_progress": "verbose", "optim": "optimizer", "y": "context",
}  # fmt: skip


def explained_call(example: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function: the error of a wrong call names the keyword that was meant, or shows an `example` of a call."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                name, unknown = function.__name__, [keyword for keyword in kwargs if keyword not in signature.parameters]
                if not unknown:
                    raise TypeError(f"{name}: {error}; expected a call such as {example}") from None
                meant = ELSEWHERE.get(unknown[0])
                known = list(signature.parameters)
                close = [meant] if meant in known else difflib.get_close_matches(unknown[0], known)
                remedy = f"; did you mean {close[0]}=?" if close else "."
                keywords = ", ".join(p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY)
                raise TypeError(f"{name}: it takes no {unknown[0]}={remedy} Its keywords are {keywords}") from None
            return function(*args, **kwargs)

        return call

    return decorate
