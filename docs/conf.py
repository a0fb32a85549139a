"""Settings of Sphinx, for `make docs`. README, docstrings and each module's `__all__` are the sources: a page shows of them
what it asks for, and nothing is told twice.

Pages are Markdown (MyST) and Jinja templates, in which `{{ readme("The contract") }}` is a section of the README and
`{{ reference("flows.models") }}` all public names that are defined there, `groups=` which of them under which heading. Public
names in prose become links. What is made of the library has a file next to this one: `{{ families() }}` is the table of all
bijections, and so are the commands, papers, extras, claims, charts, the gallery, what was checked, what flows are worth, and
which model to take. A page's blocks of Python are run as one program, and what they return is shown; a block that fails, fails
the build. A comment before a block that draws is what its picture shows, for those who do not see it: `% alt: rows and samples,
side by side`; as `% answer:` the picture is shown below the title of the page, too. A comment `% says: FAIL` fails the build
where what the block prints or returns lacks these words. Figures in prose are computed on the page, {fig}`mean:.2f`, and
`notebooks.py` writes each page with code as a notebook.
"""

import hashlib
import inspect
import itertools
import json
import logging
import os
import re
import runpy
import shutil
import sys
from functools import cached_property
from importlib.metadata import distributions
from pathlib import Path
from textwrap import dedent, indent

import flows
import flows.interop  # these are imported when they are first named, and are public too
import flows.large
import flows.sbi
import flows.sklearn
import flows.tables

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
NOTEBOOKS = runpy.run_path(str(Path(__file__).with_name("notebooks.py")))
URLS = NOTEBOOKS["PROJECT"].get("urls", {})  # the site and the repository, where there are some

project, author, release = "flows", "the jax-flows authors", flows.__version__
project_copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton", "sphinx_design"]
myst_enable_extensions = ["colon_fence"]  # around tabs, in which prose has links and blocks are not run
nitpicky = True  # a link without a target is a warning, and a warning fails the build
nitpick_ignore_regex = [("py:class", ".*")]  # types in signatures, most of which are not ours

html_theme = "furo"
html_title = f"flows {release}"
html_static_path = ["static"]
html_css_files = ["flows.css"]
html_favicon = "static/icon.svg"
html_copy_source = False
if "Repository" in URLS:
    html_theme_options = {"source_repository": URLS["Repository"], "source_branch": "main", "source_directory": "docs/"}
smartquotes = False
copybutton_exclude = ".linenos, .gp, .go"  # code is copied without its prompts and outputs

add_function_parentheses = False
maximum_signature_line_length = 100
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

# What the programs on pages may read beside the page itself: where any of it has changed, all pages are run again. What this
# file makes of a page is in its blocks.
READ = ("flows/**/*.py", "examples/**/*.py", "examples/data/*", "benchmarks/results/*.json", "docs/*.py", "docs/*.mplstyle")


def digest():
    """A hash of these files, and of the packages that are installed."""
    made = hashlib.sha256(repr(sorted(f"{each.name} {each.version}" for each in distributions())).encode())
    for path in sorted({path for pattern in READ for path in ROOT.glob(pattern)} - {Path(__file__).resolve()}):
        made.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return made.hexdigest()[:16]


nb_execution_mode = "cache"  # which goes by the text of a page's blocks
nb_execution_cache_path = str(ROOT / "site" / "executed" / digest())
nb_execution_in_temp = True
nb_execution_timeout = -1
nb_execution_show_tb = True  # a cell that fails is a warning too
nb_merge_streams = True
nb_output_stderr = "warn"
nb_ipywidgets_js = {}  # nothing is fetched from elsewhere


# Which names are public

ROOMS = {name: each for name, each in vars(flows).items() if inspect.ismodule(each) and name[0] != "_" and name != "core"}
MODULES = [flows]
MODULES += [each for name, each in ROOMS.items() if name in flows.__all__]  # whose names users write
MODULES += [each for name, each in ROOMS.items() if name not in flows.__all__ and hasattr(each, "__all__")]
MODULES += [getattr(flows.interop, library) for library in flows.interop.LIBRARIES]


def names_of(module):
    own = [name for name, each in vars(module).items() if getattr(each, "__module__", None) == module.__name__]
    return getattr(module, "__all__", [name for name in own if not name.startswith("_")])


def public_names():
    """What users write, such as flows.NSF or flows.transformers.Affine, with the module that defines it and what it is."""
    found = {}
    for module in MODULES:
        for name in names_of(module):
            thing = getattr(module, name)
            if not inspect.ismodule(thing) and all(each is not thing for _, each in found.values()):
                found[f"{module.__name__}.{name}"] = getattr(thing, "__module__", module.__name__), thing
    return found


