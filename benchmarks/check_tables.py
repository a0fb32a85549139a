"""The tables of `checks.py`, of what benchmarks/results/checks.json holds; pages of docs/ ask for them, too."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

from flows.checks import Check, Checks

RESULTS = Path(__file__).with_name("results") / "checks.json"
RIGHT = "right: "  # how names of right models begin
Records = Mapping[str, Any]


def measured() -> dict[str, Any]:
    if not RESULTS.exists():
        raise FileNotFoundError(f"{RESULTS.name} is not there; run python benchmarks/checks.py")
    return json.loads(RESULTS.read_text())


def everything(found: Records) -> str:
    """All tables of what is there."""
    of_part = {"cost": (cost,), "found": (power, right), "quality": (quality,)}
    parts = [make(found) for part, makes in of_part.items() if found.get(part) for make in makes]
    return "\n\n".join([*parts, *(f"{name}:\n\n{printed(found, name)}" for name in found.get("fits", {}))])


def cost(found: Records) -> str:
    """CPU seconds of the first call of a process and of the second, and what the process holds at most."""
    of = {size: by_check for size, by_check in found["cost"].items() if size != "fit"}
    names = list(dict.fromkeys(name for by_check in of.values() for name in by_check))
    lines = [[name, *(cost_told(by_check.get(name)) for by_check in of.values())] for name in names]
    told = table(["check", *map(rows_of, of)], lines)
    if "fit" not in found["cost"]:
        return told
    fit = found["cost"]["fit"]
    return f"{told}\n\nThe fit of 10,000 rows: {fit['cpu']:.0f} s, {fit['MiB'][1]:,.0f} MiB."


def cost_told(one: Any) -> str:
    return "{:.1f} s, {:.1f} s; {:,.0f} MiB".format(*one["cpu"], one["MiB"][-1]) if one else ""


def power(found: Records) -> str:
    """Of each wrong model, the share of seeds that FAIL by each check that is meant for it, and by any; the share that is
    "small", and would FAIL at tolerance 0 alone; and the median size."""
    of = {name: by_size for name, by_size in found["found"].items() if not name.startswith(RIGHT)}
    sizes, lines = sizes_of(of), list[list[str]]()
    for name, by_size in of.items():
        seeds = [list(by_size.get(size, {}).values()) for size in sizes]
        checks = next([check for check, _ in each[0]["meant"]] for each in seeds if each)
        lines += [["" if at else name, check, *(power_told(each, check) for each in seeds)] for at, check in enumerate(checks)]
        lines.append(["", "any", *(share(any_of(one, "FAIL") for one in each) for each in seeds)])
    return table(["what is wrong", "check", *map(rows_of, sizes)], lines)


def power_told(seeds: list[Records], check: str) -> str:
    if not seeds:
        return ""
    fails, small = (share(check in one[verdict] for one in seeds) for verdict in ("FAIL", "small"))
    known = [size for one in seeds for name, size in one["meant"] if name == check and size is not None]
    return "".join([fails, f", small {small}" * (small != "0%"), f"; {median(known):.3f}" if known else ""])


def right(found: Records) -> str:
    """Of right models, the share of seeds with a FAIL, and at tolerance 0."""
    of = {name.removeprefix(RIGHT): by_size for name, by_size in found["found"].items() if name.startswith(RIGHT)}
    sizes, lines = sizes_of(of), list[list[str]]()
    for name, by_size in of.items():
        seeds = [list(by_size.get(size, {}).values()) for size in sizes]
        shares = [[share(any_of(one, *what) for one in each) for what in (("FAIL",), ("FAIL", "small"))] for each in seeds]
        lines.append([name, *(f"{usual}, {strict}" if usual else "" for usual, strict in shares)])
    return table(["right model", *(f"{rows_of(size)}, and at tolerance 0" for size in sizes)], lines)


def quality(found: Records) -> str:
    """The mean score of SDMetrics over seeds, of draws of the wrong model beside those of the right one."""
    of = found["quality"]
    sizes = sizes_of(of)
    lines = [[name, *(quality_told(list(by_size.get(size, {}).values())) for size in sizes)] for name, by_size in of.items()]
    return table(["draws of", *(f"{rows_of(size)}: wrong, right" for size in sizes)], lines)


def quality_told(seeds: list[Records]) -> str:
    return ", ".join(f"{mean(one[kind][0] for one in seeds):.3f}" for kind in ("wrong", "right")) if seeds else ""


def printed(found: Records, name: str) -> str:
    """What `print(checks)` shows of a real fit."""
    return repr(checks_of(found, name))


def checks_of(found: Records, name: str) -> Checks:
    figures = found["fits"][name]["figures"]
    return Checks({each: Check(**of) for each, of in figures["checks"].items()}, None, figures, {})


def any_of(one: Records, *verdicts: str) -> bool:
    return any(one[verdict] for verdict in verdicts)


def share(told: Any) -> str:
    held = list(told)
    return f"{mean(held):.0%}" if held else ""


def sizes_of(of: Records) -> list[str]:
    return sorted({size for by_size in of.values() for size in by_size}, key=int)


def rows_of(size: str) -> str:
    return f"{int(size):,} rows"


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])
