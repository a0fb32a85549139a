"""A site of one page, built as the whole site is: its text in place of all others, and addresses of a project that has some."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
URLS = '\n[project.urls]\nRepository = "https://github.com/someone/flows"\nDocumentation = "https://flows.example.org"\n'


def build(folder: Path, text: str, urls: str = "") -> tuple[Path, str]:
    """The folder of HTML, and what Sphinx warned of the page."""
    docs = folder / "docs"
    docs.mkdir(parents=True)
    for path in [*(ROOT / "docs").glob("*.py"), *(ROOT / "docs").glob("*.mplstyle")]:
        shutil.copy(path, docs)
    with (docs / "conf.py").open("a") as conf:  # without what reads all of the library
        conf.write("\nextensions.remove('sphinx.ext.viewcode')\nnitpicky = False\n")
        conf.write("on_check_consistency = lambda app, env: None\non_builder_inited = lambda app: None\n")
    for name in ("static", "pictures"):
        (docs / name).symlink_to(ROOT / "docs" / name)
    for name in ("README.md", "flows", "examples", "benchmarks", "tests"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + urls)
    (docs / "index.md").write_text(text)
    command = [sys.executable, "-m", "sphinx", "--quiet", "-d", folder / "doctrees", docs, folder / "html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return folder / "html", done.stderr
