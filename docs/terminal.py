"""Pictures of a terminal, each of a command that is run while the documentation is built.

    from terminal import shell
    shell("flows show power.flows")

All commands of a page run in one folder, in which power.csv and weather.csv are the data of the examples; `drawn("pairs.png")`
is a picture that one of them wrote there, and `linked("check.html")` a link to a page.
"""

import base64
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

from IPython.display import HTML, Image
from rich.console import Console
from rich.text import Text

WIDTH = 96  # characters
DATA = Path(__file__).resolve().parents[1] / "examples" / "data"
FOLDER = tempfile.TemporaryDirectory()
for name, file in (("power.csv", "household_power.csv"), ("weather.csv", "weather.csv")):
    shutil.copy(DATA / file, Path(FOLDER.name, name))


class Picture:
    """What a terminal showed, as SVG in a page."""

    def __init__(self, svg: str):
        self.svg = svg

    def _repr_html_(self) -> str:
        return f"<div>{self.svg}</div>"


def drawn(name: str) -> Image:
    return Image(filename=str(Path(FOLDER.name, name)))


def linked(name: str) -> HTML:
    """A link that saves a page which a command wrote."""
    page = Path(FOLDER.name, name).read_bytes()
    address = f"data:text/html;base64,{base64.b64encode(page).decode()}"
    return HTML(f'<a download="{name}" href="{address}">{name}, {len(page) / 1e3:.0f} kB</a>')


def shell(*commands: str, status: int = 0) -> Picture:
    """Run commands of flows, and draw what they print; one that ends otherwise than expected fails the build."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_jupyter=False)
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)],
            cwd=FOLDER.name,
            env={**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != status:
            raise RuntimeError(f"{command}: exit status {done.returncode}, expected {status}: {done.stdout}")
        console.print(Text(f"$ {command}", style="bold"))
        console.print(Text.from_ansi(done.stdout))
    svg = console.export_svg(title="", unique_id=f"terminal-{zlib.crc32(str(commands).encode())}")
    return Picture(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))  # nothing is fetched from elsewhere
