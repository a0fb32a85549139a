"""The house keeps its order: imports point one way, and the heavy libraries stay outside."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import flows
from flows.core.extras import installs
from flows.interop import LIBRARIES

ROOT = Path(flows.__file__).parent
FLOORS = [
    {"core"},
    {"transformers", "mcmc"},
    {"conditionals", "conditioners", "compose"},
    {"bijections", "distributions"},
    {"models", "objectives", "datasets", "persistence", "diagnostics"},
    {"results"},
    {"training"},
    {"checks"},
    {"tables"},
    {"interop", "sbi", "large"},
    {"sklearn"},
    {"cli"},
    {"__main__"},
]
TRAINING = [  # the same within flows/training
    {"devices", "model_view"},
    {"options"},
    {"data", "fingerprint"},
    {"loop"},
    {"density", "fitting"},
    {"fit", "comparison"},
    {"select", "evidence"},
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
LIGHT = {"jax", "optax", "numpy", "scipy", "safetensors", "tqdm", "flows", "ml_dtypes"}
# Inside functions only, so that importing flows stays light.
EXTRAS = {
    "bijections/continuous.py": {"diffrax"},
    "conditioners/adapters.py": {"equinox", "flax"},
    "results/frames.py": {"narwhals"},
    "results/history.py": {"tensorboardX"},
    "results/pictures/axes.py": {"matplotlib"},
}
# Rooms above training: anywhere in a file, as they are imported when they are first named.
ON_TOP = {
    "tables": {"narwhals"},
    "interop": set(LIBRARIES),
    "large": {"dask", "narwhals", "pandas", "polars", "pyarrow", "pyspark", "ray"},
    "sklearn": {"sklearn"},
    "cli": {"matplotlib", "polars", "rich", "typer"},
}
ENGINES = {"dask": "dask", "ray": "ray", "spark": "pyspark"}  # of the files of flows/large


def imports(file):
    """The modules that a file imports, each with whether it is a function that does."""
    tree = ast.parse(file.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {node for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", node in inside
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node in inside) for alias in node.names)


def test_imports_point_one_way():
    for file in ROOT.rglob("*.py"):
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
        extras = EXTRAS.get(file.relative_to(ROOT).as_posix(), set())
        for module, inside in imports(file):
            parts = module.split(".")
            if parts[0] == "flows" and room != "__init__" and len(parts) > 1 and parts[1] != room:
                assert FLOOR[parts[1]] <= FLOOR[room], f"{file.name} imports {module}, a floor above"
            on_top = ON_TOP.get(room, set())
            if room == "interop":  # each library in the room that is called after it
                on_top = on_top & {part.removesuffix(".py") for part in file.relative_to(ROOT).parts}
            if room == "large":  # each engine in its file
                on_top = on_top - {*ENGINES.values()} | {ENGINES.get(file.stem, "narwhals")}
            allowed = LIGHT | set(sys.stdlib_module_names) | (extras if inside else set()) | on_top
            assert parts[0] in allowed, f"{file.name} imports {module}"


def test_data_come_before_the_loop_and_the_loop_before_fits():
    floor = {room: i for i, rooms in enumerate(TRAINING) for room in rooms}
    for file in (ROOT / "training").rglob("*.py"):
        room = file.relative_to(ROOT / "training").parts[0].removesuffix(".py")
        for module, _ in imports(file):
            parts = module.split(".")
            if parts[:2] == ["flows", "training"] and room != "__init__" and parts[2:3] not in ([], [room]):
                assert floor[parts[2]] < floor[room], f"{file.relative_to(ROOT)} imports {module}, a floor above"


def test_core_has_one_door():
    """Other rooms import from `flows.core`, and need not know its files."""
    for file in ROOT.rglob("*.py"):
        if file.relative_to(ROOT).parts[0] != "core":
            for module, _ in imports(file):
                assert not module.startswith("flows.core."), f"{file.relative_to(ROOT)} imports {module}; expected flows.core"


def test_files_are_rooms_and_errors_are_for_users():
    for file in ROOT.rglob("*.py"):
        text = file.read_text()
        assert text.count("\n") <= 400, f"{file.name} is two rooms"
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(text))), f"{file.name} asserts"


def test_every_public_name_is_documented():
    for name in flows.__all__:
        assert getattr(flows, name).__doc__, f"flows.{name} has no docstring"


def test_importing_flows_compiles_nothing_and_starts_no_device():
    code = "import jax, flows; from jax._src import xla_bridge as b; raise SystemExit(bool(b._backends))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rooms_on_top_are_imported_when_they_are_named():
    extras = {"matplotlib", "narwhals", "sklearn", *ENGINES.values(), *LIBRARIES, *(f"flows.{room}" for room in ON_TOP)}
    code = f"import sys, flows; raise SystemExit(bool({extras} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert all(FLOOR[room] > FLOOR["training"] for room in ON_TOP)


def test_a_room_on_top_says_how_its_extra_is_installed():
    code = "import sys, flows; sys.modules['sklearn'] = None; flows.sklearn"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    expected = f"ImportError: flows.sklearn needs the package sklearn: {installs('sklearn')}"
    assert done.stderr.strip().endswith(expected)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_room_for_another_library_says_how_it_is_installed(library):
    code = f"import sys, flows; sys.modules['{library}'] = None; flows.interop.{library}"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    expected = installs(library)
    assert done.stderr.strip().endswith(f"ImportError: flows.interop.{library} needs the package {library}: {expected}")


def test_tests_lie_in_folders_after_the_rooms():
    folders = {path.parent.name for path in Path(__file__).parent.glob("*/test_*.py")}
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert folders - rooms == {"examples", "pages"} and len(folders & rooms) > 10


CEILINGS = {  # what `python benchmarks/house.py` prints; a commit of its own raises one, and says what was bought
    "library": 52_930,
    "files": 278,
    "core": 4_247,
    "training": 8_475,
    "tables": 4_785,
    "kinds": 4,
    "orders": 17,
    "lines on devices": 174,
    "files on devices": 24,
    "private methods of others": 0,
    "docstrings without a subject": 0,
    "names of dialect": 17,
    "phrases of dialect": 7,
    "long functions": 33,
    "file names in more than two rooms": 5,
}


def test_the_house_is_within_its_ceilings():
    figures = runpy.run_path(str(ROOT.parent / "benchmarks" / "house.py"))["figures"](ROOT)
    counted = {name: len(places) for name, places in figures.items()}
    assert counted.keys() == CEILINGS.keys()
    above = {name: (count, CEILINGS[name]) for name, count in counted.items() if count > CEILINGS[name]}
    assert not above, "lower them again, or raise the ceiling in a commit that says what was bought"


def test_what_counts_is_counted(tmp_path):
    (tmp_path / "core").mkdir()
    lines = ['"""Of a file."""', "if isinstance(x, Real | Integer) and isinstance(x, int) and value.order == 'flow':"]
    lines += ["    schema._of(x)", "    self._of(x), rows._replace(x=1)", "    mesh = 1  # so many, there is no", "def own():"]
    lines += ["    x = 1"] * 41
    (tmp_path / "core" / "a.py").write_text("\n".join(lines) + "\n")
    figures = runpy.run_path(str(ROOT.parent / "benchmarks" / "house.py"))["figures"](tmp_path)
    counted = {name: len(places) for name, places in figures.items() if places}
    once = ("files", "kinds", "orders", "lines on devices", "files on devices", "private methods of others", "long functions")
    once += "names of dialect", "phrases of dialect"
    assert counted == {"library": 47, "core": 47, "docstrings without a subject": 1, **dict.fromkeys(once, 1)}
