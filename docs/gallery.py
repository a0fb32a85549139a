"""The gallery: tiles of what examples/ draw and of each family on six shapes, and a page for each, made when the site is built.

No entry is written by hand. A program's are its docstring and what docs/pictures/pictures.json holds of its run; a family's,
benchmarks/results/gallery.json and the docstring of its constructor. One that lacks its picture or line fails the build.
"""

import inspect
import json
import re
import runpy
import shutil
import statistics
from functools import cache
from pathlib import Path

import flows

FOLDER = Path(__file__).parent
MADE = runpy.run_path(str(FOLDER / "pictures.py"))
FIGURES = MADE["RESULTS"] / "gallery.json"
TILES = "`````{grid} 1 2 2 3\n:gutter: 2\n:class-container: gallery\n"


def gallery():
    """Tiles of the programs, and those of each family."""
    parts = ["## Programs", *tiles(program_tiles()), "## Models on six shapes", what_is_measured()]
    families = {}
    for name, of in figures()["models"].items():
        families.setdefault(of["family"], []).append(family_tile(name, of))
    for family, those in families.items():
        parts += [f"### {family.capitalize()}", *tiles(those)]
    return "\n\n".join([*parts, running()])


def write_pages(folder=FOLDER / "gallery"):
    """A page for each tile, in a folder that git ignores. One that is as it was is not written again."""
    pages = {f"{name}.md": program_page(name, path) for name, path in MADE["programs"]().items()}
    pages |= {f"{name}.txt": entry_of(name)["printed"] for name in MADE["programs"]()}
    pages |= {f"{page_of(name)}.md": family_page(name, of) for name, of in figures()["models"].items()}
    folder.mkdir(exist_ok=True)
    for old in {each.name for each in folder.iterdir()} - pages.keys():
        shutil.rmtree(folder / old) if (folder / old).is_dir() else (folder / old).unlink()
    for name, text in pages.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            (folder / name).write_text(text)


# Programs


@cache
def entries():
    return MADE["kept"]()


def entry_of(name):
    """What is kept of a program's run."""
    if name not in entries():
        raise ValueError(f"examples/{name}.py has no picture in docs/pictures: run make pictures ONLY={name}")
    return entries()[name]


def line_of(path):
    line = MADE["first_line"](path)
    if not line.endswith("."):
        raise ValueError(f"expected {path.name} to begin with a docstring of one line with a full stop, got {line!r}")
    return line


def program_tiles():
    """In the order in which examples/README.md tells of them."""
    told = (MADE["EXAMPLES"] / "README.md").read_text()
    found = MADE["programs"]()
    for name in sorted(found, key=lambda name: told.find(f"`{name}.py")):
        yield tile(f"{name}.py", name, pictures_of(name, found[name])[0], line_of(found[name]))


def pictures_of(name, path):
    """Those that its docstring names; others are of tiles of their own."""
    stems = {each.rpartition(".")[0] for each in MADE["alts"](path)}
    if not (found := [each for each in entry_of(name)["pictures"] if Path(each["file"]).stem in stems]):
        raise ValueError(
            f"{path.name} draws no picture that its docstring names: give it one, with its alt text in `Pictures:`"
        )
    return found


def program_page(name, path):
    """The program, what it printed, and its pictures."""
    entry = entry_of(name)
    parts = [f"# {name}.py", line_of(path), *map(picture, pictures_of(name, path))]
    parts += [f"[{Path(page).name}](../pictures/{page}): a page of checks, as it wrote it." for page in entry.get("pages", [])]
    parts += ["## What it prints", included(f"{name}.txt", "text")]
    parts += [f"`python {' '.join(entry['command'])}`, in {time_of(entry['seconds'])} of the processor."]
    parts += ["## The program", included(f"../../examples/{name}.py", "python")]
    for module in [each for each in MADE["texts"](path) if each != path.name]:
        parts += [f"It imports `{module}`:", included(f"../../examples/{module}", "python")]
    return "\n\n".join(parts) + "\n"


def time_of(seconds):
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def running():
    """How to run the programs, and their figures: examples/README.md, with links to pages of the gallery."""
    text = (MADE["EXAMPLES"] / "README.md").read_text().replace("# Examples\n", "## Running them\n", 1)
    text = text.replace("](data/", "](/data/")
    return re.sub(r"(?<!\[)`(\w+)\.py`|\[`?(\w+)\.py`?\]\(\2\.py\)", linked_program, text)


