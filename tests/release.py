"""A release: its version in every place, the checks of a tag, and what wheel and sdist contain. Python alone runs it.

python tests/release.py 0.2.0             # make release VERSION=0.2.0: write the version, and print what to do next
python tests/release.py --tag v0.2.0      # stop unless the tag is the version of every place
python tests/release.py --contents dist   # stop unless wheel and sdist hold what they should
"""

import argparse
import datetime
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {  # with the line that has the version
    "flows/__init__.py": r'^__version__ = "(.*)"$',
    "pyproject.toml": r'^version = "(.*)"$',
    "CITATION.cff": r"^version: (.*)$",
    "docs/cite.md": r"^  version = \{(.*)\},$",
}
SECTION = re.compile(r"^## \[(.+?)\](?: - (\d{4}-\d{2}-\d{2}))?\n(.*?)(?=^## \[|\Z)", re.MULTILINE | re.DOTALL)
VERSION = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}")
TAKEN = "0.0.1"  # the version of that name that the package index has


class Wrong(Exception):
    """A release that cannot be made, in one line."""


def versions(root: Path = ROOT) -> dict[str, str]:
    """Return the version in each place."""
    found = {}
    for place, line in PLACES.items():
        match = re.search(line, (root / place).read_text(encoding="utf-8"), re.MULTILINE)
        if match is None:
            raise Wrong(f"{place} has no line {line!r}")
        found[place] = match[1]
    return found


def top_section(root: Path = ROOT) -> tuple[str, str | None, str]:
    """Return the version, the date and the text of the first section of the changelog."""
    match = SECTION.search((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if match is None:
        raise Wrong("CHANGELOG.md has no section; expected '## [Unreleased]' or '## [0.2.0] - 2027-01-31' at its top")
    if not re.search(r"^- \S", match[3], re.MULTILINE):
        raise Wrong(f"CHANGELOG.md: the section [{match[1]}] is empty; say what changed")
    return match[1], match[2], match[3]


def write(version: str, root: Path = ROOT) -> str:
    """Write a version into every place, date the changelog, and return what to do next."""
    if not VERSION.fullmatch(version):
        raise Wrong(f"the version is {version!r}; expected three numbers, such as VERSION=0.2.0")
    before = versions(root)["pyproject.toml"]
    name, _, _ = top_section(root)
    if name != "Unreleased":
        raise Wrong(f"CHANGELOG.md begins with [{name}]; expected [Unreleased], with what changed since")
    others = [section[1] for section in SECTION.finditer((root / "CHANGELOG.md").read_text(encoding="utf-8"))][1:]
    if "Unreleased" in others:
        raise Wrong("CHANGELOG.md has two sections [Unreleased]; expected one, at its top")
    latest = max([TAKEN, *others], key=numbers)
    if numbers(version) <= numbers(latest):
        raise Wrong(f"the version is {version}, and {latest} is released; expected a higher one")
    dirty = subprocess.run(["git", "status", "--porcelain"], cwd=root, check=True, capture_output=True, text=True).stdout
    if dirty:
        raise Wrong(f"{len(dirty.splitlines())} files are not committed, such as {dirty.split()[1]}; commit them first")
    today = datetime.date.today().isoformat()
    for place, line in PLACES.items():
        text = (root / place).read_text(encoding="utf-8")
        start, end = re.search(line, text, re.MULTILINE).span(1)
        text = text[:start] + version + text[end:]
        if place == "CITATION.cff":
            text = re.sub(r"^date-released: .*\n", "", text, flags=re.MULTILINE)
            text = re.sub(r"^version: .*\n", rf"\g<0>date-released: {today}\n", text, flags=re.MULTILINE)
        (root / place).write_text(text, encoding="utf-8")
    log = root / "CHANGELOG.md"
    text = re.sub(
        r"^## \[Unreleased\].*$", f"## [{version}] - {today}", log.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE
    )
    log.write_text(text, encoding="utf-8")
    return (
        f"{before} is {version} in {', '.join(PLACES)}, and in CHANGELOG.md.\n"
        f"Next: git diff; make test-all; git commit -am 'release {version}'; git tag v{version}; git push --follow-tags"
    )


def numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers, which can be compared."""
    return tuple(map(int, re.findall(r"\d+", version)))


def check_tag(tag: str, root: Path = ROOT) -> str:
    """Return a line if a tag is the version of every place and of the changelog; else stop."""
    expected = {**versions(root), "CHANGELOG.md": top_section(root)[0]}
    for place, version in expected.items():
        if tag != f"v{version}":
            raise Wrong(f"the tag is {tag!r}, and {place} says {version}; expected v{version}")
    date, cff = top_section(root)[1], (root / "CITATION.cff").read_text(encoding="utf-8")
    if date is None or f"\ndate-released: {date}\n" not in cff:
        raise Wrong(f"the section [{tag[1:]}] of CHANGELOG.md has the date {date}; expected one, and the same in CITATION.cff")
    return f"{tag} is the version of {', '.join(expected)}"


def files_of_wheel(wheel: Path) -> dict[str, str]:
    """Return a digest of each file of a wheel, without the list of the wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def check_contents(folder: Path) -> str:
    """Return a line if a folder's wheel has the package alone, and its sdist builds the same wheel; else stop."""
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        raise Wrong(f"{folder} has {len(wheels)} wheels and {len(sdists)} sdists; expected one of each: make dist")
    files = files_of_wheel(wheels[0])
    info = next(name for name in files if name.endswith("/METADATA")).split("/")[0]
    strange = [name for name in files if not name.startswith((f"{info}/", "flows/"))]
    strange += [name for name in files if name.startswith("flows/") and not name.endswith((".py", "py.typed", ".mplstyle"))]
    if strange:
        raise Wrong(f"{wheels[0].name} has {strange[0]}; expected the package alone, without tests and data")
    for needed in ("flows/py.typed", "flows/results/pictures/flows.mplstyle"):
        if needed not in files:
            raise Wrong(f"{wheels[0].name} lacks {needed}")
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(sdists[0]) as archive:
            archive.extractall(scratch, filter="data")
        (source,) = Path(scratch).iterdir()
        build = [sys.executable, "-m", "build", "--wheel", "--outdir", os.path.join(scratch, "out"), str(source)]
        done = subprocess.run(build, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Wrong(f"{sdists[0].name} builds no wheel: {done.stdout[-300:]}{done.stderr[-300:]}")
        again = files_of_wheel(next(Path(scratch, "out").glob("*.whl")))
    differ = sorted(name for name in files.keys() | again.keys() if files.get(name) != again.get(name))
    if differ:
        raise Wrong(f"the wheel of {sdists[0].name} has another {differ[0]}")
    return f"{wheels[0].name}: {len(files)} files, the package alone; {sdists[0].name} builds the same wheel"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("version", nargs="?", help="the version to write, such as 0.2.0")
    parser.add_argument("--tag", help="a tag to check")
    parser.add_argument("--contents", type=Path, metavar="FOLDER", help="a folder with a wheel and an sdist to check")
    asked = parser.parse_args()
    try:
        if asked.tag is not None:
            print(check_tag(asked.tag))
        elif asked.contents:
            print(check_contents(asked.contents))
        else:
            print(write(asked.version or ""))
    except (
        Wrong,
        OSError,
        ValueError,
        subprocess.SubprocessError,
        tarfile.TarError,
        zipfile.BadZipFile,
        StopIteration,
    ) as error:
        kind = "" if isinstance(error, Wrong) else f"{type(error).__name__}: "
        sys.exit(f"release: {kind}{' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
