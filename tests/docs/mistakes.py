"""Seeded mistakes: each is made in one page of a copy of the site, where browse.py has to find it.

    python tests/docs/mistakes.py

The exit status is 1 if a mistake is not found, or is found where it was not made.
"""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from browse import SITE, first_result, is_found, lost_of, problems_of, served, window
from small_site import URLS, build

PAGE = "install.html"
TABLE = '<table style="width: 500px; min-width: 500px"><tr><td>wide</td></tr></table>'
WHITE = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="  # one pixel
PLANTED = {  # at the end of the page's text; and what is told of it
    "a table 500 pixels wide": (TABLE, "wider than the screen"),
    "a script from another host": ('<script src="https://cdn.example.org/plot.js"></script>', "request to another host"),
    "pale grey text": ('<p style="color: #bbb">pale</p>', "contrast"),
    "an image that is not there": ('<img src="_images/nowhere.png" alt="a density">', "is not there"),
    "an image without alt text": ('<img src="_static/plus.png">', "no alt text"),
    "a picture with a background": (f'<div class="cell_output"><img src="{WHITE}" alt="a density"></div>', "has a background"),
    "a page that logs an error": ('<script>console.error("lost")</script>', "message in the console"),
}
PROMPT = '<div class="highlight"><pre><span></span>&gt;&gt;&gt; 1 + 1\n2\n</pre></div>'  # which are no spans to leave out


def planted(html: str, text: str) -> str:
    return re.sub(r"(?=</article>)", lambda _: text, html, count=1)


def without_word(index: str, word: str) -> str:
    """The index of the search, had the glossary no such word."""
    head, body = index.split("(", 1)
    read = json.loads(body.rstrip(");\n"))
    del read["indexentries"][word]
    return f"{head}({json.dumps(read)})"


def without_block(text: str) -> str:
    """A notebook without its last block."""
    notebook = json.loads(text)
    del notebook["cells"][max(i for i, each in enumerate(notebook["cells"]) if each["cell_type"] == "code")]
    return json.dumps(notebook)


def main() -> int:
    missed = []

    def tell(name: str, caught: bool) -> None:
        print(f"{'caught' if caught else 'MISSED':9} {name}", flush=True)
        missed.extend([name] * (not caught))

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "html")
        shutil.copytree(SITE, copy)
        with served(copy) as site, window() as page:

            def change(name: str, make: Callable[[str], str], check: Callable[[], bool]) -> bool:
                """What a check says of the site with one file changed."""
                before = (copy / name).read_text()
                (copy / name).write_text(make(before))
                if (copy / name).read_text() == before:
                    raise SystemExit(f"error: the mistake is not in {name}, whose form is another")
                said = check()
                (copy / name).write_text(before)
                return said

            if problems := problems_of(page, site, PAGE):
                raise SystemExit(f"{PAGE} has problems without a mistake: {problems}")
            for name, (text, told) in (PLANTED | {"a prompt that is copied": (PROMPT, "a button copies")}).items():
                caught = change(
                    PAGE,
                    lambda html, text=text: planted(html, text),
                    lambda told=told: any(told in each for each in problems_of(page, site, PAGE)),
                )
                tell(name, caught)
            name = next(copy.glob("_downloads/*/check.html")).relative_to(copy).as_posix()
            if problems := problems_of(page, site, name):
                raise SystemExit(f"{name} has problems without a mistake: {problems}")
            wide = change(
                name,
                lambda html: html.replace(".wide { overflow-x: auto; }", "").replace("overflow-wrap: anywhere;", ""),
                lambda: any("wider than the screen" in each for each in problems_of(page, site, name)),
            )
            tell("a wide table in a page of checks", wide)
            name, fit = "tutorials/first.html", "reference/fit.html"
            if problems := lost_of(copy, name) + lost_of(copy, fit):
                raise SystemExit(f"{name} or {fit} lacks something without a mistake: {problems}")
            shown = '<p>Shown in <a class="reference internal" href="'
            lost = change(fit, lambda html: html.replace(shown, f"{shown}nowhere/"), lambda: bool(lost_of(copy, fit)))
            tell("'Shown in' that leads nowhere", lost)
            notebook = "notebooks/tutorials/first.ipynb"
            tell("a notebook without a block", change(notebook, without_block, lambda: bool(lost_of(copy, name))))
            if not is_found(page, site, "quantile"):
                raise SystemExit(f"quantile is not found without a mistake, but {first_result(page, site, 'quantile')}")
            taken = change(
                "searchindex.js", lambda index: without_word(index, "quantile"), lambda: not is_found(page, site, "quantile")
            )
            tell("a word taken out of the glossary", taken)
    with tempfile.TemporaryDirectory() as folder:
        for name, said in {"right": "% says: 2", "wrong": "% says: 3"}.items():
            html, warned = build(Path(folder, name), f"# A page\n\n{said}\n```python\n1 + 1\n```\n", URLS)
            text, caught = (html / "index.html").read_text(), "a block does not say '3'" in warned
            if name == "right" and (caught or not all(each in text for each in ("Open in Colab", "Edit this page"))):
                raise SystemExit(f"a page without a mistake: {warned or 'no links to Colab and to its source'}")
        tell("words that a block does not say", caught)
        _, warned = build(Path(folder, "fails"), "# A page\n\n```python\n1 / 0\n```\n")
        tell("a block that fails", "ZeroDivisionError" in warned)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
