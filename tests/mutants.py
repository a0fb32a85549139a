"""Seeded mistakes: every slip listed in mistakes/, made in a copy of the source, has to fail the tests named beside it.

    python tests/mutants.py                  # all of them
    python tests/mutants.py --only coupling  # those with this in their name or file
    python tests/mutants.py --list
    python tests/mutants.py --tier quick     # by the quick tests alone

mistakes/*.txt hold what people do get wrong, for each file `== flows/...` or `== docs/...` in blocks of this form:

    # the mistake
    @ the file of tests, a test with its case in brackets or an expression of `pytest -k`, and x2 where the text occurs twice
    - the text before, line by line
    + the text after

The exit status is 1 if a mistake survives, a text is not found, or the tests do not pass without any mistake. Each mistake has
a process of its own, forked from one that has imported what all import, but not flows.
"""

import argparse
import functools
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from measure import ended, forked, import_libraries

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 180  # seconds for the tests of one mistake
TIMEOUT_OF_ALL = 1800  # for all tests without a mistake
NOT_THE_COPY = 99
OUTCOMES = {0: "SURVIVED", 1: "caught", 2: "BROKEN", 4: "BROKEN", 5: "NO TESTS", NOT_THE_COPY: "NOT THE COPY"}


class Mistake(NamedTuple):
    """`before`, which occurs `count` times in `file`, becomes `after`; `select` of tests/`tests` must notice."""

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


def run(copy: Path, options: list[str]) -> None:
    """Run pytest on a copy of the source, whose flows must be the one that is imported; ends this process."""
    os.setpgid(0, 0)  # so that what it starts ends with it
    with (copy.parent / "log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    import flows

    beside = Path(flows.__file__).resolve().is_relative_to(copy.resolve())
    status = int(pytest.main(options)) if beside else NOT_THE_COPY
    sys.stdout.flush()
    os._exit(status)


def outcome(tests: str, select: str, tier: str, mistake: Mistake | None = None, timeout: int = TIMEOUT) -> tuple[str, str]:
    """How a selection of tests ends on a copy of the source, with at most one mistake in it; and what pytest printed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        for name in ("flows", "tests", "docs"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.webp"))
        for name in ("examples", "benchmarks", *(path.name for path in ROOT.glob("*.md"))):  # which are only read
            (copy / name).symlink_to(ROOT / name)
        for name in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / name, copy)
        if mistake is not None:
            path = copy / mistake.file
            path.write_text(path.read_text().replace(mistake.before, mistake.after))
        options = ["-x", "-q", "--tier", tier, "-p", "no:cacheprovider", "--basetemp", f"{folder}/temporary"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what was imported before the fork
        path = str(next((copy / "tests").rglob(tests)))
        options += [f"{path}::{select}"] if "[" in select else [path, "-k", select]
        status = ended(forked(lambda: run(copy, options)), timeout)
        printed = (Path(folder) / "log").read_text(errors="replace")
        return ("TIMEOUT" if status is None else OUTCOMES.get(status, f"EXIT {status}")), printed


def outcome_of(mistake: Mistake, tier: str) -> str:
    return outcome(mistake.tests, mistake.select, tier, mistake)[0]


def passes(group: tuple[str, list[str]], tier: str) -> bool:
    """Whether everything selected from one file of tests passes without a mistake."""
    tests, selections = group
    select = " or ".join(f"({each})" for each in sorted({each.partition("[")[0] for each in selections}))
    how, printed = outcome(tests, select, tier, timeout=TIMEOUT_OF_ALL)
    right = how == "SURVIVED" or (tier == "quick" and how == "NO TESTS")
    if not right:
        print(f"{tests} without a mistake: {'fails' if how == 'caught' else how}\n{printed}")
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
    import_libraries()
    outcomes = list[str]()
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        if not all(pool.imap(functools.partial(passes, tier=options.tier), sorted(groups.items()))):
            return 1
        print(f"{len(groups)} files of tests pass without a mistake", flush=True)
        results = pool.imap(functools.partial(outcome_of, tier=options.tier), chosen)
        for each, how in zip(chosen, results, strict=True):
            print(f"{how:9} {each.file.removeprefix('flows/')}: {each.name}", flush=True)
            outcomes.append(how)
    caught = outcomes.count("caught")
    print(f"{caught} of {len(chosen)} mistakes caught")
    return int(caught < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
