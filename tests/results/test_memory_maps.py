"""Rows of a memory map, scored in little memory: by `make test-all`."""

import threading
from pathlib import Path

import numpy as np
import pytest

import flows

STATUS = Path("/proc/self/status")
ROWS = 25_000_000


def held():
    """Bytes of this process, without the pages of files that it reads."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="memory is counted as Linux counts it")
def test_two_gigabytes_of_rows_are_scored_in_little_memory(tmp_path):
    few = np.random.default_rng(0).normal(size=(1_000, 20)).astype(np.float32)
    result = flows.fit(0, flows.Flow(flows.RealNVP(2, hidden=(4,))), few, max_epochs=1, folds=1, verbose=0)
    rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(ROWS, 20))  # a file with holes, which are zeros
    rows[:1_000], rows[-1_000:] = few, few
    most, over = [held()], threading.Event()

    def watch():
        while not over.wait(0.02):
            most[0] = max(most[0], held())

    before, watcher = held(), threading.Thread(target=watch)
    watcher.start()
    scores = np.asarray(result.log_prob(np.memmap(tmp_path / "rows", np.float32, "r", shape=(ROWS, 20))))
    over.set()
    watcher.join()
    assert rows.nbytes == 2 * 10**9 and most[0] - before < 250e6 + scores.nbytes  # of 700, which JAX has half of
    np.testing.assert_array_equal(scores[:1_000], scores[-1_000:])
    np.testing.assert_allclose(scores[:1_000], result.log_prob(few), rtol=1e-5)
    assert np.ptp(scores[1_000:-1_000]) == 0 and np.ptp(scores[:1_000]) > 1
