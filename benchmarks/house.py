"""How large the library is, and how much of it is out of order: figures of the syntax trees, which tests/test_architecture.py
holds below its ceilings.

    python benchmarks/house.py                          # the figures
    python benchmarks/house.py --where kinds            # and where one of them counts
"""

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "flows"
ROOMS = "core", "training", "tables"
KINDS = {"Real", "Integer", "Circular", "Category", "DateTime", "Constant", "Ignored", "NUMBERS"}
DEVICES = re.compile(r"\b(mesh|meshes|process|processes|agreed|agreement)\b")
NO_SUBJECT = re.compile(r"(Of|Those|That|The same|What|Which|Whether)\b")
OUT_OF_ORDER = "docstrings without a subject", "private methods of others", "kinds", "orders", "long functions"
LONG = 40  # lines of code of a function
DOOR = re.compile("_(?!_|replace|asdict|make)")  # a private method, but for those of named tuples
OWN = {"self", "cls", "os", "sys"}  # os._exit is documented


def figures(root: Path = ROOT) -> dict[str, list[str]]:
    """Places that count for each figure, "file:line", or "file" where files are counted."""
    found: dict[str, list[str]] = {name: [] for name in ("library", "files", *OUT_OF_ORDER)}
    names: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        file, text = path.relative_to(root).as_posix(), path.read_text()
        tree, room = ast.parse(text), file.partition("/")[0]
        names.setdefault(path.stem, set()).add(path.parent.relative_to(root).as_posix())
        lines = [f"{file}:{i + 1}" for i in range(text.count("\n"))]
        found["library"] += lines
        found["files"].append(file)
        if room in ROOMS:
            found.setdefault(room, []).extend(lines)
        said = [f"{file}:{i}" for i, line in enumerate(text.splitlines(), 1) if DEVICES.search(line)]
        found.setdefault("lines on devices", []).extend(said)
        found.setdefault("files on devices", []).extend([file] * bool(said))
        for what, node in _of_tree(tree):
            found[what].append(f"{file}:{node.lineno}")
    found["file names in more than two rooms"] = [
        name for name, rooms in names.items() if len(rooms) > 2 and name != "__init__"
    ]
    return found


def _of_tree(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name("isinstance"), args=[_, kinds]) if KINDS & set(_names(kinds)):
                yield "kinds", node
            case ast.Call(func=ast.Attribute(ast.Name(of), name)) if DOOR.match(name) and of not in OWN:
                yield "private methods of others", node
            case ast.Compare(left) if [*_names(left)][-1:] == ["order"]:
                yield "orders", node
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and NO_SUBJECT.match(ast.get_docstring(node) or ""):
            yield "docstrings without a subject", node.body[0]
        if isinstance(node, ast.FunctionDef) and _lines_of_code(node) > LONG:
            yield "long functions", node


def _names(node: ast.AST) -> Iterator[str]:
    """The names in an expression, that of an attribute last."""
    for each in reversed([*ast.walk(node)]):
        if isinstance(each, ast.Name | ast.Attribute):
            yield each.id if isinstance(each, ast.Name) else each.attr


def _lines_of_code(function: ast.FunctionDef) -> int:
    """Lines of a function that hold code, without its signature, its docstring and comments."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return len({node.lineno for statement in body for node in ast.walk(statement) if hasattr(node, "lineno")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--where", help="the figure whose places are printed")
    options = parser.parse_args()
    found = figures()
    for name, places in found.items():
        by_file = Counter(place.partition(":")[0] for place in places)
        spread = f" in {len(by_file)} files" if any(":" in place for place in places) else ""
        print(f"{name:36} {len(places):6,}{spread}")
        if name == options.where:
            print("\n".join(f"  {place}" for place in places))


if __name__ == "__main__":
    main()
