"""Runs the programs of examples/, and keeps in docs/pictures/ what they draw and print, for the gallery: `make pictures`.

    python docs/pictures.py [two_moons ...] [--again]

A program that has not changed since it was run, nor what it imports of examples/, is not run again. Each has a folder of its
own in out/pictures/, which is removed when it has ended: one that was interrupted finds there what it had.

Pictures are named, with their alt text, in the section `Pictures:` that ends a program's docstring; the first is that of its
tile. One that a program makes by the dozen may hold its alt text itself, as the Description of a PNG.
"""

import argparse
import ast
import hashlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER, EXAMPLES, WORK = ROOT / "docs" / "pictures", ROOT / "examples", ROOT / "out" / "pictures"
RESULTS = ROOT / "benchmarks" / "results"
RECORDS = runpy.run_path(str(ROOT / "benchmarks" / "records.py"))

ARGUMENTS = {  # of programs that need some, or have more to show with them
    "gallery": ["--cells"],
    "images": ["--data", "digits", "--model", "glow", "--minutes", "3"],
    "tabular": ["--data", "moons", "--model", "nsf"],
}
FIGURES = {"gallery": "gallery.json"}  # what belongs into benchmarks/results
MOST = 200_000  # bytes of a picture
MOST_OF_PAGE = 700_000  # bytes of a page of checks
WIDEST = 2_400  # pixels
KINDS = (".png", ".webp", ".gif")


@cache
def programs():
    """By name; the other files of examples/ are what programs import."""
    return {path.stem: path for path in sorted(EXAMPLES.glob("*.py")) if 'if __name__ == "__main__"' in path.read_text()}


def command(name):
    return ["examples/" + name + ".py", *ARGUMENTS.get(name, [])]


def texts(path):
    """A program and the modules beside it that it imports, by name."""
    found, asked = {}, [path]
    while asked:
        path = asked.pop()
        text = found[path.name] = path.read_text()
        names = re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)
        asked += [each for each in (path.with_name(f"{name}.py") for name in names) if each.exists() and each.name not in found]
    return found


def digest(path):
    return hashlib.sha256(json.dumps(texts(path), sort_keys=True).encode()).hexdigest()[:16]


def kept():
    """What pictures.json holds, by program."""
    return RECORDS["read"](FOLDER / "pictures.json")


def is_fresh(name, path, entry):
    files = [*(each["file"] for each in entry["pictures"]), *entry.get("pages", [])]
    there = all((FOLDER / file).exists() for file in files)
    return there and entry["hash"] == digest(path) and entry["command"] == command(name)


def first_line(path):
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def alts(path):
    """The alt texts of a program's pictures, in their order."""
    _, _, section = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\nPictures:\n")
    lines = re.sub(r"\n {8,}", " ", section)
    return dict(re.findall(r"^    ([\w.-]+): (.+)$", lines, re.MULTILINE))


def run(name, path):
    """The entry of a program, of which pictures are kept. Seconds are of the processor, in all runs that it took, as others
    may have the machine, too."""
    entry = {"command": command(name), "hash": digest(path)}
    work = WORK / f"{name}-{entry['hash']}"
    work.mkdir(parents=True, exist_ok=True)
    file, start = work / "seconds", processor_seconds()
    before = float(file.read_text()) if file.exists() else 0.0
    try:
        ended = subprocess.run(
            [sys.executable, str(path), "--out", "out", *ARGUMENTS.get(name, [])],
            **{"cwd": work, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "stdout": subprocess.PIPE, "text": True},
        )
    finally:
        seconds = before + processor_seconds() - start
        file.write_text(f"{seconds}")
    if ended.returncode:
        raise SystemExit(f"{ended.stdout}\nerror: {path.name} ended with status {ended.returncode}")
    entry |= {"seconds": round(seconds, 1), "printed": printed(name, ended.stdout)}
    entry["pictures"] = taken(name, work / "out", alts(path))
    if pages := taken_pages(name, work / "out"):
        entry["pages"] = pages
    if name in FIGURES:
        RECORDS["write"](RESULTS / FIGURES[name], json.loads((work / "out" / FIGURES[name]).read_text()))
    shutil.rmtree(work)
    return entry


def processor_seconds():
    """Of all processes that were started here and have ended."""
    times = os.times()
    return times.children_user + times.children_system


