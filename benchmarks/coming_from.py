"""The same program in other libraries and in ours, for docs/coming_from.md, and log-densities on which both agree.

    python benchmarks/coming_from.py                      # all
    python benchmarks/coming_from.py --only zuko parity   # some

Each docs/coming_from/LIBRARY.py runs once, by itself, in an environment that has its library (`make .venv-peers/.stamp
.venv-torch/.stamp`), from the root of the repository, on one thread and without compiled programs of earlier processes. What it
prints, its seconds and versions are recorded. The file has the name of the library that it imports, so Python must not look for
modules next to it: `python -P`.

"parity": log-densities behind a standard normal, which another library computed at params in tests/fixtures/parity, and ours at
the same params, in float64. Writes benchmarks/results/coming_from.json.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import records

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "coming_from.json"
PROGRAMS = {  # the environment, and the packages whose versions count
    "flows": (sys.prefix, ("jax-flows", "jax")),
    "flowjax": (".venv-peers", ("flowjax", "jax")),
    "zuko": (".venv-torch", ("zuko", "torch")),
    "nflows": (".venv-torch", ("nflows", "torch")),
    "distrax": (".venv-peers", ("distrax", "tfp-nightly", "jax")),
    "jax_flows": (sys.prefix, ("jax-flows", "jax")),
}
SPLINE = "rational-quadratic spline"
AGREE = {"zuko": "MAF", "nflows": SPLINE, "distrax": SPLINE, "tfp": SPLINE}  # a case of each file of tests/fixtures/parity
VERSIONS = "import json, sys; from importlib.metadata import version; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"


def program(name: str) -> dict:
    folder, packages = PROGRAMS[name]
    python = str(ROOT / folder / "bin" / "python")
    env = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))}
    env |= {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT) if folder == sys.prefix else ""}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run = [python, "-P", ROOT / "docs" / "coming_from" / f"{name}.py"]
    printed = subprocess.run(run, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    versions = json.loads(subprocess.check_output([python, "-c", VERSIONS, *packages], env=env, text=True))
    return {"printed": printed.strip(), "cpu": round(cpu, 1), "wall": round(wall, 1), "versions": versions}


def parity() -> dict:
    """Of each library, the first log-density, ours, the largest difference at any point, and the version that made theirs."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "models")]
    import test_parity

    from flows.diagnostics import enable_x64

    found = {}
    for peer, name in AGREE.items():
        layer, params, of = test_parity.numbers(peer, name)
        with enable_x64():
            both = test_parity.program(layer, of["x"].shape[1:])
            mapped, _ = both(*test_parity.cast((params, of["x"], of["y"]), "float64"))
        theirs, ours = of.get("log_prob", log_density(of["y"], of["log_det"])), log_density(*mapped)
        versions = json.loads((test_parity.FIXTURES / f"{peer}.json").read_text())["versions"]
        found[peer] = {"version": next(iter(versions.values())), "of": name, "points": len(ours)}
        found[peer] |= {"theirs": theirs[0], "ours": ours[0], "difference": np.abs(theirs - ours).max()}
    return found


def log_density(y, log_det) -> np.ndarray:
    normal = -0.5 * (np.asarray(y) ** 2 + math.log(2 * math.pi))
    return normal.reshape(len(y), -1).sum(1) + np.asarray(log_det)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*PROGRAMS, "parity"], default=[*PROGRAMS, "parity"])
    found = records.read(RESULTS)
    for name in parser.parse_args().only:
        found[name] = parity() if name == "parity" else program(name)
        records.write(RESULTS, {key: found[key] for key in (*PROGRAMS, "parity") if key in found})
        print(name, json.dumps(found[name]), flush=True)


if __name__ == "__main__":
    main()
