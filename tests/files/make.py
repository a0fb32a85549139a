"""Writes models to files that later versions have to load, with rows and what each model says of them.

    cd tests && python -m files.make files/format_7

files/format_7/<name>.flows is one model for each entry of the registry that has a constructor which none before it has,
written by the `flows` that Python imports. files/format_7/rows.npz holds, for each of them, 4 rows "<name>/x", "<name>/context"
where there is one, and "<name>/log_pdf"; for a bijection "<name>/outputs" and "<name>/log_det" instead. `test_old_files.py`
reads both.

A folder is written once, and stays as it is: what it holds are files as users have them. What a later version adds (a model, a
layer, an argument that changes params) goes to a new folder: `--beside files/format_7` leaves out what is there.

Params are float32, as users' are, and moved away from their start, so that no two leaves are alike: a reader that mixed them up
would be noticed. What is expected is computed from the same params in float64. Thus it does not depend on how a version, a
compiler or a device rounds, and a model is refused here if float32 is not well within the tolerance of the test.
"""

import argparse
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common import points, stirred
from drawing import DRAWING
from registry import BIJECTIONS, CODES, DIRECTIONAL, DISTRIBUTIONS, MODELS, Case, SmallConv

import flows
from flows import transformers as t
from flows.core import to_json
from flows.diagnostics import enable_x64

OWN = (SmallConv,)  # constructors that are no part of the library, which a reader has to be given
ROWS, SEEDS, LARGEST = 4, 20, 1000
TOLERANCE = 2e-6  # of the test, relative beyond 1
FLOATS = 0.4 * TOLERANCE  # of float32 here: it leaves room for other compilers
FEATURES_OF_CONTEXT = 2
SAVED = re.compile(rb'constructor\\":\\"([\w.:]+)\\"')


class Written(NamedTuple):
    """A model to write, for one event; `case` tells where a bijection's points live."""

    init_fun: Any
    event: Any
    context: int
    stir: float
    case: Case | None = None


def further() -> dict[str, Written]:
    """What the registry has not as a layer with params of its own: some transformers, noise, models of a context."""
    bounded = (t.Bernstein(4, bound=2.0), t.CubicSpline(3, bound=2.0), t.LinearRational(3, bound=2.0), t.QuadraticSpline(3))
    others = (t.DeepSigmoidal(2), t.Gated(), t.Gaussianization(2), t.Inverse(t.Affine()), t.MixtureCDF(2), t.SumOfSquares(2))
    network = flows.MLP(4, last_scale=0.3)
    layers = {
        "splines": (flows.Coupling(network, bounded, mask=(True, False, False, False)), 4),
        "transformers": (flows.Coupling(network, others, mask=(True, *[False] * 5)), 6),
        "convolution": (flows.Coupling(flows.conditioners.Convolution(last_scale=0.3)), (2, 2, 2)),
        "pair": (flows.Coupling(flows.conditioners.Pair(network, network), mask=(True, False, True)), 3),
        "skips": (flows.Coupling(flows.conditioners.ConvSkip(3, 1, 0.3), t.Inverse(t.Affine(scale="learned"))), (2, 2, 2)),
        "sets": (flows.Coupling(flows.conditioners.DeepSet((4,), (4,), last_scale=0.3)), (3, 2)),
        "attention": (flows.Coupling(flows.conditioners.GatedConv(4, 1, 2)), (2, 2, 2)),
    }
    found = {name: Written(layer, event, 0, 0.2, Case(layer)) for name, (layer, event) in layers.items()}
    found["dequantized"] = Written(flows.Flow(flows.Serial(flows.Dequantize(0.01), flows.ActNorm())), 2, 0, 0.2)
    noise = flows.FlowPlusPlusNoise(4, 1, 2, 2, layers=2, channels=4)
    found["learned noise"] = Written(
        flows.Flow(flows.Serial(flows.Dequantize(0.01, noise=noise), flows.Scale())), (2, 2, 1), 0, 0.1
    )
    for name in ("MAF", "NSF", "RealNVP", "BNAF"):
        found[f"{name} of a context"] = Written(flows.Flow(MODELS[name], flows.StudentT(5.0)), 3, FEATURES_OF_CONTEXT, 0.2)
    return found


def candidates() -> dict[str, Written]:
    """Models first, as they hold many layers."""
    found: dict[str, Written] = {}
    for name, case in DIRECTIONAL.items():
        found[name] = Written(case.init_fun, case.event, FEATURES_OF_CONTEXT * case.needs_context, 0.2)
    on_sphere = Case(MODELS["SphereFlow"], domain=flows.SPHERE)
    for name, model in MODELS.items():
        found[name] = Written(model, 3, 0, 0.2, on_sphere if name == "SphereFlow" else Case(model))
    for name, of in DISTRIBUTIONS.items():
        found[name] = Written(of.init_fun, of.events[-1], FEATURES_OF_CONTEXT * (of.needs_context or of.conditional), 0.2)
    for name, of_codes in CODES.items():
        found[name] = Written(of_codes.init_fun, of_codes.events[-1], FEATURES_OF_CONTEXT * of_codes.conditional, 0.2)
    for name, case in {**BIJECTIONS, **DRAWING}.items():
        conditional = case.conditional or case.needs_context
        found[name] = Written(case.init_fun, case.events[-1], FEATURES_OF_CONTEXT * conditional, 0.2 * abs(case.stir), case)
    return found


