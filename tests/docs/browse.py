"""Opens every page of the site in Chromium, in two sizes and both themes, and tells what is wrong with it; then searches.

    python tests/docs/browse.py            # all pages of site/html
    python tests/docs/browse.py guide      # those with this in their name

A page has to be free of messages in the console, of requests to other hosts, of anything wider than the screen, of images that
are missing, have no alt text or are drawn on white, and of text of little contrast (look.js); its buttons copy code without
prompts (copy.js); its links lead to files that are there, and its notebook has all of its blocks. Words of the glossary are
found first, questions of newcomers are answered a few clicks from the first page, and the site has at most 40 MB. A page of
checks with hostile names is written there, and opened, too.
The exit status is 1 where something is wrong.
"""

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd
from playwright.sync_api import Page, sync_playwright

import flows

SITE = Path(__file__).resolve().parents[2] / "site" / "html"
LOOK, COPY = (Path(__file__).with_name(name).read_text() for name in ("look.js", "copy.js"))
SIZES = ((390, 844), (1440, 900))
THEMES = ("light", "dark")
WORDS = (  # what people bring from statistics, machine learning and astronomy, all of which the glossary has
    *("quantile", "interval", "anomaly", "outlier", "bounds", "constraint", "category", "count", "cluster", "missing values"),
    *("imputation", "calibration", "coverage", "posterior", "MCMC", "NUTS", "simulator", "ensemble", "uncertainty", "GPU"),
    *("time series", "likelihood", "nats", "bits", "base", "tutorial", "quickstart"),
    *("deploy", "impute", "getting started", "normalize data"),
)
ANSWERED = {  # questions of newcomers, the clicks from the first page, and what the last page has to say
    "I have a CSV with bounds, what do I call?": (("A table",), "wind and rain are never negative"),
    "My posterior has a positive parameter.": (("A posterior",), "says that tau is positive"),
    "Is it faster than what I use?": (("Benchmark",), "every library builds the same flow"),
    "Is my fitted density right?": (("Is it right?",), "flows.check"),
    "My CSV has categories.": (("A table",), "Category(values="),
    "Which model for 300 rows?": (("Which model?",), "300 rows"),
    "I use zuko: how do I ...?": (("Coming from another library",), "fit_to_data"),
}
MOST_CLICKS = 3
AT_ONCE = {(1440, 900): "pip install .", (390, 844): "import flows"}  # code that the first page shows without scrolling
MOST_BYTES = 40_000_000  # of the whole site


class Files(SimpleHTTPRequestHandler):
    def end_headers(self):
        self.send_header("Cache-Control", "no-store")  # what is opened is what lies there now
        super().end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which the files of a folder are served, at a port that is free."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def window() -> Iterator[Page]:
    """A tab of a browser that knows no other host than this machine."""
    if not (path := shutil.which("chromium")):
        raise SystemExit("error: there is no chromium to open pages with. Install it: apt-get install -y chromium")
    args = ["--no-sandbox", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=args) as browser:
        yield browser.new_page()


def write_hostile(path: Path) -> None:
    """A page of checks whose columns and title are markup, or are written from the right."""
    names = ["</title><img src=x onerror=console.error(1)>", "\u202eright", "line\u2028end"]
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(500, 3)), columns=names)
    result = flows.fit(0, flows.Normal(trainable=True), rows, max_epochs=1, verbose=0)
    checks = flows.check(result, rows, only=["coverage", "columns", "pairs", "shift"], samples=1_000)
    checks.write_html(path, title=names[0])


def problems_of(page: Page, site: str, name: str) -> list[str]:
    """What is wrong with a page of the site."""
    found: dict[str, None] = {}  # as a set, in order

    def on_request(request):
        if not request.url.startswith((site, "data:", "blob:")):
            found[f"a request to another host: {request.url}"] = None

    listeners = {
        "request": on_request,
        "console": lambda message: found.setdefault(f"a message in the console: {message.text} ({message.location['url']})"),
        "pageerror": lambda error: found.setdefault(f"an error in a script: {error}"),
        "response": lambda answer: answer.status < 400 or found.setdefault(f"status {answer.status}: {answer.url}"),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    for size in SIZES:
        page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)  # which the theme follows
            if (size, theme) == (SIZES[0], THEMES[0]):
                page.goto(site + name, wait_until="load", timeout=0)
            for problem in page.evaluate(LOOK):
                found.setdefault(f"{size[0]} x {size[1]}, {theme}: {problem}")
    for problem in page.evaluate(COPY):
        found.setdefault(problem)
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return list(found)


