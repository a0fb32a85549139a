"""Pages of words: the glossary, the questions, how to install and to cite; what is made of the shell and of pyproject.toml."""

import inspect
import re
import runpy
import tomllib
from pathlib import Path

import pytest

import flows
from flows.core.extras import CHECKOUT, installs

DOCS = Path(__file__).parents[2] / "docs"
PROJECT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
SEARCHED = (
    *("quantile", "interval", "anomaly", "outlier", "bounds", "constraint", "category", "count", "cluster", "missing values"),
    *("imputation", "calibration", "coverage", "posterior", "MCMC", "NUTS", "simulator", "ensemble", "uncertainty", "GPU"),
    *("time series", "likelihood", "nats", "bits", "base", "coupling", "tutorial", "quickstart"),
    *("SBC", "TARP", "C2ST", "PIT", "goodness of fit"),
    *("deploy", "impute", "getting started", "normalize data"),
)
ASKED = (
    *("loss go up", "outside the data", "density be above 1", "NaN", "first call slow", "Which model", "How many rows"),
    *("my model right", "a check FAILs", "five models fitted below 2,000 rows", "-inf mean", "context refused"),
)


@pytest.fixture(scope="module")
def conf():
    return runpy.run_path(str(DOCS / "conf.py"))


@pytest.fixture(scope="module")
def entries():
    """Of the glossary, as Sphinx reads it: lines at the margin are words, the lines below them say what they are."""
    glossary = re.search(r"```{glossary}\n:sorted:\n(.*?)```", (DOCS / "glossary.md").read_text(), re.DOTALL)[1]
    found = re.findall(r"((?:^\S.*\n)+)((?: {4}.*\n)+)", glossary, re.MULTILINE)
    assert "\n".join(words + text for words, text in found).strip() == glossary.strip(), "what is neither word nor text"
    return [(words.split("\n")[:-1], text) for words, text in found]


def made(name):
    return runpy.run_path(str(DOCS / f"{name}.py"))[name]()


def test_the_glossary_has_the_words_that_people_search_for(entries):
    words = [word for those, _ in entries for word in those]
    assert len(entries) >= 60 and len(words) == len({word.lower() for word in words})
    assert set(SEARCHED) <= set(words)


def test_each_word_has_two_sentences_and_a_link(entries):
    for words, text in entries:
        prose = re.sub(r"`[^`]*`|\([^)]*\)", "", text)
        assert len(re.findall(r"[.?!](?=\s)", prose)) >= 2, f"{words[0]} has no two sentences"
        assert "{py:obj}`" in text or "](" in text, f"{words[0]} has no link"


def test_links_of_the_pages_lead_somewhere(conf):
    known = conf["PUBLIC"].keys() | conf["MEMBERS"].keys()
    for page in [
        DOCS / "glossary.md",
        DOCS / "questions.md",
        DOCS / "install.md",
        DOCS / "cite.md",
        *(DOCS / "reference").glob("*.md"),
    ]:
        for target in re.findall(r"{py:obj}`(?:[^`<]*<|~)?([\w.]+)>?`", page.read_text()):
            assert target in known, f"{page.name} links to {target}, which has no entry"
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_questions_are_there_and_each_answer_has_a_link_or_a_program():
    _, *answers = re.split(r"^## ", (DOCS / "questions.md").read_text(), flags=re.MULTILINE)
    for asked in ASKED:
        assert any(asked in answer.partition("\n")[0] for answer in answers), f"nobody answers {asked!r}"
    for answer in answers:
        title, text = answer.split("\n", 1)
        assert title.endswith("?") and ("](" in text or "{py:obj}" in text or "```python" in text), f"{title!r} leads nowhere"


def test_the_commands_have_all_their_options():
    from flows.cli.app import app

    page, table = made("commands"), (DOCS / "reference" / "shell.md").read_text()
    for command in app.registered_commands:
        part = page.split(f"## flows {command.name}\n")[1].split("\n## ")[0]
        assert f"| [](#flows-{command.name}) |" in table, f"flows {command.name} is not in the first table of its page"
        assert command.callback.__doc__ in part
        for parameter in inspect.signature(command.callback).parameters.values():
            info = parameter.annotation.__metadata__[0]
            names = [name for name in (info.default, *(info.param_decls or ())) if name is not ...] or [info.metavar]
            assert all(f"`{name}`" in part for name in names) and info.help in part, f"flows {command.name}: {parameter.name}"
    assert "| `-o`, `--output` TEXT | The file of the model. It is needed. |  |" in page
    assert (
        r"| `--model` auto \| NSF \| MAF \| RealNVP \| Gaussian \| AnySubset | Model of numbers; auto keeps the best of "
        "several, AnySubset takes gaps. | `auto` |" in page
    )
    assert "It may be given several times." in page


def test_the_table_of_extras_is_that_of_pyproject():
    table = made("extras")
    for name, packages in PROJECT["optional-dependencies"].items():
        assert f"| `{installs(name).removesuffix(CHECKOUT)}` |" in table and packages[0] in table


def test_sources_are_those_of_the_docstrings(conf):
    page = made("papers")
    rows = dict(re.findall(r"^\| {py:obj}`([\w.]+)` \| (.*) \|$", page, re.MULTILINE))
    for name, (home, thing) in conf["PUBLIC"].items():
        assert (name in rows) == ("\nSource:\n" in inspect.getdoc(thing)), f"{name} and its source"
        if home.startswith("flows.models.") and inspect.isroutine(thing) and name != "flows.models.preset":
            assert re.search(r", \d{4}, \[arXiv:([\d.]+)\]\(https://arxiv.org/abs/\1\)", rows[name]), f"{name} has no paper"
    assert not re.search(r"(?<!\[)arXiv:\d", page), "an arXiv id without a link"
    assert "Durkan, Bekasov, Murray and Papamakarios" in rows["flows.NSF"]


def test_the_citation_is_of_this_version():
    cff = dict(re.findall(r"^([\w-]+): (.*)$", (DOCS.parent / "CITATION.cff").read_text(), re.MULTILINE))
    assert cff["cff-version"] == "1.2.0" and cff["version"] == flows.__version__ == PROJECT["version"]
    assert cff["license"] == PROJECT["license"] and cff["abstract"].strip('"') == PROJECT["description"]
    assert f"version = {{{flows.__version__}}}" in (DOCS / "cite.md").read_text()