def named_in(description: Any) -> set[str]:
    """The names of constructors in a model as JSON: those of a model that is short for another are not among them."""
    if isinstance(description, list):
        return {name for each in description for name in named_in(each)}
    if not isinstance(description, dict):
        return set()
    own = {re.split("[.:]", description["constructor"])[-1]} if "constructor" in description else set()
    return own.union(*map(named_in, description.values()))


def chosen(known: set[str]) -> dict[str, Written]:
    """Of the candidates those with a constructor of another name than those before them. Functions cannot be written."""
    found = {}
    for name, each in candidates().items():
        names = set() if "FromFunction" in name else named_in(to_json(each.init_fun))
        if names - known:
            found[file_name(name)] = each
            known |= names
    return found


def file_name(name: str) -> str:
    return re.sub(r"\W+", "_", name).lower()


def names_in(folder: Path) -> set[str]:
    """Of the constructors that files hold."""
    held = b"".join(path.read_bytes() for path in folder.glob("*.flows"))
    return {re.split("[.:]", name.decode())[-1] for name in SAVED.findall(held)}


def given_to(each: Written, params: Any, rows: int, seed: int) -> dict[str, np.ndarray]:
    """Rows where the model is defined, and their contexts."""
    context = np.random.default_rng(seed).normal(1.0, 2.0, (rows, each.context)).astype(np.float32)
    context_of = {"context": context} if each.context else {}
    if each.case is not None:
        return {"x": np.asarray(points(each.case, each.event, rows, seed), np.float32), **context_of}
    sample = each.init_fun(0, each.event, context_dim=each.context).sample
    return {"x": np.asarray(sample(seed, params, rows, **context_of), np.float32), **context_of}


def trained_params(each: Written, seed: int) -> Any:
    """Params as training leaves them: each trained leaf is somewhere else, and statistics are those of data."""
    params = each.init_fun(seed, each.event, context_dim=each.context).params
    data = given_to(each, params, 64, seed)
    measured = {"init_inputs": data["x"]} | ({"init_context": data["context"]} if each.context else {})
    return stirred(each.init_fun(seed, each.event, context_dim=each.context, **measured).params, each.stir, seed)


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


def draws_of(each: Written) -> frozenset[str]:
    event = each.event if isinstance(each.event, tuple) else (each.event,)
    return each.init_fun.part(event, (each.context,) if each.context else None).draws


def in_float64(triple: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`answers`, computed in double precision from the same params."""
    with enable_x64():
        params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf).astype(np.float64)), triple.params)
        return answers(triple._replace(params=params), {name: each.astype(np.float64) for name, each in given.items()})


def write(folder: str, name: str, each: Written) -> dict[str, np.ndarray]:
    """One file, of the first seed with moderate numbers; returns its rows and what is expected of them."""
    path, metadata = os.path.join(folder, f"{name}.flows"), {"name": name, "columns": ["a", 1, 0.5, None, True]}
    for seed in range(SEEDS):
        params = trained_params(each, seed)
        flows.save(path, each.init_fun, params, each.event, each.context, metadata)
        triple = flows.load(path, constructors=OWN)
        given = given_to(each, params, ROWS, seed)
        rounded = answers(triple, given)
        # Layers that draw draw other numbers in other precision.
        expected = rounded if "direct" in draws_of(each) else in_float64(triple, given)
        moderate = all(np.isfinite(each).all() and np.abs(each).max() < LARGEST for each in expected.values())
        apart = len(np.unique(given["x"], axis=0)) == ROWS  # codes may be equal
        if moderate and apart and all(distance(rounded[key], each) <= FLOATS for key, each in expected.items()):
            return {**given, **expected}
    raise ValueError(f"{name}: none of {SEEDS} seeds gives numbers that float32 holds, at last {expected} against {rounded}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a new folder, such as files/format_7; its name says the format of its files")
    parser.add_argument("--beside", nargs="*", type=Path, default=(), help="folders whose constructors are not written again")
    folder, beside = vars(parser.parse_args()).values()
    os.mkdir(folder)  # which refuses one that exists: files once written stay
    rows = {}
    known = {name for other in beside for name in names_in(other)}
    models = chosen(set(known))
    new = {name: each for name, each in further().items() if not beside or named_in(to_json(each.init_fun)) - known}
    models |= {file_name(name): each for name, each in new.items()}
    for name, each in models.items():
        written = write(folder, name, each)
        rows |= {f"{name}/{key}": value for key, value in written.items()}
        print(name, *(f"{key} {np.round(each, 3).tolist()}" for key, each in written.items() if key[:4] == "log_"), flush=True)
    np.savez(os.path.join(folder, "rows.npz"), **rows)


if __name__ == "__main__":
    main()
