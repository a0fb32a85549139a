"""The same program in other libraries and in ours, as benchmarks/coming_from.py ran them, and the table of words.

The page asks by `{{ coming_from("flows") }}` for our program, which is run; by `{{ coming_from("zuko") }}` for a program of
docs/coming_from/ next to ours and for what it printed; and for the tables "scores", "agree" and "words".
"""

import json
import re
from pathlib import Path

from flows.elsewhere import CALLED

DOCS = Path(__file__).resolve().parent
NAMES = {"jax_flows": "jax-flows 0.0.1", "distrax": "distrax with TFP", "tfp": "TFP"}
CALL = re.compile(r"\bflows\.[\w.]*\w(\((?:[^()]|\([^()]*\))*\))?")  # a name of ours, with its arguments


def coming_from(what):
    results = json.loads((DOCS.parent / "benchmarks" / "results" / "coming_from.json").read_text())
    tables = {"flows": run, "scores": scores, "agree": agree, "words": words}
    return "\n".join(tables[what](results) if what in tables else side_by_side(what, results))


def code(name):
    return (DOCS / "coming_from" / f"{name}.py").read_text()


def run(results):
    """On a page, rows lie in the folder data."""
    yield "```python\n" + code("flows").replace("examples/data/", "data/") + "```"


def side_by_side(name, results):
    """Theirs and ours; where there is no room, ours stands only above, where it is run."""
    yield "::::{grid} 1 1 1 2\n:gutter: 2\n:class-container: programs"
    for each, caption, shown in (name, NAMES.get(name, name), ""), ("flows", "flows", ":class: ours\n"):
        yield f":::{{grid-item}}\n{shown}```{{code-block}} python\n:caption: {caption}\n\n{code(each)}```\n:::"
    yield f"::::\n\nIt printed `{results[name]['printed']}`."


def scores(results):
    """The best first."""
    yield "| program | nats a row | seconds of one core | versions |\n|---|---|---|---|"
    programs = {name: each for name, each in results.items() if name != "parity"}
    best, *rest = sorted(programs, key=lambda each: -nats(programs[each]))
    for name in (best, *rest):
        versions = ", ".join(f"{package} {version}" for package, version in programs[name]["versions"].items())
        yield f"| {NAMES.get(name, name)} | {nats(programs[name]):.3f} | {programs[name]['cpu']:.0f} | {versions} |"
    first = min(programs, key=lambda each: programs[each]["cpu"])
    yield f"\n{NAMES.get(best, best)} has the best score, and {NAMES.get(first, first)} took the least time."


def nats(program):
    return float(program["printed"].split()[0])


def agree(results):
    yield "| library | map in front of a normal | theirs | ours | largest difference |\n|---|---|---|---|---|"
    for name, each in results["parity"].items():
        numbers = f"{each['theirs']:.9f} | {each['ours']:.9f} | {each['difference']:.0e} at {each['points']} points"
        yield f"| {NAMES[name] if name == 'tfp' else name} {each['version']} | {each['of']} | {numbers} |"


def words(results):
    yield "| name | of | here |\n|---|---|---|"
    for name, (whose, called) in CALLED.items():
        if not whose.startswith("flows"):
            yield f"| `{name}` | {whose} | {CALL.sub(lambda m: f'`{m[0]}`', called)} |"
