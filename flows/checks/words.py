"""Words for checks: the meaning of a size, and a remedy for a FAIL, from words.toml; and verdicts in plain sentences."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Words(NamedTuple):
    """The subject of a check, the unit of its size, what a size up to the usual tolerance means, and what to do for a FAIL."""

    subject: str
    unit: str
    meaning: str
    remedy: str


WORDS = {
    name: Words(**words) for name, words in tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8")).items()
}


def in_words(checks: Mapping[str, Any]) -> list[str]:
    """Return in plain sentences what verdicts say together, the largest error first."""
    by_verdict: dict[str, list[Any]] = {}
    for check in checks.values():
        by_verdict.setdefault(check.verdict, []).append(check)
    failed = sorted(by_verdict.get("FAIL", []), key=lambda check: -(check.size or 0) / (check.tolerance or 1e-9))
    said = [f"Wrong: {WORDS[check.name].subject} ({check.detail})." for check in failed]
    words = {"pass": "These rows do not show an error of", "small": "Off by less than matters:", "cannot tell": "Not known:"}
    for verdict, phrase in words.items():
        if names := [WORDS[check.name].subject for check in by_verdict.get(verdict, [])]:
            said.append(f"{phrase} {', '.join(names)}.")
    return said if failed else ["Nothing FAILs.", *said]
