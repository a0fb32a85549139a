"""What the documentation shows, without building it (`make docs` does)."""

import ast
import itertools
import json
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import registry

import flows
from flows.core import BijectionInit
from flows.core.constructors import is_constructor
from flows.results.pictures.axes import STYLE

DOCS = Path(__file__).parents[2] / "docs"
PAGES = "\n".join(page.read_text() for page in DOCS.rglob("*.md"))


@pytest.fixture(scope="module")
def conf():
    return runpy.run_path(str(DOCS / "conf.py"))


def test_every_public_name_has_a_docstring_and_a_page(conf):
    """One page each: a second one would make links ambiguous."""
    assert "flows.NSF" in conf["PUBLIC"] and "flows.transformers.Affine" in conf["PUBLIC"]
    shown = Counter()
    for asked in re.findall(r"{{ (reference\(.*?\)) }}", PAGES, re.DOTALL):
        call = ast.parse(asked.strip(), mode="eval").body
        keywords = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
        groups = conf["grouped"](*map(ast.literal_eval, call.args), **keywords)
        assert all(groups.values()), f"a group of {asked} is empty"
        places = itertools.chain.from_iterable((keywords.get("groups") or {}).values())
        assert all(conf["names_at"]([place]) for place in places), f"nothing is at a place of {asked}"
        shown.update(itertools.chain.from_iterable(groups.values()))
    for name, (_, thing) in conf["PUBLIC"].items():
        assert thing.__doc__, f"{name} has no docstring"
        assert shown[name] == 1, f"{name} is on {shown[name]} pages of docs/reference"


def test_methods_have_entries_too(conf):
    """Also those that a class has of a base which is none of users'."""
    asked = ("FitResult.cdf", "FitResult.scores", "training.EnsembleResult.log_pdfs", "tables.Schema.from_json")
    assert {f"flows.{name}" for name in asked} <= conf["MEMBERS"].keys()
    assert "flows.training.EnsembleResult.p_value" not in conf["MEMBERS"], "it is described where FitResult is"
    assert any("cdf, quantile, interval" in line for line in conf["entry"]("flows.FitResult"))


def test_every_page_of_the_reference_begins_with_a_sentence_and_a_table():
    for page in (DOCS / "reference").glob("*.md"):
        title, sentence, table = page.read_text().split("\n\n")[:3]
        assert title.startswith("# ") and re.search(r"\w.*[.:]$", sentence, re.DOTALL), f"{page.name} begins with no sentence"
        assert re.match(r"\||{{ (reference|families)\(", table), f"{page.name} has no table after its first sentence"


ELSEWHERE = {"In figures": "{{ claims() }}", "Where to go": "{grid-item-card}"}  # what shows the same on the site
MOVED = {  # sections that README had, and the page that has each now
    "A flow in five lines": "tutorials/first",
    "Training is the loop you already write": "guide/training",
    "Tables": "guide/tables",
    "In a shell": "guide/shell",
    "Estimators for scikit-learn": "guide/estimators",
    "A layer is a function": "tutorials/layer",
    "Any transformer in any engine": "guide/parts",
    "Conditional flows": "tutorials/given",
    "Save, load, describe": "guide/saving",
}


def test_every_section_of_the_readme_has_a_page():
    for title in re.findall(r"^## (.*)$", (DOCS.parent / "README.md").read_text(), re.MULTILINE):
        page = ELSEWHERE.get(title, f'{{{{ readme("{title}") }}}}')
        assert page in PAGES, f"the README's section {title!r} is on no page of docs/"
    for title, page in MOVED.items():
        assert (DOCS / f"{page}.md").exists() and f"{page}\n" in PAGES, f"{title!r} has no page"


