"""Flows in other programs, and distributions and transforms of other libraries as bases and layers: a module for each library.

flows.interop.numpyro      # distributions, transforms, modules and guides of probabilistic programs
flows.interop.blackjax     # proposals, and densities in the noise of a flow

Each module is imported when it is first named, and needs the extra of the same name.
"""

import importlib as _importlib
import typing as _typing

from flows.core import lacking as _lacking

# The name of each library, also of its module and its extra, and its use: documentation and tests read this table.
LIBRARIES = {
    "numpyro": "flows in probabilistic programs",
    "blackjax": "flows for samplers",
}

if _typing.TYPE_CHECKING:
    from flows.interop import blackjax as blackjax
    from flows.interop import numpyro as numpyro
else:

    def __getattr__(name):
        if name in LIBRARIES:
            return _importlib.import_module(f"flows.interop.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(LIBRARIES))}")


def needs(library: str) -> None:
    """Import a library, or say how it is installed."""
    try:
        _importlib.import_module(library)
    except ImportError as error:
        raise ImportError(_lacking(f"flows.interop.{library}", error.name, library)) from error