def printed(name, text):
    """What a program printed, which has to be what it prints on any machine."""
    for place in (ROOT, Path.home(), Path(sys.prefix)):
        if f"{place}/" in text:
            raise SystemExit(f"error: {name}.py prints a path of this machine, {place}: print those below --out alone")
    return text.rstrip() + "\n"


def taken(name, out, named):
    """The pictures of a run, as files of docs/pictures/ with what is told of them: those of the docstring first."""
    found = {path.name: path for path in sorted(out.rglob("*")) if path.suffix in KINDS}
    if missing := named.keys() - found.keys():
        raise SystemExit(f"error: {name}.py has alt texts of {', '.join(sorted(missing))}, and draws only {', '.join(found)}")
    made, folder = [], FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for each in [*named, *(each for each in found if each not in named)]:
        data, size, description = small(found[each])
        target = folder / f"{found[each].stem}.webp"
        if target.exists():
            raise SystemExit(f"error: {name}.py draws two pictures named {target.stem}")
        if not (alt := named.get(each, description)):
            raise SystemExit(f"error: {name}.py draws {each}, of which its docstring has no alt text in `Pictures:`")
        target.write_bytes(data)
        file = target.relative_to(FOLDER).as_posix()
        made.append({"file": file, "width": size[0], "height": size[1], "bytes": len(data), "alt": alt})
    if not made:
        raise SystemExit(f"error: {name}.py draws no picture")
    return made


def taken_pages(name, out):
    """The pages of checks that a run wrote, as files of docs/pictures/."""
    pages = sorted(out.rglob("*.html"))
    for page in pages:
        if (size := page.stat().st_size) > MOST_OF_PAGE:
            raise SystemExit(f"error: {name}.py writes {page.name} of {size:,} bytes, more than {MOST_OF_PAGE:,}")
        shutil.copy(page, FOLDER / name)
    return [f"{name}/{page.name}" for page in pages]


def small(path):
    """A picture as WebP of at most so many bytes: its bytes, its size, and its own alt text. The best of a few qualities at the
    largest of a few sizes."""
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        described, loop = image.info.get("Description"), image.info.get("loop", 0)
        if path.suffix == ".webp" and path.stat().st_size <= MOST and image.width <= WIDEST:
            return path.read_bytes(), image.size, described
        frames = [(frame.convert("RGBA"), frame.info.get("duration", 0)) for frame in ImageSequence.Iterator(image)]
    pictures, durations = zip(*frames, strict=True)
    width, height = pictures[0].size
    for shrunk in range(15):
        scale = min(1, WIDEST / width) * 0.93**shrunk
        size = round(width * scale), round(height * scale)
        resized = [each.resize(size, Image.Resampling.LANCZOS) if size != each.size else each for each in pictures]
        for made in encoded(resized, list(durations), loop):
            if len(made) <= MOST:
                return made, size, described
    raise SystemExit(f"error: {path.name} has more than {MOST:,} bytes, however small it is drawn")


def encoded(pictures, durations, loop):
    """Ways to write a picture, or an animation, the better first. What fades into the background takes most of its bytes for
    that, where a few colours will do."""

    def written(each, **options):
        file = io.BytesIO()
        each.save(file, "WEBP", **options)
        return file.getvalue()

    first, *others = pictures
    if others:
        moving = {"save_all": True, "append_images": others, "duration": durations, "loop": loop}
        yield from (written(first, quality=quality, alpha_quality=quality, **moving) for quality in (85, 70, 55, 40))
    else:
        yield written(first, quality=90)
        yield written(first, quality=80, alpha_quality=80)
        yield written(first.quantize(64, method=2, dither=0).convert("RGBA"), lossless=True)


def main():
    found = programs()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of programs; all without")
    parser.add_argument("--again", action="store_true", help="also those that have not changed")
    options = parser.parse_args()
    if unknown := {*options.names} - found.keys():
        parser.error(f"expected names of {', '.join(found)}; got {', '.join(sorted(unknown))}")
    entries = kept()
    for name in entries.keys() - found.keys():
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        del entries[name]
    for name in options.names or found:
        if not options.again and name in entries and is_fresh(name, found[name], entries[name]):
            continue
        print(f"== {name}", flush=True)
        entries[name] = run(name, found[name])
        RECORDS["write"](FOLDER / "pictures.json", dict(sorted(entries.items())))
        print(f"{entries[name]['seconds']:.0f} s, {len(entries[name]['pictures'])} pictures", flush=True)


if __name__ == "__main__":
    main()
