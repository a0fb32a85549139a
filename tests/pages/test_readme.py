"""The blocks of README run as they are, and print what stands below them; those of the guide that show each part of the library
run with smaller numbers than a reader's, each page's in order, as one program."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {  # and the text at which what is run here ends
    "first": "Five epochs are few.",
    "training": "## What a fit went through",
    "tables": "What follows is a table",
    "estimators": "## A density",
    "layers": "",
    "parts": "## Transformers",
    "conditional": "## Fitted",
    "saving": "",
    "checks": "",
}
SMALLER = {
    r"max_epochs=(2|3|5|20|100)\b": "max_epochs=1",
    r"members=\d+": "members=2",
    r"NSF\((num_layers=)?[12](, hidden=\((32|16),\))?\)": "NSF(1, hidden=(4,), num_bins=3)",
    r"log_density, 2, ": "log_density, 2, max_epochs=1, steps_per_epoch=10, starts=2, ",
    r"MAF\(num_layers=3\)": "MAF(num_layers=1, hidden=(4,))",
    r"RealNVP\(num_layers=4, hidden=\(32,\)\)": "RealNVP(num_layers=1, hidden=(4,))",
    r"num_bins=\d+": "num_bins=2",
    r"(banana|simulated)\((\d)_000\)": r"\1(\g<2>00)",
    r"(MLP|MaskedResidual)\(32\)": r"\1(4)",
}
SAME = {"Gaussian": 0.01, "fit": 0.15}  # what other processors and compilers may add to a log-likelihood


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def shown(page):
    text, end = (ROOT / "docs" / "guide" / f"{page}.md").read_text(), PAGES[page]
    assert end in text, f"{page}.md has no {end!r}"
    return blocks(text.partition(end)[0] if end else text)


def smaller(block):
    for pattern, replacement in SMALLER.items():
        block = re.sub(pattern, replacement, block)
    return block


def run(blocks, name):
    namespace = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)


@pytest.mark.usefixtures("relaxed")
@pytest.mark.filterwarnings("ignore:fit_to_density. the model is too narrow")  # after ten steps
@pytest.mark.parametrize("page", PAGES)
def test_the_guide_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(map(smaller, shown(page)), f"{page}.md")


def test_what_is_made_smaller_is_there():
    text = "".join("".join(shown(page)) for page in PAGES)
    assert all(re.search(pattern, text) for pattern in SMALLER)


@pytest.mark.filterwarnings("ignore:.*was still falling")  # as it is by other versions of jax, whose roundings are others
def test_the_readme_prints_what_it_shows(capsys):
    (program,) = blocks(README)
    assert len(program.strip().splitlines()) == 5, "import flows, an empty line, and three lines of code"
    run([program], "README.md")
    expected = re.search(r"```text\n(.*?)```", README, re.DOTALL)[1].splitlines()
    printed = capsys.readouterr().out.splitlines()
    number = re.compile(r"-?\d[\d.,]*")
    assert len(printed) == len(expected)
    for one, other in zip(printed, expected, strict=True):
        what = one.split()[0]
        if what in ("FitResult", "model"):
            assert one == other
        assert number.sub("#", one) == number.sub("#", other)
        if what in SAME:
            first, second = (float(number.search(line.partition("log-likelihood")[2])[0].rstrip(",")) for line in (one, other))
            assert first == pytest.approx(second, abs=SAME[what])


def test_the_readme_is_read_in_two_minutes():
    assert README.count("\n") <= 110
    assert len(re.findall(r"^!\[.{40,}\]\(docs/static/strip\.webp\)$", README, re.MULTILINE)) == 1
    assert (ROOT / "docs" / "static" / "strip.webp").stat().st_size <= 300_000
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), f"README.md links to {link}, which is not there"
    for page in (ROOT / "docs" / "guide").glob("*.md"):
        assert f"](docs/guide/{page.name})" in README, f"README.md does not lead to {page.name}"


def test_its_figures_are_those_that_were_measured():
    told = " ".join(README.split())
    for each in runpy.run_path(str(ROOT / "docs" / "measured.py"))["claims"]():
        assert f"- **{each.title}.** {each.text} [" in told, f"README.md should say: {each.text}"
        assert f"{each.page})" in told and (ROOT / "docs" / each.page).exists()