PUBLIC = public_names()
METHODS = (property, classmethod, staticmethod, cached_property)


def members_of(thing):
    """The public methods and properties that a class describes, also those of its private bases; the fields of a named tuple
    are in its own docstring, and how scikit-learn routes metadata in its pages."""
    public = [each for _, each in PUBLIC.values()]
    bases = list(itertools.takewhile(lambda base: base is thing or all(base is not each for each in public), thing.__mro__))
    found = {name: each for base in bases if base.__module__.startswith("flows") for name, each in vars(base).items()}
    described = [
        name for name, each in found.items() if (inspect.isroutine(each) or isinstance(each, METHODS)) and each.__doc__
    ]
    return [name for name in described if not re.match(r"_|set_\w+_request", name)]


MEMBERS = {
    f"{name}.{member}": name for name, (_, thing) in PUBLIC.items() if inspect.isclass(thing) for member in members_of(thing)
}

# What prose may call them: `flows.fit`, `transformers.Affine`, `Affine`; or as calls, such as `Affine(bound=2.0)`.
LINKS = {name: full for full in reversed(PUBLIC) for name in (full, full.removeprefix("flows."), full.rpartition(".")[2])}
LINKS |= {module.__name__: module.__name__ for module in MODULES[1:]}
LINKS |= {".".join(member.split(".")[-2:]): member for member in reversed(MEMBERS)}


def code(text, link, plain):
    """`text` as code; with a link to the public name that it is, or calls."""
    full = LINKS.get(text.partition("(")[0])
    return link.format(text, full) if full else plain.format(text)


# What pages ask for


def readme(title=""):
    """A section of the README without its heading; what stands before the first heading has no title. Links are those of the
    site, and what a block prints is left out, as the page that shows the block runs it."""
    start, *parts = re.split(r"^## ", README.read_text(), flags=re.MULTILINE)
    sections = {"": start} | dict(part.split("\n", 1) for part in parts)
    text = re.sub(r"(```python\n.*?```)\n+```text\n.*?```", r"\1", sections[title], flags=re.DOTALL)
    return text.replace("](docs/", "](/").replace("](benchmarks/", "](/benchmarks/")


def linked(page):
    """The same with a link where a public name stands as code in prose: in no heading, link, role or block of code."""
    fenced = r"^(`{3,}).*?^\1$"
    prose = r"^#.*$|\[[^\]\n]*\]\(|(?<![`}])`([^`\n]+)`(?!`)"
    found = re.compile(rf"{fenced}|{prose}", re.MULTILINE | re.DOTALL)
    return found.sub(lambda m: code(m[2], "{{py:obj}}`{} <{}>`", "`{}`") if m[2] else m[0], page)


def reference(*modules, groups=None, first=None):
    """The public names that modules define, as `grouped`: a table of how their docstrings begin, then each name with all of its
    docstring, the groups under headings."""
    groups = grouped(*modules, groups=groups, first=first)
    rooms = [each.__name__ for each in MODULES[1:] if f"{each.__name__}.".startswith(tuple(f"{room}." for room in modules))]
    table = [*(f".. py:module:: {room}" for room in rooms), "", ".. list-table::", ""]
    pages = []
    for title, names in groups.items():
        table += [f"   * - **{title}**", "     -"] if title else []
        table += [f"   * - :py:obj:`{name}`\n     - {beginning(PUBLIC[name][1])}" for name in names]
        pages += [f"## {title}"] if title else []
        pages += [as_directive(itertools.chain.from_iterable(map(entry, names)))]
    return "\n\n".join([as_directive(table), *pages])


def grouped(*modules, groups=None, first=None):
    """The public names of modules by group: {title: names}. `groups` has modules or names for each title; with `first`, a
    module says its family itself, and the families with these titles come first, in this order."""
    if first is None:
        return {title: names_at(places) for title, places in (groups or {"": modules}).items()}
    families = {title: [] for title in first}
    for name in names_at(modules):
        if title := family_of(PUBLIC[name][0]):
            families.setdefault(title, []).append(name)
    return families


def family_of(module):
    """The title behind "Family:" in the docstring of a module; nothing where there is none."""
    found = re.search(r"\bFamily: (.*)\.$", sys.modules[module].__doc__ or "", re.MULTILINE)
    return found[1] if found else ""


def beginning(thing):
    """Its docstring up to the first line that ends with a full stop, or to the first empty one."""
    return paragraph(
        re.match(r".*?(\.$|\n\n|\Z)", inspect.getdoc(thing), re.DOTALL | re.MULTILINE)[0].replace("\n", " ").strip()
    )


