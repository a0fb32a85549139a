"""A flow in other programs, and their distributions and bijections as layers and bases of ours: a room for each library.

flows.interop.numpyro      # distributions, transforms, modules and guides of probabilistic programs
flows.interop.blackjax     # proposals, and densities that a flow has straightened

Each is imported when it is first named, and needs the extra of its name.
"""

import importlib as _importlib
import typing as _typing

LIBRARIES = ("blackjax", "numpyro")

if _typing.TYPE_CHECKING:
    from flows.interop import blackjax as blackjax
    from flows.interop import numpyro as numpyro
else:

    def __getattr__(name):
        if name in LIBRARIES:
            return _importlib.import_module(f"flows.interop.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(LIBRARIES)}")
