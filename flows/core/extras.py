"""The distribution of the package: its name, how extras are installed, and the versions of what is there."""

import importlib.metadata
import json
import os
import platform
import sys
from urllib.parse import urlsplit
from urllib.request import url2pathname

import jax

DISTRIBUTION = "jax-flows"  # as in pyproject.toml; every hint is made from it
RELEASED = False  # whether the package index has this library by that name
CHECKOUT = " in the checkout"

NEEDED = ("jax", "jaxlib", "optax", "numpy", "scipy", "safetensors", "narwhals")
OPTIONAL = (
    "blackjax", "diffrax", "equinox", "flax", "grain", "matplotlib", "numpyro", "pandas", "pillow", "polars", "pyarrow", "rich",
    "scikit-learn", "tensorboardX", "typer",
)  # fmt: skip


def installs(extra: str) -> str:
    """Return how an extra is installed where the library came from: the package index, a wheel file, or a checkout."""
    if RELEASED:
        return f"pip install '{DISTRIBUTION}[{extra}]'"
    if (wheel := _wheel()) is None:
        return f"pip install '.[{extra}]'{CHECKOUT}"
    return f"pip install '{wheel}[{extra}]'" if os.path.exists(wheel) else f"install the wheel again, with [{extra}]"


def lacking(needs: str, package: str | None, extra: str) -> str:
    """Return the message where a package of an extra is missing; `needs` is what needs it."""
    return f"{needs} needs the package {package}: {installs(extra)}"


def _wheel() -> str | None:
    """Return the wheel file that the library was installed from; None if it is a folder, or installed by other means."""
    try:
        origin = json.loads(importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
        return url2pathname(urlsplit(origin["url"]).path) if "archive_info" in origin else None
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def first_line() -> str:
    """Return the versions that a report of a bug begins with, on one line."""
    return f"flows {sys.modules['flows'].__version__}, Python {platform.python_version()}, jax {jax.__version__}"


def show_versions() -> None:
    """Print what a report of a bug needs: versions of Python, of flows and its packages, the devices, the system.

    The line `imported from` is the file of `flows`: another distribution has a package of this name, too.

    Example:
        >>> import flows
        >>> flows.show_versions()  # doctest: +ELLIPSIS
        flows ..., Python ..., jax ...
        imported from    ...__init__.py
        ...
    """
    try:
        devices = ", ".join(map(str, jax.devices()))
    except RuntimeError as error:
        devices = f"none: {error}"
    lines = {"imported from": sys.modules["flows"].__file__, "Python": sys.executable, "system": platform.platform()}
    lines |= {"devices": devices, **{package: _version(package) for package in (DISTRIBUTION, *NEEDED, *OPTIONAL)}}
    print("\n".join([first_line(), *(f"{name:<16} {value}" for name, value in lines.items())]))