def linked_program(match):
    name = match[1] or match[2]
    return f"[`{name}.py`](gallery/{name}.md)" if name in MADE["programs"]() else f"`{name}.py`"


# Families


@cache
def figures():
    return json.loads(FIGURES.read_text())


def page_of(name):
    return f"on_six_shapes_{name}"


def title_of(of):
    return f"{of['title']}, {of['note']}" if of["note"] else of["title"]


def constructor_of(of):
    """The public name that a model is made by, such as Planar of Flow(Repeat(Planar(), 32))."""
    return next(each for each in re.findall(r"(\w+)\(", of["model"]) if each not in ("Flow", "Repeat"))


def family_tile(name, of):
    return tile(title_of(of), page_of(name), cell_of(name), behind(of))


def cell_of(name):
    cells = {Path(each["file"]).stem: each for each in entry_of("gallery")["pictures"]}
    if name not in cells:
        raise ValueError(f"{name} has no picture in docs/pictures/gallery: run make pictures ONLY=gallery")
    return cells[name]


def behind(of):
    """The most that is said in one line of six figures."""
    nats = sorted(of["behind"].values())
    least, middle, most = map(number, (nats[0], statistics.median(nats), nats[-1]))
    return f"{least} to {most} nats a row behind the truth, {middle} in the median."


def number(nats, digits=2):
    """What lies far outside a flow's reach can be as unlikely as one likes."""
    return f"{nats:.{digits}f}" if nats < 100 else "> 99"


def what_is_measured():
    found = figures()
    return (
        f"Each was fitted to {found['rows']:,} rows of six densities that are known, for {found['seconds']:g} processor "
        "seconds, or three times as long where a density is slow. Figures are nats a row by which a model is behind the truth, "
        "on 10,000 new rows."
    )


def family_page(name, of):
    """The constructor, figures for each shape, and the docstring's link."""
    public = constructor_of(of)
    told, _, _ = inspect.getdoc(getattr(flows, public)).partition("\n\n")
    cost = f"{of['numbers']:,} trained numbers" if of["numbers"] else "Nothing is trained"
    note = f" ({of['note']})" if of["note"] else ""
    parts = [f"# {of['title']} on six shapes{note}", f"{{py:obj}}`{public} <flows.{public}>`: {escaped(told)}"]
    parts += [f"```{{code-block}} python\n\n{of['model']}\n```", behind(of), picture(cell_of(name))]
    head = "| shape | nats behind the truth | epochs | processor seconds | mass in the square |\n|---|---|---|---|---|"
    rows = []
    for shape, nats in of["behind"].items():
        figure = f"{number(nats, 3)} +- {number(of['error'][shape], 3)}"
        rows += [f"| `{shape}` | {figure} | {of['epochs'][shape]} | {of['seconds'][shape]:.1f} | {of['mass'][shape]:.3f} |"]
    parts += ["\n".join([head, *rows])]
    parts += [f"{cost}; a first fit takes {of['compiling']:.0f} seconds more, to compile."]
    parts += ["The densities that the rows are drawn from:", picture(cell_of("truth"))]
    parts += ["All of them by one program: [`gallery.py`](gallery.md)."]
    return "\n\n".join(parts) + "\n"


def escaped(text):
    """A docstring's prose as Markdown, in which only backticks mean something."""
    return re.sub(r"(`[^`]*`)|([*_|<\[])", lambda match: match[1] or f"\\{match[2]}", text.replace("\n", " "))


# Of what pages are made


def tiles(each):
    return [TILES + "\n".join(each) + "`````"]


def tile(title, page, picture, line):
    """The page is one of docs/gallery/, the picture one of docs/pictures/."""
    options = {"img-top": f"pictures/{picture['file']}", "img-alt": json.dumps(picture["alt"], ensure_ascii=False)}
    options |= {"link": f"gallery/{page}", "link-type": "doc"}
    return "\n".join([f"````{{grid-item-card}} {title}", *(f":{key}: {each}" for key, each in options.items()), line, "````\n"])


def picture(each):
    """As large as there is room for, with a link to the file."""
    alt = json.dumps(each["alt"], ensure_ascii=False)
    return f"```{{image}} ../pictures/{each['file']}\n:alt: {alt}\n:width: {each['width']}px\n```"


def included(path, language):
    return f"```{{literalinclude}} {path}\n:language: {language}\n```"
