"""Where a public name is shown: pages and programs whose code uses it, by their syntax trees.

A name is used where it is imported from `flows`, or is an attribute of what was: `flows.fit`, `sbi.simulate`. A comment, a text
or a variable of the same name is no use of it.
"""

import ast
import re
from functools import cache
from pathlib import Path

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS.parent / "examples"
MOST = 6  # pages below a name
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def sources():
    """The code of each page by its document, those that teach first, and programs by their page in the gallery."""
    for folder in ("tutorials", "guide", "."):
        for path in sorted((DOCS / folder).glob("*.md")):
            if code := "\n".join(BLOCK.findall(path.read_text())):
                yield f"/{path.relative_to(DOCS).with_suffix('').as_posix()}", code
    for path in sorted(EXAMPLES.glob("*.py")):
        if 'if __name__ == "__main__"' in (code := path.read_text()):
            yield f"/gallery/{path.stem}", code


def names_in(code):
    """The full names that a program uses, such as flows.transformers.Affine."""
    tree, meant = ast.parse(re.sub(r"^%.*$", "", code, flags=re.MULTILINE)), {}  # without commands of notebooks
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            ours = [each for each in node.names if each.name.partition(".")[0] == "flows"]
            meant |= {each.asname or "flows": each.name if each.asname else "flows" for each in ours}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "flows":
            meant |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    found = set(meant.values())
    for node in ast.walk(tree):
        parts, at = [], node
        while isinstance(at, ast.Attribute):
            parts, at = [at.attr, *parts], at.value
        if parts and isinstance(at, ast.Name) and at.id in meant:
            found.add(".".join([meant[at.id], *parts]))
    return found


@cache
def shown():
    """The documents that use each name, by its full name."""
    found = {}
    for document, code in sources():
        for name in names_in(code):
            found.setdefault(name, []).append(document)
    return found


def shown_in(name, alike=()):
    """A line of links, or nothing; `alike` are other full names of the same thing."""
    documents = list(dict.fromkeys(each for full in (name, *alike) for each in shown().get(full, [])))
    return f"Shown in {', '.join(f':doc:`{document}`' for document in documents[:MOST])}." if documents else ""
