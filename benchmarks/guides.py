"""What is a flow worth as a guide of a probabilistic program, and what does it cost, beside NumPyro's guides and flowjax?

    python benchmarks/guides.py                         # six programs, two seeds; one core, twenty minutes
    python benchmarks/guides.py --programs funnel       # some
    python benchmarks/guides.py --times                 # the steps alone, again
    python benchmarks/guides.py --table                 # what was measured

The programs, and how a guide is trained, are in programs.py: 3,000 steps of SVI with 16 draws. All guides of a program advance
in turns, a hundred steps at a time; then each takes a thousand in a row, seven times, and these are timed, in seconds of one
core. The bijections of `AutoFlow` are without batch normalisation; "IAF, same widths" has the layers and the widths of
`AutoIAFNormal`. Written to benchmarks/results/guides.json.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import records
from processes import Peer
from programs import CHUNK, PROGRAMS, STEPS, Trained

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "guides.json"
THEIRS, SAME = "AutoIAFNormal", "IAF, same widths"
NEAR = 0.1  # nats
ROUNDS = 7  # of a thousand steps, by which a step is timed


def guides(model: Callable) -> dict[str, Callable]:
    """Of one program: what makes each guide."""
    from numpyro.infer import autoguide

    import flows
    from flows.interop.numpyro import AutoFlow, log_density

    d = log_density(model).dim
    bijections = {
        SAME: flows.IAF(3, hidden=(d, d), plain=True),
        "IAF": flows.IAF(3, hidden=(64, 64), plain=True),
        "RealNVP": flows.RealNVP(6, hidden=(64, 64), plain=True),
        "NSF": flows.NSF(2, hidden=(32,), num_bins=8, autoregressive=False),
    }
    ours = {name: lambda bijection=each: AutoFlow(model, bijection) for name, each in bijections.items()}
    names = (THEIRS, "AutoBNAFNormal", "AutoMultivariateNormal")
    return ours | {name: lambda name=name: getattr(autoguide, name)(model) for name in names}


class OfPeer:
    """flowjax's guide, in its own environment."""

    def __init__(self, name: str, table: Path, core: int):
        python = HERE.parent / ".venv-peers" / "bin" / "python"
        self.peer = Peer("flowjax", [python, HERE / "peers" / "guide_flowjax.py", name, table, core])
        self.first_call, self.bytes = self.peer.start["first call"], self.peer.start["bytes"]

    def __getattr__(self, what: str) -> Callable:
        return lambda argument=1: self.peer.ask(what, argument)  # type: ignore[return-value]


def prepared(name: str, table: Path, core: int) -> dict[str, Any]:
    """All guides of a program, compiled."""
    model = PROGRAMS[name](table)
    trained: dict[str, Any] = {each: Trained(model, make()) for each, make in guides(model).items()}
    return trained | {"flowjax": OfPeer(name, table, core)}


def measured(trained: dict[str, Any], seeds: int) -> dict:
    """The ELBO of each guide, and the steps that it takes to the best."""
    curves, last = ({each: list[Any]() for each in trained} for _ in range(2))
    for seed in range(seeds):
        for each, one in trained.items():
            one.start(seed)
            curves[each].append([])
        for _ in range(STEPS // CHUNK):
            for each, one in trained.items():
                one.advance()
                curves[each][-1].append(one.elbo())
        for each, one in trained.items():
            last[each].append(tuple(one.last()))
    best = max(value for of_seeds in last.values() for value, _ in of_seeds)
    found = {}
    for each, one in trained.items():
        reached = [next((i + 1 for i, value in enumerate(curve) if value > best - NEAR), None) for curve in curves[each]]
        found[each] = {
            "elbo": [round(value, 4) for value, _ in last[each]], "error": [round(error, 4) for _, error in last[each]],
            "steps to the best": [None if n is None else n * CHUNK for n in reached],
            "first call": round(one.first_call, 2), "bytes": one.bytes,
        }  # fmt: skip
    return found


def times(trained: dict[str, Any]) -> dict:
    """Microseconds that a step of each guide takes, and beside NumPyro's."""
    seconds = {each: list[float]() for each in trained}
    for _ in range(ROUNDS):
        for each, one in trained.items():
            seconds[each].append(one.step())
    return {
        each: {
            "microseconds a step": round(1e6 * float(np.median(of)), 1),
            "beside AutoIAFNormal": round(float(np.median(np.array(of) / np.array(seconds[THEIRS]))), 3),
        }
        for each, of in seconds.items()
    }


def table_of(found: dict) -> str:
    lines = [
        "| program | guide | ELBO, nats | microseconds a step | beside `AutoIAFNormal` | seconds to 0.1 nat of the best "
        "| first call, s | kB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, of_guides in found.items():
        for guide, one in of_guides.items():
            steps = [each for each in one["steps to the best"] if each is not None]
            seconds = np.median(steps) * one["microseconds a step"] / 1e6 if steps else None
            reached = f"{seconds:.2f} ({len(steps)} of {len(one['elbo'])})" if steps else "none"
            lines.append(
                f"| {name} | {guide} | {np.mean(one['elbo']):.2f} ({min(one['elbo']):.2f} to {max(one['elbo']):.2f}) "
                f"| {one['microseconds a step']:.0f} | {one['beside AutoIAFNormal']:.2f} | {reached} | {one['first call']:.1f} "
                f"| {one['bytes'] / 1e3:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = records.read(options.out)
    if not options.table:
        os.sched_setaffinity(0, {options.core})
        from sklearn.datasets import load_breast_cancer

        with tempfile.TemporaryDirectory() as folder:
            table, data = Path(folder) / "cancer.npz", load_breast_cancer()
            np.savez(table, x=(data.data - data.data.mean(0)) / data.data.std(0), y=data.target)
            for name in options.programs:
                trained = prepared(name, table, options.core)
                known = found[name] if options.times else measured(trained, options.seeds)
                found[name] = {each: known[each] | figures for each, figures in times(trained).items()}
                records.write(options.out, found)
                print(name, *(f"{guide}: {one}" for guide, one in found[name].items()), sep="\n", flush=True)
    print(table_of(found))


if __name__ == "__main__":
    main()
