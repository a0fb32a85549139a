"""HTML of checks: texts are escaped where they are written; and the table of verdicts in a notebook."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from flows.checks.words import in_words

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
CODE = re.compile("`([^`]+)`")
BEHIND = {"FAIL": "#c62828", "pass": "#2e7d32"}  # white verdicts in a notebook, which is light or dark
Cell = Any  # text, a number, or Html


class Html(str):
    """Text that is HTML already."""


def clean(words: Any) -> str:
    """Return text for HTML: escaped, without characters that it cannot have."""
    return escape(CONTROL.sub("\ufffd", str(words)))


def text(words: Any) -> str:
    """Return text of others for HTML, which may be written from the right without what is next to it; code stands in `code`."""
    return f"<bdi>{CODE.sub(lambda code: f'<code>{code[1]}</code>', clean(words))}</bdi>"


def number(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.5g}"


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], label: str = "table") -> str:
    """Return a table, which scrolls by itself where it is wide."""

    def cell(value: Cell) -> str:
        if isinstance(value, Html):
            return f"<td>{value}</td>"
        words = isinstance(value, str) or value is None
        return f"<td>{text(value or '')}</td>" if words else f'<td class="number">{number(value)}</td>'

    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>\n" for row in rows)
    heads = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    region = f'class="wide {clean(label)}" role="region" aria-label="{clean(label)}" tabindex="0"'
    return f"<div {region}><table><thead><tr>{heads}</tr></thead>\n{body}</table></div>"


def folded(name: str, content: str) -> str:
    return f"<details><summary>{text(name)}</summary>{content}</details>"


def notebook(checks: Any, cells: Sequence[Sequence[str]]) -> str:
    """Return verdicts in words, and their table, where long details wrap."""
    lines = "<br>".join(map(text, [*checks.head(), *in_words(checks)]))
    badge = '<b style="background:{};color:#fff;padding:0 0.3em">{}</b>'
    rows = [[Html(badge.format(BEHIND[cell], cell)) if cell in BEHIND else cell for cell in row] for row in cells[1:]]
    return f'<div class="flows-checks">{lines}{table(cells[0], rows)}</div>'
