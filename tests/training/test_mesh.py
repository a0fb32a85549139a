"""A fit on several devices, and in several processes, is the fit on one device."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import on_mesh
import pytest

WORKER = Path(__file__).parent / "on_mesh.py"
ALL = (
    "spline", "maf", "dropout", "rounded", "weights", "average", "accumulate", "folds", "gaps", "members", "three", "objective",
    "mapped", "density",
)  # fmt: skip


def start(out, devices, *arguments):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, WORKER, out, devices, *arguments]
    return subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def ended(*processes):
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    assert not any(process.returncode for process in processes), outputs
    return outputs


def in_one(out, devices, *cases):
    ended(start(out, devices, *cases))


def in_two(out, *cases):
    port = free_port()
    ended(*[start(out, 1, process, 2, port, *cases) for process in (0, 1)])


def found(out, case, devices, processes=1, process=0):
    with np.load(out / f"{case} {devices} {processes} {process}.npz") as arrays:
        return dict(arrays)


def told(out, case, devices, processes=1, process=0):
    return json.loads((out / f"{case} {devices} {processes} {process}.json").read_text())


def same(one, other):
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_what_two_devices_have_of_rows_and_make_of_them(tmp_path):
    in_one(tmp_path, 2, "small arrays")
    of, rows = told(tmp_path, "small arrays", 2), np.arange(16.0).reshape(8, 2) ** 2
    np.testing.assert_allclose(of["mean and variance"], [[rows.mean(0), rows.var(0)]] * 2, rtol=1e-6)  # of all rows
    assert of["rows of numbers"] == [rows[[3, 0]].tolist(), rows[[5, 6]].tolist()]  # of those that a device has
    assert of["order"] == [[[[0, 1]], [[4, 5]], [[8, 9]]], [[[2, 3]], [[6, 7]], [[10, 11]]]]  # a part of each step
    assert of["swapped"] == [rows[:4, ::-1].tolist(), rows[4:, ::-1].tolist()]  # by a gather, along an explicit axis


def test_a_fit_on_two_devices_and_in_two_processes(tmp_path):
    """The losses are those of one device, the params of two processes those of two devices; no row moves, and functions leave
    their results where the rows are."""
    in_two(tmp_path, "small")
    in_one(tmp_path, 2, "small", "counted", "counted by row", "spread")
    one, two = on_mesh.CASES["small"]().history["validation_loss"], found(tmp_path, "small", 2)
    np.testing.assert_allclose(two["losses"], one, atol=1e-4)
    assert np.ptp(one) > 1e-3  # something was learnt
    same(found(tmp_path, "small", 1, 2, 0), found(tmp_path, "small", 1, 2, 1))
    same(found(tmp_path, "small", 1, 2, 0), two)
    adds_up(told(tmp_path, "counted", 2)), adds_up(told(tmp_path, "counted by row", 2))
    assert told(tmp_path, "counted by row", 2)["arrays"] <= 8 < told(tmp_path, "counted", 2)["arrays"] <= 12
    for name, (off, stays) in told(tmp_path, "spread", 2).items():
        assert off < 1e-5 and stays == "True", name


def adds_up(counts):
    """A gradient, batch statistics, a validation are added up, the last in five ways, and no row goes to another device. A
    gradient is one array."""
    assert counts["all-reduce"] >= 6
    assert counts["all-gather"] == counts["all-to-all"] == counts["collective-permute"] == 0


@pytest.mark.slow
def test_losses_are_those_of_one_device_and_two_processes_are_two_devices(tmp_path):
    in_one(tmp_path, 2, *ALL)
    in_two(tmp_path, *ALL)
    in_one(tmp_path, 1, *ALL)
    for case in ALL:
        one, two, first, second = (found(tmp_path, case, *which) for which in [(1,), (2,), (1, 2, 0), (1, 2, 1)])
        np.testing.assert_allclose(two["losses"], one["losses"], atol=1e-4)
        assert np.ptp(one["losses"]) > 1e-3  # something was learnt
        same(first, second)
        same(first, two)


@pytest.mark.slow
def test_frames_of_a_table_are_shared_by_two_processes(tmp_path):
    pytest.importorskip("dask.dataframe")
    in_two(tmp_path, "parts", "frames")
    of_first, of_second = (told(tmp_path, "parts", 1, 2, process) for process in (0, 1))
    for first, second in zip(of_first, of_second, strict=True):
        assert len(first) == len(second) == 2 and sorted(first + second) == [0, 1, 2, 3]
    same(found(tmp_path, "frames", 1, 2, 0), found(tmp_path, "frames", 1, 2, 1))
    assert np.ptp(found(tmp_path, "frames", 1, 2)["losses"]) > 1e-3  # something was learnt


@pytest.mark.slow
def test_the_memory_of_rows_on_a_device_falls_with_their_number(tmp_path):
    in_one(tmp_path, 2, "counted", "counted split")
    copied, split = told(tmp_path, "counted", 2), told(tmp_path, "counted split", 2)
    adds_up(copied), adds_up(split)
    assert split["bytes"] < 0.6 * copied["bytes"]


@pytest.mark.slow
def test_what_is_wrong_in_one_process_is_told_in_all(tmp_path):
    in_two(tmp_path, "wrong", "spline")  # which still meet afterwards
    first, second = (told(tmp_path, "wrong", 1, 2, process) for process in (0, 1))
    both = {
        "two axes": "FlowsError: fit: mesh has 2 axes, a=2, b=1; expected one",
        "no devices": "FlowsError: fit: mesh has no devices",
        "one process's devices and more": "FlowsError: fit: batch_size is 65, which does not split",
        "data": "FlowsError: fit: process 1 has another data than process 0",
        "seed": "FlowsError: fit: process 1 has another rng than process 0",
        "settings": "FlowsError: fit: process 1 has another learning_rate than process 0",
        "optimizer": "FlowsError: fit: process 1 has another optimizer than process 0",
        "few held out": "FlowsError: fit: rows is 'split' over 2 devices, and 1 rows are held out",
        "folder": "not the same folder in process 1 as in process 0",
    }
    for name, text in both.items():
        assert text in first[name] and text in second[name], (first[name], second[name])
    assert first["refused"].startswith("FitError: fit: process 1 failed, and all end. FlowsError: fit: learning_rate is -1.0")
    assert second["refused"].startswith("FlowsError: fit: learning_rate is -1.0")
    assert first["callback"] == "OSError: no room"
    assert second["callback"] == "FitError: fit: process 0 failed, and all end. OSError: no room"
    assert first["NaN"].startswith("FitError: fit: process 1 failed, and all end. FlowsError: fit: data has nan in row 7")
    assert second["NaN"].startswith("FlowsError: fit: data has nan in row 7, column 1")
    assert "process 1 failed, and all end. " in first["iterable"] and "data ended in epoch 3" in first["iterable"]
    assert "data ended in epoch 3" in second["iterable"] and "process" not in second["iterable"]
    assert "process 1 failed, and all end. CellError: encode: column 'b', row 7" in first["table"]
    assert second["table"].startswith("CellError: encode: column 'b', row 7")
    same(found(tmp_path, "spline", 1, 2, 0), found(tmp_path, "spline", 1, 2, 1))


def saved(file):
    """When it was saved last."""
    return file.stat().st_mtime_ns if file.exists() else 0


@pytest.mark.slow
def test_fits_that_are_killed_go_on_and_end_with_the_same_bits(tmp_path):
    """One process or both, at 20 moments of fits that are saved after each epoch; then with another number of devices."""
    whole, again, rng = tmp_path / "whole", tmp_path / "again", np.random.default_rng(0)
    whole.mkdir(), again.mkdir()
    in_two(whole, "kept")
    file, seen = again / "kept" / "fit.flows", set()
    for moment in range(20):
        port = free_port()
        before = saved(file)
        both = [start(again, 1, process, 2, port, "kept") for process in (0, 1)]
        while moment % 4 and saved(file) == before and all(process.poll() is None for process in both):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 2))
        for process in both[moment % 3 : moment % 3 + 1] or both:
            process.kill()
        time.sleep(0.1)
        for process in both:
            process.kill()
            process.communicate()
        seen.add(saved(file))
        if moment == 9:
            shutil.copytree(again / "kept", tmp_path / "halfway" / "kept")
    assert len(seen) > 10  # it was killed between saves, not before the first or after the last
    in_two(again, "kept")
    same(found(whole, "kept", 1, 2), found(again, "kept", 1, 2))
    in_one(tmp_path / "halfway", 1, "kept")
    one, two = found(tmp_path / "halfway", "kept", 1), found(whole, "kept", 1, 2)
    np.testing.assert_allclose(one["losses"], two["losses"], atol=1e-4)


@pytest.mark.slow
def test_losses_on_eight_devices_and_a_repeat(tmp_path):
    in_one(tmp_path, 1, *ALL)
    in_one(tmp_path, 8, *ALL)
    before = {case: found(tmp_path, case, 8) for case in ALL}
    in_one(tmp_path, 8, *ALL)
    for case in ALL:
        np.testing.assert_allclose(before[case]["losses"], found(tmp_path, case, 1)["losses"], atol=1e-4)
        same(before[case], found(tmp_path, case, 8))