def names_at(places):
    """The public names that are these, or are defined there."""
    return [name for each in places for name, (home, _) in PUBLIC.items() if name == each or f"{home}.".startswith(f"{each}.")]


def as_directive(lines):
    return "\n".join(["```{eval-rst}", *lines, "```"])


def entry(name):
    """A public name with its docstring, and where it is shown; a class with its members."""
    thing = PUBLIC[name][1]
    kind = "class" if inspect.isclass(thing) else "function" if callable(thing) else "data"
    members = ", ".join(member.rpartition(".")[2] for member, owner in MEMBERS.items() if owner == name)
    options = {"class": [f"   :members: {members}"] * bool(members) + ["   :show-inheritance:"], "data": ["   :no-value:"]}
    alike = [f"{each.__name__}.{short}" for each in MODULES for short in names_of(each) if getattr(each, short) is thing]
    return ["", f".. auto{kind}:: {name}", *options.get(kind, []), "", f"   {SHOWN_IN(name, alike)}".rstrip()]


SHOWN_IN = runpy.run_path(str(Path(__file__).with_name("shown_in.py")))["shown_in"]


def made_by(name, function=None):
    """A function of the file beside this one, by default the one called as it is; the file is read when it is asked for."""
    return lambda *asked: runpy.run_path(str(Path(__file__).with_name(f"{name}.py")))[function or name](*asked)


MADE = ("families", "commands", "papers", "extras", "claims", "charts", "gallery", "checked", "worth", "coming_from")
ASKED = {"readme": readme, "reference": reference} | {name: made_by(name) for name in (*MADE, "choosing")}
NOTEBOOK = "---\nfile_format: mystnb\nkernelspec: {name: python3, display_name: python3}\n---\n"


def on_source_read(app, docname, source):
    from jinja2 import Environment, StrictUndefined

    pages = Environment(undefined=StrictUndefined)
    text = linked(pages.from_string(source[0]).render(ASKED))
    cells = re.sub(r"^(?:% (alt|answer): (.*)\n+)?(?:% says: (.*)\n+)?```python\n", as_cell, text, flags=re.MULTILINE)
    source[0] = text if cells == text else NOTEBOOK + NOTEBOOKS["linked_to"](docname, NOTEBOOKS["glued"](cells), URLS)
    if cells != text:
        path = texts_of(app) / f"{docname}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def texts_of(app):
    """The folder of texts of pages with code, between the processes that read pages and the one that writes notebooks."""
    return Path(app.doctreedir) / "texts"


def on_build_finished(app, error):
    if error is None and (folder := texts_of(app)).exists():
        texts = {path.relative_to(folder).with_suffix("").as_posix(): path.read_text() for path in sorted(folder.rglob("*.md"))}
        pages = {name: each.docname for name, each in app.env.domains.python_domain.objects.items()}
        NOTEBOOKS["write_all"](texts, Path(app.outdir) / "notebooks", URLS, pages)


def as_cell(block):
    options = f"mystnb:\n  image:\n    alt: {json.dumps(block[2])}\n" if block[1] else ""
    options += "answer: true\n" if block[1] == "answer" else ""
    options += f"says: {json.dumps(block[3])}\n" if block[3] else ""
    return "```{code-cell}\n" + (f"---\n{options}---\n" if options else "")


def on_doctree_read(app, doctree):
    """What a block has to say, it says; the picture of an answer is shown below the title, too."""
    from docutils import nodes

    for cell in list(parts_of(doctree, "cell_code")):
        if cell["cell_metadata"].get("answer"):
            pictures = [part for part in parts_of(cell, "mime_bundle") if list(part.findall(nodes.image))]
            doctree[0].insert(1, [part.deepcopy() for part in pictures])
        words = cell["cell_metadata"].get("says")
        if words and " ".join(words.split()) not in " ".join(" ".join(part.astext() for part in cell[1:]).split()):
            logging.getLogger("sphinx").warning("%s: a block does not say %r", app.env.docname, words)


def parts_of(node, kind):
    """What myst-nb made of a kind, such as a cell."""
    from docutils import nodes

    return node.findall(lambda each: isinstance(each, nodes.Element) and each.get("nb_element") == kind)


def on_builder_inited(app):
    """Pages that no one writes are there before pages are looked for. What computes with JAX does so before pages are dealt to
    forks of this process, in which its threads are gone and its locks may be held."""
    shutil.rmtree(texts_of(app), ignore_errors=True)
    made_by("gallery", "write_pages")()
    families = made_by("families")(family_of)
    ASKED["families"] = lambda: families


def on_before_read_docs(app, env, docnames):
    """Pages are read in pieces of neighbours, one to a core: those of the guide, which take long, are dealt among them."""
    docnames[:] = [name for start in range(4) for name in docnames[start::4]]


