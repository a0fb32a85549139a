"""Which model to take, by benchmarks/results/*.json: a page asks for `{{ choosing("methods") }}`, default fits of 24 sets,
`{{ choosing("mixtures") }}`, where a mixture is better, `{{ choosing("models") }}`, models of the gallery, and figures."""

import runpy
from pathlib import Path
from statistics import median

MEASURED = runpy.run_path(str(Path(__file__).with_name("measured.py")))
LEVEL = MEASURED["LEVEL"]
METHODS = {  # the model on the page, its key in speed.json, and when to take it
    "NSF()": ("`NSF()`", "NSF autoregressive d21", "Take it first. Of the three flows, it is behind on the fewest sets."),
    "MAF()": ("`MAF()`", "MAF d21", "Its fits take the least time of the three flows."),
    "RealNVP()": ("`RealNVP()`", "RealNVP d43", "Its draws take the least time of the three flows, here of twice the columns."),
    "GMM(8)": ("`GMM(num_components=8)`", "", "A first look at clusters. The mixture below has the best number of components."),
    "select": ("`select`", "", "The score matters, and time does not: it is behind on the fewest sets."),
    "Gaussian": ("Gaussian, in closed form", "", "No time at all. It is ahead or level on {level} alone."),
    "mixture": ("mixture of scikit-learn", "", "Clusters, and shapes in the plane. It is behind on {behind}."),
    "kernel density": ("kernel density of scikit-learn", "", "Two columns. It is ahead or level on {level} alone."),
}
HEAD = ("model", "ahead, level, behind", "median lead, nats", "worst", "seconds of a fit", "densities, draws", "when")
SIX = ("model", "nats behind the truth", "numbers", "seconds: compile, fit", "the mixture is ahead on", "when")
WHEN = {
    "NICE": "Almost never: `RealNVP` is ahead on all six shapes.",
    "RealNVP": "Many draws of many columns. With splines, couplings are ahead on all six shapes.",
    "Glow": "`RealNVP` with trained linear maps, which help most on EightGaussians and Spirals.",
    "NSF-couplings": "The best of the couplings: none is ahead of it on any shape.",
    "IResNet": "Clusters, whose bridges should be thin ([clusters and holes](guide/topology.md)). Densities are slow.",
    "ResidualFlow": "Clusters: of single flows it has the thinnest bridges ([clusters and holes](guide/topology.md)).",
    "Planar": "Few numbers. It is behind `NSF` on Checkerboard alone.",
    "Radial": "Almost never: `Planar` is ahead on all six shapes.",
    "Sylvester": "Few numbers. It is behind `NSF` on Spirals alone.",
    "MAF": "Tables, if a fit has to be quick (the table above). On shapes `NSF` is ahead on all six.",
    "IAF": "Posteriors: it draws in one pass, and `fit_to_density` takes it ([posteriors](guide/posteriors.md)).",
    "NSF": "Tables: the default (the table above).",
    "NAF": "Almost never: it is ahead of `NSF` on no shape.",
    "BNAF": "Almost never: `Planar` has fewer numbers, and is ahead on all six shapes.",
    "SOS": "Never without checks: it falls apart on Rings and Pinwheel.",
    "UMNN": "Fine edges: no model is ahead of it on Checkerboard. Densities are slow.",
    "MixtureMADE": "Shapes with holes: it is ahead of all others on Rings and Spirals.",
    "Gaussianization": "Few numbers, and no network: it is level with `NSF` on EightGaussians.",
    "FFJORD": "Smooth paths from noise to data ([flow matching](guide/continuous.md)). Densities are slow.",
    "RNODE": "The same. It is behind `FFJORD` on Rings and Spirals alone.",
    "Matching": "Of the continuous flows, the quickest to compile ([flow matching](guide/continuous.md)).",
    "Matching-pairs": "Almost never: without pairs, flow matching is ahead on all six shapes.",
    "KernelDensity": "Nothing to train. Only `MixtureMADE` is ahead of it on Rings and on Spirals.",
    "GMM": "Clusters. It is behind `NSF` on Checkerboard alone.",
    "Normal": "The score to beat: all others are ahead of it on TwoMoons.",
}


def choosing(what, *asked):
    made = {"methods": methods, "mixtures": mixtures, "models": models, "lead": lead, "times": times}[what](*asked)
    return made if isinstance(made, str) else "\n".join(f"| {' | '.join(row)} |" if len(row) > 1 else row[0] for row in made)


def leads(method):
    """By set, how far it is ahead of the best other: the one it is the least ahead of, over seeds that both have."""
    found = {other: MEASURED["ahead"](method, other) for other in MEASURED["OTHERS"] if other != method}
    sets = [name for name in MEASURED["results"]("first_fit") if any(name in of for of in found.values())]
    return {name: min((of[name], other) for other, of in found.items() if name in of) for name in sets}


def methods():
    yield from (HEAD, ["---"] * len(HEAD))
    for method, (title, speed, when) in METHODS.items():
        if nats := {name.replace(", ", " with "): nats for name, (nats, _) in leads(method).items()}:  # else not yet measured
            won, lost = [s for s in nats if nats[s] > LEVEL], [s for s in nats if nats[s] < -LEVEL]
            runs = [each["seconds"] for of in MEASURED["results"]("first_fit").values() for each in of.get(method, {}).values()]
            verdict = f"{len(won)}, {len(nats) - len(won) - len(lost)}, {len(lost)} of {len(nats)}"
            worst, middle = min(nats, key=nats.get), f"{median(nats.values()):+.2f}"
            advice = when.format(level=listed([s for s in nats if s not in lost]), behind=listed(lost))
            yield title, verdict, middle, f"{nats[worst]:+.2f}, {worst}", seconds(median(runs)), times(speed), advice


def mixtures():
    for method in ("NSF()", "MAF()", "RealNVP()", "select"):
        of = {name: -nats for name, nats in MEASURED["ahead"](method, "mixture").items() if nats < -LEVEL}
        where = listed([f"{name} ({of[name]:.2f})" for name in sorted(of, key=of.get, reverse=True)])
        yield (f"- The mixture is ahead of `{method}` on {where or 'no set'}.",)


def models():
    yield from (SIX, ["---"] * len(SIX))
    for name, of in (found := MEASURED["results"]("gallery")["models"]).items():
        nats = sorted(of["behind"].values())
        least, middle, most = (f"{each:.2f}" if each < 100 else "> 99" for each in (nats[0], median(nats), nats[-1]))
        ahead = [shape for shape, each in of["behind"].items() if each - found["GMM"]["behind"][shape] > LEVEL]
        where = "" if name == "GMM" else "all six" if len(ahead) == len(nats) else listed(ahead) or "none"
        title = f"[{of['title']}{', ' * bool(of['note'])}{of['note']}](gallery/on_six_shapes_{name}.md)"
        spent = f"{seconds(of['compiling'])}, {seconds(median(of['seconds'].values()))}"
        yield title, f"{least} to {most}, median {middle}", f"{of['numbers']:,}", spent, where, WHEN[name]


def lead(method, name):
    nats, other = leads(method)[name]
    return f"{abs(nats):.2f} nats a row {'ahead of' if nats > 0 else 'behind'} the best other, {other}"


def times(speed):
    of = MEASURED["results"]("speed")[f"throughput {speed}, 1 thread"]["flows"] if speed else {}
    return f"{of['log_prob']:.0f}, {of['sample']:.0f} ms of {speed.split(' d')[1]} columns" if of else ""


def seconds(time):
    return "< 0.1" if time < 0.1 else f"{time:.1f}" if time < 10 else f"{time:.0f}"


def listed(names):
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
