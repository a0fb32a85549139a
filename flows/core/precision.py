"""The dtype of matrix products and rematerialisation, as a training step asks for them; read while it is traced."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import jax

HIGHEST = jax.lax.Precision.HIGHEST  # of matrix products, whose inputs an accelerator would else round


class Precision(NamedTuple):
    matmul_dtype: str | None = None  # the dtype of the networks' matrix products; None: that of the data
    remat: bool = False  # layers keep their inputs alone and are computed again for the gradient


_precision: ContextVar[Precision] = ContextVar("precision", default=Precision())  # noqa: B039


def precision() -> Precision:
    return _precision.get()


@contextmanager
def computed_with(how: Precision) -> Iterator[None]:
    """What is traced within is computed so."""
    token = _precision.set(how)
    try:
        yield
    finally:
        _precision.reset(token)
