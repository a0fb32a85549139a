"""A fit on several devices, and in several processes, is the fit on one device."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).parent / "on_mesh.py"
ALL = (
    "spline", "maf", "dropout", "rounded", "weights", "average", "accumulate", "folds", "members", "three", "objective",
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


def same(one, other):
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("cases", [("maf",), pytest.param(ALL, marks=pytest.mark.slow)])
def test_losses_are_those_of_one_device_and_two_processes_are_two_devices(tmp_path, cases):
    in_one(tmp_path, 2, *cases)
    in_two(tmp_path, *cases)
    in_one(tmp_path, 1, *cases)
    for case in cases:
        one, two, first, second = (found(tmp_path, case, *which) for which in [(1,), (2,), (1, 2, 0), (1, 2, 1)])
        np.testing.assert_allclose(two["losses"], one["losses"], atol=1e-4)
        assert np.ptp(one["losses"]) > 1e-3  # something was learnt
        same(first, second)
        same(first, two)


@pytest.mark.slow
def test_losses_on_eight_devices_and_a_repeat(tmp_path):
    in_one(tmp_path, 1, *ALL)
    in_one(tmp_path, 8, *ALL)
    before = {case: found(tmp_path, case, 8) for case in ALL}
    in_one(tmp_path, 8, *ALL)
    for case in ALL:
        np.testing.assert_allclose(before[case]["losses"], found(tmp_path, case, 1)["losses"], atol=1e-4)
        same(before[case], found(tmp_path, case, 8))