def test_code_is_at_most_88_wide():
    root = DOCS.parent
    pages = [root / "README.md", root / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
    pages += [page for folder in ("examples", "benchmarks") for page in (root / folder).rglob("*.md")]
    for page in pages:
        for line in code_of(page.read_text()):
            assert len(line) <= 88, f"{page.relative_to(root)}, {len(line)} characters wide: {line}"


def code_of(text):
    """The lines of blocks of code, fenced or indented; a fence with a directive of Sphinx is none, nor what a program above it
    prints."""
    text = re.sub(r"(```python\n.*?```\n)\n*```text\n.*?```", r"\1", text, flags=re.DOTALL)
    fence, code, indented, before = "", False, False, ""
    for line in text.split("\n"):
        mark = re.match(r"(`{3,})(.*)", line)
        if mark and not fence:
            fence, code = mark[1], "{" not in mark[2]
        elif mark and line.rstrip() == fence:
            fence = ""
        indented = not fence and line.startswith("    ") and (indented or not before)
        if indented or (fence and code and not mark):
            yield line
        before = line


def test_code_of_pages_is_found():
    text = "a\n\n    b\n    c\n\n```python\nd\n```\ne\n    f\n```{glossary}\ng\n    h\n```\n````text\n```\ni\n````\nj"
    assert [*code_of(text)] == ["    b", "    c", "d", "i"]


def test_charts_show_what_was_measured():
    charts = runpy.run_path(str(DOCS / "charts.py"))["charts"]
    for name in ("speed", "first page", "verdicts", "first fits", "trust"):
        assert re.match(r'```{raw} html\n<div class="chart" role="img" aria-label="[^"]{100,}">', charts(name))
        assert charts(name).count("\n") == 2 and charts(name).count("<div") == charts(name).count("</div>")
    speed = json.loads((DOCS.parent / "benchmarks" / "results" / "speed.json").read_text())
    of = speed["throughput MAF d63, 1 thread"]
    seconds = of["flows"]["sample"] / 1000, of["flowjax"]["sample"] / 1000
    assert f"{1000 * seconds[0]:.3g} ms" in charts("speed") and f"{seconds[1]:.3g} s" in charts("speed")
    assert f"10,000 samples {seconds[1] / seconds[0]:.2f}" in charts("speed")
    first = json.loads((DOCS.parent / "benchmarks" / "results" / "first_fit.json").read_text())
    assert all(f"<span>{name}</span>" in charts("first fits") for name in first)
    assert "MAF(20), power: 5.1%, unsafe 100.0%, near 0.30%" in charts("trust")
    assert all(
        f"{{{{ {asked} }}}}" in PAGES for asked in ("claims()", 'charts("speed")', 'charts("first fits")', 'charts("trust")')
    )


def test_docstrings_are_plain_text(conf):
    as_rst = conf["as_rst"]
    given = """A *map*: y_i = |x_i| of `Affine`, or `{"a": 1}`.

    y = a * x

Args:
    n, m: how many
        of them.
    x: (batch, *event).

Errors:
    FlowsError: one. TypeError: another.

Example:
    >>> x * y
    6
"""
    expected = r"""A \*map\*: y\_i = \|x\_i\| of :py:obj:`Affine <flows.transformers.Affine>`, or ``{"a": 1}``.

.. code-block:: text

    y = a * x

:Args:
    - **n, m**: how many of them.
    - **x**: (batch, \*event).

:Errors:
    - **FlowsError**: one.
    - **TypeError**: another.

:Example:
    >>> x * y
    6

"""
    assert as_rst(given) == expected


def test_pictures_have_one_style():
    assert (DOCS / "flows.mplstyle").read_text() == Path(STYLE).read_text()


def test_the_table_of_bijections_is_whole(conf, monkeypatch):
    """Each public bijection has a row, with a label, what both directions cost, and events."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    of_table = runpy.run_path(str(DOCS / "families.py"))
    names = [name for name, thing in vars(flows).items() if is_constructor(thing) and isinstance(value_of(name), BijectionInit)]
    rows = {name: of_table["row"](name) for name in ("Coupling", "Dequantize", "MAF", "ResidualBlock", "Sylvester")}
    for name in names:
        assert re.fullmatch(r"Direct: .*[^.]\. Inverse: .*[^.]\.", of_table["section"](name, "Cost")), f"{name} has no Cost:"
        assert of_table["values_of"](name) and conf["family_of"](conf["PUBLIC"][f"flows.{name}"][0]), name
    assert "| exact | a pass of the network |" in rows["Coupling"] and "| yes | vectors and images |" in rows["Coupling"]
    assert "| exact or unbiased |" in rows["ResidualBlock"] and "| lower bound |" in rows["Dequantize"]
    assert "Papamakarios et al. 2017, [1705.07057]" in rows["MAF"] and "van den Berg et al. 2018" in rows["Sylvester"]
    assert "{{ families() }}" in PAGES


def value_of(name):
    known = [each.init_fun for each in registry.BIJECTIONS.values()] + list(registry.MODELS.values()) + [flows.Dequantize()]
    return next((each for each in known if each.constructor.__name__ == name), None)


def test_the_table_of_bijections_needs_no_library_of_the_tests():
    """The documentation is built where pytest is not installed."""
    code = "import sys; sys.modules['pytest'] = None; sys.path.insert(0, sys.argv[1]); import registry"
    subprocess.run([sys.executable, "-c", code, str(DOCS.parent / "tests")], check=True)


def test_sources_lead_back_to_the_entries_of_their_names(conf):
    """Of names of a package and of names of one of its rooms, in one file."""
    names = "flows.Bits", "flows.bits_per_dim", "flows.typicality.x"
    context = {"body": " ".join(f'<a href="../d.html#{name}">[docs]</a>' for name in names)}
    conf["on_html_page_context"](None, "_modules/flows/diagnostics/images", "page.html", context, None)
    found = re.findall(r'#([\w.]+)"', context["body"])
    assert found == ["flows.diagnostics.Bits", "flows.bits_per_dim", "flows.diagnostics.typicality.x"]


def test_pages_are_run_again_where_what_they_read_has_changed(conf, tmp_path, monkeypatch):
    monkeypatch.setitem(conf["digest"].__globals__, "ROOT", tmp_path)
    seen = {conf["digest"]()}
    read = ("flows/core/parts.py", "examples/two_moons.py", "examples/data/power.csv", "benchmarks/results/speed.json")
    for name in (*read, "docs/terminal.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for text in "ab":
            path.write_text(text)
            seen.add(conf["digest"]())
    assert len(seen) == 11
    (tmp_path / "docs" / "index.md").write_text("its blocks are what it is known by")
    (tmp_path / "docs" / "pictures").mkdir()
    (tmp_path / "docs" / "pictures" / "pictures.json").write_text("drawn by programs, and shown beside pages that run")
    assert conf["digest"]() in seen


def test_names_are_shown_where_code_uses_them(conf):
    made = runpy.run_path(str(DOCS / "shown_in.py"))
    lines = ["import flows", "from flows import sbi, NSF as Spline", "%run it", "flows.fit(0, sbi.Prior)", "# flows.MAF"]
    code = "\n".join([*lines, "fit = 'flows.check'"])
    assert made["names_in"](code) == {"flows", "flows.sbi", "flows.NSF", "flows.fit", "flows.sbi.Prior"}
    assert made["names_in"]("import flows.sklearn as fs\nfs.FlowDensity(flows.NSF)") == {
        "flows.sklearn",
        "flows.sklearn.FlowDensity",
    }
    documents = {document for of_name in made["shown"]().values() for document in of_name}
    programs = {f"/gallery/{path.stem}" for path in (DOCS.parent / "examples").glob("*.py")}
    assert len(documents) > 40 and all(name in programs or (DOCS / f"{name[1:]}.md").exists() for name in documents)
    assert conf["entry"]("flows.check")[-1] == f"   {made['shown_in']('flows.check')}" and "/guide/checks" in made["shown_in"](
        "flows.check"
    )
    assert made["shown_in"]("flows.nothing") == "" and made["shown_in"]("flows.fit").count(":doc:") == made["MOST"]
