"""Running simulators: equal rows whatever runs them, folders that survive kills, and errors that name a row."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from common import close, error_of

import flows
from flows import sbi

N = 30


def in_python(rng, theta):
    return theta["mean"] + rng.normal(size=3)


def slow(rng, theta):
    time.sleep(0.02)
    return in_python(rng, theta)


def failing(rng, theta):
    if theta["mean"] > 1:
        raise ValueError("too hot")
    return in_python(rng, theta)


def deadly(rng, theta):
    if theta["mean"] > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return in_python(rng, theta)


def ragged(rng, theta):
    return rng.normal(size=3 if theta["mean"] < 1 else 4)


def in_jax(key, theta):
    return theta["mean"] + jax.random.normal(key, (3,))


def in_jax_of_two(key, theta):
    return jax.numpy.stack([theta["a"], theta["b"]])


@pytest.fixture(scope="module")
def prior():
    return sbi.Prior({"mean": flows.Normal()})


@pytest.fixture(scope="module")
def rows(prior):
    return sbi.simulate(0, prior, in_python, N, workers=0, verbose=0)


def same(a, b):
    np.testing.assert_array_equal(a.theta, b.theta)
    np.testing.assert_array_equal(a.x, b.x)


def test_rows_are_equal_whatever_runs_them(prior, rows, tmp_path):
    with ThreadPoolExecutor(2) as threads:
        same(sbi.simulate(0, prior, in_python, N, executor=threads, verbose=0), rows)
    same(sbi.simulate(0, prior, in_python, 7, workers=0, verbose=0), rows[:7])
    same(sbi.simulate(0, prior, in_python, 7, workers=0, path=tmp_path, verbose=0), rows[:7])
    ran = []
    counted = lambda rng, theta: ran.append(1) or in_python(rng, theta)  # noqa: E731
    same(sbi.simulate(0, prior, counted, N, workers=0, path=tmp_path, verbose=0), rows)
    assert len(ran) == N - 7  # the others are in the folder
    same(sbi.simulate(0, prior, in_python, 5, workers=0, path=tmp_path, verbose=0), rows[:5])
    close(rows.x.mean(1) - rows.theta[:, 0], np.zeros(N), 4)
    assert not np.array_equal(sbi.simulate(1, prior, in_python, 7, workers=0, verbose=0).x, rows.x[:7])


@pytest.mark.slow
def test_an_executor_that_cannot_send_a_simulator(prior):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        message = error_of(lambda: sbi.simulate(0, prior, lambda rng, theta: 1.0, 3, executor=pool, verbose=0))
    assert "the executor cannot run the simulator" in message and "define it at the top of a module" in message


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:os.fork")
def test_workers_that_were_forked_do_not_keep_a_folder_locked(prior, rows, tmp_path):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        for n in (5, N):
            same(sbi.simulate(0, prior, in_python, n, executor=pool, path=tmp_path, verbose=0), rows[:n])


@pytest.mark.slow
def test_rows_are_equal_by_loky_and_dask(prior, rows):
    from distributed import Client
    from joblib.externals.loky import get_reusable_executor

    here = str(Path(__file__).parent)  # where processes find the simulator
    loky = get_reusable_executor(2, env={"PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])})
    same(sbi.simulate(0, prior, in_python, N, executor=loky, verbose=0), rows)
    loky.shutdown()
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        same(sbi.simulate(0, prior, in_python, N, executor=client.get_executor(), verbose=0), rows)


def test_processes_make_the_same_rows(prior, rows, tmp_path):
    same(sbi.simulate(0, prior, in_python, N, workers=2, path=tmp_path, verbose=0), rows)


def test_jax_simulators_run_in_blocks(prior, tmp_path):
    whole = sbi.simulate(0, prior, in_jax, 1_500, verbose=0)
    few = sbi.simulate(0, prior, in_jax, 20, path=tmp_path, verbose=0)
    same(few, whole[:20])
    same(sbi.simulate(0, prior, in_jax, 1_500, path=tmp_path, verbose=0), whole)
    by_hand = in_jax(jax.random.fold_in(jax.random.split(jax.random.key(0))[1], 1_234), {"mean": whole.theta[1_234, 0]})
    close(whole.x[1_234], by_hand, 1e-6)
    scalar = sbi.simulate(0, sbi.Prior(flows.Normal(), 2), lambda key, theta: theta.sum(), 5, verbose=0)
    close(scalar.x[:, 0], scalar.theta.sum(1), 1e-6)


def test_simulations_are_like_lists(rows):
    both = rows[:3] + rows[3:]
    same(both, rows)
    assert len(list(rows[:3])) == 3 and len(rows[5]) == 1 and len(rows[-1]) == 1 and rows[[1, 2]].theta.shape == (2, 1)
    wrong = sbi.Simulations(rows.theta, np.where(np.arange(N)[:, None] == 4, np.nan, rows.x))
    assert np.flatnonzero(~wrong.valid).tolist() == [4]
    assert "expected (n, d) and (n, *shape)" in error_of(lambda: sbi.Simulations(np.zeros((3, 1)), np.zeros((2, 1))))
    assert "expected equal" in error_of(lambda: rows + sbi.Simulations(np.zeros((3, 1)), np.zeros((3, 5))))
    with pytest.raises(TypeError, match="expected real numbers"):
        sbi.Simulations(np.zeros((3, 1)), np.array([["a"]] * 3))


def test_a_row_that_fails_is_named_or_recorded(prior, rows, tmp_path):
    hot = rows.theta[:, 0] > 1
    message = error_of(lambda: sbi.simulate(0, prior, failing, N, workers=0, path=tmp_path, verbose=0))
    assert f"row {np.argmax(hot)} raised ValueError: too hot" in message and "rows are done, and in the folder" in message
    recorded = sbi.simulate(0, prior, failing, N, workers=0, failed="nan", path=tmp_path, verbose=0)
    np.testing.assert_array_equal(recorded.valid, ~hot)
    np.testing.assert_array_equal(recorded.x[~hot], rows.x[~hot])
    again = sbi.simulate(0, prior, in_python, N, workers=0, path=tmp_path, verbose=0)  # rows that failed run again
    np.testing.assert_array_equal(again.x, rows.x)
    assert "all of 2 rows failed" in error_of(
        lambda: sbi.simulate(0, prior, lambda rng, theta: 1 / 0, 2, workers=0, failed="nan", verbose=0)
    )


def test_errors_of_simulate(prior, rows, tmp_path):
    run = lambda simulator, **more: error_of(lambda: sbi.simulate(0, prior, simulator, N, verbose=0, **more))  # noqa: E731
    assert "is not a JAX function" in (message := run(in_python)) and "workers=0" in message
    first = int(np.argmax(rows.theta[:, 0] >= 1))
    assert f"row {first} has shape (4,), and earlier rows (3,)" in run(ragged, workers=0)
    wider = lambda rng, theta: np.zeros(3, np.float32 if theta["mean"] < 1 else np.float64)  # noqa: E731
    assert f"row {first} is of dtype float64, and earlier rows float32" in run(wider, workers=0)
    assert "it returns a tuple" in run(lambda key, theta: (1.0, 2.0))
    assert "raised SystemExit" in run(lambda rng, theta: sys.exit(3), workers=0)
    assert "row 0 is of dtype <U1" in run(lambda rng, theta: "a", workers=0)
    assert "cannot be sent to other processes" in run(lambda rng, theta: 1.0, workers=1)
    assert "expected one of 'raise', 'nan'" in run(in_jax, failed="skip")
    with pytest.raises(TypeError, match="got workers and executor"):
        run(in_python, workers=1, executor=1)
    assert "workers is -1" in run(in_python, workers=-1)
    with pytest.raises(TypeError, match="expected simulate"):
        run(3)
    with ThreadPoolExecutor(1) as stopped:
        pass
    assert "the executor cannot run the simulator (RuntimeError: cannot schedule" in run(in_python, executor=stopped)
    twice = lambda rng, theta: sbi.simulate(0, prior, in_python, 3, workers=0, path=tmp_path, verbose=0)  # noqa: E731
    assert "another call is writing to" in run(twice, workers=0, path=tmp_path)
    sbi.simulate(0, prior, in_python, 3, workers=0, path=tmp_path, verbose=0)  # the lock ended with the call
    assert "of another prior" in error_of(
        lambda: sbi.simulate(0, sbi.Prior({"mean": flows.Uniform()}), in_python, 3, workers=0, path=tmp_path, verbose=0)
    )
    pair = [sbi.Prior({name: flows.Normal() for name in names}) for names in ("ab", "ba")]
    first, second = (lambda p=p: sbi.simulate(0, p, in_jax_of_two, 3, path=tmp_path / "two", verbose=0) for p in pair)
    first()
    assert "of another prior" in error_of(second)
    longer = lambda key, theta: in_jax_of_two(key, theta)[:1]  # noqa: E731
    assert "and earlier rows in" in error_of(lambda: sbi.simulate(0, pair[0], longer, 1_200, path=tmp_path / "two", verbose=0))
    assert "of another rng" in error_of(lambda: sbi.simulate(1, prior, in_python, 3, workers=0, path=tmp_path, verbose=0))


def test_a_prior_in_float64_keeps_its_digits():
    with flows.diagnostics.enable_x64():
        prior = sbi.Prior({"mean": flows.Uniform(0.0, 0.1)})
        rows = sbi.simulate(0, prior, in_python, 5, workers=0, verbose=0)
        assert rows.theta.dtype == np.float64 and np.isfinite(prior.log_prob(rows.theta)).all()


def test_a_damaged_folder_is_refused(prior, tmp_path):
    def damaged(change):
        folder = tmp_path / change.__name__
        sbi.simulate(0, prior, in_python, 3, workers=0, path=folder, verbose=0)
        change(folder)
        return error_of(lambda: sbi.simulate(0, prior, in_python, 5, workers=0, path=folder, verbose=0))

    def cut_short(folder):
        (folder / "x.npy").write_bytes((folder / "x.npy").read_bytes()[:140])

    def no_description(folder):
        (folder / "about.json").unlink()

    def no_json(folder):
        (folder / "about.json").write_text("{")

    def objects(folder):
        np.save(folder / "x.npy", np.array([{"a": 1}] * 3, object), allow_pickle=True)

    def other_rows(folder):
        np.save(folder / "theta.npy", np.zeros((3, 2), np.float32))

    def no_theta(folder):
        (folder / "theta.npy").unlink()

    def fewer_rows(folder):
        np.save(folder / "x.npy", np.load(folder / "x.npy")[:2])

    def scalar(folder):
        np.save(folder / "done.npy", np.uint8(1))

    def another_format(folder):
        (folder / "about.json").write_text(json.dumps({"format": 2}))

    (tmp_path / "file").write_text("")
    run = lambda: sbi.simulate(0, prior, in_python, 3, workers=0, path=tmp_path / "file", verbose=0)  # noqa: E731
    assert "cannot be a folder" in error_of(run)
    for change in (cut_short, no_description, no_json, objects, other_rows, no_theta, fewer_rows, scalar):
        assert "is damaged" in damaged(change), change.__name__
    assert "of another format" in damaged(another_format)


def test_a_worker_that_is_killed_is_told(prior, tmp_path):
    message = error_of(lambda: sbi.simulate(0, prior, deadly, N, workers=1, path=tmp_path, verbose=0))
    assert "a worker was killed" in message or "the simulator killed them" in message


SCRIPT = """
import sys
sys.path[:0] = {path!r}
import flows, test_simulate
from flows import sbi
if {guarded}:
    prior = sbi.Prior({{"mean": flows.Normal()}})
    sbi.simulate(0, prior, test_simulate.slow, 200, workers={workers}, path={folder!r}, verbose=0)
