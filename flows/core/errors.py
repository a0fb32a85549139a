"""The errors a user sees: each says what was got, what was expected and what to do."""

from typing import Any

import jax


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


# What JAX raises when ordinary Python (`if`, `float()`, NumPy) meets an array whose value is not known yet.
TRACING_ERRORS: tuple[type[Exception], ...] = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