def on_html_page_context(app, pagename, templatename, context, doctree):
    """Sources lead back to the entries of their names: viewcode takes all names of a file for those of one module."""
    home = pagename.removeprefix("_modules/").replace("/", ".")
    entries = {full.rpartition(".")[2]: full for full, (module, _) in PUBLIC.items() if module == home}
    if pagename.startswith("_modules/") and entries:
        names = rf"#[\w.]*?\b({'|'.join(entries)})\b(?=[\w.]*\">\[docs\])"
        context["body"] = re.sub(names, lambda match: f"#{entries[match[1]]}", context["body"])


# How docstrings are read: as plain text. Backticks are the only markup, indented lines are formulas, `>>>` begins code, and a
# word with a colon, alone on its line, is the title of a section.

LISTS = ("Args", "Attributes", "Errors")  # sections of `name: text` items


def as_rst(docstring):
    description, *sections = re.split(r"^(?=[A-Z][a-z]+:\n    )", docstring, flags=re.MULTILINE)
    fields = []
    for section in sections:
        title, body = section.split(":\n", 1)
        body = dedent(body)
        if title in LISTS:
            lines = re.sub(r"\n +", " ", body)  # one for each item, but that errors may share a line
            lines = re.sub(r"\. (?=\w+Error: )", ".\n", lines)
            body = re.sub(r"^([\w\\, ]+): ", r"- **\1**: ", paragraphs(lines), flags=re.MULTILINE)
        else:
            body = paragraphs(body)
        fields.append(f":{title}:\n{indent(body, '    ')}\n\n")
    return f"{paragraphs(description)}\n\n{''.join(fields)}"


def paragraphs(text):
    return "\n\n".join(map(paragraph, re.split(r"\n\s*\n(?= *\S)", text.strip("\n"))))


def paragraph(text):
    if text.startswith(">>>"):
        return text
    if text.startswith("    "):
        return f".. code-block:: text\n\n{text}"
    return re.sub(r"`([^`]+)`|([\\*_|])", lambda m: f"\\{m[2]}" if m[2] else as_code(m[1]), text)


def as_code(text):
    """A single word in small letters is no link: `bijection` is an argument as often as it is the decorator."""
    return f"``{text}``" if text.islower() and text.isidentifier() else code(text, ":py:obj:`{} <{}>`", "``{}``")


def on_docstring(app, what, name, thing, options, lines):
    lines[:] = as_rst("\n".join(lines)).split("\n")


# Nothing is left out


def on_check_consistency(app, env):
    for name in (PUBLIC.keys() | MEMBERS.keys()) - env.domains.python_domain.objects.keys():
        logging.getLogger("sphinx").warning("%s is public, and on no page of the reference", name)


def setup(app):
    from jupyter_cache import get_cache

    # The folder of pages that were run is made before two processes want it; those of other texts of the library go.
    folder = Path(nb_execution_cache_path)
    for old in folder.parent.glob("*"):
        if old != folder:
            shutil.rmtree(old)
    _ = get_cache(folder).db

    # Pages run the same whatever a user's own IPython and matplotlib are set to, draw in the one style of all pictures, which
    # reads on white and on dark, and kernels need not warn that they talk to us by TCP.
    profile = Path(app.doctreedir) / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    link = f"import os as _os; _os.path.lexists('data') or _os.symlink({str(ROOT / 'examples' / 'data')!r}, 'data')"
    config = f"c.IPKernelApp.log_level = 40  # errors\nc.IPKernelApp.exec_lines = [{link!r}]  # rows, where a page runs\n"
    (profile / "ipython_kernel_config.py").write_text(config)
    os.environ["IPYTHONDIR"] = str(profile.parent)
    os.environ["MATPLOTLIBRC"] = str(Path(app.srcdir) / "flows.mplstyle")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (app.srcdir.__fspath__(), os.environ.get("PYTHONPATH"))))
    # Of the programs that are kept (see the Makefile): one that another page is writing is made anew.
    ignored = ",".join(f"ignore:Error {each} persistent compilation cache entry" for each in ("reading", "writing"))
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), ignored)))
    for name in ("traitlets", "jax"):  # a package of the theme's turns on all there is to log
        logging.getLogger(name).setLevel(logging.WARNING)

    app.connect("builder-inited", on_builder_inited)
    app.connect("env-before-read-docs", on_before_read_docs)
    app.connect("source-read", on_source_read)
    app.connect("doctree-read", on_doctree_read)
    app.connect("autodoc-process-docstring", on_docstring)
    app.connect("env-check-consistency", on_check_consistency)
    app.connect("build-finished", on_build_finished)
    app.connect("html-page-context", on_html_page_context)
