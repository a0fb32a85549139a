"""Pictures of the examples, and the gallery: whole, small, told in words, and as new as the programs that draw them."""

import json
import runpy
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def made():
    return runpy.run_path(str(DOCS / "pictures.py"))


@pytest.fixture
def gallery():
    return runpy.run_path(str(DOCS / "gallery.py"))


def test_every_program_has_pictures_that_are_small_and_told_in_words(made):
    entries = made["kept"]()
    assert entries.keys() == made["programs"]().keys(), "run make pictures"
    for name, path in made["programs"]().items():
        assert made["first_line"](path).endswith("."), f"{name}.py begins with no line for its tile"
        assert made["alts"](path) and entries[name]["pictures"], f"{name}.py draws nothing"
        for each in entries[name]["pictures"]:
            file = made["FOLDER"] / each["file"]
            assert file.stat().st_size == each["bytes"] <= made["MOST"], file.name
            with Image.open(file) as image:
                assert image.size == (each["width"], each["height"])
            assert 30 <= len(each["alt"]) <= 300 and each["alt"].endswith("."), f"alt text of {each['file']}"
    listed = {each["file"] for entry in entries.values() for each in entry["pictures"]}
    listed |= {page for entry in entries.values() for page in entry.get("pages", [])}
    lying = {path.relative_to(made["FOLDER"]).as_posix() for path in made["FOLDER"].rglob("*.*")} - {"pictures.json"}
    assert lying == listed
    first = (DOCS / "static" / "strip.webp").read_bytes()
    assert first == (made["FOLDER"] / "strip" / "strip.webp").read_bytes(), "the first page has another picture: copy it"


def test_no_picture_is_older_than_its_program(made):
    entries = made["kept"]()
    old = [
        name for name, path in made["programs"]().items() if name in entries and not made["is_fresh"](name, path, entries[name])
    ]
    assert not old, f"{', '.join(old)} changed since their pictures were drawn: run make pictures"


def test_every_program_and_every_model_has_a_tile_and_a_page(made, gallery, tmp_path):
    """And every figure that was measured is on the page of its model."""
    (tmp_path / "gone.md").write_text("of a program that is no more")
    gallery["write_pages"](tmp_path)
    page, found = gallery["gallery"](), json.loads(gallery["FIGURES"].read_text())
    programs, models = made["programs"](), found["models"]
    pages = {*programs, *(gallery["page_of"](name) for name in models)}
    assert {path.stem for path in tmp_path.glob("*.md")} == pages
    for each in pages:
        assert f":link: gallery/{each}\n" in page
        text = (tmp_path / f"{each}.md").read_text()
        assert "```{image} ../pictures/" in text and ':alt: "' in text
    for name, path in programs.items():
        assert made["first_line"](path) in page and f"../../examples/{name}.py" in (tmp_path / f"{name}.md").read_text()
        assert (tmp_path / f"{name}.txt").read_text() == made["kept"]()[name]["printed"]
    for name, of in models.items():
        text = (tmp_path / f"{gallery['page_of'](name)}.md").read_text()
        assert of["model"] in text and all(f"| {nats:.3f} +- " in text for nats in of["behind"].values() if nats < 100)
    assert "{{ gallery() }}" in (DOCS / "gallery.md").read_text()


@pytest.fixture
def example(made, tmp_path, monkeypatch):
    """A program of an `examples/` of its own, the one that there is: a function of its text, and of what it draws."""
    for name in ("EXAMPLES", "FOLDER", "WORK"):
        monkeypatch.setitem(made["run"].__globals__, name, tmp_path / name.lower())
    monkeypatch.setitem(made["run"].__globals__, "MOST", 2_000)
    (tmp_path / "examples").mkdir()
    path = tmp_path / "examples" / "waves.py"

    def write(text, *draws):
        path.write_text(text + '\nif __name__ == "__main__":\n    pass\n')
        for each in draws:
            out = tmp_path / "out" / each
            out.parent.mkdir(exist_ok=True)
            noise = Image.effect_noise((90, 60), 90).convert("RGBA")
            noise.putalpha(Image.linear_gradient("L").resize(noise.size))
            noise.save(out)
        return path

    return write


WAVES = '"""Waves.\n\nPictures:\n    waves.png: Waves that come\n        in. from the left.\n    b.png: One more.\n"""\n'


def test_alt_texts_are_read_from_docstrings(made, example):
    assert made["alts"](example(WAVES)) == {"waves.png": "Waves that come in. from the left.", "b.png": "One more."}
    assert made["alts"](example('"""Waves."""')) == {}


def test_pages_of_checks_are_taken_as_they_are(made, example, tmp_path):
    folder = made["run"].__globals__["FOLDER"]
    example(WAVES, "waves.png", "b.png")
    made["taken"]("waves", tmp_path / "out", {"waves.png": "W" * 30, "b.png": "B" * 30})
    (tmp_path / "out" / "check.html").write_text("<h1>Waves</h1>")
    assert made["taken_pages"]("waves", tmp_path / "out") == ["waves/check.html"]
    assert (folder / "waves" / "check.html").read_text() == "<h1>Waves</h1>"
    (tmp_path / "out" / "check.html").write_text("x" * (made["MOST_OF_PAGE"] + 1))
    with pytest.raises(SystemExit, match=r"writes check\.html of 700,001 bytes"):
        made["taken_pages"]("waves", tmp_path / "out")


