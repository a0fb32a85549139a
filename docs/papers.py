"""The papers and books that the library is made of: the sections `Source:` of its docstrings, with links to arXiv."""

import inspect
import re
import runpy
from pathlib import Path

KINDS = {  # by the room that defines a name
    "models": "Models",
    "bijections": "Layers",
    "compose": "Layers",
    "transformers": "Transformers",
    "conditioners": "Networks",
    "distributions": "Distributions",
    "conditionals": "Distributions",
}
OTHERS = "Training, checks and data"


def papers():
    """A table for each kind of public names: the name, and its sources."""
    public = runpy.run_path(str(Path(__file__).with_name("conf.py")))["PUBLIC"]
    tables = {title: [] for title in (*KINDS.values(), OTHERS)}
    for name, (home, thing) in public.items():
        if text := source_of(thing):
            tables[KINDS.get(home.split(".")[1], OTHERS)].append(f"| {{py:obj}}`{name}` | {text} |")
    return "\n".join(
        line for title, rows in tables.items() for line in (f"## {title}", "", "| name | source |", "|---|---|", *rows, "")
    )


def source_of(thing):
    found = re.search(r"^Source:\n((?:    .*\n?|\n)+)", inspect.getdoc(thing) or "", re.MULTILINE)
    text = "" if found is None else re.sub(r"\s+", " ", found[1]).strip().replace("|", r"\|")
    return re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
