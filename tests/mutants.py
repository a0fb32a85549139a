"""Seeded mistakes: every slip listed in mistakes/, made in a copy of the source, has to fail the tests named beside it.

    python tests/mutants.py                  # all of them
    python tests/mutants.py --only coupling  # those with this in their name or file
    python tests/mutants.py --list
    python tests/mutants.py --tier quick     # by the quick tests alone

mistakes/*.txt hold what people do get wrong, for each file `== flows/...` or `== docs/...` in blocks of this form:

    # the mistake
    @ the file of tests, the expression of `pytest -k`, and x2 where the text occurs twice
    - the text before, line by line
    + the text after

The exit status is 1 if a mistake survives, a text is not found, or the tests do not pass without any mistake.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 180  # seconds for the tests of one mistake
TIMEOUT_OF_ALL = 1800  # for all tests without a mistake
NOT_THE_COPY = 99
# In the copy, the tests must import the flows beside them, not the one that is installed.
PYTEST = f"""
import sys, pathlib, flows, pytest
beside = pathlib.Path(flows.__file__).resolve().is_relative_to(pathlib.Path.cwd().resolve())
sys.exit(pytest.main(sys.argv[1:]) if beside else {NOT_THE_COPY})
"""
OUTCOMES = {0: "SURVIVED", 1: "caught", 2: "BROKEN", 4: "BROKEN", 5: "NO TESTS", NOT_THE_COPY: "NOT THE COPY"}


class Mistake(NamedTuple):
    """`before`, which occurs `count` times in `file`, becomes `after`; tests/`tests` -k `select` must notice."""

    name: str
    file: str
    tests: str
    select: str
    count: int
    before: str
    after: str


def read() -> Iterator[Mistake]:
    """All mistakes."""
    for path in sorted((ROOT / "tests" / "mistakes").glob("*.txt")):
        file = ""
        for block in re.split(r"\n{2,}", path.read_text().strip()):
            if block.startswith("== "):
                file = block[3:]
                continue
            lines = block.split("\n")
            header = re.fullmatch(r"# (.+)\n@ (test_\w+\.py) (.+?)(?: x(\d))?", "\n".join(lines[:2]))
            before, after = ([line[2:] for line in lines[2:] if line[:1] == sign] for sign in "-+")
            if not header or not before or not after or len(before) + len(after) + 2 != len(lines):
                raise SystemExit(f"{path.name}, {file}: not of the form above:\n{block}")
            name, tests, select, count = header.groups()
            yield Mistake(name, file, tests, select, int(count or 1), "\n".join(before), "\n".join(after))


def misplaced(mistake: Mistake) -> str:
    """What is wrong with the text of a mistake; nothing if it occurs as often as it says."""
    found = (ROOT / mistake.file).read_text().count(mistake.before)
    return "" if found == mistake.count else f"{mistake.file}: {mistake.name}: found {found} times, not {mistake.count}"


def outcome(tests: str, select: str, tier: str, mistake: Mistake | None = None, timeout: int = TIMEOUT) -> tuple[str, str]:
    """How a selection of tests ends on a copy of the source, with at most one mistake in it; and what pytest printed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        for name in ("flows", "tests", "docs"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.webp"))
        for name in ("examples", "benchmarks"):  # which are only read
            (copy / name).symlink_to(ROOT / name)
        for name in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / name, copy)
        if mistake is not None:
            path = copy / mistake.file
            path.write_text(path.read_text().replace(mistake.before, mistake.after))
        options = ["-x", "-q", "--tier", tier, "-p", "no:cacheprovider", "--basetemp", f"{folder}/temporary"]
        try:
            result = subprocess.run(
                [sys.executable, "-c", PYTEST, *options, str(next((copy / "tests").rglob(tests))), "-k", select],
                cwd=copy,
                env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
                timeout=timeout,
                capture_output=True,
                text=True,
            )
        except subprocess.TimeoutExpired:
            return "TIMEOUT", ""
        return OUTCOMES.get(result.returncode, f"EXIT {result.returncode}"), result.stdout + result.stderr


def passes(tests: str, selections: list[str], tier: str) -> bool:
    """Whether everything selected from one file of tests passes without a mistake."""
    ended, printed = outcome(tests, " or ".join(f"({select})" for select in selections), tier, timeout=TIMEOUT_OF_ALL)
    right = ended == "SURVIVED" or (tier == "quick" and ended == "NO TESTS")
    if not right:
        print(f"{tests} without a mistake: {'fails' if ended == 'caught' else ended}\n{printed}")
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="NAME_PART", default="", help="those with this in their name or file")
    parser.add_argument("--list", action="store_true", help="names and tests, nothing is run")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at a time")
    parser.add_argument("--tier", choices=("quick", "all"), default="all", help="the tests that have to catch them")
    options = parser.parse_args()
    chosen = [each for each in read() if options.only.lower() in f"{each.file}: {each.name}".lower()]
    if options.list:
        print(*(f"{each.file}: {each.name}  [{each.tests} -k {each.select!r}]" for each in chosen), sep="\n")
        return 0
    if wrong := list(filter(None, map(misplaced, chosen))):
        print(*wrong, sep="\n")
        return 1

    groups: dict[str, list[str]] = {}
    for each in chosen:
        groups.setdefault(each.tests, []).append(each.select)
    with ThreadPoolExecutor(options.jobs) as pool:
        if not all(pool.map(lambda tests: passes(tests, sorted(set(groups[tests])), options.tier), groups)):
            return 1
        print(f"{len(groups)} files of tests pass without a mistake", flush=True)
        ended = list[str]()
        results = pool.map(lambda each: outcome(each.tests, each.select, options.tier, each)[0], chosen)
        for each, how in zip(chosen, results, strict=True):
            print(f"{how:9} {each.file.removeprefix('flows/')}: {each.name}", flush=True)
            ended.append(how)
    caught = ended.count("caught")
    print(f"{caught} of {len(chosen)} mistakes caught")
    return int(caught < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
