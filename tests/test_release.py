"""Versions of a release are equal everywhere, or one line says what differs."""

import datetime
import subprocess
import sys

import pytest
import release

import flows

TODAY = datetime.date.today().isoformat()


@pytest.fixture
def tree(tmp_path):
    """A copy of the places that have the version, committed."""
    for place in (*release.PLACES, "CHANGELOG.md"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text((release.ROOT / place).read_text())
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n- All.\n\n## [0.0.1] - 2020-01-01\n\n- First.\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_all_places_have_one_version():
    assert set(release.versions().values()) == {flows.__version__}
    assert release.top_section()[0] in ("Unreleased", flows.__version__)


def test_a_release_is_written_and_its_tag_is_right(tree):
    assert "Next: git diff; make test-all; git commit -am 'release 0.2.0'" in release.write("0.2.0", tree)
    assert set(release.versions(tree).values()) == {"0.2.0"}
    assert f"\nversion: 0.2.0\ndate-released: {TODAY}\nlicense:" in (tree / "CITATION.cff").read_text()
    assert f"## [0.2.0] - {TODAY}\n\n- All." in (tree / "CHANGELOG.md").read_text()
    assert release.check_tag("v0.2.0", tree).startswith("v0.2.0 is the version of flows/__init__.py")
    with pytest.raises(release.Wrong, match=r"the tag is 'v0\.3\.0', and flows/__init__\.py says 0\.2\.0; expected v0\.2\.0"):
        release.check_tag("v0.3.0", tree)
    with pytest.raises(release.Wrong, match=r"begins with \[0\.2\.0\]; expected \[Unreleased\]"):
        release.write("0.3.0", tree)
    (tree / "CITATION.cff").write_text((tree / "CITATION.cff").read_text().replace("0.2.0", "0.1.9"))
    with pytest.raises(release.Wrong, match=r"CITATION\.cff says 0\.1\.9"):
        release.check_tag("v0.2.0", tree)


@pytest.mark.parametrize(
    ("version", "log", "error"),
    [
        ("", None, "the version is ''; expected three numbers"),
        ("00.2.0", None, "the version is '00.2.0'; expected three numbers"),
        ("0.0.1", "## [Unreleased]\n\n- All.\n", "the version is 0.0.1, and 0.0.1 is released"),
        ("0.2.0", "## [Unreleased]\n\n### Added\n", r"the section \[Unreleased\] is empty; say what"),
        ("0.2.0", "## [Unreleased]\n\n- All.\n\n## [Unreleased]\n\n- All.\n", r"has two sections \[Unreleased\]"),
        ("v0.2", None, "the version is 'v0.2'; expected three numbers"),
        ("0.0.1", None, "the version is 0.0.1, and 0.0.1 is released; expected a higher one"),
        ("0.2.0", "# Changelog\n", "CHANGELOG.md has no section; expected"),
        ("0.2.0", "## [Unreleased]\n\n## [0.0.1] - 2020-01-01\n\n- First.\n", r"the section \[Unreleased\] is empty; say what"),
        ("0.2.0", "## [Unreleased]\n\n- All.\n", "1 files are not committed, such as CHANGELOG.md; commit them first"),
    ],
)
def test_a_release_that_cannot_be_made_is_one_line(tree, version, log, error):
    if log is not None:
        (tree / "CHANGELOG.md").write_text(log)
    with pytest.raises(release.Wrong, match=error) as refused:
        release.write(version, tree)
    assert "\n" not in str(refused.value)
    assert release.versions(tree) == release.versions(), "nothing was written"


def test_a_tag_of_a_version_without_a_date_is_refused(tree):
    (tree / "CHANGELOG.md").write_text(f"## [{flows.__version__}]\n\n- All.\n")
    with pytest.raises(release.Wrong, match="has the date None; expected one, and the same in"):
        release.check_tag(f"v{flows.__version__}", tree)


def test_a_folder_without_a_wheel_is_refused(tmp_path):
    with pytest.raises(release.Wrong, match="has 0 wheels and 0 sdists; expected one of each: make dist"):
        release.check_contents(tmp_path)


@pytest.mark.parametrize("wheel", [b"", b"not a zip file"])
def test_a_broken_wheel_is_one_line(tmp_path, wheel):
    (tmp_path / "a.whl").write_bytes(wheel)
    (tmp_path / "a.tar.gz").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, release.__file__, "--contents", tmp_path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("release: BadZipFile") and done.stderr.count("\n") == 1
