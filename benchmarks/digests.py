"""What some hundred public calls of a checkout give: digests of their bits, programs compiled, functions called, signatures.

    python benchmarks/digests.py CHECKOUT                  # JSON: for each call its digest, its loss and its programs
    python benchmarks/digests.py CHECKOUT OTHER            # what differs between the two
    python benchmarks/digests.py CHECKOUT OTHER --only fit # calls whose names hold a word

For changes that have to leave every result as it was, bit for bit: run it on the code before and after, on one machine, as bits
differ between processors. Each checkout runs in a process of its own, in float32; with `--cache FOLDER` JAX
keeps programs there, which are counted all the same.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import calls_of_frames
import numpy as np
from calls import register

COMPILED = "/jax/core/compile/backend_compile_duration"


def digest(found: Any) -> str:
    """Of all arrays, numbers and texts, in order."""
    import jax

    def plain(x: Any) -> bytes:
        if hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        if isinstance(x, str):
            return x.encode()
        array = np.asarray(x)
        return str(array.dtype).encode() + (repr(array.tolist()).encode() if array.dtype == object else array.tobytes())

    leaves = jax.tree.leaves(frames_as_arrays(found))
    return hashlib.sha256(b"|".join(plain(each) for each in leaves)).hexdigest()[:16]


def frames_as_arrays(found: Any) -> Any:
    if isinstance(found, tuple | list):
        return tuple(frames_as_arrays(each) for each in found)
    if isinstance(found, dict):
        return {str(key): frames_as_arrays(value) for key, value in sorted(found.items(), key=lambda pair: str(pair[0]))}
    return found.to_numpy() if hasattr(found, "to_numpy") else found


def losses(found: Any) -> list[float]:
    """Of the histories within, what was held out."""
    if isinstance(found, dict) and "validation_loss" in found:
        return [float(each) for each in np.ravel(found["validation_loss"])]
    children = found.values() if isinstance(found, dict) else found if isinstance(found, tuple | list) else ()
    return [loss for each in children for loss in losses(each)]


def functions_called(run: Callable[[], Any], folder: str) -> tuple[int, int]:
    """How many functions of the checkout ran, and in how many calls."""
    calls: list[str] = []

    def count(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(folder):
            calls.append(f"{frame.f_code.co_filename}:{frame.f_code.co_firstlineno}")

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return len(set(calls)), len(calls)


def signatures() -> dict[str, str]:
    import inspect

    import flows

    found = {}
    for name in flows.__all__:
        value = getattr(flows, name)
        if callable(value) and not inspect.isclass(value):
            found[name] = str(inspect.signature(value))
        elif inspect.isclass(value):
            found[name] = ", ".join(sorted(each for each in vars(value) if each[0] != "_"))
    return found


def measured(only: str) -> dict[str, Any]:
    """Of the `flows` that can be imported."""
    import jax

    import flows

    warnings.simplefilter("ignore")
    folder = str(Path(flows.__file__).parent)
    init_fun = flows.Flow(flows.NSF(2))
    found: dict[str, Any] = {
        "functions of a first init": functions_called(lambda: init_fun(0, 5), folder),
        "functions of a second init": functions_called(lambda: init_fun(0, 5), folder),
        "signatures": signatures(),
    }
    count = [0]
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: count.__setitem__(0, count[0] + (event == COMPILED))
    )
    for name, run in sorted((register() | calls_of_frames.register()).items()):
        if only not in name:
            continue
        count[0] = 0
        try:
            value = run()
        except Exception as error:  # an error is a result as well: its text has to stay
            found[name] = {"error": f"{type(error).__name__}: {error}"}
            print(f"{name}: {found[name]['error']:.200}", file=sys.stderr, flush=True)
            continue
        found[name] = {"digest": digest(value), "losses": losses(value), "programs": count[0]}
        flows.clear_caches()
    return found


def of_checkout(checkout: Path, only: str, cache: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    if cache:
        environment |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, __file__, str(checkout), "--here", "--only", only]
    run = subprocess.run(
        command, env={**environment, "PYTHONPATH": str(checkout.resolve())}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(run.stdout)


def difference(name: str, old: Any, new: Any) -> str | None:
    """What differs, in words."""
    if old == new:
        return None
    if name == "signatures":
        return "; ".join(
            f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)
        )
    if not isinstance(old, dict) or not isinstance(new, dict) or "error" in old or "error" in new:
        return f"{old} -> {new}"
    said = [] if old["programs"] == new["programs"] else [f"programs {old['programs']} -> {new['programs']}"]
    if old["digest"] != new["digest"]:
        apart = (
            np.abs(np.subtract(old["losses"], new["losses"]))
            if len(old["losses"]) == len(new["losses"])
            else np.array([np.inf])
        )
        said.append(f"bits differ, losses by at most {apart.max(initial=0.0):.1e}")
    return "; ".join(said) or None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--cache", default="")
    parser.add_argument("--here", action="store_true", help="what this process imports, as JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measured(options.only)))
        return
    found = [of_checkout(each, options.only, options.cache) for each in options.checkouts]
    if len(found) == 1:
        print(json.dumps(found[0], indent=1))
        return
    said = {name: difference(name, found[0].get(name), found[1].get(name)) for name in {**found[0], **found[1]}}
    for name, what in said.items():
        if what is not None:
            print(f"{name}: {what}")
    print(f"{sum(what is None for what in said.values())} of {len(said)} are equal")


if __name__ == "__main__":
    main()