def lost_of(site: Path, name: str) -> list[str]:
    """Links of a page to files of the site that are not there, and a notebook that lacks blocks of its page."""
    text = (site / name).read_text()
    found = list[str]()
    for href in sorted(set(re.findall(r'<a [^>]*href="([^"#?]+)', text))):
        if not re.match(r"[a-z]+:", href) and not (site / name).parent.joinpath(unquote(href)).resolve().exists():
            found.append(f"a link leads nowhere: {href}")
    if (path := site / "notebooks" / Path(name).with_suffix(".ipynb")).exists():
        cells = [each for each in json.loads(path.read_text())["cells"] if each["cell_type"] == "code"]
        blocks, shown = text.count('<div class="cell_input'), [each for each in cells[1:] if not each["metadata"]]
        if len(shown) != blocks:
            found.append(f"its notebook has {len(shown)} of {blocks} blocks")
    return found


def first_result(page: Page, site: str, word: str) -> str:
    """The address within the site of what the search shows first."""
    page.goto(f"{site}search.html?q={quote(word)}", timeout=0)
    page.wait_for_function("document.querySelector('#search-results p.search-summary')?.textContent.match(/finished|did not/)")
    links = page.locator("#search-results ul.search li a").evaluate_all("links => links.map(link => link.href)")
    return links[0].removeprefix(site) if links else "nothing"


def is_answered(page: Page, site: str, clicks: tuple[str, ...], answer: str) -> bool:
    """Whether a page says it that is these clicks away from the first one."""
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(site, timeout=0)
    for text in clicks:
        page.get_by_text(text, exact=True).filter(visible=True).first.click(force=True)  # the link lies over a card's title
        page.wait_for_load_state()
    return len(clicks) <= MOST_CLICKS and answer in page.locator("article").inner_text()


def is_at_once(page: Page, site: str, size: tuple[int, int], code: str) -> bool:
    """Whether the first page shows this block of code whole in a window of a size."""
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    page.goto(site, timeout=0)
    box = page.locator("article pre", has_text=code).first.bounding_box()
    return box is not None and box["y"] + box["height"] <= size[1]


def is_found(page: Page, site: str, word: str) -> bool:
    return first_result(page, site, word).startswith(f"glossary.html#term-{word.replace(' ', '-')}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", default="", help="only pages with this in their name, and no search")
    part = parser.parse_args().part
    if SITE.exists():
        write_hostile(SITE / "hostile.html")
    names = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html") if part in str(path.relative_to(SITE)))
    if not names:
        raise SystemExit(f"error: no page of {SITE} has {part!r} in its name; `make docs` builds them")
    begin, wrong = time.perf_counter(), 0
    with served(SITE) as site, window() as page:
        for name in names:
            if problems := problems_of(page, site, name) + lost_of(SITE, name):
                wrong += 1
                print(name, *problems, sep="\n    ", flush=True)
        print(f"{len(names)} pages, {wrong} with problems, {time.perf_counter() - begin:.0f} s")
        if not part:
            size = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file())
            wrong += size > MOST_BYTES
            print(f"{size / 1e6:.1f} MB in all, {'more than' if size > MOST_BYTES else 'of at most'} {MOST_BYTES / 1e6:.0f} MB")
            for seen, code in AT_ONCE.items():
                if not is_at_once(page, site, seen, code):
                    wrong += 1
                    print(f"the first page shows {code!r} below a screen of {seen[0]} x {seen[1]}")
            for word in WORDS:
                if not is_found(page, site, word):
                    wrong += 1
                    print(f"search for {word!r}: expected its entry in the glossary, first is {first_result(page, site, word)}")
            print(f"{len(WORDS)} words searched for")
            for question, (clicks, answer) in ANSWERED.items():
                if not is_answered(page, site, clicks, answer):
                    wrong += 1
                    print(f"{question!r}: expected {answer!r} behind the clicks {clicks}")
            print(f"{len(ANSWERED)} questions answered, each in at most {MOST_CLICKS} clicks")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
