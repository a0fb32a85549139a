"""A fit that stops anywhere goes on as if it had not."""

import inspect
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flows
from flows.persistence.container import TEMPORARY
from flows.training.fingerprint import fingerprint
from flows.training.loop.checkpoint import NAME, Checkpoint

DATA = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32) * [1.0, 3.0]
SETTINGS = {"batch_size": 32, "max_epochs": 6, "checkpoint_every": 1e-9, "verbose": 0}
# Draws numbers in each step, and measures rows after each epoch.
NOISY = flows.Flow(flows.Serial(flows.BatchNorm(), flows.Coupling(flows.conditioners.Residual(4, 1, dropout=0.5))))


def fit(folder=None, init_fun=NOISY, data=DATA, **changes):
    return flows.fit(0, init_fun, data, checkpoint=folder, **{**SETTINGS, **changes})


def assert_equal(a, b):
    for one, other in zip(*(jax.tree.leaves((each.params, dict(each.history))) for each in (a, b)), strict=True):
        np.testing.assert_array_equal(one, other)


def stopped(folder, monkeypatch, after, **changes):
    """A fit that ends in the middle of writing its file for the time `after` + 1."""
    real, times = os.replace, []

    def replace(a, b):
        times.append(1)
        if len(times) > after:
            raise KeyboardInterrupt
        real(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            fit(folder, **changes)


@pytest.mark.parametrize("changes", [{}, {"optimizer": optax.adam(1e-2)}], ids=["default optimizer", "given optimizer"])
def test_a_stopped_fit_ends_with_the_same_bits(changes, tmp_path, monkeypatch):
    whole = fit(**changes)
    stopped(tmp_path, monkeypatch, 1, **changes)
    stopped(tmp_path, monkeypatch, 3, **changes)
    assert os.listdir(tmp_path) == [NAME]
    seen = []
    monkeypatch.setattr(Checkpoint, "save", lambda self, state, record, stream: seen.append(len(record[0]["train"])))
    assert_equal(fit(tmp_path, **changes), whole)
    assert seen[-1] == 6 and set(seen) <= {5, 6}, "it goes on after the fourth epoch, the last that was saved"


def test_a_fit_that_ended_is_returned_at_once(tmp_path, monkeypatch):
    first = fit(tmp_path)
    monkeypatch.setattr(Checkpoint, "save", lambda *_, **__: pytest.fail("it trains again"))
    assert_equal(fit(tmp_path), first)


def test_a_file_is_written_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    times = []
    monkeypatch.setattr(os, "replace", lambda a, b: (times.append(1), os.rename(a, b)))
    fit(tmp_path, checkpoint_every=3600.0)
    assert len(times) == 1
    fit(tmp_path / "early", checkpoint_every=3600.0, max_epochs=30, patience=1, learning_rate=0.3)
    assert len(times) == 2


def test_a_save_that_fails_is_an_error_at_first_and_then_a_warning(tmp_path, monkeypatch):
    real, times = os.replace, []

    def replace(a, b):
        times.append(1)
        if len(times) != works:
            raise OSError(28, "No space left on device")
        real(a, b)

    monkeypatch.setattr(os, "replace", replace)
    works = 0
    with pytest.raises(flows.FlowsError, match="No space left"):
        fit(tmp_path)
    times.clear()
    works = 1
    with pytest.warns(UserWarning, match="not saved, and its file is of an earlier epoch: .*No space left") as told:
        result = fit(tmp_path)
    assert len(told) == 5 and len(result.history["train_loss"]) == 6
    monkeypatch.undo()
    assert_equal(fit(tmp_path), result)


def test_only_old_temporary_files_are_taken_away(tmp_path):
    new, old = (tmp_path / name.join(TEMPORARY) for name in ("new", "old"))
    for each in (new, old):
        each.write_bytes(b"half")
    os.utime(old, (0, 0))
    fit(tmp_path)
    assert new.exists() and not old.exists()


def test_early_stopping_goes_on_too(tmp_path, monkeypatch):
    changes = {"max_epochs": 30, "patience": 4, "learning_rate": 0.03, "standardize": "columns"}
    whole = fit(**changes)
    assert 4 < len(whole.history["train_loss"]) < 30
    stopped(tmp_path, monkeypatch, 3, **changes)
    assert_equal(fit(tmp_path, **changes), whole)
    longer = fit(tmp_path, **{**changes, "patience": 9})
    assert len(longer.history["train_loss"]) > len(whole.history["train_loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": DATA[:, ::-1]}, "it has other rows of data"),
        ({"max_epochs": 7}, "max_epochs was 6, now 7"),
        ({"batch_size": 16}, "batch_size was 32, now 16"),
        ({"learning_rate": 1e-2}, r"learning_rate was 0\.005, now 0\.01"),
        ({"validation": DATA[:9]}, "validation was 0.1.* now .*'rows'"),
        ({"standardize": False}, "standardize was True"),
        ({"optimizer": optax.sgd(1e-3)}, "optimizer was 'default'"),
        ({"init_fun": flows.Flow(flows.ActNorm())}, r"model was .*BatchNorm.*ActNorm\(\)"),
    ],
)
def test_another_fit_is_not_gone_on_with(changes, message, tmp_path, ended):
    with pytest.raises(flows.FlowsError, match=message) as error:
        fit(ended, **changes)
    assert "Give another folder" in str(error.value)


