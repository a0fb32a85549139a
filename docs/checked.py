"""What `flows.check` finds, costs, and says of real fits, as benchmarks/checks.py measured it.

A page asks for a table by `{{ checked("power") }}`: "power", "right", "quality" or "cost"; "meaning" of a size, or "remedy" of
a FAIL; and for the verdicts about a fit, as a notebook shows them, by `{{ checked("household") }}`, or "galaxies", "redshift",
"demo".
"""

import runpy
from pathlib import Path

from flows.checks.check import QUESTIONS
from flows.checks.words import WORDS

TABLES = Path(__file__).resolve().parents[1] / "benchmarks" / "check_tables.py"
OF_ALL = ("power", "right", "quality", "cost")


def words(what):
    """The words of each check, as a page of checks has them."""
    cells = [(name, f"{check.tolerance:g}", WORDS[name]) for name, check in QUESTIONS.items()]
    if what == "remedy":
        lines = [f"| {name} | {of.remedy} |" for name, _, of in cells]
        return "\n".join(["| FAIL | usual reasons, and what to do |", "|---|---|", *lines])
    lines = [f"| {name} | {tolerance} | {of.unit} | {of.meaning} |" for name, tolerance, of in cells]
    return "\n".join(["| check | up to | unit | meaning of a size up to the tolerance |", "|---|---|---|---|", *lines])


def checked(what, found=None):
    if what in ("meaning", "remedy"):
        return words(what)
    made = runpy.run_path(str(TABLES))
    found = made["measured"]() if found is None else found
    return made[what](found) if what in OF_ALL else f"```{{raw}} html\n{made['checks_of'](found, what)._repr_html_()}\n```"
