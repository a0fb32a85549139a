"""Fitted models in pickles, without rows of the data: the bytes of the model's file, and names of the user's constructors."""

import importlib
import io
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

from flows.core import FlowsError, to_json, warn_user
from flows.persistence.models import foreign_constructors, rows_held

MOST_BYTES = 2**62  # of a pickled model, whose file is trusted


class Packed(NamedTuple):
    """A saved model.

    Attributes:
        content: the bytes of its file.
        constructors: the user's, as "module:name"; as functions where a session made them, which modules cannot name.
    """

    content: bytes
    constructors: tuple[Any, ...]


def packed(fitted: Any, init_fun: Any) -> Packed:
    """Return a result for a pickle.

    Args:
        fitted: with a method `save`.
        init_fun: its model.
    """
    warn_of_rows(init_fun)
    fitted.save(file := io.BytesIO())
    return Packed(file.getvalue(), tuple(map(_name_of, foreign_constructors(init_fun))))


def unpacked(saved: Packed, load: Callable) -> Any:
    """Return the result, by the function that loads its file.

    Errors:
        FlowsError: a constructor of the user that cannot be imported here.
    """
    return load(io.BytesIO(saved.content), list(map(_constructor, saved.constructors)), max_bytes=MOST_BYTES)


def warn_of_rows(init_fun: Any) -> None:
    """Warn of a model that is made of rows of the data, which go where it goes."""
    if rows := rows_held(to_json(init_fun)):
        warn_user(
            f"the model is a KernelDensity, whose file holds up to {rows:,} rows of the data; hand it on with them in mind"
        )


def _name_of(constructor: Any) -> Any:
    module, name = constructor.__module__, constructor.__qualname__
    return constructor if module == "__main__" or "<locals>" in name else f"{module}:{name}"


def _constructor(name: Any) -> Any:
    if callable(name):
        return name
    module, _, path = name.partition(":")
    try:
        return attrgetter(path)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise FlowsError(
            f"the model is made with {path} of the module {module}, which cannot be imported here ({error}); install the "
            "module where the model is used, as it is where the model was fitted"
        ) from error
