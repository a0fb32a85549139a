"""The errors and warnings a user sees: each says what was got, what was expected and what to do."""

import contextlib
import os
import sys
import warnings
from typing import Any

import jax

PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


class FlowsError(ValueError):
    """A request that `flows` cannot carry out: a wrong shape, a bad value, a damaged file, a rule of the contract broken."""


class FitError(FlowsError):
    """A fit that cannot go on: losses or gradients that are not finite, or grow, whatever the learning rate.

    Attributes:
        params: the best params so far, finite, in the units of the data; those at the start if no epoch was good.
        history: as of a `FitResult`, up to here.
        cause: what was not finite, as far as it can be told.
    """

    def __init__(self, message: str, params: Any = None, history: Any = None, cause: str = ""):
        super().__init__(message)
        self.params, self.history, self.cause = params, history or {}, cause


class Place:
    """Where a layer is in a composition; an error that leaves a `with` of it says so."""

    def __init__(self, where: str, layer: Any, event: tuple[int, ...]):
        self.where, self.layer, self.event = where, layer, event

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            error.add_note(f"in {self.where}, {shortened(self.layer)}, event {self.event}")


def shortened(value: Any, length: int = 100) -> str:
    """The repr of a value, cut where it is long."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code that called `flows`, however deep within the package this is called.

    Python shows a text once for each line, and so would hide what a later call in a loop has to say. No registry of lines that
    have warned is kept here: every warning is shown, unless a filter ignores it.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((PACKAGE, contextlib.__file__)):
        frame = frame.f_back
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__"))


# What JAX raises when ordinary Python (`if`, `float()`, NumPy) meets an array whose value is not known yet.
TRACING_ERRORS: tuple[type[Exception], ...] = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
