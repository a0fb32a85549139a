"""Writes models to files that later versions have to load, with rows and what each model says of them.

    cd tests && python -m files.make files/format_2 --only nsf_7 naf_11

files/format_2/<name>.flows is one model for each entry of `MODELS`, `LAYERS` and `DISTRIBUTIONS` (of the modules beside this
one), or for those named, written by the `flows` that Python imports. files/format_2/rows.npz holds, for each of them, 4 rows
"<name>/x", "<name>/context" where there is one, and "<name>/log_pdf"; for a bijection "<name>/outputs" and "<name>/log_det"
instead. `test_old_files.py` reads both.

A folder is written once, and stays as it is: what it holds are files as users have them. What a later version adds (a model, a
layer, an argument that changes params) goes to a new folder, whose name says the format of its files.

Params are float32, as users' are, and moved away from their start, so that no two leaves are alike: a reader that mixed them up
would be noticed. What is expected is computed from the same params in float64. Thus it does not depend on how a version, a
compiler or a device rounds, and a model is refused here if float32 is not well within the tolerance of the test.
"""

import argparse
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from files.distributions import DISTRIBUTIONS
from files.layers import LAYERS
from files.models import MODELS
from files.own import OWN, Case

import flows
from flows.diagnostics import enable_x64

ROWS, SEEDS, LARGEST = 4, 20, 1000
TOLERANCE = 1e-6  # of the test, relative beyond 1
FLOATS = 0.4 * TOLERANCE  # of float32 here: it leaves room for other compilers


def numbers(case: Case, rows: int, of: str, seed: int) -> np.ndarray:
    """Rows, or their contexts, in float32."""
    shape = {"x": case.event, "context": case.context}[of]
    rng = np.random.default_rng([seed, rows, of == "x"])
    x = rng.normal(size=(rows, *(shape if isinstance(shape, tuple) else (shape,))))
    x = case.spread * x if of == "x" else 1.0 + 2.0 * x
    return (1 / (1 + np.exp(-x)) if case.unit and of == "x" else x).astype(np.float32)


def trained_params(case: Case, seed: int) -> Any:
    """Params as training leaves them: each trained leaf is somewhere else, and statistics are those of data."""
    keywords = {"context_dim": case.context} if case.context else {}
    params = case.init_fun(seed, case.event, **keywords).params
    rng = np.random.default_rng(seed)

    def moved(leaf: Any, trains: bool) -> Any:
        noise = case.stir * rng.normal(size=leaf.shape)
        return leaf + jnp.asarray(noise, leaf.dtype) if trains else leaf

    params = jax.tree.map(moved, params, flows.trainable(params))
    context = {"context": numbers(case, 64, "context", seed)} if case.context else {}
    return flows.calibrate(case.init_fun, params, numbers(case, 64, "x", seed), **context)


def answers(triple: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model says of the rows, in their precision."""
    given = dict(given)
    x = given.pop("x")
    if isinstance(triple, flows.Distribution):
        return {"log_pdf": np.asarray(triple.log_pdf(triple.params, x, **given))}
    outputs, log_det = triple.direct_fun(triple.params, x, **given)
    return {"outputs": np.asarray(outputs), "log_det": np.asarray(log_det)}


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, relative beyond 1."""
    return float(np.max(np.abs(a - b) / (1 + np.abs(b))))


def in_float64(triple: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`answers`, computed in double precision from the same params."""
    with enable_x64():
        params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf).astype(np.float64)), triple.params)
        return answers(triple._replace(params=params), {name: each.astype(np.float64) for name, each in given.items()})


def write(folder: str, name: str, case: Case) -> dict[str, np.ndarray]:
    """One file, of the first seed with moderate numbers; returns its rows and what is expected of them."""
    path, metadata = os.path.join(folder, f"{name}.flows"), {"name": name, "columns": ["a", 1, 0.5, None, True]}
    for seed in range(SEEDS):
        flows.save(path, case.init_fun, trained_params(case, seed), case.event, case.context, metadata)
        triple = flows.load(path, constructors=OWN)
        given = {of: numbers(case, ROWS, of, seed) for of in ("x", *(["context"] if case.context else []))}
        expected, rounded = in_float64(triple, given), answers(triple, given)
        moderate = all(np.isfinite(each).all() and np.abs(each).max() < LARGEST for each in expected.values())
        if moderate and all(distance(rounded[key], each) <= FLOATS for key, each in expected.items()):
            return {**given, **expected}
    raise ValueError(f"{name}: none of {SEEDS} seeds gives numbers that float32 holds, at last {expected} against {rounded}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a new folder, such as files/format_1; its name says the format of its files")
    parser.add_argument("--only", nargs="+", help="the names of the models to write; by default all")
    folder, only = vars(parser.parse_args()).values()
    os.mkdir(folder)  # which refuses one that exists: files once written stay
    cases, rows = {**MODELS, **LAYERS, **DISTRIBUTIONS}, {}
    for name, case in cases.items() if only is None else [(name, cases[name]) for name in only]:
        written = write(folder, name, case)
        rows |= {f"{name}/{key}": value for key, value in written.items()}
        print(name, *(f"{key} {np.round(each, 3).tolist()}" for key, each in written.items() if key[:4] == "log_"), flush=True)
    np.savez(os.path.join(folder, "rows.npz"), **rows)


if __name__ == "__main__":
    main()
