"""Programs that are kept: the next process compiles nothing, and nothing that is wrong with a folder ends a fit."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import flows
from flows.persistence import programs
from flows.persistence.programs import DIRECTORY, ENABLED, THRESHOLD

CHILD = """
import collections, hashlib, json, os, sys, warnings
import jax
before = dict(jax.config.values)
import flows, numpy as np
untouched = before == dict(jax.config.values)
jax.jit(lambda x: x + 1)(1.0)                                      # JAX has looked for its cache
told = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: told.update([event.rpartition("/")[2]]))
rows = np.random.default_rng(0).normal(size=(64, 2))
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    where = flows.keep_programs(sys.argv[1])
    result = flows.fit(0, flows.Flow(flows.ActNorm()), rows, max_epochs=2, verbose=0)
    scores, draws = result.log_pdf(result.params, rows), result.sample(1, result.params, 10)
print(json.dumps({
    "where": str(where), "untouched": untouched, "told": told, "warned": [str(each.message) for each in warned],
    "bits": hashlib.sha256(b"".join(np.asarray(each).tobytes() for each in (scores, draws))).hexdigest(),
}))
"""
NORMAL = flows.Normal(trainable=True)
ROWS = np.random.default_rng(0).normal(size=(64, 2))


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A process that keeps no programs yet, and whose user's caches are a folder of the test's."""
    before = {name: getattr(jax.config, name) for name in (DIRECTORY, THRESHOLD, ENABLED)}
    for name, value in zip(before, (None, 1.0, True), strict=True):
        jax.config.update(name, value)
        monkeypatch.delenv(name.upper(), raising=False)
    compilation_cache.reset_cache()
    monkeypatch.setattr(programs, "_in_use", None)
    monkeypatch.setattr(programs, "_advised", False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def settings():
    return {name: getattr(jax.config, name) for name in (DIRECTORY, THRESHOLD, ENABLED)}


def run(folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMP", "JAX_PERS"))}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    command = [sys.executable, "-c", CHILD, str(folder)]
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def program(kernels, of="jit_f"):
    """What JAX would write of a program of so many kernels, under the name that it would have."""
    return f"{of}-{kernels:064x}-cache", zlib.compress(b"\x7fELF code " * kernels)


def test_a_second_process_compiles_nothing_and_a_damaged_folder_costs_a_warning(tmp_path):
    folder = tmp_path / "programs"
    first, second = run(folder), run(folder)
    assert first["untouched"] and first["where"] == second["where"] == str(folder)
    assert first["told"]["cache_misses"] > 5 and "cache_hits" not in first["told"]
    assert second["told"]["cache_hits"] == second["told"]["compile_requests_use_cache"] == first["told"]["cache_misses"]
    assert "cache_misses" not in second["told"]
    assert first["bits"] == second["bits"]
    assert not any("keep_programs" in each or "persistent" in each for each in first["warned"] + second["warned"])

    entries = sorted(folder.glob("*-cache"), key=lambda each: each.stat().st_size)
    for i, entry in enumerate(entries):
        entry.write_bytes(entry.read_bytes()[:-7] if i % 2 else b"nonsense")
    third = run(folder)
    assert f"{len(entries)} of the programs in {folder} were damaged" in third["warned"][0]
    assert not any("persistent" in each for each in third["warned"]), "JAX found some of them"
    assert third["bits"] == first["bits"] and third["told"]["cache_misses"] == len(entries)


def test_the_folder_is_the_users_own(fresh):
    folder = fresh / "caches" / "jax-flows" / "programs"
    assert flows.keep_programs() == folder
    assert settings() == {DIRECTORY: str(folder), THRESHOLD: 0.0, ENABLED: True}
    for each in (folder, folder.parent, fresh / "caches"):
        assert each.stat().st_mode & 0o777 == 0o700
    assert flows.keep_programs() == folder
    jax.jit(lambda x: x - 2)(jnp.ones(3))
    kept_here = set(folder.glob("*-cache"))
    assert kept_here
    assert flows.keep_programs(fresh / "others") == fresh / "others"
    assert settings()[DIRECTORY] == str(fresh / "others") and flows.keep_programs() == fresh / "others"
    jax.jit(lambda x: x - 3)(jnp.ones(3))
    assert any((fresh / "others").glob("*-cache")) and set(folder.glob("*-cache")) == kept_here


@pytest.mark.parametrize(
    ("platform", "given", "expected"),
    [
        ("linux", {"HOME": "/home/ada", "XDG_CACHE_HOME": "relative"}, "/home/ada/.cache"),
        ("linux", {"HOME": "/home/ada", "XDG_CACHE_HOME": "/caches"}, "/caches"),
        ("darwin", {"HOME": "/Users/ada", "XDG_CACHE_HOME": ""}, "/Users/ada/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "/ada/Local", "XDG_CACHE_HOME": ""}, "/ada/Local"),
    ],
)
def test_every_system_has_a_folder_for_caches(monkeypatch, platform, given, expected):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert programs.user_folder() == Path(expected, "jax-flows", "programs")


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(fresh, mode):
    open_to_others = fresh / "open"
    open_to_others.mkdir()
    open_to_others.chmod(mode)
    (fresh / "link").symlink_to(open_to_others)
    before = settings()
    for folder in (open_to_others, fresh / "link"):
        with pytest.raises(flows.FlowsError, match=rf"others may write to .*open \(mode {mode:o}\).*chmod 700"):
            flows.keep_programs(folder)
    assert settings() == before


def test_a_folder_that_others_may_read_becomes_the_users_alone(fresh):
    open_to_others = fresh / "open"
    open_to_others.mkdir()
    for names in (
        (),
        (program(1)[0], program(1)[0].replace("-cache", "-atime"), ".lockfile", programs.LOOKED, f"{programs.LOOKED}-12"),
    ):
        for name in names:
            (open_to_others / name).write_bytes(program(1)[1])
        open_to_others.chmod(0o2755)
        assert flows.keep_programs(open_to_others) == open_to_others
        assert open_to_others.stat().st_mode & 0o7777 == 0o2700


def test_a_folder_of_other_files_that_others_may_read_is_refused(fresh):
    open_to_others = fresh / "open"
    open_to_others.mkdir()
    (open_to_others / "notes.txt").touch()
    for mode in (0o755, 0o711, 0o740):
        open_to_others.chmod(mode)
        before = settings()
        expected = rf"others may read .*open \(mode {mode:o}\).*such as notes.txt.*keep_programs\('{open_to_others}/programs'\)"
        with pytest.raises(flows.FlowsError, match=expected):
            flows.keep_programs(open_to_others)
        assert settings() == before and open_to_others.stat().st_mode & 0o777 == mode
    within = flows.keep_programs(open_to_others / "programs")
    assert within.stat().st_mode & 0o777 == 0o700 and open_to_others.stat().st_mode & 0o777 == 0o740
    open_to_others.chmod(0o700)
    assert flows.keep_programs(open_to_others) == open_to_others, "nobody else can read it"


def test_a_folder_is_refused_where_others_could_put_another_in_its_place(fresh, monkeypatch):
    parent = fresh / "open"
    folder = parent / "within" / "programs"
    parent.mkdir()
    (fresh / "link").symlink_to(parent)
    for mode, private, refused in (
        (0o777, True, True), (0o772, True, True), (0o770, False, True), (0o770, True, False), (0o1777, False, False),
        (0o755, False, False),
    ):  # fmt: skip
        parent.chmod(mode)
        monkeypatch.setattr(programs, "is_private", lambda group, private=private: private)
        for each in (folder, fresh / "link" / "within" / "programs"):
            if refused:
                expected = rf"others may write to .*open \(mode {mode:o}\).*in the place of {folder}.*chmod go-w '{parent}'"
                with pytest.raises(flows.FlowsError, match=expected):
                    flows.keep_programs(each)
                assert not folder.parent.exists()
            else:
                assert flows.keep_programs(each) == folder


def test_a_group_is_private_if_it_is_the_users_alone(monkeypatch):
    grp, pwd = pytest.importorskip("grp"), pytest.importorskip("pwd")
    monkeypatch.setattr(os, "getuid", lambda: 71)
    users = {71: pwd.struct_passwd(("ada", "x", 71, 81, "", "/", ""))}
    groups = {81: ("ada", []), 82: ("ada", ["ada"])}
    monkeypatch.setattr(pwd, "getpwuid", users.__getitem__)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((groups[gid][0], "x", gid, groups[gid][1])))
    assert programs.is_private(81) and not programs.is_private(82) and not programs.is_private(83)
    for other in (("ada", ["bob"]), ("staff", [])):
        groups[81] = other
        assert not programs.is_private(81)
    users.clear()
    assert not programs.is_private(81)


def test_a_folder_of_another_user_is_refused(fresh, monkeypatch):
    (fresh / "theirs").mkdir(mode=0o700)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    with pytest.raises(flows.FlowsError, match=f"belongs to user {user}, and you are {user + 1}"):
        flows.keep_programs(fresh / "theirs")


def test_what_is_no_folder_is_refused():
    for folder in (5, b"bytes"):
        with pytest.raises(TypeError, match="expected a path"):
            flows.keep_programs(folder)
    for folder, expected in (
        ("", "empty"), ("gs://bucket", "expected one of this machine"),
        ("a\0b", r"folder is 'a\\x00b', and no folder can have this name"),
        ("a\ud800", "no folder can have this name; expected a path"),
    ):  # fmt: skip
        with pytest.raises(flows.FlowsError, match=expected):
            flows.keep_programs(folder)


def test_a_cache_that_is_configured_is_left(fresh, monkeypatch):
    theirs = fresh / "theirs"
    jax.config.update(DIRECTORY, str(theirs))
    jax.config.update(THRESHOLD, 0.5)
    theirs.mkdir()
    name, damaged = program(1)[0], b"nonsense"
    (theirs / name).write_bytes(damaged)
    assert flows.keep_programs() == flows.keep_programs(theirs) == theirs
    with pytest.warns(UserWarning, match=r"in .*theirs already .* goes on there; .*mine is not used"):
        assert flows.keep_programs(fresh / "mine") == theirs
    assert settings() == {DIRECTORY: str(theirs), THRESHOLD: 0.5, ENABLED: True}
    assert not (fresh / "mine").exists() and not (fresh / "caches").exists() and (theirs / name).read_bytes() == damaged
    jax.config.update(THRESHOLD, 1.0)
    with monkeypatch.context() as set_by_hand:
        set_by_hand.setenv(THRESHOLD.upper(), "1")
        flows.keep_programs()
        assert settings()[THRESHOLD] == 1.0
    flows.keep_programs()
    assert settings()[THRESHOLD] == 0.0
    jax.config.update(DIRECTORY, "gs://bucket")
    assert flows.keep_programs() is None and settings()[DIRECTORY] == "gs://bucket"


def test_what_cannot_be_kept_costs_a_warning(fresh, monkeypatch):
    before = settings()
    (fresh / "file").write_text("no folder")
    for folder in (fresh / "file" / "programs", fresh / "file"):
        with pytest.warns(
            UserWarning, match="every process compiles again: .*Make the folder writable, or name another"
        ) as told:
            assert flows.keep_programs(folder) is None
        assert told[0].filename == __file__
    with monkeypatch.context() as nobody:
        nobody.delenv("XDG_CACHE_HOME")
        nobody.setattr(Path, "home", lambda: Path("~nobody-of-this-name").expanduser())
        with pytest.warns(UserWarning, match="no programs are kept there"):
            assert flows.keep_programs() is None
    with monkeypatch.context() as mac:
        mac.setattr(sys, "platform", "darwin")
        mac.setattr(jax, "__version_info__", (0, 9, 2))
        with pytest.warns(UserWarning, match="may crash"):
            assert flows.keep_programs() is None
    assert settings() == before
    jax.config.update(ENABLED, False)
    with pytest.warns(UserWarning, match="jax_enable_compilation_cache is off"):
        assert flows.keep_programs() is None
    jax.config.update(ENABLED, True)
    assert flows.keep_programs() and settings()[DIRECTORY]
    with pytest.warns(UserWarning, match="kept there, and JAX goes on keeping them in .*jax-flows/programs: .*Make the folder"):
        assert flows.keep_programs(fresh / "file") == fresh / "caches" / "jax-flows" / "programs", "where they still are"


def test_a_folder_that_is_gone_later_costs_a_warning(fresh):
    folder = flows.keep_programs()
    jax.jit(lambda x: x + 5)(jnp.ones(2))
    folder.rename(fresh / "gone")
    with pytest.warns(UserWarning, match="Error writing"):
        assert jax.jit(lambda x: x + 6)(jnp.ones(2)).sum() == 14


def test_programs_that_must_not_be_read_are_deleted_before_they_are(fresh):
    folder = flows.keep_programs()
    good, large = program(programs.MOST_KERNELS), program(programs.MOST_KERNELS + 1)
    damaged, other = program(3), (folder / "notes-cache", b"nonsense")
    zstandard = f"jit_f-{9:064x}-cache", programs.ZSTANDARD
    other[0].write_bytes(other[1])
    for name, content in (good, large, (damaged[0], damaged[1][:-1]), zstandard):
        (folder / name).write_bytes(content)
    jax.jit(lambda x: x + 7)(jnp.ones(2))  # JAX is about to look for a program
    assert (folder / good[0]).exists() and not (folder / large[0]).exists() and not (folder / damaged[0]).exists()
    assert other[0].exists()
    (folder / large[0]).write_bytes(large[1])
    (folder / damaged[0]).write_bytes(damaged[1][:-1])
    with pytest.warns(UserWarning, match="1 of the programs in .* damaged"):
        flows.keep_programs()
    assert not (folder / large[0]).exists() and not (folder / damaged[0]).exists()


def test_a_program_is_looked_at_once(fresh, monkeypatch):
    folder = flows.keep_programs()
    (folder / program(1)[0]).write_bytes(program(1)[1])
    os.utime(folder / program(1)[0], (0, 0))  # before the last look
    seen = []
    monkeypatch.setattr(programs, "kernels_of", lambda content: seen.append(content) or 1)
    flows.keep_programs()
    assert not seen
    (folder / program(2)[0]).write_bytes(program(2)[1])
    flows.keep_programs()
    assert seen == [program(2)[1]]
    assert not list(folder.glob(f"{programs.LOOKED}-*"))


def test_what_was_not_used_for_longest_is_deleted_beyond_the_limit(fresh, monkeypatch):
    folder = flows.keep_programs()
    (folder / "data.npz").write_bytes(bytes(1000))
    monkeypatch.setattr(programs, "LIMIT", 250)
    monkeypatch.setattr(programs, "kernels_of", lambda content: 1)
    for i, (read, written) in enumerate([(5, 50), (40, 1), (30, 3), (1, 20)]):
        (folder / program(i)[0]).write_bytes(bytes(100))
        os.utime(folder / program(i)[0], (read, written))
    flows.keep_programs()
    assert [(folder / program(i)[0]).exists() for i in range(4)] == [True, True, False, False]
    assert (folder / "data.npz").exists()


def test_a_plain_fit_changes_no_setting_of_jax():
    before = dict(jax.config.values)
    flows.fit(0, NORMAL, ROWS, max_epochs=1, verbose=0)
    assert dict(jax.config.values) == before


def test_a_bar_that_compiled_for_long_says_once_how_to_keep_programs(fresh, monkeypatch, capsys):
    assert programs.LONG == 3.0
    monkeypatch.setattr(programs, "LONG", -1.0)

    def said(verbose):
        flows.fit(0, NORMAL, ROWS, max_epochs=2, verbose=verbose)
        printed = capsys.readouterr()
        assert not printed.out
        return printed.err.count("s: flows.keep_programs(), called first, keeps programs for the next process")

    assert [said(0), said(1), said(1)] == [0, 1, 0]
    monkeypatch.setattr(programs, "_advised", False)
    before = programs.seconds_of_compiling()
    jax.jit(lambda x: x - 9)(jnp.ones(2))
    took = programs.seconds_of_compiling() - before
    assert 0 < took < 60
    monkeypatch.setattr(programs, "LONG", took / 2)
    assert said(1) == 0, "it compiled nothing"


def test_no_advice_where_programs_are_kept_or_are_not_to_be(fresh):
    assert programs.advice(3.0) is None
    jax.config.update(DIRECTORY, str(fresh))
    assert programs.advice(9.0) is None
    jax.config.update(DIRECTORY, None)
    jax.config.update(ENABLED, False)
    assert programs.advice(9.0) is None
    jax.config.update(ENABLED, True)
    assert programs.advice(9.4).startswith("compiling took 9 s") and programs.advice(9.0) is None
