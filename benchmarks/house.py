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
DIALECT = {"own", "told", "found", "given", "kept", "seen", "beside", "besides", "anew", "each"}  # not names of variables
PHRASES = re.compile(r"\b(those of|that of|so many|(?<!there )(is|are) no(?! longer| better)|besides?|anew)\b", re.IGNORECASE)
ORDER = "docstrings without a subject", "names of dialect", "private methods of others", "kinds", "orders", "long functions"
LONG = 40  # lines of code of a function
DOOR = re.compile("_(?!_|replace|asdict|make)")  # a private method, but for those of named tuples
OPEN = {"self", "cls", "os", "sys"}  # os._exit is documented


def figures(root: Path = ROOT) -> dict[str, list[str]]:
    """Places that count for each figure, "file:line", or "file" where files are counted."""
    counted: dict[str, list[str]] = {name: [] for name in ("library", "files", *ORDER)}
    names: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        file, text = path.relative_to(root).as_posix(), path.read_text()
        tree, room = ast.parse(text), file.partition("/")[0]
        names.setdefault(path.stem, set()).add(path.parent.relative_to(root).as_posix())
        lines = [f"{file}:{i + 1}" for i in range(text.count("\n"))]
        counted["library"] += lines
        counted["files"].append(file)
        if room in ROOMS:
            counted.setdefault(room, []).extend(lines)
        for figure, pattern in (("lines on devices", DEVICES), ("phrases of dialect", PHRASES)):
            matches = [f"{file}:{i}" for i, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
            counted.setdefault(figure, []).extend(matches)
        for figure, node in _out_of_order(tree):
            counted[figure].append(f"{file}:{node.lineno}")
    counted["files on devices"] = sorted({place.partition(":")[0] for place in counted["lines on devices"]})
    counted["file names in more than two rooms"] = [
        name for name, rooms in names.items() if len(rooms) > 2 and name != "__init__"
    ]
    return counted


def _out_of_order(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name("isinstance"), args=[_, kinds]) if KINDS & set(_names(kinds)):
                yield "kinds", node
            case ast.Call(func=ast.Attribute(ast.Name(of), name)) if DOOR.match(name) and of not in OPEN:
                yield "private methods of others", node
            case ast.Compare(left) if [*_names(left)][-1:] == ["order"]:
                yield "orders", node
            case ast.arg(name) | ast.FunctionDef(name) | ast.Name(name, ast.Store()) if name.strip("_") in DIALECT:
                yield "names of dialect", node
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and NO_SUBJECT.match(ast.get_docstring(node) or ""):
            yield "docstrings without a subject", node.body[0]
        if isinstance(node, ast.FunctionDef) and _lines_of_code(node) > LONG:
            yield "long functions", node


def _names(node: ast.AST) -> Iterator[str]:
    """The names in an expression, the name of an attribute last."""
    for part in reversed([*ast.walk(node)]):
        if isinstance(part, ast.Name | ast.Attribute):
            yield part.id if isinstance(part, ast.Name) else part.attr


def _lines_of_code(function: ast.FunctionDef) -> int:
    """Lines of a function that hold code, without its signature, its docstring and comments."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return len({node.lineno for statement in body for node in ast.walk(statement) if hasattr(node, "lineno")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--where", help="the figure whose places are printed")
    options = parser.parse_args()
    for name, places in figures().items():
        by_file = Counter(place.partition(":")[0] for place in places)
        spread = f" in {len(by_file)} files" if any(":" in place for place in places) else ""
        print(f"{name:36} {len(places):6,}{spread}")
        if name == options.where:
            print("\n".join(f"  {place}" for place in places))


if __name__ == "__main__":
    main()
