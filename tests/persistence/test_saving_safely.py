"""Paths that cannot be written, and what a failed save leaves behind."""

import os
import stat

import jax
import numpy as np
import pytest
from saved_models import drawn, tiny

import flows
from flows import describe, load, save
from flows.persistence.container import TEMPORARY, replacement


def test_paths_that_cannot_be_written(tmp_path, saved):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for bad in [tmp_path / "no folder" / "m", tmp_path, f"{tmp_path}/", f"{tmp_path}/new/", saved / "m", "", "a\0b", fifo,
                tmp_path / ("x" * 300)]:  # fmt: skip
        with pytest.raises(flows.FlowsError, match=r"cannot write .* Expected a file name") as error:
            save(bad, tiny, drawn(tiny, 1), 1)
        assert repr(str(bad)) in str(error.value)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["fifo", saved.name]
    with pytest.raises(TypeError, match="save: path is 3; expected the name of a file"):
        save(3, tiny, drawn(tiny, 1), 1)


def test_folders_and_files_without_permission(tmp_path, saved, monkeypatch):
    before = saved.read_bytes()

    def refuse(name, mode="r", *rest):
        raise PermissionError(13, "Permission denied", name)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)  # chmod does not stop root
        with pytest.raises(flows.FlowsError, match=r"cannot write .*Permission denied"):
            save(saved, tiny, drawn(tiny, 1), 1)
        with pytest.raises(flows.FlowsError, match=r"cannot read .*Permission denied"):
            load(saved)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(flows.FlowsError, match="write-protected"):
            save(saved, tiny, drawn(tiny, 1), 1)
    assert saved.read_bytes() == before


@pytest.mark.parametrize("step", ["fsync", "replace", "realpath", "copymode"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_leaves_what_was_there(step, error, existing, tmp_path, monkeypatch):
    path = tmp_path / "model"
    if existing:
        save(path, tiny, drawn(tiny, 1, seed=1), 1)
    elif step == "copymode":
        return
    before = path.read_bytes() if existing else None

    def fail(*args, **keywords):
        raise error

    owner = {"realpath": "os.path", "copymode": "shutil"}.get(step, "os")
    with monkeypatch.context() as patch:
        patch.setattr(f"{owner}.{step}", fail)
        expected = flows.FlowsError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected, match="No space left" if isinstance(error, OSError) else None):
            save(path, tiny, drawn(tiny, 1, seed=2), 1)
    assert [each.name for each in tmp_path.iterdir()] == (["model"] if existing else [])
    assert not existing or path.read_bytes() == before


def test_everything_is_on_disk_before_the_rename(path, monkeypatch):
    calls = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor):
        mode = os.fstat(descriptor).st_mode
        calls.append(("folder" if stat.S_ISDIR(mode) else "file", os.fstat(descriptor).st_size))
        if stat.S_ISDIR(mode):
            raise OSError("this file system cannot sync a folder")
        real_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(("rename", 0)), real_replace(a, b)))
    save(path, tiny, drawn(tiny, 1), 1)
    assert [name for name, _ in calls] == ["file", "rename", "folder"] and calls[0][1] == path.stat().st_size
    load(path)


def test_modes_and_links(tmp_path, saved):
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    saved.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(saved.name)
    save(link, tiny, drawn(tiny, 2), 2)
    assert link.is_symlink() and describe(saved)["event"] == (2,)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o640


def test_what_a_killed_save_left_goes_at_the_next(tmp_path):
    new, old = (tmp_path / name.join(TEMPORARY) for name in ("new", "old"))
    for each in (new, old):
        each.write_bytes(b"half")
    os.utime(old, (0, 0))
    save(tmp_path / "model", tiny, drawn(tiny, 1), 1)
    assert new.exists() and not old.exists()


def test_a_file_beside_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "rows.csv"
    with replacement(str(path)) as file:
        file.write(b"first\n")
        assert not path.exists() and [name.endswith(TEMPORARY[1]) for name in os.listdir(tmp_path)] == [True]
        file.write(b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"
    with pytest.raises(KeyError), replacement(str(path)) as file:
        file.write(b"other")
        raise KeyError
    message = r"cannot write .*: Disk full\. Expected a file name .* to, with room"
    with pytest.raises(flows.FlowsError, match=message), replacement(str(path), ", with room"):
        raise OSError("Disk full")
    assert path.read_bytes() == b"first\nsecond\n" and os.listdir(tmp_path) == ["rows.csv"]


def test_params_that_are_nan_are_not_saved_unasked(tmp_path):
    params = jax.tree.map(lambda leaf: leaf * np.nan, drawn(flows.ActNorm(), 2))
    with pytest.raises(flows.FlowsError, match=r"save: params are NaN in log_scale, shift: a training that failed"):
        save(tmp_path / "model", flows.ActNorm(), params, 2)
    assert not (tmp_path / "model").exists()
    save(tmp_path / "model", flows.ActNorm(), params, 2, allow_nan=True)
    assert np.isnan(load(tmp_path / "model").params["shift"]).all()
