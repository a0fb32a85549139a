"""Blocks of README run as they are, and print what stands below them; blocks of tutorials and of the guide run with fits of an
epoch and small models, in order, as one program a page."""

import re
import runpy
from pathlib import Path

import pytest

import flows
from flows.training.loop.driver import Loop

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {  # and the text at which what is run here ends
    "tutorials/first": "",
    "tutorials/table": "",
    "tutorials/given": "",
    "tutorials/posterior": "",
    "tutorials/images": "",
    "tutorials/layer": "",
    "guide/training": "## What a fit went through",
    "guide/tables": "",
    "guide/estimators": "## A density",
    "guide/parts": "## Transformers",
    "guide/saving": "",
    "guide/checks": "",
}
SMALL = {"NSF": (1, (4,)), "MAF": (1, (4,)), "RealNVP": (1, (4,)), "NSFImage": (1, 4)}  # layers and widths
SAME = {"Gaussian": 0.01, "fit": 0.15}  # what other processors and compilers may add to a log-likelihood


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def shown(page):
    text, end = (ROOT / "docs" / f"{page}.md").read_text(), PAGES[page]
    assert end in text, f"{page}.md has no {end!r}"
    return blocks(text.partition(end)[0] if end else text)


@pytest.fixture
def capped(monkeypatch, tmp_path):
    """Every fit ends after an epoch, models of a page are small, and its rows are where it reads them."""
    monkeypatch.setattr(Loop, "over", property(lambda self: bool(self.members[0].train)))
    for name, (layers, width) in SMALL.items():
        made = getattr(flows, name)
        monkeypatch.setattr(flows, name, lambda *_, made=made, small=(layers, width), **__: made(*small))
    (tmp_path / "data").symlink_to(ROOT / "examples" / "data")
    monkeypatch.chdir(tmp_path)


def run(blocks, name):
    namespace = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)


@pytest.mark.usefixtures("relaxed", "capped")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of fits of an epoch
@pytest.mark.parametrize("page", PAGES)
def test_the_pages_run(page):
    run(shown(page), f"{page}.md")


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
    for page in [*(ROOT / "docs" / "guide").glob("*.md"), *(ROOT / "docs" / "tutorials").glob("*.md")]:
        assert f"]({page.relative_to(ROOT)})" in README, f"README.md does not lead to {page.name}"


def test_its_figures_are_those_that_were_measured():
    told = " ".join(README.split())
    for each in runpy.run_path(str(ROOT / "docs" / "measured.py"))["claims"]():
        assert f"- **{each.title}.** {each.text} [" in told, f"README.md should say: {each.text}"
        assert f"{each.page})" in told and (ROOT / "docs" / each.page).exists()