"""


def script(folder, workers, guarded="__name__ == '__main__'"):
    path = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    return SCRIPT.format(path=path, folder=str(folder), workers=workers, guarded=guarded)


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing(tmp_path):
    whole, folder, done = tmp_path / "whole", tmp_path / "runs", [0]  # by processes whose programs are made in one way
    subprocess.run([sys.executable, "-c", script(whole, 0)], check=True)
    moments = np.random.default_rng(0).uniform(0.2, 2, 10)
    for moment in moments:
        process = subprocess.Popen([sys.executable, "-c", script(folder, 0)])
        began = time.monotonic()
        while not (folder / "done.npy").exists() and time.monotonic() < began + 60:
            time.sleep(0.05)
        time.sleep(moment / 4)
        process.kill()
        process.wait()
        done.append(int((np.load(folder / "done.npy") > 0).sum()))
    assert done == sorted(done) and done[-1] > 0, done
    subprocess.run([sys.executable, "-c", script(folder, 0)], check=True)
    for name in ("theta", "x", "done"):
        np.testing.assert_array_equal(np.load(folder / f"{name}.npy"), np.load(whole / f"{name}.npy"))


@pytest.mark.slow
def test_a_script_without_a_guard_is_told(tmp_path):
    (tmp_path / "script.py").write_text(script(tmp_path / "runs", 2, "True"))
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode and "if __name__ == '__main__':" in done.stderr.strip().splitlines()[-1]
