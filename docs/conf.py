"""Settings of Sphinx, for `make docs`. README, docstrings and each module's `__all__` are the sources: a page shows of them
what it asks for, and nothing is told twice.

Pages are Markdown (MyST) and Jinja templates, in which `{{ readme("Conditional flows") }}` is a section of the README and
`{{ reference("flows.models") }}` all public names that are defined there; `{{ families() }}` is the table of all bijections. A
page's blocks of Python are run as one program, and what they return is shown; a block that fails, fails the build.
"""

import inspect
import logging
import os
import re
import runpy
from pathlib import Path
from textwrap import dedent, indent

import flows
import flows.sklearn  # these are imported when they are first named, and are public too
import flows.tables

README = Path(__file__).resolve().parents[1] / "README.md"

project, author, release = "flows", "the jax-flows authors", flows.__version__
project_copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
nitpicky = True  # a link without a target is a warning, and a warning fails the build
nitpick_ignore_regex = [("py:class", ".*")]  # types in signatures, most of which are not ours

html_theme = "furo"
html_title = f"flows {release}"
html_static_path = ["static"]
html_css_files = ["flows.css"]
html_copy_source = False
smartquotes = False
copybutton_exclude = ".linenos, .gp, .go"  # code is copied without its prompts and outputs

add_function_parentheses = False
maximum_signature_line_length = 100
python_use_unqualified_type_names = True

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_show_tb = True  # a cell that fails is a warning too
nb_merge_streams = True
nb_output_stderr = "warn"
nb_ipywidgets_js = {}  # nothing is fetched from elsewhere


# Which names are public

MODULES = [flows] + [
    each
    for name, each in vars(flows).items()
    if inspect.ismodule(each)
    and name[0] != "_"
    and (name in flows.__all__ or hasattr(each, "__all__"))
    and each is not flows.core
]


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

# What prose may call them: `flows.fit`, `transformers.Affine`, `Affine`; or as calls, such as `Affine(bound=2.0)`.
LINKS = {name: full for full in reversed(PUBLIC) for name in (full, full.removeprefix("flows."), full.rpartition(".")[2])}
LINKS |= {module.__name__: module.__name__ for module in MODULES[1:]}


def code(text, link, plain):
    """`text` as code; with a link to the public name that it is, or calls."""
    full = LINKS.get(text.partition("(")[0])
    return link.format(text, full) if full else plain.format(text)


# What pages ask for


def readme(title=""):
    """A section of the README without its heading; what stands before the first heading has no title."""
    start, *parts = re.split(r"^## ", README.read_text(), flags=re.MULTILINE)
    sections = {"": start} | dict(part.split("\n", 1) for part in parts)
    return re.sub(r"(?<!`)`([^`\n]+)`(?!`)", lambda m: code(m[1], "{{py:obj}}`{} <{}>`", "`{}`"), sections[title])


def reference(*modules):
    """The public names that these modules define: a table of their first lines, then each with its docstring."""
    names = [name for name, (home, _) in PUBLIC.items() if any(f"{home}.".startswith(f"{each}.") for each in modules)]
    names.sort(key=lambda name: name.rpartition(".")[2].lower())
    lines = ["```{eval-rst}", *(f".. py:module:: {each}" for each in modules if each in LINKS), "", ".. list-table::", ""]
    for name in names:
        first_line = PUBLIC[name][1].__doc__.partition("\n")[0]
        lines += [f"   * - :py:obj:`{name}`", f"     - {paragraph(first_line)}"]
    for name in names:
        thing = PUBLIC[name][1]
        kind = "class" if inspect.isclass(thing) else "function" if callable(thing) else "data"
        options = {"class": ["   :members:", "   :show-inheritance:"], "data": ["   :no-value:"]}
        lines += ["", f".. auto{kind}:: {name}", *options.get(kind, [])]
    return "\n".join([*lines, "```"])


NOTEBOOK = "---\nfile_format: mystnb\nkernelspec: {name: python3, display_name: python3}\n---\n"


def families():
    """The table of all bijections."""
    return runpy.run_path(str(Path(__file__).with_name("families.py")))["families"]()


def on_source_read(app, docname, source):
    from jinja2 import StrictUndefined, Template

    text = Template(source[0], undefined=StrictUndefined).render(readme=readme, reference=reference, families=families)
    python = "```python\n"
    source[0] = NOTEBOOK + text.replace(python, "```{code-cell}\n") if python in text else text


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


def on_skip_member(app, what, name, thing, skip, options):
    """The fields of a named tuple are in its docstring."""
    routing = re.fullmatch(r"set_\w+_request", name)  # scikit-learn's own, of which its pages tell
    return skip or type(thing).__name__ == "_tuplegetter" or bool(routing) or None


# Nothing is left out


def on_check_consistency(app, env):
    for name in PUBLIC.keys() - env.domains.python_domain.objects.keys():
        logging.getLogger("sphinx").warning("%s is public, and on no page of the reference", name)


def setup(app):
    # Pages run the same whatever a user's own IPython is set to, and kernels need not warn that they talk to us by TCP.
    profile = Path(app.doctreedir) / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40  # errors\n")
    os.environ["IPYTHONDIR"] = str(profile.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (app.srcdir.__fspath__(), os.environ.get("PYTHONPATH"))))
    logging.getLogger("traitlets").setLevel(logging.WARNING)  # a package of the theme's turns on all there is to log

    app.connect("source-read", on_source_read)
    app.connect("autodoc-process-docstring", on_docstring)
    app.connect("autodoc-skip-member", on_skip_member)
    app.connect("env-check-consistency", on_check_consistency)
