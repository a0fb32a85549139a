"""Names that have changed: an old one warns for one minor version, and then is an error. Nothing is deprecated today.

A public name of the package is an entry of `NAMES`; an argument is renamed by `@renamed`, below `@bijection` on a constructor.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from flows.core.errors import warn_user

F = TypeVar("F", bound=Callable)

NAMES: dict[str, tuple[str, str]] = {}  # the old name in `flows`, the new one, and the version in which the old one goes
_ARGUMENTS: dict[Callable, dict[str, tuple[str, str]]] = {}  # the same for arguments, of a function


def new_name(name: str) -> str | None:
    """Return the new name of an old one in `flows`, with a warning; None if it is not an old name."""
    if name not in NAMES:
        return None
    new, version = NAMES[name]
    _warn_of(f"flows.{name}", f"flows.{new}", version)
    return new


def renamed(version: str, **names: str) -> Callable[[F], F]:
    """Decorate a function whose arguments have new names: `@renamed("0.3", width="hidden")` takes `width=` until 0.3."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **with_new_names(call, kwargs))

        _ARGUMENTS[call] = _ARGUMENTS.get(function, {}) | {old: (new, version) for old, new in names.items()}
        return call  # type: ignore[return-value]

    return decorate


def with_new_names(function: Callable, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords of a call by their new names, and warn of old ones."""
    names, changed = _ARGUMENTS.get(function, {}), {}
    for name, value in kwargs.items():
        new, version = names.get(name, (name, ""))
        if new != name:
            if new in kwargs or new in changed:
                raise TypeError(
                    f"{function.__name__}: {name}= is an old name of {new}=, which is there twice; give {new}= alone"
                )
            _warn_of(f"{function.__name__}({name}=)", f"{new}=", version)
        changed[new] = value
    return changed


def _warn_of(old: str, new: str, version: str) -> None:
    # Users see a FutureWarning, and not a DeprecationWarning, which Python hides outside of their own file.
    warn_user(f"{old} is deprecated and goes in version {version}; write {new}", FutureWarning)
