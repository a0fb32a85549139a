"""Hints say what works where the library came from; versions of what is there."""

import json
import re
import shlex
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import flows
from flows.core import extras

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


class From:
    """A distribution that was installed from a place."""

    def __init__(self, origin):
        self.origin = origin

    def read_text(self, name):
        assert name == "direct_url.json"
        return self.origin


def test_the_name_of_the_distribution_stands_in_two_places():
    assert PROJECT["name"] == extras.DISTRIBUTION
    mentions = [path.name for path in (ROOT / "flows").rglob("*.py") if "jax-flows[" in path.read_text()]
    assert mentions == [], "a hint that is not made by core.extras"


def test_a_hint_works_where_the_library_came_from(monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "RELEASED", False)

    def came_from(origin):
        monkeypatch.setattr(metadata, "distribution", lambda name: From(origin))
        return extras.installs("plot")

    checkout = "pip install '.[plot]' in the checkout"
    assert came_from(None) == checkout
    assert came_from(json.dumps({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})) == checkout
    vcs = {"url": "https://host/flows.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}}
    assert came_from(json.dumps(vcs)) == "pip install 'jax-flows[plot] @ git+https://host/flows.git@ab12'"
    address = {"url": "https://host/flows.whl", "archive_info": {}}
    assert came_from(json.dumps(address)) == "pip install 'jax-flows[plot] @ https://host/flows.whl'"
    assert came_from("{") == came_from("[]") == came_from(json.dumps({"archive_info": {}})) == checkout
    wheel = tmp_path / "jax flows's $(x) 100%.whl"
    origin = json.dumps({"url": wheel.as_uri(), "archive_info": {}})
    assert came_from(origin) == "install the wheel again, with [plot]"
    wheel.touch()
    assert shlex.split(came_from(origin)) == ["pip", "install", f"{wheel}[plot]"]
    monkeypatch.setattr(extras, "RELEASED", True)
    assert came_from(origin) == "pip install 'jax-flows[plot]'"
    assert extras.lacking("plot", "matplotlib", "plot") == "plot needs the package matplotlib: pip install 'jax-flows[plot]'"


def test_a_library_that_is_not_installed_is_a_checkout(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    monkeypatch.setattr(extras, "RELEASED", False)
    assert extras.installs("plot") == "pip install '.[plot]' in the checkout"


def test_versions_name_all_packages_of_users_and_the_file(capsys):
    flows.show_versions()
    printed = capsys.readouterr().out
    assert printed.startswith(f"flows {flows.__version__}, Python 3.") and f"imported from    {flows.__file__}\n" in printed
    needed = {re.match(r"[\w-]+", each)[0] for each in PROJECT["dependencies"]}
    assert {*extras.NEEDED} == needed | {"jaxlib"}
    users = PROJECT["optional-dependencies"].items()
    optional = {re.match(r"[\w-]+", each)[0] for name, packages in users if name not in ("docs", "test") for each in packages}
    assert {*extras.OPTIONAL} == optional
    assert all(f"\n{name} " in printed for name in (*extras.NEEDED, *extras.OPTIONAL, "devices", "system"))


def test_versions_without_a_device_and_without_packages(monkeypatch, capsys):
    def broken():
        raise KeyError("no backend")

    monkeypatch.setattr(extras.jax, "devices", broken)
    monkeypatch.setattr(extras, "OPTIONAL", ("not-a-package",))
    flows.show_versions()
    printed = capsys.readouterr().out
    assert "devices          none: 'no backend'" in printed and "not-a-package    not installed" in printed


@pytest.mark.parametrize("workflow", ["test.yml", "release.yml"])
def test_actions_are_pinned_and_rights_are_given_one_by_one(workflow):
    text = (ROOT / ".github" / "workflows" / workflow).read_text()
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name) and version.startswith(" # v") for name, version in used)
    assert "\npermissions: {}\n" in text
    assert text.count("id-token: write") == (workflow == "release.yml")
    targets = re.findall(r"run: make ([\w-]+)", text)
    makefile = (ROOT / "Makefile").read_text()
    assert targets and all(f"\n{target}:" in makefile for target in targets)
