"""What `flows.check` finds, costs, and says of real fits, as benchmarks/checks.py measured it.

A page asks for a table by `{{ checked("power") }}`: "power", "right", "quality" or "cost"; and for the verdicts about a fit, as
a notebook shows them, by `{{ checked("household") }}`, or "galaxies", "redshift", "demo".
"""

import runpy
from pathlib import Path

TABLES = Path(__file__).resolve().parents[1] / "benchmarks" / "check_tables.py"
OF_ALL = ("power", "right", "quality", "cost")


def checked(what, found=None):
    made = runpy.run_path(str(TABLES))
    found = made["measured"]() if found is None else found
    return made[what](found) if what in OF_ALL else f"```{{raw}} html\n{made['checks_of'](found, what)._repr_html_()}\n```"
