"""The README's Python blocks run, in order, as one program, with smaller numbers than a reader's."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
SMALLER = {
    r"max_epochs=[25]\b": "max_epochs=1",
    r"members=\d+": "members=2",
    r"NSF\(num_layers=2, hidden=\(32,\)\)": "NSF(num_layers=1, hidden=(4,))",
    r"MAF\(num_layers=3\)": "MAF(num_layers=1, hidden=(4,))",
    r"num_bins=\d+": "num_bins=2",
    r"print\(flows.verify\(mixed, 3\)\)": "mixed(0, 3)",  # whose kinds of splines take long to compile
    r"(MLP|MaskedResidual)\(32\)": r"\1(4)",
}


def smaller(block):
    for pattern, replacement in SMALLER.items():
        block = re.sub(pattern, replacement, block)
    return block


@pytest.mark.usefixtures("relaxed")
def test_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 5 and all(re.search(pattern, "".join(blocks)) for pattern in SMALLER)
    namespace = {"__name__": "readme"}
    for block in blocks:
        exec(compile(smaller(block), "README.md", "exec"), namespace)
