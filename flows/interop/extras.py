"""The error where a library that a room is for is not installed."""

import importlib


def needs(library: str) -> None:
    """Import a library, or say how it is installed."""
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise ImportError(
            f"flows.interop.{library} needs the package {error.name}: pip install 'jax-flows[{library}]', "
            f"or in a checkout pip install -e .[{library}]"
        ) from error
