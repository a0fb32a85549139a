"""The distribution of the package: its name, how extras are installed, and the versions of what is there."""

import importlib.metadata
import json
import os
import platform
import sys
from shlex import quote
from urllib.parse import urlsplit
from urllib.request import url2pathname

import jax

DISTRIBUTION = "jax-flows"  # as in pyproject.toml; every hint is made from it
RELEASED = False  # whether the package index has this library by that name
CHECKOUT = " in the checkout"

NEEDED = ("jax", "jaxlib", "optax", "numpy", "scipy", "safetensors", "tqdm", "narwhals")
OPTIONAL = (
    "blackjax", "dask", "diffrax", "distributed", "equinox", "flax", "grain", "matplotlib", "numpyro", "pandas", "pillow",
    "polars", "pyarrow", "pyspark", "ray", "rich", "scikit-learn", "tensorboardX", "typer",
)  # fmt: skip


def installs(extra: str) -> str:
    """Return how an extra is installed where the library came from: the package index, a wheel file, or a checkout."""
    if RELEASED:
        return f"pip install '{DISTRIBUTION}[{extra}]'"
    if (origin := _origin()) is None:
        return f"pip install '.[{extra}]'{CHECKOUT}"
    if "://" in origin:
        return f"pip install '{DISTRIBUTION}[{extra}] @ {origin}'"
    return (
        f"pip install {quote(f'{origin}[{extra}]')}" if os.path.exists(origin) else f"install the wheel again, with [{extra}]"
    )


def lacking(needs: str, package: str | None, extra: str) -> str:
    """Return the message where a package of an extra is missing; `needs` is what needs it."""
    return f"{needs} needs the package {package}: {installs(extra)}"


def _origin() -> str | None:
    """Return the file or the address that the library was installed from; None if it is a folder, or not known."""
    try:
        text = json.loads(importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
        url, vcs = text["url"], text.get("vcs_info", {})
        if vcs:
            return f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
        path = url2pathname(urlsplit(url).path) if url.startswith("file:") else url
        return path if "archive_info" in text else None
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except Exception as error:  # also of a broken installation
        return "not installed" if isinstance(error, importlib.metadata.PackageNotFoundError) else f"unknown: {error!r:.60}"


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
    except Exception as error:  # whatever a backend raises
        devices = f"none: {error}"
    lines = {"imported from": sys.modules["flows"].__file__, "Python": sys.executable, "system": platform.platform()}
    lines |= {"devices": devices, **{package: _version(package) for package in (DISTRIBUTION, *NEEDED, *OPTIONAL)}}
    print("\n".join([first_line(), *(f"{name:<16} {value}" for name, value in lines.items())]))
