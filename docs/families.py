"""The table of all bijections: it is made of their values in tests/registry.py, and of the sections of their docstrings."""

import inspect
import re
import sys
from pathlib import Path

import jax

import flows
from flows.core import BijectionInit, Given
from flows.core.constructors import is_constructor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import registry

CONTEXT, IMAGE = (2,), (4, 4, 2)


def values_of(name):
    """The values of a constructor that the tests look at, and the events that each is tested on."""
    found = [(case.init_fun, case.events) for case in registry.BIJECTIONS.values()]
    found += [(init_fun, (3,)) for init_fun in registry.MODELS.values()]
    found += [(flows.Dequantize(), (3, IMAGE)), (flows.RandomFlip(), (IMAGE,)), (flows.Noise(0.1), (3, IMAGE))]
    return [each for each in found if each[0].constructor.__name__ == name]


def part_at(init_fun, event, context):
    """The part of a layer at an event, or None where it is none for that."""
    try:
        part = init_fun.part(event, context)
        jax.eval_shape(part.init, jax.eval_shape(jax.random.key, 0), Given())
        return part
    except (flows.FlowsError, TypeError, ValueError):
        return None


def events_of(values):
    shapes = {len(event) if isinstance(event, tuple) else 1 for _, events in values for event in events}
    of_images = any(len(shape) == 3 for _, events in values for shape in events if isinstance(shape, tuple))
    of_images = of_images or any(part_at(init_fun, IMAGE, None) for init_fun, _ in values)
    return " and ".join([*(["vectors"] if 1 in shapes else []), *(["images"] if of_images else [])])


def takes_context(values):
    parts = [part_at(init_fun, (event,) if isinstance(event, int) else event, CONTEXT) for init_fun, (event, *_) in values]
    return any(part is not None and "context" in part.keywords for part in parts)


def section(name, title):
    text = inspect.getdoc(getattr(flows, name)) + "\n"  # without what it is indented by, which Python 3.13 leaves out by itself
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return "" if found is None else re.sub(r"\s+", " ", found[1]).strip()


def reference_of(name):
    """Authors, year and arXiv id of the first paper."""
    found = re.match(r'(?:[^";]*: )?([A-Za-z][^"]*?), "[^"]*", (\d{4})(?:, arXiv:([\d.]+\d))?', section(name, "Source"))
    if found is None:
        return ""
    authors = re.split(r", | and ", found[1])
    short = found[1] if len(authors) < 3 else f"{authors[0]} et al."
    return f"{short} {found[2]}" + (f", [{found[3]}](https://arxiv.org/abs/{found[3]})" if found[3] else "")


def row(name):
    values = values_of(name)
    labels = [each for each in ("exact", "unbiased", "lower bound") if any(init.likelihood == each for init, _ in values)]
    direct, inverse = re.fullmatch(r"Direct: (.*)\. Inverse: (.*)\.", section(name, "Cost")).groups()
    context = "yes" if takes_context(values) else ""
    cells = (f"{{py:obj}}`{name} <flows.{name}>`", " or ".join(labels), direct, inverse, context, events_of(values))
    return f"| {' | '.join((*cells, reference_of(name)))} |"


def families(family_of):
    """A table for each family of bijections, in the order of the alphabet; the models come last. `family_of` reads the family
    in a module's docstring."""
    groups = {}
    for name in sorted(flows.__all__):
        thing = getattr(flows, name)
        if is_constructor(thing) and any(isinstance(init_fun, BijectionInit) for init_fun, _ in values_of(name)):
            model = thing.__module__.startswith("flows.models")
            groups.setdefault((model, "Models" if model else family_of(thing.__module__)), []).append(name)
    lines = []
    for (_, title), names in sorted(groups.items()):
        head = "| bijection | log-det | direct | inverse | context | events | reference |"
        lines += [f"## {title}", "", head, "|---" * 7 + "|", *map(row, names), ""]
    return "\n".join(lines)
