"""What flows are worth as guides of programs, to samplers and on data in pieces, as benchmarks/guides.py, funnel.py and
bridges.py measured it.

A page asks for a table by `{{ worth("guides") }}`, `{{ worth("funnel") }}` or `{{ worth("bridges") }}`.
"""

import json
from pathlib import Path
from statistics import fmean, median

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
GUIDES = {"IAF": "`AutoFlow`", **{f"Auto{name}Normal": f"`Auto{name}Normal`" for name in ("IAF", "BNAF", "Multivariate")}}
WAYS = {"plain": "as it is", "RealNVP, by default": "in the noise of a flow"}
HEAD = (
    "NUTS",
    "mean of the neck, 0",
    "deviation, 3",
    "effective draws in 1,000 gradients",
    "in a second",
    "divergences in 1,000",
)
FORMS = ".2f", ".2f", ".2g", ".0f", ".1f"


def worth(what, found=None):
    found = json.loads((RESULTS / f"{what}.json").read_text()) if found is None else found
    return "\n".join({"guides": guides, "funnel": funnel, "bridges": bridges}[what](found))


def guides(found):
    """Of each guide the ELBO on each program, the mean of the seeds, and a step beside that of NumPyro's own flow."""
    yield "| guide | " + " | ".join(found) + " | time of a step |"
    yield "|---" * (len(found) + 2) + "|"
    for name, title in GUIDES.items():
        elbos = [f"{fmean(of[name]['elbo']):.2f}" for of in found.values()]
        step = median(of[name]["beside AutoIAFNormal"] for of in found.values())
        yield f"| {title} | " + " | ".join(elbos) + f" | {step:.1f} |"


def funnel(found):
    """Of each way, the median of the seeds."""
    yield "| " + " | ".join(HEAD) + " |"
    yield "|---" * len(HEAD) + "|"
    for name, title in WAYS.items():
        told = zip(*map(figures, found[name].values()), strict=True)
        yield f"| {title} | " + " | ".join(f"{median(of):{form}}" for of, form in zip(told, FORMS, strict=True)) + " |"


def figures(run):
    draws = run["effective draws"]
    rare = 1e3 * run["divergences"] / run["draws"]
    return run["mean"], run["deviation"], 1e3 * draws / run["gradients"], draws / run["seconds"], rare


def bridges(found):
    """Of each model and density, the means of the seeds."""
    yield "| | " + " | ".join(f"{name}: draws on bridges | nats behind" for name in found) + " | seconds |"
    yield "|---" * (2 * len(found) + 2) + "|"
    for model in next(iter(found.values())):
        runs = [[*of[model].values()] for of in found.values()]
        forms = [(own, *form) for own in runs for form in (("bridges", ".2%"), ("behind", ".3f"))]
        cells = [f"{fmean(each[what] for each in own):{form}}" for own, what, form in forms]
        seconds = median(each["seconds"] for own in runs for each in own)
        yield f"| {model} | " + " | ".join(cells) + f" | {seconds:.0f} |"
