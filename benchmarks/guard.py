"""Whether something that users wait for takes longer than it did at a commit: `python benchmarks/speed.py --guard COMMIT`.

The checkout and a copy of the commit run the same calls in turn, each in a process on one core, and the least CPU time of each
call is compared.
"""

import io
import os
import subprocess
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path

from processes import Peer

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("NSF coupling", "NSF autoregressive", "RealNVP", "MAF", "fit")
ROUNDS, MOST, MOST_FIRST = 5, 1.1, 1.25  # first calls are timed once, and are noisier


def started(name: str, checkout: Path) -> Peer:
    script = ROOT / "benchmarks" / "peers" / "guarded.py"
    others = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")}
    environment = others | {"PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    return Peer(name, ["taskset", "-c", max(os.sched_getaffinity(0)), ROOT / ".venv/bin/python", script], environment)


def guard(commit: str) -> list[str]:
    """What takes more than 1.1 times as long as at the commit, 1.25 times for first calls; all ratios are printed."""
    slower = list[str]()

    def compare(what: str, before: float, now: float, most: float) -> None:
        slower.extend([what] if now > most * before else [])
        print(
            f"{what:40}{1e3 * before:10.2f}{1e3 * now:10.2f} ms{now / before:8.2f}{' slower' * (now > most * before)}",
            flush=True,
        )

    archive = subprocess.run(["git", "-C", ROOT, "archive", commit, "flows"], stdout=subprocess.PIPE, check=True).stdout
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        workers = [stack.enter_context(started(name, at)) for name, at in ((commit, folder), ("now", ROOT))]
        compare("import flows", *(worker.start["seconds"] for worker in workers), MOST_FIRST)
        for name in NAMES:
            first = [worker.ask("prepare", name.replace(" ", "_")) for worker in workers]
            compare(f"{name}: first", *(each["seconds"] for each in first), MOST_FIRST)
            for call in first[1]["calls"]:
                rounds = [[worker.ask(call, 2)["seconds"] for worker in workers] for _ in range(ROUNDS)]
                compare(call, *map(min, zip(*rounds, strict=True)), MOST)
    return slower
