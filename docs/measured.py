"""What benchmarks/results/*.json say, in the figures that the first page, the README and the charts show."""

import json
import re
from functools import cache
from pathlib import Path
from statistics import median
from typing import NamedTuple

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
OURS = ("floor", "flows", "flows_repeat", "flows_unrolled")  # in speed.json; the rest are other libraries
OTHERS = ("Gaussian", "mixture", "kernel density", "flowjax", "zuko")  # in first_fit.json, beside our models
LEVEL = 0.02  # nats a row: a difference below this is none


@cache
def results(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


class Race(NamedTuple):
    """Times of one core in ms: ours, and those of the fastest other library."""

    ours: float
    theirs: float
    library: str

    @property
    def ratio(self):
        return self.theirs / self.ours


def races(what):
    """By model, for "step", "log_prob" or "sample"."""
    found = {}
    for key, each in results("speed").items():
        if named := re.fullmatch(r"throughput (.*) d(\d+), 1 thread", key):
            others = {name: of[what] for name, of in each.items() if name not in OURS and what in of}
            best = min(others, key=others.__getitem__)
            found[f"{named[1]}, {named[2]} columns"] = Race(each["flows"][what], others[best], best)
    return found


def libraries():
    return {name for key, each in results("speed").items() if key.startswith("throughput") for name in each} - {*OURS}


def ahead(method, other):
    """By set, by how many nats a row a method is ahead of another, in the mean over the seeds that both have."""
    found = {}
    for name, of in results("first_fit").items():
        seeds = of.get(method, {}).keys() & of.get(other, {}).keys()
        if seeds:
            found[name] = sum(of[method][seed]["nats"] - of[other][seed]["nats"] for seed in seeds) / len(seeds)
    return found


def verdicts(other):
    """On how many sets NSF() without options is ahead of it, level, and behind."""
    differences = ahead("NSF()", other).values()
    won, lost = sum(each > LEVEL for each in differences), sum(each < -LEVEL for each in differences)
    return won, len(differences) - won - lost, lost


def deep():
    """By trained model of 20 layers, the shares of test rows whose round trip or log-det is off by more than a thousandth of a
    standard deviation or nat: as the rows are, ten times as far from the mean, and there without what keeps models safe."""
    found = {}
    for name, of in results("stability")["deep"].items():
        safe, unsafe = of["default"]["0"], of["unsafe"]["0"]
        found[name] = safe["near"], safe["far"], unsafe["far"]
    return found


class Claim(NamedTuple):
    title: str
    text: str
    page: str  # of the evidence, from the folder docs/


def claims():
    """What the first page and the README say of the library, with their evidence."""
    densities, samples = ([each.ratio for each in races(what).values()] for what in ("log_prob", "sample"))
    kept = deep()
    mixture, flowjax, zuko = (verdicts(other) for other in ("mixture", "flowjax", "zuko"))
    return (
        Claim(
            "Fast",
            f"With the same models on one core, the fastest of {len(libraries())} other libraries takes {spread(densities)} "
            f"times as long for densities, and {spread(samples)} times as long for samples.",
            "benchmarks/speed.md",
        ),
        Claim(
            "Checked",
            f"In {len(kept)} trained flows of 20 layers, round trips and log-dets are accurate to a thousandth on "
            f"{1 - max(near for near, _, _ in kept.values()):.1%} of test rows or more. `result.verify` lists the other rows.",
            "benchmarks/trust.md",
        ),
        Claim(
            "Good without options",
            f"A default `fit` of `NSF()` beats flowjax's training loop on {of(flowjax)} data sets, zuko's on {of(zuko)}, and "
            f"the best mixture of Gaussians on {of(mixture)}; the mixture wins on {mixture[2]}. A win is a lead of more than "
            f"{LEVEL:g} nats a row on test rows.",
            "benchmarks/quality.md",
        ),
        Claim(
            "One file, no pickle",
            "One safetensors file holds constructor, params, history and held-out scores. Loading it runs no code from the "
            f"file. With `flows.keep_programs`, a fit, scores and draws take {waits('first'):.1f} s in the first process, "
            f"{waits('second'):.1f} s in the next.",
            "guide/saving.md",
        ),
    )


def waits(process):
    """Seconds of a fit, scores and draws in the first or the second process that keeps its programs, medians of runs."""
    runs = [each[f"flows, {process} process that keeps"] for each in results("kept")]
    return median(sum(run[what]["clock"] for what in ("fit", "scores", "draws")) for run in runs)


def of(verdict):
    return f"{verdict[0]} of {sum(verdict)}"


def spread(ratios):
    return " to ".join(f"{each:.0f}" if each >= 10 else f"{each:.1f}" for each in (min(ratios), max(ratios)))
