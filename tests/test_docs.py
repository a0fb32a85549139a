"""What the documentation shows, without building it (`make docs` does)."""

import re
import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PAGES = "\n".join(page.read_text() for page in DOCS.rglob("*.md"))


def test_every_public_name_has_a_docstring_and_a_page():
    conf = runpy.run_path(str(DOCS / "conf.py"))
    modules = re.findall(r'"([\w.]+)"', "".join(re.findall(r"{{ reference\((.*)\) }}", PAGES)))
    assert "flows.NSF" in conf["PUBLIC"] and "flows.transformers.Affine" in conf["PUBLIC"]
    for name, (home, thing) in conf["PUBLIC"].items():
        assert thing.__doc__, f"{name} has no docstring"
        assert any(f"{home}.".startswith(f"{module}.") for module in modules), f"{name} is on no page of docs/reference"


def test_every_section_of_the_readme_has_a_page():
    for title in re.findall(r"^## (.*)$", (DOCS.parent / "README.md").read_text(), re.MULTILINE):
        assert f'{{{{ readme("{title}") }}}}' in PAGES, f"the README's section {title!r} is on no page of docs/"


def test_docstrings_are_plain_text():
    as_rst = runpy.run_path(str(DOCS / "conf.py"))["as_rst"]
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