def test_another_optimizer_is_seen_by_its_state(tmp_path):
    fit(tmp_path, optimizer=optax.adam(1e-3))
    with pytest.raises(flows.FlowsError, match="do not belong to this model and optimizer"):
        fit(tmp_path, optimizer=optax.sgd(1e-3, momentum=0.9))


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ended")
    fit(folder)
    return folder


def scaled(by):
    return lambda params, distribution, x: -(distribution.log_pdf(params, x) * by).mean()


def summed(by):
    return lambda params, distribution, x: -(distribution.log_pdf(params, x) * by).sum() / len(x)


def test_functions_of_one_name_are_told_apart():
    """By their code, and by what they hold; a function that does the same is the same, in any process."""
    module = type(sys)("of_another_run")
    exec(inspect.getsource(scaled), vars(module))
    told = [
        fingerprint(each, "it")
        for each in (
            scaled(1.0), scaled(2.0), summed(1.0), scaled(np.ones(3)), scaled(np.ones(4)), scaled((1.0, {"a": jnp.ones(2)})),
            partial(scaled(1.0), x=1), partial(scaled(1.0), x=2), jax.jit(scaled(1.0)), scaled(flows.NSF(2)),
            scaled(flows.NSF(3)), scaled(jax.random.key(0)), scaled(jax.random.key(1)), scaled(NOISY(0, 2).log_pdf),
            scaled(np.sin), scaled({1, 2}),
            lambda params, distribution, x, *, by=1.0: x, lambda params, distribution, x, *, by=2.0: x, of_this_module,
        )
    ]  # fmt: skip
    assert len(set(told)) == len(told)
    again = vars(module)["scaled"](1.0)
    assert fingerprint(scaled(1.0), "it") == told[0] == fingerprint(again, "it")
    assert fingerprint(scaled({2, 1}), "it") == told[15]
    with pytest.raises(flows.FlowsError, match=r"it refers to Generator.*, and a checkpoint cannot know"):
        fingerprint(scaled(np.random.default_rng(0)), "it")


SETTING = [1.0]


def of_this_module(params, distribution, x):
    return SETTING[0] * x


def test_a_variable_that_an_objective_names_is_part_of_it(monkeypatch):
    before = fingerprint(of_this_module, "it")
    monkeypatch.setitem(globals(), "SETTING", [2.0])
    assert fingerprint(of_this_module, "it") != before


def test_another_objective_of_the_name_does_not_go_on(tmp_path):
    small = {"init_fun": flows.Normal(trainable=True), "max_epochs": 1}
    first = fit(tmp_path, objective=scaled(1.0), **small)
    assert_equal(fit(tmp_path, objective=scaled(1.0), **small), first)
    with pytest.raises(flows.FlowsError, match=r"of another fit: objective was .*<lambda>, code and constants"):
        fit(tmp_path, objective=scaled(2.0), **small)


def test_damaged_and_foreign_files(tmp_path, ended):
    data = bytearray((ended / NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / NAME).write_bytes(data)
    with pytest.raises(flows.FlowsError, match="damaged"):
        fit(tmp_path)
    fit().save(tmp_path / NAME)
    with pytest.raises(flows.FlowsError, match="not a checkpoint"):
        fit(tmp_path)
    with pytest.raises(flows.FlowsError, match="the checkpoint of a fit"):
        flows.load(ended / NAME)
    with pytest.raises(flows.FlowsError, match="is not a folder that can be written"):
        fit(tmp_path / NAME)
    with pytest.raises(flows.FlowsError, match="checkpoint_every"):
        fit(tmp_path, checkpoint_every=0.0)


CHILD = """
import sys; sys.path[:0] = [{root!r}, {tests!r}, {here!r}]
import conftest, test_checkpoint  # programs are made as in this process
test_checkpoint.fit({folder!r}, max_epochs=400, patience=400)
"""


def test_a_killed_fit_goes_on(tmp_path):
    """Twice, at any instant, while it does little but write."""
    here = Path(__file__).parent
    code = CHILD.format(root=str(here.parents[1]), tests=str(here.parent), here=str(here), folder=str(tmp_path))
    path, wait, written = tmp_path / NAME, np.random.default_rng(0), 0.0
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            for _ in range(600):
                time.sleep(0.1)
                if process.poll() is not None or (path.exists() and path.stat().st_mtime > written):
                    break
            time.sleep(wait.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, "it had ended before"
        written = path.stat().st_mtime
    assert_equal(fit(tmp_path, max_epochs=400, patience=400), fit(max_epochs=400, patience=400))