def test_pictures_are_taken_as_small_files(made, example, tmp_path):
    """What holds its alt text itself needs no other; all else is refused."""
    path = example(WAVES, "waves.png", "b.png")
    taken = made["taken"]("waves", tmp_path / "out", made["alts"](path))
    assert [each["file"] for each in taken] == ["waves/waves.webp", "waves/b.webp"]
    with Image.open(made["run"].__globals__["FOLDER"] / "waves" / "waves.webp") as image:
        assert image.mode == "RGBA" and image.size == (taken[0]["width"], taken[0]["height"])
        assert (
            taken[0]["bytes"] <= 2_000
            and image.width < 90
            and image.getpixel((5, 0))[3] < 30 < image.getpixel((5, image.height - 1))[3]
        )
    with pytest.raises(SystemExit, match=r"alt texts of c\.png, and draws only b\.png, waves\.png"):
        made["taken"]("waves", tmp_path / "out", {"c.png": "One that is not drawn."})
    with pytest.raises(SystemExit, match=r"waves\.py draws b\.png, of which its docstring has no alt text"):
        made["taken"]("waves", tmp_path / "out", {"waves.png": "Waves."})
    said = PngImagePlugin.PngInfo()
    said.add_text("Description", "It says so itself.")
    Image.new("RGBA", (9, 9)).save(tmp_path / "out" / "b.png", pnginfo=said)
    assert made["taken"]("waves", tmp_path / "out", {"waves.png": "Waves."})[1]["alt"] == "It says so itself."
    with pytest.raises(SystemExit, match="draws no picture"):
        made["taken"]("waves", tmp_path / "nowhere", {})


def test_an_animation_stays_one(made, tmp_path):
    frames = [Image.new("RGBA", (40, 30), (9 * i, 0, 0, 255)) for i in range(5)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=80, loop=0)
    (tmp_path / "a.webp").write_bytes(made["small"](tmp_path / "a.gif")[0])
    with Image.open(tmp_path / "a.webp") as image:
        assert image.n_frames == 5 and image.info["loop"] == 0
    assert made["small"](tmp_path / "a.webp")[0] == (tmp_path / "a.webp").read_bytes(), "it is written anew, and so worse"


def test_a_program_that_changed_is_run_again(made, example):
    """Also where a module that it imports did; one that does not draw, ends, or tells of this machine is refused."""
    write = 'import sys; from pathlib import Path; from PIL import Image\nPath("out").mkdir(exist_ok=True)\n'
    write += '[Image.new("L", (9, 9)).save(f"out/{name}.png") for name in ("waves", "b")]\n'
    path = example(WAVES + write + "import sea\nprint('high', sea.LEVEL, sys.argv[1:])")
    (path.parent / "sea.py").write_text("LEVEL = 1")
    entry = made["run"]("waves", path)
    assert entry["printed"] == "high 1 ['--out', 'out']\n" and made["is_fresh"]("waves", path, entry)
    (path.parent / "sea.py").write_text("LEVEL = 2")
    assert not made["is_fresh"]("waves", path, entry) and made["is_fresh"](
        "waves", path, {**entry, "hash": made["digest"](path)}
    )
    assert not made["is_fresh"]("waves", path, {**entry, "hash": made["digest"](path), "command": ["examples/waves.py", "-q"]})
    with pytest.raises(SystemExit, match=r"waves\.py prints a path of this machine"):
        made["printed"]("waves", f"wrote {Path.home()}/waves.png")
    path.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match=r"waves\.py ended with status 3"):
        made["run"]("waves", path)


def test_a_program_without_picture_or_line_fails_the_build(made, gallery, example, monkeypatch):
    of_page = gallery["MADE"]["kept"].__globals__
    monkeypatch.setitem(of_page, "FOLDER", made["run"].__globals__["FOLDER"])
    path = example(WAVES)
    with pytest.raises(ValueError, match=r"examples/waves\.py has no picture in docs/pictures: run make pictures ONLY=waves"):
        gallery["program_page"]("waves", path)
    with pytest.raises(
        ValueError, match=r"expected waves\.py to begin with a docstring of one line with a full stop, got 'Waves'"
    ):
        gallery["line_of"](example('"""Waves\n\nand more."""'))
    with pytest.raises(ValueError, match=r"NSF has no picture in docs/pictures/gallery"):
        monkeypatch.setitem(gallery["cell_of"].__globals__, "entry_of", lambda name: {"pictures": []})
        gallery["cell_of"]("NSF")
    with pytest.raises(ValueError, match=r"waves\.py draws no picture that its docstring names"):
        gallery["pictures_of"]("waves", path)


def test_links_of_the_examples_lead_to_pages_of_the_gallery(gallery):
    text = gallery["running"]()
    assert "| [`two_moons.py`](gallery/two_moons.md) |" in text and "](/data/README.md)" in text and "`two_moons.py`]" in text
    assert "](two_moons.py)" not in text


TOLD = {  # figures of examples/README.md
    "redshift": ("54.1%", "86.9%"),
    "residual": ("-2.249", "-2.642"),
    "modes": ("-98.871", "-97.612", "0.976"),
    "posterior": ("-497.2409", "99.0%"),
    "energies": ("0.024", "0.034", "0.053"),
    "matching": ("0.020", "0.015", "0.025", "0.016"),
    "one_column": ("-0.802", "-0.814", "-0.811", "-0.797"),
    "picture": ("0.055", "0.060", "0.035", "0.028", "0.025"),
}


def test_the_readme_of_examples_has_the_figures_that_programs_print(made):
    text, entries = " ".join((made["EXAMPLES"] / "README.md").read_text().split()), made["kept"]()
    for name, figures in TOLD.items():
        of_program = text.partition(f"`{name}.py`: ")[2].partition(".py`: ")[0]
        for figure in figures:
            assert figure in of_program, f"examples/README.md does not say {figure} of {name}.py"
            assert figure in entries[name]["printed"], f"{name}.py does not print {figure}, which examples/README.md says"
