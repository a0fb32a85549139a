"""The errors a user sees: each says what was got, what was expected and what to do."""

import jax


class FlowsError(ValueError):
    """A request that `flows` cannot carry out: a wrong shape, a bad value, a damaged file, a rule of the contract broken."""


# What JAX raises when ordinary Python (`if`, `float()`, NumPy) meets an array whose value is not known yet.
TRACING_ERRORS: tuple[type[Exception], ...] = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
