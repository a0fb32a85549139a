"""The page "Which model?" says what was measured, and calls names that exist."""

import ast
import functools
import json
import re
import runpy
from pathlib import Path
from statistics import mean, median

import pytest

import flows
import flows.interop.numpyro
import flows.tables

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "choosing.md").read_text()
LEVEL = 0.02
OTHERS = ("Gaussian", "mixture", "kernel density", "flowjax", "zuko")


def measured(name):
    return json.loads((DOCS.parent / "benchmarks" / "results" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def choosing():
    return runpy.run_path(str(DOCS / "choosing.py"))


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def leads(found, method):
    """Of each set, the least lead over the others, each in the mean of the seeds that both have."""
    for name, of in found.items():
        own, nats = of.get(method, {}), []
        for other in OTHERS:
            both = own.keys() & of.get(other, {}).keys() if other != method else ()
            nats += [mean(own[seed]["nats"] - of[other][seed]["nats"] for seed in both)] if both else []
        if nats:
            yield name, min(nats)


def test_the_table_of_methods_is_what_was_measured(choosing):
    found, speed = measured("first_fit"), measured("speed")
    rows = cells(choosing["choosing"]("methods"))
    methods = [name for name in choosing["METHODS"] if any(of.get(name) for of in found.values())]
    assert len(rows) == len(methods) >= 7
    for method, row in zip(methods, rows, strict=True):
        _, verdict, middle, worst, seconds, times, when = row
        nats = dict(leads(found, method))
        ahead, behind = sum(each > LEVEL for each in nats.values()), sum(each < -LEVEL for each in nats.values())
        assert verdict == f"{ahead}, {len(nats) - ahead - behind}, {behind} of {len(nats)}"
        assert middle == f"{median(nats.values()):+.2f}" and worst.startswith(f"{min(nats.values()):+.2f}, ")
        spent = median(run["seconds"] for of in found.values() for run in of.get(method, {}).values())
        assert seconds == "< 0.1" or float(seconds) == pytest.approx(spent, rel=0.06)
        if key := choosing["METHODS"][method][1]:
            of = speed[f"throughput {key}, 1 thread"]["flows"]
            assert times.startswith(f"{of['log_prob']:.0f}, {of['sample']:.0f} ms of ")
        assert when.endswith(".")


def test_a_method_that_was_not_measured_has_no_row(choosing, monkeypatch):
    """And one of fewer seeds has a row of the seeds that there are."""
    found = measured("first_fit")
    one = {name: {each: runs for each, runs in of.items() if each != "MAF()"} for name, of in found.items()}
    one["wine"]["GMM(8)"] = {"0": {"nats": one["wine"]["mixture"]["0"]["nats"] - 1, "seconds": 5.0}}
    for name in found.keys() - {"wine"}:
        one[name].pop("GMM(8)", None)
    of_results = choosing["MEASURED"]["ahead"].__globals__
    monkeypatch.setitem(of_results, "results", lambda name: one if name == "first_fit" else measured(name))
    monkeypatch.setitem(choosing["MEASURED"], "results", of_results["results"])
    rows = {row[0]: row for row in cells(choosing["choosing"]("methods"))}
    assert "`MAF()`" not in rows
    assert rows["`GMM(num_components=8)`"][1] == "0, 0, 1 of 1" and rows["`GMM(num_components=8)`"][4] == "5.0"


def test_what_is_said_of_methods_follows(choosing):
    found = measured("first_fit")
    methods = [name for name in choosing["METHODS"] if any(of.get(name) for of in found.values())]
    nats = {method: dict(leads(found, method)) for method in methods}
    behind = {method: sum(each < -LEVEL for each in of.values()) for method, of in nats.items()}
    flows_of = ("NSF()", "MAF()", "RealNVP()")
    assert min(flows_of, key=behind.get) == "NSF()" and min(behind, key=behind.get) == "select"
    seconds = {m: median(run["seconds"] for of in found.values() for run in of.get(m, {}).values()) for m in methods}
    assert min(flows_of, key=seconds.get) == "MAF()" and min(seconds, key=seconds.get) == "Gaussian"
    draws = {m: measured("speed")[f"throughput {choosing['METHODS'][m][1]}, 1 thread"]["flows"]["sample"] for m in flows_of}
    assert min(draws, key=draws.get) == "RealNVP()"
    told = dict(zip(methods, (row[-1] for row in cells(choosing["choosing"]("methods"))), strict=True))
    in_plane = {"TwoMoons 3k", "EightGaussians 3k", "Checkerboard 30k", "Rings 3k", "Spirals 3k", "Pinwheel 3k", "spiked"}
    assert {s for s, each in nats["kernel density"].items() if each >= -LEVEL} <= in_plane  # two columns
    for name, each in nats["Gaussian"].items():
        assert (name.replace(", ", " with ") in told["Gaussian"]) == (each >= -LEVEL), name
    better = choosing["choosing"]("mixtures").splitlines()
    for line, method in zip(better, (*flows_of, "select"), strict=True):
        assert f"`{method}`" in line
        for name, of in found.items():
            both = of.get(method, {}).keys() & of.get("mixture", {}).keys()
            nats_ahead = mean(of["mixture"][seed]["nats"] - of[method][seed]["nats"] for seed in both) if both else 0
            assert (f" {name} ({nats_ahead:.2f})" in line) == (nats_ahead > LEVEL), (method, name)


def test_the_table_of_models_is_that_of_the_gallery(choosing):
    models = measured("gallery")["models"]
    rows = cells(choosing["choosing"]("models"))
    assert len(rows) == len(models) == len(choosing["WHEN"])
    for row, (name, of) in zip(rows, models.items(), strict=True):
        title, behind, numbers, seconds, mixture, when = row
        assert title.startswith(f"[{of['title']}") and title.endswith(f"](gallery/on_six_shapes_{name}.md)")
        nats = sorted(of["behind"].values())
        most = f"{nats[-1]:.2f}" if nats[-1] < 100 else "> 99"
        assert behind == f"{nats[0]:.2f} to {most}, median {median(nats):.2f}" and numbers == f"{of['numbers']:,}"
        compiling, fitting = map(float, seconds.split(", "))
        assert compiling == pytest.approx(of["compiling"], abs=0.51)
        assert fitting == pytest.approx(median(of["seconds"].values()), abs=0.51)
        ahead = {s for s, each in of["behind"].items() if each - models["GMM"]["behind"][s] > LEVEL}
        told = {*of["behind"]} if mixture == "all six" else {*re.findall(r"[A-Z]\w+", mixture)}
        assert told == ahead and when.endswith(".")
        for target in re.findall(r"\]\(([^)]*)\)", when):
            assert (DOCS / target).exists()


SHAPES = {"TwoMoons", "EightGaussians", "Checkerboard", "Rings", "Spirals", "Pinwheel"}
AHEAD = {  # what WHEN says: where the first model is ahead of the second
    ("RealNVP", "NICE"): SHAPES,
    ("NSF-couplings", "RealNVP"): SHAPES,
    ("Planar", "Radial"): SHAPES,
    ("NSF", "MAF"): SHAPES,
    ("Planar", "BNAF"): SHAPES,
    ("Matching", "Matching-pairs"): SHAPES,
    ("NSF", "Planar"): {"Checkerboard"},
    ("NSF", "Sylvester"): {"Spirals"},
    ("NSF", "GMM"): {"Checkerboard"},
    ("FFJORD", "RNODE"): {"Rings", "Spirals"},
    ("NAF", "NSF"): set(),
    **{(each, "NSF-couplings"): set() for each in ("NICE", "RealNVP", "Glow")},
}


def test_what_is_said_of_models_follows():
    models = measured("gallery")["models"]
    nats = {name: of["behind"] for name, of in models.items()}
    for (one, other), shapes in AHEAD.items():
        assert {s for s in SHAPES if nats[other][s] - nats[one][s] > LEVEL} == shapes, (one, other)
    best = [
        name
        for name in nats
        if all(nats[name][s] < nats[other][s] for s in ("Rings", "Spirals") for other in nats if other != name)
    ]
    assert best == ["MixtureMADE"]
    ahead = {n for n in nats if nats["KernelDensity"]["Rings"] - nats[n]["Rings"] > LEVEL}
    ahead |= {n for n in nats if nats["KernelDensity"]["Spirals"] - nats[n]["Spirals"] > LEVEL}
    assert ahead == {"MixtureMADE"}
    assert not any(nats["UMNN"]["Checkerboard"] - of["Checkerboard"] > LEVEL for of in nats.values())
    assert all(nats["SOS"][shape] > 10 for shape in ("Rings", "Pinwheel"))
    assert abs(nats["Gaussianization"]["EightGaussians"] - nats["NSF"]["EightGaussians"]) <= LEVEL
    gained = {shape: nats["RealNVP"][shape] - nats["Glow"][shape] for shape in SHAPES}
    assert {*sorted(gained, key=gained.get)[-2:]} == {"EightGaussians", "Spirals"}
    assert all(of["TwoMoons"] < nats["Normal"]["TwoMoons"] - LEVEL for name, of in nats.items() if name != "Normal")
    continuous = ("FFJORD", "RNODE", "Matching", "Matching-pairs")
    assert min(continuous, key=lambda name: models[name]["compiling"]) == "Matching"
    for name in ("IResNet", "UMNN", "FFJORD"):  # which had three times as long
        assert median(models[name]["seconds"].values()) > 2 * measured("gallery")["seconds"]
    small = ("Planar", "Sylvester", "Gaussianization")
    assert all(models[name]["numbers"] < models["NSF"]["numbers"] / 100 for name in small)
    assert models["Planar"]["numbers"] < models["BNAF"]["numbers"]


def test_the_ten_calls_are_of_public_names():
    table = PAGE.partition("## What do you have?")[2].partition("\n## ")[0]
    calls = re.findall(r"^\| [^|]+ \| `([^`]+)` \|", table, re.MULTILINE)
    assert len(calls) == 10
    for call in [*calls, *re.findall(r"`([\w.]+\([^`]*\))` compares", table)]:
        for node in ast.walk(ast.parse(call)):
            if isinstance(node, ast.Call):
                assert callable(functools.reduce(getattr, ast.unparse(node.func).split("."), flows)), call
    for asked in ("methods", "mixtures", "models"):
        assert f'{{{{ choosing("{asked}") }}}}' in PAGE


def test_no_figure_of_a_result_is_written_by_hand():
    prose = re.sub(r"```.*?```|`[^`]*`|{{.*?}}|\(tails 60 30k\)", "", PAGE, flags=re.DOTALL)
    assert not re.search(r"\d\.\d", prose.replace("More than 0.02 nats", ""))
