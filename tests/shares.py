"""The files of tests that each of several processes runs, so that all take as long: `python tests/shares.py I N TIER`.

Prints the files of share I of N, from 1 on; `make` starts a process of pytest for each. What a file costs is in costs.json.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COSTS = ROOT / "tests" / "costs.json"
TIERS = ("quick", "full", "all")  # of `make test`, `make test-full` and `make test-all`
START = 0.3  # CPU seconds to collect a file


def files() -> list[str]:
    """All files of tests, and modules with doctests."""
    found = [*ROOT.glob("tests/*/test_*.py"), *ROOT.glob("tests/test_*.py")]
    found += [file for file in ROOT.glob("flows/**/*.py") if ">>> " in file.read_text()]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def names_of(test: str) -> tuple[str, str, str]:
    """File, function and case."""
    file, _, name = test.partition("::")
    function, _, case = name.partition("[")
    return file, function, case.removesuffix("]")


def costs_of(tier: str) -> dict[str, float]:
    """CPU seconds of each file. A file where nothing recorded runs is among them: a new test may stand in it, and is quick."""
    tests = json.loads(COSTS.read_text())["tests"]
    costs = {}
    for file in files():
        records = [record for cases in tests.get(file, {}).values() for record in cases.values()]
        costs[file] = START + sum(cost for cost, of in records if TIERS.index(of) <= TIERS.index(tier))
    return costs


def shares(costs: dict[str, float], n: int) -> list[list[str]]:
    """The files in n shares: the costliest first, each to the share with the least so far."""
    made, sums = [list[str]() for _ in range(n)], [0.0] * n
    for file in sorted(costs, key=lambda file: -costs[file]):
        least = sums.index(min(sums))
        made[least].append(file)
        sums[least] += costs[file]
    return made


if __name__ == "__main__":
    share, number, tier = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    print(*sorted(shares(costs_of(tier), number)[share - 1]))
