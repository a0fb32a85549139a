"""A fit, scores, draws, a file and the command, by the installed library, for systems without the tests."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import flows


def main() -> None:
    """Fit, score, draw, save and load, in Python and in a shell; stop at the first difference."""
    flows.show_versions()
    rows = np.random.default_rng(0).normal(size=(300, 2)) @ [[1.0, 0.5], [0.0, 1.0]]
    with tempfile.TemporaryDirectory() as folder:
        name, data, model, out = (str(Path(folder, file)) for file in ("a.flows", "data.csv", "b.flows", "drawn.csv"))
        flows.keep_programs(Path(folder, "programs"))
        result = flows.fit(0, flows.Flow(flows.NSF(1, hidden=(8,))), rows, max_epochs=3, folds=1, verbose=0)
        result.save(name)
        loaded = flows.load(name)
        if not np.array_equal(loaded.log_prob(rows), result.log_prob(rows)):
            sys.exit("installed.py: a loaded model gives other densities; expected the same bits")
        if not (np.isfinite(result.log_prob(rows)).all() and np.isfinite(result.draw(1, 100)).all()):
            sys.exit("installed.py: densities or draws are not finite")
        np.savetxt(data, rows, delimiter=",", header="x,y", comments="")
        for command in (
            ["fit", data, "-o", model, "--model", "Gaussian"],
            ["sample", model, "-n", "10", "-o", out],
            ["score", model, data],
        ):
            subprocess.run([sys.executable, "-P", "-m", "flows", *command], check=True, stdout=subprocess.DEVNULL)
        if len(Path(out).read_text().splitlines()) != 11:
            sys.exit(f"installed.py: flows sample wrote {Path(out).read_text()!r:.200}; expected a header and 10 rows")
    print("installed.py: a fit, scores, draws and files are right")


if __name__ == "__main__":
    main()
