"""What can be installed with the library, as pyproject.toml lists it."""

import tomllib
from pathlib import Path

from flows.core.extras import CHECKOUT, RELEASED, installs
from flows.interop import LIBRARIES

FOR = {  # extras that are for users; the others are for those who change the library
    "sklearn": "`flows.sklearn`: estimators for scikit-learn",
    "plot": "pictures: `result.plot()`, and `flows plot` in a shell",
    **{library: f"`flows.interop.{library}`: {use}" for library, use in LIBRARIES.items()},
    "dask": "[tables larger than memory](guide/large.md), by Dask",
    "ray": "the same, by Ray Data",
    "spark": "the same, by Spark, which needs Java 17 or newer: `default-jre-headless` of the system",
    "grain": "rows that [Grain](guide/devices.md) reads, from Parquet files among others",
    "cli": "the command `flows` in a shell",
    "continuous": "continuous flows that keep a tolerance",
    "networks": "networks of Equinox and Flax as conditioners",
    "tensorboard": "the losses of a fit in TensorBoard",
    "examples": "the programs in `examples/`",
    "docs": "to build this site, and to test it in a browser",
    "test": "to run the tests",
}


def extras():
    """A table of all extras: how each is installed, what it is for, and which packages it brings."""
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
    listed = project["optional-dependencies"]
    if missing := listed.keys() ^ FOR.keys():
        raise ValueError(f"docs/extras.py: {', '.join(sorted(missing))} is in pyproject.toml or here; expected in both")
    rows = [f"| `{installs(name).removesuffix(CHECKOUT)}` | {text} | {', '.join(listed[name])} |" for name, text in FOR.items()]
    needed = f"Without an extra: {', '.join(project['dependencies'])}."
    return "\n".join([f"| command{'' if RELEASED else CHECKOUT} | for | brings |", "|---|---|---|", *rows, "", needed])
