"""Pages as notebooks: the text of which a page is made, without outputs; and an archive of the tutorials with their rows.

Figures in prose, {fig}`expression:format`, are computed on the page and in the notebook: there by a cell whose code is hidden.
"""

import functools
import itertools
import posixpath
import re
import tomllib
import zipfile
from pathlib import Path

from flows.core.extras import CHECKOUT, installs

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DATA = ROOT / "examples" / "data"
FENCED = re.compile(r"^(`{3,})([^\n]*)\n(.*?)^\1$\n?", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"{fig}`([^`]+)`")
ROLE = re.compile(r"{[\w:]+}`([^`<]+?)(?: <([^`]+)>)?`")
CODE_OR_LINK = re.compile(r"(?<!`)`[^`\n]+`(?!`)|(!?)\[([^\]]*)\]\(([^)\s]*)[^)]*\)")
MARKS = (  # of MyST alone: comments, options and ends of directives, and what tabs are called
    (re.compile(r"^:{3,}{tab-item} (.*)$", re.MULTILINE), r"### \1"),
    (re.compile(r"^(?:% |<p class=|:::|:[\w-]+:).*\n+", re.MULTILINE), ""),
)
TITLE = re.compile(r"^# .*\n", re.MULTILINE)
LACKING = "This notebook reads rows from the folder data/, which is in tutorials.zip, in the folder notebooks of the site."
NOTES = "{note}", "{tip}", "{warning}"


def pieces(text):
    """The prose before each fenced block, with the block's parts: the whole, its fence, what stands behind that, its lines."""
    end = 0
    for block in FENCED.finditer(text):
        yield text[end : block.start()], (block[0], *block.groups())
        end = block.end()
    yield text[end:], None


def glued(text):
    """The text in which hidden cells before paragraphs compute their figures."""
    number = itertools.count()

    def paragraph(part):
        code = []

        def figure(match):
            name = f"figure {next(number)}"
            code.append(f'glue({name!r}, f"""{{ {match[1]}}}""", display=False)')
            return f"{{glue:text}}`{name}`"

        prose = FIGURE.sub(figure, part)
        cell = ["```{code-cell}", "---", "tags: [remove-cell]", "---", "from myst_nb import glue", "", *code, "```\n\n"]
        return "\n".join(cell) * bool(code) + prose.lstrip("\n" * bool(code))

    whole = (("\n\n".join(map(paragraph, prose.split("\n\n"))), block[0] if block else "") for prose, block in pieces(text))
    return "".join(itertools.chain.from_iterable(whole))


def linked_to(docname, text, urls):
    """The text with links to its notebook below its title, on the first page at its end; to Colab if there is a repository."""
    if not runs_alone(text):
        return text
    up = "../" * docname.count("/")
    links = {"Download as a notebook": f"{up}notebooks/{docname}.ipynb"}
    if docname.startswith("tutorials/"):
        links["All six with their rows"] = f"{up}notebooks/tutorials.zip"
    if repository := re.fullmatch(r"https://github.com/([^/]+/[^/]+?)/?", urls.get("Repository", "")):
        links["Open in Colab"] = f"https://colab.research.google.com/github/{repository[1]}/blob/notebooks/{docname}.ipynb"
    line = " · ".join(f'<a href="{href}">{title}</a>' for title, href in links.items())
    line = f'\n<p class="notebook">{line}</p>\n'
    return f"{text}\n{line}" if docname == "index" else TITLE.sub(lambda title: title[0] + line, text, count=1)


