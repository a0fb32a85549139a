"""Pages as notebooks: what `make docs` writes beside the pages, as far as it takes no Sphinx."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = """# A page

Text of {py:obj}`fit <flows.fit>`, a [link](../guide/tables.md) and `code`.

% alt: A line that nobody needs.
```python
rows = open("data/rows.csv")
```

The mean is {fig}`mean:.2f`, in {braces} and \\ "quotes", of {fig}`{"a": 2}["a"]` "rows"

```text
printed
```

```{note}
Kept, as a [quotation](#place).
```

`code[1](x)` and [](../guide/tables.md "a title").

:::{tab-item} zuko
:sync: zuko

```{code-block} python
:caption: theirs

import zuko
```
:::

```{grid} 1
left out
```
"""


@pytest.fixture(scope="module")
def made():
    return runpy.run_path(str(DOCS / "notebooks.py"))


def test_text_and_blocks_become_cells(made):
    cells = made["notebook"]("tutorials/page", PAGE, {}, {})["cells"]
    kinds = [(each["cell_type"], bool(each["metadata"])) for each in cells]
    code, text = ("code", False), ("markdown", False)
    assert kinds == [text, code, code, ("code", True), text, text, text, text]
    assert cells[0]["source"] == "# A page\n\nText of `fit`, a link and `code`."
    assert [each["source"] for each in cells[5:]] == [
        "> Kept, as a quotation.",
        "`code[1](x)` and Tables of numbers, categories, angles and dates.\n\n### zuko",
        "```python\nimport zuko\n```",
    ]
    assert cells[2]["source"] == 'rows = open("data/rows.csv")'
    assert len({each["id"] for each in cells}) == len(cells)
    shown = cells[3]["source"].replace("from IPython.display import Markdown", "Markdown = str")
    namespace = {"mean": 1.234}
    exec(shown.replace("\nMarkdown(", "\nprose = Markdown("), namespace)
    assert namespace["prose"] == 'The mean is 1.23, in {braces} and \\ "quotes", of 2 "rows"'


def test_a_notebook_without_its_rows_says_where_they_are(made, tmp_path, monkeypatch):
    first = made["notebook"]("page", PAGE, {}, {})["cells"][1]["source"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"folder data/, which is in tutorials\.zip"):
        exec(first, {})
    (tmp_path / "data").mkdir()
    exec(first, {})
    assert "pip install" in first and made["first_cell"]("import blackjax").count("blackjax") == 1
    assert "data" not in made["first_cell"]("import blackjax")


def test_links_lead_to_the_site_where_the_project_names_one(made):
    urls = {"Documentation": "https://flows.example.org/", "Repository": "https://github.com/someone/flows"}
    text = made["notebook"]("tutorials/page", PAGE, urls, {"flows.fit": "reference/fit"})["cells"][0]["source"]
    assert "[`fit`](https://flows.example.org/reference/fit.html#flows.fit)" in text
    assert "[link](https://flows.example.org/guide/tables.html)" in text
    of_page = made["linked_to"]("tutorials/page", PAGE, urls)
    colab = "https://colab.research.google.com/github/someone/flows/blob/notebooks/tutorials/page.ipynb"
    assert of_page.count("<a href=") == 3 and f'<a href="{colab}">Open in Colab</a>' in of_page
    without = made["linked_to"]("page", PAGE, {})
    assert without.count("<a href=") == 1 and '<a href="notebooks/page.ipynb">' in without


def test_figures_are_computed_before_their_paragraph(made):
    pages = made["glued"](PAGE)
    cell = pages.index('glue(\'figure 0\', f"""{ mean:.2f}""", display=False)')
    assert pages.index("rows = open") < cell < pages.index("The mean is {glue:text}") and "{fig}" not in pages
    assert pages.count("```{code-cell}") == 1 and "`figure 1`" in pages


def test_notebooks_have_every_block_of_their_pages(made):
    for path in [*DOCS.glob("*.md"), *(DOCS / "tutorials").glob("*.md"), *(DOCS / "guide").glob("*.md")]:
        text = path.read_text()
        blocks = [block.rstrip() for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
        cells = made["notebook"](path.stem, text, {}, {})["cells"] if blocks else []
        code = [each["source"] for each in cells if each["cell_type"] == "code" and not each["metadata"]]
        assert code[1:] == blocks, path.name
        assert not any("{fig}" in each["source"] or "% alt" in each["source"] for each in cells), path.name


def test_pages_that_need_files_of_the_docs_are_no_notebooks(made):
    paths = [path for folder in (".", "guide", "tutorials") for path in (DOCS / folder).glob("*.md")]
    pages = {path.stem: path.read_text() for path in paths}
    assert [name for name, text in pages.items() if not made["runs_alone"](text)] == ["shell"]
    assert made["linked_to"]("guide/shell", pages["shell"], {}) == pages["shell"]


def test_tutorials_are_what_they_promise():
    """A question, what can go wrong and where to go next; figures in prose are computed."""
    pages = sorted((DOCS / "tutorials").glob("*.md"))
    assert [page.stem for page in pages] == ["first", "given", "images", "layer", "posterior", "table"]
    for page in pages:
        text = page.read_text()
        assert re.match(r"# .*\?\n", text), f"{page.name} begins with no question"
        assert text.count("% answer: ") == 1 and "{fig}`" in text, f"{page.name} has no answer, or no figure"
        wrong = text.partition("## What can go wrong\n")[2].partition("## Where next\n")
        assert len(re.findall(r"^\*\*.*\.\*\*", wrong[0], re.MULTILINE)) == 3 and wrong[2].count("\n- [") == 3, page.name