def notebook(docname, text, urls, pages):
    """Of a page; `pages` has the page of each public name. Links lead to the site where the project names one."""
    site, folder = urls.get("Documentation", "").rstrip("/"), docname.rpartition("/")[0]

    def role(match):
        target = match[2] or match[1]
        return f"[`{match[1]}`]({site}/{pages[target]}.html#{target})" if site and target in pages else f"`{match[1]}`"

    def link(match):
        if match[3] is None or "://" in match[3]:
            return match[0]
        path, _, place = match[3].lstrip("/").partition("#")
        page = posixpath.normpath(posixpath.join("" if match[3][0] == "/" else folder, path)) if path else f"{docname}.md"
        words = match[2] or title_of(page)
        at = f"{site}/{page.removesuffix('.md')}.html{'#' * bool(place)}{place}"
        return f"[{words}]({at})" if site and not match[1] and page.endswith(".md") else words

    def plain(prose):
        prose = functools.reduce(lambda prose, mark: mark[0].sub(mark[1], prose), MARKS, ROLE.sub(role, prose))
        return CODE_OR_LINK.sub(link, prose)

    def words(prose):
        """Cells of text; a paragraph with figures is one that computes them."""
        for figures, parts in itertools.groupby(prose.split("\n\n"), lambda part: bool(FIGURE.search(part))):
            if figures:
                yield from (hidden(part, plain) for part in parts)
            elif cleaned := plain("\n\n".join(parts) + "\n").strip():
                yield cell("markdown", cleaned)

    cells = []
    for prose, block in pieces(text):
        cells += words(prose)
        cells += of_block(*block, plain) if block else []
    cells.insert(1, cell("code", first_cell(text)))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    cells = [{"id": f"cell-{number}", **each} for number, each in enumerate(cells)]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": cells}


def of_block(whole, fence, kind, lines, plain):
    """A block of Python is code, a note a quotation, and code that is not run stays as it is; other directives are left out."""
    if kind == "python":
        return [cell("code", lines.rstrip())]
    if kind.startswith("{code-block}"):
        return [cell("markdown", f"{fence}{kind.removeprefix('{code-block} ')}\n{MARKS[1][0].sub('', lines).strip()}\n{fence}")]
    if kind in NOTES:
        return [cell("markdown", re.sub(r"^", "> ", plain(lines).strip(), flags=re.MULTILINE))]
    return [] if "{" in kind else [cell("markdown", whole.rstrip())]


def title_of(page):
    found = TITLE.search(path.read_text()) if (path := ROOT / "docs" / page).exists() else None
    return found[0][2:].strip() if found else page


def cell(kind, source, **metadata):
    """As nbformat has it; code has no outputs."""
    return {"cell_type": kind, "metadata": metadata, "source": source} | (
        {"outputs": [], "execution_count": None} if kind == "code" else {}
    )


def hidden(part, plain):
    """A cell that shows a paragraph with its figures; its code is folded."""
    template = [plain(piece).replace("{", "{{").replace("}", "}}") for piece in FIGURE.split(part)[::2]]
    figures = ", ".join(f'f"""{{ {expression}}}"""' for expression in FIGURE.findall(part))
    code = f"from IPython.display import Markdown\n\nMarkdown({'{}'.join(template).strip()!r}.format({figures}))"
    return cell("code", code, jupyter={"source_hidden": True}, cellView="form")


def first_cell(text):
    """How flows is installed, with what the page imports; and where its rows are, if it reads any."""
    modules = set(re.findall(r"^(?:import|from) (?:flows\.)?(?:interop\.)?(\w+)", text, re.MULTILINE))
    hint = installs(",".join(sorted({"examples", "sklearn"} | (modules & PROJECT["optional-dependencies"].keys()))))
    lines = ["# Run all cells: some of the text is computed."]
    lines += [f"# flows, if it is not there: {hint}" if hint.endswith(CHECKOUT) else f"%{hint}"]
    if rows_of(text):
        lines += ["from pathlib import Path", "", 'if not Path("data").exists():', f"    raise FileNotFoundError({LACKING!r})"]
    return "\n".join(lines)


def runs_alone(text):
    """Whether a page imports nothing that lies in docs/, and so is a notebook, too."""
    imported = re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)
    return not any((ROOT / "docs" / f"{name}.py").exists() for name in imported)


def rows_of(text):
    return sorted(set(re.findall(r"[\"']data/([\w.-]+)[\"']", text)))


def write_all(texts, folder, urls, pages):
    """A notebook of each text, {document: text}, and the archive of the tutorials, their rows, and the rows' licences."""
    import nbformat

    archive = {}
    for docname, text in ((name, each) for name, each in texts.items() if runs_alone(each)):
        path = folder / f"{docname}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        made = nbformat.from_dict(notebook(docname, text, urls, pages))
        nbformat.validate(made)
        path.write_text(nbformat.writes(made))
        if docname.startswith("tutorials/"):
            archive |= {path.name: path} | {f"data/{name}": DATA / name for name in ["README.md", *rows_of(text)]}
    with zipfile.ZipFile(folder / "tutorials.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, path in sorted(archive.items()):
            file.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
